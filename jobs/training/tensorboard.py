"""The metrics of a run as TensorBoard's event files: `tensorboard --logdir runs`, wherever that program is installed.

An event file is a sequence of records (length, its checksum, content, its checksum), each content a protocol buffer of
the type Event: tensorboard/compat/proto/event.proto. Scalars need so little of it that it is written here. torch's
writer needs the whole of TensorBoard, and like tensorboardX's it hands events to a thread through a queue of limited
length: on a full disk that thread dies, the queue fills, and the training waits for it for ever.
"""

import socket
import struct
import time
from pathlib import Path

INTEGER, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # wire types of protocol buffers


class Events:
    """One file a start of the training, by rank 0; what a start before it wrote is left as it is."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, None

    def add(self, metrics: dict[str, float]) -> None:
        """A line of metrics.jsonl, with its `step` and `time` (seconds since 1970). Raises OSError."""
        step, wall = metrics["step"], metrics["time"]
        records = record(event(wall, step, summary(metrics)))
        if self.path is None:
            self.folder.mkdir(exist_ok=True)
            # files are read in the order of their names: digits enough for two starts in a second
            name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}"
            self.path = self.folder / name
            # what an earlier start logged from here on was lost and is done again; errors on dev stand at the step of
            # the training's line before them, which is not lost
            lost = step + ("loss" not in metrics)
            records = record(event(wall, 0, VERSION)) + record(event(wall, lost, START)) + records
        with open(self.path, "ab", buffering=0) as file:  # closed each time, so that other nodes see it
            file.write(records)


# --- protocol buffers, by the numbers of their fields


def field(number: int, kind: int, content: bytes) -> bytes:
    return varint(number << 3 | kind) + (varint(len(content)) if kind == BYTES else b"") + content


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; value >= 0."""
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


VERSION = field(3, BYTES, b"brain.Event:2")
START = field(7, BYTES, field(1, INTEGER, varint(1)))  # of a session: what is known of this step and later ones is void


def event(wall: float, step: int, what: bytes) -> bytes:
    return field(1, DOUBLE, struct.pack("<d", wall)) + field(2, INTEGER, varint(step)) + what


def summary(metrics: dict[str, float]) -> bytes:
    """TensorBoard groups scalars by what stands before the slash."""
    values = b""
    for name, value in metrics.items():
        if name not in ("step", "time"):
            tag = f"dev/{name[4:]}" if name.startswith("dev_") else f"train/{name}"
            scalar = field(1, BYTES, tag.encode()) + field(2, FLOAT, struct.pack("<f", value))
            values += field(1, BYTES, scalar)
    return field(5, BYTES, values)


# --- records, as TensorFlow's TFRecord


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def masked(content: bytes) -> bytes:
    checksum = crc32c(content)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(content: bytes) -> int:
    """Castagnoli's polynomial, which zlib does not have; bit by bit, a record being short."""
    checksum = 0xFFFFFFFF
    for byte in content:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF
