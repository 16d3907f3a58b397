"""Printed boxes of a form: tick boxes (square or round), boxes to write in, and combs with a box for each character.

Lengths are in px at DPI unless a name says otherwise.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

DPI = 200  # at which a picture is analysed
PX_PER_MM = DPI / 25.4
PRINT_DARKNESS, PALE_DARKNESS = 75, 30  # of 255: least darkness of print, and of pale print that drops out of scans
MIN_PALE_RATIO = 1.3  # rulings with pale print counted, to those without, from which a form's rulings are pale
MAX_CELL_MM = 10.0  # longest side of a box of a comb
MIN_CELLS = 3  # of a comb
TICK_SIDES_MM = 2.0, 6.5  # shortest and longest side of a tick box
LINE_HEIGHTS_MM = 4.0, 16.0  # least free paper above a ruling to write on, and most that belongs to one line
MIN_WIDTH_MM = 8.0  # of a ruling, or a box, to write on
MIN_RULING_MM = 6.0  # a dark run of this length is a ruling, not a letter
MAX_DOT_GAP_MM = 1.2  # between the dots of a dotted ruling
MIN_FREE_SHARE = 0.55  # of a box to write in: free of print
Box = tuple[int, int, int, int]  # x, y, w, h


@dataclass(frozen=True, eq=False)
class Print:
    """A form's print by its kind: masks of one shape, uint8, 0 or 255."""

    dark: np.ndarray  # all print
    level: np.ndarray  # level rulings; dotted ones are closed
    upright: np.ndarray  # upright rulings
    text: np.ndarray  # the rest, mostly letters

    @classmethod
    def of(cls, picture: np.ndarray, darkness: int = PRINT_DARKNESS) -> "Print":
        dark = cv2.compare(picture, 255 - darkness, cv2.CMP_LT)
        run = round(MIN_RULING_MM * PX_PER_MM)
        gap = round(MAX_DOT_GAP_MM * PX_PER_MM)
        dotted = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
        # letters that are closed together are thicker than dots
        thick = cv2.morphologyEx(dotted, cv2.MORPH_OPEN, np.ones((round(0.9 * PX_PER_MM), 1), np.uint8))
        level = cv2.morphologyEx(cv2.subtract(dotted, thick), cv2.MORPH_OPEN, np.ones((1, 2 * run), np.uint8))
        level |= cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))
        upright = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((run, 1), np.uint8))
        rules = cv2.dilate(cv2.bitwise_or(level, upright), np.ones((3, 3), np.uint8))
        return cls(dark, level, upright, cv2.subtract(dark, rules))


def at_dpi(picture: np.ndarray, dpi: float) -> np.ndarray:
    """A picture resized to DPI."""
    scale = DPI / dpi
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=kind)


def strengthened(picture: np.ndarray, dpi: float) -> np.ndarray:
    """The picture with darker print if its rulings are pale (colours that drop out of scans), else unchanged."""
    lengths, seen = [], at_dpi(picture, dpi)
    for darkness in (PRINT_DARKNESS, PALE_DARKNESS):
        found = Print.of(seen, darkness)
        level, upright = (cv2.connectedComponentsWithStats(rules)[2][1:] for rules in (found.level, found.upright))
        lengths.append(int(level[:, 2].sum()) + int(upright[:, 3].sum()))
    if lengths[1] < MIN_PALE_RATIO * lengths[0] + 100 * PX_PER_MM:
        return picture
    darkness = np.interp(np.arange(256), (0, 15, 40, 255), (0, 15, 110, 255))
    return cv2.LUT(picture, np.rint(255 - darkness[::-1]).astype(np.uint8))


