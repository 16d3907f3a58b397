"""Transcribe: every image, line, sample or field in the order of the input, with a reason where there is no text."""

import csv
import json
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import jobs.__main__
import jobs.transcribe
from htr.alphabet import Alphabet
from htr.images.form import Forms
from htr.images.simulate import simulate
from htr.images.template import load_templates
from htr.models import create
from htr.reader import Reader, files_of
from htr.scan import read_scan


@pytest.fixture(autouse=True)
def verb(monkeypatch) -> None:
    monkeypatch.setitem(jobs.__main__.VERBS, "transcribe", "read images, scans or a data set")
    monkeypatch.delenv("HTR_MODEL", raising=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A run's folder with a model that was never trained: what it reads depends on the image."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(4)
    made, alphabet = create("ctc", "tiny", 12), Alphabet("abcdefghijkl")
    (folder / "model").mkdir()
    for name, content in files_of(made, alphabet, "ctc", "tiny", 7).items():
        (folder / "model" / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def reader(model) -> Reader:
    return Reader.load(model / "model")


@pytest.fixture
def folder(tmp_path, draw) -> Path:
    """Five lines in two folders, one more that is damaged, a file that is none."""
    folder = tmp_path / "lines"
    for number, name in enumerate(("b.png", "a.png", "c/d.jpg", "c/a.png", "z.tif")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), draw(f"ligne {number}" * (number + 1), 40 + number))
    (folder / "c" / "b.png").write_bytes((folder / "b.png").read_bytes()[:90])
    (folder / "notes.txt").write_text("rien")
    return folder


def run(*argv: object) -> int:
    return jobs.__main__.main(["transcribe", *map(str, argv), "--device", "cpu"])


def rows_of(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fails(capsys, *argv: object) -> str:
    assert run(*argv) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def read_one(reader: Reader, gray: np.ndarray) -> str:
    return reader.read([gray])[0].text


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_folder_of_lines(folder, model, reader, tmp_path, capsys, ending):
    out = tmp_path / f"out.{ending}"
    assert run(folder, "--model", model, "--out", out) == 0
    rows = rows_of(out)
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c/a.png", "c/b.png", "c/d.jpg", "z.tif"]
    texts = set()
    for row in rows:
        if row["image"] == "c/b.png":
            assert row["text"] == "" and row["reason"] == "image is truncated" and float(row["confidence"]) == 0
            continue
        gray = cv2.imread(str(folder / row["image"]), cv2.IMREAD_GRAYSCALE)
        assert row["text"] == read_one(reader, gray) and row["reason"] == ""
        assert 0 < float(row["confidence"]) <= 1
        texts.add(row["text"])
    assert len(texts) > 2, "a reader that reads the same everywhere shows nothing"
    said = capsys.readouterr()
    assert "6 rows of 6 lines, 1 not read" in said.err and "1 x image is truncated" in said.err
    assert not [text for text in texts if len(text) > 3 and text in said.out + said.err]
    assert [path.name for path in tmp_path.iterdir()] != [] and not list(tmp_path.glob(".out*"))


def test_one_image(folder, model, reader, tmp_path):
    assert run(folder / "a.png", "--model", model / "model", "--out", tmp_path / "o.csv") == 0
    [row] = rows_of(tmp_path / "o.csv")
    assert row["text"] == read_one(reader, cv2.imread(str(folder / "a.png"), cv2.IMREAD_GRAYSCALE))


def test_a_table_of_boxes_needs_no_text(folder, model, reader, tmp_path, write_table):
    page = np.vstack([cv2.resize(cv2.imread(str(folder / f"{name}.png"), 0), (300, 40)) for name in "ab"])
    cv2.imwrite(str(folder / "page.png"), page)
    rows = [
        {"image": "page.png", "box": "0 40 300 40", "certificate": "x", "field": "Ia", "line": "1"},
        {"image": "page.png", "polygon": "0,0 299,0 299,39 0,39", "certificate": "x"},
        {"image": "page.png", "box": "900 900 30 30", "certificate": "x"},
        {"image": "../page.png"},
        {"image": "page.png", "certificate": "y"},
    ]
    table = write_table(folder / "table.csv", rows)
    assert run(table, "--model", model, "--out", tmp_path / "o.csv") == 0
    got = rows_of(tmp_path / "o.csv")
    assert [row["box"] for row in got] == ["0 40 300 40", "0 0 300 40", "900 900 30 30", "", ""]
    wanted = [read_one(reader, page[40:]), read_one(reader, page[:40]), "", "", read_one(reader, page)]
    assert [row["text"] for row in got] == wanted
    reasons = ["", "", "box lies outside the image", "image lies outside the source's folder", ""]
    assert [row["reason"] for row in got] == reasons
    assert (got[0]["certificate"], got[0]["field"], got[0]["line"]) == ("x", "Ia", "1")


def test_pages_with_alto(folder, model, reader, tmp_path):
    page = np.vstack([cv2.resize(cv2.imread(str(folder / f"{name}.png"), 0), (300, 40)) for name in "ab"])
    (tmp_path / "pages").mkdir()
    cv2.imwrite(str(tmp_path / "pages" / "p1.png"), page)
    line = '<TextLine HPOS="0" VPOS="{}" WIDTH="300" HEIGHT="40"/>'  # no text yet
    xml = f'<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Layout>{line.format(0)}{line.format(40)}</Layout></alto>'
    (tmp_path / "pages" / "p1.xml").write_text(xml)
    assert run(tmp_path / "pages", "--model", model, "--out", tmp_path / "o.jsonl") == 0
    got = rows_of(tmp_path / "o.jsonl")
    assert [(row["image"], row["line"], row["box"]) for row in got] == [
        ("p1.png", "0", "0 0 300 40"), ("p1.png", "1", "0 40 300 40")]  # fmt: skip
    assert [row["text"] for row in got] == [read_one(reader, page[:40]), read_one(reader, page[40:])]


def test_a_data_set(dataset, model, tmp_path):
    out = tmp_path / "o.parquet"
    assert run(dataset.folder, "--model", model, "--out", out) == 0
    rows = rows_of(out)
    keys = [dataset.samples(split)["key"].to_pylist() for split in ("train", "dev", "val", "calibration", "test")]
    assert [row["key"] for row in rows] == list(chain(*keys))
    assert run(dataset.folder, "--model", model, "--out", out, "--split", "train", "--where", "field=II") == 0
    some = rows_of(out)
    assert [row["key"] for row in some] == [k for k in keys[0] if "_II_" in k]
    by_key = {row["key"]: row for row in rows}
    for row in some:
        assert row["text"] == by_key[row["key"]]["text"] and row["split"] == "train" and row["field"] == "II"


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two certificates and a page that is none; -> the table of their fields."""
    table = simulate(tmp_path_factory.mktemp("scans"), 2, 5, severity="light")
    page = np.full((900, 1300), 230, np.uint8)
    cv2.imwrite(str(table.parent / "pages" / "other.png"), page)
    return table


def test_scans_of_certificates(scans, model, reader, tmp_path):
    out = tmp_path / "o.jsonl"
    assert run(scans.parent / "pages", "--unit", "field", "--model", model, "--out", out) == 0
    rows = rows_of(out)
    assert [row["image"] for row in rows][:: len(rows) - 1] == ["other.png", "sim-000001.jpg"]
    assert rows[0]["reason"].startswith("fits no form") and rows[0]["text"] == "" and rows[0]["lines"] == []
    forms = Forms(load_templates())
    for name in ("sim-000000.jpg", "sim-000001.jpg"):
        gray = cv2.imread(str(scans.parent / "pages" / name), cv2.IMREAD_GRAYSCALE)
        mine = [row for row in rows if row["image"] == name]
        for row, field in zip(mine, read_scan(gray, forms, reader), strict=True):
            assert (row["field"], row["text"], row["form"]) == (field.field, field.text, "adult-2018")
            assert row["box"] == " ".join(map(str, field.box)) and len(row["lines"]) == len(field.lines)
    # a table names them by its rows, each scan once, in its order
    assert run(scans, "--unit", "field", "--model", model, "--out", tmp_path / "o.csv") == 0
    table = rows_of(tmp_path / "o.csv")
    assert [(r["certificate"], r["field"], r["text"]) for r in table] == [
        (r["image"].removesuffix(".jpg"), r["field"], r["text"]) for r in rows[1:]
    ]
    assert all(json.loads(row["lines"]) == other["lines"] for row, other in zip(table, rows[1:], strict=True))


def test_tasks_share_the_work(folder, model, tmp_path, monkeypatch):
    assert run(folder, "--model", model, "--out", tmp_path / "o.csv") == 0
    for task in (1, 0, 2, 3):
        for name, value in (("ID", task), ("COUNT", 4), ("MIN", 0), ("MAX", 3), ("STEP", 1)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        assert run(folder, "--model", model, "--out", tmp_path / "o.csv") == 0
    parts = [rows_of(tmp_path / f"o-{task:05d}-of-00004.csv") for task in range(4)]
    assert sorted(map(len, parts)) == [1, 1, 2, 2] and list(chain(*parts)) == rows_of(tmp_path / "o.csv")


def test_a_file_appears_whole_or_not_at_all(folder, model, tmp_path, monkeypatch, capsys):
    out = tmp_path / "o.csv"
    out.write_text("an older one")
    monkeypatch.setattr(jobs.transcribe, "CHUNK", 2)
    whole, calls = Reader.read, []

    def breaks(self, *args):
        calls.append(1)
        if len(calls) > 2:
            raise OSError("no space left on device")
        return whole(self, *args)

    monkeypatch.setattr(Reader, "read", breaks)
    assert "no space left" in fails(capsys, folder, "--model", model, "--out", out)
    assert len(calls) == 3 and out.read_text() == "an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines", "o.csv"]


def test_which_reader(folder, model, tmp_path, monkeypatch, capsys):
    out = tmp_path / "o.csv"
    monkeypatch.setattr(jobs.transcribe, "PRETRAINED", tmp_path / "none")
    assert "name a model's folder or a run with --model" in fails(capsys, folder, "--out", out)
    monkeypatch.setenv("HTR_MODEL", str(model))
    assert run(folder, "--out", out) == 0
    monkeypatch.delenv("HTR_MODEL")
    monkeypatch.setattr(jobs.transcribe, "PRETRAINED", model / "model")
    assert run(folder, "--out", out) == 0
    assert "no model here" in fails(capsys, folder, "--model", folder, "--out", out)
    assert str(model / "decoding") in fails(capsys, folder, "--out", out, "--decode", "beam")


def test_what_is_refused(folder, dataset, model, tmp_path, write_table, capsys):
    def said(*argv: object) -> str:
        return fails(capsys, *argv, "--model", model)

    out = tmp_path / "o.csv"
    assert "choose a name that ends in .csv, .parquet, .jsonl" in said(folder, "--out", tmp_path / "o.xlsx")
    assert "no folder" in said(folder, "--out", tmp_path / "none" / "o.csv")
    assert "no such table, image or folder" in said(tmp_path / "none", "--out", out)
    assert "this is none (no index.json)" in said(folder, "--out", out, "--split", "val")
    assert "leave out --unit field" in said(dataset.folder, "--out", out, "--unit", "field")
    assert "no sample in split 'vall'" in said(dataset.folder, "--out", out, "--split", "vall")
    assert "no column colour" in said(dataset.folder, "--out", out, "--where", "colour=red")
    (tmp_path / "empty").mkdir()
    assert "no image (.jpg" in said(tmp_path / "empty", "--out", out)
    table = write_table(tmp_path / "t.csv", [{"picture": "a.png", "text": "secret"}])
    line = said(table, "--out", out)
    assert "no column image (it has picture, text)" in line and "secret" not in line
    twice = tmp_path / "twice.csv"
    twice.write_text("image,box,box\na.png,1,2\n")
    assert "more than one column box" in said(twice, "--out", out)
    assert not out.exists()
