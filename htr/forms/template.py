"""A template: the blank form as a picture, and its fields as JSON. A new edition of a form needs no code.

NAME.png is the blank form in gray. NAME.json has lengths in pixels of that picture:

    {"name": "adult-2018", "dpi": 200,
     "marks": [[1200, 40, 300, 60]],        boxes where this edition differs from similar ones: its number, a title
     "fields": [{"name": "Ia", "kind": "text", "box": [x, y, w, h], "lines": 1, "pitch": 84},
                {"name": "autopsy_yes", "kind": "tick", "box": [x, y, w, h]}]}

`box` is the area of the answer. `lines` is the largest number of lines that people write there, `pitch` the height of
one line: all fields are scaled by it, so that characters have about the same size. `rules` may state how fields depend
on each other, see field_rules.py. `python -m jobs template new` makes both files.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from htr.forms.field_rules import Rule, rules_of
from htr.whole_files import attempt_at

FORMS = Path(__file__).parent / "data"  # the templates that come with the project
MAX_FIELD_LINES = 8


@dataclass(frozen=True)
class Field:
    name: str
    kind: str  # text or tick
    box: tuple[int, int, int, int]  # x, y, w, h
    lines: int = 1
    pitch: float = 0.0  # 0 or missing in JSON: the height of the box over `lines`


@dataclass(frozen=True, eq=False)
class Template:
    name: str
    picture: np.ndarray = field(repr=False)  # (H, W) uint8, the blank form
    dpi: float
    fields: tuple[Field, ...]
    marks: tuple[tuple[int, int, int, int], ...]  # x, y, w, h
    rules: tuple[Rule, ...] = ()  # what must hold between its fields

    def field(self, name: str) -> Field | None:
        return next((field for field in self.fields if field.name == name), None)


def load_template(path: Path) -> Template:
    """The template of NAME.json, with NAME.png beside it. Raises ValueError with the file and what is wrong."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        fields = tuple(as_field(entry) for entry in note["fields"])
        marks = tuple(as_box(mark) for mark in note.get("marks", []))
        name, dpi = str(note["name"]), float(note["dpi"])
        rules = rules_of(note.get("rules", []), {field.name: field.kind for field in fields})
    except FileNotFoundError:
        raise ValueError(f"{path}: no such template") from None
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a template ({type(error).__name__}: {error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    picture = cv2.imread(str(path.with_suffix(".png")), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise ValueError(f"{path.with_suffix('.png')}: the template's picture is missing or can't be decoded")
    height, width = picture.shape
    names = [field.name for field in fields]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"{path}: a template has fields, each of another name")
    if not 50 <= dpi <= 1200:
        raise ValueError(f"{path}: dpi {dpi:g} is not between 50 and 1200")
    for owner, (x, y, w, h) in [(f.name, f.box) for f in fields] + [("marks", mark) for mark in marks]:
        if x < 0 or y < 0 or w < 4 or h < 4 or x + w > width or y + h > height:
            raise ValueError(f"{path}: {owner}: box {[x, y, w, h]} does not lie on the picture of {width} x {height}")
    return Template(name, picture, dpi, fields, marks, rules)


def as_box(value: object) -> tuple[int, int, int, int]:
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(v, int) for v in value):
        raise ValueError(f"a box is four whole numbers [x, y, w, h], not {value!r}")
    return tuple(value)


def as_field(entry: dict) -> Field:
    name, kind, box, lines = str(entry["name"]), entry["kind"], as_box(entry["box"]), entry.get("lines", 1)
    if kind not in ("text", "tick"):
        raise ValueError(f"{name}: a field's kind is text or tick, not {kind!r}")
    if not isinstance(lines, int) or not 1 <= lines <= MAX_FIELD_LINES:
        raise ValueError(f"{name}: lines is 1 to {MAX_FIELD_LINES}, not {lines!r}")
    pitch = float(entry.get("pitch") or box[3] / lines)
    if not 8 <= pitch <= 2 * box[3]:
        raise ValueError(f"{name}: a pitch of {pitch:g} px does not fit a field {box[3]} px high")
    return Field(name, kind, box, lines, pitch)


@cache
def load_templates(folder: Path = FORMS) -> tuple[Template, ...]:
    """All templates of a folder, by name. Raises ValueError where there is none, or two of one name."""
    templates = tuple(load_template(path) for path in sorted(folder.glob("*.json")))
    names = [template.name for template in templates]
    if not templates:
        raise ValueError(f"{folder}: no template (NAME.json beside NAME.png) in this folder")
    if len(set(names)) < len(names):
        raise ValueError(f"{folder}: two templates of the same name among {', '.join(names)}")
    return templates


def write_template(template: Template, folder: Path) -> Path:
    """Write NAME.png, then NAME.json -> the path of the JSON, for `load_template`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{template.name}.json"
    done, encoded = cv2.imencode(".png", template.picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done, "OpenCV without its PNG encoder"
    replace(path.with_suffix(".png"), encoded.tobytes())
    replace(path, note_of(template).encode())
    return path


def replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: a reader sees the old content or the new one."""
    with attempt_at(path) as attempt:
        attempt.write_bytes(content)
        os.replace(attempt, path)


def note_of(template: Template) -> str:
    """The content of NAME.json, one field a row."""
    fields = []
    for owner in template.fields:
        entry = {"name": owner.name, "kind": owner.kind, "box": list(owner.box)}
        fields.append(entry if owner.kind == "tick" else entry | {"lines": owner.lines, "pitch": owner.pitch})
    note = {"name": template.name, "dpi": template.dpi, "marks": [list(mark) for mark in template.marks]}
    if template.rules:
        note["rules"] = [rule.note() for rule in template.rules]
    rows = ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in fields)
    return f'{json.dumps(note, ensure_ascii=False)[:-1]},\n "fields": [\n{rows}\n]}}\n'


def digest_of_forms(folder: Path = FORMS, rules: bool = False) -> str:
    """A digest, 16 hexadecimal digits, of the files of all templates: other templates make another data set.

    `rules`: whether their rules count too. By default they do not, since they change neither cutting nor reading.
    """
    digest = hashlib.sha256()
    load_templates(folder)
    for path in sorted(folder.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if not rules:  # in the spelling of `note_of`; rules in another spelling still count
            known = json.dumps(json.loads(text).get("rules", []), ensure_ascii=False)
            text = text.replace(f', "rules": {known}', "", 1)
        digest.update(text.encode() + path.with_suffix(".png").read_bytes())
    return digest.hexdigest()[:16]