def boxes_of(found: Print) -> tuple[list[Box], list[Box]]:
    """-> tick boxes with their frames; the free parts of boxes to write in, and combs.

    All are paper enclosed by print.
    """
    paper = cv2.bitwise_not(found.dark)
    _, _, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    ticks, rings, small, cells = [], [], [], []
    for x, y, w, h, area in stats[1:].tolist():
        box = x, y, w, h
        if TICK_SIDES_MM[0] * PX_PER_MM > min(w, h) or not within(paper.shape, box):
            continue
        largest = max(MAX_CELL_MM, TICK_SIDES_MM[1]) * PX_PER_MM
        framed = area >= 0.8 * w * h and max(w, h) <= largest and is_frame(found.dark, box)
        if framed and max(w, h) <= MAX_CELL_MM * PX_PER_MM:
            small.append(box)
        if max(w, h) <= TICK_SIDES_MM[1] * PX_PER_MM:
            if framed and max(w, h) <= 1.3 * min(w, h):
                ticks.append(with_frame(found.dark, box))
            elif is_ring(found.dark, box, area):
                rings.append(with_frame(found.dark, box))
        elif w >= MIN_WIDTH_MM * PX_PER_MM and h >= LINE_HEIGHTS_MM[0] * PX_PER_MM:
            free = free_part(found, box)
            if free is not None and is_frame(found.dark, box):
                cells.append(free)
    return squares_alone(ticks) + rings, cells + combs_of(small)


def combs_of(boxes: list[Box]) -> list[Box]:
    """Combs: rows of small boxes that share their sides, one for each character. -> one box for each row.

    A gap of a box, as in a date, does not end a row. Squared paper and tables are left out: their boxes also share
    sides with boxes above.
    """
    alone = [b for b in boxes if not any(abs(o[0] - b[0]) < 4 and 0 < abs(o[1] - b[1]) <= b[3] + 6 for o in boxes)]
    combs, row = [], []
    for box in [*sorted(alone, key=lambda box: (round(box[1] / 4), box[0])), (0, -100, 0, 0)]:
        x, y, w, h = row[-1] if row else box
        apart = box[0] - x - w
        if row and (abs(box[1] - y) > 4 or abs(box[3] - h) > 4 or abs(box[2] - w) > 0.2 * w or apart > 1.2 * w):
            touching = sum(second[0] - first[0] - first[2] <= 6 for first, second in pairwise(row))
            if len(row) >= MIN_CELLS and touching >= len(row) / 2:
                combs.append((row[0][0], row[0][1], x + w - row[0][0], h))
            row = []
        row.append(box)
    return combs


