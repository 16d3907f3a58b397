"""Image files: what is decoded, what is refused before it is decoded, and the resolution that a header tells."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest

from htr.io import image_files
from htr.io.image_files import decode, resolution
from htr.lines.normalise import RejectedInput

GRAY = np.add.outer(np.arange(0, 120, 5), np.arange(0, 130, 2)).astype(np.uint8)  # (24, 65)
COLOUR = np.stack([GRAY, GRAY // 2, 255 - GRAY], axis=2)  # BGR
G4 = "e6c32bf8e4e199e380080080"  # ITU-T T.6, (12, 40): two black bars


def encode(ending: str, image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(ending, image, list(options))[1].tobytes()


def tiff(data: bytes, width: int, height: int, order: str = "<", **tags) -> bytes:
    """A TIFF of one strip, its tags before its pixels; `tags` as t258=8 or t258=(8, 8, 8), (type, value) by size."""
    values = {"t256": width, "t257": height, "t258": 8, "t259": 1, "t262": 1, "t273": 0, "t277": 1, "t278": height}
    values |= {"t279": len(data)} | tags
    entries, extra = b"", b""
    start = 8 + 2 + 12 * len(values) + 4
    for name, value in sorted(values.items(), key=lambda item: int(item[0][1:])):
        numbers = value if isinstance(value, tuple) else (value,)
        rational = name in ("t282", "t283")
        form = order + ("I" if rational or max(numbers) > 65535 else "H") * len(numbers)
        packed = struct.pack(form, *numbers)
        kind, count = (5, 1) if rational else (4 if form[-1] == "I" else 3, len(numbers))
        if name == "t273":  # where the strip begins
            packed, kind = b"STRI", 4
        if len(packed) > 4:
            packed, extra = struct.pack(order + "I", start + len(extra)), extra + packed
        entries += struct.pack(order + "HHI", int(name[1:]), kind, count) + packed.ljust(4, b"\0")
    entries = entries.replace(b"STRI", struct.pack(order + "I", start + len(extra)))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "IH", 8, len(values)) + entries
    return head + struct.pack(order + "I", 0) + extra + data


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def with_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """The PNG with a chunk after its header."""
    return png[:33] + chunk(name, content) + png[33:]


def with_segment(jpeg: bytes, kind: int, content: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content + jpeg[2:]


def jfif(jpeg: bytes, unit: int, x: int, y: int) -> bytes:
    assert jpeg[6:11] == b"JFIF\0"
    return jpeg[:13] + struct.pack(">BHH", unit, x, y) + jpeg[18:]


LUMA = cv2.cvtColor(COLOUR, cv2.COLOR_BGR2GRAY)
SIXTEEN = GRAY.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("encoded", "expected", "most"),
    [
        pytest.param(encode(".png", GRAY), GRAY, 0, id="gray PNG"),
        pytest.param(encode(".png", COLOUR), LUMA, 1, id="colour PNG"),
        pytest.param(encode(".png", SIXTEEN), GRAY, 0, id="16-bit PNG"),
        pytest.param(encode(".jpg", GRAY, cv2.IMWRITE_JPEG_QUALITY, 100), GRAY, 3, id="gray JPEG"),
        pytest.param(encode(".jpg", COLOUR, cv2.IMWRITE_JPEG_QUALITY, 100), LUMA, 6, id="colour JPEG"),
        pytest.param(encode(".jpg", GRAY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), GRAY, 8, id="progressive JPEG"),
        pytest.param(encode(".tif", GRAY), GRAY, 0, id="gray TIFF"),
        pytest.param(encode(".tif", COLOUR), LUMA, 1, id="colour TIFF"),
        pytest.param(encode(".tif", SIXTEEN), GRAY, 0, id="16-bit TIFF"),
        pytest.param(tiff(GRAY.tobytes(), 65, 24, ">"), GRAY, 0, id="big-endian TIFF"),
        pytest.param(tiff(GRAY.tobytes(), 65, 24, t262=0), 255 - GRAY, 0, id="white is zero"),
    ],
)
def test_what_is_decoded(encoded, expected, most):
    decoded = decode(encoded)
    assert decoded.dtype == np.uint8 and decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= most


@pytest.mark.parametrize(("zero_is", "ink", "paper"), [(0, 0, 255), (1, 255, 0)])  # PhotometricInterpretation
def test_a_bilevel_fax_is_black_on_white_as_its_tags_say(zero_is, ink, paper):
    fax = decode(tiff(bytes.fromhex(G4), 40, 12, t258=1, t259=4, t262=zero_is))
    bars = np.full((12, 40), paper, np.uint8)
    bars[3:6, 4:30] = bars[8:10, 10:38] = ink
    assert (fax == bars).all()


def test_pages_of_a_tiff():
    pages = [GRAY, 255 - GRAY, GRAY.T.copy()]
    encoded = cv2.imencodemulti(".tif", pages)[1].tobytes()
    for number, page in enumerate(pages):
        assert (decode(encoded, number) == page).all()
    for missing in (3, 100, -1, 10**9):
        with pytest.raises(RejectedInput, match="no such page"):
            decode(encoded, missing)
    for single in (encode(".png", GRAY), encode(".jpg", GRAY)):
        with pytest.raises(RejectedInput, match="no such page"):
            decode(single, 1)


def test_a_chain_of_pages_that_bites_its_tail():
    encoded = bytearray(tiff(GRAY.tobytes(), 65, 24))
    (count,) = struct.unpack_from("<H", encoded, 8)
    struct.pack_into("<I", encoded, 10 + 12 * count, 8)
    assert (decode(bytes(encoded)) == GRAY).all()
    with pytest.raises(RejectedInput):
        decode(bytes(encoded), 9000)


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_transparency_lies_on_white_paper(opacity):
    """Ink of 60, with an opacity: what a viewer shows."""
    ink, shown = np.full((4, 5, 4), 60, np.uint8), 255 + (60 - 255) * opacity / 255
    ink[..., 3] = opacity
    times = round(60 * opacity / 255)
    multiplied = np.dstack([np.full((4, 5, 3), times, np.uint8), ink[..., 3]])
    cases = {
        "PNG": encode(".png", ink),
        "PNG of 16 bits": encode(".png", ink.astype(np.uint16) * 257),
        "TIFF": tiff(ink.tobytes(), 5, 4, t258=(8,) * 4, t262=2, t277=4, t338=2),
        "TIFF, multiplied": tiff(multiplied.tobytes(), 5, 4, t258=(8,) * 4, t262=2, t277=4, t338=1),
        "TIFF of 16 bits": tiff((ink.astype("<u2") * 257).tobytes(), 5, 4, t258=(16,) * 4, t262=2, t277=4, t338=2),
    }
    for name, encoded in cases.items():
        assert np.abs(decode(encoded).astype(float) - shown).max() <= 1.5, name


def test_one_transparent_colour():
    """tRNS: a shade or a palette's entry that is not there."""
    image = COLOUR.copy()
    image[5:9, 5:9] = (10, 20, 30)
    shown = decode(with_chunk(encode(".png", image), b"tRNS", struct.pack(">HHH", 30, 20, 10)))
    assert (shown[5:9, 5:9] == 255).all() and np.abs(shown[12:].astype(int) - LUMA[12:]).max() <= 1
    with pytest.raises(RejectedInput, match="kind of transparency"):
        decode(with_chunk(encode(".png", GRAY), b"tRNS", b"\0\0"))


