"""Removal of rulings and box edges from a field; strokes that cross them or lie on them stay.

Print and ink multiply: a row of a ruling is divided by what most of its columns show, so that bare print becomes paper
and what is darker than the print alone stays as dark as its ink makes it.
"""

import cv2
import numpy as np

PAPER_LEVEL = 252.0  # of evened paper
RULING_REACH_PX = 4  # rows that a ruling may lie off its place on the template, its blur included
PROFILE_COLUMNS = 160  # columns that share one profile of a ruling
NOISE_LEVEL = 8.0  # of 255: noise that is no ink, though dividing by a dark ruling multiplies it
# the share of columns at most that writing leaves dark on a row: a higher quantile bleaches strokes
BARE_QUANTILE = 0.6
MAX_RULING_ROWS = 12  # rows of a ruling


def remove_rulings(field: np.ndarray, printed: np.ndarray | None = None, pitch: float = 80) -> np.ndarray:
    """The field, (H, W) uint8 evened, without its solid rulings and the upright edges of its box.

    `printed`: the same shape, > 0 where the template prints, up to 3 px off. None: rulings are looked for as dark
    runs of four `pitch` px, or of half the width, up to 1.5 degrees askew; upright edges then stay. Dots always stay.
    """
    if printed is None:
        for rows, thick in find_rulings(field, pitch):
            field = divide_along(field, rows, thick)
        return field
    if printed.shape != field.shape:
        raise ValueError("what is printed is a mask of the field's shape")
    field = divide_out(field, bands_of(printed))
    edges = bands_of(np.ascontiguousarray(printed.T))
    return np.ascontiguousarray(divide_out(np.ascontiguousarray(field.T), edges).T) if edges else field


def bands_of(printed: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of every solid ruling of a template's print, (H, W) uint8."""
    share = cv2.reduce(printed, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0] / max(int(printed.max()), 1)
    ends = np.flatnonzero(np.diff(np.r_[False, share > 0.6, False].astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in ends.reshape(-1, 2) if end - first <= MAX_RULING_ROWS]


def divide_out(field: np.ndarray, bands: list[tuple[int, int]], factor: int = 1) -> np.ndarray:
    """The field (H, W) uint8 without the level rulings that lie at these rows, give or take REACH.

    `factor`: how many rows of the bands, and columns, one of the field stands for: print and ink multiply in the mean
    of some pixels as well.
    """
    if not bands:
        return field
    rows = np.zeros(len(field), bool)
    for first, last in bands:
        rows[max(first - RULING_REACH_PX, 0) // factor : (last + RULING_REACH_PX) // factor + 1] = True
    clean = field.copy()
    clean[rows] = without(field[rows], factor)
    return clean


def divide_along(field: np.ndarray, rows: np.ndarray, thick: int) -> np.ndarray:
    """The field without one ruling whose middle is at `rows` (W,) of each column."""
    height, width = field.shape
    reach = RULING_REACH_PX + thick // 2
    at = np.clip(rows + np.arange(-reach, reach + 1)[:, None], 0, height - 1)
    columns = np.broadcast_to(np.arange(width), at.shape)
    clean = field.copy()
    clean[at, columns] = without(field[at, columns])
    return clean


def without(strip: np.ndarray, factor: int = 1) -> np.ndarray:
    """Rows along rulings, (rows, W) uint8, each divided by its profile: what bare print shows, part by part."""
    rows, width = strip.shape
    if not rows:
        return strip
    parts = max(round(width * factor / PROFILE_COLUMNS), 1)
    columns = width // parts
    sample = strip[:, : parts * columns].reshape(rows, parts, columns)[:, :, ::2]
    quantile = int(BARE_QUANTILE * sample.shape[2])
    profile = np.partition(sample, quantile, axis=2)[:, :, quantile].astype(np.float32)
    profile = cv2.resize(profile, (width, rows), interpolation=cv2.INTER_LINEAR)
    return np.minimum(strip * (PAPER_LEVEL / np.clip(profile - NOISE_LEVEL / factor, 1, PAPER_LEVEL)), 255).astype(
        np.uint8
    )


def find_rulings(field: np.ndarray, pitch: float) -> list[tuple[np.ndarray, int]]:
    """Long thin dark runs of a field without a template: (row at each column, thickness) each."""
    width = field.shape[1]
    dark = cv2.compare(field, 225, cv2.CMP_LT)
    # what is as thin as a ruling, joined over the steps of a slope, and long
    thin = cv2.subtract(dark, cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((MAX_RULING_ROWS, 1), np.uint8)))
    run = max(min(round(1.2 * pitch), width // 3), 8)
    joined = cv2.morphologyEx(
        cv2.dilate(thin, np.ones((3, 1), np.uint8)), cv2.MORPH_CLOSE, np.ones((1, run // 6), np.uint8)
    )
    runs = cv2.morphologyEx(joined, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
    # runs of one ruling are parted by writing: joined again
    bridged = cv2.morphologyEx(runs, cv2.MORPH_CLOSE, np.ones((1, 2 * run), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.dilate(bridged, np.ones((3, 3), np.uint8)))
    found = []
    for number in range(1, len(stats)):
        x, y, w, h, _ = stats[number]
        if w < min(4 * pitch, 0.5 * width) or h > 0.03 * w + MAX_RULING_ROWS:
            continue
        rows, columns = np.nonzero((labels[y : y + h, x : x + w] == number) & (runs[y : y + h, x : x + w] > 0))
        if len(rows) < 16:
            continue
        slope, row = np.polyfit(columns[::4], rows[::4], 1)
        if abs(slope) > 0.03:
            continue
        thick = int(np.ceil(len(rows) / max(len(np.unique(columns)), 1)))
        path = np.rint(y + row + slope * (np.arange(width) - x)).astype(int)
        found.append((path, min(thick, MAX_RULING_ROWS)))
    return found
