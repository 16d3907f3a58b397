"""Fallback registration, for scans on which the usual one fails: A5 on an A4 glass, cut-off scans, photographs.

Feature matching (glass.py) proposes where a form may lie. There the scan is flattened, and the form is fitted to its
close keypoints as on any other scan, by the simplest transform that they agree on: an affine, a homography or a bend.
The same keypoints decide whether the fit is accepted; features alone never do.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from htr.forms.edition import Form
from htr.forms.feature_matching import MAX_SCALE_RATIO, steepness
from htr.forms.fitting import MIN_CLEAR_CORRELATION, Fit, bend_of
from htr.forms.keypoints import CLOSE, apply, corners, fit_affine, pyramid, search_patch, translation
from htr.forms.warp import Warp, cubic, flatten

MIN_VISIBLE_SHARE = 0.7  # of the form's area that must lie on the scan
MIN_KEYPOINTS = 8  # that must lie on the scan, and agree
MIN_SCORE = 0.5  # share of the keypoints on the scan that must lie in their places
SIMPLER_SHARE = 0.95  # a simpler transform is taken if at least this share of the keypoints agrees on it too
MIN_BEND_SCORE = 0.3  # score from which a bend is tried
MIN_BEND_STATISTIC = 12.0  # from which paper is curled: at most 2.5 on flat scans, at least 90 on curled ones
MIN_BEND_KEYPOINTS = 24  # that a bend is fitted to
MAX_BEND_PX = 12.0  # px at CLOSE.dpi that a bend may move any point
MAX_STEPS = 3  # fits one after the other


@dataclass(frozen=True, eq=False)
class Found:
    """A form that was found on a scan: the flattened scan, the fit on it, and the transform back to the scan."""

    warp: Warp
    flat: np.ndarray  # the part of the scan that the form's sheet covers, as from a flatbed
    to_flat: np.ndarray  # (3, 3): pixels of the template to those of `flat`
    fit: Fit  # `fit.matrix` is to_flat
    outline: np.ndarray  # (4, 2): the form's corners on the scan


def fit_projection(form: Form, scan: np.ndarray, matrix: np.ndarray) -> tuple[Found | None, str]:
    """Fit a form to its close keypoints, from a first homography (3, 3), template to scan -> it, or None and the
    reason.

    The reason is "" where nothing speaks for this form.
    """
    name, sheet = form.template.name, form.template.picture.shape
    steep = steepness(matrix, sheet)
    if steep > 2 * MAX_SCALE_RATIO:
        return None, ""  # paper does not lie like that: the matches were chance
    warp = Warp(matrix / matrix[2, 2], sheet[::-1])
    for _ in range(MAX_STEPS):
        warp, near, shown = refit_warp(form, scan, warp)
        if warp is None:
            return None, ""
    score = near.sum() / max(shown.sum(), 1)
    share = visible_share(warp, sheet, scan.shape)
    if score >= MIN_SCORE and share < MIN_VISIBLE_SHARE:
        return None, f"cut off: {share:.0%} of {name} lie on it"
    if shown.sum() < MIN_KEYPOINTS or score < MIN_SCORE:
        if steep > MAX_SCALE_RATIO:
            return None, f"photographed at too steep an angle ({name})"
        return None, f"some print is that of {name}, but not in its places ({score:.2f})"
    return as_found(form, scan, warp, float(score)), ""


def fit_bent_paper(form: Form, scan: np.ndarray, matrix: np.ndarray) -> Found | None:
    """Fit a form on curled paper from its affine (3, 3), template to scan; None where no fit is found."""
    warp = Warp(matrix, form.template.picture.shape[::-1])
    for _ in range(MAX_STEPS):
        warp, near, shown = refit_warp(form, scan, warp)
        if warp is None:
            return None
    return as_found(form, scan, warp, float(near.sum() / max(shown.sum(), 1)))


def as_found(form: Form, scan: np.ndarray, warp: Warp, score: float) -> Found:
    """Flatten the scan by the warp, without the parts of the sheet that lie beyond the scan."""
    sheet = form.template.picture.shape
    height, width = sheet
    outline = warp.places(corners((0, 0, width, height)))
    scale = warp.scale(sheet)
    flat, to_flat = flatten(scan, warp, sheet, scale, fill=255)
    # parts of the sheet beyond the scan are cut off, so that marks there count as beyond the flat image
    there, _ = flatten(np.full(scan.shape, 255, np.uint8), warp, sheet, scale, fill=0)
    rows, columns = (np.flatnonzero((there > 0).mean(axis=axis) > 0.5) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    flat = np.ascontiguousarray(flat[top : rows[-1] + 1, left : columns[-1] + 1])
    to_flat = translation(-left, -top) @ to_flat
    _, correlation, near, _ = locate_keypoints(form, flat, to_flat)
    likeness = float(np.median(correlation[near])) if near.any() else 0.0
    return Found(warp, flat, to_flat, Fit(form, to_flat, score, likeness), outline)


def locate_keypoints(
    form: Form, flat: np.ndarray, to_flat: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Look for the close keypoints on a flat image.

    -> (n, 2) places, px at CLOSE.dpi; (n,) correlations; (n,) bool: which agree; (n,) bool: which lie on the image.
    """
    to_scan = to_flat @ np.linalg.inv(form.to_close)
    found, correlation = form.close.locate(
        search_patch(pyramid(flat), to_scan, (0, 0, *form.close.shape[::-1]), CLOSE.reach)
    )
    places = apply(to_scan, form.close.points)
    shown = ((places >= 0) & (places < flat.shape[::-1])).all(axis=1)
    near = shown & (correlation >= CLOSE.found)
    return found, correlation, near & (np.linalg.norm(found - form.close.points, axis=1) < CLOSE.near), shown


