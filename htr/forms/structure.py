"""The structure of a blank form: rulings, boxes, tick boxes, and the fields proposed from them.

    for proposal in propose_fields(picture, dpi): ...   # template.Field, numbered from the top in reading order

Lengths are in mm. A tick box is a small closed square. A box to write in is a larger closed one with nothing, or at
most a label in it. A ruling to write on is a level line with free paper above it; rulings that follow each other at one
distance, without a label of their own at the left, are one field of several lines.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from htr.forms.template import MAX_FIELD_LINES, Field

DPI = 200  # at which a picture is looked at
PX_PER_MM = DPI / 25.4  # px
PRINT_DARKNESS = 75  # of 255: darkness of print
TICK_SIDES_MM = 2.0, 6.5  # sides of a tick box
LINE_HEIGHTS_MM = 4.0, 16.0  # free paper above a ruling, for it to be written on; more is not one line's
DEFAULT_PITCH_MM = 8.0  # of handwriting where the form does not say
MIN_WIDTH_MM = 8.0  # of a ruling or a box that is written on
MIN_RULING_MM = 6.0  # a dark run of this length is a ruling, no letter
MAX_DOT_GAP_MM = 1.2  # between the dots of a dotted ruling
MIN_FREE_SHARE = 0.55  # share of a box that must be free paper for it to be written in
Box = tuple[int, int, int, int]  # x, y, w, h


@dataclass(frozen=True, eq=False)
class Print:
    """A form's print apart by its kind, uint8 of one shape, 0 or 255."""

    dark: np.ndarray  # all of it
    level: np.ndarray  # level rulings, dotted ones closed
    upright: np.ndarray  # upright rulings
    text: np.ndarray  # the rest: letters, and what is in them

    @classmethod
    def of(cls, picture: np.ndarray) -> "Print":
        dark = cv2.compare(picture, 255 - PRINT_DARKNESS, cv2.CMP_LT)
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


def propose_fields(picture: np.ndarray, dpi: float) -> list[Field]:
    """A blank form (H, W) uint8 -> its fields in reading order, in pixels of it, named tick_1 … and text_1 …"""
    scale = DPI / dpi
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = picture if scale == 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=kind)
    found = Print.of(small)
    ticks, cells = boxes_of(found)
    texts = [(box, *lines_in(box[3])) for box in cells]
    texts += ruled(found, ticks, cells)
    entries = [("tick", box, 1, 0.0) for box in ticks]
    entries += [("text", box, lines, pitch) for box, lines, pitch in without_overlaps(texts)]
    fields, count = [], {"tick": 0, "text": 0}
    height, width = picture.shape
    for kind_of, box, lines, pitch in sorted(entries, key=lambda entry: reading_order(entry[1])):
        count[kind_of] += 1
        x, y = round(box[0] / scale), round(box[1] / scale)
        w, h = min(round(box[2] / scale), width - x), min(round(box[3] / scale), height - y)
        own = h if kind_of == "tick" else round(pitch / scale, 1)
        fields.append(Field(f"{kind_of}_{count[kind_of]}", kind_of, (x, y, w, h), lines, float(own)))
    return fields


def reading_order(box: Box) -> tuple[int, int]:
    return round((box[1] + box[3] / 2) / (4 * PX_PER_MM)), box[0]


def lines_in(height: int) -> tuple[int, float]:
    """How many lines a box of this height holds, and their pitch."""
    lines = min(max(int(height / (DEFAULT_PITCH_MM * PX_PER_MM) + 0.35), 1), MAX_FIELD_LINES)
    return lines, min(height / lines, 1.6 * DEFAULT_PITCH_MM * PX_PER_MM)


def boxes_of(found: Print) -> tuple[list[Box], list[Box]]:
    """-> tick boxes with their frames, and the free parts of boxes to write in. Both are paper closed in by print."""
    paper = cv2.bitwise_not(found.dark)
    _, _, stats, _ = cv2.connectedComponentsWithStats(paper, connectivity=4)
    ticks, cells = [], []
    for x, y, w, h, area in stats[1:].tolist():
        if TICK_SIDES_MM[0] * PX_PER_MM <= min(w, h) and max(w, h) <= TICK_SIDES_MM[1] * PX_PER_MM:
            if area >= 0.8 * w * h and max(w, h) <= 1.3 * min(w, h) and is_frame(found.dark, (x, y, w, h)):
                ticks.append(with_frame(found.dark, (x, y, w, h)))
        elif (
            w >= MIN_WIDTH_MM * PX_PER_MM and h >= LINE_HEIGHTS_MM[0] * PX_PER_MM and within(paper.shape, (x, y, w, h))
        ):
            free = free_part(found, (x, y, w, h))
            if free is not None and is_frame(found.dark, (x, y, w, h)):
                cells.append(free)
    return squares_alone(ticks), cells


