"""Checks of templates: choice of marks, registration of scans on them, and a verdict with what to do.

choose_marks(templates)      # boxes where editions of one layout differ most, outside their fields
check_scan(forms, scan)      # the score on each form, the error of its corners, or why the scan is rejected
verdict(templates, results)  # "ready", or what to do
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import cv2
import numpy as np

from htr.forms.edition import MIN_DISCRIMINATOR_PX
from htr.forms.fitting import fit_coarse, fit_form
from htr.forms.keypoints import CLOSE, apply, corners, fit_affine, outside, pyramid, reduced, search_patch
from htr.forms.registration import Forms, NoForm, Registration, are_several
from htr.forms.template import Template

COMPARISON_DPI = 200  # at which editions are compared: at CLOSE.dpi the strokes of a digit are only two pixels wide
MIN_DIFFERENCE = 70  # of 255: least difference to every pixel of the other edition within one pixel
MAX_MARKS = 8  # of an edition
MARK_MARGIN_PX = 5  # px at COMPARISON_DPI around a mark
MAX_CORNER_ERROR_PX = 3.0  # px at 200 dpi, of the corners of fields
MAX_REJECTED_SHARE = 0.05  # of the scans, for a form to be ready
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Checked:
    """The result of one scan."""

    form: str  # "" if it was rejected
    scores: dict[str, float]  # share of the keypoints in their places, by form
    spread: float | None = None  # estimated error of the worst corner of a field, px at 200 dpi
    reason: str = ""  # why it was rejected
    how: str = ""  # what is special: on its side, upside down, photographed, not flat, negative, several; or ""


@dataclass(frozen=True)
class Verdict:
    ready: bool
    lines: list[str] = field(default_factory=list)  # what to do, and notes


def choose_marks(templates: Sequence[Template]) -> tuple[dict[str, tuple[Box, ...]], list[tuple[str, str]]]:
    """-> the marks of each template that has similar editions, by name; pairs of editions that can't be told apart."""
    forms = Forms([replace(template, marks=()) for template in templates])
    marks: dict[str, list[tuple[float, Box]]] = {}
    same = []
    for first, second in combinations(templates, 2):
        alike = {other.template.name: discriminator for other, discriminator in forms.similar_editions[first.name]}
        if second.name not in alike:
            continue
        zones = differences(first, second, alike[second.name].matrix)
        if not zones:
            same.append((first.name, second.name))
        to_second = alike[second.name].matrix
        for amount, box in zones:
            marks.setdefault(first.name, []).append((amount, box))
            marks.setdefault(second.name, []).append((amount, moved(box, to_second, second.picture.shape)))
    chosen = {}
    for name, found in marks.items():
        boxes: list[Box] = []
        for _, box in sorted(found, reverse=True):
            if box not in boxes and len(boxes) < MAX_MARKS:
                boxes.append(box)
        chosen[name] = tuple(sorted(boxes, key=lambda box: (box[1], box[0])))
    return chosen, same