def refit_warp(form: Form, scan: np.ndarray, warp: Warp) -> tuple[Warp | None, np.ndarray, np.ndarray]:
    """Fit the warp once more, to the close keypoints on the scan that it flattens.

    -> the warp, None where no transform is found; (n,) bool: keypoints that agree; (n,) bool: keypoints on the scan.
    """
    sheet, ours = form.template.picture.shape, form.close.points
    full = warp.scale(sheet)
    scale = min(full, 1.2 * CLOSE.dpi / form.template.dpi)
    source, warped = downscaled(scan, warp, scale / max(full, 1e-6))
    flat, to_flat = flatten(source, warped, sheet, scale, fill=255)
    found, correlation, _, _ = locate_keypoints(form, flat, to_flat)
    pixels = apply(np.linalg.inv(form.to_close), ours)  # of the template
    on_it = warp.places(pixels)
    shown = ((on_it >= 0) & (on_it < scan.shape[::-1])).all(axis=1)
    usable = shown & (correlation >= CLOSE.found)
    best = simplest(form, found, correlation, usable, shown, warp.bend is not None)
    if best is None:
        return None, usable, shown
    kind, fit, near = best
    if kind == "bent" or warp.bend is not None:
        return with_bend(form, warp, kind, fit), near, shown
    step = np.linalg.inv(form.to_close) @ fit @ form.to_close
    return Warp(warp.matrix @ step, warp.size), near, shown


