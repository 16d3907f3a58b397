"""Rows that are fields of a certificate: found on the form, divided into lines, blank ones kept, nothing twice."""

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
import webdataset

import shards.samples
from htr.forms.fields import DeskewedScan
from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.sources import read_source
from htr.synth.scanner import stamp
from htr.synth.simulate import simulate
from jobs.status import read_state
from shards.index import merge
from shards.plan import Settings, make_plan, read_plan
from shards.retry import open_retry
from shards.sample import NOT_YET
from shards.verify import verify
from shards.write import write_shard

SCHEMA = json.loads(Path(shards.samples.__file__).with_name("sample.schema.json").read_text(encoding="utf-8"))
FIELDS = Settings(unit="field", shares={"train": 1.0}, encoding="png", rows=60)


@pytest.fixture(scope="module")
def forms() -> Forms:
    return Forms(load_templates())


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Six certificates; -> the table of their fields."""
    return simulate(tmp_path_factory.mktemp("scans"), 6, 5, severity="light")


def read(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(source: Path, folder: Path, forms: Forms, settings: Settings = FIELDS) -> tuple[list[dict], dict[int, str]]:
    """-> samples as webdataset reads them, each with its JSON as `note`; the reasons of rejected rows by number."""
    table, images = read_source(source)
    plan = make_plan(folder, table, settings)
    notes = [write_shard(plan, number, images, forms) for number in range(len(plan.shards))]
    index = merge(plan)
    assert verify(index) == []
    samples = []
    for note in (note for note in notes if note["count"]):
        for sample in webdataset.WebDataset(str(folder / f"{note['shard']}.tar"), shardshuffle=False):
            sample["note"] = json.loads(sample["json"])
            jsonschema.validate(sample["note"], SCHEMA)
            samples.append(sample)
    import pyarrow.parquet as pq

    rejects = {row["row"]: row["reason"] for row in pq.read_table(folder / "rejects.parquet").to_pylist()}
    return samples, rejects


@pytest.fixture(scope="module")
def written(scans, forms, tmp_path_factory):
    return write(scans, tmp_path_factory.mktemp("fields"), forms)


def by_field(samples: list[dict]) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for sample in samples:
        found.setdefault((sample["note"]["certificate"], sample["note"]["field"]), []).append(sample)
    return found


def inside(one: list[int], other: list[int]) -> float:
    """The share of the first box x, y, w, h that the other covers."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0) / (one[2] * one[3])


def test_every_field_of_the_form_is_there_as_what_it_is(scans, written):
    samples, rejects = written
    found, lines = by_field(samples), {}
    for line in read(scans.parent / "lines.csv"):
        lines.setdefault((line["certificate"], line["field"]), []).append(line)
    assert not rejects
    wrong = []
    for row in read(scans):
        name = row["certificate"], row["field"]
        levels = [sample["note"]["level"] for sample in found[name]]
        count = len(lines.get(name, []))
        tick = any(row["field"].endswith(end) for end in ("yes", "no", "unknown")) or row["field"].startswith("place")
        expected = ["tick"] if tick else {0: ["blank"], 1: ["line"]}.get(count, ["field"] + ["part"] * count)
        wrong += [name] * (levels != expected)
        if levels[0] in ("line", "field"):
            assert found[name][0]["txt"].decode() == row["text"]
        if tick:
            assert found[name][0]["txt"].decode() == row["text"]
            assert (found[name][0]["note"]["ink"] > 0.5) == (row["text"] == "1"), name
    assert not wrong


def test_lines_lie_where_they_were_written(scans, written):
    """The way back to the scan: the ink's box of each sample lies in the wider one of the simulator's truth."""
    found = by_field(written[0])
    for line in read(scans.parent / "lines.csv"):
        samples = [s for s in found[line["certificate"], line["field"]] if s["note"]["level"] in ("line", "part")]
        box, truth = samples[int(line["line"])]["note"]["box"], [int(v) for v in line["box"].split()]
        assert inside(box, truth) > 0.85, line["field"]
        assert box[2] > 0.8 * (truth[2] - 42) or truth[2] < 120


def test_lines_are_as_high_as_their_ink(written):
    """But at least half a pitch: a word without ascenders is not blown up to the size of capitals."""
    heights = [s["note"]["height"] / s["note"]["pitch"] for s in written[0] if s["note"]["level"] == "line"]
    assert min(heights) >= 0.49 and max(heights) < 1.8 and 0.5 < np.median(heights) < 1.1
    assert min(s["note"]["pitch"] for s in written[0] if s["note"]["level"] == "line") >= 96


