"""Line segmentation of a field, in reading order; a field without writing is recognised as blank.

Lines are found on a small image without what the form prints (see form_dropout.py). Rows of writing are where strokes
follow each other densely: the edges along x, smoothed, are compared with what is usual in this field, so that a short
word counts as much as a long line and descenders count little. Connected components then go to the row they lie on;
one that lies on several is cut along the seam that crosses least ink.
"""

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import lru_cache

import cv2
import numpy as np

from htr.lines.form_dropout import PrintedForm, drop_form, factor_of
from htr.lines.rows import rows_of_letters, rows_to_lines
from htr.lines.stray_ink import MAX_STRAY_INK, stray_components, without_creases

# of 255: darkness of ink in the small image, and the darkness that some of a component of ink must have (hysteresis)
INK_DARKNESS, CORE_INK_DARKNESS = 25, 38
MIN_INK = 0.011  # squared pitches of ink that a written field has: a thin dash
SLOPES = np.tan(np.radians(0.3 * np.arange(-6, 7)))  # of writing: the registration has turned the page upright
CORE_MARGIN_PITCHES = 0.25  # pitches that a stored line reaches above and below its core at least, and all of its ink
MAX_LINE_HEIGHT = 1.3  # pitches from the first to the last row of a line's ink; a stamp or a fold in it is taller
NEIGHBOUR_LABEL = 255  # the label of ink that belongs to no line of this field


@dataclass(frozen=True, eq=False)
class FoundLine:
    """A line of a field, in pixels of the field's image."""

    box: tuple[int, int, int, int]  # x, y, w, h of its ink but the outermost 0.3 % left and right, 1 % above and below
    core: float  # the row that halves its ink
    # the first row of its ink and the one after the last, without a stamp's or a fold's where there is writing, too
    rows: tuple[int, int]
    number: int  # 1 is the uppermost
    labels: np.ndarray = dataclass_field(
        repr=False
    )  # (h, w) uint8 small image: 0 paper, a line's number, or NEIGHBOUR_LABEL
    factor: int  # pixels of the field that one of `labels` stands for, in both directions


@dataclass(frozen=True, eq=False)
class Ink:
    """The connected components of a reduced image."""

    labels: np.ndarray  # (h, w) uint16 or int32
    stats: np.ndarray  # (components, 5): x, y, w, h, area; the first is the paper
    centres: np.ndarray  # (components, 2): x, y