def within(page: tuple[int, int], box: Box) -> bool:
    """Whether a box keeps off the edges of the page (rows, columns): the paper around all print does not."""
    x, y, w, h = box
    return x > 0 and y > 0 and x + w < page[1] and y + h < page[0]


def is_frame(dark: np.ndarray, inside: Box) -> bool:
    """Whether each side of the paper at x, y, w, h is closed by a straight line of print."""
    x, y, w, h = inside
    around = cv2.copyMakeBorder(dark, 3, 3, 3, 3, cv2.BORDER_CONSTANT)[y : y + h + 6, x : x + w + 6] > 0
    inset = max(round(0.12 * min(w, h)), 1)
    rows, columns = slice(3 + inset, 3 + h - inset), slice(3 + inset, 3 + w - inset)
    sides = around[rows, :5].any(axis=1), around[rows, -5:].any(axis=1), around[:5, columns].any(axis=0)
    return min(side.mean() for side in (*sides, around[-5:, columns].any(axis=0))) > 0.9


def with_frame(dark: np.ndarray, inside: Box) -> Box:
    """The box with its printed frame, which is part of a tick field."""
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
    """Without those of a row that share their sides: a comb for digits, or squared paper."""
    kept = []
    for box in ticks:
        x, y, w, h = box
        touching = [o for o in ticks if o is not box and abs(o[1] - y) < 3 and abs(abs(o[0] - x) - w) <= 4]
        above = [o for o in ticks if o is not box and abs(o[0] - x) < 3 and abs(abs(o[1] - y) - h) <= 4]
        if not touching and not above:
            kept.append(box)
    return kept


def free_part(found: Print, cell: Box) -> Box | None:
    """The largest piece of a closed box without any print in it: below or right of its label; None: it is no field."""
    edge = round(0.6 * PX_PER_MM)  # a frame that is a little askew reaches in
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


