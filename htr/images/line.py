"""A line of handwriting: cut out of its page as it is stored, and made ready as a model sees it."""

from dataclasses import dataclass

import cv2
import numpy as np

MOST_PIXELS = 400_000_000  # of one page: an A3 sheet at 1200 dpi has 280 million
NARROWEST, WIDEST = 16, 8192  # columns of a line that a model sees
FARTHEST = 2**24  # a coordinate; beyond, OpenCV's polygons and int32 overflow
LEAST_PIXELS_A_CHARACTER = 2.0  # of the width of a line scaled to 64 pixels of height


class BadLine(ValueError):
    """An input that can't become a sample; the message is the reason, without any of its text."""


@dataclass(frozen=True)
class Region:
    """Where a line lies on its page, in pixels."""

    x: int
    y: int
    w: int
    h: int
    polygon: np.ndarray | None = None  # (points, 2) int32, in the page's coordinates

    @classmethod
    def parse(cls, box: str, polygon: str) -> "Region | None":
        """From a table's cells: box "x y w h", polygon "x,y x,y …"; None when both are empty. Raises BadLine."""
        try:
            points = [[round(float(v)) for v in point.split(",")] for point in polygon.split()] if polygon else None
        except (ValueError, OverflowError):
            points = []
        if points is not None and (len(points) < 3 or any(len(p) != 2 for p in points)):
            raise BadLine("polygon is not at least three points 'x,y'")
        try:
            if box:
                x, y, w, h = (round(float(v)) for v in box.replace(",", " ").split())
            elif points:
                x, y = np.min(points, axis=0).tolist()
                w, h = (np.max(points, axis=0) - (x, y) + 1).tolist()
            else:
                return None
        except (ValueError, OverflowError):
            raise BadLine("box is not four numbers 'x y w h'") from None
        if w <= 0 or h <= 0:
            raise BadLine("box is empty")
        if max(map(abs, (x, y, w, h, *(v for point in points or () for v in point)))) > FARTHEST:
            raise BadLine("box lies outside the image")
        return cls(x, y, w, h, None if points is None else np.array(points, np.int32))


def decode(encoded: bytes) -> np.ndarray:
    """An encoded JPEG, PNG or TIFF -> gray (H, W) uint8. Raises BadLine."""
    if not encoded:
        raise BadLine("image file is empty")
    try:
        gray = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # among others, more pixels than OpenCV takes
        gray = None
    if gray is None:
        raise BadLine("image can't be decoded")
    if gray.size > MOST_PIXELS:
        raise BadLine("image has too many pixels")
    return gray


def cut(page: np.ndarray, region: Region | None) -> np.ndarray:
    """The line's own pixels: the region's box within the page, paper where the polygon excludes. Raises BadLine."""
    if region is None:
        return page
    height, width = page.shape
    left, top = max(region.x, 0), max(region.y, 0)
    right, bottom = min(region.x + region.w, width), min(region.y + region.h, height)
    inside = max(right - left, 0) * max(bottom - top, 0)
    if inside < 0.5 * region.w * region.h:
        raise BadLine("box lies outside the image")
    line = page[top:bottom, left:right]
    if region.polygon is not None:
        mask = np.zeros(line.shape, np.uint8)
        cv2.fillPoly(mask, [region.polygon - np.array([left, top], np.int32)], 255)
        if not mask.any():
            raise BadLine("polygon lies outside the image")
        # what lies outside belongs to the neighbours: it becomes this line's own paper
        line = np.where(mask > 0, line, np.uint8(np.percentile(line[mask > 0], 90)))
    return np.ascontiguousarray(line)


def can_carry(shape: tuple[int, int], text: str) -> bool:
    """Whether a line image of (H, W) is wide enough for the text to be more than a wrong pairing."""
    height, width = shape
    return 64 * width / height >= LEAST_PIXELS_A_CHARACTER * len(text)


def to_ink(gray: np.ndarray, height: int) -> np.ndarray:
    """A stored line -> what a model sees: (height, W) uint8, 0 paper to 255 ink, the aspect ratio kept.

    The paper is the wide local maximum of the brightness, evened by division, so that stains and shadows leave; the
    darkest ink of the line becomes 255.
    """
    width = int(np.clip(round(gray.shape[1] * height / gray.shape[0]), NARROWEST, WIDEST))
    shrink = gray.shape[0] > height
    line = cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    small = cv2.resize(line, (max(width // 8, 1), height // 8), interpolation=cv2.INTER_AREA)
    paper = cv2.blur(cv2.dilate(small, np.ones((5, 5), np.uint8)), (9, 5))
    paper = cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)
    ink = 255 - cv2.divide(line, np.maximum(paper, 1), scale=255)
    darkest = np.percentile(ink[:, :: max(width // 512, 1)], 99)
    # faint copies are raised, an empty line's noise is not raised to ink
    return cv2.convertScaleAbs(ink, alpha=255 / max(float(darkest), 48.0))