@pytest.mark.parametrize("size", [2**31 - 1, 2**32 - 1, 10_000])
def test_a_chunk_that_lies_about_its_size_is_not_allocated(size, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    whole = encode(".png", GRAY)
    for at in (33, len(whole) - 12):
        with pytest.raises(RejectedInput, match="truncated"):
            decode(whole[:at] + struct.pack(">I", size) + whole[at + 4 :])


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


@pytest.mark.parametrize(("orientation", "turned"), [(1, GRAY), (3, GRAY[::-1, ::-1]), (6, np.rot90(GRAY, -1))])
def test_an_orientation_is_obeyed(orientation, turned):
    assert (decode(with_chunk(encode(".png", GRAY), b"eXIf", exif(orientation))) == turned).all()
    assert (decode(tiff(GRAY.tobytes(), 65, 24, t274=orientation)) == turned).all()
    jpeg = with_segment(encode(".jpg", GRAY), 0xE1, b"Exif\0\0" + exif(orientation))
    assert np.abs(decode(jpeg).astype(int) - turned).max() <= 12


def cmyk_jpeg() -> bytes:
    jpeg = bytearray(encode(".jpg", COLOUR))
    jpeg[jpeg.index(b"\xff\xc0") + 9] = 4
    return bytes(jpeg)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"choc septique", "not a JPEG, PNG, TIFF", id="text"),
        pytest.param(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "truncated", id="JPEG 2000 without a codestream"),
        pytest.param(b"GIF89a" + bytes(100), "decoded", id="a GIF of zeros"),
        pytest.param(b"v/1\x01" + bytes(100), "not a JPEG, PNG, TIFF", id="EXR"),
        pytest.param(b"II+\0\x08\0\0\0" + bytes(100), "not a JPEG, PNG, TIFF", id="BigTIFF"),
        pytest.param(cmyk_jpeg(), "CMYK", id="CMYK JPEG"),
        pytest.param(tiff(bytes(4000), 10, 10, t258=(8,) * 4, t262=5, t277=4), "CMYK", id="CMYK TIFF"),
        pytest.param(tiff(bytes(4000), 10, 10, t258=(8,) * 3, t262=8, t277=3), "kind that is not read", id="Lab"),
        pytest.param(tiff(bytes(4000), 10, 10, t258=32, t339=3), "kind that is not read", id="float"),
        pytest.param(tiff(bytes(4000), 10, 10, t258=4), "kind that is not read", id="4 bits"),
        pytest.param(tiff(bytes(4000), 10, 10, t258=(8, 8), t277=2), "kind of transparency", id="gray, alpha"),
        pytest.param(with_chunk(encode(".png", GRAY), b"acTL", bytes(8)), "animated", id="APNG"),
        pytest.param(tiff(b"", 0, 10), "decoded", id="no columns"),
    ],
)
def test_what_is_refused(encoded, reason):
    with pytest.raises(RejectedInput, match=reason):
        decode(encoded)


