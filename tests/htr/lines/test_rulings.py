"""Rulings leave, the strokes that cross them or lie on them stay."""

import cv2
import numpy as np
import pytest

from htr.lines.rulings import bands_of, find_rulings, remove_rulings

WIDTH, HEIGHT = 900, 120


def a_field(*, shade=110, thick=2, slope=0.0, off=0, strokes=True, seed=0):
    """(field, printed, ink): a ruling at row 80 with an accent, a dash and t-bars at it, and uprights across it."""
    printed = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.line(printed, (0, 80), (WIDTH, 80), 255, thick)
    form = np.full((HEIGHT, WIDTH), 252, np.uint8)
    drop = round(np.tan(np.radians(slope)) * WIDTH)
    cv2.line(form, (0, 80 + off), (WIDTH, 80 + off + drop), shade, thick, cv2.LINE_AA)
    ink = np.full((HEIGHT, WIDTH), 255, np.uint8)
    if strokes:
        for x in range(60, 800, 70):
            cv2.line(ink, (x, 30), (x - 8, 105), 60, 3, cv2.LINE_AA)
        cv2.line(ink, (200, 80 + off), (235, 80 + off), 60, 3)  # a dash along it
        cv2.line(ink, (420, 77 + off), (445, 77 + off), 60, 3)  # a t-bar that touches it
        cv2.circle(ink, (600, 84 + off), 3, 60, -1)
    scan = form / 255.0 * ink + np.random.default_rng(seed).normal(0, 3, form.shape)
    return np.clip(scan, 0, 255).astype(np.uint8), printed, ink < 150


@pytest.mark.parametrize("shade", [40, 110, 180])
@pytest.mark.parametrize("off", [-3, 0, 3])
@pytest.mark.parametrize("thick", [1, 3])
def test_ruling_goes_and_strokes_stay(shade, off, thick):
    field, printed, ink = a_field(shade=shade, off=off, thick=thick)
    clean = remove_rulings(field, printed, pitch=80)
    near = np.zeros(field.shape, bool)
    near[80 + off - 5 : 80 + off + 6] = True
    assert (clean[near & ink] < 190).mean() >= 0.97
    bare = near & ~cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert (clean[bare] > 205).mean() > 0.99  # the ruling is gone
    assert (clean[~near] == field[~near]).mean() > 0.95  # and nothing else touched


@pytest.mark.parametrize("slope", [-1.2, 0, 0.8])
def test_ruling_without_a_template(slope):
    field, _, ink = a_field(slope=slope)
    clean = remove_rulings(field, None, pitch=80)
    bare = ~cv2.dilate(ink.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert (field[bare] < 190).sum() > 900  # it was there
    assert (clean[bare] < 190).sum() < 0.15 * (field[bare] < 190).sum()
    assert (clean[ink] < 190).mean() >= 0.97


def test_no_ruling_nothing_done():
    field, printed, _ = a_field(shade=252)
    assert find_rulings(field, 80) == []
    assert (remove_rulings(field, None, pitch=80) == field).all()
    assert (remove_rulings(field, np.zeros_like(printed), pitch=80) == field).all()


def test_edges_of_a_box():
    printed = np.zeros((100, 400), np.uint8)
    cv2.rectangle(printed, (20, 10), (380, 90), 255, 2)
    field = np.where(printed > 0, np.uint8(90), np.uint8(252))
    clean = remove_rulings(field, printed, pitch=80)
    assert (clean < 200).mean() < 0.1 * (field < 200).mean()


def test_bands():
    printed = np.zeros((60, 200), np.uint8)
    printed[10:12] = 255
    printed[30, ::3] = 255  # dots
    printed[40:44, 60:] = 255
    printed[50:54, 150:] = 255  # a dash of a label
    assert bands_of(printed) == [(10, 11), (40, 43)]


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="shape"):
        remove_rulings(np.zeros((40, 50), np.uint8), np.zeros((40, 51), np.uint8), pitch=20)
