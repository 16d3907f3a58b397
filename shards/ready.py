"""Lines as a model sees them, kept on the node's own disk after they were made once: evened, scaled, raw pixels.

    places.map    of each row of the index where its record lies: 8 bytes, 0 for none
    data-NNN.raw  records (shards.decoding) one after the other; each worker appends to a file that no other holds

A record is written before its place is. The folder's name says of which data set (its index), height, code and OpenCV
its lines are, and of which boot of the node: after a crash of the node what was written last may be missing, and all is
thrown away. What does not fit is not kept: its lines are made of the shards again.
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from htr.lines import normalise
from shards import files
from shards.decoding import Damaged, pack_record, unpack_record

SPARE_BYTES, SPARE_SHARE = 1 << 30, 0.05  # of the disk, left to others: the larger one
LOOK_EVERY_BYTES = 64 << 20  # that are written between two looks at what is free
UNIT = 64  # bytes, what places are counted in
MOST_FILES = 256


class Ready(NamedTuple):
    """Where a record lies."""

    file: int
    offset: int  # bytes
    size: int


def prepare(digest: str, rows: int, height: int, disk: Path) -> Path:
    """-> the folder for the lines at this height of a data set, by the digest of its index of so many rows; made now
    where it is not there, by any number of processes. Raises ValueError where another user's folder is in the way,
    OSError where not even the places fit."""
    own, boot = files.own_folder(disk), boot_id()
    for old in own.glob("ready-*"):
        if not old.name.endswith(boot):
            shutil.rmtree(old, ignore_errors=True)
    folder = own / f"ready-{digest}-{height}-{code()}-{boot}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "places.map"
    if not path.exists():
        attempt = files.temporary(path)
        try:
            with files.named(path), open(attempt, "wb") as file:
                os.posix_fallocate(
                    file.fileno(), 0, max(8 * rows, 8)
                )  # a full disk is an error now, no bus error later
            files.commit(attempt, path)
        finally:
            attempt.unlink(missing_ok=True)
    return folder


def boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "")[:12]
    return "unknown"


def code() -> str:
    """Of what makes a line what it is."""
    made = Path(normalise.__file__).read_bytes() + f"{cv2.__version__} {cv2.getCPUFeaturesLine()}".encode()
    return hashlib.sha256(made).hexdigest()[:12]


class ReadyLines:
    """The lines of one data set, for one process."""

    def __init__(self, folder: Path, height: int):
        self.folder, self.height = folder, height
        with open(folder / "places.map", "r+b") as file:
            self.places = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint64)
        self.handles: dict[int, int] = {}
        self.own: int | None = None  # the number of the file that this process writes to
        self.lock = -1  # its handle
        self.end = self.looked = 0
        self.full = False

    def find(self, row: int) -> Ready | None:
        place = int(self.places[row])
        if not place:
            return None
        return Ready(place >> 56, (place >> 22 & (1 << 34) - 1) * UNIT, (place & (1 << 22) - 1) * UNIT)

    def read(self, place: Ready) -> tuple[list[np.ndarray], str, str]:
        """-> lines (H, W) uint8, read only, text, key. Raises ValueError where the file is not what was written."""
        if place.file not in self.handles:
            self.handles[place.file] = os.open(self.folder / name(place.file), os.O_RDONLY | os.O_CLOEXEC)
        content = os.pread(self.handles[place.file], place.size, place.offset)
        try:
            return unpack_record(content, self.height)
        except Damaged:
            path = self.folder / name(place.file)
            raise ValueError(f"{path}: damaged: remove the folder, its lines are made again") from None

    def add(self, row: int, lines: list[np.ndarray], text: str, key: str) -> Ready | None:
        """Keep them, where there is room."""
        if self.full or not self.room():
            return None
        content = pack_record(lines, text, key)
        size = -(-len(content) // UNIT)
        place = Ready(self.own, self.end, size * UNIT)
        try:
            write(self.lock, content.ljust(size * UNIT, b"\0"), self.end)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self.full = True
            return None
        self.end += size * UNIT
        self.places[row] = self.own << 56 | (place.offset // UNIT) << 22 | size
        return place

    def room(self) -> bool:
        if self.own is None and not self.take_file():
            self.full = True
        elif self.end >= self.looked:
            disk = shutil.disk_usage(self.folder)
            self.full = disk.free < max(SPARE_BYTES, SPARE_SHARE * disk.total) + LOOK_EVERY_BYTES
            self.looked = self.end + LOOK_EVERY_BYTES
        return not self.full

    def take_file(self) -> bool:
        """A file that no other process writes to, one that is there or a new one."""
        for number in range(MOST_FILES):
            handle = os.open(self.folder / name(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of the node's own disk: locks work
            except BlockingIOError:
                os.close(handle)
                continue
            self.own, self.end = number, -(-os.fstat(handle).st_size // UNIT) * UNIT
            self.lock = handle
            return True
        return False

    def close(self) -> None:
        for handle in {*self.handles.values(), *([self.lock] if self.own is not None else [])}:
            os.close(handle)
        self.handles.clear()
        self.own = None


def name(number: int) -> str:
    return f"data-{number:03d}.raw"


def write(handle: int, content: bytes, offset: int) -> None:
    left = memoryview(content)
    while left:
        done = os.pwrite(handle, left, offset)
        left, offset = left[done:], offset + done
