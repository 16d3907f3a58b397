"""Fit a prepared form to a scan: coarsely by its wide keypoints, then by its close ones."""

from dataclasses import dataclass

import numpy as np

from htr.forms.edition import Form
from htr.forms.keypoints import (
    CLOSE,
    WIDE,
    apply,
    centred,
    fit_affine,
    fit_similarity,
    resize_to,
    rotation,
    search_patch,
    translation,
)
from htr.forms.warp import cubic

RETRY_SCORE, HIGH_SCORE = 0.25, 0.8  # scores between which a second fit is worth its time
MIN_CLEAR_CORRELATION = 0.5  # correlation of a keypoint that is plainly there
MIN_KEYPOINTS_OF_BEND = 20  # keypoints from which a bend can be told


@dataclass(frozen=True, eq=False)
class Fit:
    """A form fitted to a scan."""

    form: Form
    matrix: np.ndarray  # (3, 3): pixels of the template's picture to pixels of the scan
    score: float  # share of the close keypoints that agree
    likeness: float  # the middle correlation of those
    bend: float = 0.0  # how much more a smooth bend explains of where they lie than chance would, see bend_statistic


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
    bend = bend_of(form, found, fit, correlation >= MIN_CLEAR_CORRELATION)
    return Fit(form, to_scan @ fit @ form.to_close, float(near.sum() / len(near)), middle, bend)


def bend_of(form: Form, found: np.ndarray, fit: np.ndarray, clear: np.ndarray) -> float:
    """How curled the paper is, by the close keypoints that are found clearly, (n,) bool, and near to where `fit` has
    them; see bend_statistic."""
    apart = found - apply(fit, form.close.points)
    clear = clear & (np.abs(apart).max(axis=1) < 2 * CLOSE.near)
    return bend_statistic(form.close.points[clear], apart[clear], form.close.shape[::-1])


def bend_statistic(points: np.ndarray, apart: np.ndarray, size: tuple[int, int]) -> float:
    """Of what a flat fit leaves (n, 2) at points (n, 2) within a frame: the F statistic of a cubic displacement.

    About 1 where the paper lies flat, 90 and more where it is curled by some pixels.
    """
    if len(points) < MIN_KEYPOINTS_OF_BEND:
        return 0.0
    terms = cubic(points, size)
    moved = np.linalg.lstsq(terms, apart, rcond=None)[0]
    left = float(((apart - terms @ moved) ** 2).sum())
    free, gained = 2 * (len(points) - terms.shape[1]), 2 * (terms.shape[1] - 3)  # the flat fit took 3 of its terms
    return (float((apart**2).sum()) - left) / gained / max(left / free, 1e-9)
