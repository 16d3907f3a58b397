"""From a scan to the text of its fields: in the form's order, the lines as training saw them, blank fields empty."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.image_files import decode
from htr.lines.normalise import RejectedInput
from htr.reader import Prediction
from htr.scan import CutField, alternatives, read_scan
from htr.synth.scanner import stamp
from htr.synth.simulate import Certificate, certificate, chosen_hands
from shards.plan import Settings
from shards.samples import make_samples

FORM = {template.name: template for template in load_templates()}


class Named:
    """A reader that reads in each line the number it has among all; or the texts it is given."""

    def __init__(self, texts: list[str] | None = None, confidence: float = 0.9):
        self.texts, self.confidence, self.images, self.fields = texts, confidence, [], []

    def read(self, images, fields=None) -> list[Prediction]:
        self.images, self.fields = list(images), list(fields)
        texts = self.texts or [str(number) for number in range(len(images))]
        return [
            Prediction(texts[number % len(texts)], self.confidence - number / 1000) for number in range(len(images))
        ]


@pytest.fixture(scope="module")
def forms() -> Forms:
    return Forms(load_templates())


@pytest.fixture(scope="module")
def made() -> list[Certificate]:
    """Certificates of both forms, scanned lightly."""
    hands = chosen_hands(None, "all")
    names = ("adult-2018", "neonatal-2018", "adult-2018")
    return [certificate(n, seed=3, hands=hands, form=name, severity="light") for n, name in enumerate(names)]


def test_fields_come_in_the_forms_order_with_their_lines_joined(forms, made):
    for one in made:
        reader = Named()
        fields = read_scan(one.scan.image, forms, reader)
        assert [field.field for field in fields] == [field.name for field in FORM[one.page["form"]].fields]
        assert {field.template for field in fields} == {one.page["form"]}
        truth = {row["field"]: row["text"] for row in one.typed}
        count = {name: sum(line["field"] == name for line in one.lines) for name in truth}
        number = 0
        for field in fields:
            kind = FORM[one.page["form"]].field(field.field).kind
            if kind == "tick":
                assert field.text == truth[field.field] and field.confidence >= 0.5 and not field.lines
                continue
            assert len(field.lines) == count[field.field], field.field
            mine = [str(number + line) for line in range(count[field.field])]
            assert field.text == " ".join(mine) and [line.text for line in field.lines] == mine
            number += len(mine)
            if mine:  # as sure as the least sure line
                assert field.confidence == pytest.approx(0.9 - (number - 1) / 1000)
            else:
                assert field.text == "" and 0.5 <= field.confidence <= 1
        assert len(reader.images) == number == len(one.lines)
        assert reader.fields == [line["field"] for line in one.lines]


def test_boxes_lie_where_was_written(forms, made):
    for one in made:
        fields = {field.field: field for field in read_scan(one.scan.image, forms, Named())}
        for line in one.lines:
            x, y, w, h = map(int, line["box"].split())
            left, top, wide, high = fields[line["field"]].lines[line["line"]].box
            across = min(x + w, left + wide) - max(x, left)
            down = min(y + h, top + high) - max(y, top)
            assert across * down > 0.85 * wide * high
            whole = fields[line["field"]].box
            assert whole[0] <= left and whole[0] + whole[2] >= left + wide


@pytest.mark.parametrize("rulings", ["keep", "remove"])
def test_a_reader_sees_the_lines_that_training_saw(forms, made, tmp_path: Path, rulings):
    one = made[0]
    cv2.imwrite(str(tmp_path / "scan.png"), one.scan.image)
    rows = [
        {"row": number, "image": "scan.png", "page": "", "certificate": "c", "field": row["field"], "text": row["text"]}
        | dict.fromkeys(("line", "box", "polygon", "baseline", "writer", "year", "form", "split", "fault"), "")
        for number, row in enumerate(one.typed)
    ]
    settings = Settings(unit="field", encoding="png", rulings=rulings)
    stored = []
    for _, samples in make_samples(rows, tmp_path, settings, forms):
        assert not isinstance(samples, str)
        stored += [decode(sample.image) for sample in samples if sample.level in ("line", "part")]
    reader = Named()
    read_scan(one.scan.image, forms, reader, rulings=rulings)
    assert len(stored) == len(reader.images) > 2
    assert all(np.array_equal(a, b) for a, b in zip(stored, reader.images, strict=True))


def test_what_is_read_as_nothing_or_hardly_is_blank(forms, made):
    for reader, least in ((Named([""]), 0.0), (Named(["grippe"], 0.3), 0.5)):
        fields = read_scan(made[0].scan.image, forms, reader, least=least)
        written = {line["field"] for line in made[0].lines}
        assert all(field.text == "" and not field.lines for field in fields if field.field in written)
    reader = Named(["", " grippe "])  # a stamp above a line
    for field in read_scan(made[0].scan.image, forms, reader):
        assert field.text in ("", "0", "1") or set(field.text.split()) == {"grippe"}


def test_few_characters_in_a_stamp_are_no_text(forms):
    """Of a stamp on a blank form nothing is believed but what is as dense as writing: it may be under the stamp."""
    sheet = np.ascontiguousarray(255 - (255 - FORM["adult-2018"].picture) // 2)
    x, y, w, h = (round(v) for v in FORM["adult-2018"].field("circumstances").box)
    for seed in range(3):
        scan = sheet.copy()
        stamp(scan, np.random.default_rng(seed), (x + w // 2, y + h // 2))
        for text, kept in (("12", False), ("ce qui se lit sous un tampon de la mairie " * 3, True)):
            reader = Named([text])
            fields = {field.field: field for field in read_scan(scan, forms, reader)}
            assert "circumstances" in reader.fields
            assert (fields["circumstances"].text != "") == kept and fields["circumstances"].confidence < 1


def test_what_is_not_believed_has_no_words():
    reading = Prediction("le 12", 0.4, {"width": 9.0}, [], [], [0.3, 0.6], {"known": [1.0, 0.0]}, [("la 12", 0.2)])
    dense = replace(reading, text="une longue suite de mots")
    field = FORM["adult-2018"].field("circumstances")
    cut = CutField(field, FORM["adult-2018"], [0, 0, 9, 9], boxes=([0, 0, 9, 9],) * 2, stray_aspects=(4.0, 4.0))
    blank, same = cut.believed([reading, dense])
    assert same is dense and (blank.text, blank.confidence, blank.signals) == ("", 0.4, {"width": 9.0})
    assert (blank.word_confidences, blank.word_signals, blank.alternatives) == ([], {"known": []}, [])
    written = replace(cut, stray_aspects=())
    assert written.believed([reading, dense]) == [reading, dense]
    assert [r.text for r in written.believed([reading, dense], least=0.5)] == ["", ""]
    assert cut.as_text([reading, dense]).text == dense.text and cut.as_text([reading, dense]).confidence == 0.4


def test_a_page_that_is_no_certificate_is_refused(forms):
    page = np.full((900, 1300), 230, np.uint8)
    cv2.putText(page, "une autre page", (60, 300), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 60, 3)
    with pytest.raises(RejectedInput, match="fits no form"):
        read_scan(page, forms, Named())


def test_a_blank_form_asks_no_reader_for_a_text(forms):
    blank = 255 - (255 - FORM["adult-2018"].picture) // 2
    reader = Named()
    fields = read_scan(np.ascontiguousarray(blank), forms, reader)
    assert not reader.images
    assert {field.text for field in fields} == {"", "0"} and {field.confidence for field in fields} == {1.0}


def test_a_field_outside_the_scan_has_a_reason(forms, made):
    scan = made[0].scan.image
    lower = cv2.warpAffine(scan, np.float32([[1, 0, 0], [0, 1, 120]]), scan.shape[::-1], borderValue=245)
    fields = read_scan(lower, forms, Named())
    outside = [field for field in fields if field.reason]
    assert [field.field for field in outside] == ["place_road", "place_other"]
    assert {field.reason for field in outside} == {"field lies outside the scan"}
    assert all(field.text == "" and field.confidence == 0 and field.box is None for field in outside)
    assert any(field.lines for field in fields)


def test_rulings_are_kept_or_removed(forms, made):
    with pytest.raises(ValueError, match="rulings 'none': choose one of keep, remove"):
        read_scan(made[0].scan.image, forms, Named(), rulings="none")


def test_alternatives_of_lines_that_follow_each_other():
    def line(text: str, share: float, *others: tuple[str, float]) -> Prediction:
        return Prediction(text, 0.9, {"top_share": share}, alternatives=list(others))

    assert alternatives([]) == alternatives([Prediction("grippe", 0.9)]) == []  # greedily there are none
    one = line("grippe", 0.7, ("gripe", 0.2), ("grippe ", 0.06), ("grappe", 0.0005))
    assert alternatives([one]) == [("gripe", 0.2)]  # not the text itself, and nothing that hardly is
    two = line("choc", 0.5, ("chou", 0.3), ("", 0.2))
    found = alternatives([one, two])
    assert found == [
        ("grippe chou", 0.228),  # of both ways to read grippe
        ("grippe", 0.152),
        ("gripe choc", 0.1),
        ("gripe chou", 0.06),
        ("gripe", 0.04),
    ]
    found = alternatives([line("a", 0.6, ("b", 0.3), ("c", 0.05), ("d", 0.03), ("e", 0.02))] * 4)
    assert len(found) == 5 and found[0] == ("a a a b", 0.0648)  # not all of the 624 that there are
