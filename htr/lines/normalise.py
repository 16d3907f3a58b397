"""Line images: cut out of their page as they are stored, and normalised to what a model sees."""

import cv2
import numpy as np

from htr.io.direction import turned
from htr.io.image_files import RejectedInput, decode
from htr.lines.region import PageSize, Region

__all__ = ["PageSize", "Region", "RejectedInput", "can_carry", "cut", "decode", "normalise_line"]

MIN_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX = 16, 8192  # columns of a line that a model sees
MIN_PX_PER_CHARACTER = 2.0  # of the width of a line scaled to 64 pixels of height
PAPER_KERNEL = np.ones((5, 5), np.uint8)  # where paper is looked for, in blocks of 8 pixels
MAX_STRAIGHT_RISE_PX = 2.0  # pixels between a baseline's highest and lowest point, up to which its line is cut as it is
MAX_BEND_RATIO = 0.7  # of the radius of a baseline's curvature: how far from it a pixel may lie; at 1 the normals meet
MAX_REMAP_SIDE_PX, MAX_REMAP_PIXELS = 32766, 64_000_000  # columns or rows that OpenCV remaps; pixels


def cut(page: np.ndarray, region: Region | None) -> np.ndarray:
    """The line's own pixels: the region's box within the page, paper where the polygon excludes. Raises RejectedInput.

    A line that runs up or down the page, or upside down, is set upright first (Region.turn). One whose baseline is not
    straight and level is straightened on it, in native resolution: along a row a pixel is a pixel of the baseline's
    length, along a column one of its normal.
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
    baseline = None if region.baseline is None else region.baseline - (left, top)
    if region.turn:
        line, mask, baseline = upright(line, mask, baseline, region.turn)
    if baseline is not None and np.ptp(baseline[:, 1]) > MAX_STRAIGHT_RISE_PX:
        straight = straighten(line, mask, baseline)
        if straight is not None:
            return straight
    if mask is not None:
        # what lies outside belongs to the neighbours: it becomes this line's own paper
        line = cv2.copyTo(line, mask, np.full(line.shape, paper_of(line, mask), np.uint8))
    return np.ascontiguousarray(line)


def upright(line: np.ndarray, mask: np.ndarray | None, baseline: np.ndarray | None, turn: int) -> tuple:
    """The line, its mask and its baseline, turned clockwise by `turn` degrees (0, 90, 180, 270)."""
    height, width = line.shape
    if baseline is not None:
        corner = {90: (height - 1, 0), 180: (width - 1, height - 1), 270: (0, width - 1)}[turn]
        baseline = turned(baseline, turn) + corner
    line = np.ascontiguousarray(np.rot90(line, -turn // 90))
    return line, None if mask is None else np.ascontiguousarray(np.rot90(mask, -turn // 90)), baseline


def paper_of(line: np.ndarray, mask: np.ndarray | None) -> int:
    """The gray level of the paper: the one that nine tenths of the line's pixels do not exceed."""
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
    """A polyline (n, 2) -> points along it, one pixel of its length apart; the last one may be less than a pixel from
    its end."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    steps = np.linspace(0.0, length[-1], max(round(length[-1]), 1) + 1)
    return np.stack([np.interp(steps, length, values) for values in points.T], axis=1)


def extend(path: np.ndarray, letter: float, left: float, right: float) -> np.ndarray:
    """The path with a straight piece at each end, in the direction that it has there, so that it goes from column
    `left` to column `right` at least, and a `letter`'s width further."""
    reach = min(max(round(2 * letter), 1), len(path) - 1)
    first, last = path[0] - path[reach], path[-1] - path[-1 - reach]
    before = max(path[0, 0] - left, 0.0) + letter
    after = max(right - path[-1, 0], 0.0) + letter
    head = path[0] + before * first / max(np.hypot(*first), 1e-6)
    tail = path[-1] + after * last / max(np.hypot(*last), 1e-6)
    return np.concatenate([[head], path, [tail]])


def smooth(path: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing along the path, `sigma` in points; its two ends stay where they are."""
    reach = min(round(3 * sigma), len(path) - 1)
    padded = np.pad(path, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    window = cv2.getGaussianKernel(2 * reach + 1, sigma)
    return cv2.filter2D(padded, -1, window, borderType=cv2.BORDER_REPLICATE)[reach : reach + len(path)]


def directions(curve: np.ndarray) -> tuple[np.ndarray, float]:
    """-> unit tangents (n, 2) of a curve whose points are a pixel apart, and its greatest curvature (1 / pixels)."""
    tangents = np.gradient(curve, axis=0)
    tangents /= np.maximum(np.hypot(*tangents.T), 1e-6)[:, None]
    return tangents, float(np.hypot(*np.gradient(tangents, axis=0).T).max())


def at(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Values (n, 2) along a curve, a pixel apart -> linearly between them at these steps, (len(steps), 2)."""
    grid = np.arange(len(values))
    return np.stack([np.interp(steps, grid, column) for column in values.T], axis=1)


def relative_to(curve: np.ndarray, tangents: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, 2) -> (m,) the place along the curve that is nearest to each, (m,) how far above the curve the point
    lies; in pixels."""
    along = np.interp(points[:, 0], np.maximum.accumulate(curve[:, 0]), np.arange(len(curve)))
    for _ in range(4):  # Newton's steps
        offset, direction = points - at(curve, along), at(tangents, along)
        along = np.clip(along + (offset * direction).sum(axis=1), 0, len(curve) - 1)
    offset, direction = points - at(curve, along), at(tangents, along)
    return along, offset[:, 0] * direction[:, 1] - offset[:, 1] * direction[:, 0]


def can_carry(shape: tuple[int, int], text: str) -> bool:
    """Whether a line image of this shape (H, W) is wide enough to hold the text; where it is not, image and text are
    likely not of the same line."""
    height, width = shape
    return 64 * width / height >= MIN_PX_PER_CHARACTER * len(text)


def normalise_line(gray: np.ndarray, height: int) -> np.ndarray:
    """A stored line -> what a model sees: (height, W) uint8, 0 paper to 255 ink, the aspect ratio kept.

    The paper is the wide local maximum of the brightness, evened by division, so that stains and shadows leave; the
    darkest ink of the line becomes 255.
    """
    width = min(max(round(gray.shape[1] * height / gray.shape[0]), MIN_LINE_WIDTH_PX), MAX_LINE_WIDTH_PX)
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
