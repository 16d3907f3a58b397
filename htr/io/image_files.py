"""Image files -> gray pixels, with their size known from the header before anything is decoded."""

import io
import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from htr.io.image_headers import Header, RejectedInput, other_header, plausible

__all__ = ["RejectedInput", "decode", "full_pages", "read_header", "resolution", "tiff_pages"]

MAX_PIXELS = 400_000_000  # of one page: an A3 sheet at 1200 dpi has 280 million
MAX_DECODED_BYTES = (
    1 << 30
)  # that decoding one page may take: colour JPEGs in passes and transparent images need 7 a pixel
MAX_TIFF_PAGE = 10_000  # of a TIFF
PNG, TIFF = b"\x89PNG\r\n\x1a\n", {b"II*\0": "<", b"MM\0*": ">"}
# the tags of TIFF 6.0 that are read
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA, FORMAT = 256, 257, 258, 262, 274, 277, 338, 339
NEW_SUBFILE_TYPE = 254  # bit 0: a small picture of another page
X_RESOLUTION, Y_RESOLUTION, UNIT, TILE_WIDTH, TILE_HEIGHT = 282, 283, 296, 322, 323
TAGS = {WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA, FORMAT}
TAGS |= {X_RESOLUTION, Y_RESOLUTION, UNIT, TILE_WIDTH, TILE_HEIGHT}
TYPES = {1: "B", 3: "H", 4: "I", 5: "II"}  # byte, short, long, rational

# what a broken file is rejected for stands in its row; OpenCV would tell every worker's stderr as well
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(encoded: bytes, page: int = 0, oriented: bool = True) -> np.ndarray:
    """An image (of a TIFF its page-th page) -> gray (H, W) uint8: colour by luma, transparency on white paper.

    An orientation in Exif or TIFF tags is obeyed, as a viewer does (not where a PNG is transparent), unless `oriented`
    is False: then the pixels are as stored. Raises RejectedInput: another format, CMYK, too many pixels, truncated,
    damaged. Bits that flipped within a JPEG's own data can't be seen: it has no checksum.
    """
    header = read_header(encoded, page)
    if header.width * header.height > min(MAX_PIXELS, MAX_DECODED_BYTES // header.cost):
        raise RejectedInput("image has too many pixels")
    flags = cv2.IMREAD_UNCHANGED if header.transparent else cv2.IMREAD_GRAYSCALE
    if not oriented:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    content = np.frombuffer(encoded, np.uint8)
    try:
        if page:
            found = cv2.imdecodemulti(content, flags, range=(page, page + 1))[1]
            image = found[0] if found else None
        else:
            image = cv2.imdecode(content, flags)
    except (cv2.error, MemoryError):
        image = None
    if image is None or sorted(image.shape[:2]) != sorted((header.height, header.width)):
        raise RejectedInput("image can't be decoded")
    if header.transparent and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # a GIF or WebP that says so and has none
    elif header.transparent:
        if image.ndim != 3 or image.shape[2] != 4:
            raise RejectedInput("image has a kind of transparency that is not read")
        image = on_white(image, header.premultiplied)
    if not oriented and header.orientation in STORED:
        image = np.ascontiguousarray(STORED[header.orientation](image))
    return image


STORED = {  # what a viewer shows -> what is stored, by the orientation's number
    2: np.fliplr,
    3: lambda image: image[::-1, ::-1],
    4: np.flipud,
    5: np.transpose,
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].T,
    8: lambda image: np.rot90(image, -1),
}


def resolution(encoded: bytes) -> float | None:
    """Dots per inch, from JFIF, pHYs or TIFF tags. None where the header has none or one that no scanner means.

    72 and 96 are what software writes that does not know. Raises RejectedInput as `decode` does.
    """
    return read_header(encoded).dpi


