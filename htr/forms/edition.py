"""A template prepared for registration, and how editions of one layout are told apart by their marks.

A mark is a box whose print differs between editions: the form's number, or a title. Marks that lie beyond the edge of a
scan are left out; the others decide.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from htr.forms.keypoints import CLOSE, WIDE, Box, Keypoints, apply, resize_to, search_patch, top_beside
from htr.forms.mark_print import STROKE_DPI, Tile, mark_tiles, other_print, part_of_tile
from htr.forms.template import Template

MIN_WIDE_KEYPOINTS, MIN_CLOSE_KEYPOINTS = 6, 12  # keypoints without which a template can't be recognised
MIN_DISCRIMINATOR_PX = 12  # least number of different px, at CLOSE.dpi, in a box that tells editions apart
TOLERANCE_PX = 1  # px at CLOSE.dpi that marks and such boxes may be off their places
MIN_SHOWN_SHARE = 0.4  # share of a mark that must lie on the scan for it to be compared


@dataclass(frozen=True, eq=False)
class Form:
    """A template prepared for registration. `picture` and `marks` are in px at CLOSE.dpi."""

    template: Template
    picture: np.ndarray
    to_close: np.ndarray  # (3, 3): pixels of the template's picture to those of this one
    marks: list[Box]
    wide: Keypoints
    close: Keypoints

    @classmethod
    def prepare(cls, template: Template) -> "Form":
        """Raises ValueError for a template with too little print outside its fields and marks."""
        wide, close = Keypoints.pick(template, WIDE), Keypoints.pick(template, CLOSE)
        if len(wide.points) < MIN_WIDE_KEYPOINTS or len(close.points) < MIN_CLOSE_KEYPOINTS:
            raise ValueError(
                f"template {template.name}: too little print outside its fields and marks to register a scan on: "
                f"{len(wide.points)} places at {WIDE.dpi:g} dpi (needs {MIN_WIDE_KEYPOINTS}), {len(close.points)} at "
                f"{CLOSE.dpi:g} dpi (needs {MIN_CLOSE_KEYPOINTS})"
            )
        picture = cv2.resize(template.picture, close.shape[::-1], interpolation=cv2.INTER_AREA)
        picture = cv2.GaussianBlur(picture, (0, 0), 0.6)  # as sharp as scans are
        scale = np.tile(np.divide(picture.shape, template.picture.shape)[::-1], 2)
        marks = [tuple(np.rint(np.multiply(mark, scale)).astype(int).tolist()) for mark in template.marks]
        return cls(template, picture, resize_to(template.picture.shape, picture.shape), marks, wide, close)

    @cached_property
    def printed_marks(self) -> list[tuple[Box, np.ndarray, list[Tile]]]:
        """The marks that have print: box, picture (h, w), and tiles for the comparison of strokes (mark_print.py)."""
        tiles, _ = self.tiles
        return [
            (mark, patch, own)
            for mark, own in zip(self.marks, tiles, strict=True)
            if (patch := printed(self.picture, mark)) is not None
        ]

    @cached_property
    def tiles(self) -> tuple[list[list[Tile]], np.ndarray]:
        return mark_tiles(self.template)

    def marked(self) -> np.ndarray:
        """uint8 of the picture's shape: 1 within the marks."""
        zone = np.zeros_like(self.picture)
        for x, y, w, h in self.marks:
            zone[y : y + h, x : x + w] = 1
        return zone

    def marks_seen(self, levels: list[np.ndarray], matrix: np.ndarray, flat: bool) -> tuple[float | None, float]:
        """Compare the marks of a scan with those of the template.

        `levels`: the scan's pyramid; `matrix` (3, 3): template to scan; `flat`: whether the paper lay flat. -> the
        second least correlation of the marks, as a stamp may hide one (1 where the template's marks have no print, None
        where none lies on the scan); and the figure of `other_print`, 0 unless the paper lay flat, since a bend moves
        strokes by some pixels.
        """
        to_scan, to_fine = matrix @ np.linalg.inv(self.to_close), matrix @ np.linalg.inv(self.tiles[1])
        zoom = STROKE_DPI / CLOSE.dpi
        seen, tiles = [], []
        parts = parts_on_scan([mark for mark, _, _ in self.printed_marks], to_scan, levels[0].shape)
        for part, (mark, patch, strokes) in zip(parts, self.printed_marks, strict=True):
            own = patch if part == mark else None if part is None else printed(self.picture, part)
            if own is None:
                continue
            likenesses = cv2.matchTemplate(search_patch(levels, to_scan, part, TOLERANCE_PX), own, cv2.TM_CCOEFF_NORMED)
            _, most, _, at = cv2.minMaxLoc(likenesses)
            seen.append(max(most, 0.0))
            if not flat:
                continue
            beside = [zoom * (v - TOLERANCE_PX) for v in summit(likenesses, at)]
            there = parts_on_scan([tile.box for tile in strokes], to_fine, levels[0].shape)
            shown = [part_of_tile(tile, piece) for tile, piece in zip(strokes, there, strict=True)]
            tiles += [(tile, beside) for tile in shown if tile is not None]
        if not seen:
            return None if self.printed_marks else 1.0, 0.0
        return sorted(seen)[min(1, len(seen) - 1)], other_print(levels, to_fine, tiles)


