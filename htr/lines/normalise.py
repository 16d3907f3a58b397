"""Line images: cut out of their page as they are stored, and normalised to what a model sees."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from htr.io.image_files import RejectedInput, decode

__all__ = ["Region", "RejectedInput", "can_carry", "cut", "decode", "normalise_line"]

MIN_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX = 16, 8192  # columns of a line that a model sees
MAX_COORDINATE = 2**24  # a coordinate; beyond, OpenCV's polygons and int32 overflow
MAX_POLYGON_POINTS = 5000  # of a polygon or a baseline; the time that OpenCV takes to fill one grows with their square
MIN_PX_PER_CHARACTER = 2.0  # of the width of a line scaled to 64 pixels of height
MAX_RATIO_DIFFERENCE = 0.01  # by which the sides' ratio of two sizes of one page may differ
PER_INCH = {"mm10": 254.0, "inch1200": 1200.0}  # units of ALTO
PAPER_KERNEL = np.ones((5, 5), np.uint8)  # where paper is looked for, in blocks of 8 pixels
MAX_STRAIGHT_RISE_PX = 2.0  # pixels between a baseline's highest and lowest point, up to which its line is cut as it is
MAX_BEND_RATIO = 0.7  # of the radius of a baseline's curvature: how far from it a pixel may lie; at 1 the normals meet
MAX_REMAP_SIDE_PX, MAX_REMAP_PIXELS = 32766, 64_000_000  # columns or rows that OpenCV remaps; pixels


@dataclass(frozen=True)
class Region:
    """Where a line lies on its page, in pixels."""

    x: int
    y: int
    w: int
    h: int
    polygon: np.ndarray | None = None  # (points, 2) int32, in the page's coordinates
    baseline: np.ndarray | None = None  # (points, 2) float64, from left to right

    @classmethod
    def parse(cls, box: str, polygon: str, baseline: str = "") -> "Region | None":
        """From a table's cells: box "x y w h", polygon and baseline "x,y x,y …"; None without box and polygon.

        Raises RejectedInput, but not for a baseline: one that makes no sense is ignored.
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
        return cls(x, y, w, h, shape, parse_baseline(baseline, x, y, w, h) if baseline else None)

    def scaled(self, x: float, y: float) -> "Region":
        """On a page so many times as wide and as high."""
        if x == y == 1:
            return self
        left, top = round(self.x * x), round(self.y * y)
        size = max(round((self.x + self.w) * x) - left, 1), max(round((self.y + self.h) * y) - top, 1)
        shape = None if self.polygon is None else np.rint(self.polygon * (x, y)).astype(np.int32)
        baseline = None if self.baseline is None else self.baseline * (x, y)
        return replace(Region(left, top, *size), polygon=shape, baseline=baseline)


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
        """Whether a page of so many pixels has the same ratio of its sides."""
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


def parse_baseline(cell: str, x: int, y: int, w: int, h: int) -> np.ndarray | None:
    """The points of a baseline that can be its box's: from left to right along most of it, flatter than 45 degrees, and
    hardly longer than straight. None for any other."""
    cells = cell.split()
    try:
        points = np.array([[float(v) for v in point.split(",")] for point in cells[: MAX_POLYGON_POINTS + 1]])
    except ValueError:  # no numbers, or not two in each point
        return None
    if not 2 <= len(points) <= MAX_POLYGON_POINTS or points.shape[1:] != (2,) or not np.isfinite(points).all():
        return None
    if (points < (x - h, y - h / 2)).any() or (points > (x + w + h, y + 1.5 * h)).any():
        return None
    across, down = points[-1] - points[0]
    length = np.hypot(*np.diff(points, axis=0).T).sum()
    if across < 0.5 * w or across < abs(down) or length > 1.2 * np.hypot(across, down):
        return None
    return points