def test_a_whole_field_says_where_its_lines_are(written):
    fields = [sample for sample in written[0] if sample["note"]["level"] == "field"]
    assert fields, "a seed without a field of several lines shows nothing"
    for sample in fields:
        parts = [
            s for s in written[0] if s["note"]["level"] == "part" and s["__key__"].startswith(sample["__key__"][:-3])
        ]
        assert len(sample["note"]["lines"]) == len(parts) > 1
        tops = [box[1] + box[3] / 2 for box in sample["note"]["lines"]]
        assert tops == sorted(tops)
        assert all(part["txt"] == b"" for part in parts)


@pytest.fixture
def change(scans, write_table):
    """change(rows): another table beside the scans."""
    made = []

    def make(rows: list[dict]) -> Path:
        made.append(write_table(scans.parent / f"changed-{len(made)}.csv", rows))
        return made[-1]

    yield make
    for path in made:
        path.unlink()


def test_blank_fields_that_the_source_leaves_out_are_kept(scans, written, forms, change, tmp_path):
    """The same samples, those of blank fields without a row; what nobody typed is no sample."""
    rows = [row for row in read(scans) if row["text"] not in ("", "0")]
    left_out = rows.pop(0)
    samples, rejects = write(change(rows), tmp_path, forms)
    assert not rejects
    before = {s["__key__"]: s["png"] for s in written[0] if s["note"]["level"] != "tick"}
    after = {s["__key__"]: s["png"] for s in samples if s["note"]["level"] != "tick"}
    missing = {key for key in before if key not in after}
    assert missing and all(key.startswith(f"{left_out['certificate']}_{left_out['field']}_") for key in missing)
    assert after == {key: before[key] for key in before if key not in missing}


def test_stray_ink_is_blank_where_the_source_is_to_be_trusted(scans, forms, change, tmp_path):
    row = next(row for row in read(scans) if row["field"] == "Ia" and row["text"])
    samples, rejects = write(change([{**row, "text": ""}]), tmp_path, forms, replace(FIELDS, stray="blank"))
    stray = [s for s in samples if s["note"]["field"] == "Ia"]
    assert not rejects and stray and {s["note"]["level"] for s in stray} == {"blank"}
    assert all(s["txt"] == b"" and s["note"]["box"] for s in stray)


