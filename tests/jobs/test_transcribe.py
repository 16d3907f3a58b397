"""Transcribe: every image, line, sample or field in the order of the input, with a reason where there is no text."""

import csv
import json
import os
import shutil
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scanned_forms import scanned

import jobs.cli.command_line
import jobs.transcribe
import jobs.transcription.chunks
import jobs.transcription.predictions
from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.reader import Prediction, Reader
from htr.scan import read_scan
from htr.synth.simulate import simulate
from jobs.transcription.predictions import line_row
from shards.index import read_index
from shards.scans import Scans


@pytest.fixture(autouse=True)
def verb(monkeypatch) -> None:
    monkeypatch.setitem(jobs.cli.command_line.VERBS, "transcribe", "read images, scans or a data set")
    monkeypatch.delenv("HTR_MODEL", raising=False)


@pytest.fixture(scope="module")
def model(untrained) -> Path:
    return untrained


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
    return jobs.cli.command_line.main(["transcribe", *map(str, argv), "--device", "cpu", "--amp", "off"])


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
    other = tmp_path / "other.parquet"
    assert run(dataset.folder, "--model", model, "--out", other, "--split", "train", "--where", "field=II") == 0
    some = rows_of(other)
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


def test_forms_on_one_glass_and_half_a_form_beside_them(model, tmp_path):
    """Each is a certificate; what can't be told is one too, with the reason and no field."""
    glass = np.full((2900, 1750), 245, np.uint8)
    for number, (name, at) in enumerate((("adult-2018", 20), ("neonatal-2018", 1220), ("adult-2018", 2400))):
        image = scanned(name, 30 + number, severity="light")[0]
        part = glass[at : at + image.shape[0], 30 : 30 + image.shape[1]]
        part[:] = image[: part.shape[0], : part.shape[1]]
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "glass.png"), glass)
    assert run(tmp_path / "in", "--unit", "field", "--model", model, "--out", tmp_path / "o.csv") == 0
    rows = rows_of(tmp_path / "o.csv")
    whole = [row for row in rows if row["field"]]
    assert list(dict.fromkeys((row["certificate"], row["form"]) for row in whole)) == [
        ("glass-1", "adult-2018"), ("glass-2", "neonatal-2018")]  # fmt: skip
    [lost] = [row for row in rows if not row["field"]]
    assert lost["certificate"] == "glass-3" and lost["text"] == "" and "adult-2018" in lost["reason"]


def as_task(monkeypatch, task: int, tasks: int) -> None:
    for name, value in (("ID", task), ("COUNT", tasks), ("MIN", 0), ("MAX", tasks - 1), ("STEP", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


def bytes_of(folder: Path, *suffixes: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.suffix in suffixes}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_result_does_not_depend_on_the_tasks(folder, model, tmp_path, monkeypatch, ending):
    """Not a bit of it: of the table, of the parts, of the pages."""
    made = []
    for tasks in (1, 2, 7):
        place = tmp_path / str(tasks)
        place.mkdir()
        options = ["--model", model, "--out", place / f"o.{ending}", "--chunk", 2, "--xml", place / "xml"]
        for task in sorted(range(tasks), key=lambda task: (task != 1, task)):
            as_task(monkeypatch, task, tasks)
            assert run(folder, *options) == 0
        assert len(list((place / f"o.{ending}.parts").glob("*.parquet"))) == 3
        made.append(bytes_of(place, f".{ending}", ".parquet", ".xml"))
    assert made[0] == made[1] == made[2] and len(made[0]) == 4 + 5


def test_workers_write_what_one_writes(folder, model, tmp_path):
    for workers in (1, 2):
        out = tmp_path / f"{workers}" / "o.csv"
        out.parent.mkdir()
        assert run(folder, "--model", model, "--out", out, "--chunk", 1, "--workers", workers) == 0
    assert bytes_of(tmp_path / "1", ".csv", ".parquet") == bytes_of(tmp_path / "2", ".csv", ".parquet")


@pytest.mark.parametrize("damage", [lambda tar: os.truncate(tar, 700), Path.unlink], ids=["cut short", "gone"])
def test_a_shard_that_cannot_be_read_fails_the_task(dataset, model, tmp_path, capsys, damage):
    """ValueError and OSError alike; the next run does what is missing."""
    index = read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))
    [*_, shard] = sorted(index.folder.glob("train-*.tar"))
    content = shard.read_bytes()
    damage(shard)
    options = [index.folder, "--model", model, "--out", tmp_path / "o.csv", "--chunk", 2, "--workers", 2]
    assert shard.name in fails(capsys, *options) and not (tmp_path / "o.csv").exists()
    shard.write_bytes(content)
    assert run(*options) == 0 and len(rows_of(tmp_path / "o.csv")) == 60


