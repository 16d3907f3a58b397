"""The fields of a template as drawn in annotation programs: PAGE XML, Label Studio, LabelMe, COCO (CVAT).

    template = read_fields(template, Path("form.json"))       # the format is recognised by its content

Some programs drop the attributes that annotation_writer.py gives: then a box has kind, lines and pitch of the
template's field of that name. A box with a new name is a tick box if it is a small square. Boxes that were drawn on a
picture of another size are scaled to the template's.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import defusedxml.ElementTree
import numpy as np

from htr.forms.annotation_writer import KINDS
from htr.forms.field_rules import rules_of
from htr.forms.keypoints import corners
from htr.forms.template import MAX_FIELD_LINES, Field, Template, as_field

MAX_TICK_MM = 8.0  # longer side of a square that counts as a tick box
NEW_LINE_MM = 9.0  # height of a line of a new field
BESIDE = ("textarea", "choices", "taxonomy", "number", "rating", "datetime", "relation")  # of Label Studio, not shapes


@dataclass(frozen=True)
class Drawn:
    """A box of another program, in pixels of its picture, with its attributes; "" and 0 where they are not given."""

    name: str
    box: tuple[float, float, float, float]  # x, y, w, h
    kind: str = ""
    lines: int = 0
    pitch: float = 0.0


def read_fields(template: Template, path: Path) -> Template:
    """The template with the fields of the file in place of its own.

    Raises ValueError with the file and what is wrong.
    """
    try:
        content = path.read_bytes()
        if content.lstrip()[:1] == b"<":
            size, drawn = from_page(content)
        else:
            size, drawn = from_json(json.loads(content), template.name)
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from None
    except (KeyError, TypeError, IndexError, AttributeError, ElementTree.ParseError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: neither PAGE XML, Label Studio, LabelMe, COCO nor the editor's JSON "
                         f"({type(error).__name__}: {error})") from None  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    height, width = template.picture.shape
    if not drawn:
        raise ValueError(f"{path}: it has no box")
    if not size[0] or not size[1] or abs(size[0] / size[1] * height / width - 1) > 0.02:
        raise ValueError(
            f"{path}: drawn on a picture of {size[0]} x {size[1]}, but {template.name} is {width} x {height}"
        )
    scale = width / size[0], height / size[1]
    fields = []
    for number, one in enumerate(drawn, 1):
        if not one.name:
            raise ValueError(f"{path}: box {number} has no name")
        try:
            fields.append(as_own(one, template, scale))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    names = [field.name for field in fields]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: more than one box is named {', '.join(twice)}")
    kinds = {field.name: field.kind for field in fields}
    try:
        rules = rules_of([rule.note() for rule in template.rules], kinds)
    except ValueError as error:
        raise ValueError(f"{path}: {template.name}'s rules need what is not drawn: {error}") from None
    return replace(template, fields=tuple(fields), rules=rules)


def as_own(drawn: Drawn, template: Template, scale: tuple[float, float]) -> Field:
    """A drawn box as a field of the template. `scale`: px of the template to one of the drawing, across and down."""
    height, width = template.picture.shape
    left, top = (min(max(round(drawn.box[i] * scale[i]), 0), (width, height)[i] - 4) for i in (0, 1))
    right, bottom = (min(round((drawn.box[i] + drawn.box[i + 2]) * scale[i]), (width, height)[i]) for i in (0, 1))
    box = [left, top, max(right - left, 4), max(bottom - top, 4)]
    before = template.field(drawn.name)
    mm = template.dpi / 25.4
    small = max(box[2], box[3]) < MAX_TICK_MM * mm and max(box[2], box[3]) < 1.6 * min(box[2], box[3])
    kind = drawn.kind or (before.kind if before else "tick" if small else "text")
    like = before is not None and before.kind == kind
    lines = drawn.lines or (before.lines if like else min(max(round(box[3] / (NEW_LINE_MM * mm)), 1), MAX_FIELD_LINES))
    pitch = drawn.pitch * scale[1] if drawn.pitch else before.pitch if like else box[3] / lines
    lines, pitch = (1, box[3]) if kind == "tick" else (lines, pitch)
    return as_field({"name": drawn.name, "kind": kind, "box": box, "lines": lines, "pitch": round(pitch, 1)})


def from_page(content: bytes) -> tuple[tuple[int, int], list[Drawn]]:
    root = defusedxml.ElementTree.fromstring(content)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    page = root.find(f"{space}Page")
    if page is None:
        raise ValueError("no Page in this XML")
    drawn = []
    for element in root.iter(f"{space}TextRegion"):
        custom = element.get("custom", "")
        named = re.search(r"structure\s*\{[^}]*type:\s*([^;}]+)", custom)
        points = element.find(f"{space}Coords").get("points").split()
        x, y = zip(*(map(float, point.split(",")) for point in points), strict=True)
        box = min(x), min(y), max(x) - min(x) + 1, max(y) - min(y) + 1  # its last pixels are among the points
        name = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), named[1].strip() if named else "")
        drawn.append(Drawn(name or element.get("id", ""), box, **attributes_of(custom)))
    return (int(page.get("imageWidth")), int(page.get("imageHeight"))), drawn


def from_json(content: object, form: str) -> tuple[tuple[int, int], list[Drawn]]:
    if isinstance(content, list) or (isinstance(content, dict) and "annotations" in content and "data" in content):
        return from_label_studio(content if isinstance(content, list) else [content], form)
    if "shapes" in content:
        return from_labelme(content)
    if "annotations" in content and "categories" in content:
        return from_coco(content, form)
    width, height = content["size"]  # the editor's own: NAME.json with the size of its picture
    fields = [as_field(entry) for entry in content["fields"]]
    return (width, height), [Drawn(field.name, field.box, field.kind, field.lines, field.pitch) for field in fields]


def from_label_studio(tasks: Sequence[dict], form: str) -> tuple[tuple[int, int], list[Drawn]]:
    images = [next((v for v in task.get("data", {}).values() if isinstance(v, str)), "") for task in tasks]
    size, drawn = (0, 0), []
    for annotation in tasks[the_one(images, form, "tasks")]["annotations"][:1]:
        results = annotation["result"]
        said = {r["id"]: r["value"]["text"][0] for r in results if r["type"] == "textarea" and r["value"]["text"]}
        for result in results:
            value, meta, kind = result.get("value", {}), result.get("meta", {}), result["type"].removesuffix("labels")
            if kind in BESIDE:
                continue
            if kind not in ("rectangle", "polygon"):
                raise ValueError(f"a shape of the type {result['type']}: draw rectangles or polygons")
            sides = size = result["original_width"], result["original_height"]
            label = (value.get(f"{kind}labels") or [""])[0]
            name = (meta.get("text") or [said.get(result.get("id")) or (label if label not in KINDS else "")])[0]
            points = np.array(value["points"] if kind == "polygon" else [[value["x"], value["y"]]], np.float64)
            points *= np.divide(sides, 100)
            if kind == "rectangle":
                wide, high = value["width"] / 100 * sides[0], value["height"] / 100 * sides[1]
                points = turned((*points[0], wide, high), value.get("rotation", 0), points[0])
            drawn.append(Drawn(name, around(points), label if label in KINDS else "", int(meta.get("lines", 0)),
                               float(meta.get("pitch", 0))))  # fmt: skip
    return size, drawn


def from_labelme(content: dict) -> tuple[tuple[int, int], list[Drawn]]:
    drawn = []
    for shape in content["shapes"]:
        if shape["shape_type"] not in ("rectangle", "polygon", "rotation"):
            raise ValueError(f"{shape['label']}: a {shape['shape_type']}: draw rectangles or polygons")
        drawn.append(Drawn(shape["label"], around(shape["points"]), **attributes_of(shape.get("description") or "")))
    return (content["imageWidth"], content["imageHeight"]), drawn


def from_coco(content: dict, form: str) -> tuple[tuple[int, int], list[Drawn]]:
    image = content["images"][the_one([image["file_name"] for image in content["images"]], form, "images")]
    labels = {category["id"]: category["name"] for category in content["categories"]}
    drawn = []
    for entry in content["annotations"]:
        if entry["image_id"] != image["id"]:
            continue
        label, known = labels[entry["category_id"]], entry.get("attributes", {})
        name = known.get("name") or (label if label not in KINDS else "")
        x, y, w, h = entry["bbox"]
        # CVAT gives the box before it was turned about its middle
        box = around(turned((x, y, w, h), known.get("rotation", 0), (x + w / 2, y + h / 2)))
        kind = label if label in KINDS else ""
        drawn.append(Drawn(name, box, kind, int(known.get("lines", 0)), float(known.get("pitch", 0))))
    return (image["width"], image["height"]), drawn


def the_one(names: Sequence[str], form: str, what: str) -> int:
    """The index of the form's picture in an export: the only one, or else the one file named FORM.png (Label Studio
    puts hexadecimal digits and a dash before it). Raises ValueError where there is no such file, or more than one.
    """
    stems = [re.split(r"[/\\]", name)[-1].rpartition(".")[0] for name in names]
    named = re.compile(rf"([0-9a-f]{{4,}}-)?{re.escape(form)}")
    own = [place for place, stem in enumerate(stems) if named.fullmatch(stem)]
    if len(names) == 1 or len(own) == 1:
        return 0 if len(names) == 1 else own[0]
    raise ValueError(f"{len(names)} {what}, {len(own)} of them of {form}.png: export the one of this form alone")


def turned(box: Sequence[float], degrees: float, about: Sequence[float]) -> np.ndarray:
    """Corners (4, 2) of a box that is turned clockwise, as seen on the screen, about a point (x, y)."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    return (corners(box) - about) @ np.array([[cosine, sine], [-sine, cosine]]) + about


def around(points: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """x, y, w, h of the upright box around points (n, 2)."""
    (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def attributes_of(text: str) -> dict:
    """What this project writes beside a name, "kind:text; lines:2; pitch:94;", as arguments of `Drawn`."""
    return dict(pairs(text))


def pairs(text: str) -> Iterator[tuple[str, str | int | float]]:
    for key, value in re.findall(r"\b(kind|lines|pitch):\s*([\w.]+)", text):
        if key == "kind" and value in KINDS:
            yield key, value
        elif key != "kind" and re.fullmatch(r"\d+(\.\d+)?", value):
            yield key, int(float(value)) if key == "lines" else float(value)
