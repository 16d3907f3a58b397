"""python -m jobs VERB: the command line; see jobs/cli/command_line.py."""

import os
import sys

from jobs.cli.command_line import main


def in_utf_8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding: else the name of a file, a worker's or
    another program's output would be read as what they are not."""
    if sys.getfilesystemencoding().lower() != "utf-8" or (sys.stdout.encoding or "utf-8").lower() != "utf-8":
        environ = os.environ | {"PYTHONUTF8": "1"}
        if os.environ.get("PYTHONUTF8") != "1":
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


if __name__ == "__main__":
    in_utf_8()
    sys.exit(main())
