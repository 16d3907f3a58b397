"""Layout of simulated writing on a form: the lines of a field, crosses in its boxes, words struck out.

for slot, text in zip(slots(template, field, lines=2), texts): put(page, fitted(write, slot), slot, rng)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from htr.forms.template import Field, Template
from htr.synth.handwriting import X_HEIGHT, Ink, Writer
from htr.synth.scanner import Scan

LINE_HEIGHT_PX, MAX_INK_ROWS = 76.0, 92  # of a line on the wide rulings, px: nominal, and rows of ink at most


@dataclass(frozen=True)
class Slot:
    """Room for one line of writing: columns x to x + width, the row it stands on, its nominal height, its rows."""

    x: int
    width: int
    baseline: float
    height: float
    room: int


@cache
def rulings(template: Template, field: Field) -> tuple[int, ...]:
    """The rows of the field's box that are printed from side to side: the first row of each ruling."""
    x, y, w, h = field.box
    dark = (template.picture[y : y + h, x + 4 : x + w - 4] < 200).mean(axis=1) > 0.9
    return tuple((np.flatnonzero(np.diff(dark.astype(int), prepend=0) == 1) + y).tolist())


def slots(template: Template, field: Field, lines: int) -> list[Slot]:
    """Where so many lines stand: on the rulings, or closer together where there are more lines than rulings."""
    x, y, w, h = field.box
    ruled = rulings(template, field)
    if lines <= len(ruled):
        pitch, baselines = field.pitch, [row - 8.0 for row in ruled[:lines]]
    elif lines == field.lines == 1:
        pitch, baselines = field.pitch, [y + 0.79 * h]
    else:
        pitch = min(h / lines, 1.3 * field.pitch)
        baselines = [y + (k + 0.78) * pitch for k in range(lines)]
    height, room = min(LINE_HEIGHT_PX, 0.88 * pitch), round(min(MAX_INK_ROWS, 1.03 * pitch))
    return [Slot(x + 7, w - 14, baseline, height, room) for baseline in baselines]


def fitted(write: Callable[[float], Ink], slot: Slot) -> Ink:
    """write(nominal height) as large as the slot allows: who has little room writes smaller."""
    height = slot.height
    while True:  # ends: every round is smaller, and the fields hold more than the smallest writing
        ink = write(height)
        rows, columns = ink.pixels.shape
        if columns <= slot.width and rows <= slot.room:
            return ink
        height *= 0.97 * min(1, slot.width / columns, slot.room / rows)


def put(page: np.ndarray | None, ink: Ink, slot: Slot, rng: np.random.Generator) -> tuple[int, int]:
    """The ink on the page (none: just the place), about where the slot is -> its left column and top row."""
    rows, columns = ink.pixels.shape
    x = slot.x + int((slot.width - columns) * rng.beta(1.2, 4) * 0.6)
    y = round(slot.baseline + rng.normal(0, 0.04 * slot.height) - ink.baseline)
    if page is not None:
        y0, y1 = max(y, 0), min(y + rows, page.shape[0])
        target = page[y0:y1, x : x + columns]
        np.maximum(target, ink.pixels[y0 - y : y1 - y], out=target)
    return x, y


def with_mistake(writer: Writer, text: str, wrong: str, height: float, rng: np.random.Generator) -> Ink:
    """The text with a wrong word before one of its words, crossed out."""
    words = text.split()
    at = int(rng.integers(len(words)))
    parts = [" ".join(words[:at]), wrong, " ".join(words[at:])]
    inks = [(part, writer.write(part, height, rng)) for part in parts if part]
    x_height = height * X_HEIGHT * writer.size
    gap = max(4, int(0.8 * writer.space * x_height))
    above = max(ink.baseline for _, ink in inks)
    rows = int(np.ceil(above + max(ink.pixels.shape[0] - ink.baseline for _, ink in inks))) + 1
    pixels = np.zeros((rows, sum(ink.pixels.shape[1] + gap for _, ink in inks) - gap), np.uint8)
    x = 0
    for part, ink in inks:
        y, (h, w) = int(above - ink.baseline), ink.pixels.shape
        pixels[y : y + h, x : x + w] = ink.pixels
        if part is wrong:
            strike(pixels[:, x : x + w], above - 0.5 * x_height, x_height, 255 * writer.darkness, rng)
        x += w + gap
    return Ink(pixels, above)


def strike(word: np.ndarray, middle: float, x_height: float, tone: float, rng: np.random.Generator) -> None:
    """One or two lines through the word, about the row `middle`, or a scribble over it, in place."""
    width, thick = word.shape[1], max(2, round(0.11 * x_height))
    if rng.random() < 0.35:
        along = np.linspace(2, width - 3, max(5, int(width / (0.5 * x_height))))
        down = middle + 0.6 * x_height * np.resize([-1, 1], len(along)) * rng.uniform(0.6, 1.1, len(along))
        strokes = [np.stack([along, down], axis=1)]
    else:
        along = np.linspace(0, width - 1, 6)
        shifts = rng.uniform(-0.35, 0.35, int(rng.integers(1, 3))) * x_height
        strokes = [np.stack([along, middle + s + rng.normal(0, 0.06 * x_height, 6)], axis=1) for s in shifts]
    for stroke in strokes:
        points = np.rint(stroke * 16).astype(np.int32)
        cv2.polylines(word, [points], False, tone, thick, cv2.LINE_AA, 4)


def tick(page: np.ndarray, field: Field, rng: np.random.Generator) -> None:
    """A cross, a check or a filled box, in place; it may leave the box, as people's do."""
    x, y, w, h = field.box
    cross, check, filled = (
        [[(0.1, 0.12), (0.95, 0.93)], [(0.93, 0.08), (0.1, 0.95)]],
        [[(0.12, 0.5), (0.4, 0.95), (1.15, -0.15)]],
        [[(0.2, 0.2), (0.3, 0.8), (0.4, 0.2), (0.5, 0.8), (0.6, 0.2), (0.7, 0.8), (0.8, 0.2)]],
    )
    kind = rng.random()
    for stroke in cross if kind < 0.6 else check if kind < 0.93 else filled:
        points = (np.array(stroke) + rng.normal(0, 0.07, (len(stroke), 2))) * (w, h) + (x, y)
        cv2.polylines(page, [np.rint(points * 16).astype(np.int32)], False, 190, 3, cv2.LINE_AA, 4)


def box_of(pixels: np.ndarray, x: int, y: int, scanned: Scan, height: float, rng: np.random.Generator) -> str:
    """The field-like box "x y w h" on the scan around ink that stands at (x, y) on the form, inside the scan."""
    ys, xs = np.nonzero(pixels > 20)
    points = np.stack([xs + x, ys + y, np.ones_like(xs)]) if len(xs) else np.array([[x], [y], [1]])
    on_scan = scanned.matrix[:2] @ points
    (left, top), (right, bottom) = on_scan.min(axis=1), on_scan.max(axis=1) + 1
    zoom = scanned.dpi / 200
    before, after = rng.integers(8, 21, 2) * zoom
    wide = max(100 * zoom - (right - left), before + after)  # a short duration still has a box of 100 px
    left, right = left - wide * before / (before + after), right + wide * after / (before + after)
    spare = max(6 * zoom, height * rng.uniform(1.04, 1.2) * zoom - (bottom - top))
    share = rng.uniform(0.3, 0.7)
    top, bottom = top - spare * share, bottom + spare * (1 - share)
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    rows, columns = scanned.image.shape
    return f"{x0} {y0} {min(columns, int(np.ceil(right))) - x0} {min(rows, int(np.ceil(bottom))) - y0}"
