"""What Reader.read takes: one image or many, as a path, of PIL, or an array of any kind; and what it refuses."""

import cv2
import numpy as np
import pytest
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
