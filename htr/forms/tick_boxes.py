"""Tick boxes: whether one is ticked, by the ink within its frame."""

from dataclasses import dataclass

import cv2
import numpy as np

TICKED = 0.5  # score from which a box is ticked
INK_DARKNESS = 60  # of 255 on flattened paper: least darkness of ink
MIN_FILLED_SHARE = 0.055  # of the inside that strokes of a ticked box cover: a cross covers 0.15, a thin stroke 0.06
MIN_STROKE_RATIO = 0.45  # least length of a stroke to the inner side of the box


@dataclass(frozen=True)
class Tick:
    ticked: bool
    score: float  # 0 to 1; 0.5 is the threshold


def read_tick(box_image: np.ndarray, printed: np.ndarray | None) -> Tick:
    """Read a tick box. `box_image` (H, W) uint8: it and its margin, flattened. `printed`: the same shape, > 0 on print.

    The ink inside the frame counts, and strokes that cross the frame. The printed frame does not count, up to 3 px off
    its place, nor do specks. Raises ValueError for another type, an image under 8 x 8 px, and shapes that differ.
    """
    if box_image.ndim != 2 or box_image.dtype != np.uint8 or min(box_image.shape) < 8:
        raise ValueError("a tick box is a gray uint8 image of at least 8 x 8 pixels")
    if printed is not None and printed.shape != box_image.shape:
        raise ValueError("the mask of print has another shape than the tick box")
    x, y, w, h = frame_of(printed, box_image.shape)
    dark = cv2.compare(box_image, 255 - INK_DARKNESS, cv2.CMP_LT)
    if printed is not None:
        dx, dy = offset_of(dark, printed, (x, y, w, h))
        x, y = x + dx, y + dy
        moved = cv2.warpAffine(
            printed, np.float32([[1, 0, dx], [0, 1, dy]]), printed.shape[::-1], flags=cv2.INTER_NEAREST
        )
        frame = cv2.dilate(moved, np.ones((3, 3), np.uint8))
        dark[frame > 0] = 0
    rim = 2 + round(0.06 * min(w, h))
    inside = np.s_[max(y + rim, 0) : max(y + h - rim, 0), max(x + rim, 0) : max(x + w - rim, 0)]
    if not dark[inside].any():
        return Tick(False, 0.0)
    # joins the strokes that the frame had cut
    joined = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    area = dark[inside].size
    side = max(min(w, h) - 2 * rim, 1)
    mass = np.bincount(labels[inside][dark[inside] > 0], minlength=len(stats)).astype(float)
    mass[0] = 0
    length = stats[:, 2:4].max(axis=1)
    # a stroke goes through the box; a dot, a comma or the end of a stroke from outside does not
    within = np.where((length >= MIN_STROKE_RATIO * side) & (mass > 0.02 * area), mass, 0).sum() / area
    blot = mass.max() / area  # a filled box, or a thick short mark
    evidence = max(within / MIN_FILLED_SHARE, blot / 0.18)
    score = float(evidence / (1 + evidence))
    return Tick(score >= TICKED, score)


def is_empty(box_image: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """Whether nothing is dark inside the frame at x, y, w, h of the flattened crop. Then read_tick would give 0.

    That is so for most boxes, and takes a hundredth of the time.
    """
    x, y, w, h = box
    rim = 1 + round(0.06 * min(w, h))  # narrower than in read_tick, as print may be off its place
    inside = box_image[max(y + rim, 0) : max(y + h - rim, 0), max(x + rim, 0) : max(x + w - rim, 0)]
    return inside.size > 0 and int(inside.min()) >= 255 - INK_DARKNESS


def frame_of(printed: np.ndarray | None, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """x, y, w, h of the printed frame; the middle half of the image where there is no print."""
    if printed is not None and printed.any():
        _, _, stats, centres = cv2.connectedComponentsWithStats(printed, connectivity=8)
        away = np.abs(centres[1:] - (shape[1] / 2, shape[0] / 2)).max(axis=1)
        size = stats[1:, 2:4].min(axis=1)
        square = np.flatnonzero(size >= 0.25 * min(shape))
        if len(square):
            best = 1 + square[away[square].argmin()]
            return tuple(int(v) for v in stats[best, :4])
    height, width = shape
    return width // 4, height // 4, width // 2, height // 2


def offset_of(dark: np.ndarray, printed: np.ndarray, frame: tuple[int, int, int, int]) -> tuple[int, int]:
    """How far the frame lies off its place, columns and rows, each -3 to 3: where it covers most ink."""
    x, y, w, h = frame
    around = cv2.copyMakeBorder(dark, 3, 3, 3, 3, cv2.BORDER_CONSTANT)[y : y + h + 6, x : x + w + 6]
    form = printed[y : y + h, x : x + w] > 0
    match = cv2.matchTemplate(around & 1, form.astype(np.uint8), cv2.TM_CCORR)
    _, most, _, (x, y) = cv2.minMaxLoc(match)
    return (x - 3, y - 3) if most > 0 else (0, 0)
