import json
from dataclasses import replace

import pytest

from htr.forms.annotation_reader import read_fields
from htr.forms.annotation_writer import FORMATS, write_fields
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
        (
            json.dumps(
                {
                    "shapes": [{"label": "a", "points": [[1, 2], [3, 4]], "shape_type": "circle"}],
                    "imageWidth": 1654,
                    "imageHeight": 1165,
                }
            ),
            "a circle: draw rectangles or polygons",
        ),
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


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["Né(e) le", "a;b", "x}y{z", "c:d, e", "日付", 'say "x"', "back\\slash", "<&>", "1"])
def test_any_name_comes_back(to, name, tmp_path):
    template = replace(FORM, fields=(replace(FORM.fields[0], name=name), *FORM.fields[1:]))
    write_fields(template, tmp_path / "form", to)
    assert read_fields(FORM, tmp_path / "form").fields == template.fields


def test_a_name_that_transkribus_wrote_is_read(tmp_path):
    path = tmp_path / "page.xml"
    path.write_text(
        '<PcGts><Page imageWidth="1654" imageHeight="1165"><TextRegion id="r" '
        'custom="structure {type:n\\u00e9\\u0020le;}">'
        '<Coords points="170,180 900,180 900,260"/></TextRegion></Page></PcGts>'
    )
    assert read_fields(FORM, path).fields[0].name == "né le"


def polygons(to, points, name):
    """The same polygon as each program has it, on a picture of the form's size."""
    if to == "labelme":
        shape = {"label": name, "points": points, "shape_type": "polygon"}
        return {"shapes": [shape], "imageWidth": 1654, "imageHeight": 1165}
    percent = [[100 * x / 1654, 100 * y / 1165] for x, y in points]
    value = {"points": percent, "polygonlabels": [name], "closed": True}
    result = {"id": "1", "type": "polygonlabels", "original_width": 1654, "original_height": 1165, "value": value}
    return [{"data": {"image": "x.png"}, "annotations": [{"result": [result]}]}]


@pytest.mark.parametrize("to", ["labelme", "labelstudio"])
def test_the_box_around_a_polygon_is_taken(to, tmp_path):
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps(polygons(to, [[200, 300], [900, 310], [890, 380], [210, 370]], "Ia")))
    assert read_fields(FORM, path).fields[0].box == pytest.approx((200, 300, 700, 80), abs=1)


def test_a_box_that_was_turned_is_taken_by_the_upright_one_around_it(tmp_path):
    path = tmp_path / "drawn.json"
    value = {"x": 100 * 500 / 1654, "y": 100 * 400 / 1165, "width": 100 * 300 / 1654, "height": 100 * 60 / 1165}
    result = {"id": "1", "type": "rectanglelabels", "original_width": 1654, "original_height": 1165,
              "value": value | {"rotation": 90, "rectanglelabels": ["Ia"]}}  # fmt: skip
    path.write_text(json.dumps([{"data": {}, "annotations": [{"result": [result]}]}]))
    assert read_fields(FORM, path).fields[0].box == pytest.approx((440, 400, 60, 300), abs=1)  # about its corner
    path.write_text(json.dumps(coco([("x.png", [(500, 400, 300, 60, {"name": "Ia", "rotation": 90.0})])])))
    assert read_fields(FORM, path).fields[0].box == pytest.approx((620, 280, 60, 300), abs=1)  # about its middle


def test_a_name_may_be_written_beside_a_box_in_label_studio(tmp_path):
    common = {"id": "q", "original_width": 1654, "original_height": 1165}
    value = {"x": 10, "y": 20, "width": 50, "height": 10}
    results = [common | {"type": "rectanglelabels", "value": value | {"rectanglelabels": ["text"]}},
               common | {"type": "textarea", "value": value | {"text": ["Ia"]}},
               {"id": "c", "type": "choices", "value": {"choices": ["good"]}}]  # fmt: skip
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps([{"data": {}, "annotations": [{"result": results}]}]))
    [field] = read_fields(FORM, path).fields
    assert (field.name, field.kind) == ("Ia", "text")
    results[0]["type"] = "ellipselabels"
    path.write_text(json.dumps([{"data": {}, "annotations": [{"result": results}]}]))
    with pytest.raises(ValueError, match="a shape of the type ellipselabels: draw rectangles"):
        read_fields(FORM, path)


def coco(pictures):
    """[(file, [(x, y, w, h, attributes)])] -> one file of several pictures."""
    images = [{"id": n, "file_name": file, "width": 1654, "height": 1165} for n, (file, _) in enumerate(pictures)]
    annotations = [{"id": 1, "image_id": n, "category_id": 1, "bbox": box, "attributes": known}
                   for n, (_, boxes) in enumerate(pictures) for *box, known in boxes]  # fmt: skip
    return {"images": images, "categories": [{"id": 1, "name": "text"}], "annotations": annotations}


def test_of_several_pictures_in_one_file_the_forms_own_is_taken(tmp_path):
    path = tmp_path / "drawn.json"
    own, other = (300, 200, 400, 60, {"name": "Ia"}), (10, 10, 90, 90, {"name": "x"})
    path.write_text(json.dumps(coco([("b/other.png", [other]), ("b/adult-2018.png", [own])])))
    assert [(field.name, field.box) for field in read_fields(FORM, path).fields] == [("Ia", own[:4])]
    path.write_text(json.dumps(coco([("other.png", [other]), ("another.png", [own])])))
    with pytest.raises(ValueError, match=r"2 images, 0 of them of adult-2018\.png"):
        read_fields(FORM, path)
    # a name that ends with the form's is another picture's
    path.write_text(json.dumps(coco([("old-adult-2018.png", [other]), ("adult-2018.png", [own])])))
    assert [field.name for field in read_fields(FORM, path).fields] == ["Ia"]
    path.write_text(json.dumps(coco([("old-adult-2018.png", [other]), ("another.png", [own])])))
    with pytest.raises(ValueError, match=r"2 images, 0 of them of adult-2018\.png"):
        read_fields(FORM, path)
    tasks = [{"data": {"image": f"/data/upload/1/ab12-{name}.png"}, "annotations": [{"result": []}]}
             for name in ("adult-2018", "other")]  # fmt: skip
    tasks[0]["annotations"] = polygons("labelstudio", [[200, 300], [900, 310], [890, 380]], "II")[0]["annotations"]
    path.write_text(json.dumps(tasks))
    assert [field.name for field in read_fields(FORM, path).fields] == ["II"]
