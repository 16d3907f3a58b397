"""One or several forms anywhere on a scan, found by feature matching; and other print that lies beside them.

    found, lost = Matcher(layouts).find(scan)

A form that was found is masked, and the rest of the scan is searched again until nothing more is found. `lost` has a
reason for each remaining piece of print: a form that could not be fitted, or print of no form.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from htr.forms.edition import Form
from htr.forms.fallback import Found, fit_projection
from htr.forms.feature_matching import (
    INLIER_DISTANCE_PX,
    MAX_SCAN_FEATURES,
    SCAN_SIDE_PX,
    Features,
    features_of_scan,
    features_of_template,
    homography,
    matches,
    similarity,
)
from htr.forms.keypoints import CLOSE

MAX_FORMS_PER_SCAN = 6
MAX_LAYOUTS_TRIED = 3  # layouts that are fitted, those with the most matches first
MIN_FEATURES = 60  # with fewer a scan has hardly any print
MIN_REST_SHARE = 0.3  # least area of the rest of a scan that may hold another form, as a share of the first form's area
MIN_REST_DENSITY = 0.03  # least density of features of a rest that has print, as a share of the first form's density
EXPLAINED_PX = 3  # px of the reduced scan: a feature this near to a found form's print belongs to that form
BLANK = "hardly any print on it: blank, or too faint"
NO_FORM = "another form, or none"
BESIDE = "beside a form: print that is of no form"


class Matcher:
    """The features of all layouts; computed when the first scan needs them."""

    def __init__(self, layouts: Sequence[Form]):
        self.layouts, self.known = layouts, None

    def find(self, scan: np.ndarray) -> tuple[list[Found], list[str]]:
        """A scan (H, W) uint8, dark on light -> the forms on it, from the top; the reasons for other print on it.

        Where no form is found there is one reason.
        """
        if self.known is None:
            self.known = [features_of_template(form.template) for form in self.layouts]
        seen, size = features_of_scan(scan)
        if len(seen.points) < MIN_FEATURES:
            return [], [BLANK]
        found, reason = self.best(scan, seen, size)
        if found is None:
            found, reason = self.best(scan, *features_of_scan(scan, even=True))
        if found is None:
            return [], [reason or NO_FORM]
        forms, inside = [found], inside_outline(seen.points, found.outline).sum()
        while True:
            outlines = [form.outline for form in forms]
            if len(seen.points) >= MAX_SCAN_FEATURES:  # the limit: faint print may have none of the strongest
                seen, size = features_of_scan(scan, outlines)
            left = (~np.any([inside_outline(seen.points, outline) for outline in outlines], axis=0)).sum()
            if not holds_print(scan.shape, outlines, inside, left):
                return from_the_top(forms), []
            if len(forms) == MAX_FORMS_PER_SCAN:
                return from_the_top(forms), [f"beside {len(forms)} forms: more print than is looked through"]
            found, reason = self.another(scan, forms)
            if found is None:
                return from_the_top(forms), [reason or BESIDE]
            forms.append(found)

    def another(self, scan: np.ndarray, forms: Sequence[Found]) -> tuple[Found | None, str]:
        """One more form beside those that were found, or None and the reason; "" where nothing speaks for a form.

        The scan is reduced to the resolution of the first form, as a large glass has room for several. First only the
        rest of the scan is searched. Then also the area of the found forms without their print, since one sheet may lie
        over another.
        """
        outlines, first = [form.outline for form in forms], forms[0]
        side = max(SCAN_SIDE_PX, min(max(scan.shape) * CLOSE.dpi / dpi_of(first), 2 * SCAN_SIDE_PX))
        seen, size = features_of_scan(scan, outlines, even=True, side=side)
        found, reason = self.best(scan, seen, size, outlines)
        if found is not None:
            return found, ""
        seen, size = features_of_scan(scan, even=True, side=side)
        known = {form.template.name: own.points for form, own in zip(self.layouts, self.known, strict=True)}
        print_of_others = [form.warp.places(known[form.fit.form.template.name]) for form in forms]
        near = cv2.BFMatcher().match(np.float32(seen.points), np.float32(np.concatenate(print_of_others)))
        apart = np.array([match.distance for match in near])
        found, why = self.best(scan, seen.where(apart > EXPLAINED_PX * size), size, outlines)
        return found, reason or why

    def best(
        self, scan: np.ndarray, seen: Features, size: float, outlines: Sequence[np.ndarray] = ()
    ) -> tuple[Found | None, str]:
        """The layout that most features agree on and that can be fitted -> it, or None and the reason.

        `size`: px of the scan to one of the reduced scan. `outlines`: of forms that were found before; a form whose
        centre lies in one of them does not count.
        """
        pairs = [matches(own, seen) for own in self.known]
        near = INLIER_DISTANCE_PX * size
        tried = [homography(*pair, near) for pair in pairs]
        why = ""
        for number in sorted(range(len(tried)), key=lambda number: -tried[number][1])[:MAX_LAYOUTS_TRIED]:
            if tried[number][0] is None:
                continue
            # features of another form may distort a homography; a similarity will do for paper flat on a glass
            for matrix, _ in (tried[number], similarity(*pairs[number], near)):
                found, reason = (None, "") if matrix is None else fit_projection(self.layouts[number], scan, matrix)
                if found is not None and not any(inside_outline(found.outline.mean(axis=0)[None], o) for o in outlines):
                    return found, ""
                why = why or reason
        return None, why


def from_the_top(forms: Sequence[Found]) -> list[Found]:
    return sorted(forms, key=lambda form: tuple(form.outline.mean(axis=0)[::-1]))


def dpi_of(found: Found) -> float:
    """The resolution of the scan, from the scale of a form that was found on it."""
    template = found.fit.form.template
    return template.dpi * found.warp.scale(template.picture.shape)


def holds_print(shape: tuple[int, int], outlines: Sequence[np.ndarray], inside: int, left: int) -> bool:
    """Whether the part of a scan outside all outlines (4, 2) is large enough for a form, and has print.

    `inside`: number of features within the first outline; `left`: number outside all of them.
    """
    scale = 500 / max(shape)
    rest = np.ones(tuple(max(round(side * scale), 1) for side in shape), np.uint8)
    for outline in outlines:
        cv2.fillConvexPoly(rest, np.rint(scale * outline).astype(np.int32), 0)
    area, room = scale**2 * cv2.contourArea(np.float32(outlines[0])), int(rest.sum())
    return left >= MIN_FEATURES and room >= MIN_REST_SHARE * area and left * area >= MIN_REST_DENSITY * inside * room


def inside_outline(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """(n,) bool: which of the points (n, 2) lie inside a convex outline (4, 2)."""
    side = np.roll(outline, -1, axis=0) - outline
    away = points[:, None] - outline
    turns = side[:, 0] * away[..., 1] - side[:, 1] * away[..., 0]
    return (turns >= 0).all(axis=1) | (turns <= 0).all(axis=1)
