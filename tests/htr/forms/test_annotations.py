import json
from dataclasses import replace

import pytest

from htr.forms.annotations import FORMATS, read_fields, write_fields
from htr.forms.field_rules import Rule
from htr.synth.draw_forms import draw

FORM = replace(draw("adult-2018"), rules=())  # whose fields may be drawn anew, a few of them alone


@pytest.mark.parametrize("to", FORMATS)
def test_fields_come_back_as_they_went(to, tmp_path):
    template = draw("adult-2018")
    path = tmp_path / f"form{FORMATS[to]}"
    write_fields(template, path, to)
    bare = replace(template, fields=template.fields[:1])  # nothing is taken from what was there
    assert read_fields(bare, path).fields == template.fields


def labelme(shapes, size=(1654, 1165)):
    shapes = [
        {"label": name, "points": [[x, y], [x + w, y + h]], "shape_type": "rectangle"} for name, (x, y, w, h) in shapes
    ]
    return json.dumps({"shapes": shapes, "imageWidth": size[0], "imageHeight": size[1], "imagePath": "x.png"})


def test_names_alone_keep_what_the_template_knows(tmp_path):
    path = tmp_path / "drawn.json"
    path.write_text(
        labelme([("II", (160, 610, 1090, 190)), ("new", (40, 1040, 30, 30)), ("wide", (300, 150, 600, 60))])
    )
    moved, tick, wide = read_fields(FORM, path).fields
    own = draw("adult-2018").field("II")
    assert moved.box == (160, 610, 1090, 190) and (moved.lines, moved.pitch) == (own.lines, own.pitch)
    assert tick.kind == "tick" and wide.kind == "text" and wide.lines == 1


def test_boxes_on_a_smaller_picture_are_scaled(tmp_path):
    path = tmp_path / "drawn.json"
    path.write_text(labelme([("a", (100, 50, 300, 40))], (827, 583)))
    [field] = read_fields(FORM, path).fields
    assert field.box == pytest.approx((200, 100, 600, 80), abs=1)


def test_transkribus_and_escriptorium_name_regions_in_custom(tmp_path):
    path = tmp_path / "page.xml"
    path.write_text(
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15"><Page imageFilename="a.png" '
        'imageWidth="1654" imageHeight="1165">'
        '<TextRegion id="r1" custom="readingOrder {index:0;} structure {type:Ia;}">'
        '<Coords points="170,180 1200,180 1200,260 170,260"/></TextRegion>'
        '<TextRegion id="place"><Coords points="200,1000 230,1000 230,1029 200,1029"/></TextRegion></Page></PcGts>'
    )
    first, second = read_fields(FORM, path).fields
    assert (first.name, first.box, first.kind) == ("Ia", (170, 180, 1031, 81), "text")
    assert (second.name, second.kind) == ("place", "tick")


def test_label_studio_labels_may_be_the_names(tmp_path):
    value = {"x": 10, "y": 20, "width": 50, "height": 10, "rotation": 0, "rectanglelabels": ["Ia"]}
    result = {"type": "rectanglelabels", "original_width": 1654, "original_height": 1165, "value": value}
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{"data": {}, "annotations": [{"result": [result]}]}]))
    [field] = read_fields(FORM, path).fields
    assert field.name == "Ia" and field.box == (165, 233, 827, 117)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "neither PAGE XML, Label Studio, LabelMe, COCO"),
        ("<a/>", "no Page in this XML"),
        ("[]", "0 tasks"),
        ("3", "neither PAGE XML"),
        (labelme([]), "no box"),
        (labelme([("", (10, 10, 50, 50))]), "box 1 has no name"),
        (labelme([("a", (10, 10, 50, 50)), ("a", (90, 10, 50, 50))]), "more than one box is named a"),
        (labelme([("a", (10, 10, 50, 50))], (1165, 1654)), "drawn on a picture of 1165 x 1654"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(content, message, tmp_path):
    path = tmp_path / "drawn.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_fields(draw("adult-2018"), path)
    assert str(path) in str(error.value)


def test_a_rule_whose_field_was_not_drawn_is_said(tmp_path):
    template = replace(draw("adult-2018"), rules=(Rule("at_most", "one of", ("autopsy_yes", "autopsy_no")),))
    path = tmp_path / "drawn.json"
    path.write_text(labelme([("autopsy_yes", (480, 944, 27, 27))]))
    with pytest.raises(ValueError, match="no such field: autopsy_no"):
        read_fields(template, path)
