"""Files that are whole or not there: a temporary name, fsync, then a rename or a link."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path


def temporary(path: Path) -> Path:
    """A name beside `path` that no other attempt has, here or on another node."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def replace(path: Path, content: bytes | str, attempts: Path | None = None) -> None:
    """Write a whole file, over an older one if there is one. OSError (a full disk) leaves nothing behind.

    `attempts`: the folder, on the same file system, that the file is made in before it gets its name (default: beside
    it). Whoever removes that folder keeps all who write through it from finishing.
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
def named(path: Path) -> Iterator[None]:
    """An OSError inside that names no file, as that of a full disk, is given this one's name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_text(path: Path, tries: int = 5) -> str:
    """Of a small file that others replace while it is read: NFS says ESTALE of one that has gone meanwhile."""
    for left in reversed(range(tries)):
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            if error.errno != errno.ESTALE or not left:
                raise
            time.sleep(0.05)
    raise AssertionError


def commit(attempt: Path, path: Path) -> bool:
    """Give a whole, synced file its final name unless somebody was first. -> whether it was this one."""
    try:
        os.link(attempt, path)
    except FileExistsError:
        return False
    finally:
        attempt.unlink(missing_ok=True)
    sync(path.parent)
    return True


def write_synced(path: Path, content: bytes | str) -> None:
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """A file that others wrote, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: dict) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
