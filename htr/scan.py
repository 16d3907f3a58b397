"""Reading of a whole scan: registered on its form, fields cut, lines found and read.

forms, reader = Forms(load_templates()), Reader.load("runs/ctc/model")
for field in read_scan(gray, forms, reader):
    print(field.field, field.text, field.confidence, [line.box for line in field.lines])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from itertools import product

import numpy as np

from htr.forms.field_content import is_stray, line_image, tick_score, with_rulings, written_lines
from htr.forms.fields import DeskewedScan, FieldImage
from htr.forms.registration import Forms, Registration
from htr.forms.template import Field, Template
from htr.io.given import Lines
from htr.lines.normalise import RejectedInput
from htr.lines.segmentation import MIN_INK, ink_measure
from htr.reader import Prediction, Reader, join_lines

Box = list[int]  # x, y, w, h in pixels of the scan
Alternatives = list[tuple[str, float]]  # texts with their shares of the n best, the likeliest first
KEPT, LEAST_SHARE = 5, 0.001  # alternatives of a text, and the share that each of them has at least
MAX_LINE_ALTERNATIVES = 4  # readings of a line that alternatives of its field are made of
# of an image's height: width a character of a text that is no stamp's. Writing that looks stray has at most 0.27 (10 of
# 664 fields), of what was read on blank fields nine tenths have 0.39 and more (semi-real certificates of dev's writers)
MAX_STRAY_CHARACTER_WIDTH = 0.33


@dataclass(frozen=True)
class LineText:
    """A line of a field as it was read."""

    text: str
    confidence: float
    box: Box
    alternatives: Alternatives


@dataclass(frozen=True)
class FieldText:
    """A field of the form as it was read."""

    field: str
    text: str  # of its lines, joined by spaces; "" if it is blank; "1" or "0" of a tick box
    confidence: float  # of its least sure line; of a blank field how far its ink is from a written one's
    lines: tuple[LineText, ...]  # those with text, from the top; none of a tick box
    box: Box | None  # of its lines, or the field's own without any; None outside the scan
    template: str  # the form's name
    reason: str = ""  # why it could not be read, "" if it could
    alternatives: Alternatives = dataclass_field(default_factory=list)  # other texts, of a beam search


@dataclass(frozen=True, eq=False)
class CutField:
    """A field of a scan, made ready: images of lines for a reader, or what is known without one."""

    field: Field
    template: Template
    box: Box | None
    images: tuple[np.ndarray, ...] = ()  # gray (h, w) uint8
    boxes: tuple[Box, ...] = ()
    # where its ink looks like stamps, folds, hairs and specks alone: the width of each image over its height
    stray_aspects: tuple[float, ...] = ()
    text: str = ""
    confidence: float = 0.0
    reason: str = ""

    def believed(self, readings: Sequence[Prediction], least: float = 0.0) -> list[Prediction]:
        """Readings of its images -> the same, without text and words where nothing was written: what was read with less
        confidence than `least`; and, where the field's ink looks like a stamp's or stray ink, few characters across a
        wide image. What was written under a stamp is as dense as anything.
        """
        aspects = self.stray_aspects or (0.0,) * len(readings)
        return [
            blank_of(reading)
            if reading.confidence < least or aspect > MAX_STRAY_CHARACTER_WIDTH * len(reading.text.strip())
            else reading
            for reading, aspect in zip(readings, aspects, strict=True)
        ]

    def as_text(self, readings: Sequence[Prediction] = (), least: float = 0.0) -> FieldText:
        """`readings`: of its images; see `believed`."""
        readings = self.believed(readings, least)
        texts = [r.text.strip() for r in readings]
        lines = tuple(
            LineText(text, reading.confidence, box, alternatives([reading]))
            for text, reading, box in zip(texts, readings, self.boxes, strict=True)
            if text
        )
        text = join_lines([line.text for line in lines]) if readings else self.text
        confidence = min((r.confidence for r in readings), default=self.confidence)
        box = around([line.box for line in lines]) if lines else self.box
        others = alternatives([r for r, text in zip(readings, texts, strict=True) if text])
        return FieldText(self.field.name, text, float(confidence), lines, box, self.template.name, self.reason, others)


def cut_scan(gray: np.ndarray, forms: Forms, rulings: str = "keep") -> list[CutField]:
    """The fields of a scan, gray (H, W) uint8, in its form's order. Raises RejectedInput: the scan fits no form.

    `rulings`: "keep" or "remove", as the reader's data set was made.
    """
    return cut_registered(gray, forms.register(gray), rulings)


def cut_forms(gray: np.ndarray, forms: Forms, rulings: str = "keep") -> tuple[list[list[CutField]], list[str]]:
    """As `cut_scan`, of each of the forms that lie on one scan, from the top; and why others that lie there are not
    among them."""
    found, lost = forms.register_all(gray)
    return [cut_registered(gray, registration, rulings) for registration in found], lost


def cut_registered(gray: np.ndarray, registration: Registration, rulings: str) -> list[CutField]:
    upright, template = DeskewedScan(gray, registration), registration.template
    fields = []
    for field in template.fields:
        try:
            cut = upright.cut(field)
        except RejectedInput as reason:
            fields.append(CutField(field, template, None, reason=str(reason)))
            continue
        fields.append(cut_field(field, template, cut, rulings))
    return fields


def cut_field(field: Field, template: Template, cut: FieldImage, rulings: str) -> CutField:
    own = cut.on_scan(cut.box)
    if field.kind == "tick":
        score = tick_score(cut)
        return CutField(field, template, own, text=str(int(score >= 0.5)), confidence=max(score, 1 - score))
    found = written_lines(cut, field)
    if not found:
        return CutField(field, template, own, confidence=blankness(cut, field))
    stray, cut = is_stray(cut), with_rulings(cut, rulings)
    images, boxes = tuple(line_image(cut, line) for line in found), tuple(cut.on_scan(line.box) for line in found)
    aspects = tuple(image.shape[1] / image.shape[0] for image in images) if stray else ()
    return CutField(field, template, own, images, boxes, aspects)


def blank_of(reading: Prediction) -> Prediction:
    """What was read where nothing was written: no text and no words, its confidence and signals as they are."""
    none = None if reading.word_confidences is None else []
    of_words = {name: [] for name in reading.word_signals}
    return replace(
        reading, text="", words=[], characters=[], word_confidences=none, word_signals=of_words, alternatives=[]
    )


def blankness(cut: FieldImage, field: Field) -> float:
    """How sure it is that a field without lines is blank: 1 without any ink, 0.5 with as much as the thinnest dash."""
    if cut.upright is not None and cut.upright.is_bare(field):
        return 1.0
    return 1 - 0.5 * min(ink_measure(cut.image, cut.printed, cut.box, cut.pitch) / MIN_INK, 1.0)


def read_scan(
    gray: np.ndarray, forms: Forms, reader: Reader, *, rulings: str = "keep", least: float = 0.0
) -> list[FieldText]:
    """A scan, gray (H, W) uint8 of any resolution, upright or not -> its fields in the form's order.

    All lines of the scan are read together. `rulings`: "keep" or "remove", as the reader's data set was made. A line
    that is read with less confidence than `least` counts as blank. A field that lies outside the scan has a reason and
    no text. Raises RejectedInput with the reason: the scan fits no form.
    """
    fields = cut_scan(gray, forms, rulings)
    images = [(image, field.field.name) for field in fields for image in field.images]
    readings = iter(reader.read(Lines(image for image, _ in images), fields=[name for _, name in images]))
    return [field.as_text([next(readings) for _ in field.images], least) for field in fields]


def alternatives(readings: Sequence[Prediction]) -> Alternatives:
    """What else lines that follow each other may say together; nothing of a greedy reading.

    A text's share is the product of the shares that its lines have of their n best.
    """
    choices = [
        [(r.text, r.signals.get("top_share", 1.0)), *r.alternatives][
            : MAX_LINE_ALTERNATIVES if len(readings) > 1 else None
        ]
        for r in readings
    ]
    shares: dict[str, float] = {}
    for texts in product(*choices):
        text = " ".join(" ".join(text for text, _ in texts).split())
        shares[text] = shares.get(text, 0.0) + math.prod(share for _, share in texts)
    shares.pop(" ".join(" ".join(r.text for r in readings).split()), None)
    likely = sorted(shares.items(), key=lambda item: -item[1])[:KEPT]
    return [(text, round(share, 4)) for text, share in likely if share >= LEAST_SHARE]


def around(boxes: Sequence[Box]) -> Box:
    left, top = (min(box[side] for box in boxes) for side in (0, 1))
    right, bottom = (max(box[side] + box[side + 2] for box in boxes) for side in (0, 1))
    return [left, top, right - left, bottom - top]
