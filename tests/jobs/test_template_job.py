"""python -m jobs template: from a blank form or scans to a template that is ready."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import other_forms
import pytest
from more_forms import pdf_form
from other_forms import overlap, questionnaire, register
from PIL import Image

from htr.forms.registration import Forms
from htr.forms.template import load_template, write_template
from htr.synth.draw_forms import draw
from htr.synth.scanner import SEVERITIES, scan
from jobs.cli.command_line import main


def run(*words: object) -> int:
    return main(["template", *map(str, words)])


def test_a_template_from_a_blank_png(tmp_path):
    picture, boxes = questionnaire()
    cv2.imwrite(str(tmp_path / "enquete.png"), picture)
    assert run("new", tmp_path / "enquete.png", "--out", tmp_path / "forms") == 0
    template = load_template(tmp_path / "forms" / "enquete.json")
    assert template.dpi == 200 and len(template.fields) == len(boxes)
    page = (tmp_path / "forms" / "enquete.html").read_text(encoding="utf-8")
    assert "text_1" in page and "http:" not in page.replace("http://www.w3.org", "")
    # scans of it are registered
    scanned = scan(picture, np.zeros_like(picture), SEVERITIES["medium"], np.random.default_rng(1))
    found = Forms([template]).register(scanned.image)
    corner = np.array([[120.0, 1400.0], [1534.0, 2100.0]])
    truth = corner @ scanned.matrix[:2, :2].T + scanned.matrix[:2, 2]
    assert np.abs(found.places(corner) - truth).max() * 200 / scanned.dpi < 3


@pytest.mark.parametrize("dpi", [150, 300])
def test_a_template_from_a_page_of_a_pdf(dpi, tmp_path):
    """A page that is a scan is drawn at the scan's resolution."""
    picture, boxes = register()
    small = cv2.resize(picture, None, fx=dpi / 200, fy=dpi / 200, interpolation=cv2.INTER_AREA)
    pages = [Image.fromarray(np.full_like(small, 255)), Image.fromarray(small)]
    pages[0].save(tmp_path / "r.pdf", save_all=True, append_images=pages[1:], resolution=dpi)
    assert run("new", tmp_path / "r.pdf", "--page", 2, "--out", tmp_path / "forms", "--name", "register") == 0
    template = load_template(tmp_path / "forms" / "register.json")
    assert template.dpi == pytest.approx(dpi, abs=2)
    assert template.picture.shape == pytest.approx(small.shape, abs=2)
    scale = template.dpi / 200
    wanted = [tuple(v * scale for v in box) for box in boxes.values()]
    assert all(max(overlap(field.box, box) for field in template.fields) > 0.7 for box in wanted)


def test_a_form_of_prose_alone_has_a_field_to_begin_with(tmp_path, capsys):
    sheet = np.full((1654, 1165), 255, np.uint8)
    for number in range(30):
        text = f"Article {number} : conditions {number * 37}"
        other_forms.words(sheet, 60 + 7 * (number % 5), 100 + 50 * number, text)
    cv2.imwrite(str(tmp_path / "prose.png"), sheet)
    assert run("new", tmp_path / "prose.png", "--out", tmp_path / "forms") == 0
    assert "one field was put into the middle" in capsys.readouterr().err
    [field] = load_template(tmp_path / "forms" / "prose.json").fields
    assert field.kind == "text"


def test_a_pdf_that_can_be_filled_in_on_a_screen_gives_its_fields(tmp_path, capsys):
    (tmp_path / "demande.pdf").write_bytes(pdf_form([("Nom", "Tx", (60, 700, 400, 722), 0)]))
    assert run("new", tmp_path / "demande.pdf", "--out", tmp_path / "forms") == 0
    told = capsys.readouterr().err
    assert "1 fields of its own" in told and "too little print" in told  # a title alone: no scan could be registered
    assert [field.name for field in load_template(tmp_path / "forms" / "demande.json").fields] == ["Nom"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gone.png",), "no such image, PDF or folder"),
        (("broken.pdf",), "can't be read"),
        (("text.png",), "not a JPEG, PNG, TIFF"),
        (("small.png",), "--dpi"),
        (("white.png", "--dpi", "200"), "too little print"),
        (("form.pdf", "--page", "3"), "it has 1 pages, not 3"),
        (("form.png", "--name", "a/b"), "without a path"),
        (("empty",), "no image in this folder"),
    ],
)
def test_what_is_wrong_is_said(options, message, tmp_path, capsys):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing")
    (tmp_path / "text.png").write_text("no picture")
    cv2.imwrite(str(tmp_path / "small.png"), np.full((333, 900), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "white.png"), np.full((900, 900), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "form.png"), draw("adult-2018").picture)
    Image.fromarray(draw("adult-2018").picture).save(tmp_path / "form.pdf", resolution=200)
    (tmp_path / "empty").mkdir()
    assert run("new", tmp_path / options[0], *options[1:], "--out", tmp_path / "forms") == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("forms/*.json"))


