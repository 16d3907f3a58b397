"""Files that are whole or not there: a temporary name, fsync, then a rename or a link. And the folder of this user on
the node's own disk."""

import contextlib
import errno
import hashlib
import json
import os
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from htr.whole_files import attempt_at, named, temporary


def replace(path: Path, content: bytes | str, attempts: Path | None = None) -> None:
    """Write a whole file under its name, in place of one that is there. Raises OSError (a full disk), and leaves
    nothing behind then.

    `attempts`: a folder on the same file system in which the file is made before it gets its name (default: beside it).
    Removing that folder keeps everyone who writes through it from finishing.
    """
    attempt = temporary(attempts / path.name if attempts else path)
    try:
        with named(path):
            write_synced(attempt, content)
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
    sync(path.parent)


@contextlib.contextmanager
def first_at(path: Path) -> Iterator[Path]:
    """As attempt_at, for a file that several attempts may make alike: at the end it is synced and gets the name, unless
    another attempt was first; that one may even have swept this one's file since."""
    try:
        with attempt_at(path) as attempt:
            yield attempt
            sync(attempt)
            commit(attempt, path)
    except FileNotFoundError:
        if not path.exists():
            raise


def read_text(path: Path, tries: int = 5) -> str:
    """The content of a small file that others may replace meanwhile: NFS answers ESTALE for one that has gone, and it
    is opened again then, `tries` times at most."""
    for left in reversed(range(tries)):
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE or not left:
                raise
            time.sleep(0.05)
    raise AssertionError


def read_json(path: Path, advice: str = "restore it from a copy") -> dict:
    """The object that a file of JSON holds. Raises ValueError, which names it and gives the advice, where it is
    damaged; FileNotFoundError.
    """
    try:
        content = json.loads(read_text(path))
    except ValueError:  # json does not know which file it was
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: damaged, it holds no JSON object: {advice}")
    return content


def commit(attempt: Path, path: Path) -> bool:
    """Give a complete, synced file its final name, unless that exists. -> whether this call did it."""
    try:
        os.link(attempt, path)
    except FileExistsError:
        return False
    finally:
        attempt.unlink(missing_ok=True)
    sync(path.parent)
    return True


def write_synced(path: Path, content: bytes | str) -> None:
    """Write a file and wait until the storage has it (fsync). Raises OSError."""
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until the storage has a file that was written elsewhere, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Of the file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: dict) -> str:
    """Indented, with sorted keys and a line feed at the end: the same content is the same bytes."""
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def in_shell(path: Path) -> str:
    """A path as a word of a command that a person copies: quoted where it has spaces or the like, and no option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def own_folder(disk: Path | None = None) -> Path:
    """A folder of this user on the node's own disk: below `disk`, HTR_SCRATCH, or the folder of temporary files. Raises
    ValueError where it belongs to another user."""
    disk = disk or Path(os.environ.get("HTR_SCRATCH") or tempfile.gettempdir())
    path = disk / f"htr-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        there = path.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
            raise ValueError(f"{path}: not a folder that you alone may use: set HTR_SCRATCH to another one") from None
    return path
