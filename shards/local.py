"""Shards on the node's own disk: copied once, whole or not there, by whichever processes of the node need them.

A copy is read in place of the shared one, so its folder belongs to this user alone, and each shard's SHA-256 is taken
while it is copied. What is there stays for the next job on the node: it is the site's to clear, or `rm -r` removes it.
"""

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from shards import files
from shards.index import Index

COPY_BYTES = 8 << 20  # bytes copied at once
SPARE_BYTES = 1 << 30  # bytes that are left to others


def copy_shards(index: Index, names: Iterable[str], disk: Path) -> Path:
    """-> the folder on this disk that now holds these shards of the data set. Any number of processes may at once: each
    copies what no other is at, then waits for the rest.

    Raises ValueError where there is no room for them, before anything is copied, or a shard is not what was committed;
    OSError as the disk does.
    """
    wanted = set(names)
    shards = [shard for shard in index.shards if shard["shard"] in wanted]
    folder = own_folder(disk / f"htr-{os.getuid()}") / index.fingerprint
    folder.mkdir(mode=0o700, exist_ok=True)
    assert_room(folder, shards)
    later = [shard for shard in shards if not copied(index.folder, folder, shard, wait=False)]
    for shard in later:
        copied(index.folder, folder, shard, wait=True)
    return folder


def own_folder(path: Path) -> Path:
    """Made where it is missing; one that is somebody else's could hold anything."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        there = path.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
            raise ValueError(f"{path}: not a folder that you alone may use: set HTR_SCRATCH to another one") from None
    return path


def assert_room(folder: Path, shards: list[dict]) -> None:
    missing = [shard for shard in shards if not whole(folder / f"{shard['shard']}.tar", shard)]
    # what other processes are at lies there under its temporary name
    under_way = sum(path.stat().st_size for path in folder.glob(".*.tmp") if path.exists())
    needed = max(sum(shard["bytes"] for shard in missing) - under_way, 0)
    free = shutil.disk_usage(folder).free
    if missing and needed + SPARE_BYTES > free:
        raise ValueError(
            f"{folder}: {len(missing)} shards of {needed / 2**30:.1f} GiB are to be copied, {free / 2**30:.1f} GiB are "
            f"free (1 is left to others): set HTR_SCRATCH to a larger disk, or leave --local-copy out"
        )


def whole(path: Path, shard: dict) -> bool:
    try:
        return path.stat().st_size == shard["bytes"]
    except FileNotFoundError:
        return False


def copied(source: Path, folder: Path, shard: dict, wait: bool) -> bool:
    """Whether it is there now; False where another process is at it and `wait` is not."""
    path = folder / f"{shard['shard']}.tar"
    if whole(path, shard):
        return True
    with open(folder / f"{shard['shard']}.lock", "wb") as lock:  # of the node's own disk: locks work
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not whole(path, shard):
            for old in folder.glob(f".{path.name}.*.tmp"):  # of a process that was killed: nobody else is at it
                old.unlink(missing_ok=True)
            copy(source / path.name, path, shard)
    return True


def copy(source: Path, path: Path, shard: dict) -> None:
    attempt, digest = files.temporary(path), hashlib.sha256()
    try:
        with open(source, "rb") as shared, open(attempt, "wb") as local:
            while chunk := shared.read(COPY_BYTES):
                local.write(chunk)
                digest.update(chunk)
            local.flush()
            os.fsync(local.fileno())
        if digest.hexdigest() != shard["sha256"]:
            raise ValueError(
                f"{source}: changed since it was committed, not copied (see python -m jobs verify {source.parent})"
            )
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
    files.sync(path.parent)
