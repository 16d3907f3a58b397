"""Comparison of the print of a form's marks with a scan, stroke by stroke: does the scan show another edition's print?

The correlation of a whole mark hardly changes with one digit of its number. So each mark is aligned with the scan to a
fraction of a pixel and compared at the resolution of a stroke, with the same blur and contrast as the scan. If within
the area of a letter print is missing and other ink is in its place, something else is printed there. Stamps, pens and
dirt only add ink. Folds and blur remove a little everywhere, which is estimated as noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from htr.forms.keypoints import Box, level_for, outside, resize_to
from htr.forms.template import Template

STROKE_DPI = 200.0  # a thin stroke has two pixels
BLURS = 0.9, 1.2, 1.6  # sigma, px at STROKE_DPI: a scan has one of them, nearly
PIECE_PX = 5  # px at STROKE_DPI, the side of the smallest piece of print that counts
LETTER = np.ones((21, 15), np.uint8)  # rows, columns at STROKE_DPI: the area of a letter
EDGE_PX = 2  # px at STROKE_DPI at the edge of a tile that are left out
MAX_TILE_PX = 160, 60  # columns, rows at STROKE_DPI: a larger mark is compared in parts
FIELD_MARGIN_PX = 6  # px at STROKE_DPI around fields: people write over their edges
SCAN_EDGE_PX = 6  # px at STROKE_DPI at the edge of a scan that are left out: the sheet may lie askew
MIN_INK = 40  # of 255: least darkness of print
MAX_STEPS, MIN_STEP_PX = 4, 0.15  # of the alignment of a tile
MAX_SHIFT_PX = 3.0  # px at STROKE_DPI, of the alignment in all
MAX_PIXELS = 151  # pixels of a tile by which the brightness of its paper is estimated
MIN_SWAPPED, NOISE_RATIO = 0.13, 4.2  # shares of full ink, and of the noise, from which print is of another edition
SURE_SWAPPED = 0.24  # share of full ink from which it is, whatever the noise: a difference adds to the noise itself
MAX_PLACES = 6  # places of a tile that are compared a second time
AROUND_PX = 22, 18  # columns, rows at STROKE_DPI to each side of such a place
FOLD_ROOM_PX, FOLD_SIDE_PX, FOLD_REACH_PX = 20, 5, 26  # px at STROKE_DPI: around the window, beside a fold, of its pull
DARKER = 1.05  # of the median darkness of print, from which a pen's ink lies on it
MIN_FOLD_SHARE = 0.6  # of the rows beside print that must show a fold: some may lie off the sheet
INK_SHARE, MAX_LETTER_PX = 0.2, 34  # share of full ink that counts as ink; px at STROKE_DPI of the longest letter
MIN_FOLD_PX = 12  # px at STROKE_DPI of a fold that must be seen beside print
EMPTY = np.zeros((0, 0), np.float32)
MIN_CONTRAST = 6.0  # least gray levels from print to paper for a comparison


@dataclass(frozen=True, eq=False)
class Tile:
    """The print of a mark, or of a part of a long one, in px at STROKE_DPI of the template, for each of BLURS."""

    box: Box
    inks: list[np.ndarray]  # (h, w) float32, 0 paper to 1; 0 where people write
    slopes: list[np.ndarray]  # (2, h * w) float32: times the residual they give the shift of the alignment, px
    paper: np.ndarray  # (n,) flat indices of pixels without print near them
    shown: np.ndarray  # (h, w) float32: 0 where people write, else 1
    around: np.ndarray  # ink with FOLD_ROOM_PX more at each side; empty for a window that is compared by itself
    weight: float  # sum of its ink


def mark_tiles(template: Template) -> tuple[list[list[Tile]], np.ndarray]:
    """-> the tiles of each mark that have print; (3, 3) from the template's pixels to those at STROKE_DPI."""
    scale = STROKE_DPI / template.dpi
    shape = tuple(max(round(side * scale), 1) for side in template.picture.shape)
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(template.picture, shape[::-1], interpolation=kind)
    pictures = [255 - cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BLURS]
    free = outside(replace(template, marks=()), shape, FIELD_MARGIN_PX).astype(np.uint8)
    free = cv2.erode(free, np.ones((2 * FIELD_MARGIN_PX + 1,) * 2, np.uint8)).astype(np.float32)
    to_fine = resize_to(template.picture.shape, shape)
    ratio = np.tile(np.diag(to_fine)[:2], 2)
    boxes, least = [on_picture(np.multiply(mark, ratio), shape) for mark in template.marks], 2 * EDGE_PX + PIECE_PX
    framed = cv2.copyMakeBorder(pictures[1], *[FOLD_ROOM_PX] * 4, cv2.BORDER_CONSTANT, value=0)
    full = max(float(pictures[0].max()), 1.0)
    tiles = [
        [tile_of(pictures, framed, full, free, part) for part in tiled(box) if min(part[2:]) >= least] for box in boxes
    ]
    return [[tile for tile in own if tile.weight > 0] for own in tiles], to_fine


