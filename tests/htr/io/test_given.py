"""What Reader.read takes: one image or many, as a path, of PIL, or an array of any kind; and what it refuses."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from htr.io.given import as_gray, line_images

GRAY = np.full((40, 160), 220, np.uint8)
cv2.putText(GRAY, "mort", (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 1, 30, 2)
COLOUR = np.dstack([GRAY] * 3)
CLEAR = np.dstack([COLOUR, np.full_like(GRAY, 255)])


@pytest.mark.parametrize(
    "given",
    [
        GRAY,
        COLOUR,
        CLEAR,
        GRAY[..., None],
        GRAY.astype(np.uint16) * 257,
        GRAY.astype(np.int64),
        GRAY.astype(np.float32),
        GRAY / 255,
        COLOUR / 255.0,
        Image.fromarray(GRAY),
        Image.fromarray(COLOUR),
        Image.fromarray(CLEAR),
        Image.fromarray(GRAY).convert("P"),
    ],
)
def test_the_same_line_of_any_kind(given):
    [one] = line_images(given)
    assert one.dtype == np.uint8 and np.array_equal(one, GRAY)
    assert all(np.array_equal(image, GRAY) for image in line_images([given, given]))


def test_black_and_white_and_paths(tmp_path):
    ink = GRAY > 100
    assert np.array_equal(as_gray(ink), np.where(ink, 255, 0)) and np.array_equal(
        as_gray(Image.fromarray(ink)), as_gray(ink)
    )
    cv2.imwrite(str(tmp_path / "é.png"), COLOUR)
    for path in (tmp_path / "é.png", str(tmp_path / "é.png")):
        assert np.array_equal(line_images(path)[0], GRAY)
    assert line_images([]) == [] and len(line_images(np.stack([GRAY, GRAY]))) == 2


def test_transparency_is_paper():
    clear = CLEAR.copy()
    clear[:, :80, 3] = 0
    assert (as_gray(clear)[:, :80] == 255).all() and np.array_equal(as_gray(clear)[:, 80:], GRAY[:, 80:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((0, 10), np.uint8), r"image 0: an empty image of shape \(0, 10\)"),
        ([GRAY, np.zeros((40, 0), np.uint8)], "image 1: an empty image"),
        (np.full((3508, 2480), 250, np.uint8), "image 0: 2480 x 3508 pixels are a page, not a line"),
        (255 - GRAY, "light writing on dark paper: invert it"),
        ([None], "a NoneType is no image: give a path, a PIL image or an array"),
        (7, "one image or a list of them is read, not a int"),
        (np.zeros((2, 3, 4, 5)), r"an array of shape \(3, 4, 5\) is no image"),
        (GRAY - 300.0, "values from -270 to -80: pixels are 0 to 255"),
        (GRAY.astype(np.float64) * np.nan, "values from nan"),
        (np.array([["a"]]), "are no pixels"),
        ("nowhere.png", r"nowhere\.png can't be read \(No such file"),
    ],
)
def test_what_is_no_line_gets_a_word_of_what_is_wanted(given, message):
    with pytest.raises(ValueError, match=message):
        line_images(given)


def of_mode(mode: str) -> Image.Image:
    wide = GRAY.astype(np.uint16) * 257
    if mode == "I;16":
        return Image.fromarray(wide)
    if mode == "I;16B":
        return Image.frombytes(mode, GRAY.shape[::-1], wide.astype(">u2").tobytes())
    if mode == "I":
        return Image.fromarray(wide.astype(np.int32))
    if mode in ("La", "RGBa"):
        return Image.fromarray(CLEAR).convert("LA" if mode == "La" else "RGBA").convert(mode)
    if mode == "P":
        return Image.fromarray(GRAY).convert(mode)
    return Image.fromarray(CLEAR if mode in ("LA", "RGBA", "PA") else COLOUR).convert(mode)


MODES = ["L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "I;16B", "I", "F"]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode):
    [one] = line_images(of_mode(mode))
    assert np.abs(one.astype(int) - GRAY).max() <= 3


def test_transparency_lies_on_white():
    ink = np.dstack([np.zeros((40, 160, 3), np.uint8), 255 - GRAY])  # black, as opaque as it is dark
    for given in (ink, Image.fromarray(ink), np.dstack([np.zeros_like(GRAY), 255 - GRAY])):
        assert np.abs(line_images(given)[0].astype(int) - GRAY).max() <= 1


def test_tensors_and_files(tmp_path):
    gray = torch.from_numpy(GRAY)
    for given in (gray, gray[None], gray[None].expand(3, -1, -1), gray / 255, (gray / 255).bfloat16().requires_grad_()):
        [one] = line_images(given)
        assert np.abs(one.astype(int) - GRAY).max() <= 2
    assert len(line_images(torch.stack([gray, gray]))) == 2
    cv2.imwrite(str(tmp_path / "l.png"), GRAY)
    content = (tmp_path / "l.png").read_bytes()
    with open(tmp_path / "l.png", "rb") as file:
        for given in (content, bytearray(content), file):
            assert np.array_equal(line_images(given)[0], GRAY)
    assert len(line_images(image for image in [GRAY, COLOUR, tmp_path / "l.png"])) == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.full((64, 400), 250, np.uint8), "nothing is written on it"),
        (np.zeros((64, 400)), "nothing is written on it"),
        (np.zeros((1, 1), np.uint8), "1 x 1 pixels are too few"),
        (np.resize(GRAY, (2000, 3)), "wider than high: turn it"),
        (np.resize(GRAY, (842, 595)), "595 x 842 pixels are a page, not a line"),
        (np.float64(3), "not a float64"),
        (np.array(3), "not a ndarray"),
        ({"a": GRAY}, "not a dict"),
        (None, "not a NoneType"),
        (b"no image", "image 0: image is not a JPEG"),
    ],
)  # fmt: skip
def test_what_no_line_can_be(given, told):
    with pytest.raises(ValueError, match=told):
        line_images(given)
