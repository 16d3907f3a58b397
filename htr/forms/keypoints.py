"""Keypoints: distinctive patches of a form's print, found on a scan by normalised cross-correlation.

Also the geometry of registration: image pyramids, matrices of resized and rotated images, and robust fits of
transforms. Matrices are (3, 3) for points (x, y), with the centres of pixels at whole numbers.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from htr.forms.template import Template

Box = tuple[int, int, int, int]  # x, y, w, h
MIN_SIDE_PX = 150  # shorter side of a pyramid's last level
PROJECTIVE = 1e-12  # a matrix whose last row is smaller than this counts as affine


@dataclass(frozen=True)
class Search:
    """How keypoints are picked and searched for. Lengths are px at `dpi`."""

    dpi: float
    half: tuple[int, int]  # columns and rows of a patch to each side of its centre
    reach: int  # largest distance from its place, across and down, that is searched
    grid: tuple[int, int]  # columns and rows of cells, each of which gives keypoints
    most: int  # keypoints of a cell
    distinct: float  # largest correlation that any other place within reach may have
    found: float  # least correlation of a keypoint that counts
    near: float  # largest distance from its fitted place of a keypoint that agrees


WIDE = Search(50, (12, 10), 32, (5, 5), 1, 0.65, 0.25, 3.0)
CLOSE = Search(100, (9, 9), 6, (9, 7), 1, 0.7, 0.3, 1.5)


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of a template, at the resolution of their search."""

    search: Search
    shape: tuple[int, int]  # rows, columns of the template's picture at this resolution
    points: np.ndarray  # (n, 2) float64, centres of the patches
    patches: list[np.ndarray]  # (2 * half rows + 1, 2 * half columns + 1) uint8

    @classmethod
    def pick(cls, template: Template, search: Search) -> "Keypoints":
        """The most distinctive corners of print outside fields and marks, where people write and editions differ."""
        scale = search.dpi / template.dpi
        shape = tuple(max(round(side * scale), 1) for side in template.picture.shape)
        picture = cv2.resize(template.picture, shape[::-1], interpolation=cv2.INTER_AREA)
        (wide, high), reach = search.half, search.reach
        if min(shape) < 4 * max(wide, high):
            return cls(search, shape, np.zeros((0, 2)), [])
        strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(picture, (0, 0), 0.8), 2 * high)
        inner = np.zeros_like(strength)
        inner[high:-high, wide:-wide] = (strength * outside(template, shape, high))[high:-high, wide:-wide]
        least = 0.02 * inner.max()
        framed = cv2.copyMakeBorder(picture, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=255)
        points, patches = [], []
        for rows in np.array_split(np.arange(shape[0]), search.grid[1]):
            for columns in np.array_split(np.arange(shape[1]), search.grid[0]):
                cell, taken = inner[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 0
                for _ in range(12 * search.most):
                    _, value, _, (x, y) = cv2.minMaxLoc(cell)
                    if value <= least or taken == search.most:
                        break
                    x, y = x + columns[0], y + rows[0]
                    patch = picture[y - high : y + high + 1, x - wide : x + wide + 1].copy()
                    around = framed[y - high : y + high + 2 * reach + 1, x - wide : x + wide + 2 * reach + 1]
                    likeness = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
                    cv2.circle(likeness, (reach, reach), 3, -1, -1)
                    alone = likeness.max() < search.distinct
                    if alone:
                        points.append((x, y))
                        patches.append(patch)
                        taken += 1
                    apart = 2 * high if alone else high // 2  # from the next one
                    cv2.circle(inner, (int(x), int(y)), apart, 0, -1)
        return cls(search, shape, np.array(points, np.float64).reshape(-1, 2), patches)

    def locate(self, framed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the keypoints on an image that covers the picture with a border of `reach` px.

        -> (n, 2) places in pixels of the picture, with subpixel accuracy; (n,) correlations.
        """
        (wide, high), reach = self.search.half, self.search.reach
        side, best = 2 * reach + 1, []
        for patch, (x, y) in zip(self.patches, self.points.astype(int).tolist(), strict=True):
            around = framed[y - high : y + high + side, x - wide : x + wide + side]
            response = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
            _, top, _, (column, row) = cv2.minMaxLoc(response)
            cross = [top] * 4
            if 0 < column < side - 1 and 0 < row < side - 1:
                cross = response[[row, row, row - 1, row + 1], [column - 1, column + 1, column, column]]
            best.append((top, column, row, *cross))
        likeness, column, row, left, right, above, below = np.array(best, np.float64).reshape(-1, 7).T
        across = column - reach + top_beside(left, likeness, right)
        down = row - reach + top_beside(above, likeness, below)
        return self.points + np.column_stack([across, down]), likeness


def top_beside(before: np.ndarray, most: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The offset, in px, from a maximum to the vertex of the parabola through it and its two neighbours."""
    return 0.5 * (before - after) / np.minimum(before - 2 * most + after, -1e-6)


def outside(template: Template, shape: tuple[int, int], margin: int) -> np.ndarray:
    """Bool of this shape (rows, columns): outside text fields, and `margin` px away from tick boxes and marks."""
    height, width = template.picture.shape
    mask = np.full(shape, 255, np.uint8)
    texts = [field.box for field in template.fields if field.kind == "text"]
    others = [field.box for field in template.fields if field.kind != "text"] + list(template.marks)
    for box, room in [(box, 0) for box in texts] + [(box, margin) for box in others]:
        x, y = (int(v) for v in np.array(box[:2]) * (shape[1] / width, shape[0] / height) - room)
        w, h = (int(v) for v in np.array(box[2:]) * (shape[1] / width, shape[0] / height) + 2 * room)
        cv2.rectangle(mask, (x, y), (x + w, y + h), 0, -1)
    return mask > 0


def fit_similarity(ours: np.ndarray, theirs: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """The similarity (3, 3) that most pairs of points agree on, and (n,) bool: which do.

    `ours`, `theirs` (n, 2). Every similarity through two pairs is tried; scale and rotation are limited to 0.15 (15 %,
    0.15 radians). `near`: px that a pair may be off.
    """
    if len(ours) < 2:
        return np.eye(3), np.zeros(len(ours), bool)
    a, b = ours @ (1, 1j), theirs @ (1, 1j)  # a similarity is b = s a + t in complex numbers
    first, second = np.triu_indices(len(a), 1)
    s = (b[second] - b[first]) / (a[second] - a[first])
    good = (abs(abs(s) - 1) < 0.15) & (abs(np.angle(s)) < 0.15)
    if not good.any():
        return np.eye(3), np.zeros(len(ours), bool)
    s = s[good]
    t = b[first[good]] - s * a[first[good]]
    agree = abs(s[:, None] * a + t[:, None] - b) < near
    agree = agree[agree.sum(axis=1).argmax()]
    s, t = np.linalg.lstsq(np.column_stack([a[agree], np.ones(agree.sum())]), b[agree], rcond=None)[0]
    return np.array([[s.real, -s.imag, t.real], [s.imag, s.real, t.imag], [0, 0, 1]]), agree


def fit_affine(ours: np.ndarray, theirs: np.ndarray, usable: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """The affine (3, 3) through the usable pairs that agree, by least squares, and (n,) bool: which do.

    `ours`, `theirs` (n, 2); `usable` (n,) bool; `near`: px that a pair may be off. The identity where fewer than 6
    agree.
    """
    none, full, fit = np.zeros(len(ours), bool), np.column_stack([ours, np.ones(len(ours))]), np.eye(3)
    if not usable.any():
        return fit, none
    fit[:2, 2] = np.median((theirs - ours)[usable], axis=0)  # a robust first translation
    for limit in (4 * near, 2 * near, near, near):
        agree = usable & (np.linalg.norm(apply(fit, ours) - theirs, axis=1) < limit)
        if agree.sum() < 6:
            return np.eye(3), none
        fit[:2] = np.linalg.lstsq(full[agree], theirs[agree], rcond=None)[0].T
    return fit, usable & (np.linalg.norm(apply(fit, ours) - theirs, axis=1) < near)


def search_patch(levels: list[np.ndarray], matrix: np.ndarray, box: Box, room: int) -> np.ndarray:
    """A box of the template with `room` px around it, resampled from the scan to pixels of the template.

    `levels`: the scan's pyramid; `matrix` (3, 3): template to scan.
    """
    x, y, w, h = box
    image, to_image = level_for(levels, matrix)
    way, flags = to_image @ translation(x - room, y - room), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, way[:2], (w + 2 * room, h + 2 * room), flags=flags, borderValue=255)


def level_for(levels: list[np.ndarray], matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level of the pyramid whose resolution is nearest to that of the matrix's pixels, and the matrix to it.

    `matrix` (3, 3): some pixels, as those of a template, to those of the scan.
    """
    size = max(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))), 1e-6)
    level = int(np.clip(np.log2(size) + 0.2, 0, len(levels) - 1))
    return levels[level], scale_matrix(0.5**level, 0.5**level) @ matrix


def pyramid(scan: np.ndarray) -> list[np.ndarray]:
    """The scan at 1, 1/2, 1/4 … of its size, while its shorter side has MIN_SIDE_PX or more.

    An odd last row or column is left out.
    """
    levels = [scan]
    while min(levels[-1].shape) >= 2 * MIN_SIDE_PX:
        height, width = levels[-1].shape
        even = levels[-1][: height // 2 * 2, : width // 2 * 2]  # exact halves are ten times as fast as near ones
        levels.append(cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels


def reduced(levels: list[np.ndarray], side: float) -> tuple[np.ndarray, np.ndarray]:
    """The scan with a longer side of about `side` px, and the matrix (3, 3) from its pixels to those of the scan."""
    level = 0
    while level + 1 < len(levels) and max(levels[level + 1].shape) >= 0.98 * side:
        level += 1
    source, to_scan = levels[level], scale_matrix(2.0**level, 2.0**level)
    scale = side / max(source.shape)
    if abs(scale - 1) < 0.02:  # near enough
        return source, to_scan
    image = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return image, to_scan @ resize_to(image.shape, source.shape)


def centred(image: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The image padded with white or cropped, alike on all sides, to this shape; the matrix (3, 3) to the image."""
    before = np.subtract(shape, image.shape) // 2
    after = np.subtract(shape, image.shape) - before
    (top, left), (bottom, right) = np.maximum(-before, 0), image.shape - np.maximum(-after, 0)
    (above, beside), (below, beyond) = np.maximum(before, 0).tolist(), np.maximum(after, 0).tolist()
    kept = image[top:bottom, left:right]
    placed = cv2.copyMakeBorder(kept, above, below, beside, beyond, cv2.BORDER_CONSTANT, value=255)
    return placed, translation(-before[1], -before[0])


def resize_to(source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """(3, 3) from the pixels of an image of one shape (rows, columns) to those of the image resized to another."""
    return scale_matrix(target[1] / source[1], target[0] / source[0])


def scale_matrix(x: float, y: float) -> np.ndarray:
    """(3, 3) of an image resized by these factors; the edges of pixels stay together, not their centres."""
    return np.array([[x, 0, 0.5 * x - 0.5], [0, y, 0.5 * y - 0.5], [0, 0, 1.0]])


def translation(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def rotation(quarters: int, shape: tuple[int, int]) -> np.ndarray:
    """(3, 3) from the pixels of np.rot90(image, quarters) to those of the image, which has this shape."""
    height, width = shape
    ways = [
        [[1, 0, 0], [0, 1, 0]],
        [[0, -1, width - 1], [1, 0, 0]],
        [[-1, 0, width - 1], [0, -1, height - 1]],
        [[0, 1, 0], [-1, 0, height - 1]],
    ]
    return np.array([*ways[quarters], [0, 0, 1.0]])


def corners(box: tuple[float, float, float, float]) -> np.ndarray:
    """(4, 2) float64 corners of a box x, y, w, h, clockwise from the upper left one."""
    x, y, w, h = box
    return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float64)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (…, 2) transformed by an affine (2, 3) or (3, 3), or by a projective matrix (3, 3)."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    if len(matrix) == 3 and abs(matrix[2, :2]).max() > PROJECTIVE:
        moved /= (points @ matrix[2, :2] + matrix[2, 2])[..., None]
    return moved
