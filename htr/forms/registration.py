"""Registers a scan on the template of its form: which form it is, and where its printed matter lies on the scan.

    forms = Forms(load_templates())       # once a process: the anchors and clues of every template
    registration = forms.register(scan)   # Registration(template, matrix, score), or NoForm

Anchors are pieces of print, outside the fields, that look like nothing around them. A dozen are looked for widely at
50 dpi by normalised correlation; the similarity that most of them agree on lays the scan over the template, where some
fifty are looked for closely at 100 dpi and an affine is fitted to those that agree. The score is their share: near 1
for a form, near 0 for another page. Editions that share their layout are told apart by their marks alone. (ORB features
were tried in place of the first step: handwriting has most of them, and the form is lost on one scan in eight.) Nothing
is drawn at random: a scan gives the same matrix anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np

from htr.forms.keypoints import (
    Box,
    Keypoints,
    Search,
    centred,
    fit_affine,
    fit_similarity,
    pyramid,
    reduced,
    resize_to,
    rotation,
    search_patch,
    translation,
)
from htr.forms.template import Template
from htr.lines.normalise import RejectedInput

MIN_SIDE_PX = 150  # px of a scan: less holds no legible form
LEAST_WIDE, LEAST_CLOSE = 6, 12  # anchors without which a template can't be recognised
MIN_KEYPOINT_SHARE = 0.5  # share of the anchors that must lie in their places
SURE_KEYPOINT_SHARE = 0.8  # the other templates need not be tried
MIN_WIDE_SHARE = 0.35  # share of the wide anchors that must agree for the close ones to be looked for
CLEAR_WIDE_SHARE = 0.6  # share of them for the close ones to be looked for before other forms are laid
MAX_SIDE_RATIO = 4  # sides of a scan to each other
# sizes of the scan for that of the form, and quarters of a turn, in the order in which they are tried
FIRST_POSES = (1.0, 0), (1.0, 2), (0.89, 0), (1.12, 0), (1.0, 1), (1.0, 3)
SECOND_LOOK_SHARE = 0.25  # a second look is worth its time
MIN_DISCRIMINATOR_PX = 12  # px that differ at CLOSE.dpi
MIN_EDITION_LEAD = 0.1  # of the mean correlation of an edition's clues over its like's
MIN_MARK_CORRELATION = 0.37  # correlation of a form's marks, over that of its anchors, for it to be this edition
MARK_TOLERANCE_PX = 1  # px at CLOSE.dpi by which marks and clues may be off


class NoForm(RejectedInput):
    """The scan fits no template, or two alike."""


@dataclass(frozen=True, eq=False)
class Registration:
    template: Template
    matrix: np.ndarray  # (3, 3) float64: pixels of the template to pixels of the scan, centres at whole numbers
    score: float  # share of the template's anchors that lie where the matrix says


WIDE = Search(50, (12, 10), 32, (5, 5), 1, 0.65, 0.25, 3.0)
CLOSE = Search(100, (9, 9), 6, (9, 7), 1, 0.7, 0.3, 1.5)


@dataclass(frozen=True, eq=False)
class Form:
    """What a template needs to be recognised; picture and marks in px at CLOSE.dpi."""

    template: Template
    picture: np.ndarray
    to_close: np.ndarray  # (3, 3): pixels of the template's picture to those of this one
    marks: list[Box]
    wide: Keypoints
    close: Keypoints

    @classmethod
    def prepare(cls, template: Template) -> "Form":
        wide, close = Keypoints.pick(template, WIDE), Keypoints.pick(template, CLOSE)
        if len(wide.points) < LEAST_WIDE or len(close.points) < LEAST_CLOSE:
            raise ValueError(
                f"template {template.name}: too little print outside its fields and marks to register a scan on: "
                f"{len(wide.points)} places at {WIDE.dpi:g} dpi (needs {LEAST_WIDE}), {len(close.points)} at "
                f"{CLOSE.dpi:g} dpi (needs {LEAST_CLOSE})"
            )
        picture = cv2.resize(template.picture, close.shape[::-1], interpolation=cv2.INTER_AREA)
        picture = cv2.GaussianBlur(picture, (0, 0), 0.6)  # as sharp as scans are
        scale = np.tile(np.divide(picture.shape, template.picture.shape)[::-1], 2)
        marks = [tuple(np.rint(np.multiply(mark, scale)).astype(int).tolist()) for mark in template.marks]
        return cls(template, picture, resize_to(template.picture.shape, picture.shape), marks, wide, close)

    def marked(self) -> np.ndarray:
        """uint8 of the picture's shape: 1 within the marks."""
        zone = np.zeros_like(self.picture)
        for x, y, w, h in self.marks:
            zone[y : y + h, x : x + w] = 1
        return zone

    def marks_seen(self, levels: list[np.ndarray], matrix: np.ndarray) -> float:
        """How alike scan and template are in the marks, a correlation: the least but one, as a stamp may hide one."""
        to_scan = matrix @ np.linalg.inv(self.to_close)
        shown = [(mark, patch) for mark in self.marks if (patch := printed(self.picture, mark)) is not None]
        seen = [likeness(search_patch(levels, to_scan, mark, MARK_TOLERANCE_PX), patch) for mark, patch in shown]
        return sorted(seen)[min(1, len(seen) - 1)] if seen else 1.0