def differences(first: Template, second: Template, matrix: np.ndarray) -> list[tuple[float, Box]]:
    """Boxes outside all fields where two similar editions differ, in pixels of the first: (amount, box), largest first.

    `matrix` (3, 3): the first template to the second.
    """
    scale = COMPARISON_DPI / first.dpi
    shape = tuple(max(round(side * scale), 1) for side in first.picture.shape)
    own = cv2.resize(first.picture, shape[::-1], interpolation=cv2.INTER_AREA)
    room = (0, 0, *first.picture.shape[::-1])
    other = search_patch(pyramid(second.picture), matrix, room, 0)
    other = cv2.resize(other, shape[::-1], interpolation=cv2.INTER_AREA)
    free = outside(replace(first, marks=()), shape, 2)
    back = replace(second, marks=()), tuple(max(round(side * scale), 1) for side in second.picture.shape)
    theirs = 255 * outside(*back, 2).astype(np.uint8)
    theirs = search_patch([cv2.resize(theirs, second.picture.shape[::-1])], matrix, room, 0)
    free = free & (cv2.resize(theirs, shape[::-1]) > 128)
    # a pixel differs if no pixel within one px of it is alike: two prints never lie exactly on each other
    near = np.ones((3, 3), np.uint8)
    differs = np.maximum(
        np.maximum(cv2.subtract(own, cv2.dilate(other, near)), cv2.subtract(cv2.erode(other, near), own)),
        np.maximum(cv2.subtract(other, cv2.dilate(own, near)), cv2.subtract(cv2.erode(own, near), other)),
    )
    differs = np.where(free & (differs > MIN_DIFFERENCE), differs, 0).astype(np.uint8)
    joined = cv2.dilate(differs, np.ones((13, 25), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats((joined > 0).astype(np.uint8))
    zones = []
    for number, (x, y, w, h, _) in enumerate(stats[1:].tolist(), 1):
        inside = np.where(labels[y : y + h, x : x + w] == number, differs[y : y + h, x : x + w], 0)
        rows, columns = np.nonzero(inside)
        if (inside > 0).sum() < 2 * MIN_DISCRIMINATOR_PX:
            continue
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) + np.array([x, y, x, y])
        edges = (edges + np.array([-MARK_MARGIN_PX, -MARK_MARGIN_PX, MARK_MARGIN_PX, MARK_MARGIN_PX])) / scale
        left, top = (max(int(v), 0) for v in edges[:2])
        right, bottom = (min(round(v), size) for v, size in zip(edges[2:], first.picture.shape[::-1], strict=True))
        zones.append((float(inside.sum()), (left, top, right - left, bottom - top)))
    return sorted(zones, reverse=True)[:MAX_MARKS]


def moved(box: Box, matrix: np.ndarray, shape: tuple[int, int]) -> Box:
    """The upright box around a box on another template of this shape (rows, columns). `matrix` (3, 3): to that one."""
    places = apply(matrix, corners(box))
    (left, top), (right, bottom) = np.rint(places.min(axis=0)), np.rint(places.max(axis=0))
    left, top = max(int(left), 0), max(int(top), 0)
    return left, top, min(int(right), shape[1]) - left, min(int(bottom), shape[0]) - top


def check_scan(forms: Forms, scan: np.ndarray) -> Checked:
    """Register a scan (H, W) uint8, with its score on every form."""
    scores = {form.template.name: score_on(form, scan) for form in forms.forms}
    try:
        found, lost = forms.register_all(scan)
    except NoForm as error:
        return Checked("", scores, None, str(error))
    first = found[0]
    scores[first.template.name] = max(scores[first.template.name], float(first.score))
    how = ["several" if are_several(found, lost) else "", *special(first)]
    spread = spread_of(forms, first, scan)
    return Checked(first.template.name, scores, spread, "", ", ".join(filter(None, how)))


def score_on(form, scan: np.ndarray) -> float:
    """The share of a form's keypoints in their places on a scan that the form fills, upright or upside down."""
    if min(scan.shape) < 150:
        return 0.0
    levels = pyramid(scan)
    small = reduced(levels, max(form.wide.shape))
    laid = max((fit_coarse(form, *small, quarters) for quarters in (0, 2)), key=lambda way: way[1])
    return float(fit_form(form, levels, laid[0]).score) if laid[1] >= 0.3 else 0.0


def special(registration: Registration) -> list[str]:
    """How the form lies on the scan, in words; "" for what is usual."""
    angle = float(np.degrees(np.arctan2(registration.matrix[1, 0], registration.matrix[0, 0])))
    quarter = round(angle / 90) % 4
    turned = {0: "", 1: "on its side", 2: "upside down", 3: "on its side"}[quarter]
    bent = registration.warp is not None and registration.warp.bend is not None
    photo = registration.warp is not None and not bent
    named = turned, "photographed" if photo else "", "not flat" if bent else ""
    return [*named, "negative" if registration.negative else ""]


def spread_of(forms: Forms, registration: Registration, scan: np.ndarray) -> float | None:
    """The estimated error of the worst corner of a field, px at 200 dpi; None with too few keypoints.

    Two affines are fitted, each to half of the keypoints. Half of their difference is the standard error of the fit to
    all: each of them has twice its variance.
    """
    form = next(form for form in forms.forms if form.template is registration.template)
    flat, matrix = registration.flat(scan)
    to_scan = matrix @ np.linalg.inv(form.to_close)
    found, correlation = form.close.locate(
        search_patch(pyramid(flat), to_scan, (0, 0, *form.close.shape[::-1]), CLOSE.reach)
    )
    near = (correlation >= CLOSE.found) & (np.linalg.norm(found - form.close.points, axis=1) < 2 * CLOSE.near)
    halved = [near & (np.arange(len(near)) % 2 == part) for part in (0, 1)]
    fits = [fit_affine(form.close.points, found, half, 2 * CLOSE.near) for half in halved]
    if min(agree.sum() for _, agree in fits) < 6:
        return None
    places = apply(form.to_close, np.concatenate([corners(field.box) for field in form.template.fields]))
    apart = np.linalg.norm(apply(fits[0][0], places) - apply(fits[1][0], places), axis=1)
    return float(apart.max() / 2 * 200 / CLOSE.dpi)


def verdict(templates: Sequence[Template], results: Sequence[Checked], same: Sequence[tuple[str, str]]) -> Verdict:
    """Whether the templates are ready, or what to do. `same`: pairs of editions that can't be told apart."""
    todo = [f"{a} and {b} can't be told apart: nothing outside their fields differs; leave one out" for a, b in same]
    rejected = [result for result in results if not result.form]
    reasons = Counter(kind_of(result.reason) for result in rejected)
    if len(rejected) > MAX_REJECTED_SHARE * len(results):
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        todo.append(f"{len(rejected)} of {len(results)} scans are rejected ({listed}): see their pictures")
    spreads = np.array([result.spread for result in results if result.spread is not None])
    if len(spreads) and np.percentile(spreads, 95) > MAX_CORNER_ERROR_PX:
        todo.append(f"corners of fields may be {np.percentile(spreads, 95):.1f} px off at 200 dpi on 5 % of the scans: "
                    "a sharper blank form, or one of the same edition, helps")  # fmt: skip
    unused = [template.name for template in templates if template.name not in {result.form for result in results}]
    notes = [f"no scan is of {name}" for name in unused]
    if not results:
        todo.append("no scan was looked at: name some with --scans")
    return Verdict(not todo, (todo or ["ready"]) + notes)


def kind_of(reason: str) -> str:
    """The kind of a reason of rejection, without its figures."""
    rules = {
        "cut off": "cut off", "marks of its edition": "its marks cut off", "too steep": "photographed at an angle",
        "faint": "blank or too faint", "two editions": "two editions fit alike", "no edition": "another edition",
        "not in its places": "another edition, or badly distorted", "another form": "another form",
        "pixels)": "too small or too long",
    }  # fmt: skip
    return next((kind for key, kind in rules.items() if key in reason), "can't be read")