def ruled(found: Print, ticks: list[Box], cells: list[Box]) -> list[tuple[Box, int, float]]:
    """Fields on level rulings: (box, lines, pitch)."""
    joined = cv2.morphologyEx(
        found.level, cv2.MORPH_CLOSE, np.ones((3, round(2 * MAX_DOT_GAP_MM * PX_PER_MM)), np.uint8)
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    rows = []
    for x, y, w, h, _ in sorted(stats[1:].tolist(), key=lambda box: (box[1], box[0])):
        if w < MIN_WIDTH_MM * PX_PER_MM or h > 1.5 * PX_PER_MM or closed(found, (x, y, w, h)):
            continue
        free = room_above(found, (x, y, w, h), ticks)
        if free >= LINE_HEIGHTS_MM[0] * PX_PER_MM:
            rows.append(((x, y, w, h), free))
    fields: list[tuple[Box, int, float]] = []
    taken = [False] * len(rows)
    for number, (rule, free) in enumerate(rows):
        if taken[number]:
            continue
        x, y, w, h = rule
        group, pitch = [rule], 0.0
        for other in range(number + 1, len(rows)):
            ox, oy, ow, _ = rows[other][0]
            step = oy - group[-1][1]
            if abs(ox - x) > 1.5 * PX_PER_MM or abs(ox + ow - x - w) > 1.5 * PX_PER_MM or taken[other]:
                continue
            like = not pitch or abs(step - pitch) < 0.12 * pitch
            if step > LINE_HEIGHTS_MM[1] * PX_PER_MM or not like or has_label(found, rows[other][0], step):
                break
            pitch, taken[other] = pitch or step, True
            group.append(rows[other][0])
        others = [abs(o[0][1] - y) for i, o in enumerate(rows) if i != number and abs(o[0][0] - x) < 2 * PX_PER_MM]
        usual = min([d for d in others if d > LINE_HEIGHTS_MM[0] * PX_PER_MM], default=LINE_HEIGHTS_MM[1] * PX_PER_MM)
        first = min(free, pitch or min(usual, LINE_HEIGHTS_MM[1] * PX_PER_MM, max(free, DEFAULT_PITCH_MM * PX_PER_MM)))
        top, bottom = y - round(first), group[-1][1] + h + round(PX_PER_MM)
        fields.append(((x, max(top, 0), w, bottom - max(top, 0)), min(len(group) * (2 if len(group) > 1 else 1),
                       MAX_FIELD_LINES), pitch or first))  # fmt: skip
    return fields


def closed(found: Print, rule: Box) -> bool:
    """Whether both ends of a ruling meet upright ones: it is the side of a box."""
    x, y, w, h = rule
    reach = round(1.0 * PX_PER_MM)
    zone = found.upright[max(y - reach, 0) : y + h + reach]
    ends = zone[:, max(x - reach, 0) : x + reach], zone[:, x + w - reach : x + w + reach]
    return all(end.any() for end in ends)


def room_above(found: Print, rule: Box, ticks: list[Box]) -> int:
    """Rows of free paper above a ruling, over most of its length."""
    x, y, w, _ = rule
    most = round(LINE_HEIGHTS_MM[1] * PX_PER_MM)
    top = max(y - most, 0)
    strip = found.dark[top : max(y - 2, top), x + round(0.02 * w) : x + round(0.98 * w)] > 0
    if not len(strip):
        return 0
    # text above may be short: what counts is whether a fifth of the width is in the way, or a ruling or a tick box
    busy = strip.mean(axis=1) > 0.02
    blocks = cv2.dilate(strip.astype(np.uint8), np.ones((1, round(2 * PX_PER_MM)), np.uint8)).mean(axis=1) > 0.15
    stop = np.flatnonzero(busy & blocks)
    free = len(strip) - 1 - int(stop[-1]) if len(stop) else len(strip)
    for tx, ty, tw, th in ticks:
        if tx + tw > x and tx < x + w and ty < y and ty + th > y - free:
            free = max(min(free, y - ty - th), 0)
    return free


def has_label(found: Print, rule: Box, step: int) -> bool:
    """Whether letters stand left of a ruling, or at the start above it: it begins a field of its own."""
    x, y, w, _ = rule
    top = max(y - step + round(1.5 * PX_PER_MM), 0)
    left = found.text[top : y + round(PX_PER_MM), max(x - round(20 * PX_PER_MM), 0) : max(x - 1, 0)]
    above = found.text[top : max(y - 2, top), x : x + w]
    return int((left > 0).sum()) > 1.5 * PX_PER_MM or int((above > 0).sum()) > 1.5 * PX_PER_MM


def without_overlaps(texts: list[tuple[Box, int, float]]) -> list[tuple[Box, int, float]]:
    """Of proposals that share most of their area the larger ones."""
    kept: list[tuple[Box, int, float]] = []
    for entry in sorted(texts, key=lambda entry: -entry[0][2] * entry[0][3]):
        x, y, w, h = entry[0]
        shared = [max(min(x + w, o[0] + o[2]) - max(x, o[0]), 0) * max(min(y + h, o[1] + o[3]) - max(y, o[1]), 0)
                  for o, _, _ in kept]  # fmt: skip
        if not shared or max(shared) < 0.3 * w * h:
            kept.append(entry)
    return kept


def slope_of_rulings(picture: np.ndarray) -> float:
    """By how many rows the long level rulings of a picture at DPI fall a column; 0 where there are none."""
    level = cv2.dilate(Print.of(picture).level, np.ones((3, 1), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(level)
    slopes, lengths = [], []
    for number, (x, y, w, h, _) in enumerate(stats[1:].tolist(), 1):
        if w >= 40 * PX_PER_MM and h <= 3 * PX_PER_MM:
            rows, columns = np.nonzero(labels[y : y + h, x : x + w] == number)
            slopes.append(float(np.polyfit(columns, rows, 1)[0]))
            lengths.append(w)
    if not slopes:
        return 0.0
    order = np.argsort(slopes)
    middle = np.searchsorted(np.cumsum(np.array(lengths)[order]), sum(lengths) / 2)
    return slopes[order[int(middle)]]
