"""The page on which fields are named and moved, driven in Chromium with mouse and keyboard."""

import json

import browser
import numpy as np
import pytest

from htr.forms.annotation_reader import read_fields
from htr.forms.template import load_template, write_template
from htr.synth.draw_forms import draw
from jobs.html.form_editor import write_editor

KEYS = {"ArrowRight": 39, "ArrowDown": 40, "Delete": 46, "t": 84, "n": 78, "z": 90, "Enter": 13, "Tab": 9}
CTRL, SHIFT = 2, 8


@pytest.fixture
def page(tmp_path, chromium):
    """In a browser of its own, since a page with changes asks before it is left; `chromium` sees that there is one."""
    folder = tmp_path / "forms"
    path = write_template(draw("adult-2018"), folder)
    write_editor(load_template(path), folder / "adult-2018.html")
    with browser.Browser(tmp_path / "profile") as chromium:
        chromium.show(1400)
        chromium.open(folder / "adult-2018.html")
        chromium.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        yield chromium
        assert not chromium.errors
        assert [address for address in chromium.requests if not address.startswith(("file:", "blob:"))] == []


def note(page):
    return page.run("note")


def place(page, x, y):
    """Pixels of the form -> of the window."""
    script = f"(() => {{ const p = new DOMPoint({x}, {y}).matrixTransform(svg.getScreenCTM()); return [p.x, p.y] }})()"
    return page.run(script)


def mouse(page, kind, at, buttons=1):
    page.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=buttons, clickCount=1)


def drag(page, start, end):
    start, end = place(page, *start), place(page, *end)
    mouse(page, "mousePressed", start)
    for share in (0.3, 0.7, 1.0):
        mouse(page, "mouseMoved", [a + share * (b - a) for a, b in zip(start, end, strict=True)])
    mouse(page, "mouseReleased", end, 0)


def press(page, key, modifiers=0):
    text = key if len(key) == 1 and not modifiers else {"Enter": "\r"}.get(key, "")
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS.get(key, 0), text=text,
                  modifiers=modifiers)  # fmt: skip


def test_fields_are_moved_resized_drawn_and_taken_back_with_the_mouse(page):
    before = note(page)["fields"]
    x, y, w, h = before[0]["box"]
    drag(page, (x + w / 2, y + h / 2), (x + w / 2 + 30, y + h / 2 + 12))
    assert np.allclose(note(page)["fields"][0]["box"], [x + 30, y + 12, w, h], atol=2)
    x, y, w, h = note(page)["fields"][0]["box"]
    drag(page, (x + w, y + h), (x + w - 50, y + h + 9))
    assert np.allclose(note(page)["fields"][0]["box"], [x, y, w - 50, h + 9], atol=2)
    drag(page, (50, 1060), (190, 1095))
    drawn = note(page)["fields"]
    assert len(drawn) == len(before) + 1
    assert np.allclose(drawn[-1]["box"], [50, 1060, 140, 35], atol=2) and drawn[-1]["kind"] == "text"
    for _ in range(3):
        page.run("document.getElementById('undo').click()")
    assert note(page)["fields"] == before


def test_fields_are_named_moved_typed_and_deleted_with_the_keyboard(page):
    before = note(page)["fields"]
    page.run("layer.querySelector('[data-i=\"10\"]').focus()")
    press(page, "ArrowRight")
    press(page, "ArrowDown", CTRL)
    press(page, "ArrowRight", SHIFT)
    x, y, w, h = before[10]["box"]
    assert note(page)["fields"][10]["box"] == [x + 1, y + 10, w + 1, h]
    press(page, "t")
    assert note(page)["fields"][10]["kind"] == "text" and note(page)["fields"][10]["lines"] == 1
    press(page, "Enter")
    page.call("Input.insertText", text="enceinte")
    assert note(page)["fields"][10]["name"] == "enceinte"
    press(page, "Enter")  # back to the field
    press(page, "Tab")
    assert page.run("chosen") == 11
    press(page, "n")
    assert len(note(page)["fields"]) == len(before) + 1
    press(page, "Delete")
    press(page, "Delete")
    assert len(note(page)["fields"]) == len(before) - 1


def test_what_is_downloaded_is_taken_by_import(page, tmp_path):
    page.run("layer.querySelector('[data-i=\"0\"]').focus()")
    press(page, "ArrowDown")
    press(page, "Enter")
    page.call("Input.insertText", text="première cause")
    downloads = tmp_path / "downloads"
    page.run("document.getElementById('save').click()")
    page.run("new Promise(done => setTimeout(done, 50))")
    for _ in range(200):  # the browser writes it when it can
        if list(downloads.glob("*.json")):
            break
        page.run("new Promise(done => setTimeout(done, 50))")
    [path] = downloads.glob("*.json")
    template = read_fields(load_template(tmp_path / "forms" / "adult-2018.json"), path)
    own = draw("adult-2018").fields[0]
    assert template.fields[0].name == "première cause"
    assert template.fields[0].box == (own.box[0], own.box[1] + 1, *own.box[2:])
    assert template.fields[1:] == draw("adult-2018").fields[1:]


def test_a_wrong_name_is_said_and_not_saved(page, tmp_path):
    page.run("layer.querySelector('[data-i=\"1\"]').focus()")
    press(page, "Enter")
    page.call("Input.insertText", text="Ia")
    assert "two fields are named Ia" in page.run("document.getElementById('wrong').textContent")
    page.run("document.getElementById('save').click()")
    assert "not saved" in page.run("document.getElementById('wrong').textContent")
    assert not (tmp_path / "downloads").exists()


def test_a_json_is_loaded_and_a_foreign_one_refused(page):
    changed = note(page)
    changed["fields"] = changed["fields"][:2]
    page.run(f"take({json.dumps(json.dumps(changed))})")
    assert len(note(page)["fields"]) == 2
    changed["fields"][0]["box"] = [5000, 0, 10, 10]
    with pytest.raises(RuntimeError, match="does not lie on this form"):
        page.run(f"take({json.dumps(json.dumps(changed))})")
    assert len(note(page)["fields"]) == 2


def test_a_name_with_markup_is_only_text(tmp_path, chromium):
    own = draw("adult-2018")
    field = own.fields[0].__class__("</script><b>x", "text", own.fields[0].box, 1, 98)
    template = own.__class__("a<b>", own.picture, own.dpi, (field,), ())
    write_editor(template, tmp_path / "a.html")
    with browser.Browser(tmp_path / "profile") as chromium:
        chromium.open(tmp_path / "a.html")
        assert chromium.run("note.fields[0].name") == "</script><b>x"
        assert chromium.run("document.querySelectorAll('b').length") == 0
        assert not chromium.errors