@dataclass(frozen=True, eq=False)
class EditionDiscriminator:
    """Boxes in which two editions of one layout differ, and what each prints there; px at CLOSE.dpi of the first."""

    first: Form
    matrix: np.ndarray  # (3, 3): pixels of the first's template to the other's
    boxes: list[Box]
    own: list[np.ndarray | None]  # None: bare paper
    other: list[np.ndarray | None]

    @classmethod
    def between(cls, first: Form, second: Form, matrix: np.ndarray) -> "EditionDiscriminator":
        way = first.to_close @ np.linalg.inv(second.to_close @ matrix)
        size = first.picture.shape[::-1]
        laid = cv2.warpAffine(second.picture, way[:2], size, borderValue=255)
        zone = first.marked() | cv2.warpAffine(second.marked(), way[:2], size, flags=cv2.INTER_NEAREST)
        differs = (cv2.absdiff(first.picture, laid) > 50).astype(np.uint8) * zone
        joined = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((5, 9), np.uint8))
        boxes = []
        for x, y, w, h, area in cv2.connectedComponentsWithStats(joined)[2][1:].tolist():
            left, top, right, bottom = max(x - 2, 0), max(y - 2, 0), min(x + w + 2, size[0]), min(y + h + 2, size[1])
            if area >= MIN_DISCRIMINATOR_PX:
                boxes.append((left, top, right - left, bottom - top))
        return cls(first, matrix, boxes, *([printed(image, box) for box in boxes] for image in (first.picture, laid)))

    def lead(self, levels: list[np.ndarray], matrix: np.ndarray) -> float:
        """How much better the scan fits the first edition than the other: weighted mean difference of correlations."""
        to_scan = matrix @ np.linalg.inv(self.first.to_close)
        leads, weights = [], []
        parts = parts_on_scan(self.boxes, to_scan, levels[0].shape)
        for box, part, own, other in zip(self.boxes, parts, self.own, self.other, strict=True):
            if part == box:  # a part of a letter can't be compared
                seen = search_patch(levels, to_scan, box, TOLERANCE_PX)
                leads.append(likeness(seen, own) - likeness(seen, other))
                weights.append(np.sqrt(box[2] * box[3]))
        return float(np.average(leads, weights=weights)) if leads else 0.0


def summit(values: np.ndarray, at: tuple[int, int]) -> tuple[float, float]:
    """Column and row of a maximum to a fraction, by a parabola through its neighbours; at the edge, as it is."""
    (x, y), (rows, columns) = at, values.shape
    if not (0 < x < columns - 1 and 0 < y < rows - 1):
        return float(x), float(y)
    row, column = values[y, x - 1 : x + 2].astype(np.float64), values[y - 1 : y + 2, x].astype(np.float64)
    return float(x + top_beside(*row)), float(y + top_beside(*column))


def printed(picture: np.ndarray, box: Box) -> np.ndarray | None:
    """The part of the picture in the box; None where it has no print."""
    x, y, w, h = box
    patch = picture[y : y + h, x : x + w].copy()
    return patch if patch.size and patch.std() > 8 else None


def likeness(seen: np.ndarray, patch: np.ndarray | None) -> float:
    """The largest correlation of the patch with any place of the image, at least 0; 0 for a patch without print."""
    return 0.0 if patch is None else max(cv2.minMaxLoc(cv2.matchTemplate(seen, patch, cv2.TM_CCOEFF_NORMED))[1], 0.0)


def parts_on_scan(boxes: list[Box], to_scan: np.ndarray, shape: tuple[int, int]) -> list[Box | None]:
    """The part of each box that lies on a scan of this shape, in the pixels of the box; None: less than
    MIN_SHOWN_SHARE of it.
    """
    if not boxes:
        return []
    x, y, w, h = np.array(boxes).T
    ends = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]], np.float64).transpose(2, 0, 1)
    places = apply(to_scan, ends)
    inside = ((places >= 0) & (places <= np.subtract(shape[::-1], 1))).all(axis=(1, 2)).tolist()
    return [box if whole else part_on_scan(box, to_scan, shape) for box, whole in zip(boxes, inside, strict=True)]


def part_on_scan(box: Box, to_scan: np.ndarray, shape: tuple[int, int]) -> Box | None:
    x, y, w, h = box
    columns, rows = np.arange(x, x + w), np.arange(y, y + h)
    places = apply(to_scan, np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2))
    inside = ((places >= 0) & (places <= np.subtract(shape[::-1], 1))).all(axis=1).reshape(h, w)
    columns, rows = columns[inside.mean(axis=0) > 0.5], rows[inside.mean(axis=1) > 0.5]
    if not len(columns) or not len(rows) or inside.mean() < MIN_SHOWN_SHARE:
        return None
    return int(columns[0]), int(rows[0]), len(columns), len(rows)
