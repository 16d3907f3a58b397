"""Samples of fields: the scan is registered on its form, the field cut, its lines found."""

import json
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from htr.certificate import clean_text
from htr.forms.field_content import is_stray, line_image, tick_score, with_rulings, written_lines
from htr.forms.fields import DeskewedScan, FieldImage, enlarged, enlarging
from htr.forms.keypoints import corners
from htr.forms.registration import Forms, Registration
from htr.forms.template import Field
from htr.lines import normalise as lines
from htr.lines.normalise import Region, RejectedInput
from htr.lines.segmentation import FoundLine, flatten_background
from shards.sample import NOT_YET, Sample, check, given_reason, pack, typed
from shards.scans import Scans

TICKED, NOT_TICKED = {"1", "x", "oui", "yes", "true"}, {"", "0", "non", "no", "false"}
MAX_FIELD_LINES, USUAL_PITCH = 4, 0.43  # of a field that has a box but no template; inches
OF_CERTIFICATE = ("certificate", "writer", "year", "form", "split")  # what a blank field nobody listed has in common


def from_upright(region: Region, shape: tuple[int, int]) -> np.ndarray:
    """(2, 3) affine matrix from pixels of a line image that was set upright to those of the scan.

    `region`: where the line lies; `shape`: (H, W) of the line image.
    """
    height, width = shape
    left, top = max(region.x, 0), max(region.y, 0)
    return np.array(
        {
            0: [[1.0, 0, left], [0, 1, top]],
            90: [[0.0, 1, left], [-1, 0, top + width - 1]],
            180: [[-1.0, 0, left + width - 1], [0, -1, top + height - 1]],
            270: [[0.0, -1, left + height - 1], [1, 0, top]],
        }[region.turn]
    )


def field_samples(group: list[dict], scans: Scans, settings, forms: Forms) -> Iterator[tuple[dict, list[Sample] | str]]:
    """For each row of one page (row, its samples) or (row, the reason why there is none). After them come samples that
    no row asked for, blank fields and the whole page, with a row whose number is None.

    Rows of a retry say in `page_known` what else is known of their page (see shards.retry): samples that the data set
    has already are not made again.
    """
    page = Page(scans, group[0], settings, forms)
    known = json.loads(group[0].get("page_known") or "{}")
    everything, there = [*group, *known.get("rows", ())], {tuple(name) for name in known.get("there", ())}
    for row in group:
        try:
            yield row, page.samples(row)
        except RejectedInput as reason:
            yield row, str(reason)
    yield {"row": None}, page.unlisted(everything, there)
    # a page with a text that is still to be keyed would be taught without it
    waiting = any(given_reason(row) == NOT_YET for row in everything)
    if settings.pages and not waiting and ("page", "all") not in there:
        with suppress(RejectedInput):  # a page that no encoder takes; its fields are there
            yield {"row": None}, page.whole_page(everything)