IHDR = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
SOF = struct.pack(">BHHB", 8, 60_000, 60_000, 1) + b"\x01\x11\0"
BOMBS = {
    "PNG": image_files.PNG + chunk(b"IHDR", IHDR) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""),
    "JPEG": b"\xff\xd8\xff\xc0" + struct.pack(">H", len(SOF) + 2) + SOF + b"\xff\xd9",
    "TIFF": tiff(bytes(100), 60_000, 60_000),
    "a tile": tiff(bytes(100), 60, 60, t322=60_000, t323=60_000),
    "progressive": b"\xff\xd8\xff\xc2" + struct.pack(">H", 17) + struct.pack(">BHHB", 8, 16_000, 16_000, 3) + bytes(9)
    + b"\xff\xd9",
    "transparent": image_files.PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 16_000, 16_000, 8, 6, 0, 0, 0))
    + chunk(b"IEND", b""),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header(name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(RejectedInput, match="too many pixels"):
        decode(BOMBS[name])


@pytest.mark.parametrize("name", ["gray", "colour", "progressive", "PNG", "TIFF", "TIFF, tags first", "fax"])
def test_a_truncated_image_is_never_filled_up(name):
    whole = {
        "gray": lambda: encode(".jpg", GRAY),
        "colour": lambda: encode(".jpg", COLOUR),
        "progressive": lambda: encode(".jpg", COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "PNG": lambda: encode(".png", GRAY),
        "TIFF": lambda: encode(".tif", GRAY),
        "TIFF, tags first": lambda: tiff(GRAY.tobytes(), 65, 24),
        "fax": lambda: tiff(bytes.fromhex(G4), 40, 12, t258=1, t259=4, t262=0),
    }[name]()
    decode(whole)
    for size in sorted({*range(1, len(whole), 7), len(whole) - 1, len(whole) - 2, len(whole) - 3}):
        with contextlib.suppress(RejectedInput):
            decoded = decode(whole[:size])
            assert name == "TIFF" and (decoded == GRAY).all(), size  # its last bytes are tags, not pixels
    if name in ("gray", "colour", "progressive"):  # a copy that broke off and left zeros
        for size in range(len(whole) // 2, len(whole) - 1, 5):
            with pytest.raises(RejectedInput):
                decode(whole[:size] + bytes(len(whole) - size))


def test_a_thumbnails_end_is_not_the_images():
    jpeg = with_segment(encode(".jpg", GRAY), 0xE1, b"Exif\0\0" + encode(".jpg", GRAY[:8, :8]))
    assert decode(jpeg).shape == GRAY.shape
    with pytest.raises(RejectedInput, match="truncated"):
        decode(jpeg[:-2] + bytes(2))


def test_a_flipped_bit_of_a_png_is_noticed():
    whole = encode(".png", GRAY)
    for at in range(40, len(whole) - 16, 5):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        with pytest.raises(RejectedInput):
            decode(bytes(damaged))


@pytest.mark.parametrize(
    ("encoded", "dpi"),
    [
        (jfif(encode(".jpg", GRAY), 1, 300, 300), 300),
        (jfif(encode(".jpg", GRAY), 2, 118, 118), 118 * 2.54),
        (jfif(encode(".jpg", GRAY), 0, 300, 300), None),  # an aspect ratio, no unit
        (jfif(encode(".jpg", GRAY), 1, 72, 72), None),
        (jfif(encode(".jpg", GRAY), 1, 96, 96), None),
        (jfif(encode(".jpg", GRAY), 1, 0, 0), None),
        (jfif(encode(".jpg", GRAY), 1, 204, 98), None),  # a fax's pixels are not square
        (with_chunk(encode(".png", GRAY), b"pHYs", struct.pack(">IIB", 7874, 7874, 1)), 200),
        (with_chunk(encode(".png", GRAY), b"pHYs", struct.pack(">IIB", 7874, 7874, 0)), None),
        (encode(".png", GRAY), None),
        (tiff(GRAY.tobytes(), 65, 24, t282=(600, 2), t283=(300, 1)), 300),
        (tiff(GRAY.tobytes(), 65, 24, ">", t282=(100, 1), t283=(100, 1), t296=3), 254),
        (tiff(GRAY.tobytes(), 65, 24, t282=(300, 1), t283=(300, 1), t296=1), None),
        (tiff(GRAY.tobytes(), 65, 24, t282=(300, 0), t283=(300, 0)), None),
        (tiff(GRAY.tobytes(), 65, 24, t282=(4_000_000_000, 1), t283=(4_000_000_000, 1)), None),
        (tiff(GRAY.tobytes(), 65, 24), None),
    ],
)
def test_resolution(encoded, dpi):
    assert resolution(encoded) == (dpi if dpi is None else pytest.approx(dpi, abs=0.1))
