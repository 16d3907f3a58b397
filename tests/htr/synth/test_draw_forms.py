"""Drawn forms: the committed files are what the code draws, and editions differ in their marks and nowhere else."""

import cv2
import numpy as np
import pytest

from htr.forms.template import FORMS, load_template, load_templates
from htr.synth.draw_forms import NAMES, SHIPPED, draw, write_template


def test_drawing_reproduces_the_committed_files(tmp_path):
    assert sorted(path.stem for path in FORMS.glob("*.json")) == sorted(SHIPPED)
    for name in SHIPPED:
        path = write_template(draw(name), tmp_path)
        assert path.read_text(encoding="utf-8") == (FORMS / path.name).read_text(encoding="utf-8"), "draw them anew"
        drawn, committed = (
            cv2.imread(str(p.with_suffix(".png")), cv2.IMREAD_UNCHANGED) for p in (path, FORMS / path.name)
        )
        assert np.array_equal(drawn, committed), "draw them anew: python -m htr.synth.draw_forms"


@pytest.mark.parametrize("name", NAMES)
def test_a_written_template_is_read_as_it_was_drawn(name, tmp_path):
    template = draw(name)
    read = load_template(write_template(template, tmp_path))
    assert (read.name, read.dpi, read.fields, read.marks) == (name, 200, template.fields, template.marks)
    assert np.array_equal(read.picture, template.picture) and read.picture.shape == (1165, 1654)
    assert [t.name for t in load_templates(tmp_path)] == [name]


def test_the_adult_form_has_the_fields_of_the_certificate():
    fields = {field.name: field for field in draw("adult-2018").fields}
    text = [name for name, field in fields.items() if field.kind == "text"]
    chain = [f"I{letter}{suffix}" for letter in "abcd" for suffix in ("", "_interval")]
    assert text == [*chain, "II", "II_interval", "circumstances"]
    assert fields["II"].lines == 4 and fields["circumstances"].lines == 4 and fields["Ia"].lines == 1
    assert {"autopsy_yes", "autopsy_no", "pregnancy_yes", "work_accident_no", "place_home"} <= set(fields)


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_blank_but_for_their_own_rulings_and_do_not_overlap(name):
    template = draw(name)
    covered = np.zeros(template.picture.shape, np.uint8)
    for field in template.fields:
        x, y, w, h = field.box
        inside = template.picture[y + 4 : y + h - 4, x + 4 : x + w - 4]
        dark = (inside < 200).mean(axis=1)
        assert set(np.round(dark, 3)) <= {0.0, 1.0}, field.name  # rows of paper and rows of a ruling, no print
        covered[y : y + h, x : x + w] += 1
    assert covered.max() == 1


def test_editions_differ_in_their_marks_alone():
    old, new = draw("adult-2018"), draw("adult-2024")
    assert old.marks == new.marks and 4 <= len(old.marks) <= 12
    changed = cv2.absdiff(old.picture, new.picture) > 40
    assert 500 < changed.sum() < 20_000  # hard to tell apart, but not the same
    for x, y, w, h in old.marks:
        assert changed[y : y + h, x : x + w].any()
        changed[y : y + h, x : x + w] = False
    assert not changed.any()
    moved = [a.name for a, b in zip(old.fields, new.fields, strict=True) if a.box != b.box]
    assert moved == ["pregnancy_yes", "pregnancy_no", "autopsy_yes", "autopsy_no"]


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match=r"adult-1999.*adult-2018"):
        draw("adult-1999")