def on_picture(box: np.ndarray, shape: tuple[int, int]) -> Box:
    """A box (4,) rounded to whole pixels and clipped to a picture of this shape (rows, columns)."""
    x, y, w, h = np.rint(box).astype(int).tolist()
    return x, y, min(w, shape[1] - x), min(h, shape[0] - y)


def tiled(mark: Box) -> list[Box]:
    """A mark as overlapping parts of about MAX_TILE_PX: in so small an area the paper is flat and evenly lit."""
    x, y, w, h = mark
    columns, rows = (max(round(side / most), 1) for side, most in zip((w, h), MAX_TILE_PX, strict=True))
    parts = []
    for row in range(rows):
        for column in range(columns):
            left, right = x + column * w // columns, x + (column + 1) * w // columns
            top, bottom = y + row * h // rows, y + (row + 1) * h // rows
            left, top = max(left - 2 * EDGE_PX, x), max(top - 2 * EDGE_PX, y)
            right, bottom = min(right + 2 * EDGE_PX, x + w), min(bottom + 2 * EDGE_PX, y + h)
            parts.append((left, top, right - left, bottom - top))
    return parts


def tile_of(pictures: list[np.ndarray], framed: np.ndarray, full: float, free: np.ndarray, box: Box) -> Tile:
    """A tile of the template's darkness (h, w) uint8, `pictures` for each of BLURS.

    `framed`: the middle one with FOLD_ROOM_PX of paper around it. `full`: the darkness of full ink. `free`: float32, 1
    where nobody writes.
    """
    x, y, w, h = box
    shown = np.ascontiguousarray(free[y : y + h, x : x + w])
    blurred = [picture[y : y + h, x : x + w] * shown for picture in pictures]
    around = framed[y : y + h + 2 * FOLD_ROOM_PX, x : x + w + 2 * FOLD_ROOM_PX] / np.float32(full)
    printed = blurred[0].max(initial=0) > MIN_INK
    return part_of(box, [ink / full if printed else np.zeros_like(shown) for ink in blurred], shown, around)


def part_of(box: Box, inks: list[np.ndarray], shown: np.ndarray, around: np.ndarray = EMPTY) -> Tile:
    slopes = []
    for ink in inks:
        own = np.stack([cv2.Sobel(ink, cv2.CV_32F, *way, scale=0.125).ravel() for way in ((1, 0), (0, 1))])
        slopes.append(np.linalg.solve(own @ own.T + 1e-3 * np.eye(2), own).astype(np.float32))
    clear = (cv2.dilate(inks[0], np.ones((7, 7), np.uint8)) < 0.1) & (shown > 0)
    paper = np.flatnonzero(clear.ravel())
    paper = paper[np.linspace(0, len(paper) - 1, min(MAX_PIXELS, len(paper))).astype(int)]
    return Tile(box, inks, slopes, paper, shown, around, float(inks[0].sum()))


def part_of_tile(tile: Tile, part: Box | None) -> Tile | None:
    """The part of a tile that lies on a scan, without the pixels at the scan's edge; None: too little of it."""
    if part is None or part == tile.box:
        return None if part is None else tile
    (x, y, w, h), (left, top, wide, high) = tile.box, part
    left, right = left + SCAN_EDGE_PX * (left > x), left + wide - SCAN_EDGE_PX * (left + wide < x + w)
    top, bottom = top + SCAN_EDGE_PX * (top > y), top + high - SCAN_EDGE_PX * (top + high < y + h)
    if min(right - left, bottom - top) < 2 * EDGE_PX + LETTER.shape[0]:
        return None
    window, room = (slice(top - y, bottom - y), slice(left - x, right - x)), 2 * FOLD_ROOM_PX
    around = tile.around[top - y : bottom - y + room, left - x : right - x + room]
    inks = [np.ascontiguousarray(ink[window]) for ink in tile.inks]
    return part_of((left, top, right - left, bottom - top), inks, np.ascontiguousarray(tile.shown[window]), around)


