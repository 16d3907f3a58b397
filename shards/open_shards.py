"""Shards that are open for reading: not more than some hundred at once, and read in full whatever the storage does."""

import contextlib
import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from shards import files

MAX_OPEN = 256  # shards of a rank, all of its workers together
TRIES, FIRST_PAUSE_S = 4, 0.25  # reads of the same bytes; seconds before the second one, twice as many before the next
PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}  # what a server that fails over, or a replaced file, makes of a read


under_way: dict[int, str] = {}  # the shard that each thread of this process reads now
others: list[Callable[[], list[str]]] = []  # ask what other processes read for this one


def shards_under_way() -> list[str]:
    """The names of the shards that this process and its workers are reading from now, sorted: what it waits for if no
    data comes."""
    return sorted({*under_way.copy().values(), *(name for ask in list(others) for name in ask())})


class OpenShards:
    """Shards that are open for reading, the most recently used ones. Any number of threads may read."""

    def __init__(self, most: int = MAX_OPEN, note: Callable[[], None] = lambda: None):
        """`note` is called whenever what is under way is another."""
        self.most, self.note = max(most, 1), note
        self.lock = threading.Lock()
        self.handles: OrderedDict[Path, int] = OrderedDict()  # the one that was used last at the end
        self.used: dict[Path, int] = {}  # by how many threads, now

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[int]:
        with self.lock:
            if path not in self.handles:
                self.handles[path] = open_now(path)
            self.handles.move_to_end(path)
            self.used[path] = self.used.get(path, 0) + 1
            self.close_oldest()
            handle = self.handles[path]
        try:
            yield handle
        finally:
            with self.lock:
                self.used[path] -= 1
                if not self.used[path]:
                    del self.used[path]
                self.close_oldest()

    def close_oldest(self) -> None:
        for path in list(self.handles)[: max(len(self.handles) - self.most, 0)]:
            if path not in self.used:
                os.close(self.handles.pop(path))

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, or fewer where the file ends before. An error that may pass is tried again some
        times; then OSError is raised, which names the file."""
        pause, thread = FIRST_PAUSE_S, threading.get_ident()
        under_way[thread] = path.name
        self.note()
        try:
            for _ in range(TRIES - 1):
                try:
                    return self.read_once(path, offset, size)
                except OSError as error:
                    if error.errno not in PASSING:
                        raise
                self.forget(path)
                time.sleep(pause)
                pause *= 2
            return self.read_once(path, offset, size)
        finally:
            under_way.pop(thread, None)
            self.note()

    def read_once(self, path: Path, offset: int, size: int) -> bytes:
        with files.named(path), self.opened(path) as handle:
            return read_all(handle, size, offset)

    def forget(self, path: Path) -> None:
        """Open the file anew the next time, since the server may have replaced it."""
        with self.lock:
            if path in self.handles and path not in self.used:
                os.close(self.handles.pop(path))

    def close(self) -> None:
        with self.lock:
            for handle in self.handles.values():
                os.close(handle)
            self.handles.clear()


def open_now(path: Path) -> int:
    """A pipe in a shard's place is opened at once, too: it can't be read from an offset, which is an error that names
    it, while nobody would ever write to it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    return handle


def read_all(handle: int, size: int, offset: int) -> bytes:
    """`size` bytes from `offset`, or fewer where the file ends before. A file system may return fewer than asked at a
    time."""
    content = os.pread(handle, size, offset)
    while 0 < len(content) < size:
        more = os.pread(handle, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content