def test_what_a_worker_process_cannot_write_fails_the_task(folder, model, tmp_path, capsys):
    """Of several chunks: one alone would be written again by the task's own process."""
    pages = [tmp_path / "xml" / f"{name}.xml" for name in ("b.png", "a.png", "c/d.jpg", "c/a.png")]
    for page in pages:
        page.mkdir(parents=True)
    options = [folder, "--model", model, "--out", tmp_path / "o.csv", "--chunk", 1, "--workers", 2]
    said = fails(capsys, *options, "--xml", tmp_path / "xml")
    assert any(page.name in said for page in pages) and not (tmp_path / "o.csv").exists()
    for page in pages:
        page.rmdir()
    assert run(*options, "--xml", tmp_path / "xml") == 0 and all(page.is_file() for page in pages)


def test_a_chunk_is_read_by_one_thread_whatever_the_process_had(folder, model, tmp_path, monkeypatch):
    """Sums of floats in another order are other bits."""
    seen, write = [], jobs.transcription.chunks.write_part

    def counted(*args) -> None:
        seen.append((torch.get_num_threads(), cv2.getNumThreads()))
        write(*args)

    monkeypatch.setattr("jobs.transcription.chunks.write_part", counted)
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(3)
        cv2.setNumThreads(2)
        assert run(folder, "--model", model, "--out", tmp_path / "o.csv", "--chunk", 3, "--workers", 1) == 0
        assert seen == [(1, 1)] * 2 and (torch.get_num_threads(), cv2.getNumThreads()) == (3, 2)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_an_image_that_opencv_itself_refuses_is_a_row_with_a_reason(folder, model, tmp_path, monkeypatch):
    made, whole = jobs.transcription.predictions.normalise_line, []

    def refuses(gray: np.ndarray, height: int) -> np.ndarray:
        whole.append(gray)
        if len(whole) == 2:
            raise cv2.error("CANARY: bad argument")
        return made(gray, height)

    monkeypatch.setattr("jobs.transcription.predictions.normalise_line", refuses)
    assert run(folder, "--model", model, "--out", tmp_path / "o.csv", "--workers", 1) == 0
    reasons = [row["reason"] for row in rows_of(tmp_path / "o.csv")]
    assert reasons == ["", "image can't be processed", "", "image is truncated", "", ""]
    assert [row["text"] != "" for row in rows_of(tmp_path / "o.csv")][1] is False


def test_a_row_of_several_lines_is_as_sure_as_its_least_sure_one():
    row = line_row({"item": 3}, [Prediction("un", 0.9), Prediction("deux", 0.41239), Prediction("trois", 0.7)])
    assert (row["text"], row["confidence"], row["confidences"]) == ("un deux trois", 0.4124, [0.9, 0.41239, 0.7])
    assert line_row({}, [])["confidence"] == 0.0


def test_a_part_is_on_the_disk_before_it_has_its_name(folder, model, tmp_path, commits):
    assert run(folder, "--model", model, "--out", tmp_path / "o.csv", "--chunk", 3, "--workers", 1) == 0
    assert [name for name in commits if name.endswith(".parquet")] == ["000000.parquet", "000001.parquet"]
    assert "o.csv" in commits and "summary.json" in commits


