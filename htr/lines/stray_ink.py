"""Ink that is no writing: outlines of stamps, and whether a field holds nothing but stamps, folds, hairs and specks.

A stamp's outline is what writing is not: a large stroke about an empty middle. Where writing crosses it, both are one
component, which is not empty enough. Lines are cut with the outlines that they have: a reader tells a stamp by them.
"""

import cv2
import numpy as np

# in pitches, of an outline or its piece: its longer and its shorter side at least
MIN_OUTLINE_LENGTH, MIN_OUTLINE_HEIGHT = 1.0, 0.35
MAX_OUTLINE_DENSITY = 0.2  # ink in its convex hull; in 190 fields of real writing no such component had under 0.22
NEAR_OUTLINE = 0.25  # pitches beside an outline that what belongs to the stamp may lie
MIN_FOLD_LENGTH, MAX_FOLD_WIDTH, MAX_FOLD_STROKE_PX = 1.3, 0.3, 2.2  # pitches, and px of the small image
# of the field's rows, those in which an upright fold is dark; pitches of them at least; px of the small image
MIN_CREASE_ROWS, MIN_CREASE_LENGTH, MAX_CREASE_WIDTH_PX = 0.9, 1.5, 4
MAX_STRAY_INK = 0.05  # squared pitches of hairs and specks in a field: a dash or two small letters have as much


def stamp_outlines(labels: np.ndarray, stats: np.ndarray, among: np.ndarray, fine: float) -> dict[int, np.ndarray]:
    """Components that are a stamp's outline or a piece of it -> their convex hulls, as OpenCV has contours.

    `labels`, `stats`: a small image's connected components; `among`: (components,) bool, which are looked at; `fine`:
    px of a pitch.
    """
    w, h, area = stats.T[2:]
    large = among & (np.maximum(w, h) > MIN_OUTLINE_LENGTH * fine) & (np.minimum(w, h) > MIN_OUTLINE_HEIGHT * fine)
    hulls = {}
    for c in np.flatnonzero(large & (area < MAX_OUTLINE_DENSITY * w * h)).tolist():
        hull = cv2.convexHull(points_of(labels, stats, c))
        if area[c] < MAX_OUTLINE_DENSITY * cv2.contourArea(hull):
            hulls[c] = hull
    return hulls


def stray_components(
    labels: np.ndarray, stats: np.ndarray, centres: np.ndarray, among: np.ndarray, fine: float
) -> np.ndarray:
    """(components,) bool: outlines of stamps, what stands within them, and folds. Arguments as of stamp_outlines;
    `centres`: (components, 2) x, y.
    """
    hulls = stamp_outlines(labels, stats, among, fine)
    stray = np.zeros(len(stats), bool)
    stray[list(hulls)] = True
    if hulls:
        for c in np.flatnonzero(among & ~stray).tolist():
            middle = tuple(centres[c].tolist())
            distances = (cv2.pointPolygonTest(hull, middle, True) for hull in hulls.values())
            stray[c] = max(distances) > -NEAR_OUTLINE * fine
    long = np.hypot(*stats[:, 2:4].T) > MIN_FOLD_LENGTH * fine
    for c in np.flatnonzero(among & long & ~stray).tolist():
        stray[c] = is_fold(points_of(labels, stats, c), int(stats[c, cv2.CC_STAT_AREA]), fine)
    return stray


def is_fold(points: np.ndarray, area: int, fine: float) -> bool:
    """Whether a component is a straight thin line."""
    width, length = sorted(cv2.minAreaRect(points)[1])
    return length > MIN_FOLD_LENGTH * fine and width < MAX_FOLD_WIDTH * fine and area < MAX_FOLD_STROKE_PX * length


def without_creases(dark: np.ndarray, least: int, fine: float) -> np.ndarray:
    """The darkness of a field's small image, (h, w) uint8, without upright folds: thin lines from its upper to its
    lower edge.

    A fold that crosses lines of writing makes one component of them, taller than any. The registration has set the
    sheet upright, and its folds with it. `least`: darkness of ink. Strokes lose the columns in which a fold crosses
    them, which splits them at most. An image so low that letters may reach from edge to edge is left as it is.
    """
    if len(dark) < MIN_CREASE_LENGTH * fine:
        return dark
    ink = cv2.compare(dark, least, cv2.CMP_GT)
    # a column more on either side for one that leans, and rows for one that is faint
    rows = cv2.reduce(cv2.dilate(ink, np.ones((3, 3), np.uint8)), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
    crossed = cv2.compare(rows, 255 * MIN_CREASE_ROWS, cv2.CMP_GE)
    wide = cv2.morphologyEx(crossed, cv2.MORPH_OPEN, np.ones((1, MAX_CREASE_WIDTH_PX + 3), np.uint8))
    crossed = cv2.subtract(crossed, wide)
    return cv2.subtract(dark, np.broadcast_to(crossed, dark.shape).copy()) if crossed.any() else dark


def points_of(labels: np.ndarray, stats: np.ndarray, component: int) -> np.ndarray:
    """(N, 1, 2) int32 x, y of its pixels."""
    x, y, w, h = stats[component, :4].tolist()
    found = cv2.findNonZero(cv2.compare(labels[y : y + h, x : x + w].astype(np.int32), component, cv2.CMP_EQ))
    return found + np.array([x, y], np.int32)
