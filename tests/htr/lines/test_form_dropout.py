"""The small image of a field: its ink as dark as it is, without what the form prints."""

import cv2
import numpy as np
import pytest

from htr.lines.form_dropout import PRINT_TOLERANCE_PX, PrintedForm, drop_form, factor_of

HEIGHT, WIDTH = 150, 900


def a_form(*, dotted=False):
    """Where the template prints: a ruling or dots, a label, the upright edge of a box."""
    printed = np.zeros((HEIGHT, WIDTH), np.uint8)
    printed[110:112, :: 7 if dotted else 1] = 255
    cv2.putText(printed, "a)", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    printed[:, 850:852] = 255
    return printed


def a_field(printed, *, lower=0, ink=None):
    field = np.where(np.roll(printed, lower, axis=0) > 0, 100.0, 252.0)
    return (field if ink is None else field * ink).astype(np.uint8)


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("lower", [-PRINT_TOLERANCE_PX, -1, 0, 2, PRINT_TOLERANCE_PX])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_print_leaves(dotted, lower, factor):
    printed = a_form(dotted=dotted)
    small = drop_form(a_field(printed, lower=lower), PrintedForm.of(printed, factor), factor)
    assert small.shape == (HEIGHT // factor, WIDTH // factor) and small.dtype == np.uint8
    assert (small > 24).mean() < 0.002


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_strokes_stay(factor):
    printed, ink = a_form(), np.ones((HEIGHT, WIDTH))
    ink[30:140, 300:308] = 0.3  # across the ruling
    ink[108:115, 500:540] = 0.3  # along it
    small = drop_form(a_field(printed, ink=ink), PrintedForm.of(printed, factor), factor)
    x, y = 304 // factor, slice(36 // factor, 134 // factor)
    assert small[y, x].min() > 120
    assert small[111 // factor, 508 // factor : 532 // factor].min() > 100


def test_without_a_form_it_is_the_mean_darkness():
    field = np.random.default_rng(0).integers(0, 256, (31, 47), np.uint8)
    small = drop_form(field, None, 3)
    mean = 255 - field[:30, :45].reshape(10, 3, 15, 3).mean(axis=(1, 3))
    assert np.abs(small - mean).max() <= 1


def test_a_pitch_becomes_about_thirty_pixels():
    assert [factor_of(pitch) for pitch in (8, 40, 60, 95, 2000)] == [1, 1, 2, 3, 67]