def flatten_background(gray: np.ndarray) -> np.ndarray:
    """A scan or a piece of it -> (H, W) uint8 of the same size, paper at about 255, without shadows and stains.

    The paper is the wide local maximum of the brightness. Dividing by it raises no noise of an empty sheet to ink.
    """
    height, width = gray.shape
    small = gray[: max(height // 8 * 8, 1), : max(width // 8 * 8, 1)]  # a whole factor is shrunk many times faster
    for factor in (4, 2, 1):  # and halves faster than eighths
        size = max(width // 8 * factor, 1), max(height // 8 * factor, 1)
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    paper = np.maximum(cv2.blur(cv2.dilate(small, np.ones((5, 7), np.uint8)), (5, 9)), 1)
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.divide(gray, paper, scale=255)


def ink_measure(field: np.ndarray, printed: np.ndarray | None, box: tuple[int, int, int, int], pitch: float) -> float:
    """How much is written within the box, in squared line heights. Specks, print, stains and what shines through from
    the other side don't count."""
    factor = factor_of(pitch)
    form = None if printed is None else PrintedForm.of(printed, factor)
    return own_ink(drop_form(field, form, factor), factor, box, pitch)[3]


def only_stray_ink(
    field: np.ndarray, form: PrintedForm | None, *, box: tuple[int, int, int, int], pitch: float
) -> bool:
    """Whether all ink of a field is a stamp's, folds, hairs and specks, by its look alone: writing that a stamp covers
    is taken for the stamp's. What has no ink has only such.
    """
    factor = factor_of(pitch)
    small = without_creases(drop_form(field, form, factor), INK_DARKNESS, pitch / factor)
    ink, kept, others, _ = own_ink(small, factor, box, pitch)
    cx, cy = ink.centres.T
    x, y, w, h = (v / factor for v in box)
    inside = kept & (cx > x) & (cx < x + w) & (cy > y) & (cy < y + h)
    inside &= ~stray_components(ink.labels, ink.stats, ink.centres, kept | others, pitch / factor)
    return int(ink.stats[inside, cv2.CC_STAT_AREA].sum()) < MAX_STRAY_INK * (pitch / factor) ** 2


def find_lines(
    field: np.ndarray, printed: np.ndarray | None, *, box: tuple[int, int, int, int], pitch: float, most: int
) -> list[FoundLine]:
    """Lines of a field from the top, at most `most`; none if it is blank.

    `field`: (H, W) uint8, evened, with a margin around it. `printed`: the same shape, > 0 where the template prints, up
    to 3 px off; or None. `box`: x, y, w, h of the field proper. `pitch`: the height of a usual line; writing of a
    third to one and a half of it is found. Raises ValueError: shapes that differ, a pitch that is none.
    """
    if field.ndim != 2 or field.dtype != np.uint8 or (printed is not None and printed.shape != field.shape):
        raise ValueError("a field is a gray uint8 image, and what is printed a mask of its shape")
    if not 8 <= pitch <= 2000:
        raise ValueError(f"a pitch of {pitch:g} px is not between 8 and 2000")
    form = None if printed is None else PrintedForm.of(printed, factor_of(pitch))
    return lines_beside(field, form, box=box, pitch=pitch, most=most)


def lines_beside(
    field: np.ndarray, form: PrintedForm | None, *, box: tuple[int, int, int, int], pitch: float, most: int
) -> list[FoundLine]:
    """The same as find_lines, for print that was prepared once for many fields."""
    factor = factor_of(pitch)
    small = without_creases(drop_form(field, form, factor), INK_DARKNESS, pitch / factor)
    ink, kept, others, measure = own_ink(small, factor, box, pitch)
    if measure < MIN_INK:
        return []
    fine, (height, width) = pitch / factor, small.shape
    stray = stray_components(ink.labels, ink.stats, ink.centres, kept | others, fine)
    writing = (kept & ~stray).take(ink.labels) if stray.any() else None
    binary, others = kept.astype(np.uint8).take(ink.labels), others.take(ink.labels)
    slope = slope_of(binary)
    upright = np.float32([[1, 0, 0], [slope, 1, -slope * (width - 1) / 2]])
    if slope:
        binary = cv2.warpAffine(binary, upright, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    ink = components(binary)
    if len(ink.stats) < 2:
        return []
    inside = (box[1] / factor, (box[1] + box[3]) / factor)
    labels, count = rows_to_lines(binary, ink.labels, ink.stats, ink.centres, inside=inside, fine=fine)
    labels[(binary > 0) & (labels == 0)] = NEIGHBOUR_LABEL
    if slope:
        labels = cv2.warpAffine(labels, upright, (width, height), flags=cv2.INTER_NEAREST)
    labels[others] = NEIGHBOUR_LABEL
    lines = as_lines(labels, count, box=box, factor=factor, fine=fine, most=most)
    return [as_high_as_writing(line, writing, fine) for line in lines]


def as_high_as_writing(line: FoundLine, writing: np.ndarray | None, fine: float) -> FoundLine:
    """The line with core and rows of what of it is `writing`, (h, w) bool, or all of it (None); where that is taller
    than writing, since a stamp or a fold is one component with it, of its letters. As it is where that is too little.
    """
    tall = MAX_LINE_HEIGHT * fine
    if writing is None and line.rows[1] - line.rows[0] <= tall * line.factor:
        return line
    mine = cv2.compare(line.labels, line.number, cv2.CMP_EQ)
    if writing is not None:
        mine[~writing] = 0
        if cv2.countNonZero(mine) < MAX_STRAY_INK * fine**2:
            return line
    _, top, _, height = cv2.boundingRect(mine)
    first, end = rows_of_letters(mine) if height > tall else (top, top + height)
    mass = np.cumsum(cv2.reduce(mine[first:end], 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F).ravel())
    core = first + mass.searchsorted(0.5 * mass[-1])
    return replace(line, core=float(core * line.factor), rows=(first * line.factor, end * line.factor))


def cut_line(field: np.ndarray, line: FoundLine, pitch: float) -> np.ndarray:
    """The line's own pixels, (h, w) uint8: half a pitch about its core and all of its ink, as high as its writing: a
    stamp or a fold that is taller would leave the letters a third of their size for the reader.

    The field's other ink becomes paper; what lies beyond the field's image is paper too.
    """
    factor = line.factor
    x, _, w, _ = (v * factor for v in cv2.boundingRect(cv2.compare(line.labels, line.number, cv2.CMP_EQ)))
    top, bottom = (
        round(min(line.core - CORE_MARGIN_PITCHES * pitch, line.rows[0] - 3)),
        round(max(line.core + CORE_MARGIN_PITCHES * pitch, line.rows[1] + 3)),
    )
    left, right = round(x - 0.4 * pitch), round(x + w + 0.4 * pitch)
    height, width = field.shape
    rows, columns = slice(max(top, 0), min(bottom, height)), slice(max(left, 0), min(right, width))
    piece = field[rows, columns].copy()
    paper = int(np.median(piece[::3, ::3]))
    # the small image's pixels under the piece, one more on each side
    first_row, first_column = rows.start // factor, columns.start // factor
    view = line.labels[first_row : rows.stop // factor + 1, first_column : columns.stop // factor + 1]
    mine = cv2.compare(view, line.number, cv2.CMP_EQ)
    others = cv2.bitwise_and(cv2.compare(view, 0, cv2.CMP_GT), cv2.bitwise_not(mine))
    if others.any():
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        wide = cv2.dilate(others, np.ones((3, 3), np.uint8))
        others |= cv2.bitwise_and(wide, cv2.bitwise_not(cv2.dilate(mine, cross)))
        others = cv2.resize(others, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        others = others[rows.start - first_row * factor :, columns.start - first_column * factor :]
        others = others[: piece.shape[0], : piece.shape[1]]
        piece[: others.shape[0], : others.shape[1]][others > 0] = paper
    beyond = (rows.start - top, bottom - rows.stop, columns.start - left, right - columns.stop)
    return cv2.copyMakeBorder(piece, *beyond, cv2.BORDER_CONSTANT, value=paper)


def components(binary: np.ndarray) -> Ink:
    """Connected components (8 neighbours) of a binary image (h, w) uint8."""
    small = binary.size < 250_000  # fewer components than 2**16
    kind = cv2.CV_16U if small else cv2.CV_32S  # with 16 bits twice as fast
    _, labels, stats, centres = cv2.connectedComponentsWithStatsWithAlgorithm(binary, 8, kind, cv2.CCL_GRANA)
    return Ink(labels, stats, centres)


def own_ink(
    small: np.ndarray, factor: int, box: tuple[int, int, int, int], pitch: float
) -> tuple[Ink, np.ndarray, np.ndarray, float]:
    """Components of the small image, which are this field's writing, which the neighbours', ink_measure's figure."""
    fine = pitch / factor
    ink = components(cv2.compare(small, INK_DARKNESS, cv2.CMP_GT))
    x, y, w, h, area = ink.stats.T
    cx, cy = ink.centres.T
    left, top, right, bottom = (v / factor for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    # no speck; and no stain or writing from the back: some of it is dark
    kept = (area >= 6) & (np.maximum(w, h) >= 4)
    kept &= np.bincount(ink.labels[small > CORE_INK_DARKNESS], minlength=len(area)) > np.maximum(1, 0.05 * area)
    # nor a fold: taller than any letter and thin, or from side to side
    kept &= ~((w < 0.15 * fine) & (h > 1.6 * fine)) & ~((h < 0.15 * fine) & (w > 0.95 * small.shape[1]))
    kept[0] = False
    dark = kept.copy()
    # what comes in over the edge of the image and has its mass beyond the box is a neighbour's
    near = 0.1 * fine
    kept &= ~((y == 0) & (cy < top - near) | (y + h == small.shape[0]) & (cy > bottom + near))
    kept &= ~((x == 0) & (cx < left) | (x + w == small.shape[1]) & (cx > right))
    # so is what stands beside the box with a gap before it
    within = (cx > left) & (cx < right) & (cy > top - near) & (cy < bottom + near) & (y < bottom) & (y + h > top)
    inner = np.flatnonzero(kept & within)
    outside = (cx <= left) | (cx >= right) | (y > bottom + near) | (y + h < top - near)
    for c in np.flatnonzero(kept & outside):
        across = np.maximum(x[c] - (x + w)[inner], x[inner] - (x[c] + w[c]))
        down = np.maximum(y[c] - (y + h)[inner], y[inner] - (y[c] + h[c]))
        kept[c] = len(inner) > 0 and np.maximum(across, down).min() < 0.2 * fine
    long = np.maximum(w, h) > 0.19 * fine
    return ink, kept, dark & ~kept, float(area[kept & within & long].sum()) / fine**2


@lru_cache(maxsize=64)
def sheared_rows(height: int, strips: int, step: float) -> np.ndarray:
    """Where in (strips, height), flat, is what comes to each row when a slope is undone: (slopes, strips, height)."""
    middle = (np.arange(strips) - (strips - 1) / 2) * step
    shift = np.rint(SLOPES[:, None] * middle).astype(int)
    rows = np.clip(np.arange(height)[None, None] + shift[..., None], 0, height - 1)
    return rows + np.arange(strips)[:, None] * height


def slope_of(binary: np.ndarray) -> float:
    """The slope of the writing, rows per column: the one at which rows of ink and rows of paper differ most. Slopes
    near 0 are preferred."""
    height, width = binary.shape
    edges = cv2.bitwise_xor(binary[:, 1:], binary[:, :-1])
    strips = max((width - 1) // 12, 1)
    coarse = cv2.resize(255 * edges[:, : strips * 12], (strips, height), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    sheared = coarse.T.ravel().take(sheared_rows(height, strips, 12.0))
    # over parts of the width: what lies far to the side may be another line
    parts = np.linspace(0, strips, 7).astype(int)[:-1] if strips >= 18 else [0]
    profile = np.add.reduceat(sheared, parts, axis=1)
    energy = np.square(profile).sum(axis=(1, 2)) * (1 - 100 * SLOPES**2)
    return float(SLOPES[energy.argmax()])


def as_lines(
    labels: np.ndarray, count: int, *, box: tuple[int, int, int, int], factor: int, fine: float, most: int
) -> list[FoundLine]:
    """Of `count` labelled lines those that lie mostly within the box, numbered anew from the top. If more than `most`
    are left, those with most ink."""
    left, top, right, bottom = (v / factor for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    own = []  # core, mass, number, box, rows
    for number in range(1, count + 1):
        mine = cv2.compare(labels, number, cv2.CMP_EQ)
        x0, y0, w, h = cv2.boundingRect(mine)
        if not w:
            continue
        mine = mine[y0 : y0 + h, x0 : x0 + w]
        across, down = (np.cumsum(cv2.reduce(mine, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32F).ravel()) for axis in (0, 1))
        mass = float(down[-1])
        core, middle = y0 + down.searchsorted(0.5 * mass), x0 + across.searchsorted(0.5 * mass)
        rows = np.clip([int(np.ceil(top)) - y0, int(bottom) - y0 + 1], 0, h)
        inside = float(np.diff(np.r_[0, down][rows])[0]) / mass
        near = 0.12 * fine
        if left < middle < right and (top - near < core < bottom + near or inside > 0.2):
            x, to_x = (x0 + across.searchsorted([0.003 * mass, 0.997 * mass])) * factor
            y, to_y = (y0 + down.searchsorted([0.01 * mass, 0.99 * mass])) * factor
            place = (int(x), int(y), int(to_x - x) + factor, int(to_y - y) + factor)
            own.append((float(core * factor), mass, number, place, (y0 * factor, (y0 + h) * factor)))
    own = sorted(sorted(own, key=lambda line: -line[1])[:most])
    renumbered = np.full(256, NEIGHBOUR_LABEL, np.uint8)
    renumbered[0] = 0
    for number, line in enumerate(own, 1):
        renumbered[line[2]] = number
    labels = cv2.LUT(labels, renumbered)
    return [FoundLine(place, core, rows, i, labels, factor) for i, (core, _, _, place, rows) in enumerate(own, 1)]
