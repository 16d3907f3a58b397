"""Which way a line runs: by its baseline, its outline, and what its region says. All in pixels, y downwards.

A `turn` is what sets the line upright: 0, 90, 180 or 270 degrees clockwise. A line that runs up the page has 90, one
that runs down it 270.
"""

import numpy as np

from htr.io.image_headers import RejectedInput

TURNS = ("0", "90", "180", "270")
# How far an outline's middle lies above its baseline, in its heights: of 32 277 level lines of twelve public data sets
# half have more than 0.2, one in a hundred less than -0.06, one in ten thousand less than -0.25.
SURE_SIDE, ODD_SIDE = 0.08, -0.25
WIDE = 1.5  # width to height of a line that certainly runs across the page


def points(cell: str) -> np.ndarray | None:
    """ "x,y x,y …" -> (n, 2) float64, two or more; None where they are none."""
    try:
        found = np.array([[float(v) for v in point.split(",")] for point in cell.split()])
    except ValueError:
        return None
    return found if found.ndim == 2 and found.shape[1] == 2 and len(found) > 1 and np.isfinite(found).all() else None


def is_upright(outline: str) -> bool:
    """Whether a polygon is higher than wide."""
    found = points(outline)
    return found is not None and bool(np.ptp(found[:, 1]) > np.ptp(found[:, 0]))


def parse_turn(cell: str) -> int | None:
    """From a table's cell; None where it is empty or 0: then the geometry alone tells. Raises RejectedInput."""
    cell = cell.removesuffix(".0")
    if cell in ("", "0"):
        return None
    if cell not in TURNS:
        raise RejectedInput("turn is not 0, 90, 180 or 270")
    return int(cell)


def quarter(degrees: float) -> int:
    """The nearest turn."""
    return round(degrees / 90) * 90 % 360


def drawn_turn(baseline: np.ndarray) -> int:
    """The turn by the baseline's ends alone."""
    across, down = baseline[-1] - baseline[0]
    return quarter(-np.degrees(np.arctan2(down, across)))


def turned(xy: np.ndarray, turn: int) -> np.ndarray:
    """Points (n, 2) about the origin, clockwise."""
    x, y = xy[:, 0], xy[:, 1]
    return np.stack({0: (x, y), 90: (-y, x), 180: (-x, -y), 270: (y, -x)}[turn], axis=1)


def resolve(
    baseline: np.ndarray | None, outline: np.ndarray, corners: np.ndarray, stated: int | None
) -> tuple[int, np.ndarray | None]:
    """-> the turn, and the baseline in the order in which it is read, None where it makes no sense.

    `outline`: (m, 2), a polygon or a box's corners; `corners`: (4, 2) of its box. A baseline's direction counts where
    the outline agrees: writing stands above its baseline more than below, and a line is longer than high. Drawn against
    it, a level baseline is a slip and is reversed. Raises RejectedInput where what is stated, the baseline and the
    outline can't all be true.
    """
    width, height = np.ptp(corners, axis=0)
    turn = 0 if baseline is None else drawn_turn(baseline)
    steep = turn in (90, 270) and width > height  # a slip: the line runs across the page
    if baseline is None or steep or not can_follow(baseline, corners, turn):
        if stated in (90, 270) and width > WIDE * height:
            raise RejectedInput(f"line is wider than high, and its region is turned by {stated} degrees")
        return stated or 0, None
    if turn == 0 and stated is None:
        return 0, baseline
    side = side_of(baseline, outline, turn)
    if stated is not None and abs(stated - turn) == 180:
        if side > SURE_SIDE:
            raise RejectedInput(f"region is turned by {stated} degrees, the line's baseline is not")
        return stated, baseline[::-1]
    if turn == 180:
        return (180, baseline) if side > SURE_SIDE or stated == 180 else (0, baseline[::-1])
    if side > ODD_SIDE or turn == 0:
        return turn, baseline
    raise RejectedInput("baseline and outline of a vertical line contradict each other: does it run up or down?")


def can_follow(baseline: np.ndarray, corners: np.ndarray, turn: int) -> bool:
    """Whether a baseline can be its box's: set upright it runs from left to right along most of it, flatter than 45
    degrees, and is hardly longer than straight."""
    baseline, corners = turned(baseline, turn), turned(corners, turn)
    (x, y), (w, h) = corners.min(axis=0), np.ptp(corners, axis=0)
    if (baseline < (x - h, y - h / 2)).any() or (baseline > (x + w + h, y + 1.5 * h)).any():
        return False
    across, down = baseline[-1] - baseline[0]
    length = np.hypot(*np.diff(baseline, axis=0).T).sum()
    return bool(across >= 0.5 * w and across >= abs(down) and length <= 1.2 * np.hypot(across, down))


def side_of(baseline: np.ndarray, outline: np.ndarray, turn: int) -> float:
    """How far the outline's middle lies above the baseline as it is drawn, in heights of the outline."""
    shape, line = turned(outline, turn), turned(baseline, turn)
    x, y = shape[:, 0], shape[:, 1]
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum()
    middle = (
        np.array([((x + np.roll(x, -1)) * cross).sum(), ((y + np.roll(y, -1)) * cross).sum()]) / (3 * area)
        if abs(area) > 1e-6
        else shape.mean(axis=0)
    )
    order = np.argsort(line[:, 0])
    above = np.interp(middle[0], line[order, 0], line[order, 1]) - middle[1]
    return float(above / max(np.ptp(y) - np.ptp(line[:, 1]), 1))
