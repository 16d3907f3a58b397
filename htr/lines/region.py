"""Where a line lies on its page, and the size of the page that it was drawn on: from a table's cells."""

from dataclasses import dataclass

import numpy as np

from htr.io.direction import parse_turn, resolve
from htr.io.direction import points as points_of
from htr.io.image_files import RejectedInput

MAX_COORDINATE = 2**24  # a coordinate; beyond, OpenCV's polygons and int32 overflow
MAX_POLYGON_POINTS = 5000  # of a polygon or a baseline; the time that OpenCV takes to fill one grows with their square
MAX_RATIO_DIFFERENCE = 0.01  # by which the sides' ratio of two sizes of one page may differ
PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}  # units of ALTO


@dataclass(frozen=True)
class Region:
    """Where a line lies on its page, in pixels."""

    x: int
    y: int
    w: int
    h: int
    polygon: np.ndarray | None = None  # (points, 2) int32, in the page's coordinates
    baseline: np.ndarray | None = None  # (points, 2) float64, in the order in which the line is read
    turn: int = 0  # degrees clockwise that set the line upright: 0, 90, 180 or 270, see htr.io.direction

    @classmethod
    def parse(cls, box: str, polygon: str, baseline: str = "", turn: str = "") -> "Region | None":
        """From a table's cells: box "x y w h", polygon and baseline "x,y x,y …", turn; None without box and polygon.

        Raises RejectedInput, but not for a baseline that makes no sense: it is ignored.
        """
        if box == "none":
            raise RejectedInput("line has no box, polygon or baseline")
        cells = polygon.split()
        if len(cells) > MAX_POLYGON_POINTS:
            raise RejectedInput("polygon has too many points")
        try:
            points = [[round(float(v)) for v in point.split(",")] for point in cells] if polygon else None
        except (ValueError, OverflowError):
            points = []
        if points is not None and (len(points) < 3 or any(len(p) != 2 for p in points)):
            raise RejectedInput("polygon is not at least three points 'x,y'")
        try:
            if box:
                x, y, w, h = (round(float(v)) for v in box.replace(",", " ").split())
            elif points:
                x, y = (min(values) for values in zip(*points, strict=True))
                w, h = (max(values) - low + 1 for values, low in zip(zip(*points, strict=True), (x, y), strict=True))
            else:
                return None
        except (ValueError, OverflowError):
            raise RejectedInput("box is not four numbers 'x y w h'") from None
        if w <= 0 or h <= 0:
            raise RejectedInput("box is empty")
        if max(map(abs, (x, y, w, h, *(v for point in points or () for v in point)))) > MAX_COORDINATE:
            raise RejectedInput("box lies outside the image")
        shape = None if points is None else np.array(points, np.int32)
        if not (baseline or turn):
            return cls(x, y, w, h, shape)
        corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64)
        outline = corners if shape is None else shape.astype(np.float64)
        path = points_of(baseline) if len(baseline.split()) <= MAX_POLYGON_POINTS else None
        if path is not None and np.abs(path).max() > MAX_COORDINATE:
            path = None
        way, path = resolve(path, outline, corners, parse_turn(turn))
        return cls(x, y, w, h, shape, path, way)

    def scaled(self, x: float, y: float) -> "Region":
        """The region on a page that is `x` times as wide and `y` times as high."""
        if x == y == 1:
            return self
        left, top = round(self.x * x), round(self.y * y)
        size = max(round((self.x + self.w) * x) - left, 1), max(round((self.y + self.h) * y) - top, 1)
        shape = None if self.polygon is None else np.rint(self.polygon * (x, y)).astype(np.int32)
        baseline = None if self.baseline is None else self.baseline * (x, y)
        return Region(left, top, *size, polygon=shape, baseline=baseline, turn=self.turn)


@dataclass(frozen=True)
class PageSize:
    """The size of a page as its boxes were drawn on it, in a unit of its own."""

    width: float  # 0: not stated
    height: float
    unit: str = "pixel"

    @classmethod
    def parse(cls, cell: str) -> "PageSize | None":
        """From a table's cell "W H" or "W H UNIT", None where it is empty. Raises RejectedInput."""
        if not cell:
            return None
        parts = cell.replace(",", " ").split()
        try:
            width, height = (float(v) for v in parts[:2])
            unit = parts[2] if len(parts) > 2 else "pixel"
        except ValueError:
            raise RejectedInput("page_size is not two numbers 'W H'") from None
        if unit not in ("pixel", *PER_INCH) or not (0 <= width < 1e9 and 0 <= height < 1e9) or len(parts) > 3:
            raise RejectedInput("page_size is not two numbers 'W H'")
        return cls(width, height, unit)

    def fits(self, width: int, height: int) -> bool:
        """Whether a page of this many pixels has the same ratio of width to height."""
        if not (self.width and self.height):
            return True
        ratio = (width / self.width) / (height / self.height)
        return abs(ratio - 1) <= MAX_RATIO_DIFFERENCE + 1 / min(width, height) + 1 / min(self.width, self.height)

    def scale(self, shape: tuple[int, int], dpi: float | None) -> tuple[float, float]:
        """-> how many pixels of an image (H, W) one of its units is, across and down.

        Raises RejectedInput: another page.
        """
        height, width = shape
        if not self.fits(width, height):
            stated = f"{self.width:g} x {self.height:g}{'' if self.unit == 'pixel' else f' {self.unit}'}"
            raise RejectedInput(f"boxes are of a page of {stated}, the image has {width} x {height}")
        if self.width and self.height:
            return width / self.width, height / self.height
        if not dpi:
            raise RejectedInput(f"boxes are in {self.unit}, but neither page nor image says its size")
        return dpi / PER_INCH[self.unit], dpi / PER_INCH[self.unit]