def simplest(
    form: Form, found: np.ndarray, correlation: np.ndarray, usable: np.ndarray, shown: np.ndarray, was_bent: bool
) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The simplest of an affine, a homography and a bend that the keypoints agree on; None: none of them.

    `found` (n, 2), `correlation` (n,): where the keypoints are; `usable`, `shown` (n,) bool: found well enough, and on
    the scan; `was_bent`: the warp so far has a bend. -> "affine", "projective" or "bent"; (3, 3) or (10, 2); (n,) bool:
    agree.
    """
    ours, size, best = form.close.points, form.close.shape[::-1], None
    rough, _ = fit_affine(ours, found, usable, 2 * CLOSE.near)
    plain, agree = fit_affine(ours, found, usable, CLOSE.near)
    if agree.sum() >= MIN_KEYPOINTS:
        best = "affine", plain, agree
    fit, near = fit_homography(ours, found, usable, rough)
    if fit is not None and (best is None or agree.sum() < SIMPLER_SHARE * near.sum()):
        best = "projective", fit, near
    if best is None:
        return None
    kept = best[2].sum() / max(shown.sum(), 1)
    curled = bend_of(form, found, best[1], usable & (correlation >= MIN_CLEAR_CORRELATION)) >= MIN_BEND_STATISTIC
    if was_bent or curled or MIN_BEND_SCORE <= kept < 0.97:
        moved, near = fit_bend(ours, found, usable, rough, size)
        if moved is not None and near.sum() >= best[2].sum() * (1 if curled else 1 / SIMPLER_SHARE):
            best = "bent", moved, near
    return best


def downscaled(scan: np.ndarray, warp: Warp, zoom: float) -> tuple[np.ndarray, Warp]:
    """The scan halved until it is about as small as its flattened image, and its warp: shrinking by a warp aliases.

    `zoom`: px of the flattened image to one of the scan.
    """
    level, factor = scan, 1.0
    while zoom * factor < 0.6 and min(level.shape) >= 300:
        height, width = level.shape
        size = width // 2, height // 2
        level = cv2.resize(level[: size[1] * 2, : size[0] * 2], size, interpolation=cv2.INTER_AREA)
        factor *= 2
    down = np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5], [0, 0, 1]])
    return level, Warp(down @ warp.matrix, warp.size, warp.bend, warp.frame)


def fit_homography(
    ours: np.ndarray, theirs: np.ndarray, usable: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """The homography (3, 3) through the usable pairs that agree, from a first guess `start`; (n,) bool: which agree."""
    fit = start
    for limit in (4 * CLOSE.near, 2 * CLOSE.near, CLOSE.near, CLOSE.near):
        near = usable & (np.linalg.norm(apply(fit, ours) - theirs, axis=1) < limit)
        if near.sum() < MIN_KEYPOINTS:
            return None, near
        found, _ = cv2.findHomography(ours[near], theirs[near], 0)
        if found is None:
            return None, near
        fit = found
    return fit, usable & (np.linalg.norm(apply(fit, ours) - theirs, axis=1) < CLOSE.near)


def fit_bend(
    ours: np.ndarray, theirs: np.ndarray, usable: np.ndarray, start: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray | None, np.ndarray]:
    """Coefficients (10, 2) of the cubic displacement that the usable pairs agree on, px at CLOSE.dpi; (n,) bool: which.

    None where too few agree, and where it moves a point by more than MAX_BEND_PX.
    """
    terms = cubic(ours, size)
    moved = np.linalg.lstsq(terms, apply(start, ours) - ours, rcond=None)[0]
    for limit in (4 * CLOSE.near, 3 * CLOSE.near, 2 * CLOSE.near, CLOSE.near, CLOSE.near):
        near = usable & (np.linalg.norm(ours + terms @ moved - theirs, axis=1) < limit)
        if near.sum() < MIN_BEND_KEYPOINTS:
            return None, near
        # a small ridge penalty on the higher terms: they must stay small where there is no keypoint
        ridge = np.diag([0.0] * 3 + [0.01] * 3 + [0.05] * 4) * near.sum()
        square = terms[near].T @ terms[near] + ridge
        moved = np.linalg.solve(square, terms[near].T @ (theirs - ours)[near])
    if abs(terms @ moved).max() > MAX_BEND_PX:
        return None, near
    return moved, usable & (np.linalg.norm(ours + terms @ moved - theirs, axis=1) < CLOSE.near)


def with_bend(form: Form, warp: Warp, kind: str, fit: np.ndarray) -> Warp:
    """The warp after one more fit (`kind`, `fit` as of `simplest`): a cubic displacement, fitted to both on a grid."""
    height, width = form.template.picture.shape
    across, down = np.meshgrid(np.linspace(0, width - 1, 12), np.linspace(0, height - 1, 12))
    grid = np.column_stack([across.ravel(), down.ravel()])
    close = apply(form.to_close, grid)
    moved = close + cubic(close, form.close.shape[::-1]) @ fit if kind == "bent" else apply(fit, close)
    moved = apply(np.linalg.inv(form.to_close), moved)
    if warp.bend is not None:
        moved = moved + cubic(moved, warp.size) @ warp.bend
    terms = cubic(grid, warp.size)
    return Warp(warp.matrix, warp.size, np.linalg.lstsq(terms, moved - grid, rcond=None)[0])


def visible_share(warp: Warp, sheet: tuple[int, int], shape: tuple[int, int]) -> float:
    """The share of the area of a form's sheet (rows, columns) that lies on a scan of this shape (rows, columns)."""
    across, down = np.meshgrid(np.linspace(0, sheet[1], 40), np.linspace(0, sheet[0], 30))
    places = warp.places(np.column_stack([across.ravel(), down.ravel()]))
    return float(((places >= 0) & (places < shape[::-1])).all(axis=1).mean())


def is_negative(scan: np.ndarray) -> bool:
    """Whether thin strokes are lighter than the paper: the scan (H, W) uint8 is a negative."""
    small = pyramid(scan)
    small = small[max(len(small) - 2, 0)] if len(small) > 2 else small[0]
    away = small.astype(np.float32) - cv2.medianBlur(small, 9)
    return float((away**3).mean()) > 0 and float(np.median(small)) < 128
