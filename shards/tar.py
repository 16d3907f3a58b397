"""A tar as webdataset and `tar tf` read it, written in one pass: no time, owner or host, so the same samples are the
same bytes wherever they are written; its SHA-256 and size are known when the last byte is."""

import hashlib
import tarfile
from typing import BinaryIO

BLOCK_BYTES = 512
NAME, SIZE, CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
FORMAT = tarfile.GNU_FORMAT


def header(name: str, size: int) -> bytes:
    """A member's header block(s), as tarfile writes it, but five times as fast."""
    encoded = name.encode()
    if len(encoded) > 100:  # GNU's long names: a header and a block for the name alone
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o640
        return info.tobuf(FORMAT)
    made = bytearray(BLANK)
    made[NAME] = encoded.ljust(100, b"\0")
    made[SIZE] = digits = b"%011o\0" % size
    made[CHECKSUM] = b"%06o\0 " % (BARE + sum(encoded) + sum(digits))
    return bytes(made)


def blank() -> bytes:
    info = tarfile.TarInfo("x")
    info.mode = 0o640
    return info.tobuf(FORMAT)


BLANK = blank()
BARE = sum(BLANK) - sum(BLANK[NAME]) - sum(BLANK[SIZE]) - sum(BLANK[CHECKSUM]) + 8 * ord(" ")  # of the bytes it shares


def padded(size: int) -> int:
    """`size` in bytes, rounded up to whole blocks of a tar."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


class Tar:
    """Writes an archive to an open file, and hashes it on the way."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def add(self, key: str, members: dict[str, bytes]) -> int:
        """Add the members KEY.ENDING. -> the offset of the first member's content, in bytes."""
        parts, offset = [], None
        size = self.size
        for ending, content in members.items():
            head = header(f"{key}.{ending}", len(content))
            offset = size + len(head) if offset is None else offset
            parts += [head, content, bytes(padded(len(content)) - len(content))]
            size += len(head) + padded(len(content))
        self.write(b"".join(parts))
        return offset

    def close(self) -> str:
        """Write the archive's end; the file stays open. -> the archive's SHA-256, hexadecimal."""
        end = 2 * BLOCK_BYTES
        self.write(bytes(end + -(self.size + end) % tarfile.RECORDSIZE))
        return self.digest.hexdigest()

    def write(self, content: bytes) -> None:
        self.file.write(content)
        self.digest.update(content)
        self.size += len(content)


def text_offset(image_size: int, key: str) -> int:
    """Bytes from an image's first byte to the first byte of its text, which is the next member."""
    return text_after(image_size, len(key.encode()))


def text_after(image_size, key_bytes):
    """The same from the length of the key in bytes; for numbers or arrays of them."""
    return padded(image_size) + BLOCK_BYTES + 2 * BLOCK_BYTES * (key_bytes + 4 > 100)
