"""What lies in a shard at one place -> the images of a text, the text, and its key. Knows no index and no torch."""

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