def cut(page: np.ndarray, region: Region | None) -> np.ndarray:
    """The line's own pixels: the region's box within the page, paper where the polygon excludes. Raises RejectedInput.

    A line with a baseline that is not straight and level is straightened on it, in native resolution: along a row a
    pixel is a pixel of the baseline's length, along a column one of its normal.
    """
    if region is None:
        return page
    height, width = page.shape
    left, top = max(region.x, 0), max(region.y, 0)
    right, bottom = min(region.x + region.w, width), min(region.y + region.h, height)
    inside = max(right - left, 0) * max(bottom - top, 0)
    if inside < 0.5 * region.w * region.h:
        raise RejectedInput("box lies outside the image")
    line = page[top:bottom, left:right]
    mask = None
    if region.polygon is not None:
        mask = np.zeros(line.shape, np.uint8)
        # points far away are drawn nearer: OpenCV walks along every row that an edge crosses, on the page or not
        near = np.clip(region.polygon, (left - width, top - height), (right + width, bottom + height))
        cv2.fillPoly(mask, [near.astype(np.int32) - np.array([left, top], np.int32)], 255)
        if not mask.any():
            raise RejectedInput("polygon lies outside the image")
    if region.baseline is not None and np.ptp(region.baseline[:, 1]) > MAX_STRAIGHT_RISE_PX:
        straight = straighten(line, mask, region.baseline - (left, top))
        if straight is not None:
            return straight
    if mask is not None:
        # what lies outside belongs to the neighbours: it becomes this line's own paper
        line = cv2.copyTo(line, mask, np.full(line.shape, paper_of(line, mask), np.uint8))
    return np.ascontiguousarray(line)


def paper_of(line: np.ndarray, mask: np.ndarray | None) -> int:
    """The shade that nine tenths of the line's pixels are not brighter than; by its histogram, which copies nothing."""
    counts = np.cumsum(cv2.calcHist([line], [0], mask, [256], [0, 256]), dtype=np.float64)
    return int(np.searchsorted(counts, 0.9 * counts[-1]))


