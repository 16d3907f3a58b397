"""Files that are whole or not there: a temporary name, and the error of a full disk that names the file."""

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it


def temporary(path: Path) -> Path:
    """A name beside `path` that no other attempt has, on this node or another."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def named(path: Path, only: Sequence[int] = ()) -> Iterator[None]:
    """Give an OSError that names no file, as that of a full disk does, this file's name. `only`: numbers of the errors
    that can be of no other file, where others are read meanwhile (default: all)."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (not only or error.errno in only):  # without a number no name is shown
            error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def attempt_at(path: Path) -> Iterator[Path]:
    """-> a temporary name for a file that is to get the name `path`. What has that name at the end is removed; the
    error of a full disk names `path`."""
    attempt = temporary(path)
    try:
        with named(path, FULL):
            yield attempt
    finally:
        attempt.unlink(missing_ok=True)
