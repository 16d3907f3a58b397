"""Rejected rows once more: what is committed stays untouched, a mended row becomes a sample, the account closes."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from htr.io.sources import read_source
from jobs.cli.command_line import main
from shards.index import missing_shards, read_index
from shards.plan import read_plan
from shards.retry import open_retry, read_retries
from shards.verify import verify
from shards.write import write_shard


@pytest.fixture
def source(tmp_path, draw, write_table) -> Path:
    """Twelve lines: two images are missing, a text is missing, a row is there twice."""
    folder, rows = tmp_path / "source", []
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number}.png"), draw(f"grippe {number}"))
        rows.append({"image": f"{number}.png", "text": f"grippe {number}", "certificate": f"c{number}"})
    for number in (3, 7):
        (folder / f"{number}.png").unlink()
    rows[5]["text"] = ""
    rows.append(rows[0])
    return write_table(folder / "lines.csv", rows)


@pytest.fixture
def folder(tmp_path, source) -> Path:
    assert main(["preprocess", str(source), "--out", str(tmp_path / "lines"), "--workers", "1"]) == 0
    return tmp_path / "lines"


def retry(source: Path, folder: Path, *more: str) -> int:
    return main(["retry", str(source), "--out", str(folder), "--workers", "1", *more])


def committed(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(("index", "rejects"))
    }


def rejects(folder: Path) -> dict[int, str]:
    return {row["row"]: row["reason"] for row in pq.read_table(folder / "rejects.parquet").to_pylist()}


BEFORE = {3: "image file is missing", 5: "no text", 7: "image file is missing"}
TWICE = {12: "certificate, field and line were there before"}


def test_mended_images(source, folder, draw):
    assert rejects(folder) == BEFORE | TWICE
    before, fingerprint = committed(folder), read_index(folder).fingerprint
    cv2.imwrite(str(source.parent / "3.png"), draw("grippe 3"))
    assert retry(source, folder) == 0
    assert rejects(folder) == {5: "no text", 7: "image file is missing"} | TWICE
    after = committed(folder)
    assert {name: after[name] for name in before} == before
    assert verify(read_index(folder)) == []
    index = pq.read_table(folder / "index.parquet").to_pylist()
    assert sorted(row["row"] for row in index) == [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]
    (again,) = (row for row in index if row["row"] == 3)
    planned = {row["key"]: row for row in pq.read_table(folder / "index.parquet").to_pylist()}
    assert again["shard"].startswith(f"{again['split']}-retry01-") and again["key"] in planned
    assert read_index(folder).fingerprint != fingerprint, "a run on the data before must not resume on these"
    note = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert note["rows"] == 13 and sum(note["rejects"].values()) == 3


def test_a_duplicate_is_not_tried_again(source, folder):
    """It was rejected for what the plan knows, which no mended image changes."""
    again = open_retry(read_plan(folder), read_source(source)[0], [])
    rows = [row["row"] for number in range(len(again.shards)) for row in again.rows(number)]
    assert sorted(rows) == sorted(BEFORE) and sum(shard["rows"] for shard in again.shards) == len(BEFORE)


def test_a_second_retry_takes_what_the_first_left(source, folder, draw):
    for number, name in ((3, "retry-01"), (7, "retry-02")):
        cv2.imwrite(str(source.parent / f"{number}.png"), draw("grippe"))
        assert retry(source, folder) == 0
        assert [plan.name for plan in read_retries(folder)][-1] == name
    assert rejects(folder) == {5: "no text"} | TWICE
    assert verify(read_index(folder)) == []


def test_a_mended_table(source, folder, write_table):
    """Rows are found by their names, wherever they stand now; their split stays."""
    mended = write_table(
        source.parent / "mended.csv",
        [
            {"image": "4.png", "text": "une grippe", "certificate": "c5"},
            {"image": "4.png", "text": "another", "certificate": "c4"},  # was not rejected: not touched
        ],
    )
    before = committed(folder)
    assert retry(mended, folder) == 0
    assert set(rejects(folder)) == {3, 7, 12}
    after = committed(folder)
    assert {name: after[name] for name in before} == before
    (again,) = (row for row in pq.read_table(folder / "index.parquet").to_pylist() if row["row"] == 5)
    assert again["length"] == len("une grippe")


def test_only_for_a_reason(source, folder, draw, capsys):
    cv2.imwrite(str(source.parent / "3.png"), draw("grippe 3"))
    assert retry(source, folder, "--reason", "no text") == 0
    assert rejects(folder) == BEFORE | TWICE
    assert retry(source, folder, "--reason", "never heard of") == 0
    assert "nothing" in capsys.readouterr().err
    assert retry(source, folder, "--reason", "image file is missing") == 0
    assert set(rejects(folder)) == {5, 7, 12}


def test_an_unfinished_retry_is_finished_first(source, folder, draw):
    """Tasks that start while it runs join it; a killed one goes on."""
    plan = read_plan(folder)
    table, images = read_source(source)
    first = open_retry(plan, table, [])
    cv2.imwrite(str(source.parent / "3.png"), draw("grippe 3"))
    again = open_retry(plan, table, [])
    assert again == first and missing_shards(first)
    for number in range(len(first.shards)):
        write_shard(first, number, images)
    assert retry(source, folder) == 0
    assert 3 not in rejects(folder)


def test_a_data_set_that_is_not_whole(source, folder, capsys):
    (folder / "train-00000.json").unlink()
    assert retry(source, folder) == 1
    assert "not whole" in capsys.readouterr().err


def test_a_source_of_something_else(source, folder, write_table, capsys):
    other = write_table(source.parent / "other.csv", [{"image": "4.png", "text": "x", "certificate": "zzz"}])
    assert retry(other, folder) == 1
    assert "none of its" in capsys.readouterr().err


def test_nothing_to_do(tmp_path, source, folder, capsys, draw, write_table):
    good = write_table(source.parent / "good.csv", [{"image": "4.png", "text": "grippe", "certificate": "c4"}])
    assert main(["preprocess", str(good), "--out", str(tmp_path / "good"), "--workers", "1"]) == 0
    assert retry(good, tmp_path / "good") == 0
    assert "nothing" in capsys.readouterr().err
    assert np.all([path.name != "retry-01.json" for path in (tmp_path / "good").iterdir()])


def test_lines_without_numbers_are_found_again(tmp_path, draw, write_table, capsys):
    """Several lines of a certificate, numbered by their order: a mended row is found, or the table is refused."""
    folder, out = tmp_path / "source", tmp_path / "out"
    folder.mkdir()
    rows = [{"image": f"{n}.png", "text": f"grippe {n}", "certificate": "c"} for n in range(4)]
    for row in rows:
        cv2.imwrite(str(folder / row["image"]), draw(row["text"]))
    table = write_table(folder / "lines.csv", [row | {"text": "" if row is rows[2] else row["text"]} for row in rows])
    assert main(["preprocess", str(table), "--out", str(out), "--workers", "1"]) == 0
    assert "numbered in the order of the table" in capsys.readouterr().err
    assert rejects(out) == {2: "no text"}
    assert retry(write_table(folder / "fewer.csv", rows[1:]), out) == 1
    assert "keep all rows" in capsys.readouterr().err
    assert retry(write_table(folder / "mended.csv", rows), out) == 0
    samples = pq.read_table(out / "index.parquet", columns=["row", "line"]).to_pylist()
    assert sorted((row["row"], row["line"]) for row in samples) == [(n, str(n + 1)) for n in range(4)]


def test_totals_count_a_row_as_it_came_out_last(source, folder, draw, write_table, capsys):
    """Rows once more are no more rows; what a mended text drops takes the place of what the first one dropped."""
    texts = {3: "gr\u200bippe", 5: "\u200bune\u200b grippe", 7: "grippe"}
    for number in (3, 7):
        cv2.imwrite(str(source.parent / f"{number}.png"), draw("grippe 3"))
    for keys in ((3, 5), (7,)):
        rows = [{"image": "4.png" if key == 5 else f"{key}.png", "text": texts[key], "certificate": f"c{key}"}
                for key in keys]  # fmt: skip
        assert retry(write_table(source.parent / f"mended-{keys[0]}.csv", rows), folder) == 0
    note = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert note["dropped"] == {"U+200B": 3} and note["rows"] == 13 and note["rejects"] == {TWICE[12]: 1}
    capsys.readouterr()
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "13 of 13 rows, 12 samples" in said and "whole" in said and "1 rejected" in said
