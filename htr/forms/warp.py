"""Geometric transforms of forms that do not lie flat: perspective of photographs, curl of paper.

warp.places(points)            # (n, 2) px of the template -> px of the scan
flat, matrix = flatten(scan, warp, shape, scale)   # as from a flatbed; the affine from the template to `flat`
"""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from htr.forms.keypoints import apply, scale_matrix

GRID_STEP_PX = 16  # px of a flat image between the points that are computed; those between are interpolated


@dataclass(frozen=True, eq=False)
class Warp:
    """Template to scan, in three steps: `frame` (to the frame of the form that was fitted), `bend` (a cubic
    displacement within that frame), `matrix` (to the scan).
    """

    matrix: np.ndarray  # (3, 3) float64, projective: px of the frame to px of the scan
    size: tuple[int, int]  # width, height of the frame: they scale the polynomial
    bend: np.ndarray | None = None  # (10, 2): coefficients of `cubic`, px of the frame; None: the paper is flat
    frame: np.ndarray | None = None  # (3, 3): px of the template to px of the frame; None: they are the same

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the template -> (n, 2) on the scan."""
        points = points if self.frame is None else apply(self.frame, points)
        if self.bend is not None:
            points = points + cubic(points, self.size) @ self.bend
        return apply(self.matrix, points)

    def linear(self, point: np.ndarray) -> np.ndarray:
        """The affine (2, 3) that approximates the warp around a point (2,) of the template."""
        around = point + np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float64)
        at, right, below, left, above = self.places(around)
        slopes = np.column_stack([(right - left) / 2, (below - above) / 2])
        return np.column_stack([slopes, at - slopes @ point])

    def scale(self, sheet: tuple[int, int]) -> float:
        """px of the scan to one of the template, in the middle of the template's sheet (rows, columns)."""
        middle = self.linear(np.array(sheet[::-1]) / 2)
        return float(np.sqrt(abs(np.linalg.det(middle[:, :2]))))


def cubic(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, 2) points -> (n, 10) monomials up to degree 3 of their coordinates, scaled to -1 … 1 in the frame."""
    x, y = (2 * points / np.subtract(size, 1) - 1).T
    return np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3])


def flatten(
    scan: np.ndarray, warp: Warp, shape: tuple[int, int], scale: float, fill: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The form's sheet, resampled from the scan -> its image; (3, 3) from the template to the image.

    `shape`: (rows, columns) of the template. `scale`: px of the image to one of the template. `fill`: gray level beyond
    the scan; None: that of the scan's edge.
    """
    height, width = (max(round(side * scale), 1) for side in shape)
    to_flat = scale_matrix(width / shape[1], height / shape[0])
    if warp.bend is None:
        way = warp.matrix @ (np.eye(3) if warp.frame is None else warp.frame) @ np.linalg.inv(to_flat)
        draw = partial(cv2.warpPerspective, scan, way, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    else:
        rows, columns = (
            np.arange(0, height + GRID_STEP_PX, GRID_STEP_PX),
            np.arange(0, width + GRID_STEP_PX, GRID_STEP_PX),
        )
        grid = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float64)
        found = warp.places(apply(np.linalg.inv(to_flat), grid)).reshape(len(rows), len(columns), 2)
        wanted = np.meshgrid(
            np.arange(width, dtype=np.float32) / GRID_STEP_PX, np.arange(height, dtype=np.float32) / GRID_STEP_PX
        )
        maps = [cv2.remap(found[..., axis].astype(np.float32), *wanted, cv2.INTER_LINEAR) for axis in (0, 1)]
        draw = partial(cv2.remap, scan, *maps, cv2.INTER_LINEAR)
    border = {"borderMode": cv2.BORDER_REPLICATE} if fill is None else {"borderValue": fill}
    return draw(**border), to_flat
