"""Text files are UTF-8 whatever the locale is: no open, read_text or write_text leaves it to the machine."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bed import PATIENT_S

CHECKOUT = Path(__file__).parent.parent
FOLDERS = ("htr", "shards", "jobs", "benchmarks")
OTHERS = ("os", "tarfile", "webbrowser")  # whose open is another; so is that of a class
PLACE = {"read_text": 0, "write_text": 1, "open": 2}  # of the argument `encoding`; of the built-in open it is 3


def left_to_the_locale(source: str) -> list[int]:
    """The lines of calls that open text without saying its encoding."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if method else getattr(call.func, "id", "")
        owner = call.func.value if method else None
        if name not in PLACE or (isinstance(owner, ast.Name) and (owner.id in OTHERS or owner.id[0].isupper())):
            continue
        place = 0 if method else 1
        mode = next((word.value for word in call.keywords if word.arg == "mode"), None)
        if mode is None and name == "open" and len(call.args) > place:
            mode = call.args[place]
        binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
        at = PLACE[name] + (name == "open" and not method)
        said = len(call.args) > at or any(word.arg in ("encoding", None) for word in call.keywords)
        if not (binary or said):
            found.append(call.lineno)
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("open(p)\nopen(p, 'rb')\nopen(p, 'w', encoding='utf-8')\nopen(p, 'r', 1, 'utf-8')", [1]),
        ("p.read_text()\np.read_text('utf-8')\np.write_text(x)\np.open('wb')\np.open('w')", [1, 3, 5]),
        ("os.open(p, 1)\np.open(mode='rb')\np.open()", [3]),
    ],
)
def test_the_check_sees_what_it_should(source, lines):
    assert left_to_the_locale(source) == lines


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_text_file_is_opened_as_utf_8(folder):
    wrong = {str(path): left_to_the_locale(path.read_text("utf-8")) for path in (CHECKOUT / folder).rglob("*.py")}
    assert not {path: lines for path, lines in wrong.items() if lines}


def locale_there(name: str) -> bool:
    done = subprocess.run(["locale", "-a"], capture_output=True, check=False)
    return name.lower().replace("-", "") in done.stdout.decode(errors="replace").lower().replace("-", "")


def test_a_locale_of_one_byte_a_letter_changes_nothing(tmp_path):
    """With PYTHONUTF8=0 and, where this machine has it, fr_FR.ISO-8859-1: names, texts and what is printed."""
    latin = "fr_FR.iso88591" if locale_there("fr_FR.iso88591") else "C"
    (tmp_path / "décès").mkdir()
    table = tmp_path / "décès" / "œuvre.csv"
    table.write_text("image,texte,certificate\né.png,décès →,c\n", encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "SLURM"))}
    environ |= {"LC_ALL": latin, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "jobs", "preprocess", str(table), "--out", str(tmp_path / "set")]
    done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, timeout=PATIENT_S, check=False)
    assert done.returncode == 1 and "œuvre.csv: no column text" in done.stderr.decode()


VERBS = {  # each in a process of its own, in this order; {} is the folder
    "preprocess": ["{}/décès", "--out", "{}/jeu é", "--workers", "1", "--shares", "train=1"],
    "status": ["{}/jeu é"],
    "verify": ["{}/jeu é"],
    "precompute": ["{}/jeu é", "--workers", "1"],
    "stats": ["{}/jeu é", "--out", "{}/stats é.png"],
    "train": ["{}/jeu é", "--run", "{}/essai é", "--size", "tiny", "--steps", "2", "--batch", "2", "--device", "cpu"],
    "evaluate": ["--run", "{}/essai é", "--split", "train", "--device", "cpu"],
    "transcribe": ["{}/décès", "--model", "{}/essai é", "--out", "{}/é.csv", "--review", "{}/à revoir.csv", "--xml",
                   "{}/xml é", "--device", "cpu", "--workers", "1"],
    "align": ["{}/jeu é", "--run", "{}/essai é", "--to", "lines", "--device", "cpu"],
    "inspect": ["{}/décès", "--certificate", "œuvre", "--out", "{}/œ.html"],
    "report": ["{}/essai é"],
    "runs": ["{}/essai é"],
}  # fmt: skip


def test_every_verb_reads_and_writes_utf_8_in_another_locale(tmp_path, draw):
    latin = "fr_FR.iso88591" if locale_there("fr_FR.iso88591") else "C"
    folder = tmp_path / "décès"
    folder.mkdir()
    for name in ("œuvre", "été"):
        lines = [draw(text) for text in ("choc œdème", "décès à domicile", "fièvre →")]
        page = np.full((60 * len(lines), max(line.shape[1] for line in lines)), 230, np.uint8)
        made = ""
        for number, line in enumerate(lines):
            high, wide = line.shape
            page[60 * number : 60 * number + high, :wide] = line
            box = f'HPOS="0" VPOS="{60 * number}" WIDTH="{wide}" HEIGHT="{high}"'
            made += f'<TextLine {box}><String CONTENT="décès {number} œ"/></TextLine>'
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", page)[1].tobytes())
        source = f"<sourceImageInformation><fileName>{name}.png</fileName></sourceImageInformation>"
        size = f'WIDTH="{page.shape[1]}" HEIGHT="{page.shape[0]}"'
        layout = f"<Layout><Page {size}>{made}</Page></Layout>"
        content = f"<alto><Description>{source}</Description>{layout}</alto>"
        (folder / f"{name}.xml").write_text(content, encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "SLURM"))}
    environ |= {"LC_ALL": latin, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(CHECKOUT)}
    for verb, words in VERBS.items():
        command = [sys.executable, "-m", "jobs", verb, *(word.format(tmp_path) for word in words)]
        done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, timeout=PATIENT_S, check=False)
        assert done.returncode == 0, f"{verb}: {done.stderr.decode()}"
        (done.stdout + done.stderr).decode()  # or it raises
    with open(tmp_path / "à revoir.csv", encoding="utf-8") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"décès/œuvre.png", "décès/été.png"}
    assert (tmp_path / "xml é" / "œuvre.png.xml").exists()
    index = json.loads((tmp_path / "jeu é" / "index.json").read_text(encoding="utf-8"))
    assert "œ" in index["alphabet"] and index["totals"]["train"] == 6
