"""Columns of numbers in one file, mapped: a page of it is in a node's memory once, whichever processes read it.

A line of JSON (what the columns are, and what the file is of), then each column's numbers as they lie in memory, little
endian, each column at a multiple of 64 bytes, then the CRC-32 of all that. The file appears whole or not at all. Who
reads it does not add it up: `changed` does, for `verify`.
"""

import contextlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards import files
from shards.claim import take_turns

MAGIC = b"htr columns 1\n"
HEAD_BYTES = 4096  # of the line of JSON, or a multiple of so many
SUM = struct.Struct("<I")
ADDED_TOGETHER = 1 << 26  # bytes


@dataclass(frozen=True)
class Columns:
    """Columns of numbers, mapped from their file, and the note that was written with them."""

    path: Path
    note: dict  # what the file is of
    columns: dict[str, np.ndarray]  # read only

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]


def small_dtype(most: int) -> np.dtype:
    """The smallest unsigned integer type that holds 0 to `most`."""
    return np.dtype(np.min_scalar_type(int(most))).newbyteorder("<")


def write_columns(
    path: Path, note: dict, columns: dict[str, tuple[np.dtype, int]], fill: Callable[[dict[str, np.ndarray]], None]
) -> None:
    """Write a file of columns, which appears whole or not at all.

    `columns`: the type and length of each; `fill` gets them as arrays of zeros and writes their numbers. Raises
    OSError.
    """
    placed, at = {}, 0
    for name, (dtype, count) in columns.items():
        placed[name] = (np.dtype(dtype).newbyteorder("<").str, count, at)
        at += -(-count * np.dtype(dtype).itemsize // 64) * 64
    head = MAGIC + json.dumps({"note": note, "columns": placed, "bytes": at, "sum": True}).encode() + b"\n"
    head = head.ljust(-(-len(head) // HEAD_BYTES) * HEAD_BYTES)
    size = len(head) + max(at, 1)
    attempt = files.temporary(path)
    try:
        with files.named(path), open(attempt, "w+b") as file:
            file.write(head)
            # the room is taken now: a full disk is an error here, and no bus error later
            os.posix_fallocate(file.fileno(), 0, size + SUM.size)
            file.flush()
            mapped = mmap.mmap(file.fileno(), size)
            arrays = views(mapped, placed, len(head))
            fill(arrays)
            arrays.clear()
            mapped.flush()
            file.seek(size)
            file.write(SUM.pack(sum_of(mapped, size)))
            file.flush()
            with contextlib.suppress(BufferError):  # `fill` may have kept a view of it
                mapped.close()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
    files.sync(path.parent)


def read_columns(path: Path) -> Columns:
    """Map the columns of a file. Raises FileNotFoundError, and ValueError for a file that is no such one, or is cut
    short."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path}: not a file of columns: remove it, it is made again")
        line = file.readline()
        start = -(-(len(MAGIC) + len(line)) // HEAD_BYTES) * HEAD_BYTES
        try:
            head = json.loads(line)
            whole = size >= start + head["bytes"]
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise ValueError(f"{path}: cut short or damaged: remove it, it is made again")
        # private: a mount without a page cache, as FUSE may be, refuses a shared mapping
        mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    return Columns(path, head["note"], views(mapped, head["columns"], start))


def sum_of(content: mmap.mmap, size: int) -> int:
    """The CRC-32 of its first bytes, so many."""
    found = 0
    for start in range(0, size, ADDED_TOGETHER):
        found = zlib.crc32(content[start : min(start + ADDED_TOGETHER, size)], found)
    return found


def changed(path: Path) -> bool:
    """Whether a file of columns is another one than was written. Files of older versions have no sum: it is not known
    then. Raises FileNotFoundError."""
    with open(path, "rb") as file:
        try:
            has_sum = file.read(len(MAGIC)) != MAGIC or json.loads(file.readline()).get("sum")
        except (ValueError, AttributeError):
            has_sum = True
        if not has_sum:
            return False
        content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
        size = len(content) - SUM.size
        return size < 0 or SUM.unpack(content[size:])[0] != sum_of(content, size)


def views(mapped: mmap.mmap, placed: dict[str, tuple], start: int) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(mapped, np.dtype(dtype), count, start + at) for name, (dtype, count, at) in placed.items()
    }


def made_once(path: Path, note: dict, make: Callable[[], None]) -> Columns:
    """The columns at this path, whose note says this among other things; made now where they are missing or of another
    index, by one process, while all others that need them wait. Raises OSError where they can't be written or mapped,
    before any work."""

    def good() -> bool:
        try:
            found = read_columns(path).note
            return {name: found.get(name) for name in note} == note
        except (FileNotFoundError, ValueError):
            return False

    if not good():
        path.parent.mkdir(exist_ok=True)
        try_mapping(path.parent)
        take_turns(path.with_name(f".{path.name}.claim"), good, make, poll=0.2)
    return read_columns(path)


def try_mapping(folder: Path) -> None:
    """Raises OSError where a file of this folder can't be written or mapped, as on some FUSE."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.truncate(1)
        mmap.mmap(probe.fileno(), 1).close()