@dataclass(frozen=True, eq=False)
class Look:
    """A scan that is resampled to a template's pixels at STROKE_DPI."""

    image: np.ndarray  # the level of its pyramid with the nearest resolution
    way: np.ndarray  # (2, 3): px at STROKE_DPI to pixels of the image

    @classmethod
    def at(cls, levels: list[np.ndarray], matrix: np.ndarray) -> "Look":
        image, way = level_for(levels, matrix)
        return cls(image, way[:2])

    def patch(self, box: Box, beside: Sequence[float]) -> np.ndarray:
        x, y, w, h = box
        way = self.way.copy()
        way[:, 2] += way[:, :2] @ (x + beside[0], y + beside[1])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self.image, way, (w, h), flags=flags, borderValue=255)

    def ink(self, tile: Tile, beside: Sequence[float]) -> np.ndarray:
        """(h, w) float32: how much darker the scan is than its paper within a tile, gray levels."""
        patch = self.patch(tile.box, beside)
        bare = np.sort(patch.ravel()[tile.paper]) if len(tile.paper) else patch.max(keepdims=True).ravel()
        return (np.float32(bare[len(bare) // 2]) - patch) * tile.shown


def other_print(levels: list[np.ndarray], matrix: np.ndarray, tiles: list[tuple[Tile, Sequence[float]]]) -> float:
    """How much of the print of a letter is replaced by other print at the worst place, as a share of full ink; 0 where
    blur, noise, folds, pens and stamps explain the difference.

    `matrix` (3, 3): px at STROKE_DPI to the scan. `tiles`: with the offset of each from its place, px at STROKE_DPI.
    """
    if not tiles:
        return 0.0
    look = Look.at(levels, matrix)
    seen = [look.ink(tile, beside) for tile, beside in tiles]
    largest = max(range(len(tiles)), key=lambda number: tiles[number][0].weight)
    inks = tiles[largest][0].inks
    blur = int(np.argmax([np.vdot(ink, seen[largest]) / max(np.linalg.norm(ink), 1e-6) for ink in inks]))
    laid = [Laid.of(tile, np.array(at, np.float64), one, blur) for (tile, at), one in zip(tiles, seen, strict=True)]
    dark = float(np.median([one.dark for one in laid]))
    if dark < MIN_CONTRAST or all(missing(one.apart).max() < MIN_SWAPPED * dark for one in laid):
        return 0.0  # as on most scans
    return swapped_anywhere(look, [closer(look, one, blur) for one in laid], blur)


def swapped_anywhere(look: Look, laid: list["Laid"], blur: int) -> float:
    """The largest replaced share of full ink that is over the noise and not explained otherwise; 0 if there is none."""
    dark = float(np.median([one.dark for one in laid]))
    noise = dark * float(np.median([np.abs(one.apart).mean() / one.dark for one in laid]))
    least, worst = max(MIN_SWAPPED * dark, min(NOISE_RATIO * noise, SURE_SWAPPED * dark)), 0.0
    for one in laid:
        both = swapped(no_darker(one, dark, blur).apart, least)
        for _ in range(MAX_PLACES):
            _, most, _, at = cv2.minMaxLoc(both)
            if most < least:
                break
            x, y = (max(int(v) - half, 0) for v, half in zip(at, AROUND_PX, strict=True))
            window = slice(y, y + 2 * AROUND_PX[1]), slice(x, x + 2 * AROUND_PX[0])
            still = swapped_alone(look, one, window, blur, dark)
            if still >= least:
                worst = max(worst, still / dark)
                break
            both[window] = 0  # print that a fold has pulled aside, or ink on it
    return worst


@dataclass(frozen=True, eq=False)
class Laid:
    """A tile aligned with the scan: its offset `at`, px; `dark`, gray levels of full ink; `apart`, the residual (h, w)
    in gray levels, below 0 where print is missing."""

    tile: Tile
    at: np.ndarray
    dark: float
    apart: np.ndarray

    @classmethod
    def of(cls, tile: Tile, at: np.ndarray, seen: np.ndarray, blur: int) -> "Laid":
        """`seen` (h, w): of `Look.ink`."""
        dark = darkness(tile.inks[blur], seen)
        return cls(tile, at, dark, seen - dark * tile.inks[blur])


def closer(look: Look, one: Laid, blur: int) -> Laid:
    """The tile aligned further by steps of Lucas and Kanade (1981), as long as the residual becomes smaller."""
    tile, start = one.tile, one.at
    for _ in range(MAX_STEPS):
        step = np.clip(-(tile.slopes[blur] @ one.apart.ravel()) / one.dark, -1, 1)
        if np.abs(step).max() < MIN_STEP_PX or np.abs(one.at + step - start).max() > MAX_SHIFT_PX:
            break
        moved = Laid.of(tile, one.at + step, look.ink(tile, one.at + step), blur)
        if np.linalg.norm(moved.apart) >= np.linalg.norm(one.apart):
            break
        one = moved
    return one


def no_darker(one: Laid, dark: float, blur: int) -> Laid:
    """The tile with `dark` limited to the median `dark` of all tiles: a pen's ink on print is dark too."""
    if one.dark <= DARKER * dark:
        return one
    return replace(one, dark=dark, apart=one.apart + (one.dark - dark) * one.tile.inks[blur])


def missing(apart: np.ndarray) -> np.ndarray:
    """Mean gray levels that are missing in each piece of PIECE_PX, within the tile's edges."""
    return cv2.blur(np.maximum(-apart[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX], 0), (PIECE_PX, PIECE_PX))


def swapped(apart: np.ndarray, least: float) -> np.ndarray:
    """(h, w) gray levels: the lesser of what is missing and of what is added within the area of a letter; 0 everywhere
    if nothing is missing by `least`."""
    less, more = missing(apart), missing(-apart)
    if less.max() < least:
        return np.zeros_like(apart)
    both = np.minimum(cv2.dilate(less, LETTER), cv2.dilate(more, LETTER))
    return cv2.copyMakeBorder(both, *[EDGE_PX] * 4, cv2.BORDER_CONSTANT, value=0)


def swapped_alone(look: Look, one: Laid, window: tuple[slice, slice], blur: int, dark: float) -> float:
    """The largest replaced gray levels in a window of a tile that is aligned by itself; folds and long ink left out."""
    (top, left), tile = (part.start for part in window), one.tile
    inks = [np.ascontiguousarray(ink[window]) for ink in tile.inks]
    h, w = inks[0].shape
    box = tile.box[0] + left, tile.box[1] + top, w, h
    part = part_of(box, inks, np.ascontiguousarray(tile.shown[window]))
    alone = closer(look, Laid.of(part, one.at, look.ink(part, one.at), blur), blur)
    alone = no_darker(alone, dark, blur)
    room = FOLD_ROOM_PX
    ink = tile.around[top : top + h + 2 * room, left : left + w + 2 * room]
    wide = box[0] - room, box[1] - room, w + 2 * room, h + 2 * room
    patch = look.patch(wide, alone.at).astype(np.float32)
    apart = np.median(patch[ink < 0.1]) - patch - alone.dark * ink
    kept = (~long_ink(apart > INK_SHARE * alone.dark)[room:-room, room:-room]).astype(np.float32)
    kept[:, folds(apart, ink)[room:-room]] = 0
    kept[folds(np.ascontiguousarray(apart.T), np.ascontiguousarray(ink.T))[room:-room]] = 0
    return float(swapped(alone.apart * kept, 0.0).max())


def long_ink(ink: np.ndarray) -> np.ndarray:
    """(h, w) bool: near ink that is longer than a letter, as that of a pen, a stamp or a hair."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8))
    long = np.flatnonzero(stats[:, 2:4].max(axis=1) > MAX_LETTER_PX)
    return cv2.dilate(np.isin(labels, long[long > 0]).astype(np.uint8), LETTER) > 0


def folds(apart: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """(columns,) bool: near a fold, a column that is darker than expected and than its sides from top to bottom.

    `apart`: gray levels darker than expected; `ink`: the print, 0 to 1. Rows with print near the column are left out.
    """
    smooth = cv2.blur(apart, (1, 7))
    sides = np.pad(smooth, ((0, 0), (FOLD_SIDE_PX, FOLD_SIDE_PX)), mode="edge")
    ridge = smooth - np.maximum(sides[:, : -2 * FOLD_SIDE_PX], sides[:, 2 * FOLD_SIDE_PX :])
    bare = cv2.dilate(ink, np.ones((1, 2 * FOLD_SIDE_PX + 1), np.uint8)) < 0.15
    share = ((ridge > 2) & bare).sum(axis=0) / np.maximum(bare.sum(axis=0), 1)
    found = ((share > MIN_FOLD_SHARE) & (bare.sum(axis=0) >= MIN_FOLD_PX)).astype(np.uint8)[None]
    return cv2.dilate(found, np.ones((1, 2 * FOLD_REACH_PX + 1), np.uint8))[0] > 0


def darkness(ink: np.ndarray, seen: np.ndarray) -> float:
    """Gray levels of full ink on the scan, by least squares."""
    return max(float(np.vdot(ink, seen) / max(np.vdot(ink, ink), 1e-6)), 1e-3)