@dataclass(frozen=True, eq=False)
class EditionDiscriminator:
    """Where two editions of one layout differ, and how each looks there, in px at CLOSE.dpi of the first."""

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
        """How much more the scan looks like the first than like the other: a mean difference of correlations."""
        if not self.boxes:
            return 0.0
        to_scan = matrix @ np.linalg.inv(self.first.to_close)
        leads = []
        for box, own, other in zip(self.boxes, self.own, self.other, strict=True):
            seen = search_patch(levels, to_scan, box, MARK_TOLERANCE_PX)
            leads.append(likeness(seen, own) - likeness(seen, other))
        return float(np.average(leads, weights=[np.sqrt(w * h) for _, _, w, h in self.boxes]))


@dataclass(frozen=True, eq=False)
class Fit:
    """A form laid over a scan."""

    form: Form
    matrix: np.ndarray  # (3, 3): pixels of the template's picture to pixels of the scan
    score: float  # share of the close anchors that agree
    likeness: float  # the middle correlation of those


class Forms:
    """The templates that a scan may be of, made ready for recognition."""

    def __init__(self, templates: Sequence[Template]):
        if not templates:
            raise ValueError("no template to register on")
        if len({template.name for template in templates}) < len(templates):
            raise ValueError(f"two templates of one name: {', '.join(template.name for template in templates)}")
        self.names = frozenset(template.name for template in templates)
        forms = [Form.prepare(template) for template in templates]
        self.likes: dict[str, list[tuple[Form, EditionDiscriminator]]] = {form.template.name: [] for form in forms}
        for form, other in permutations(forms, 2):
            levels = pyramid(other.template.picture)
            fit = fit_form(form, levels, locate_form(form, *reduced(levels, max(form.wide.shape)), 0)[0])
            if fit.score >= SURE_KEYPOINT_SHARE:
                self.likes[form.template.name].append((other, EditionDiscriminator.between(form, other, fit.matrix)))
        self.layouts: list[Form] = []  # one edition of each
        for form in forms:
            alike = {other.template.name for other, _ in self.likes[form.template.name]}
            if alike.isdisjoint(layout.template.name for layout in self.layouts):
                self.layouts.append(form)

    def register(self, scan: np.ndarray) -> Registration:
        """A scan (H, W) uint8 of any resolution, upright or not. Raises NoForm with the best score."""
        if scan.ndim != 2 or scan.dtype != np.uint8:
            raise ValueError(f"a scan is (H, W) uint8, not {scan.shape} {scan.dtype}")
        least, most = sorted(scan.shape)
        if least < MIN_SIDE_PX or most > MAX_SIDE_RATIO * least:
            raise NoForm(f"fits no form ({scan.shape[1]} x {scan.shape[0]} pixels)")
        levels, best = pyramid(scan), None
        for zoom, quarters in FIRST_POSES:
            for form, coarse in self.candidates(levels, zoom, quarters):
                fit = fit_form(form, levels, coarse)
                best = fit if best is None or fit.score > best.score else best
                if best.score >= SURE_KEYPOINT_SHARE:
                    break
            if best is not None and best.score >= MIN_KEYPOINT_SHARE:
                return self.edition(levels, best)
        shown = f"best {best.score:.2f}, {best.form.template.name}" if best else "best 0.00"
        raise NoForm(f"fits no form ({shown})")

    def candidates(self, levels: list[np.ndarray], zoom: float, quarters: int) -> Iterator[tuple[Form, np.ndarray]]:
        """Layouts with their coarse matrix: one that most of its wide anchors agree on before the rest is looked at,
        then those first whose anchors agree most; not those that hardly do."""
        small, found = {}, []
        for form in self.layouts:
            side = max(form.wide.shape)
            if side not in small:
                small[side] = reduced(levels, zoom * side)
            matrix, share = locate_form(form, *small[side], quarters)
            if share >= CLEAR_WIDE_SHARE:
                yield form, matrix
            elif share >= MIN_WIDE_SHARE:
                found.append((form, matrix, share))
        for form, matrix, _ in sorted(found, key=lambda entry: -entry[2]):
            yield form, matrix

    def edition(self, levels: list[np.ndarray], first: Fit) -> Registration:
        """Which of the editions of this layout the scan is of: the one whose marks it shows. Raises NoForm."""
        fit, rivals = first, self.likes[first.form.template.name]
        leads = [clues.lead(levels, first.matrix) for _, clues in rivals]
        if leads and min(leads) <= -MIN_EDITION_LEAD:  # it is another one, which lies where the first one was found
            other, clues = rivals[int(np.argmin(leads))]
            fit = Fit(other, first.matrix @ np.linalg.inv(clues.matrix), first.score, first.likeness)
            rivals = [(rival, clues) for rival, clues in self.likes[other.template.name] if rival is not first.form]
            leads = [clues.lead(levels, fit.matrix) for _, clues in rivals]
        name = fit.form.template.name
        if leads and min(leads) < MIN_EDITION_LEAD:
            raise NoForm(f"two editions fit alike ({name}, {rivals[int(np.argmin(leads))][0].template.name})")
        marks = fit.form.marks_seen(levels, fit.matrix) / max(fit.likeness, 0.1)
        if marks < MIN_MARK_CORRELATION:
            raise NoForm(f"fits no edition of its form (marks {marks:.2f}, score {fit.score:.2f}, {name})")
        # what differs from one kind of processor to the next is rounded off: 0.002 px at most
        return Registration(fit.form.template, np.round(fit.matrix, 6), fit.score)


