"""Fit a prepared form to a scan: coarsely by its wide keypoints, then by its close ones."""

from dataclasses import dataclass

import numpy as np

from htr.forms.edition import Form
from htr.forms.keypoints import (
    CLOSE,
    WIDE,
    centred,
    fit_affine,
    fit_similarity,
    resize_to,
    rotation,
    search_patch,
    translation,
)

RETRY_SCORE, HIGH_SCORE = 0.25, 0.8  # scores between which a second fit is worth its time
MIN_CLEAR_CORRELATION = 0.6  # correlation of a keypoint that is plainly there


@dataclass(frozen=True, eq=False)
class Fit:
    """A form fitted to a scan."""

    form: Form
    matrix: np.ndarray  # (3, 3): pixels of the template's picture to pixels of the scan
    score: float  # share of the close keypoints that agree
    likeness: float  # the middle correlation of those
    displaced: float = 0.0  # share of the close keypoints that are plainly there, but not in their places


def fit_coarse(form: Form, small: np.ndarray, to_scan: np.ndarray, quarters: int) -> tuple[np.ndarray, float]:
    """The similarity (3, 3), picture to scan, that most of the wide keypoints agree on, and their share."""
    room = WIDE.reach
    framed, to_turned = centred(np.rot90(small, quarters), tuple(side + 2 * room for side in form.wide.shape))
    found, correlation = form.wide.locate(framed)
    usable = correlation >= WIDE.found
    matrix, near = fit_similarity(form.wide.points[usable], found[usable], WIDE.near)
    to_small = rotation(quarters, small.shape) @ to_turned @ translation(room, room)
    picture = resize_to(form.template.picture.shape, form.wide.shape)
    return to_scan @ to_small @ matrix @ picture, near.sum() / len(usable)


def fit_form(form: Form, levels: list[np.ndarray], coarse: np.ndarray) -> Fit:
    """Fit by the close keypoints, once more where the first score is neither high nor hopeless."""
    fit = fit_fine(form, levels, coarse)
    return fit_fine(form, levels, fit.matrix) if RETRY_SCORE <= fit.score < HIGH_SCORE else fit


def fit_fine(form: Form, levels: list[np.ndarray], matrix: np.ndarray) -> Fit:
    """A coarse matrix, picture to scan -> the one fitted to the close keypoints."""
    to_scan = matrix @ np.linalg.inv(form.to_close)
    found, correlation = form.close.locate(search_patch(levels, to_scan, (0, 0, *form.close.shape[::-1]), CLOSE.reach))
    fit, near = fit_affine(form.close.points, found, correlation >= CLOSE.found, CLOSE.near)
    middle = float(np.median(correlation[near])) if near.any() else 0.0
    displaced = float((~near & (correlation >= MIN_CLEAR_CORRELATION)).mean())
    return Fit(form, to_scan @ fit @ form.to_close, float(near.sum() / len(near)), middle, displaced)
