"""Registration of a scan on the template of its form: which form it is, and the transform from template to scan.

    forms = Forms(load_templates())       # once a process: the keypoints and edition discriminators of every template
    registration = forms.register(scan)   # Registration(template, matrix, score …), or NoForm
    found, lost = forms.register_all(glass)  # all forms on one scan, from the top; reasons for other print on it

Keypoints are patches of print, outside the fields, that differ from all around them. A dozen are searched in a wide
area at 50 dpi by normalised correlation. The similarity that most of them agree on aligns the scan with the template.
Then some fifty are searched in a small area at 100 dpi, and an affine is fitted to those that agree. The score is the
share of these: near 1 for the form, near 0 for another page. Editions with the same layout are told apart by their
marks alone. Only where this fails the methods of fallback.py are tried. (ORB features in place of the first step were
worse: most of them lie on handwriting, and one scan in eight lost its form.) Nothing is random: a scan always gives the
same matrix.
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

MIN_SIDE_PX = 150  # shorter side of a scan: a smaller one holds no legible form
MIN_KEYPOINT_SHARE = 0.5  # share of the keypoints that must lie in their places
MIN_WIDE_SHARE = 0.35  # share of the wide keypoints that must agree for the close ones to be searched
CLEAR_WIDE_SHARE = 0.6  # share from which they are searched before other forms are tried
MAX_SIDE_RATIO = 4  # longer to shorter side of a scan
# (size of the scan to that of the form, quarter turns), in the order in which they are tried
FIRST_POSES = (1.0, 0), (1.0, 2), (0.89, 0), (1.12, 0), (1.0, 1), (1.0, 3)
MIN_EDITION_LEAD = 0.1  # least difference of mean correlations by which an edition beats a similar one
MIN_MARK_CORRELATION = 0.37  # least ratio of the correlation of a form's marks to that of its keypoints
MIN_BEND_GAIN = 0.03  # least gain in score of a bend, where the paper seems to lie flat


class NoForm(RejectedInput):
    """The scan fits no template, or two of them equally well."""


class SeveralForms(NoForm):
    """More than one form lies on the scan; `register_all` returns them."""


def are_several(found: list["Registration"], lost: list[str]) -> bool:
    """Whether the result of `register_all` is of more than one form; print of no form beside one does not count."""
    return len(found) + sum(reason != BESIDE for reason in lost) > 1


@dataclass(frozen=True, eq=False)
class Registration:
    template: Template
    matrix: np.ndarray  # (3, 3) float64: pixels of the template to pixels of the scan, centres at whole numbers
    score: float  # of the template's keypoints that lie on the scan, the share that lies where the matrix says
    warp: Warp | None = None  # of a photograph or curled paper: then `matrix` is projective, without the bend
    negative: bool = False  # the scan's paper is dark and its print light

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) of the template, in its pixels -> where they lie on the scan."""
        return apply(self.matrix, points) if self.warp is None else self.warp.places(points)

    def flat(self, scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-> the scan as from a flatbed, dark on light; the affine (3, 3) from the template to it."""
        scan = cv2.bitwise_not(scan) if self.negative else scan
        if self.warp is None:
            return scan, self.matrix
        shape = self.template.picture.shape
        return flatten(scan, self.warp, shape, self.warp.scale(shape))


class Forms:
    """The templates that scans are registered on, prepared once."""

    def __init__(self, templates: Sequence[Template]):
        """Raises ValueError for no template, two of one name, or one with too little print to register on."""
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
        """Register a scan (H, W) uint8 of any resolution and orientation. Raises NoForm with the reason and the best
        score, and SeveralForms.

        Print beside the form that belongs to no form, as a note or a patterned table, does not matter.
        """
        found, lost = self.register_all(scan)
        if are_several(found, lost):
            names = ", ".join(registration.template.name for registration in found)
            raise SeveralForms(f"several forms on one scan ({'; '.join([names, *lost])})")
        return found[0]

    def register_all(self, scan: np.ndarray) -> tuple[list[Registration], list[str]]:
        """As `register`, for all forms on a scan -> one registration or more, from the top; reasons for other print."""
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
        """The layout that fits best, in any of FIRST_POSES, on a scan that the form fills; None: no candidate."""
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
        """The registration of a fit of `first_way`.

        Where its score is low or the paper is curled, a bend is tried too.
        """
        curled = best.bend >= MIN_BEND_STATISTIC
        if curled or best.score < HIGH_SCORE:
            bent = fit_bent_paper(best.form, scan, best.matrix)
            if bent is not None and bent.fit.score >= best.score + (0 if curled else MIN_BEND_GAIN):
                return self.laid_flat(bent, negative)
        form, matrix, _ = self.edition(levels, best, flat=not curled)
        # rounded: kinds of processors differ in the last digits, by at most 0.002 px
        return Registration(form.template, np.round(matrix, 6), best.score, negative=negative)

    def further_ways(self, scan: np.ndarray, best: Fit | None) -> tuple[list[Registration], list[str]]:
        """Register a scan on which `first_way` failed; `best`: its best fit. Raises NoForm with the reason."""
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
        """The registration of a form that was found and flattened, with its edition. Raises NoForm."""
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
        """Layouts worth a close fit, with their coarse matrix (3, 3), at one pose.

        A layout with a share over CLEAR_WIDE_SHARE comes at once, the others afterwards, the largest share first.
        """
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
        """The edition of this layout whose marks the scan shows. Raises NoForm.

        `flat`: whether the paper lay flat; only then strokes of marks are compared.
        -> the form; (3, 3) from its template to the scan; (3, 3) to the template of `first`, None where it is that one.
        """
        form, matrix, frame = first.form, first.matrix, None
        rivals = self.similar_editions[form.template.name]
        leads = [discriminator.lead(levels, matrix) for _, discriminator in rivals]
        if leads and min(leads) <= -MIN_EDITION_LEAD:  # it is another edition, in the same place
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
            # without another edition, and with a high score, it is this form although its marks are cut off
            if self.similar_editions[name] or first.score < HIGH_SCORE:
                raise NoForm(f"the marks of its edition are cut off ({name}, score {first.score:.2f})")
        elif marks / max(first.likeness, 0.1) < MIN_MARK_CORRELATION:
            shown = f"marks {marks / max(first.likeness, 0.1):.2f}, score {first.score:.2f}, {name}"
            raise NoForm(f"fits no edition of its form ({shown})")
        if swapped > 0:
            raise NoForm(f"fits no edition of its form (in a mark of {name} it prints something else: {swapped:.2f})")
        return form, matrix, frame