def test_each_action_has_settings_of_its_own(tmp_path, capsys):
    from jobs.cli.command_line import parse
    from jobs.template import Check

    (tmp_path / "check.yaml").write_text("scans: a/b\nmarks: keep\nlimit: 7\n")
    asked = ["template", "check", "forms", "--config", str(tmp_path / "check.yaml")]
    assert parse([*asked, "--limit", "9"])[1] == Check(forms=Path("forms"), scans=Path("a/b"), marks="keep", limit=9)
    for words, message in ((["check", "forms"], "--scans"), (["check", *asked[2:], "--limt", "3"], "--limit"),
                           ([], "new|check|import|export")):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            parse(["template", *words])
        assert end.value.code == 2 and message in capsys.readouterr().err


def test_a_template_is_not_replaced_unasked(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "form.png"), draw("adult-2018").picture)
    assert run("new", tmp_path / "form.png", "--out", tmp_path) == 1  # its NAME.png would be the source itself
    assert (tmp_path / "form.png").exists() and "form.png" in capsys.readouterr().err
    assert run("new", tmp_path / "form.png", "--out", tmp_path / "forms") == 0
    assert run("new", tmp_path / "form.png", "--out", tmp_path / "forms") == 1
    assert "--force" in capsys.readouterr().err
    assert run("new", tmp_path / "form.png", "--out", tmp_path / "forms", "--force") == 0


def test_export_and_import(tmp_path):
    path = write_template(draw("adult-2018"), tmp_path / "forms")
    for to in ("page", "labelstudio", "labelme", "coco"):
        assert run("export", path, "--to", to, "--out", tmp_path / to) == 0
        assert run("import", path, tmp_path / to) == 0
        assert load_template(path).fields == draw("adult-2018").fields
    assert run("export", path, "--to", "html", "--out", tmp_path / "page.html") == 0
    note = json.loads(path.read_text(encoding="utf-8")) | {"size": [1654, 1165]}
    note["fields"][0]["name"] = "cause"
    (tmp_path / "drawn.json").write_text(json.dumps(note))
    assert run("import", path, tmp_path / "drawn.json") == 0
    assert load_template(path).fields[0].name == "cause"


@pytest.fixture
def editions(tmp_path):
    """A folder of three templates without marks, and scans of each, one foreign page, one cut off."""
    forms, scans = tmp_path / "forms", tmp_path / "scans"
    scans.mkdir()
    for number, name in enumerate(("adult-2018", "adult-2024", "neonatal-2018")):
        template = draw(name)
        write_template(replace(template, marks=()), forms)
        for copy in range(7):
            rng = np.random.default_rng((number, copy))
            made = scan(template.picture, np.zeros_like(template.picture), SEVERITIES["medium"], rng)
            cv2.imwrite(str(scans / f"{name}-{copy}.jpg"), made.image)
    return forms, scans


def test_check_chooses_marks_and_says_ready(editions, tmp_path, capsys):
    forms, scans = editions
    assert run("check", forms, "--scans", scans, "--out", tmp_path / "check.html") == 0
    assert capsys.readouterr().out.splitlines()[0] == "ready"
    assert load_template(forms / "adult-2018.json").marks and load_template(forms / "adult-2024.json").marks
    assert load_template(forms / "neonatal-2018.json").marks == ()
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert "Ready" in page and "adult-2024" in page


def test_check_says_what_fails_and_shows_it(editions, tmp_path, capsys):
    forms, scans = editions
    own = cv2.imread(str(scans / "adult-2018-0.jpg"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(scans / "half.png"), own[:, : own.shape[1] // 2])
    cv2.imwrite(str(scans / "white.png"), np.full((1165, 1654), 250, np.uint8))
    cv2.imwrite(str(scans / "head.png"), own[::-1, ::-1])
    (scans / "text.png").write_text("no picture")
    assert run("check", forms, "--scans", scans, "--out", tmp_path / "check.html") == 1
    told = capsys.readouterr()
    assert "2 of 24 scans are rejected (" in told.out and "cut off" in told.out and "blank or too faint" in told.out
    assert "1 of 25 files can't be read" in told.err
    page = (tmp_path / "check.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2 and "half.png" in page and "1 upside down" in page
    assert oct((tmp_path / "check.html").stat().st_mode & 0o777) == "0o600"


def test_check_says_which_editions_can_not_be_told_apart(editions, tmp_path, capsys):
    forms, scans = editions
    write_template(replace(draw("adult-2018"), name="twin", marks=()), forms)
    assert run("check", forms, "--scans", scans, "--out", tmp_path / "check.html") == 1
    assert "adult-2018 and twin can't be told apart" in capsys.readouterr().out