def straighten(line: np.ndarray, mask: np.ndarray | None, baseline: np.ndarray) -> np.ndarray | None:
    """A line (H, W) with its mask and its baseline in the same coordinates -> its pixels along the baseline.

    None where the baseline bends too much to be followed, or the line is larger than can be remapped.
    """
    height, width = line.shape
    box = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.int32)
    contours = [box] if mask is None else cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    outline = np.concatenate([contour.reshape(-1, 2) for contour in contours]).astype(np.float64)
    if mask is None:  # the edges between the corners too: a bent baseline comes nearest to their middle
        outline = np.linspace(outline, np.roll(outline, -1, axis=0), 256, endpoint=False).reshape(-1, 2)
    length = np.hypot(*np.diff(baseline, axis=0).T).sum()
    if max(length, *line.shape) > MAX_REMAP_SIDE_PX:
        return None
    letter = np.clip((height * width if mask is None else np.count_nonzero(mask)) / length, 4, height)  # their height
    path = resample(extend(resample(baseline), letter, outline[:, 0].min(), outline[:, 0].max()))
    sigma = letter / 4
    while True:
        curve = resample(smooth(path, sigma))
        tangents, bend = directions(curve)
        along, above = relative_to(curve, tangents, outline)
        if tangents[:, 0].min() > 0.5 and bend * np.abs(above).max() < MAX_BEND_RATIO:
            break
        sigma *= 2
        if sigma > len(path):
            return None
    columns = np.arange(np.floor(along.min()), np.ceil(along.max()) + 1)
    rows = np.arange(np.ceil(above.max()), np.floor(above.min()) - 1, -1)[:, None]
    if max(len(columns), len(rows)) > MAX_REMAP_SIDE_PX or len(columns) * len(rows) > MAX_REMAP_PIXELS:
        return None
    points, tangents = at(curve, columns), at(tangents, columns)
    paper, done = paper_of(line, mask), []
    mask = np.full(line.shape, 255, np.uint8) if mask is None else mask
    for start in range(0, len(columns), 2048):  # the maps take eight bytes a pixel
        (x, y), (across, down) = points[start : start + 2048].T, tangents[start : start + 2048].T
        maps = (x + rows * down).astype(np.float32), (y - rows * across).astype(np.float32)
        pixels = cv2.remap(line, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        ours = cv2.remap(mask, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        done.append(cv2.copyTo(pixels, ours, np.full(pixels.shape, paper, np.uint8)))
    return np.ascontiguousarray(np.concatenate(done, axis=1))


def resample(points: np.ndarray) -> np.ndarray:
    """A polyline (n, 2) -> points on it, a pixel of its length apart, both ends among them to less than a pixel."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    steps = np.linspace(0.0, length[-1], max(round(length[-1]), 1) + 1)
    return np.stack([np.interp(steps, length, values) for values in points.T], axis=1)


def extend(path: np.ndarray, letter: float, left: float, right: float) -> np.ndarray:
    """The path with a straight piece at each end, in the direction that it has there, as far as its line goes."""
    reach = min(max(round(2 * letter), 1), len(path) - 1)
    first, last = path[0] - path[reach], path[-1] - path[-1 - reach]
    before = max(path[0, 0] - left, 0.0) + letter
    after = max(right - path[-1, 0], 0.0) + letter
    head = path[0] + before * first / max(np.hypot(*first), 1e-6)
    tail = path[-1] + after * last / max(np.hypot(*last), 1e-6)
    return np.concatenate([[head], path, [tail]])


def smooth(path: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian along the path; reflected through its ends, which stay where they are."""
    reach = min(round(3 * sigma), len(path) - 1)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    window = cv2.getGaussianKernel(2 * reach + 1, sigma)
    return cv2.filter2D(padded, -1, window, borderType=cv2.BORDER_REPLICATE)[reach : reach + len(path)]


def directions(curve: np.ndarray) -> tuple[np.ndarray, float]:
    """-> unit tangents (n, 2), the greatest curvature (one over pixels)."""
    tangents = np.gradient(curve, axis=0)
    tangents /= np.maximum(np.hypot(*tangents.T), 1e-6)[:, None]
    return tangents, float(np.hypot(*np.gradient(tangents, axis=0).T).max())


def at(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(n, 2) values of a curve, a pixel apart -> those between them, (len(steps), 2)."""
    grid = np.arange(len(values))
    return np.stack([np.interp(steps, grid, column) for column in values.T], axis=1)


def relative_to(curve: np.ndarray, tangents: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, 2) -> how far along the curve each has its foot, and how far above the curve it lies."""
    along = np.interp(points[:, 0], np.maximum.accumulate(curve[:, 0]), np.arange(len(curve)))
    for _ in range(4):  # Newton's steps
        offset, direction = points - at(curve, along), at(tangents, along)
        along = np.clip(along + (offset * direction).sum(axis=1), 0, len(curve) - 1)
    offset, direction = points - at(curve, along), at(tangents, along)
    return along, offset[:, 0] * direction[:, 1] - offset[:, 1] * direction[:, 0]


def can_carry(shape: tuple[int, int], text: str) -> bool:
    """Whether a line image of (H, W) is wide enough for the text to be more than a wrong pairing."""
    height, width = shape
    return 64 * width / height >= MIN_PX_PER_CHARACTER * len(text)


def normalise_line(gray: np.ndarray, height: int) -> np.ndarray:
    """A stored line -> what a model sees: (height, W) uint8, 0 paper to 255 ink, the aspect ratio kept.

    The paper is the wide local maximum of the brightness, evened by division, so that stains and shadows leave; the
    darkest ink of the line becomes 255.
    """
    width = int(np.clip(round(gray.shape[1] * height / gray.shape[0]), MIN_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX))
    shrink = gray.shape[0] > height
    cv2.ipp.setUseIPP_NotExact(True)  # of this thread: twice as fast where OpenCV has IPP, a level different at most
    try:
        line = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
        small = cv2.resize(line, (max(width // 8, 1), height // 8), interpolation=cv2.INTER_AREA)
        paper = cv2.blur(cv2.dilate(cv2.max(small, 1), PAPER_KERNEL), (9, 5))
        paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    finally:
        cv2.ipp.setUseIPP_NotExact(False)
    darker = cv2.subtract(paper, line)
    some = cv2.divide(darker[2::4], paper[2::4], scale=255)
    counts = np.cumsum(cv2.calcHist([some], [0], None, [256], [0, 256]))
    darkest = np.searchsorted(counts, 0.99 * counts[-1])
    # faint copies are raised, an empty line's noise is not raised to ink
    return cv2.divide(darker, paper, scale=255 * 255 / max(float(darkest), 48.0))
