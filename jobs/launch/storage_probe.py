"""What shards, runs and claims ask of storage, tried by the doctor on every node: alone, and against the other nodes.

What has to hold: a link is refused where the name is taken, of several nodes that link one name a single one succeeds,
and who reads a file that is being replaced reads one version of it whole.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shards import files

# seconds until a file of one node must be there on another: as long as NFS may remember that it is not
VISIBLE_WITHIN_S = 60.0
CONTESTS = 20  # names that all nodes want to link
TURNS, VERSION_BYTES = 50, 5000  # how often a file is replaced while the others read it; of each version


def storage(folder: Path, node: int, token: str) -> dict:
    """Write, link and rename files in this folder as shards and runs do. -> what was found. Raises OSError where the
    file system can't."""
    until(
        lambda: os.path.isdir(folder),
        time.monotonic() + VISIBLE_WITHIN_S,
        f"{folder.parent} is not the same folder here",
    )
    path, began = folder / f"node-{node}", time.time()
    for is_first in (True, False):
        again = files.temporary(path)
        files.write_synced(again, "linked")
        if files.commit(again, path) != is_first:
            raise OSError(
                "os.link replaces a file that is there" if is_first is False else "os.link says a file is there"
            )
    files.replace(path, token)
    changed, now, space = path.stat().st_mtime, time.time(), os.statvfs(folder)
    return {
        "free": space.f_bavail * space.f_frsize,
        "inodes": space.f_favail if space.f_files else None,  # some file systems don't count
        "mode": folder.parent.stat().st_mode & 0o777,
        "clock": round(min(changed - began, 0) or max(changed - now, 0), 1),  # the file server's, ahead of ours
    }


def see(folder: Path, peer: dict, deadline: float) -> float:
    """Seconds until the other node's file was visible here with its content. Raises ValueError: not before the
    deadline."""
    name, began = f"node-{peer['node']}", time.monotonic()
    # a listing asks the file server again, where the file's name alone is answered from a cache
    there = lambda: name in os.listdir(folder) and (folder / name).read_text(encoding="utf-8") == peer["token"]  # noqa: E731
    until(there, deadline, f"its file did not appear within {VISIBLE_WITHIN_S:g} s")
    return round(time.monotonic() - began, 1)


def until(there: Callable[[], bool], deadline: float, late: str) -> None:
    while True:
        with suppress(OSError):
            if there():
                return
        if time.monotonic() > deadline:
            raise ValueError(late)
        time.sleep(0.2)


def contest(folder: Path, node: int, peers: list[dict]) -> dict:
    """All nodes link the same names at the same time, and replace a file each that the others read. -> {"won": the
    names that this node linked, "torn": contents that nobody wrote as a whole}."""
    ended, torn = threading.Event(), []
    threads = [
        threading.Thread(target=read_versions, args=(folder / f"turning-{peer['node']}", ended, torn), daemon=True)
        for peer in peers
    ]
    files.replace(folder / f"turning-{node}", version(0))
    for thread in threads:
        thread.start()
    won = []
    for number in range(CONTESTS):
        attempt = files.temporary(folder / f"contest-{number}")
        files.write_synced(attempt, str(node))
        if files.commit(attempt, folder / f"contest-{number}"):
            won.append(number)
    for number in range(TURNS):
        files.replace(folder / f"turning-{node}", version(number))
    ended.set()
    for thread in threads:
        thread.join(10)
    return {"won": won, "torn": sorted(set(torn))}


def version(number: int) -> str:
    return f"{number % 10}" * VERSION_BYTES


def read_versions(path: Path, ended: threading.Event, torn: list[str]) -> None:
    """Read another node's file again and again until `ended`; contents that nobody wrote as a whole are added to
    `torn`."""
    seen = False
    while not ended.is_set():
        try:
            text = files.read_text(path)
        except OSError as error:
            if seen or not isinstance(error, FileNotFoundError):
                torn.append(f"{type(error).__name__} of a file that is being replaced")
            continue
        seen = True
        if len(text) != VERSION_BYTES or len(set(text)) != 1:
            torn.append("parts of two versions of a file that is being replaced")
        time.sleep(0.001)