class Page:
    """A scan, read and registered when the first of its rows needs it."""

    def __init__(self, scans: Scans, row: dict, settings, forms: Forms):
        self.scans, self.row, self.settings, self.forms = scans, row, settings, forms
        self.registration: Registration | str | None = None
        self.upright: DeskewedScan | None = None

    def register(self) -> Registration:
        """Raises RejectedInput: the scan can't be read, or fits no form."""
        if self.registration is None:
            try:
                scan = self.scans.read(self.row["image"], self.row["page"], self.row.get("page_size") or "")
                self.registration = self.forms.register(scan)
                self.upright = DeskewedScan(scan, self.registration, whole=self.settings.pages)
            except RejectedInput as reason:
                self.registration = str(reason)
        if isinstance(self.registration, str):
            raise RejectedInput(self.registration)
        return self.registration

    def samples(self, row: dict) -> list[Sample]:
        text = check(row, self.settings)
        scan, region = self.scans.cut_from(row | {"baseline": ""})
        if region:
            gray = lines.cut(scan, region)
            height, width = gray.shape
            dpi = self.scans.dpi
            pitch = min(height, USUAL_PITCH * dpi) if dpi else height / 2
            field = Field(row["field"], "text", (0, 0, width, height), MAX_FIELD_LINES, pitch)
            shift = from_upright(region, gray.shape)
            cut = FieldImage(flatten_background(gray), (0, 0, width, height), pitch, shift, scan.shape)
            return self.of_text(row, text, field, cut, {"dpi": dpi})
        registration = self.register()
        template = registration.template
        if row["form"] in self.forms.names and row["form"] != template.name:
            raise RejectedInput(f"the source says form {row['form']}, the scan fits {template.name}")
        field = template.field(row["field"])
        if field is None:
            raise RejectedInput(f"the form {template.name} has no such field")
        known = {"template": template.name, "registration": round(float(registration.score), 4), "dpi": self.scans.dpi}
        cut = self.upright.cut(field)
        if field.kind == "tick":
            return [self.of_tick(row, text, cut, known)]
        return self.of_text(row, text, field, cut, known)

    def of_tick(self, row: dict, text: str, cut: FieldImage, known: dict) -> Sample:
        wanted = text.lower()
        if wanted not in TICKED | NOT_TICKED:
            raise RejectedInput("a tick box is transcribed as 1 or 0")
        text, box = "1" if wanted in TICKED else "0", cut.on_scan(cut.box)
        return pack(row, cut.image, self.settings, level="tick", text=text, box=box, ink=tick_score(cut), **known)

    def of_text(self, row: dict, text: str, field: Field, cut: FieldImage, known: dict) -> list[Sample]:
        found = written_lines(cut, field)
        if not found:
            if text:
                raise RejectedInput("text is given but the field is blank")
            return [self.blank(row, cut, known)]
        if not text:
            if self.settings.stray == "reject" and not is_stray(cut):
                raise RejectedInput("no text but the field is written on")
            return [self.stray(row, cut, line, number, known) for number, line in enumerate(found)]
        cut = with_rulings(cut, self.settings.rulings)
        factor = enlarging(cut.pitch)
        known = known | {"pitch": round(cut.pitch * factor, 1)}
        samples = [] if len(found) == 1 else [self.whole(row, text, cut, found, factor, known)]
        # a line feed for each new line is more than data entry promises; where it is there, it is used
        own = (
            [text]
            if len(found) == 1
            else [clean_text(part) for part in typed(row, self.settings).splitlines() if part.strip()]
        )
        for number, line in enumerate(found):
            level, part = ("line", own[number]) if len(own) == len(found) else ("part", "")
            gray = line_image(cut, line)
            if not lines.can_carry(gray.shape, part):
                raise RejectedInput("text is longer than its image can carry")
            at = cut.on_scan(line.box)
            samples.append(pack(row, gray, self.settings, level=level, text=part, line=str(number), box=at, **known))
        return samples

    def whole(
        self, row: dict, text: str, cut: FieldImage, found: list[FoundLine], factor: float, known: dict
    ) -> Sample:
        """The field with all its lines, their boxes in its own pixels."""
        height, width = cut.image.shape
        # writing that leaves the field stays whole
        boxes = np.array([cut.box, *(line.box for line in found)])
        left, top = np.maximum(boxes[:, :2].min(axis=0), 0).tolist()
        right, bottom = np.minimum((boxes[:, :2] + boxes[:, 2:]).max(axis=0), (width, height)).tolist()
        gray = enlarged(cut.image[top:bottom, left:right], factor)
        inside = np.rint((boxes[1:] - (left, top, 0, 0)) * factor).astype(int).tolist()
        box = cut.on_scan((left, top, right - left, bottom - top))
        return pack(row, gray, self.settings, level="field", text=text, line="all", box=box, lines=inside, **known)

    def blank(self, row: dict, cut: FieldImage, known: dict) -> Sample:
        x, y, w, h = cut.box
        gray, known = cut.image[y : y + h, x : x + w], known | {"pitch": round(cut.pitch, 1)}
        return pack(row, gray, self.settings, level="blank", line="0", box=cut.on_scan(cut.box), **known)

    def stray(self, row: dict, cut: FieldImage, line: FoundLine, number: int, known: dict) -> Sample:
        """A blank sample of what was taken for a line on a field without text, a stamp or a hair: readers must learn to
        read nothing there."""
        at, known = cut.on_scan(line.box), known | {"pitch": round(cut.pitch * enlarging(cut.pitch), 1)}
        return pack(row, line_image(cut, line), self.settings, level="blank", line=str(number), box=at, **known)

    def unlisted(self, group: list[dict], there: set[tuple[str, str]]) -> list[Sample]:
        """Samples of the form's blank fields that the source does not list. Most fields are blank, so readers must know
        them."""
        if not isinstance(self.registration, Registration):
            return []
        listed = {other["field"] for other in group}
        samples = []
        for field in self.registration.template.fields:
            if field.kind == "text" and field.name not in listed and (field.name, "0") not in there:
                named = self.unasked(field.name, "0")
                try:
                    samples += [s for s in self.samples(named) if s.level == "blank"]
                except RejectedInput:
                    continue  # written on, but nobody typed it
        return samples

    def whole_page(self, group: list[dict]) -> list[Sample]:
        """The upright page as a sample; its text is the texts of its fields in the form's order, a line each."""
        if not isinstance(self.registration, Registration):
            return []
        good = [row for row in group if not (row["fault"] or given_reason(row))]
        known = {row["field"]: clean_text(typed(row, self.settings)) for row in good}
        fields = [field for field in self.registration.template.fields if field.kind == "text"]
        texts = [known[field.name] for field in fields if known.get(field.name)]
        boxes = {}
        for field in fields:
            place = corners(field.box) @ self.upright.from_template[:2, :2].T + self.upright.from_template[:2, 2]
            (left, top), (right, bottom) = np.rint(place.min(axis=0)), np.rint(place.max(axis=0))
            boxes[field.name] = [int(v) for v in (left, top, right - left, bottom - top)]
        row = self.unasked("page", "all")
        known = {"template": self.registration.template.name, "dpi": self.scans.dpi, "fields": boxes}
        return [pack(row, self.upright.image, self.settings, level="page", text="\n".join(texts), **known)]

    def unasked(self, field: str, line: str) -> dict:
        """A row for a sample that the source does not name."""
        same = {name: self.row[name] for name in (*OF_CERTIFICATE, "image", "page")}
        return dict.fromkeys(self.row, "") | same | {"row": None, "field": field, "line": line}
