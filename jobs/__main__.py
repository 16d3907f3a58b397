"""python -m jobs VERB: the command line; see jobs/cli/command_line.py."""

import sys

from jobs.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