def test_lines_in_other_batches_are_read_the_same(folder, model, tmp_path):
    """Of chunks and batches texts are independent, confidences but for the rounding of floats."""
    found = []
    for chunk, batch in ((1, 1), (2, 16), (6, 16), (6, 3)):
        out = tmp_path / f"{chunk}-{batch}.jsonl"
        assert run(folder, "--model", model, "--out", out, "--chunk", chunk, "--batch", batch) == 0
        found.append(rows_of(out))
    for rows in found[1:]:
        assert [row["text"] for row in rows] == [row["text"] for row in found[0]]
        sure = [row["confidence"] for row in found[0]]
        assert [row["confidence"] for row in rows] == pytest.approx(sure, abs=2e-4)


def test_what_is_missing_is_done_and_nothing_else(folder, model, tmp_path, monkeypatch, capsys):
    """A table appears whole or not at all, and what was read before a fault is not read again."""
    out = tmp_path / "o.csv"
    out.write_text("an older one")
    options = ["--model", model, "--out", out, "--chunk", 2, "--workers", 1]
    whole, calls = Reader.read_batch, []

    def breaks(self, *args):
        calls.append(1)
        if len(calls) > 2:
            raise OSError("no space left on device")
        return whole(self, *args)

    monkeypatch.setattr(Reader, "read_batch", breaks)
    assert "no space left" in fails(capsys, folder, *options)
    assert len(calls) == 3 and out.read_text(encoding="utf-8") == "an older one"
    parts = tmp_path / "o.csv.parts"
    before = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(before) == 2 and not list(parts.glob(".*.tmp"))
    monkeypatch.setattr(Reader, "read_batch", whole)
    assert run(folder, *options) == 0
    assert "1 of its 3 chunks to read" in capsys.readouterr().err
    assert len(rows_of(out)) == 6 and {path: path.stat().st_mtime_ns for path in before} == before
    # and once more: nothing at all
    monkeypatch.setattr(Reader, "read_batch", breaks)
    written = out.stat().st_mtime_ns
    assert run(folder, *options) == 0
    assert out.stat().st_mtime_ns == written and "6 rows of 6 lines" in capsys.readouterr().err
    # other results of the same parts take no second reading
    assert run(folder, *options, "--xml", tmp_path / "xml", "--review", folder / "review.csv") == 0
    assert len(list((tmp_path / "xml").rglob("*.xml"))) == 5 and len(rows_of(folder / "review.csv")) == 6


def test_parts_of_something_else_are_not_mixed(folder, model, tmp_path, capsys):
    out = tmp_path / "o.csv"
    options = ["--model", model, "--out", out]
    assert run(folder, *options) == 0
    content = out.read_bytes()
    assert "was begun with another batch" in fails(capsys, folder, *options, "--batch", 3)
    assert "was begun with another chunk" in fails(capsys, folder, *options, "--chunk", 3)
    assert "was begun with another decode, decoding, weights" in fails(capsys, folder, "--out", out, "--decode", "beam")
    (folder / "new.png").write_bytes((folder / "a.png").read_bytes())
    said = fails(capsys, folder, *options)
    assert "is of another input (6 lines then, 7 now): what arrived since is a new batch" in said
    (folder / "new.png").unlink()
    (folder / "a.png").rename(folder / "other.png")
    assert "is of another input (6 lines then, 6 now)" in fails(capsys, folder, *options)
    assert out.read_bytes() == content


def test_a_certificate_is_never_parted(folder, model, tmp_path, write_table):
    names = ["a.png", "b.png", "c/a.png", "c/d.jpg", "z.tif"]
    rows = [{"image": names[n % 5], "certificate": f"c{n // 3}", "line": str(n)} for n in range(12)]
    table = write_table(folder / "table.csv", rows)
    assert run(table, "--model", model, "--out", tmp_path / "o.csv", "--chunk", 4) == 0
    parts = [pq.read_table(path) for path in sorted((tmp_path / "o.csv.parts").glob("*.parquet"))]
    assert [part["certificate"].to_pylist() for part in parts] == [[f"c{n}"] * 3 for n in range(4)]
    assert [row["line"] for row in rows_of(tmp_path / "o.csv")] == [str(n) for n in range(12)]