def test_a_stamp_on_a_blank_field_is_stored_as_blank(scans, forms, change, tmp_path):
    """Nobody typed a text, and what is there is no writing: the row is no reject, and a reader learns from it."""
    table = read(scans)
    row = next(row for row in table if row["field"] == "circumstances" and not row["text"])
    page = cv2.imread(str(scans.parent / row["image"]), cv2.IMREAD_GRAYSCALE)
    upright = DeskewedScan(page, forms.register(page))
    cut = upright.cut(upright.template.field("circumstances"))
    x, y, w, h = cut.on_scan(cut.box)
    stamp(page, np.random.default_rng(1), (x + w // 2, y + h // 2))
    cv2.imwrite(str(scans.parent / "pages" / "stamped.png"), page)
    samples, rejects = write(change([{**row, "image": "pages/stamped.png"}]), tmp_path, forms)
    mine = [s for s in samples if s["note"]["field"] == "circumstances"]
    assert not rejects and mine and {s["note"]["level"] for s in mine} == {"blank"}


def test_what_is_rejected(scans, forms, change, tmp_path):
    rows = read(scans)
    one = [row for row in rows if row["certificate"] == rows[0]["certificate"]]
    blank = next(row for row in one if row["text"] == "")
    typed = next(row for row in one if row["field"] == "Ia")
    tick = next(row for row in one if row["field"] == "autopsy_yes")
    page = np.full((900, 1300), 230, np.uint8)
    cv2.putText(page, "une page qui n'est pas un certificat", (60, 300), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 60, 3)
    cv2.imwrite(str(scans.parent / "pages" / "foreign.jpg"), page)
    cases = [
        ({**blank, "text": "grippe"}, "text is given but the field is blank"),
        ({**typed, "text": " "}, "no text but the field is written on"),
        ({**typed, "field": "IIIz"}, "has no such field"),
        ({**typed, "certificate": "a", "form": "neonatal-2018"}, "the source says form neonatal-2018"),
        ({**tick, "text": "grippe"}, "a tick box is transcribed as"),
        ({**typed, "certificate": "b", "image": "pages/foreign.jpg"}, "fits no form"),
        ({**typed, "certificate": "c", "image": "pages/none.jpg"}, "image file is missing"),
        ({**typed, "certificate": "d", "text": "x" * 900}, "longer than its image can carry"),
    ]
    _, rejects = write(change([row for row, _ in cases]), tmp_path, forms)
    assert sorted(rejects) == list(range(len(cases)))
    for number, (_, reason) in enumerate(cases):
        assert reason in rejects[number]


def test_a_line_feed_for_each_line_gives_each_its_text(scans, written, forms, change, tmp_path):
    name = next(s["note"] for s in written[0] if s["note"]["level"] == "field")
    row = next(r for r in read(scans) if (r["certificate"], r["field"]) == (name["certificate"], name["field"]))
    texts = [
        line["text"]
        for line in read(scans.parent / "lines.csv")
        if (line["certificate"], line["field"]) == (name["certificate"], name["field"])
    ]
    samples, _ = write(change([{**row, "text": "\n".join(texts)}]), tmp_path, forms)
    ours = [s for s in samples if s["note"]["field"] == name["field"]]
    assert [s["note"]["level"] for s in ours] == ["field"] + ["line"] * len(texts)
    assert [s["txt"].decode() for s in ours] == [" ".join(texts), *texts]


def test_a_field_by_its_box_needs_no_form(scans, forms, change, tmp_path):
    """A user who knows where the fields are: the same lines, without a template's print to subtract."""
    line = next(line for line in read(scans.parent / "lines.csv") if line["field"] == "Ia")
    row = {name: line[name] for name in ("image", "certificate", "field", "text", "box")}
    samples, rejects = write(change([row]), tmp_path, forms)
    assert not rejects
    assert [s["note"]["level"] for s in samples] == ["line"] and samples[0]["txt"].decode() == line["text"]


def test_pages_are_stored_where_they_are_asked_for(scans, written, forms, tmp_path):
    samples, rejects = write(scans, tmp_path, forms, dataclasses.replace(FIELDS, pages=True))
    assert not rejects
    pages = [s for s in samples if s["note"]["level"] == "page"]
    assert len(pages) == 6 and len(samples) == len(written[0]) + 6
    rows = [row for row in read(scans) if row["certificate"] == pages[0]["note"]["certificate"]]
    typed = [row["text"] for row in rows if row["field"] in pages[0]["note"]["fields"] and row["text"]]
    assert pages[0]["txt"].decode().split("\n") == typed
    image = cv2.imdecode(np.frombuffer(pages[0]["png"], np.uint8), cv2.IMREAD_GRAYSCALE)
    filled = {row["field"]: bool(row["text"]) for row in rows}
    for name, (x, y, w, h) in pages[0]["note"]["fields"].items():
        inner = image[y + 10 : y + h - 16, x + 6 : x + w - 6]
        assert (inner < 120).any() == filled[name] or name == "II", name


def keyed(rows: list[dict], left: int) -> list[dict]:
    """As a review table whose last rows nobody has keyed yet."""
    waiting = {"text": "", "reject": NOT_YET}
    return [row | (waiting if number >= len(rows) - left else {"reject": ""}) for number, row in enumerate(rows)]


@pytest.mark.parametrize("pages", [False, True])
def test_a_table_keyed_in_three_sittings_gives_what_one_keyed_at_once_gives(scans, forms, change, tmp_path, pages):
    """Blank fields and whole pages too, of certificates of which nothing was keyed at first, or a part."""
    rows, settings = read(scans), dataclasses.replace(FIELDS, pages=pages, rows=20)
    last = [row["certificate"] for row in rows].index(rows[-1]["certificate"])  # its first row
    whole, rejected = write(change(keyed(rows, 0)), tmp_path / "whole", forms, settings)
    folder = tmp_path / "data"
    write(change(keyed(rows, len(rows) - last + 3)), folder, forms, settings)
    plan = read_plan(folder)
    for left in (3, 0):
        table, images = read_source(change(keyed(rows, left)))
        again = open_retry(plan, table, [])
        for number in range(len(again.shards)):
            write_shard(again, number, images, forms)
        index = merge(plan)
        assert verify(index) == []
    found = [
        sample
        for shard in index.shards
        if shard["count"]
        for sample in webdataset.WebDataset(str(folder / f"{shard['shard']}.tar"), shardshuffle=False)
    ]

    def content(samples: list[dict]) -> list[tuple]:
        return sorted((one["__key__"], one["png"], one["txt"], one["json"]) for one in samples)

    assert content(found) == content(whole)
    state = read_state(folder)
    assert (state["rows"], state["rows_done"], state["whole"]) == (len(rows), len(rows), True)
    assert state["samples"] == len(whole) and state["rejects"].total() == len(rejected)
