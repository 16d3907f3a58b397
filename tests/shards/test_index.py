"""The index: only of a whole data set, and what it says is what the shards hold."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.certificate import SPLITS
from htr.charset import Charset
from htr.io.sources import OURS, read_source
from shards import files
from shards.index import describe, merge, missing_shards, read_index, sweep
from shards.plan import Plan, Settings, make_plan
from shards.sample import NOT_META, Sample
from shards.write import Outcomes, write_shard


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
    note = json.loads((dataset.folder / "index.json").read_text(encoding="utf-8"))
    assert note["rows"] == 60 == sum(dataset.totals.values()) and note["rejects"] == {}
    assert note["levels"] == {"line": 60} and note["format"] == 2
    assert list(dataset.totals) == sorted(SPLITS) and min(dataset.totals.values()) > 0
    tars = sorted(dataset.folder.glob("*.tar"))
    assert sorted(shard["shard"] for shard in dataset.shards) == [tar.stem for tar in tars]
    assert note["bytes"] == sum(tar.stat().st_size for tar in tars)
    assert pq.read_table(dataset.folder / "rejects.parquet").num_rows == 0
    rows = pq.read_table(dataset.folder / "index.parquet")
    assert sorted(rows["row"].to_pylist()) == list(range(60))
    assert rows.num_rows == 60 and len(set(rows["key"].to_pylist())) == 60
    assert {"outcome", "reason", "text"}.isdisjoint(rows.column_names)  # a transcription stays in its tar


def test_the_alphabet_is_what_training_lines_show(tmp_path, build, source, draw, write_table):
    texts = {"train": ["abc", "cde"], "val": ["xyz"]}
    rows = []
    for split, lines in texts.items():
        for text in lines:
            image = source.parent / f"c0{len(rows)}-Ia.png"
            rows.append({"image": image.name, "text": text, "certificate": text, "split": split})
    table = write_table(source.parent / "split.csv", rows)
    assert build(tmp_path / "a", table).charset == Charset("abcde")
    only = write_table(source.parent / "only.csv", [row for row in rows if row["split"] == "val"])
    assert build(tmp_path / "b", only).charset == Charset("xyz")


def test_samples_of_a_split(dataset):
    for split, count in dataset.totals.items():
        table = dataset.samples(split)
        assert table.num_rows == count and set(table["split"].to_pylist()) == {split}
    some = dataset.samples("train", {"field": ["Ia", "II"], "year": ["2020"]})
    assert set(some["field"].to_pylist()) == {"Ia", "II"} and some.num_rows < dataset.totals["train"]
    assert dataset.samples("train", columns=["width", "key"]).column_names == ["width", "key"]
    with pytest.raises(ValueError, match="no column ward; there are"):
        dataset.samples("train", columns=["ward"])
    shards = dataset.samples("train")["shard"].to_pylist()
    assert shards == sorted(shards)


def test_samples_that_are_not_there(dataset):
    with pytest.raises(ValueError, match=r"no column ward; there are row, key, .*field"):
        dataset.samples("train", {"ward": ["1"]})
    with pytest.raises(ValueError, match=r"no sample in split 'train' where .*1999.*train \d+"):
        dataset.samples("train", {"year": ["1999"]})
    with pytest.raises(ValueError, match="no sample in split 'validation'"):
        dataset.samples("validation")


def test_an_empty_data_set(tmp_path, source, build, write_table):
    rows = [{"image": f"missing-{i}.png", "text": "CANARY", "certificate": str(i)} for i in range(5)]
    rows.append({"image": "c00-Ia.png", "text": "", "certificate": "9"})
    table = write_table(source.parent / "empty.csv", rows)
    with pytest.raises(ValueError, match="empty data set, all 6 rows were rejected") as error:
        build(tmp_path / "lines", table)
    assert "5 x image file is missing" in str(error.value) and "1 x no text" in str(error.value)
    assert "CANARY" not in str(error.value)


def test_a_second_merge_writes_the_same_and_a_failed_one_leaves_the_first(tmp_path, build, source, monkeypatch):
    index = build(tmp_path, source)
    before = {name: (tmp_path / name).read_bytes() for name in ("index.json", "index.parquet", "rejects.parquet")}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        merge(make_plan(tmp_path, read_source(source)[0], settings_of(tmp_path)))
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))
    assert build(tmp_path, source) == index
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def settings_of(folder) -> Settings:
    return Settings(**json.loads((folder / "plan.json").read_text(encoding="utf-8"))["settings"])


# ------------------------------------------------------------------------------------------------ the account, retries


@pytest.fixture
def planned(tmp_path) -> Plan:
    """Six rows in the shards train-00000 (0 1 2) and train-00001 (3 4 5)."""
    rows = [dict.fromkeys(OURS, "") | {"certificate": f"c{i}", "image": f"{i}.png"} for i in range(6)]
    return make_plan(tmp_path, pa.Table.from_pylist(rows), Settings(rows=3, shares={"train": 1.0}))


def commit(folder, name: str, outcomes: list[tuple[int | None, str]]) -> None:
    """A shard without its tar: (row of the source, level of its sample or the reason why there is none)."""
    levels = ("line", "field", "part", "blank")
    table = Outcomes([column for column in OURS if column not in NOT_META])
    for row, outcome in outcomes:
        known = dict.fromkeys(OURS, "") | {"certificate": f"c{row}", "split": "train", "row": row}
        if outcome in levels:
            text = f"{name[-1]}x" if outcome in ("line", "field") else ""
            table.add(Sample(row, f"c{row}_{outcome}", outcome, text, b"", 9, 9, None, known), 0, len(text))
        else:
            table.reject(known, outcome)
    pq.write_table(table.table(), folder / f"{name}.parquet")
    note = {"shard": name, "split": "train", "rows": len(outcomes), "bytes": 1, "sha256": name} | table.note()
    (folder / f"{name}.json").write_text(json.dumps(note))


def retry(plan: Plan, number: int, shards: list[str]) -> None:
    note = {"fingerprint": plan.fingerprint, "shards": [{"name": name, "split": "train", "rows": 1} for name in shards]}
    (plan.folder / f"retry-{number:02d}.json").write_text(json.dumps(note))


def rejects_of(plan: Plan) -> list[tuple]:
    rows = pq.read_table(plan.folder / "rejects.parquet").to_pylist()
    assert all(list(row) == ["row", "key", "certificate", "field", "line", "shard", "reason"] for row in rows)
    return [(row["row"], row["shard"], row["reason"]) for row in rows]


def test_levels(planned):
    commit(
        planned.folder, "train-00000", [(0, "field"), (0, "part"), (0, "part"), (None, "blank"), (1, "line"), (2, "no")]
    )
    commit(planned.folder, "train-00001", [(3, "line"), (4, "blank"), (5, "no image")])
    index = merge(planned)
    note = json.loads((planned.folder / "index.json").read_text(encoding="utf-8"))
    assert note["levels"] == {"field": 1, "part": 2, "blank": 2, "line": 2} and index.totals["train"] == 7
    assert note["rows"] == 6 and note["rejects"] == {"no": 1, "no image": 1} and index.charset == Charset("01x")
    assert index.samples("train")["row"].to_pylist() == [1, 3]  # of level line, unless another is named
    assert index.samples("train", {"level": ["field", "part"]})["row"].to_pylist() == [0, 0, 0]
    assert index.samples("train", {"level": ["blank"]})["row"].to_pylist() == [None, 4]
    assert index.samples("train", {"row": ["3"]})["key"].to_pylist() == ["c3_line"]
    assert rejects_of(planned) == [(2, "train-00000", "no"), (5, "train-00001", "no image")]


def test_what_came_out_last_counts(planned):
    folder = planned.folder
    commit(folder, "train-00000", [(0, "line"), (1, "no image"), (2, "no image")])
    commit(folder, "train-00001", [(3, "no text"), (4, "line"), (5, "no image")])
    first = merge(planned)
    assert [row for row, *_ in rejects_of(planned)] == [1, 2, 3, 5]
    commit(folder, "train-retry01-00000", [(1, "line"), (2, "torn"), (5, "torn")])
    retry(planned, 1, ["train-retry01-00000", "train-retry01-00001"])
    assert merge(planned) == first  # the retry is not finished: it doesn't count yet
    commit(folder, "train-retry01-00001", [(3, "field"), (3, "part")])
    second = merge(planned)
    assert rejects_of(planned) == [(2, "train-retry01-00000", "torn"), (5, "train-retry01-00000", "torn")]
    assert json.loads((folder / "index.json").read_text(encoding="utf-8"))["rejects"] == {"torn": 2}
    commit(folder, "train-retry02-00000", [(2, "line"), (5, "worn")])
    retry(planned, 2, ["train-retry02-00000"])
    third = merge(planned)
    assert rejects_of(planned) == [(5, "train-retry02-00000", "worn")]
    note = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    assert note["rejects"] == {"worn": 1} and note["rows"] == 6 and third.totals["train"] == 6
    assert third.samples("train")["row"].to_pylist() == [0, 4, 1, 2]
    assert [shard["shard"] for shard in third.shards][2:] == [
        "train-retry01-00000", "train-retry01-00001", "train-retry02-00000"
    ]  # fmt: skip
    assert len({index.fingerprint for index in (first, second, third)}) == 3  # more samples are another data set


@pytest.mark.parametrize(
    ("shard", "retried", "counts"),
    [
        ([(3, "line"), (4, "line")], [], (1, 0, 0)),
        ([], [], (3, 0, 0)),
        ([(3, "line"), (4, "line"), (5, "line"), (5, "no")], [], (0, 1, 0)),
        ([(3, "line"), (4, "line"), (5, "no"), (5, "no")], [], (0, 0, 1)),
        ([(3, "line"), (4, "line"), (5, "no"), (1, "line")], [], (0, 0, 1)),  # row 1 is in the other shard too
        ([(3, "line"), (4, "line"), (5, "no"), (2, "no")], [], (0, 0, 1)),
        ([(3, "line"), (4, "line"), (5, "no"), (2, "line")], [], (0, 1, 0)),
        ([(3, "line"), (4, "line"), (5, "no")], [(4, "line")], (0, 0, 1)),  # nothing was wrong with it
        ([(3, "line"), (4, "line"), (5, "no")], [(4, "no")], (0, 1, 1)),
    ],
)
def test_an_account_that_does_not_close(planned, shard, retried, counts):
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", shard)
    if retried:
        commit(planned.folder, "train-retry01-00000", retried)
        retry(planned, 1, ["train-retry01-00000"])
    message = "account of 6 rows does not close: {} are neither a sample nor rejected, {} are both, {} are there twice"
    with pytest.raises(ValueError, match=message.format(*counts)):
        merge(planned)
    assert not list(planned.folder.glob("index.*")) and not list(planned.folder.glob(".*"))


@pytest.mark.parametrize("row", [-1, 6])
def test_rows_of_another_plan(planned, row):
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (row, "no")])
    with pytest.raises(ValueError, match="rows beyond the plan's 6"):
        merge(planned)


def test_leftovers_are_swept_but_not_those_of_a_retry_that_runs(planned):
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (5, "no")])
    stays = {".train-retry01-00000.tar.node-1-ab.tmp", ".task-3.json"}
    names = {".train-00001.tar.node-1-ab.tmp", ".index.parquet.node-1-ab.tmp", ".rejects.parquet.node-1-ab.tmp"}
    for name in stays | names | {".index.json.node-1-ab.tmp", ".plan.claim", ".plan.claim.ab.tmp"}:
        (planned.folder / name).touch()
    merge(planned)
    assert {path.name for path in planned.folder.glob(".*")} == stays


def test_a_merge_that_is_killed_leaves_no_leftover_beside_the_index(planned, monkeypatch):
    """A folder with index.json is never swept again."""

    class Killed(BaseException):
        pass

    def killed(path, content, real=files.replace) -> None:
        real(path, content)
        raise Killed

    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (5, "no")])
    (planned.folder / ".train-00001.tar.node-1-ab.tmp").touch()
    monkeypatch.setattr(files, "replace", killed)
    with pytest.raises(Killed):
        merge(planned)
    assert (planned.folder / "index.json").exists() and not list(planned.folder.glob(".*"))


def test_what_is_merged_is_on_the_disk_before_it_has_its_name(planned, commits):
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (5, "no")])
    merge(planned)
    assert commits == ["index.parquet", "rejects.parquet", "index.json"]


def test_merges_that_meet(planned, monkeypatch):
    """One is done, and sweeps, while the other is about to commit."""
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (5, "no")])
    once = []

    def overtaken(*args):
        content = describe(*args)
        if not once:
            once.append(True)
            merge(planned)
        return content

    monkeypatch.setattr("shards.index.describe", overtaken)
    index = merge(planned)
    assert index == read_index(planned.folder) and index.totals["train"] == 4
    assert sorted(path.name for path in planned.folder.iterdir() if not path.name.startswith(("plan", "train"))) == [
        "index.json", "index.parquet", "rejects.parquet"
    ]  # fmt: skip


def test_a_merge_whose_files_were_swept_by_one_that_was_killed(planned, monkeypatch):
    commit(planned.folder, "train-00000", [(0, "line"), (1, "line"), (2, "no")])
    commit(planned.folder, "train-00001", [(3, "line"), (4, "line"), (5, "no")])
    once = []

    def swept(*args):
        if not once:
            once.append(True)
            sweep(planned.folder, {"index", "rejects"})
        return describe(*args)

    monkeypatch.setattr("shards.index.describe", swept)
    monkeypatch.setattr("shards.index.appears", lambda path, content: False)
    assert merge(planned).totals["train"] == 4
