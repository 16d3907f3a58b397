"""The fields of a template for annotation programs: PAGE XML, Label Studio, LabelMe, COCO (CVAT).

    write_fields(template, Path("form.xml"), "page")          # one of FORMATS

Kind, lines and pitch of a field go into what each program has for attributes (see annotation_reader.py).
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from htr.forms.template import Template
from htr.io.page_xml import Region, box_outline, page_xml

FORMATS = {"page": ".xml", "labelstudio": ".json", "labelme": ".json", "coco": ".json"}
KINDS = ("text", "tick")


def write_fields(template: Template, path: Path, to: str) -> None:
    """Write the fields as a file of one of FORMATS. Raises ValueError for another format."""
    if to not in FORMATS:
        raise ValueError(f"format {to!r}: choose one of {', '.join(FORMATS)}")
    writers = {"page": as_page, "labelstudio": as_label_studio, "labelme": as_labelme, "coco": as_coco}
    content = writers[to](template)
    if to != "page":
        content = json.dumps(content, ensure_ascii=False, indent=1).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def as_page(template: Template) -> bytes:
    height, width = template.picture.shape
    # as Transkribus writes what ends a value of `custom`
    names = [re.sub(r"[;{}\\]", lambda found: f"\\u{ord(found[0]):04x}", field.name) for field in template.fields]
    regions = [
        Region(name, box_outline(field.box), "", 1.0) for name, field in zip(names, template.fields, strict=True)
    ]
    root = ElementTree.fromstring(page_xml(f"{template.name}.png", (width, height), regions))
    space = root.tag.partition("}")[0] + "}"
    ElementTree.register_namespace("", space[1:-1])
    for element, field in zip(root.iter(f"{space}TextRegion"), template.fields, strict=True):
        attributes = f"kind:{field.kind}; lines:{field.lines}; pitch:{field.pitch:g};"
        element.set("custom", f"{element.get('custom')} field {{{attributes}}}")
        for text in element.findall(f"{space}TextEquiv"):  # a blank form says nothing
            element.remove(text)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="utf-8") + b"\n"


def as_label_studio(template: Template) -> list[dict]:
    height, width = template.picture.shape
    results = []
    for number, field in enumerate(template.fields):
        x, y, w, h = field.box
        value = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
        results.append({
            "id": f"field{number}", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0,
            "value": value | {"rotation": 0, "rectanglelabels": [field.kind]},
            "meta": {"text": [field.name], "lines": field.lines, "pitch": field.pitch},
        })  # fmt: skip
    return [{"data": {"image": f"{template.name}.png"}, "annotations": [{"result": results}]}]


def as_labelme(template: Template) -> dict:
    height, width = template.picture.shape
    shapes = []
    for field in template.fields:
        x, y, w, h = field.box
        attributes = f"kind:{field.kind}; lines:{field.lines}; pitch:{field.pitch:g};"
        shapes.append({"label": field.name, "points": [[x, y], [x + w, y + h]], "group_id": None,
                       "description": attributes, "shape_type": "rectangle", "flags": {}})  # fmt: skip
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{template.name}.png", "imageData": None,
            "imageHeight": height, "imageWidth": width}  # fmt: skip


def as_coco(template: Template) -> dict:
    height, width = template.picture.shape
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1 + KINDS.index(field.kind), "bbox": list(map(float, field.box)),
         "area": float(field.box[2] * field.box[3]), "iscrowd": 0, "segmentation": [],
         "attributes": {"name": field.name, "lines": field.lines, "pitch": field.pitch}}
        for number, field in enumerate(template.fields, 1)
    ]  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": f"{template.name}.png", "width": width, "height": height}],
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(KINDS, 1)],
        "annotations": annotations,
    }
