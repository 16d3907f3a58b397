"""JPEG 2000, WebP, BMP and GIF: read as Pillow reads them, known by their headers, never half."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from htr.io.image_files import decode, read_header, resolution
from htr.io.image_headers import RejectedInput

rng = np.random.default_rng(0)
GRAY = cv2.normalize(
    cv2.GaussianBlur(rng.integers(0, 255, (90, 141)).astype(np.uint8), (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX
)
PLAIN = Image.fromarray(GRAY)
COLOUR = Image.fromarray(np.stack([GRAY, 255 - GRAY, GRAY // 2], -1))
CLEAR = Image.fromarray(np.dstack([np.asarray(COLOUR), GRAY]))
KINDS = [
    ("BMP", {}), ("GIF", {}), ("WEBP", {"quality": 95}), ("WEBP", {"lossless": True}), ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
]  # fmt: skip
NAMES = [f"{kind}{''.join(options)}" for kind, options in KINDS]


def encode(image: Image.Image, kind: str, options: dict) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def on_white(image: Image.Image) -> np.ndarray:
    clear = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("L")).astype(int)


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=NAMES)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_pixels_are_those_that_pillow_shows(kind, options, mode):
    image = {"1": PLAIN.convert("1"), "L": PLAIN, "P": COLOUR.quantize(32), "RGB": COLOUR, "RGBA": CLEAR}[mode]
    if kind == "JPEG2000" and mode in ("1", "P"):
        image = image.convert("RGB")
    encoded = encode(image, kind, options)
    seen = Image.open(io.BytesIO(encoded))
    wanted = on_white(seen.convert("RGB") if kind == "BMP" else seen)  # an alpha in a BMP means nothing
    assert np.abs(decode(encoded) - wanted).mean() < (1.5 if "quality" in options else 0.6)


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=NAMES)
def test_a_part_of_a_file_is_never_read(kind, options):
    whole = encode(COLOUR, kind, options)
    for size in range(1, len(whole), max(len(whole) // 97, 1)):
        with pytest.raises(RejectedInput):
            decode(whole[:size])
    with pytest.raises(RejectedInput, match="no such page"):
        decode(whole, page=1)


def test_transparency_of_a_gif():
    encoded = encode(PLAIN, "GIF", {"transparency": int(GRAY[0, 0])})
    assert np.abs(decode(encoded) - on_white(Image.open(io.BytesIO(encoded)))).max() <= 1


def test_what_moves_is_refused():
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - GRAY)]}
    for kind in ("GIF", "WEBP"):
        with pytest.raises(RejectedInput, match="animated"):
            decode(encode(PLAIN, kind, frames))


def bombs() -> dict[str, bytes]:
    """Small files that say they are 60 000 x 60 000 and larger."""
    side = 60_000
    bmp = bytearray(encode(PLAIN, "BMP", {}))
    struct.pack_into("<iiHHI", bmp, 18, side, side, 1, 8, 1)  # run lengths: its rows need not be there
    gif = bytearray(encode(PLAIN, "GIF", {}))
    struct.pack_into("<HH", gif, 6, side, side)
    jp2 = bytearray(encode(PLAIN, "JPEG2000", {"no_jp2": True}))
    struct.pack_into(">IIIIII", jp2, 8, side, side, 0, 0, side, side)
    boxed = bytearray(encode(PLAIN, "JPEG2000", {}))  # its box still says 141 x 90
    struct.pack_into(">IIIIII", boxed, boxed.index(b"\xff\x4f\xff\x51") + 8, side, side, 0, 0, side, side)
    webp = bytearray(encode(CLEAR, "WEBP", {"quality": 90}))
    webp[24:30] = (side - 1).to_bytes(3, "little") * 2
    return {"BMP": bytes(bmp), "GIF": bytes(gif), "codestream": bytes(jp2), "JP2": bytes(boxed), "WebP": bytes(webp)}


@pytest.mark.parametrize("name", ["BMP", "GIF", "codestream", "JP2", "WebP"])
def test_sizes_are_looked_at_before_anything_is_decoded(name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(RejectedInput, match="too many pixels"):
        decode(bombs()[name])


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=NAMES)
def test_a_flipped_byte_is_read_or_refused_and_nothing_else(kind, options):
    whole = encode(CLEAR if kind == "WEBP" else COLOUR, kind, options)
    for at in range(min(len(whole), 400)):
        for value in (0, 0x7F, 0xFF):
            try:
                image = decode(whole[:at] + bytes([value]) + whole[at + 1 :])
            except RejectedInput:
                continue
            assert image.ndim == 2 and image.dtype == np.uint8


def test_resolution():
    assert resolution(encode(PLAIN, "BMP", {"dpi": (300, 300)})) == pytest.approx(300, abs=0.1)
    res = struct.pack(">I4sHHHHbb", 18, b"resc", 11811, 1, 11811, 1, 0, 0)
    res = struct.pack(">I4s", 8 + len(res), b"res ") + res
    whole = encode(PLAIN, "JPEG2000", {})
    at = whole.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", whole, at)
    more = whole[:at] + struct.pack(">I", size + len(res)) + whole[at + 4 : at + size] + res + whole[at + size :]
    assert resolution(more) == pytest.approx(300, abs=0.1) and read_header(more).width == 141


def test_colours_of_print_and_palettes_are_refused():
    whole = bytearray(encode(COLOUR, "JPEG2000", {}))
    struct.pack_into(">I", whole, whole.index(b"colr") + 7, 12)
    with pytest.raises(RejectedInput, match="CMYK"):
        decode(bytes(whole))
    with pytest.raises(RejectedInput, match="kind that is not read"):
        decode(encode(PLAIN.convert("LA"), "JPEG2000", {}))
