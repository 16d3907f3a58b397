"""Feature matching: SIFT features of a form's print, found on a scan of any size, rotation and tilt; a homography.

It is slower than keypoints and less sensitive to small differences, so it only proposes where a form may lie. SIFT and
ratio test of Lowe (IJCV 60, 2004), the robust fit MAGSAC++ (Barath et al., CVPR 2020), as in OpenCV with its fixed
seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from htr.forms.keypoints import CLOSE, apply, corners, outside, pyramid, reduced, resize_to
from htr.forms.template import Template

SCAN_SIDE_PX = 1170  # longer side of the reduced scan: A4 at 100 dpi
MAX_FORM_FEATURES, MAX_SCAN_FEATURES = 700, 3000
CONTRAST_LIMIT = 4.0  # of CLAHE
MAX_DISTANCE_RATIO = 0.8  # of the best match to the second best
INLIER_DISTANCE_PX = 4.0  # px of the reduced scan that a match may be off the transform
MIN_INLIERS = 10  # matches that agree, for a form to be fitted there
MAX_SCALE_RATIO = 1.9  # largest ratio of scales at two corners of a form: about 25 degrees of tilt


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of an image, in its pixels."""

    points: np.ndarray  # (n, 2) float64
    descriptors: np.ndarray  # (n, 128) float32

    def where(self, kept: np.ndarray) -> "Features":
        return Features(self.points[kept], self.descriptors[kept])


def features(picture: np.ndarray, most: int, mask: np.ndarray | None = None) -> Features:
    """The `most` strongest features (0: all) of an image (H, W) uint8, where the mask is not 0."""
    points, descriptors = cv2.SIFT_create(most, contrastThreshold=0.03).detectAndCompute(picture, mask)
    if descriptors is None:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    return Features(np.array([point.pt for point in points], np.float64), descriptors)


def features_of_template(template: Template) -> Features:
    """The most distinctive features of a template's print outside its fields and marks, in pixels of its picture."""
    scale = CLOSE.dpi / template.dpi
    shape = tuple(max(round(side * scale), 1) for side in template.picture.shape)
    picture = cv2.resize(template.picture, shape[::-1], interpolation=cv2.INTER_AREA)
    found = features(cv2.GaussianBlur(picture, (0, 0), 0.6), 0, 255 * outside(template, shape, 4).astype(np.uint8))
    if len(found.points) > 2:
        near = cv2.BFMatcher().knnMatch(found.descriptors, found.descriptors, 3)
        # distance to the nearest feature at another place: several, of different directions, lie at one place
        apart = [
            next((m.distance for m in row[1:] if np.linalg.norm(found.points[m.trainIdx] - found.points[i]) > 3), 1e9)
            for i, row in enumerate(near)
        ]
        found = found.where(np.sort(np.argsort(apart, kind="stable")[::-1][:MAX_FORM_FEATURES]))
    return Features(apply(resize_to(picture.shape, template.picture.shape), found.points), found.descriptors)


def features_of_scan(
    scan: np.ndarray, without: Sequence[np.ndarray] = (), even: bool = False, side: float = SCAN_SIDE_PX
) -> tuple[Features, float]:
    """-> features in pixels of the scan, and px of the scan to one of the reduced scan on which they were found.

    `without`: outlines (4, 2) on the scan that are left out. `even`: contrast is equalised first (CLAHE), for print
    that is fainter than the writing on it. `side`: px of the longer side of the reduced scan.
    """
    levels = pyramid(scan)
    image, to_scan = reduced(levels, min(side, max(scan.shape)))
    mask = np.full(image.shape, 255, np.uint8) if without else None
    for outline in without:
        cv2.fillConvexPoly(mask, np.rint(apply(np.linalg.inv(to_scan), outline)).astype(np.int32), 0)
    if even:
        image = cv2.createCLAHE(CONTRAST_LIMIT, (8, 8)).apply(image)
    found = features(image, MAX_SCAN_FEATURES, mask)
    return Features(apply(to_scan, found.points), found.descriptors), float(to_scan[0, 0])


def matches(ours: Features, theirs: Features) -> tuple[np.ndarray, np.ndarray]:
    """Features of template and scan -> (n, 2) places on the template and (n, 2) on the scan that match (ratio test)."""
    if min(len(ours.points), len(theirs.points)) < MIN_INLIERS:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pairs = cv2.BFMatcher().knnMatch(ours.descriptors, theirs.descriptors, 2)
    good = [a for a, b in pairs if a.distance < MAX_DISTANCE_RATIO * b.distance]
    return ours.points[[m.queryIdx for m in good]], theirs.points[[m.trainIdx for m in good]]


def homography(source: np.ndarray, target: np.ndarray, near: float) -> tuple[np.ndarray | None, int]:
    """Matches (n, 2) -> the homography (3, 3) from template to scan, None where too few agree; how many agree.

    `near`: px of the scan that a match may be off.
    """
    if len(source) < MIN_INLIERS:
        return None, len(source)
    matrix, agree = cv2.findHomography(source, target, cv2.USAC_MAGSAC, near, maxIters=5000, confidence=0.9999)
    return agreeing(matrix, target, agree, near)


def similarity(source: np.ndarray, target: np.ndarray, near: float) -> tuple[np.ndarray | None, int]:
    """As `homography`, for paper that lies flat: a rotation, a scale and a translation alone."""
    if len(source) < MIN_INLIERS:
        return None, len(source)
    matrix, agree = cv2.estimateAffinePartial2D(source, target, None, cv2.RANSAC, near, 5000, 0.9999)
    return agreeing(None if matrix is None else np.vstack([matrix, [0, 0, 1]]), target, agree, near)


def agreeing(
    matrix: np.ndarray | None, target: np.ndarray, agree: np.ndarray, near: float
) -> tuple[np.ndarray | None, int]:
    """The matrix if enough matches agree on it, else None; and how many agree. `agree` (n, 1): OpenCV's inliers."""
    count = 0 if matrix is None else places_of(target, agree, near)
    return (matrix if count >= MIN_INLIERS else None), count


def places_of(target: np.ndarray, agree: np.ndarray, near: float) -> int:
    """The number of places of the matches (n, 2) that agree, (n, 1): those within about `near` px count once.

    Otherwise repeated print would agree with itself.
    """
    return len({tuple(place) for place in np.rint(target[agree[:, 0] > 0] / near).astype(int).tolist()})


def steepness(matrix: np.ndarray, shape: tuple[int, int]) -> float:
    """The largest ratio of scales at two corners of a form (rows, columns); inf where the transform folds it."""
    height, width = shape
    depth = corners((0, 0, width, height)) @ matrix[2, :2] + matrix[2, 2]
    if depth.min() <= 0:
        return float("inf")
    areas = np.linalg.det(matrix) / depth**3  # of the Jacobian at each corner
    return float(np.sqrt(areas.max() / areas.min())) if areas.min() > 0 else float("inf")
