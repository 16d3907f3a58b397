"""The blank form, made from filled-in scans: they are registered on each other, then a quantile of each pixel is taken.

No template is needed. The SIFT features of all scans are matched with those of one scan, the one that most others agree
with. What matches is print. The sheet has the median rotation and size of the scans. A second round registers each
scan on the picture of the first round, by the keypoints of registration.py, so that the print of the result is sharp.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from htr.forms.edition import Form
from htr.forms.feature_matching import INLIER_DISTANCE_PX, Features, features_of_scan, matches, places_of
from htr.forms.fitting import fit_fine
from htr.forms.keypoints import apply, corners, pyramid, search_patch, translation
from htr.forms.structure import propose_fields, slope_of_rulings
from htr.forms.template import Field, Template
from htr.lines.segmentation import flatten_background

DPI = 200  # of the picture that is made
MIN_SCANS = 8  # with fewer, writing that stands on more than a third of them would stay
MAX_SCANS = 120  # that are used
REFERENCE_CANDIDATES = 5  # scans of which one becomes the reference that all others are registered on
SCANS_PER_CANDIDATE = 9  # other scans that each candidate is matched with
MIN_INLIERS = 25  # matches with the reference that a scan of the same form has
BRIGHTNESS_QUANTILE = 0.66  # of all scans at a pixel: print is dark on nearly all of them, writing on fewer
MIN_SCORE = 0.5  # registration score of a scan in the second round
# A4, A5, letter, A3, A6, the most usual of forms first
PAPER_SIZES_INCH = (11.69, 8.27), (8.27, 5.83), (11.0, 8.5), (16.54, 11.69), (5.83, 4.13)
MIN_SIDE_INCH, MAX_SIDE_INCH = 3.5, 24.0  # longer side of a form, A7 to A2
USUAL_DPI = 100, 150, 200, 240, 300, 400, 600


@dataclass(frozen=True, eq=False)
class Blank:
    picture: np.ndarray  # (H, W) uint8, paper 255
    dpi: float
    used: list[int]  # indices of the scans that it was made of
    left_out: list[int]  # indices of those that show another form


def guess_dpi(shape: tuple[int, int]) -> float | None:
    """The dpi of an image (rows, columns) if its size is that of a usual paper at a usual resolution, else None."""
    fits = [
        (max(abs(max(shape) / long / dpi - 1), abs(min(shape) / short / dpi - 1)), number, dpi)
        for number, (long, short) in enumerate(PAPER_SIZES_INCH)
        for dpi in USUAL_DPI
    ]
    best = min(fits)[0]
    if best >= 0.04:
        return None
    # A5 at 300 dpi has nearly as many pixels as A3 at 150: the more usual paper is taken
    return float(min((number, dpi) for off, number, dpi in fits if off < best + 0.01)[1])


def likely_dpi(said: float | None, shape: tuple[int, int]) -> float | None:
    """The dpi that a file states, unless the paper of this `shape` (rows, columns) would be larger than A2 or smaller
    than A7; then a guess.
    """
    if said and MIN_SIDE_INCH <= max(shape) / said <= MAX_SIDE_INCH:
        return said
    return guess_dpi(shape) or said


def blank_of_scans(
    scans: Sequence[np.ndarray], dpi: Sequence[float | None], progress: Callable[[int], object] = lambda _: None
) -> Blank:
    """Filled-in scans (H, W) uint8 of one form, with the dpi that their files state -> the blank form, at DPI.

    `progress` is called with 1 after each scan, in both rounds. Raises ValueError where too few scans show the same
    print, and where the resolution is not known.
    """
    if len(scans) < MIN_SCANS:
        raise ValueError(f"{len(scans)} scans: the blank form is found from {MIN_SCANS} on, better from 30")
    sizes = [likely_dpi(known, scan.shape) for known, scan in zip(dpi, scans, strict=True)]
    known = [size for size in sizes if size]
    if len(known) < len(scans) / 2:
        raise ValueError("the scans' resolution is not in their files, nor is their size that of a usual paper: "
                         "give it with --dpi")  # fmt: skip
    # a scan without a known resolution is taken to have the median length of paper
    long = float(np.median([max(scan.shape) / size for scan, size in zip(scans, sizes, strict=True) if size]))
    zooms = [DPI / size if size else DPI * long / max(scan.shape) for scan, size in zip(scans, sizes, strict=True)]
    seen = []
    for scan in scans:
        found, factor = features_of_scan(scan)
        seen.append((found, factor))
        progress(1)
    ways = common_frame(seen)
    used = [number for number, way in enumerate(ways) if way is not None]
    if len(used) < max(MIN_SCANS, len(scans) / 3):
        raise ValueError(
            f"only {len(used)} of {len(scans)} scans show the same print: are they of one form, and legible?"
        )
    frame, shape = middle_sheet([scans[i].shape for i in used], [ways[i] for i in used], [zooms[i] for i in used])
    matrices = {i: ways[i] @ frame for i in used}
    picture = middle_picture([(scans[i], matrices[i]) for i in used], shape)
    slope = slope_of_rulings(picture)
    turn = np.array([[1, -slope, 0], [slope, 1, 0], [0, 0, 1]])
    about = translation(shape[1] / 2, shape[0] / 2)
    frame = frame @ about @ turn @ np.linalg.inv(about)  # so that its rulings are level
    matrices = {i: ways[i] @ frame for i in used}
    picture = middle_picture([(scans[i], matrices[i]) for i in used], shape)
    template = Template("blank", picture, DPI, tuple(fields_or_none(picture)), ())
    form, better = Form.prepare(template), {}
    for number in used:
        fit = fit_fine(form, pyramid(scans[number]), matrices[number])
        if fit.score >= MIN_SCORE:
            better[number] = fit.matrix
        progress(1)
    if len(better) < max(MIN_SCANS, len(used) / 2):
        raise ValueError(f"{len(used)} scans show the same print, but only {len(better)} lie well on each other")
    picture = sharpened(middle_picture([(scans[i], way) for i, way in better.items()], shape))
    return Blank(picture, DPI, list(better), [i for i in range(len(scans)) if i not in better])


def fields_or_none(picture: np.ndarray) -> list[Field]:
    """The proposed fields, in which no keypoint may lie; a dummy one if there is none, since a template needs one."""
    return propose_fields(picture, DPI) or [Field("none", "tick", (0, 0, 8, 8), 1, 8.0)]


def common_frame(seen: list[tuple[Features, float]]) -> list[np.ndarray | None]:
    """Features of each scan -> the affine (3, 3) from the reference scan to each; None for a scan of another form."""
    count = len(seen)
    candidates = sorted({round(place) for place in np.linspace(0, count - 1, REFERENCE_CANDIDATES)})
    judges = sorted({round(place) for place in np.linspace(0, count - 1, SCANS_PER_CANDIDATE)})

    def agreement(number: int) -> float:
        # the median: a scan of another form, or an illegible one, decides nothing
        own = [affine_between(seen[number], seen[other])[1] for other in judges if other != number]
        return float(np.median(own))

    best = max(candidates, key=agreement)
    ways = [
        affine_between(seen[best], other) if other is not seen[best] else (np.eye(3), MIN_INLIERS) for other in seen
    ]
    return [way if agree >= MIN_INLIERS else None for way, agree in ways]


def affine_between(first: tuple[Features, float], second: tuple[Features, float]) -> tuple[np.ndarray | None, int]:
    """Features of two scans, each with the px of its scan to one of the reduced scan -> affine (3, 3), inliers.

    Inliers at one place count once. None, 0 where no affine is found.
    """
    (ours, _), (theirs, factor) = first, second
    source, target = matches(ours, theirs)
    if min(len(ours.points), len(theirs.points)) < MIN_INLIERS or len(source) < 6:
        return None, 0
    near = INLIER_DISTANCE_PX * factor
    matrix, agree = cv2.estimateAffine2D(source, target, None, cv2.RANSAC, near, 5000, 0.999)
    if matrix is None:
        return None, 0
    return np.vstack([matrix, [0, 0, 1]]), places_of(target, agree, near)


def middle_sheet(
    shapes: list[tuple[int, int]], ways: list[np.ndarray], zooms: list[float]
) -> tuple[np.ndarray, tuple[int, int]]:
    """The sheet with the median rotation, size and edges of all scans.

    `shapes`: (rows, columns) of the scans; `ways`: (3, 3) from the reference to each; `zooms`: px at DPI to one of
    each. -> (3, 3) from the sheet to the reference; its (rows, columns) at DPI.
    """
    linear = [zoom * way[:2, :2] for way, zoom in zip(ways, zooms, strict=True)]  # frame to the scan at DPI
    # scans on their side or upside down do not count
    quarter = np.array([round(float(np.arctan2(m[1, 0], m[0, 0])) / (np.pi / 2)) % 4 for m in linear])
    usual = int(np.bincount(quarter, minlength=4).argmax())
    upright = [m for m, q in zip(linear, quarter, strict=True) if q == usual]
    to_sheet = np.median(upright, axis=0)
    # a form has no shear: what there is comes from the scans
    u, _, vt = np.linalg.svd(to_sheet)
    to_sheet = u @ vt * float(np.sqrt(abs(np.linalg.det(to_sheet))))
    edges = []
    for shape, way, q in zip(shapes, ways, quarter, strict=True):
        if q != usual:
            continue
        height, width = shape
        back = apply(np.linalg.inv(way), corners((0, 0, width - 1, height - 1))) @ to_sheet.T
        (x, y) = np.sort(back, axis=0).T
        edges.append([x[:2].mean(), y[:2].mean(), x[2:].mean(), y[2:].mean()])
    left, top, right, bottom = np.median(edges, axis=0)
    frame = np.eye(3)
    frame[:2, :2] = np.linalg.inv(to_sheet)
    frame[:2, 2] = np.linalg.inv(to_sheet) @ (left, top)
    return frame, (round(bottom - top + 1), round(right - left + 1))


def middle_picture(scans: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """The BRIGHTNESS_QUANTILE of each pixel of a sheet (rows, columns) over all scans, their backgrounds flattened.

    `scans`: each with its matrix (3, 3) from the sheet.
    """
    height, width = shape
    stack = np.empty((len(scans), height, width), np.uint8)
    for number, (scan, matrix) in enumerate(scans):
        stack[number] = flatten_background(search_patch(pyramid(scan), matrix, (0, 0, width, height), 0))
    picture, place = np.empty(shape, np.uint8), int(BRIGHTNESS_QUANTILE * (len(scans) - 1))
    for top in range(0, height, 64):  # in bands: the copy that is sorted is small
        picture[top : top + 64] = np.partition(stack[:, top : top + 64], place, axis=0)[place]
    return picture


def sharpened(picture: np.ndarray) -> np.ndarray:
    """The picture with white paper and dark print, as a scan of the blank form has them."""
    dark = picture[picture < 190]
    ink = float(np.percentile(dark, 20)) if len(dark) > 100 else 60.0
    values = (np.arange(256) - ink) / max(238.0 - ink, 1) * (255 - 20) + 20
    return cv2.LUT(picture, np.clip(values, 0, 255).astype(np.uint8))


def resampled(picture: np.ndarray, dpi: float, wanted: float) -> np.ndarray:
    """A picture of `dpi`, resized to the resolution `wanted`."""
    scale = wanted / dpi
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=kind)
