import cv2
import numpy as np
import pytest
from other_forms import found, overlap, questionnaire, register

from htr.forms.structure import propose_fields, slope_of_rulings
from htr.synth.draw_forms import NAMES, draw


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dpi", [150, 200, 300])
def test_fields_of_the_projects_forms_are_proposed(name, dpi):
    template = draw(name)
    picture = cv2.resize(template.picture, None, fx=dpi / 200, fy=dpi / 200, interpolation=cv2.INTER_AREA)
    proposed = propose_fields(picture, dpi)
    for kind in ("text", "tick"):
        boxes = [tuple(v * dpi / 200 for v in field.box) for field in template.fields if field.kind == kind]
        hits, false = found([field for field in proposed if field.kind == kind], boxes)
        assert hits == len(boxes) and false == 0


def test_lines_and_pitch_of_ruled_fields_are_proposed():
    proposed = propose_fields(draw("adult-2018").picture, 200)
    own = draw("adult-2018").field("II")
    [two] = [field for field in proposed if overlap(field.box, own.box) > 0.7]
    assert two.lines == own.lines and two.pitch == pytest.approx(own.pitch, abs=2)
    one = min(proposed, key=lambda field: (field.box[1], field.box[0]))
    assert one.lines == 1


@pytest.mark.parametrize("drawn", [register, questionnaire])
def test_forms_of_another_kind(drawn):
    picture, boxes = drawn()
    hits, false = found(propose_fields(picture, 200), boxes.values())
    assert hits == len(boxes)
    assert false <= 0.1 * len(boxes)


def test_names_are_numbered_in_reading_order():
    proposed = propose_fields(questionnaire()[0], 200)
    assert len({field.name for field in proposed}) == len(proposed)
    ticks = [field for field in proposed if field.kind == "tick"]
    assert [field.name for field in ticks] == [f"tick_{number}" for number in range(1, 16)]
    assert [field.box[0] for field in ticks[:3]] == sorted(field.box[0] for field in ticks[:3])


@pytest.mark.parametrize("kind", ["blank", "noise", "letter"])
def test_a_page_without_structure_has_no_fields(kind):
    page = np.full((1165, 1654), 255, np.uint8)
    if kind == "noise":
        page = np.random.default_rng(0).integers(0, 256, page.shape, dtype=np.uint8)
    if kind == "letter":
        for y in range(60, 1100, 34):
            cv2.putText(page, "certificat de deces " * 4, (60, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 40, 2)
    assert propose_fields(page, 200) == []


def test_the_slope_of_rulings():
    picture = draw("adult-2018").picture
    turn = cv2.getRotationMatrix2D((827, 582), -0.4, 1)
    turned = cv2.warpAffine(picture, turn, picture.shape[::-1], borderValue=255)
    assert slope_of_rulings(turned) == pytest.approx(np.tan(np.radians(0.4)), abs=0.0005)
    assert slope_of_rulings(np.full((500, 700), 255, np.uint8)) == 0
