"""The plan: decided once, the same for all workers, unmoved by next year's data."""

import dataclasses
import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.certificate import SPLITS
from htr.io.sources import OURS, read_source
from shards.plan import SHARES, Settings, make_plan, open_plan, read_plan

HALVES = {"train": 0.5, "test": 0.5}
ONE = Settings(shares={"train": 1.0})


def table(certificates: int, **columns: list[str]) -> pa.Table:
    """Two lines of each certificate."""
    numbers = [str(i) for i in range(certificates) for _ in range(2)]
    given = dict.fromkeys(OURS, [""] * len(numbers))
    given |= {"certificate": [f"c{n}" for n in numbers], "image": numbers, "text": [f"text {n}" for n in numbers]}
    return pa.table(given | {"field": ["Ia", "Ib"] * certificates} | columns)


def rows_of(plan) -> list[dict]:
    return [row for shard in range(len(plan.shards)) for row in plan.rows(shard)]


def planned(plan) -> dict[tuple[str, str], str]:
    return {(row["certificate"], row["field"]): row["split"] for row in rows_of(plan)}


def test_every_row_is_in_one_shard_of_its_split(tmp_path):
    plan = make_plan(tmp_path, table(50), Settings(rows=8, shares=HALVES))
    found = rows_of(plan)
    source = table(50).to_pylist()
    assert sorted(row["row"] for row in found) == list(range(100))
    assert all(
        source[row["row"]] == {name: row[name] for name in OURS if name != "split"} | {"split": ""} for row in found
    )
    for number, shard in enumerate(plan.shards):
        rows = plan.rows(number)
        assert shard["rows"] == len(rows) <= 8
        assert {row["split"] for row in rows} == {shard["split"]} and shard["name"].startswith(shard["split"])
    images = [int(row["image"]) for row in found if row["split"] == "train"]
    assert images == sorted(images)  # the order of the source: a page is read once
    assert len({shard["name"] for shard in plan.shards}) == len(plan.shards)


def test_a_certificate_or_a_writer_is_in_one_split(tmp_path):
    plan = make_plan(tmp_path / "c", table(200), Settings(shares=HALVES))
    groups = {(row["certificate"], row["split"]) for n in range(len(plan.shards)) for row in plan.rows(n)}
    assert len(groups) == 200 and {split for _, split in groups} == {"train", "test"}
    writers = [f"w{i // 2 % 20}" if i % 7 else "" for i in range(400)]
    plan = make_plan(tmp_path / "w", table(200, writer=writers), Settings(shares=HALVES))
    assert len({(row["writer"], row["split"]) for row in rows_of(plan) if row["writer"]}) == 20
    # a row whose writer is not known goes where the others of its certificate go
    assert len({(row["certificate"], row["split"]) for row in rows_of(plan)}) == 200


def test_next_years_data_move_nothing(tmp_path):
    before = planned(make_plan(tmp_path / "a", table(100), Settings(rows=9)))
    after = planned(make_plan(tmp_path / "b", table(300), Settings(rows=20)))
    assert before.items() <= after.items() and len(after) == 600


def test_a_given_split_is_kept_and_the_others_are_filled_in(tmp_path):
    given = [split for split in ("test", "", "calibration", "dev", "") * 10 for _ in range(2)]
    plan = make_plan(tmp_path, table(50, split=given), Settings(shares={"train": 1.0}))
    assert {row["row"]: row["split"] for row in rows_of(plan)} == {i: s or "train" for i, s in enumerate(given)}


def test_an_unknown_split_names_the_choices_and_the_row_and_shows_no_cell(tmp_path):
    """A column that has slipped holds texts."""
    with pytest.raises(ValueError, match=r"^row 2 of .* \(3 of 4 .* takes train, dev, val, calibration, test") as said:
        make_plan(tmp_path, table(2, split=["train", "grippe", "AVC", "grippe"]), Settings())
    assert "grippe" not in str(said.value) and "AVC" not in str(said.value)
    assert not list(tmp_path.iterdir())


