"""What an image's header says before anything is decoded: BMP, GIF, JPEG 2000 and WebP. JPEG, PNG and TIFF are in
image_files."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MIN_DPI, MAX_DPI = 75.0, 2400.0
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: start, size
MAX_BLOCKS = 1_000_000  # of a GIF, boxes of a JPEG 2000
CMYK, PALETTE = 12, b"pclr"  # of JPEG 2000 (ITU-T T.800, annex I)
JP2_BYTES = 7  # of memory for a component's pixel, by measurement 5.8: 32 bits, and what they are transformed to


class RejectedInput(ValueError):
    """An input that can't become a sample; the message is the reason, without any of its text."""


@dataclass(frozen=True)
class Header:
    width: int  # as stored, before an orientation is obeyed
    height: int
    dpi: float | None
    cost: int = 1  # bytes a pixel that decoding takes
    transparent: bool = False
    premultiplied: bool = False  # the colours were multiplied by the opacity already
    orientation: int = 1  # of a TIFF alone, which OpenCV obeys whatever it is told (TIFF 6.0, tag 274)


def other_header(encoded: bytes) -> Header:
    """Of an image that is no JPEG, PNG or TIFF. Raises RejectedInput: not read, truncated; struct.error: too short."""
    if encoded[:2] == b"BM":
        return read_bmp(encoded)
    if encoded[:6] in (b"GIF87a", b"GIF89a"):
        return read_gif(encoded)
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return read_webp(encoded)
    if encoded[:4] == CODESTREAM or encoded[4:12] == b"jP  \r\n\x87\n":
        return read_jp2(encoded)
    raise RejectedInput("image is not a JPEG, PNG, TIFF, JPEG 2000, WebP, BMP or GIF")


def read_bmp(encoded: bytes) -> Header:
    """Of Windows and OS/2; without compression all of its rows must be there."""
    start, size = struct.unpack_from("<II", encoded, 10)
    if size == 12:
        (width, height, _, bits), packing, dpi = struct.unpack_from("<HHHH", encoded, 18), 0, None
    else:
        width, height, _, bits, packing, _, x, y = struct.unpack_from("<iiHHIIii", encoded, 18)
        dpi = plausible(x * 0.0254, y * 0.0254)
    height = abs(height)  # negative: from top to bottom
    if bits not in (1, 4, 8, 16, 24, 32) or packing not in (0, 1, 2, 3):
        raise RejectedInput("image is a BMP of a kind that is not read")
    if packing in (0, 3) and start + (width * bits + 31) // 32 * 4 * height > len(encoded):
        raise RejectedInput("image is truncated")
    return Header(max(width, 0), height, dpi, 4)


def read_gif(encoded: bytes) -> Header:
    """Block by block (GIF89a, appendix A): one picture alone, and the end must be there."""
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    at, pictures, transparent = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0), 0, False
    for _ in range(MAX_BLOCKS):
        (kind,) = struct.unpack_from("B", encoded, at)
        if kind == 0x3B:
            if pictures != 1:
                raise RejectedInput("image is animated" if pictures else "image can't be decoded")
            return Header(width, height, None, 7 if transparent else 4, transparent)
        if kind == 0x2C:
            pictures += 1
            (flags,) = struct.unpack_from("B", encoded, at + 9)
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif kind == 0x21:
            if encoded[at + 1 : at + 2] == b"\xf9":
                transparent |= bool(struct.unpack_from("B", encoded, at + 3)[0] & 1)
            at += 2
        else:
            break
        while size := struct.unpack_from("B", encoded, at)[0]:
            at += 1 + size
        at += 1
    raise RejectedInput("image can't be decoded")


def read_webp(encoded: bytes) -> Header:
    """Chunk by chunk (RFC 9649); what it says of itself must be within the file."""
    (size,) = struct.unpack_from("<I", encoded, 4)
    if size + 8 > len(encoded):
        raise RejectedInput("image is truncated")
    found, at = None, 12
    while at + 8 <= size + 8:
        name, length = struct.unpack_from("<4sI", encoded, at)
        at += 8
        if name == b"VP8X":
            flags, *sides = struct.unpack_from("<B3x3s3s", encoded, at)
            if flags & 2:
                raise RejectedInput("image is animated")
            found = (*(int.from_bytes(side, "little") + 1 for side in sides), bool(flags & 0x10))
        elif name == b"VP8L":
            _, bits = struct.unpack_from("<BI", encoded, at)
            found = found or ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
        elif name == b"VP8 ":
            sides = struct.unpack_from("<HH", encoded, at + 6)
            found = found or (sides[0] & 0x3FFF, sides[1] & 0x3FFF, False)
        at += length + (length & 1)
    if found is None:
        raise RejectedInput("image can't be decoded")
    width, height, transparent = found
    return Header(width, height, None, 7 if transparent else 4, transparent)


def read_jp2(encoded: bytes) -> Header:
    """The size that its codestream has, whatever its boxes say, and the codestream's end (ITU-T T.800, A and I)."""
    begin, dpi = 0, None
    if encoded[:4] != CODESTREAM:
        for name, start, end in boxes(encoded, 0, len(encoded)):
            if name == b"jp2h":
                dpi = check_jp2(encoded, start, end)
            if name == b"jp2c":
                begin = start
                break
        else:
            raise RejectedInput("image is truncated")
    if encoded[begin : begin + 4] != CODESTREAM:
        raise RejectedInput("image can't be decoded")
    right, bottom, left, top = struct.unpack_from(">IIII", encoded, begin + 8)
    (components,) = struct.unpack_from(">H", encoded, begin + 40)
    if components not in (1, 3, 4):
        raise RejectedInput("image is a JPEG 2000 of a kind that is not read")
    if encoded.rfind(b"\xff\xd9") < begin:
        raise RejectedInput("image is truncated")
    depth = encoded[begin + 42 : begin + 43]
    cost = JP2_BYTES * components + (7 * (2 if depth > b"\x07" else 1) if components == 4 else 0)
    return Header(max(right - left, 0), max(bottom - top, 0), dpi, cost, components == 4)


def boxes(encoded: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Of a JPEG 2000: each one's name, and where its content begins and ends."""
    for _ in range(MAX_BLOCKS):
        if at + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", encoded, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", encoded, start)
            start += 8
        last = end if size == 0 else at + size
        if last < start:
            raise RejectedInput("image can't be decoded")
        yield name, start, min(last, end)
        at = last


def check_jp2(encoded: bytes, start: int, end: int) -> float | None:
    """-> the resolution in the header box. Raises RejectedInput for colours that are not read."""
    dpi = None
    for name, begin, stop in boxes(encoded, start, end):
        if name == PALETTE:
            raise RejectedInput("image is a JPEG 2000 of a kind that is not read")
        if name == b"colr" and encoded[begin] == 1 and struct.unpack_from(">I", encoded, begin + 3)[0] == CMYK:
            raise RejectedInput("image is in CMYK, only gray and RGB are read")
        if name == b"res ":
            for _, at, _ in boxes(encoded, begin, stop):  # of capture, of display: dots a metre
                down, below, across, beside, tens, more = struct.unpack_from(">HHHHbb", encoded, at)
                if below and beside and max(abs(tens), abs(more)) < 10:
                    dpi = plausible(across / beside * 10.0**more * 0.0254, down / below * 10.0**tens * 0.0254)
                break
    return dpi


def plausible(x: float, y: float) -> float | None:
    """Dots per inch across and down -> the resolution, unless they differ or no scanner makes it."""
    known = MIN_DPI <= x <= MAX_DPI and round(x) != 96 and abs(x - y) <= 0.1 * x
    return x if known else None
