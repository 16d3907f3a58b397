"""The page on which the fields of a template are named, moved and drawn: one file, without a server or a network.

It holds the blank form and NAME.json; what is changed is downloaded as JSON, which `template import` takes.
"""

import base64
import json
import os
from pathlib import Path

import cv2
from markupsafe import Markup

from htr.forms.template import MAX_FIELD_LINES, Template, note_of, replace
from jobs.html import HERE, render


def write_editor(template: Template, path: Path) -> None:
    height, width = template.picture.shape
    note = json.loads(note_of(template)) | {"size": [width, height]}
    # within a script element only "<" could end it
    data = json.dumps(note, ensure_ascii=False).replace("<", "\\u003c")
    image = base64.b64encode(cv2.imencode(".png", template.picture)[1].tobytes()).decode()
    files = {kind: Markup((HERE / f"form_editor.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js")}
    page = render(
        "form_editor.html",
        title=f"Form {template.name}",
        name=template.name,
        note=Markup(data),
        image=Markup(f"data:image/png;base64,{image}"),
        width=width,
        height=height,
        most_lines=MAX_FIELD_LINES,
        editor_css=files["css"],
        editor_js=files["js"],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, page.encode())
    os.chmod(path, 0o640)
