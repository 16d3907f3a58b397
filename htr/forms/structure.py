"""Proposed fields of a blank form, from its tick boxes, boxes to write in, rulings and labels.

    for proposal in propose_fields(picture, dpi): ...   # template.Field, numbered in reading order

A tick box is a small closed square. A box to write in is a larger one that is empty or has only a label in it. A ruling
to write on is a level line with free paper above it. Rulings at equal distances, without labels of their own at the
left, are one field of several lines. Lengths are in px at DPI unless a name says mm.
"""

from dataclasses import replace

import cv2
import numpy as np

from htr.forms.printed_boxes import (
    DPI,
    LINE_HEIGHTS_MM,
    MAX_DOT_GAP_MM,
    MIN_WIDTH_MM,
    PX_PER_MM,
    Box,
    Print,
    at_dpi,
    boxes_of,
    without_bars,
)
from htr.forms.template import MAX_FIELD_LINES, Field

DEFAULT_PITCH_MM = 8.0  # of handwriting where the form has no rulings
LABEL_HEIGHTS_MM = 1.8, 7.0  # of a printed label, least and largest
MIN_ROOM_MM = 40.0  # free paper right of a label that is a field, on a form without rulings and boxes


def propose_fields(picture: np.ndarray, dpi: float) -> list[Field]:
    """A blank form (H, W) uint8 -> its fields in reading order, in pixels of it, named tick_1 … and text_1 …"""
    scale, found = DPI / dpi, Print.of(at_dpi(picture, dpi))
    ticks, cells = boxes_of(found)
    texts = [(box, *lines_in(box[3])) for box in cells]
    texts += ruled(replace(found, dark=without_bars(found)), ticks)
    texts = texts or beside_labels(found)
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
    """The sort key of a box: its row of 4 mm, then its left edge."""
    return round((box[1] + box[3] / 2) / (4 * PX_PER_MM)), box[0]


def lines_in(height: int) -> tuple[int, float]:
    """-> the number of lines in a box of this height, and their pitch."""
    lines = min(max(int(height / (DEFAULT_PITCH_MM * PX_PER_MM) + 0.35), 1), MAX_FIELD_LINES)
    return lines, min(height / lines, 1.6 * DEFAULT_PITCH_MM * PX_PER_MM)


def ruled(found: Print, ticks: list[Box]) -> list[tuple[Box, int, float]]:
    """The fields on level rulings: (box, lines, pitch)."""
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


def beside_labels(found: Print) -> list[tuple[Box, int, float]]:
    """The fields of a form without rulings and boxes, (box, lines, pitch): free paper right of labels with a colon."""
    page_height, page_width = found.dark.shape
    joined = cv2.dilate(found.text, np.ones((round(0.5 * PX_PER_MM), round(2.5 * PX_PER_MM)), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined)
    lines = [
        (x, y, w, h)
        for x, y, w, h, _ in stats[1:].tolist()
        if LABEL_HEIGHTS_MM[0] * PX_PER_MM <= h <= LABEL_HEIGHTS_MM[1] * PX_PER_MM
    ]
    fields = []
    for x, y, w, h in lines:
        end = x + w - round(1.25 * PX_PER_MM)  # the letters without what joined them
        if not ends_with_colon(found.text[y : y + h, max(end - round(3 * PX_PER_MM), 0) : end + 1]):
            continue
        left, pitch = end + round(1.5 * PX_PER_MM), DEFAULT_PITCH_MM * PX_PER_MM
        top, bottom = max(round(y + h - pitch), 0), min(round(y + h + 2 * PX_PER_MM), page_height)
        beside = np.flatnonzero(found.dark[top:bottom, left:].any(axis=0))
        right = left + int(beside[0]) - round(2 * PX_PER_MM) if len(beside) else page_width - round(8 * PX_PER_MM)
        if right - left >= MIN_ROOM_MM * PX_PER_MM:
            fields.append(((left, top, right - left, bottom - top), 1, pitch))
    return fields


def ends_with_colon(letters: np.ndarray) -> bool:
    """Whether a strip of print ends with two dots, one above the other."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(letters)
    dots = sorted(stats[1:].tolist(), key=lambda box: box[0] + box[2])[-2:]
    if len(dots) < 2 or max(max(w, h) for _, _, w, h, _ in dots) > 1.1 * PX_PER_MM:
        return False
    (x, y, _, h, _), (ox, oy, *_) = sorted(dots, key=lambda box: box[1])
    return abs(x - ox) <= 0.4 * PX_PER_MM and 0.2 * PX_PER_MM < oy - y - h < 3 * PX_PER_MM


def closed(found: Print, rule: Box) -> bool:
    """Whether both ends of a ruling meet upright rulings: then it is the side of a box."""
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
    # a short text above does not matter: rows count as taken if print covers enough of their width
    busy = strip.mean(axis=1) > 0.02
    blocks = cv2.dilate(strip.astype(np.uint8), np.ones((1, round(2 * PX_PER_MM)), np.uint8)).mean(axis=1) > 0.15
    stop = np.flatnonzero(busy & blocks)
    free = len(strip) - 1 - int(stop[-1]) if len(stop) else len(strip)
    # a label that is higher than a line of writing above the ruling is above the field
    over = np.flatnonzero(
        (found.text[top : max(y - round(0.75 * DEFAULT_PITCH_MM * PX_PER_MM), top), x : x + w] > 0).any(axis=1)
    )
    if len(over):
        free = min(free, y - 2 - top - int(over[-1]) - round(0.5 * PX_PER_MM))
    for tx, ty, tw, th in ticks:
        if tx + tw > x and tx < x + w and ty < y and ty + th > y - free:
            free = max(min(free, y - ty - th), 0)
    return free


def has_label(found: Print, rule: Box, step: int) -> bool:
    """Whether there are letters left of a ruling, or within `step` rows above it: then it begins a new field."""
    x, y, w, _ = rule
    top = max(y - step + round(1.5 * PX_PER_MM), 0)
    left = found.text[top : y + round(PX_PER_MM), max(x - round(20 * PX_PER_MM), 0) : max(x - 1, 0)]
    above = found.text[top : max(y - 2, top), x : x + w]
    return int((left > 0).sum()) > 1.5 * PX_PER_MM or int((above > 0).sum()) > 1.5 * PX_PER_MM


def without_overlaps(texts: list[tuple[Box, int, float]]) -> list[tuple[Box, int, float]]:
    """The proposals without those that share 30 % or more of their area with a larger one."""
    kept: list[tuple[Box, int, float]] = []
    for entry in sorted(texts, key=lambda entry: -entry[0][2] * entry[0][3]):
        x, y, w, h = entry[0]
        shared = [max(min(x + w, o[0] + o[2]) - max(x, o[0]), 0) * max(min(y + h, o[1] + o[3]) - max(y, o[1]), 0)
                  for o, _, _ in kept]  # fmt: skip
        if not shared or max(shared) < 0.3 * w * h:
            kept.append(entry)
    return kept


def slope_of_rulings(picture: np.ndarray) -> float:
    """The slope of the long level rulings of a picture at DPI, rows per column; 0 where there are none."""
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