def locate_form(form: Form, small: np.ndarray, to_scan: np.ndarray, quarters: int) -> tuple[np.ndarray, float]:
    """The similarity (3, 3), picture to scan, that most of the wide anchors agree on, and their share."""
    room = WIDE.reach
    framed, to_turned = centred(np.rot90(small, quarters), tuple(side + 2 * room for side in form.wide.shape))
    found, correlation = form.wide.locate(framed)
    usable = correlation >= WIDE.found
    matrix, near = fit_similarity(form.wide.points[usable], found[usable], WIDE.near)
    to_small = rotation(quarters, small.shape) @ to_turned @ translation(room, room)
    picture = resize_to(form.template.picture.shape, form.wide.shape)
    return to_scan @ to_small @ matrix @ picture, near.sum() / len(usable)


def fit_form(form: Form, levels: list[np.ndarray], coarse: np.ndarray) -> Fit:
    """The form laid over the scan by its close anchors, with a second look where the first one left doubts."""
    fit = refine(form, levels, coarse)
    return refine(form, levels, fit.matrix) if SECOND_LOOK_SHARE <= fit.score < SURE_KEYPOINT_SHARE else fit


def refine(form: Form, levels: list[np.ndarray], matrix: np.ndarray) -> Fit:
    """A coarse matrix, picture to scan -> the one fitted to the close anchors."""
    to_scan = matrix @ np.linalg.inv(form.to_close)
    found, correlation = form.close.locate(search_patch(levels, to_scan, (0, 0, *form.close.shape[::-1]), CLOSE.reach))
    fit, near = fit_affine(form.close.points, found, correlation >= CLOSE.found, CLOSE.near)
    middle = float(np.median(correlation[near])) if near.any() else 0.0
    return Fit(form, to_scan @ fit @ form.to_close, float(near.sum() / len(near)), middle)


def printed(picture: np.ndarray, box: Box) -> np.ndarray | None:
    """What the picture shows there; None: bare paper."""
    x, y, w, h = box
    patch = picture[y : y + h, x : x + w].copy()
    return patch if patch.size and patch.std() > 8 else None


def likeness(seen: np.ndarray, patch: np.ndarray | None) -> float:
    """The best correlation of the patch with a place on what is seen, at least 0; 0 for bare paper."""
    return 0.0 if patch is None else max(cv2.minMaxLoc(cv2.matchTemplate(seen, patch, cv2.TM_CCOEFF_NORMED))[1], 0.0)
