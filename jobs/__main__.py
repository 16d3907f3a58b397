"""python -m jobs VERB: the command line; see jobs/cli/command_line.py."""

import os
import sys

from jobs.cli.command_line import main
from jobs.cli.console import give_up_lines


def in_utf_8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding: else the name of a file, a worker's or
    another program's output would be read as what they are not."""
    if sys.getfilesystemencoding().lower() != "utf-8" or (sys.stdout.encoding or "utf-8").lower() != "utf-8":
        environ = os.environ | {"PYTHONUTF8": "1"}
        if os.environ.get("PYTHONUTF8") != "1":
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)


def open_streams() -> None:
    """Where stdin, stdout or stderr is closed (2>&-), put /dev/null there: else a file of the work would get its
    number, and what libraries print would be written into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free is taken: this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    open_streams()
    in_utf_8()
    try:
        sys.exit(main())
    finally:
        give_up_lines()
