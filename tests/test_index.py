"""The index: only of a whole data set, and what it says is what the shards hold."""

import json
import os

import pyarrow.parquet as pq
import pytest

from htr.alphabet import Alphabet
from htr.certificate import SPLITS
from htr.images.sources import read_source
from shards.index import merge, missing_shards, read_index
from shards.plan import Settings, make_plan
from shards.write import write_shard


def test_no_index_before_the_last_shard(tmp_path, source):
    table, images = read_source(source)
    plan = make_plan(tmp_path, table, Settings(rows=10))
    for number in range(len(plan.shards) - 1):
        write_shard(plan, number, images)
    last = plan.shards[-1]["name"]
    assert missing_shards(plan) == [last]
    with pytest.raises(FileNotFoundError, match=last):
        merge(plan)
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(ValueError, match=f"not whole, 1 of {len(plan.shards)} shards are missing.*preprocess again"):
        read_index(tmp_path)
    write_shard(plan, len(plan.shards) - 1, images)
    assert merge(plan) == read_index(tmp_path)


def test_no_data_set(tmp_path):
    with pytest.raises(ValueError, match="no data set here"):
        read_index(tmp_path)


def test_what_the_index_says(dataset):
    note = json.loads((dataset.folder / "index.json").read_text())
    assert note["rows"] == 60 == sum(dataset.totals.values()) and note["rejects"] == {}
    assert list(dataset.totals) == sorted(SPLITS) and min(dataset.totals.values()) > 0
    tars = sorted(dataset.folder.glob("*.tar"))
    assert sorted(shard["shard"] for shard in dataset.shards) == [tar.stem for tar in tars]
    assert note["bytes"] == sum(tar.stat().st_size for tar in tars)
    rows = pq.read_table(dataset.folder / "index.parquet")
    assert rows.num_rows == 60 and len(set(rows["key"].to_pylist())) == 60
    assert {"outcome", "reason", "text"}.isdisjoint(rows.column_names)  # a transcription stays in its tar


def test_the_alphabet_is_what_training_lines_show(tmp_path, build, source, draw, write_table):
    texts = {"train": ["abc", "cde"], "val": ["xyz"]}
    rows = []
    for split, lines in texts.items():
        for text in lines:
            image = source.parent / "c00-Ia.png"
            rows.append({"image": image.name, "text": text, "certificate": text, "split": split})
    table = write_table(source.parent / "split.csv", rows)
    assert build(tmp_path / "a", table).alphabet == Alphabet("abcde")
    only = write_table(source.parent / "only.csv", [row for row in rows if row["split"] == "val"])
    assert build(tmp_path / "b", only).alphabet == Alphabet("xyz")


def test_samples_of_a_split(dataset):
    for split, count in dataset.totals.items():
        table = dataset.samples(split)
        assert table.num_rows == count and set(table["split"].to_pylist()) == {split}
    some = dataset.samples("train", {"field": ["Ia", "II"], "year": ["2020"]})
    assert set(some["field"].to_pylist()) == {"Ia", "II"} and some.num_rows < dataset.totals["train"]
    shards = dataset.samples("train")["shard"].to_pylist()
    assert shards == sorted(shards)


def test_samples_that_are_not_there(dataset):
    with pytest.raises(ValueError, match=r"no column ward; there are key, .*field"):
        dataset.samples("train", {"ward": ["1"]})
    with pytest.raises(ValueError, match=r"no sample in split 'train' where .*1999.*train \d+"):
        dataset.samples("train", {"year": ["1999"]})
    with pytest.raises(ValueError, match="no sample in split 'validation'"):
        dataset.samples("validation")


def test_an_empty_data_set(tmp_path, source, build, write_table):
    rows = [{"image": "missing.png", "text": "CANARY", "certificate": str(i)} for i in range(5)]
    rows.append({"image": "c00-Ia.png", "text": "", "certificate": "9"})
    table = write_table(source.parent / "empty.csv", rows)
    with pytest.raises(ValueError, match="empty data set, all 6 rows were rejected") as error:
        build(tmp_path / "lines", table)
    assert "5 x image file is missing" in str(error.value) and "1 x no text" in str(error.value)
    assert "CANARY" not in str(error.value)


def test_a_second_merge_writes_the_same_and_a_failed_one_leaves_the_first(tmp_path, build, source, monkeypatch):
    index = build(tmp_path, source)
    before = {name: (tmp_path / name).read_bytes() for name in ("index.json", "index.parquet")}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        merge(make_plan(tmp_path, read_source(source)[0], settings_of(tmp_path)))
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))
    assert build(tmp_path, source) == index
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def settings_of(folder) -> Settings:
    return Settings(**json.loads((folder / "plan.json").read_text())["settings"])
