"""Registration of a scan on the template of its form: which form it is, and the transform from template to scan.

    forms = Forms(load_templates())       # once a process: the keypoints and edition discriminators of every template
    registration = forms.register(scan)   # Registration(template, matrix, score …), or NoForm
    found, lost = forms.register_all(glass)  # all forms on one scan, from the top; why others on it were not told

Keypoints are pieces of print, outside the fields, that look like nothing around them. A dozen are looked for widely at
50 dpi by normalised correlation; the similarity that most of them agree on lays the scan over the template, where some
fifty are looked for closely at 100 dpi and an affine is fitted to those that agree. The score is their share: near 1
for a form, near 0 for another page. Editions that share their layout are told apart by their marks alone. (ORB features
were tried in place of the first step: handwriting has most of them, and the form is lost on one scan in eight.) Where
that fails, and there only, the further ways of fallback.py are tried. Nothing is drawn at random: a scan gives the same
matrix anywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import cv2
import numpy as np

from htr.forms.edition import EditionDiscriminator, Form
from htr.forms.fallback import MIN_BEND_STATISTIC, Found, fit_bent_paper, is_negative
from htr.forms.fitting import HIGH_SCORE, Fit, fit_coarse, fit_form
from htr.forms.glass import BESIDE, Matcher
from htr.forms.keypoints import apply, pyramid, reduced
from htr.forms.template import Template
from htr.forms.warp import Warp, flatten
from htr.lines.normalise import RejectedInput

MIN_SIDE_PX = 150  # px of a scan: less holds no legible form
MIN_KEYPOINT_SHARE = 0.5  # share of the keypoints that must lie in their places
MIN_WIDE_SHARE = 0.35  # share of the wide keypoints that must agree for the close ones to be looked for
CLEAR_WIDE_SHARE = 0.6  # share of them for the close ones to be looked for before other forms are laid
MAX_SIDE_RATIO = 4  # sides of a scan to each other
# sizes of the scan for that of the form, and quarters of a turn, in the order in which they are tried
FIRST_POSES = (1.0, 0), (1.0, 2), (0.89, 0), (1.12, 0), (1.0, 1), (1.0, 3)
MIN_EDITION_LEAD = 0.1  # of the mean correlation of an edition's boxes over that of a similar one
MIN_MARK_CORRELATION = 0.37  # correlation of a form's marks, over that of its keypoints, for it to be this edition
MIN_BEND_GAIN = 0.03  # score that a bend must add to be believed, where the paper seems to lie flat


class NoForm(RejectedInput):
    """The scan fits no template, or two alike."""


class SeveralForms(NoForm):
    """More than one form lies on the scan; `register_all` has them."""


def are_several(found: list["Registration"], lost: list[str]) -> bool:
    """Whether what `register_all` says is of more than one form: print of no form beside one does not count."""
    return len(found) + sum(reason != BESIDE for reason in lost) > 1


@dataclass(frozen=True, eq=False)
class Registration:
    template: Template
    matrix: np.ndarray  # (3, 3) float64: pixels of the template to pixels of the scan, centres at whole numbers
    score: float  # share of the template's keypoints, of those on the scan, that lie where the matrix says
    warp: Warp | None = None  # of a photograph or bent paper: `matrix` is projective then, and does not know the bend
    negative: bool = False  # the scan's paper is dark and its print light

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the template, in its pixels -> where they lie on the scan."""
        return apply(self.matrix, points) if self.warp is None else self.warp.places(points)

    def flat(self, scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The scan as a flatbed would have given it, dark on light -> it, the affine (3, 3) from the template to it."""
        scan = cv2.bitwise_not(scan) if self.negative else scan
        if self.warp is None:
            return scan, self.matrix
        shape = self.template.picture.shape
        return flatten(scan, self.warp, shape, self.warp.scale(shape))


class Forms:
    """The templates that a scan may be of, made ready for recognition."""

    def __init__(self, templates: Sequence[Template]):
        if not templates:
            raise ValueError("no template to register on")
        if len({template.name for template in templates}) < len(templates):
            raise ValueError(f"two templates of one name: {', '.join(template.name for template in templates)}")
        self.names = frozenset(template.name for template in templates)
        self.forms = forms = [Form.prepare(template) for template in templates]
        self.similar_editions: dict[str, list[tuple[Form, EditionDiscriminator]]] = {
            form.template.name: [] for form in forms
        }
        for form, other in permutations(forms, 2):
            levels = pyramid(other.template.picture)
            fit = fit_form(form, levels, fit_coarse(form, *reduced(levels, max(form.wide.shape)), 0)[0])
            if fit.score >= HIGH_SCORE:
                self.similar_editions[form.template.name].append(
                    (other, EditionDiscriminator.between(form, other, fit.matrix))
                )
        self.layouts: list[Form] = []  # one edition of each
        for form in forms:
            alike = {other.template.name for other, _ in self.similar_editions[form.template.name]}
            if alike.isdisjoint(layout.template.name for layout in self.layouts):
                self.layouts.append(form)
        self.matcher = Matcher(self.layouts)

    def register(self, scan: np.ndarray) -> Registration:
        """A scan (H, W) uint8 of any resolution, upright or not. Raises NoForm with the best score.

        What lies beside a form and is of none, as a note or a patterned table, is no reason to reject it.
        """
        found, lost = self.register_all(scan)
        if are_several(found, lost):
            names = ", ".join(registration.template.name for registration in found)
            raise SeveralForms(f"several forms on one scan ({'; '.join([names, *lost])})")
        return found[0]

    def register_all(self, scan: np.ndarray) -> tuple[list[Registration], list[str]]:
        """As `register`, but of several forms that lie on one scan all, from the top, and why others there are none.

        At least one form is found.
        """
        if scan.ndim != 2 or scan.dtype != np.uint8:
            raise ValueError(f"a scan is (H, W) uint8, not {scan.shape} {scan.dtype}")
        least, most = sorted(scan.shape)
        if least < MIN_SIDE_PX or most > MAX_SIDE_RATIO * least:
            raise NoForm(f"fits no form ({scan.shape[1]} x {scan.shape[0]} pixels)")
        levels = pyramid(scan)
        best = self.first_way(levels)
        if best is not None and best.score >= MIN_KEYPOINT_SHARE:
            return [self.accepted(scan, levels, best)], []
        return self.further_ways(scan, best)

    def first_way(self, levels: list[np.ndarray]) -> Fit | None:
        """The layout that fits best, upright or not, on a scan that the form fills; None: none does at all."""
        best = None
        for zoom, quarters in FIRST_POSES:
            for form, coarse in self.candidates(levels, zoom, quarters):
                fit = fit_form(form, levels, coarse)
                best = fit if best is None or fit.score > best.score else best
                if best.score >= HIGH_SCORE:
                    break
            if best is not None and best.score >= MIN_KEYPOINT_SHARE:
                break
        return best

    def accepted(self, scan: np.ndarray, levels: list[np.ndarray], best: Fit, negative: bool = False) -> Registration:
        """What the first way found; where it is not sure, as on paper that doesn't lie flat, a bend may fit better."""
        curled = best.bend >= MIN_BEND_STATISTIC
        if curled or best.score < HIGH_SCORE:
            bent = fit_bent_paper(best.form, scan, best.matrix)
            if bent is not None and bent.fit.score >= best.score + (0 if curled else MIN_BEND_GAIN):
                return self.laid_flat(bent, negative)
        form, matrix, _ = self.edition(levels, best, flat=not curled)
        # what differs from one kind of processor to the next is rounded off: 0.002 px at most
        return Registration(form.template, np.round(matrix, 6), best.score, negative=negative)

    def further_ways(self, scan: np.ndarray, best: Fit | None) -> tuple[list[Registration], list[str]]:
        """Of a scan that the first way failed on, with the best that it found. Raises NoForm with the reason."""
        negative = is_negative(scan)
        if negative:
            scan = cv2.bitwise_not(scan)
            levels = pyramid(scan)
            best = self.first_way(levels)
            if best is not None and best.score >= MIN_KEYPOINT_SHARE:
                return [self.accepted(scan, levels, best, negative)], []
        found, lost = self.matcher.find(scan)
        if not found:
            shown = f"best {best.score:.2f}, {best.form.template.name}" if best else "best 0.00"
            raise NoForm(f"fits no form ({shown}): {lost[0]}")
        registrations, reasons = [], []
        for one in found:
            try:
                registrations.append(self.laid_flat(one, negative))
            except NoForm as error:
                reasons.append(error)
        if not registrations:
            raise reasons[0]
        return registrations, [str(reason) for reason in reasons] + lost

    def laid_flat(self, found: Found, negative: bool) -> Registration:
        """The edition of a form that was found and flattened, with the simplest way to its places. Raises NoForm."""
        levels = pyramid(found.flat)
        form, _, frame = self.edition(levels, found.fit, flat=found.warp.bend is None)
        warp = found.warp
        if frame is not None:  # pixels of this edition's template to those of the one that was laid
            warp = Warp(warp.matrix, warp.size, warp.bend, frame)
        whole = np.round(warp.matrix @ (np.eye(3) if frame is None else frame), 9)
        if warp.bend is None and abs(whole[2, :2]).max() < 1e-9:
            whole[2] = 0, 0, 1
            return Registration(form.template, np.round(whole, 6), found.fit.score, negative=negative)
        return Registration(form.template, whole, found.fit.score, warp, negative)

    def candidates(self, levels: list[np.ndarray], zoom: float, quarters: int) -> Iterator[tuple[Form, np.ndarray]]:
        """Layouts with their coarse matrix: one that most of its wide keypoints agree on before the rest is looked at,
        then those first whose keypoints agree most; not those that hardly do."""
        small, found = {}, []
        for form in self.layouts:
            side = max(form.wide.shape)
            if side not in small:
                small[side] = reduced(levels, zoom * side)
            matrix, share = fit_coarse(form, *small[side], quarters)
            if share >= CLEAR_WIDE_SHARE:
                yield form, matrix
            elif share >= MIN_WIDE_SHARE:
                found.append((form, matrix, share))
        for form, matrix, _ in sorted(found, key=lambda entry: -entry[2]):
            yield form, matrix

    def edition(
        self, levels: list[np.ndarray], first: Fit, flat: bool = True
    ) -> tuple[Form, np.ndarray, np.ndarray | None]:
        """Which of the editions of this layout the scan is of: the one whose marks it shows. Raises NoForm.

        `flat`: whether the paper lay flat; strokes of marks are compared there alone.
        -> the form, its matrix to the scan, its matrix to the template that was laid first, None for that one.
        """
        form, matrix, frame = first.form, first.matrix, None
        rivals = self.similar_editions[form.template.name]
        leads = [discriminator.lead(levels, matrix) for _, discriminator in rivals]
        if leads and min(leads) <= -MIN_EDITION_LEAD:  # it is another one, which lies where the first one was found
            other, discriminator = rivals[int(np.argmin(leads))]
            frame = np.linalg.inv(discriminator.matrix)
            form, matrix = other, first.matrix @ frame
            rivals = [
                (rival, discriminator)
                for rival, discriminator in self.similar_editions[other.template.name]
                if rival is not first.form
            ]
            leads = [discriminator.lead(levels, matrix) for _, discriminator in rivals]
        name = form.template.name
        if leads and min(leads) < MIN_EDITION_LEAD:
            raise NoForm(f"two editions fit alike ({name}, {rivals[int(np.argmin(leads))][0].template.name})")
        marks, swapped = form.marks_seen(levels, matrix, flat)
        if marks is None:
            # no other edition is known, and all the rest is this form's: nothing speaks against it
            if self.similar_editions[name] or first.score < HIGH_SCORE:
                raise NoForm(f"the marks of its edition are cut off ({name}, score {first.score:.2f})")
        elif marks / max(first.likeness, 0.1) < MIN_MARK_CORRELATION:
            shown = f"marks {marks / max(first.likeness, 0.1):.2f}, score {first.score:.2f}, {name}"
            raise NoForm(f"fits no edition of its form ({shown})")
        if swapped > 0:
            raise NoForm(f"fits no edition of its form (in a mark of {name} it prints something else: {swapped:.2f})")
        return form, matrix, frame
