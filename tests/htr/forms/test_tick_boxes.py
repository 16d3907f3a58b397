"""Tick boxes: what a pen puts into them counts, the printed frame and stray marks don't."""

import cv2
import numpy as np
import pytest

from htr.forms.tick_boxes import is_empty, read_tick

SIZE, FRAME = 72, (20, 20, 52, 52)  # a box of 32 px, 4 mm at 200 dpi, in a crop with a margin


def a_box(*, off=(0, 0), noise=4, seed=0, thick=2):
    """An empty box `off` its place, and where the template prints it."""
    left, top, right, bottom = FRAME
    printed = np.zeros((SIZE, SIZE), np.uint8)
    cv2.rectangle(printed, (left, top), (right, bottom), 255, thick)
    image = np.full((SIZE, SIZE), 252, np.uint8)
    dx, dy = off
    cv2.rectangle(image, (left + dx, top + dy), (right + dx, bottom + dy), 50, thick)
    grain = np.random.default_rng(seed).normal(0, noise, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8), printed


def ink(image, points, *, shade=70, thick=2):
    cv2.polylines(image, [np.array(points, np.int32)], False, shade, thick, cv2.LINE_AA)
    return image


def cross(image, **pen):
    return ink(ink(image, [(24, 25), (48, 47)], **pen), [(47, 24), (25, 48)], **pen)


MARKS = {
    "cross": cross,
    "check": lambda image: ink(image, [(25, 36), (33, 46), (49, 22)]),
    "check that leaves the box": lambda image: ink(image, [(26, 34), (36, 48), (66, 6)]),
    "cross that leaves the box": lambda image: ink(ink(image, [(12, 14), (62, 60)]), [(60, 12), (14, 62)]),
    "stroke": lambda image: ink(image, [(24, 48), (49, 24)]),
    "filled": lambda image: cv2.rectangle(image, (22, 22), (50, 50), 80, -1),
    "blot": lambda image: cv2.circle(image, (36, 36), 9, 60, -1),
    "faint": lambda image: cross(image, shade=165),
    "thick": lambda image: cross(image, thick=5),
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("off", [(0, 0), (3, -2), (-3, 3)])
def test_marks(mark, off):
    image, printed = a_box(off=off)
    tick = read_tick(MARKS[mark](image), printed)
    assert tick.ticked and 0.5 <= tick.score <= 1


@pytest.mark.parametrize("off", [(0, 0), (2, 3), (-3, -3), (3, 0)])
@pytest.mark.parametrize("thick", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_empty_boxes(off, thick, seed):
    image, printed = a_box(off=off, noise=8, seed=seed, thick=thick)
    tick = read_tick(image, printed)
    assert not tick.ticked and tick.score < 0.3


@pytest.mark.parametrize(
    "stray",
    [
        lambda image: cv2.circle(image, (30, 40), 2, 40, -1),  # a dot
        lambda image: ink(image, [(30, 40), (33, 44)]),  # a comma
        lambda image: ink(image, [(4, 10), (68, 8)]),  # the line above
        lambda image: ink(image, [(60, 10), (66, 66)]),  # beside it
        lambda image: ink(image, [(8, 62), (25, 47)]),  # the tip of another word
    ],
    ids=["dot", "comma", "above", "beside", "tip"],
)
def test_stray_marks(stray):
    image, printed = a_box()
    assert not read_tick(stray(image), printed).ticked


def test_more_ink_is_a_higher_score():
    image, printed = a_box()
    scores = [read_tick(image, printed).score]
    for points in ([(30, 40), (33, 44)], [(24, 48), (49, 24)], [(24, 24), (49, 48)]):
        scores.append(read_tick(ink(image, points), printed).score)
    assert scores == sorted(scores) and scores[0] < 0.1 and scores[-1] > 0.6


def test_without_a_template():
    blank = np.full((SIZE, SIZE), 250, np.uint8)
    assert not read_tick(blank, None).ticked
    assert read_tick(cross(blank), None).ticked


@pytest.mark.parametrize(
    ("image", "printed"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((40, 40, 3), np.uint8), None),
        (np.zeros((40, 40), float), None),
        (np.zeros((40, 40), np.uint8), np.zeros((40, 41), np.uint8)),
    ],
)
def test_what_is_no_tick_box(image, printed):
    with pytest.raises(ValueError, match=r"tick box|printed"):
        read_tick(image, printed)


def test_an_empty_box_is_told_at_once():
    """And only what read_tick gives 0: most boxes are never looked at closer."""
    image = np.full((40, 40), 255, np.uint8)
    cv2.rectangle(image, (8, 8), (31, 31), 90, 2)
    assert is_empty(image, (8, 8, 24, 24)) and read_tick(image, None).score == 0
    cv2.line(image, (12, 12), (27, 27), 60, 2)
    assert not is_empty(image, (8, 8, 24, 24))
    assert not is_empty(image, (30, 30, 1, 1))  # a box of no pixels says nothing