def test_a_name_that_is_not_utf_8_is_one_clear_error(folder, model, tmp_path, capsys):
    (folder / "d\udce9c\udce8s.png").write_bytes(b"")
    said = fails(capsys, folder, "--model", model, "--out", tmp_path / "o.csv")
    assert "name below it is not UTF-8" in said and "\udce9" not in said


def test_nothing_that_tells_who_is_in_a_log(folder, model, tmp_path, write_table, capsys, monkeypatch):
    """Names of files, certificates, texts: whatever happens to an image."""
    canary = "dupont-jean-1943"
    for place in ("good", "damaged", "gone", "locked"):
        (folder / f"{canary}-{place}.png").write_bytes(
            (folder / "a.png").read_bytes()[: 80 if place == "damaged" else None]
        )
    (folder / f"{canary}-gone.png").unlink()
    rows = [{"image": f"{canary}-{place}.png", "certificate": f"{canary}-{place}", "text": f"mort de {canary}"}
            for place in ("good", "damaged", "gone")]  # fmt: skip
    rows += [{"image": f"{canary}-good.png", "certificate": canary, "box": canary, "line": canary}]
    table = write_table(folder / "table.csv", rows)
    out, said = tmp_path / "o.csv", []
    options = ["--model", model, "--out", out, "--chunk", 1, "--workers", 1]

    def told() -> str:
        found = capsys.readouterr()
        said.append(found.out + found.err)
        return said[-1]

    opened = Scans.opened

    def fails_to_open(self, name: str):
        if "good" in name:
            raise OSError(5, "Input/output error", str(self.images / name))
        return opened(self, name)

    monkeypatch.setattr(Scans, "opened", fails_to_open)
    assert run(table, *options) == 1
    assert "Input/output error at sample-" in told()
    monkeypatch.setattr(Scans, "opened", opened)
    assert run(table, *options, "--xml", tmp_path / "xml", "--review", folder / "review.csv") == 0
    assert "3 not read" in told() and canary in out.read_text(encoding="utf-8") + (folder / "review.csv").read_text(
        encoding="utf-8"
    )
    assert run(folder, *options[:2], "--out", tmp_path / "p.csv", "--unit", "field") == 0
    assert "not read" in told()
    with open(folder / "review.csv", "a") as file:
        file.write("\n")
    assert run(table, *options, "--sure", 0.5, "--review", folder / "review.csv") == 1
    assert "was changed" in told()
    assert run(table, *options[:2], "--out", out, "--chunk", 2) == 1
    assert "begun with another" in told()
    assert canary not in "".join(said) and "mort" not in "".join(said)
    logs = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".json", ".log", ".claim")]
    assert logs and not [path for path in logs if canary in path.read_text(encoding="utf-8")]


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
    assert "this is not one (no index.json)" in said(folder, "--out", out, "--split", "val")
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
    (tmp_path / "away").mkdir()
    assert "so that preprocess finds them" in said(folder, "--out", out, "--review", tmp_path / "away" / "review.csv")
    assert "that ends in .csv, .parquet" in said(folder, "--out", out, "--review", folder / "review.jsonl")
    assert "the same file" in said(folder, "--out", folder / "o.csv", "--review", folder / "o.csv")
    assert "--sample needs --promise" in said(folder, "--out", out, "--sample", 3)
    assert "for images without a text" in said(dataset.folder, "--out", out, "--review", dataset.folder / "review.csv")
    assert "would be read as part of the input" in said(folder, "--out", out, "--xml", folder / "xml")
    assert "1 or more" in said(folder, "--out", out, "--chunk", 0)
    assert not out.exists() and not (tmp_path / "o.csv.parts").exists()
