"""The plan: decided once, the same for all workers, unmoved by next year's data."""

import dataclasses
import errno
import json
import os

import cv2
import pyarrow as pa
import pytest

from htr.certificate import SPLITS
from htr.images.sources import OURS
from shards.plan import SHARES, Settings, make_plan, read_plan

HALVES = {"train": 0.5, "test": 0.5}


def table(certificates: int, **columns: list[str]) -> pa.Table:
    """Two lines of each certificate."""
    numbers = [str(i) for i in range(certificates) for _ in range(2)]
    given = dict.fromkeys(OURS, [""] * len(numbers))
    given |= {"certificate": [f"c{n}" for n in numbers], "image": numbers, "text": [f"text {n}" for n in numbers]}
    return pa.table(given | {"field": ["Ia", "Ib"] * certificates} | columns)


def planned(plan) -> dict[str, str]:
    return {row["key"]: row["split"] for shard in range(len(plan.shards)) for row in plan.rows(shard)}


def test_every_row_is_in_one_shard_of_its_split(tmp_path):
    plan = make_plan(tmp_path, table(50), Settings(rows=8, shares=HALVES))
    found = [row for shard in range(len(plan.shards)) for row in plan.rows(shard)]
    assert sorted(row["text"] for row in found) == sorted(table(50)["text"].to_pylist())
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
    rows = [row for n in range(len(plan.shards)) for row in plan.rows(n) if row["writer"]]
    assert len({(row["writer"], row["split"]) for row in rows}) == 20


def test_next_years_data_move_nothing(tmp_path):
    before = planned(make_plan(tmp_path / "a", table(100), Settings(rows=9)))
    after = planned(make_plan(tmp_path / "b", table(300), Settings(rows=20)))
    assert before.items() <= after.items() and len(after) == 600


def test_a_given_split_is_kept_and_the_others_are_filled_in(tmp_path):
    given = ["test", "", "calibration", "dev"] * 25
    plan = make_plan(tmp_path, table(50, split=given), Settings(shares={"train": 1.0}))
    found = {row["text"] + row["field"]: row["split"] for n in range(len(plan.shards)) for row in plan.rows(n)}
    expected = table(50, split=given).to_pylist()
    assert found == {row["text"] + row["field"]: row["split"] or "train" for row in expected}


def test_an_unknown_split_names_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"split holds \['validation'\]; known are train, dev, val, calibration, test"):
        make_plan(tmp_path, table(1, split=["train", "validation"]), Settings())
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
    [{"rows": 7}, {"salt": "2"}, {"encoding": "png"}, {"quality": 90}, {"shares": HALVES}],
)
def test_other_settings_are_refused(tmp_path, change):
    make_plan(tmp_path, table(20), Settings())
    content = (tmp_path / "plan.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"planned from another source or with other settings.*give another --out"):
        make_plan(tmp_path, table(20), dataclasses.replace(Settings(), **change))
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
        f"c{i}_{f}_" for i in range(3) for f in ("Ia", "Ib")
    }
    assert json.loads((tmp_path / "plan.json").read_text())["format"] == 1


def test_the_same_name_in_another_shard_is_rejected_there(tmp_path, draw, write_table, build):
    cv2.imwrite(str(tmp_path / "line.png"), draw("grippe"))
    row = {"image": "line.png", "text": "grippe", "field": "Ia", "split": "train"}
    rows = [row | {"certificate": f"c{number % 5}"} for number in range(6)]  # the last one is the first again
    index = build(tmp_path / "set", write_table(tmp_path / "lines.csv", rows), Settings(rows=2))
    assert (len(index.shards), index.totals["train"]) == (3, 5)
    assert len(set(index.samples("train")["key"].to_pylist())) == 5
