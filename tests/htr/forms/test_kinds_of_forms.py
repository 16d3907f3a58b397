"""Forms as offices have them: what is proposed on them, and that their scans are registered."""

import zlib

import cv2
import numpy as np
import pytest
from more_forms import circles, combs, labels_alone, pale, pdf_form, tinted, two_columns
from other_forms import found, overlap, register

from htr.forms.blank_source import read_blank
from htr.forms.keypoints import corners
from htr.forms.printed_boxes import strengthened
from htr.forms.registration import Forms
from htr.forms.structure import propose_fields
from htr.forms.template import Template
from htr.io.image_files import decode
from htr.synth.scanner import SEVERITIES, scan

DRAWN = [combs, circles, pale, two_columns, labels_alone]
COLOURS = {"blue": (230, 120, 40), "green": (60, 150, 40), "red": (60, 60, 225)}  # BGR


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("dpi", [150, 200, 300])
def test_fields_are_proposed(drawn, dpi):
    picture, boxes = drawn()
    picture = cv2.resize(picture, None, fx=dpi / 200, fy=dpi / 200, interpolation=cv2.INTER_AREA)
    wanted = [tuple(v * dpi / 200 for v in box) for box in boxes.values()]
    hits, false = found(propose_fields(strengthened(picture, dpi), dpi), wanted)
    assert hits >= 0.95 * len(boxes) and false <= 0.1 * len(boxes)


def test_circles_are_tick_boxes_and_letters_are_not():
    fields = propose_fields(circles()[0], 200)
    assert {field.kind for field in fields} == {"tick"} and len(fields) == 48


def test_a_comb_is_one_line_of_text_and_squared_paper_is_none():
    assert {(field.kind, field.lines) for field in propose_fields(combs()[0], 200)} == {("text", 1)}
    sheet = np.full((1654, 1165), 255, np.uint8)
    for place in range(60, 1101, 40):
        cv2.line(sheet, (place, 60), (place, 1100), 60, 2)
        cv2.line(sheet, (60, place), (1100, place), 60, 2)
    assert propose_fields(sheet, 200) == []


def test_boxes_of_a_date_in_three_groups_are_one_field():
    sheet, x = np.full((1165, 1654), 255, np.uint8), 300
    for place, cells in enumerate((2, 2, 4)):
        for _ in range(cells):
            cv2.rectangle(sheet, (x, 500), (x + 46, 550), 60, 2)
            x += 46
        x += 30 * (place < 2)
    [field] = propose_fields(sheet, 200)
    assert field.kind == "text" and overlap(field.box, (302, 502, x - 302, 46)) > 0.8


def test_print_that_is_dark_stays_as_it_is():
    for picture in (register()[0], combs()[0]):
        assert strengthened(picture, 200) is picture
    dark = strengthened(pale()[0], 200)
    assert dark.max() == 255 and dark[pale()[0] == 200].max() < 160


@pytest.mark.parametrize("drawn", [*DRAWN, register])
@pytest.mark.parametrize("dpi", [100, 300])
def test_scans_are_registered(drawn, dpi):
    """Filled in, in another resolution than the blank form, every second one upside down."""
    picture = strengthened(drawn()[0], 200)
    template = Template("form", picture, 200, tuple(propose_fields(picture, 200)), ())
    forms = Forms([template])
    places = np.concatenate([corners(field.box) for field in template.fields])
    for seed in range(3):
        rng, ink = np.random.default_rng(seed), np.zeros_like(picture)
        for field in template.fields:
            x, y, w, h = field.box
            if field.kind == "text" and rng.random() < 0.7:
                across = np.arange(x + 8, x + round(0.7 * w), 6)
                line = np.column_stack([across, y + h / 2 + 0.3 * h * np.sin(across / 9 + seed)])
                cv2.polylines(ink, [np.rint(line).astype(np.int32)], False, 230, 3)
        page = scan(drawn()[0], ink, SEVERITIES["medium"], rng, dpi)
        image = np.ascontiguousarray(page.image[::-1, ::-1]) if seed % 2 else page.image
        truth = places @ page.matrix[:2, :2].T + page.matrix[:2, 2]
        truth = np.subtract(page.image.shape[::-1], 1) - truth if seed % 2 else truth
        assert np.linalg.norm(forms.register(image).places(places) - truth, axis=1).max() * 200 / dpi < 3


@pytest.mark.parametrize("colour", COLOURS)
def test_a_form_printed_in_a_colour(colour):
    """Blank form and scan are coloured; writing is blue."""
    sheet, boxes = combs()
    done, encoded = cv2.imencode(".png", tinted(sheet, COLOURS[colour]))
    picture = strengthened(decode(encoded.tobytes()), 200)
    fields = propose_fields(picture, 200)
    hits, false = found(fields, boxes.values())
    assert done and hits == len(boxes) and false == 0
    forms = Forms([Template("form", picture, 200, tuple(fields), ())])
    filled = tinted(sheet, COLOURS[colour])
    for x, y, _, h in boxes.values():
        cv2.putText(filled, "Marguerite", (x + 10, y + h - 8), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.4, (150, 40, 20), 3)
    turn = cv2.getRotationMatrix2D((827, 1169), 1.5, 0.98)
    scanned = cv2.warpAffine(filled, turn, filled.shape[1::-1], borderValue=(250, 250, 250))
    answer = forms.register(decode(cv2.imencode(".jpg", scanned)[1].tobytes()))
    ends = np.array([[300.0, 400], [1400, 400], [1400, 1400]])
    assert np.abs(answer.places(ends) - (ends @ turn[:, :2].T + turn[:, 2])).max() < 2


def test_fields_of_a_pdf_are_taken_as_they_are(tmp_path):
    path = tmp_path / "form.pdf"
    path.write_bytes(pdf_form([
        ("Nom de famille", "Tx", (60, 700, 400, 722), 0), ("Remarques", "Tx", (60, 500, 500, 600), 1 << 12),
        ("Marie", "Btn", (60, 450, 72, 462), 0), ("Marie", "Btn", (160, 450, 172, 462), 0),
        ("Effacer", "Btn", (60, 400, 100, 420), 1 << 16), ("cache", "Tx", (0, 0, 0, 0), 0),
    ]))  # fmt: skip
    page = read_blank(path, 1, None)
    assert [field.name for field in page.fields] == ["Nom_de_famille", "Remarques", "Marie", "Marie_2"]
    assert [field.kind for field in page.fields] == ["text", "text", "tick", "tick"]
    assert [field.lines for field in page.fields] == [1, 5, 1, 1]
    x, y, w, h = page.fields[0].box
    assert np.allclose([x, y, w, h], np.array([60, 842 - 722, 340, 22]) * 200 / 72, atol=1.5)
    assert page.pages == 1 and page.picture.min() < 100


def test_a_resolution_that_no_paper_has_is_not_believed(tmp_path):
    path = tmp_path / "form.png"
    done, encoded = cv2.imencode(".png", combs()[0])
    ihdr = 8 + 25
    for said, taken in ((50, 200), (200, 200), (1000, 200)):
        metre = round(said / 0.0254).to_bytes(4, "big") * 2 + b"\x01"
        chunk = b"pHYs" + metre
        chunk = len(metre).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        content = encoded.tobytes()
        path.write_bytes(content[:ihdr] + chunk + content[ihdr:])
        assert read_blank(path, 1, None).dpi == pytest.approx(taken, abs=0.1)
    assert done and read_blank(path, 1, 150.0).dpi == 150