def read_header(encoded: bytes, page: int = 0) -> Header:
    """Raises RejectedInput."""
    if not encoded:
        raise RejectedInput("image file is empty")
    if not 0 <= page < MAX_TIFF_PAGE:
        raise RejectedInput("image has no such page")
    try:
        if encoded[:4] in TIFF:
            header = read_tiff(encoded, page)
        elif encoded[:3] == b"\xff\xd8\xff":
            header = read_jpeg(encoded)
        elif encoded[:8] == PNG:
            header = read_png(encoded)
        else:
            header = other_header(encoded)
    except struct.error:  # a field that would lie beyond the end
        raise RejectedInput("image is truncated") from None
    if not (header.width and header.height):
        raise RejectedInput("image can't be decoded")
    if page and encoded[:4] not in TIFF:
        raise RejectedInput("image has no such page")
    return header


def read_jpeg(encoded: bytes) -> Header:
    """Segment by segment up to the frame header (ITU-T T.81, B.2.2)."""
    at, dpi = 2, None
    for _ in range(1000):
        mark, kind, size = struct.unpack_from(">BBH", encoded, at)
        if mark != 0xFF or kind == 0xDA or (size < 2 and kind != 0xFF):
            break
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind == 0xE0 and encoded[at + 4 : at + 9] == b"JFIF\0":
            unit, x, y = struct.unpack_from(">BHH", encoded, at + 11)
            dpi = plausible(*(v * {1: 1.0, 2: 2.54}.get(unit, 0.0) for v in (x, y)))
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", encoded, at + 5)
            if components == 4:
                raise RejectedInput("image is in CMYK, only gray and RGB are read")
            # the end marker: libjpeg would fill what is missing, where zeros follow, with gray
            if encoded.rfind(b"\xff\xd9") < at:
                raise RejectedInput("image is truncated")
            in_passes = kind in (0xC2, 0xCA)  # all coefficients of the image are kept, two bytes each
            return Header(width, height, dpi, 1 + 2 * components if in_passes else 1)
        at += 2 + size
    raise RejectedInput("image can't be decoded")