def is_ring(dark: np.ndarray, inside: Box, area: int) -> bool:
    """Whether paper at x, y, w, h (`area`: its px) is the inside of a thin circle that stands alone, not a letter."""
    x, y, w, h = inside
    if not 0.7 * w * h <= area <= 0.86 * w * h or abs(w - h) > 0.12 * max(w, h):
        return False
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    around = cv2.copyMakeBorder(dark, w, w, w, w, cv2.BORDER_CONSTANT) > 0
    middle = np.array([x + (w - 1) / 2, y + (h - 1) / 2])[:, None] + w

    def circle(radius: float) -> np.ndarray:
        columns, rows = np.rint(middle + radius * np.array([np.cos(angles), np.sin(angles)])).astype(int)
        return around[rows, columns]

    line = circle(w / 2 + 0.7) | circle(w / 2 + 1.5)
    beyond = max(0.2 * w, 0.9 * PX_PER_MM)
    sides = slice(x + w - round(w / 2 + beyond + 0.1 * w), x + 2 * w + round(beyond + 0.1 * w))
    beside = around[y + w + h // 4 : y + w + 3 * h // 4, sides]
    room = round(0.12 * w)
    free = not beside[:, :room].any() and not beside[:, -room:].any()
    return bool(line.mean() > 0.9 and circle(w / 2 + beyond).mean() < 0.15 and free)


def without_bars(found: Print) -> np.ndarray:
    """The print (uint8 mask) without short upright strokes on a level ruling: the bars of an open comb."""
    upright = cv2.morphologyEx(found.dark, cv2.MORPH_OPEN, np.ones((round(1.2 * PX_PER_MM), 1), np.uint8))
    reach = cv2.dilate(found.level, np.ones((7, 1), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(upright)
    x, y, w, h = stats[:, :4].T
    foot = np.clip(y + h - 1, 0, found.dark.shape[0] - 1), np.clip(x + w // 2, 0, found.dark.shape[1] - 1)
    bar = (w <= 0.6 * PX_PER_MM) & (h <= 6 * PX_PER_MM) & (reach[foot] > 0)
    bar[0] = False
    return np.where(cv2.dilate(bar[labels].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0, 0, found.dark)


def within(page: tuple[int, int], box: Box) -> bool:
    """Whether a box touches no edge of the page (rows, columns); the paper around all print does."""
    x, y, w, h = box
    return x > 0 and y > 0 and x + w < page[1] and y + h < page[0]


def is_frame(dark: np.ndarray, inside: Box) -> bool:
    """Whether each side of the paper at x, y, w, h is a straight line of print."""
    x, y, w, h = inside
    around = cv2.copyMakeBorder(dark, 3, 3, 3, 3, cv2.BORDER_CONSTANT)[y : y + h + 6, x : x + w + 6] > 0
    inset = max(round(0.12 * min(w, h)), 1)
    rows, columns = slice(3 + inset, 3 + h - inset), slice(3 + inset, 3 + w - inset)
    sides = around[rows, :5].any(axis=1), around[rows, -5:].any(axis=1), around[:5, columns].any(axis=0)
    return min(side.mean() for side in (*sides, around[-5:, columns].any(axis=0))) > 0.9


def with_frame(dark: np.ndarray, inside: Box) -> Box:
    """The box with its printed frame: that is the box of a tick field."""
    x, y, w, h = inside
    rows, columns = slice(y + h // 4, y + 3 * h // 4), slice(x + w // 4, x + 3 * w // 4)
    grow = []
    for strip in (dark[rows, max(x - 6, 0) : x][:, ::-1], dark[rows, x + w : x + w + 6],
                  dark[max(y - 6, 0) : y, columns].T[:, ::-1], dark[y + h : y + h + 6, columns].T):  # fmt: skip
        light = np.flatnonzero((strip > 0).mean(axis=0) < 0.5)
        grow.append(int(light[0]) if len(light) else strip.shape[1])
    left, right, top, bottom = grow
    return x - left, y - top, w + left + right, h + top + bottom


def squares_alone(ticks: list[Box]) -> list[Box]:
    """The tick boxes that share no side with another one: the others are a comb, or squared paper."""
    kept = []
    for box in ticks:
        x, y, w, h = box
        touching = [o for o in ticks if o is not box and abs(o[1] - y) < 3 and abs(abs(o[0] - x) - w) <= 4]
        above = [o for o in ticks if o is not box and abs(o[0] - x) < 3 and abs(abs(o[1] - y) - h) <= 4]
        if not touching and not above:
            kept.append(box)
    return kept


def free_part(found: Print, cell: Box) -> Box | None:
    """The largest part of a closed box without print, for example below or right of its label; None: it is no field."""
    edge = round(0.6 * PX_PER_MM)  # the frame may be a little askew
    x, y, w, h = cell[0] + edge, cell[1] + edge, cell[2] - 2 * edge, cell[3] - 2 * edge
    inside = found.dark[y : y + h, x : x + w]
    if not inside.any():
        return cell
    rows = np.flatnonzero(inside.any(axis=1))
    columns = np.flatnonzero(inside.any(axis=0))
    room = round(0.5 * PX_PER_MM)
    below, above = int(rows[-1]) + room, int(rows[0]) - room
    right, left = int(columns[-1]) + room, int(columns[0]) - room
    pieces = [(x, y + below, w, h - below), (x, y, w, above), (x + right, y, w - right, h), (x, y, left, h)]
    piece = max(pieces, key=lambda box: max(box[2], 0) * max(box[3], 0))
    good = piece[2] >= MIN_WIDTH_MM * PX_PER_MM and piece[3] >= LINE_HEIGHTS_MM[0] * PX_PER_MM
    return piece if good and piece[2] * piece[3] >= MIN_FREE_SHARE * w * h else None
