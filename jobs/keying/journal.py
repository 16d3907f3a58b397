"""The journal: what operators answered, append-only, on disk before anybody is told so.

A line is the CRC-32 of a JSON object, a space, the object. A plain file rather than SQLite, whose write-ahead log needs
shared memory that network file systems do not have. One thread writes: whatever has arrived while it waited for the
disk goes out together with one fsync. Of a process that was killed, or a machine that lost power, the last lines may be
cut short: they were never acknowledged and are set aside, with a word. A bad line with good ones after it is damage,
and is refused.
"""

import errno
import json
import os
import queue
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from shards import files

CLOSE = None  # what ends the writing thread


class Journal:
    """journal = Journal(path); journal.records; journal.append(record).result()"""

    def __init__(self, path: Path, ours: Callable[[], bool] = lambda: True):
        """Creates the file (mode 0600) where there is none. Raises ValueError for one that is damaged. `ours`: asked
        before every write, since who was stopped for a while may have lost the table to somebody else.
        """
        self.path, self.ours, self.failure = path, ours, None
        new = not path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.handle = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ValueError(f"{path}: a link, which may lead anywhere: put the journal itself there") from None
        if os.fstat(self.handle).st_mode & 0o077:  # it was copied, say
            os.fchmod(self.handle, 0o600)
        if new:
            files.sync(path.parent)
        self.records, whole, self.torn = read(path)
        if self.torn:
            set_aside(path, whole)
        self.waiting: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def append(self, record: dict) -> Future:
        """-> done once the record is on disk; fails with OSError where it is not. After a failure all others fail too:
        what the kernel has dropped once it does not report again.
        """
        done: Future = Future()
        self.waiting.put((line_of(record), done))
        return done

    def close(self) -> None:
        """After what was appended is on disk."""
        self.waiting.put(CLOSE)
        self.thread.join()
        os.close(self.handle)

    def _write(self) -> None:
        ended = False
        while not ended:
            batch = [self.waiting.get()]
            while not self.waiting.empty():
                batch.append(self.waiting.get())
            ended = CLOSE in batch
            batch = [entry for entry in batch if entry is not CLOSE]
            try:
                if batch and self.failure is None:
                    self._commit(b"".join(line for line, _ in batch))
            except OSError as error:
                self.failure = OSError(error.errno, error.strerror, str(self.path))
            for _, done in batch:
                if self.failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(self.failure)

    def _commit(self, content: bytes) -> None:
        if not self.ours():
            raise OSError(errno.ESTALE, "another server has taken the table over")
        while content:
            content = content[os.write(self.handle, content) :]
        os.fsync(self.handle)


def line_of(record: dict) -> bytes:
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def record_of(line: bytes) -> dict | None:
    """None for a line that is not whole."""
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        return json.loads(line[9:])
    except ValueError:
        return None


def read(path: Path) -> tuple[list[dict], int, int]:
    """-> the records, the bytes that they take, the bytes after them that are no whole record.

    Raises ValueError where a good record follows a bad one.
    """
    content = path.read_bytes()
    found, whole, at, bad = [], 0, 0, 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        record = record_of(line)
        at += len(line) + 1
        if record is None:
            bad = bad or number
        elif bad:
            raise ValueError(f"{path}: line {bad} is damaged, and good ones follow: restore the file from a copy")
        else:
            found.append(record)
            whole = at
    return found, whole, len(content) - whole


def set_aside(path: Path, whole: int) -> None:
    """Cut the file behind its last whole record; what stood there is kept in a file beside it."""
    with open(path, "rb") as file:
        file.seek(whole)
        rest = file.read()
    aside = files.temporary(path).with_suffix(".torn")
    files.write_synced(aside, rest)
    os.chmod(aside, 0o600)
    os.truncate(path, whole)
    files.sync(path)
    files.sync(path.parent)