def read_png(encoded: bytes) -> Header:
    """Chunk by chunk (PNG, third edition, 5): each must end within the file, as libpng allocates what a chunk says."""
    size, name, width, height, depth, colour = struct.unpack_from(">I4sIIBB", encoded, 8)
    if name != b"IHDR" or size != 13:
        raise RejectedInput("image can't be decoded")
    at, dpi, transparent = 8, None, colour in (4, 6)
    while name != b"IEND":
        size, name = struct.unpack_from(">I4s", encoded, at)
        if name == b"pHYs" and size == 9:
            x, y, unit = struct.unpack_from(">IIB", encoded, at + 8)
            dpi = plausible(x * 0.0254, y * 0.0254) if unit == 1 else None
        elif name == b"tRNS":
            transparent = True
        elif name == b"acTL":
            raise RejectedInput("image is animated")
        at += 12 + size
    if at > len(encoded):
        raise RejectedInput("image is truncated")
    return Header(width, height, dpi, 7 * max(depth // 8, 1) if transparent else 1, transparent)


def read_tiff(encoded: bytes, page: int) -> Header:
    tags = tiff_tags(encoded, page)

    def first(tag: int, default: int = 0) -> int:
        return next(iter(tags.get(tag, ())), default)

    if first(PHOTOMETRIC) == 5:
        raise RejectedInput("image is in CMYK, only gray and RGB are read")
    bits, samples = tags.get(BITS, (1,)), first(SAMPLES, 1)
    known = first(PHOTOMETRIC) in (0, 1, 2, 3, 6) and set(bits) in ({1}, {8}, {16})
    if not known or samples > 4 or first(FORMAT, 1) not in (1, 4):
        raise RejectedInput("image is a TIFF of a kind that is not read")
    # a tile is decoded whole, however small the image
    size = max(first(WIDTH), first(TILE_WIDTH)), max(first(HEIGHT), first(TILE_HEIGHT))
    if size[0] * size[1] > MAX_PIXELS:
        raise RejectedInput("image has too many pixels")
    scale = {2: 1.0, 3: 2.54}.get(first(UNIT, 2), 0.0)
    x, y = (tags.get(tag, (0, 1)) for tag in (X_RESOLUTION, Y_RESOLUTION))
    dpi = plausible(*(scale * v[0] / v[1] if len(v) > 1 and v[1] else 0.0 for v in (x, y)))
    way = first(ORIENTATION, 1)
    if samples not in (2, 4):
        return Header(first(WIDTH), first(HEIGHT), dpi, orientation=way)
    # libtiff multiplies 8 bits itself; 16 come as they are, and 2 says that they were not multiplied
    premultiplied = bits[0] == 8 or first(EXTRA) != 2
    return Header(first(WIDTH), first(HEIGHT), dpi, 7 * max(bits[0] // 8, 1), True, premultiplied, way)


def tiff_tags(encoded: bytes, page: int) -> dict[int, tuple[int, ...]]:
    """The first values of the page's TAGS (TIFF 6.0, section 2). Of a tag that comes twice the first counts."""
    order = TIFF[encoded[:4]]
    (at,) = struct.unpack_from(order + "I", encoded, 4)
    for _ in range(page):
        (count,) = struct.unpack_from(order + "H", encoded, at)
        (at,) = struct.unpack_from(order + "I", encoded, at + 2 + 12 * count)
        if not at:
            raise RejectedInput("image has no such page")
    (count,) = struct.unpack_from(order + "H", encoded, at)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", encoded, entry)
        if tag in TAGS and tag not in tags and kind in TYPES:
            form = order + TYPES[kind] * min(number, 4)
            where = entry + 8
            if number * struct.calcsize(order + TYPES[kind]) > 4:
                (where,) = struct.unpack_from(order + "I", encoded, where)
            tags[tag] = struct.unpack_from(form, encoded, where)
    return tags


def full_pages(encoded: bytes) -> list[int]:
    """The numbers of a TIFF's pages, but of small pictures of a page, which scanners add; [0] for any other image."""
    return pages_in(io.BytesIO(encoded)) if encoded[:4] in TIFF else [0]


def tiff_pages(path: Path) -> list[int]:
    """The same of a file, of which only the places of its pages are read; [0] where it can't be read."""
    try:
        with open(path, "rb") as file:
            return pages_in(file)
    except (OSError, ValueError):
        return [0]


def pages_in(file: BinaryIO) -> list[int]:
    start = file.read(8)
    if start[:4] not in TIFF:
        return [0]
    order, pages, seen = TIFF[start[:4]], [], set()
    try:
        (at,) = struct.unpack(order + "I", start[4:])
        while at and at not in seen and len(seen) < MAX_TIFF_PAGE:
            seen.add(at)
            file.seek(at)
            (count,) = struct.unpack(order + "H", file.read(2))
            entries = file.read(12 * count)
            tags = [struct.unpack_from(order + "H6xI", entries, 12 * entry) for entry in range(count)]
            if not any(tag == NEW_SUBFILE_TYPE and value & 1 for tag, value in tags):
                pages.append(len(seen) - 1)
            (at,) = struct.unpack(order + "I", file.read(4))
    except struct.error:  # a broken file: decode says it
        pass
    return pages or [0]


def on_white(image: np.ndarray, premultiplied: bool) -> np.ndarray:
    """(H, W, 4) BGRA of 8 or 16 bits -> gray (H, W) uint8, in bands of rows: its memory is the result's."""
    most = np.float32(np.iinfo(image.dtype).max)
    gray = np.empty(image.shape[:2], np.uint8)
    for top in range(0, len(gray), 256):
        part = image[top : top + 256].astype(np.float32) / most
        luma, alpha = cv2.cvtColor(part, cv2.COLOR_BGRA2GRAY), part[..., 3]
        light = (luma if premultiplied else luma * alpha) + 1 - alpha
        gray[top : top + 256] = np.rint(255 * np.minimum(light, 1))
    return gray
