"""What lies at one place -> the images of a text, the text, and its key: in a shard as they are stored, in a record as
a model sees them. Knows no index and no torch."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from shards.tar import BLOCK_BYTES, padded

NAME_BYTES = 100  # of a member's name in its header


class Damaged(ValueError):
    """The bytes that were read are not those that were written."""


class Span(NamedTuple):
    """Where a text's images, its own bytes and its key lie within the bytes that were read for it."""

    header: int  # of the text's own block in the tar, or the last block of a long name
    text: int
    text_size: int
    lines: list[tuple[int, int, int, int]]  # of each image: first byte, bytes, height, width
    long_key: bool

    @classmethod
    def of(cls, own: np.void, lines: np.ndarray, start: int) -> "Span":
        """`own`, `lines`: shards.reading.PLACE of the text and of its images; `start`: the first byte that was read."""
        text, after = int(own["offset"] + own["text_at"]) - start, padded(int(own["size"]))
        long = int(own["text_at"]) - after > BLOCK_BYTES
        at = (lines["offset"] - start).tolist()
        places = list(zip(at, *(lines[name].tolist() for name in ("size", "height", "width")), strict=True))
        return cls(text - (2 if long else 1) * BLOCK_BYTES, text, int(own["text_size"]), places, long)


def decode_text(span: Span, content: bytes) -> tuple[list[np.ndarray], str, str]:
    """-> gray images (H, W) uint8, text, key. Raises Damaged."""
    text, key = text_and_key(span, content)
    encoded = memoryview(content)  # its slices are no copies
    return [decode_image(encoded[at : at + size], height, width) for at, size, height, width in span.lines], text, key


def text_and_key(span: Span, content: bytes) -> tuple[str, str]:
    """-> text, key. Raises Damaged."""
    raw = content[span.text : span.text + span.text_size]
    name = content[span.header : span.header + (BLOCK_BYTES if span.long_key else NAME_BYTES)].split(b"\0", 1)[0]
    if len(raw) != span.text_size or not name.endswith(b".txt"):
        raise Damaged("text is not where it was")
    try:
        return raw.decode(), name[:-4].decode()
    except UnicodeDecodeError:
        raise Damaged("text is not UTF-8") from None


def decode_image(encoded: bytes | memoryview, height: int, width: int) -> np.ndarray:
    """Its pixels. Raises Damaged where they are not what the index says of them.

    Without the care of htr.io.image_files: what lies in a shard was encoded by OpenCV, has no orientation, and its size
    is known.
    """
    gray = None
    if encoded[-2:] == b"\xff\xd9" or encoded[:3] != b"\xff\xd8\xff":  # libjpeg fills what is missing with gray
        try:
            flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
            gray = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error:
            gray = None
    if gray is None or gray.shape != (height, width):
        raise Damaged("image can't be decoded")
    return gray


# ---------------------------------------------------------------------------- records of lines that are ready-made

# mark, lines, bytes of the key, bytes of the text; then the width of each line, "<H", the key, the text, the pixels;
# where these are coded, the CRC-32 of all that, since zstd decodes most flipped bits to other pixels
RECORD = struct.Struct("<4sHHI")
RAW, CODED = b"htr1", b"htz2"  # marks: pixels as they are, pixels by zstd
SUM = struct.Struct("<I")
PLACES_AT = 128  # byte of a file of records where their places begin (see shards.precomputed)
MAX_RECORDS_BYTES = 1 << 30  # that are read together


def pack_record(lines: list[np.ndarray], text: str, key: str, mark: bytes = RAW) -> bytes:
    """`lines`: (H, W) uint8 each, of one height, which the record does not say."""
    name, written = key.encode(), text.encode()
    head = RECORD.pack(mark, len(lines), len(name), len(written))
    head += struct.pack(f"<{len(lines)}H", *(line.shape[1] for line in lines)) + name + written
    pixels = b"".join(line.tobytes() for line in lines)
    if mark == RAW:
        return head + pixels
    record = head + coder().compress(pixels, asbytes=True)
    return record + SUM.pack(zlib.crc32(record))


def unpack_record(content: bytes, height: int, mark: bytes = RAW) -> tuple[list[np.ndarray], str, str]:
    """-> lines (H, W) uint8, read only, text, key. Raises Damaged."""
    try:
        if mark == CODED:
            content, [whole] = memoryview(content)[: -SUM.size], SUM.unpack(content[-SUM.size :])
            if zlib.crc32(content) != whole:
                raise Damaged("not what was written")
        found, count, key, text = RECORD.unpack_from(content)
        widths = struct.unpack_from(f"<{count}H", content, RECORD.size)
        at = RECORD.size + 2 * count
        name, written = (str(content[of : of + size], "utf-8") for of, size in ((at, key), (at + key, text)))
        pixels, start, size = content, at + key + text, height * sum(widths)
        if size > MAX_RECORDS_BYTES:
            raise Damaged("larger than any record")
        if mark == CODED:
            pixels, start = coder().decompress(content[start:], size, asbytes=True), 0
        if found != mark or len(pixels) < start + size:
            raise Damaged("not what was written")
        lines = []
        for width in widths:
            line = np.frombuffer(pixels, np.uint8, height * width, start)
            lines.append(line.reshape(height, width))
            start += line.size
    except (struct.error, ValueError, OSError) as error:  # Arrow's codec raises OSError
        raise Damaged("not what was written") from error
    return lines, written, name


@cache
def coder():
    """zstd at its fastest level: noise of paper hardly gets smaller by more."""
    from pyarrow import Codec  # not every worker needs Arrow

    return Codec("zstd", 1)


def read_records(read: Callable[[int, int], bytes], first: int, last: int) -> tuple[list[int], bytes]:
    """Rows first to last of a file of records. `read`: (offset, size) -> its bytes. -> where each record begins in the
    bytes, and where the last one ends; the bytes. Raises Damaged."""
    places = read(PLACES_AT + 8 * first, 8 * (last - first + 1))
    if len(places) != 8 * (last - first + 1):
        raise Damaged("cut short")
    found = np.frombuffer(places, "<u8")
    start, size = int(found[0]), int(found[-1]) - int(found[0])
    if (found[1:] < found[:-1]).any() or size > MAX_RECORDS_BYTES:
        raise Damaged("places of records are not what was written")
    content = read(start, size)
    if len(content) != size:
        raise Damaged("cut short")
    return (found - found[0]).tolist(), content
