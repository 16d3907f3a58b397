"""A line: where it lies, how it is cut, and what a model sees of it."""

import cv2
import numpy as np
import pytest

from htr.images.line import BadLine, Region, can_carry, cut, decode, to_ink


@pytest.mark.parametrize(
    ("box", "polygon", "reason"),
    [
        ("1 2 3", "", "box is not four numbers"),
        ("1 2 3 4 5", "", "box is not four numbers"),
        ("one 2 3 4", "", "box is not four numbers"),
        ("nan 2 3 4", "", "box is not four numbers"),
        ("1 2 inf 4", "", "box is not four numbers"),
        ("1 2 0 4", "", "box is empty"),
        ("1 2 3 -4", "", "box is empty"),
        ("1 2 1e300 1e300", "", "box lies outside"),
        ("", "1,2 3,4", "polygon is not at least three"),
        ("", "1,2 3,4 5", "polygon is not at least three"),
        ("", "1,2,3 4,5,6 7,8,9", "polygon is not at least three"),
        ("", "a,b c,d e,f", "polygon is not at least three"),
        ("1 2 3 4", "1,2 3,4", "polygon is not at least three"),
        ("", "99999999999,1 2,3 4,5", "box lies outside"),
        ("1 2 3 4", "99999999999,1 2,3 4,5", "box lies outside"),
    ],
)
def test_regions_that_are_none(box, polygon, reason):
    with pytest.raises(BadLine, match=reason):
        Region.parse(box, polygon)


def test_regions():
    assert Region.parse("", "") is None
    assert Region.parse("10.4,20 30 40.6", "") == Region(10, 20, 30, 41)
    region = Region.parse("", "10,20 30,20 30,45")
    assert (region.x, region.y, region.w, region.h) == (10, 20, 21, 26)  # both ends belong to it
    assert region.polygon.tolist() == [[10, 20], [30, 20], [30, 45]]


def test_a_cut_is_the_pages_own_pixels():
    page = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert cut(page, None) is page
    assert cut(page, Region(2, 3, 4, 5)).tolist() == page[3:8, 2:6].tolist()
    assert cut(page, Region(-1, 8, 4, 3)).tolist() == page[8:, :3].tolist()  # over the edge: what there is


@pytest.mark.parametrize("box", [(10, 0, 5, 5), (-6, 0, 10, 5), (0, 20, 5, 5), (-50, -50, 5, 5), (5, 5, 100, 100)])
def test_a_box_mostly_outside(box):
    with pytest.raises(BadLine, match="outside"):
        cut(np.zeros((10, 10), np.uint8), Region(*box))


def test_a_polygon_masks_the_neighbours():
    page = np.full((60, 100), 200, np.uint8)
    page[:20] = 10  # the line above
    page[30:34, 20:80] = 40  # this line's ink
    line = cut(page, Region.parse("0 0 100 60", "0,25 99,25 99,59 0,59"))
    assert line.shape == (60, 100)
    assert (line[:25] == 200).all()  # this line's paper instead
    assert (line[25:] == page[25:]).all()
    assert page[0, 0] == 10  # the page itself stays
    with pytest.raises(BadLine, match="polygon lies outside"):
        cut(page, Region.parse("0 0 100 60", "200,25 299,25 299,59"))


def test_decode(draw):
    gray = draw("choc")
    assert (decode(cv2.imencode(".png", gray)[1].tobytes()) == gray).all()
    color = cv2.imencode(".png", cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))[1].tobytes()
    assert np.abs(decode(color).astype(int) - gray).max() <= 1
    for wrong, reason in ((b"", "empty"), (b"\x89PNG and no more", "decoded"), (color[:20], "decoded")):
        with pytest.raises(BadLine, match=reason):
            decode(wrong)


def test_can_carry():
    assert can_carry((64, 20), "x" * 10) and not can_carry((64, 20), "x" * 11)
    assert can_carry((32, 20), "x" * 20) and not can_carry((128, 20), "x" * 6)


@pytest.mark.parametrize("height", [48, 64, 96])
def test_ink_is_white_on_black_and_keeps_its_aspect(draw, height):
    gray = draw("cancer du sein", 120)
    ink = to_ink(gray, height)
    assert ink.shape == (height, round(gray.shape[1] * height / 120)) and ink.dtype == np.uint8
    assert np.median(ink) < 8 and ink.max() == 255
    dark = cv2.resize(gray, ink.shape[::-1], interpolation=cv2.INTER_AREA)
    assert ink[dark < 60].min() > 180 and ink[dark > 215].max() < 40


def test_shadows_leave_and_faint_ink_is_raised(draw):
    gray = draw("cancer du sein", 64)
    shadow = np.linspace(0.55, 1, gray.shape[1])
    shaded = to_ink((gray * shadow).astype(np.uint8), 64)
    assert np.abs(shaded.astype(int) - to_ink(gray, 64)).mean() < 12
    faint = to_ink((225 - (225 - gray.astype(int)) * 0.3).astype(np.uint8), 64)
    assert faint.max() > 240


def test_the_noise_of_an_empty_line_is_not_raised_to_ink():
    noise = np.clip(np.random.default_rng(0).normal(220, 4, (64, 400)), 0, 255).astype(np.uint8)
    assert to_ink(noise, 64).max() < 160


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5), (10000, 8), (8, 10000), (1, 70000), (2, 3)])
def test_no_shape_and_no_shade_is_too_much(shape, value):
    ink = to_ink(np.full(shape, value, np.uint8), 64)
    assert ink.shape[0] == 64 and 16 <= ink.shape[1] <= 8192 and ink.dtype == np.uint8
    if value:
        assert ink.max() < 8  # paper without ink