def test_the_same_plan_again_is_taken_and_the_same_anywhere(tmp_path):
    one = make_plan(tmp_path / "one", table(20), Settings())
    before = {path: path.stat().st_mtime_ns for path in one.folder.iterdir()}
    again = make_plan(tmp_path / "one", table(20), Settings())
    assert again == one == read_plan(one.folder)
    assert {path: path.stat().st_mtime_ns for path in one.folder.iterdir()} == before
    two = make_plan(tmp_path / "two", table(20), Settings())
    for name in ("plan.json", "plan.parquet"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    assert sorted(path.name for path in one.folder.iterdir()) == ["plan.json", "plan.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 7},
        {"salt": "2"},
        {"encoding": "png"},
        {"quality": 90},
        {"shares": HALVES},
        {"unit": "field"},
        {"forms": "abc"},
        {"rulings": "remove"},
        {"years": "train=-"},
        {"share": ["writer"]},
    ],
)
def test_other_settings_are_refused(tmp_path, change):
    make_plan(tmp_path, table(20, year=["2020"] * 40), Settings())
    content = (tmp_path / "plan.parquet").read_bytes()
    name = next(iter(change))
    message = rf"planned from another source or with other settings \({name} .*give another --out"
    with pytest.raises(ValueError, match=message):
        make_plan(tmp_path, table(20, year=["2020"] * 40), dataclasses.replace(Settings(), **change))
    assert (tmp_path / "plan.parquet").read_bytes() == content


def test_another_source_is_refused_without_its_text(tmp_path):
    make_plan(tmp_path, table(3), Settings())
    with pytest.raises(ValueError, match="another source") as error:
        make_plan(tmp_path, table(3, text=["CANARY"] * 6), Settings())
    assert "CANARY" not in str(error.value)


def test_a_plan_that_was_tampered_with(tmp_path):
    make_plan(tmp_path, table(3), Settings())
    make_plan(tmp_path / "other", table(4), Settings())
    os.replace(tmp_path / "other" / "plan.parquet", tmp_path / "plan.parquet")
    with pytest.raises(ValueError, match=r"plan\.parquet is not what plan\.json was made for"):
        make_plan(tmp_path, table(3), Settings())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shares": {"train": 0.9}}, "must sum to 1"),
        ({"shares": {"train": 1.2, "test": -0.2}}, "must sum to 1"),
        ({"shares": {"train": 0.9, "validation": 0.1}}, "train, dev, val, calibration, test"),
        ({"shares": {}}, "must sum to 1"),
        ({"rows": 0}, "at least one row"),
        ({"encoding": "tiff"}, "jpg or png"),
        ({"unit": "page"}, "a line or a field, not page"),
        ({"rulings": "blur"}, "choose keep or remove"),
        ({"share": ["hand"]}, "certificate, image, writer, not hand"),
        ({"years": "train=2019,val=2018-2020"}, "overlap"),
    ],
)
def test_settings_that_make_no_sense(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)
    assert set(SHARES) == set(SPLITS)


def test_no_plan(tmp_path):
    with pytest.raises(ValueError, match="no data set here"):
        read_plan(tmp_path)


@pytest.mark.parametrize("good", range(4))
def test_a_full_disk_leaves_no_plan(tmp_path, monkeypatch, good):
    """However many files could be synced before the disk was full (the third is the folder, after the commit)."""
    fsync, done = os.fsync, []

    def full(handle: int) -> None:
        if len(done) == good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(fsync(handle))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        if good < 3:
            with pytest.raises(OSError, match="No space"):
                make_plan(tmp_path, table(3), Settings())
    assert {path.name for path in tmp_path.iterdir()} <= {"plan.json", "plan.parquet"}  # and no temporary file
    if good < 2:
        assert not (tmp_path / "plan.json").exists()
    assert planned(make_plan(tmp_path, table(3), Settings())).keys() == {
        (f"c{i}", f) for i in range(3) for f in ("Ia", "Ib")
    }
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))["format"] == 2


def test_the_same_name_in_another_shard_is_rejected_there(tmp_path, draw, write_table, build):
    cv2.imwrite(str(tmp_path / "line.png"), draw("grippe"))
    row = {"image": "line.png", "text": "grippe", "field": "Ia", "split": "train"}
    rows = [row | {"certificate": f"c{number % 5}"} for number in range(6)]  # the last one is the first again
    index = build(tmp_path / "set", write_table(tmp_path / "lines.csv", rows), Settings(rows=2))
    assert (len(index.shards), index.totals["train"]) == (3, 5)
    assert len(set(index.samples("train")["key"].to_pylist())) == 5


def test_the_plan_is_of_the_content_however_it_is_stored(tmp_path):
    strings = table(40)
    pieces = pa.concat_tables([strings.slice(start, 7) for start in range(0, 80, 7)])
    codes = pa.table({name: strings[name].dictionary_encode() for name in strings.column_names})
    bytes_of = {
        (tmp_path / name / "plan.parquet").read_bytes()
        for name, kind in {"strings": strings, "pieces": pieces, "codes": codes}.items()
        if make_plan(tmp_path / name, kind, Settings(rows=9))
    }
    assert len(bytes_of) == 1
    assert len({read_plan(tmp_path / name).fingerprint for name in ("strings", "pieces", "codes")}) == 1


