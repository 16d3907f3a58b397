"""Fit a form to a scan: a similarity by its wide keypoints, then an affine by its close ones."""

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

RETRY_SCORE, HIGH_SCORE = 0.25, 0.8  # scores between which a second fit is made
MIN_CLEAR_CORRELATION = 0.5  # of a keypoint that counts for the statistic of a bend
MIN_KEYPOINTS_OF_BEND = 20  # that this statistic needs


@dataclass(frozen=True, eq=False)
class Fit:
    """A form that was fitted to a scan."""

    form: Form
    matrix: np.ndarray  # (3, 3): pixels of the template's picture to pixels of the scan
    score: float  # share of the close keypoints that agree
    likeness: float  # median correlation of those
    bend: float = 0.0  # F statistic of a bend, see bend_statistic


def fit_coarse(form: Form, small: np.ndarray, to_scan: np.ndarray, quarters: int) -> tuple[np.ndarray, float]:
    """Fit the wide keypoints to a reduced scan after `quarters` quarter turns.

    `to_scan` (3, 3): pixels of `small` to those of the scan. -> the similarity (3, 3), picture to scan, that most
    keypoints agree on; the share that agrees.
    """
    room = WIDE.reach
    framed, to_turned = centred(np.rot90(small, quarters), tuple(side + 2 * room for side in form.wide.shape))
    found, correlation = form.wide.locate(framed)
    usable = correlation >= WIDE.found
    matrix, near = fit_similarity(form.wide.points[usable], found[usable], WIDE.near)
    to_small = rotation(quarters, small.shape) @ to_turned @ translation(room, room)
    picture = resize_to(form.template.picture.shape, form.wide.shape)
    return to_scan @ to_small @ matrix @ picture, near.sum() / len(usable)


def fit_form(form: Form, levels: list[np.ndarray], coarse: np.ndarray) -> Fit:
    """Fit by the close keypoints, twice where the first score lies between RETRY_SCORE and HIGH_SCORE."""
    fit = fit_fine(form, levels, coarse)
    return fit_fine(form, levels, fit.matrix) if RETRY_SCORE <= fit.score < HIGH_SCORE else fit


def fit_fine(form: Form, levels: list[np.ndarray], matrix: np.ndarray) -> Fit:
    """A first matrix (3, 3), picture to scan -> the fit by the close keypoints. `levels`: the scan's pyramid."""
    to_scan = matrix @ np.linalg.inv(form.to_close)
    found, correlation = form.close.locate(search_patch(levels, to_scan, (0, 0, *form.close.shape[::-1]), CLOSE.reach))
    fit, near = fit_affine(form.close.points, found, correlation >= CLOSE.found, CLOSE.near)
    middle = float(np.median(correlation[near])) if near.any() else 0.0
    bend = bend_of(form, found, fit, correlation >= MIN_CLEAR_CORRELATION)
    return Fit(form, to_scan @ fit @ form.to_close, float(near.sum() / len(near)), middle, bend)


def bend_of(form: Form, found: np.ndarray, fit: np.ndarray, clear: np.ndarray) -> float:
    """`bend_statistic` of the close keypoints that are found clearly (`clear`, (n,) bool) and near their fitted places.

    `found` (n, 2): where they are; `fit` (3, 3): the affine fit, both in px at CLOSE.dpi.
    """
    apart = found - apply(fit, form.close.points)
    clear = clear & (np.abs(apart).max(axis=1) < 2 * CLOSE.near)
    return bend_statistic(form.close.points[clear], apart[clear], form.close.shape[::-1])


def bend_statistic(points: np.ndarray, apart: np.ndarray, size: tuple[int, int]) -> float:
    """The F statistic of a cubic displacement, for the residuals (n, 2) of a flat fit at points (n, 2).

    `size`: width and height of the frame. About 1 on flat paper, 90 and more where it is curled by some pixels; 0 with
    too few points.
    """
    if len(points) < MIN_KEYPOINTS_OF_BEND:
        return 0.0
    terms = cubic(points, size)
    moved = np.linalg.lstsq(terms, apart, rcond=None)[0]
    left = float(((apart - terms @ moved) ** 2).sum())
    free, gained = 2 * (len(points) - terms.shape[1]), 2 * (terms.shape[1] - 3)  # the flat fit took 3 of its terms
    return (float((apart**2).sum()) - left) / gained / max(left / free, 1e-9)