def test_cells_that_run_together_are_another_plan(tmp_path):
    one = make_plan(tmp_path / "one", table(1, text=["ab", "c"]), Settings())
    other = make_plan(tmp_path / "other", table(1, text=["a", "bc"]), Settings())
    assert one.fingerprint != other.fingerprint


# ------------------------------------------------------------------------------------------------ many tasks at once


@pytest.fixture
def lines(tmp_path, write_table) -> Path:
    rows = [{"image": f"{i}.png", "text": f"CANARY {i}", "certificate": str(i)} for i in range(30)]
    return write_table(tmp_path / "source" / "lines.csv", rows)


def test_open_plan_reads_the_rows_once(tmp_path, lines, monkeypatch):
    made, images = open_plan(tmp_path / "set", lines, Settings())
    again = make_plan(tmp_path / "other", read_source(lines)[0], Settings())
    assert images == lines.parent and (made.fingerprint, made.shards) == (again.fingerprint, again.shards)
    with monkeypatch.context() as patch:
        patch.setattr("htr.io.sources.read_source", lambda _: pytest.fail("the rows were read again"))
        assert open_plan(tmp_path / "set", lines, Settings())[0] == made
        with pytest.raises(ValueError, match=r"another source or with other settings \(rows 1000, now 7\)"):
            open_plan(tmp_path / "set", lines, Settings(rows=7))
        with lines.open("a") as file:
            file.write("more.png,CANARY,c\n")
        with pytest.raises(ValueError, match=r"other settings \(another source\): give another --out") as error:
            open_plan(tmp_path / "set", lines, Settings())
    assert "CANARY" not in str(error.value)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["plan.json", "plan.parquet"]


def test_open_plan_of_a_plan_made_in_memory_compares_the_rows(tmp_path, lines):
    made = make_plan(tmp_path / "set", read_source(lines)[0], Settings())
    assert open_plan(tmp_path / "set", lines, Settings())[0] == made
    lines.write_text(lines.read_text(encoding="utf-8").replace("CANARY", "other"))
    with pytest.raises(ValueError, match="another source"):
        open_plan(tmp_path / "set", lines, Settings())


def test_open_plan_sees_rows_that_were_tampered_with(tmp_path, lines):
    open_plan(tmp_path / "set", lines, Settings())
    with (tmp_path / "set" / "plan.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"plan\.parquet is not what plan\.json was made for"):
        open_plan(tmp_path / "set", lines, Settings())


def test_tasks_that_start_at_once_plan_once(tmp_path, lines, monkeypatch):
    reads = []

    def slow(source: Path, *more):
        reads.append(source)
        time.sleep(0.3)
        return read_source(source, *more)

    monkeypatch.setattr("htr.io.sources.read_source", slow)
    with ThreadPoolExecutor(8) as pool:
        plans = list(pool.map(lambda _: open_plan(tmp_path / "set", lines, Settings())[0], range(8)))
    assert len(reads) == 1 and all(plan == plans[0] for plan in plans)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["plan.json", "plan.parquet"]


def test_a_source_at_fault_fails_every_task_and_can_be_mended(tmp_path, lines, monkeypatch):
    content = lines.read_text(encoding="utf-8")
    lines.write_text(content.replace("image", "picture"))

    def slow(source: Path, *more):
        time.sleep(0.3)
        return read_source(source, *more)

    def attempt(_) -> str:
        try:
            open_plan(tmp_path / "set", lines, Settings())
        except ValueError as error:
            return str(error)
        return ""

    with monkeypatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr("htr.io.sources.read_source", slow)
        messages = list(pool.map(attempt, range(8)))
    assert all("no column image" in message for message in messages)
    lines.write_text(content)
    open_plan(tmp_path / "set", lines, Settings())
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["plan.json", "plan.parquet"]


def test_the_footer_of_a_plan_is_read_once(tmp_path, source, monkeypatch):
    """It grows with the number of shards, and a worker writes many."""
    table, _ = read_source(source)
    plan = make_plan(tmp_path, table, Settings(rows=10))
    read = []
    monkeypatch.setattr(pq, "read_metadata", lambda path, real=pq.read_metadata: read.append(path) or real(path))
    rows = [row["row"] for number in range(len(plan.shards)) for row in plan.rows(number)]
    assert sorted(rows) == list(range(60)) and len(plan.shards) > 3 and len(read) == 1
