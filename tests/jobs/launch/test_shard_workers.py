"""Tasks that write shards: the index is merged once, however many of them see the last shard."""

import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.code_digest import cutting_code
from htr.io.sources import read_source
from htr.reliability.risk_control import needed, needed_clusters
from jobs.launch.shard_workers import cut_by_other_code, report, too_few_to_calibrate, write_missing
from shards import index
from shards.index import read_index
from shards.plan import Settings, make_plan, read_note
from shards.write import write_shard


def test_tasks_that_end_together_merge_once(tmp_path, source, monkeypatch):
    table, images = read_source(source)
    plan = make_plan(tmp_path / "lines", table, Settings(rows=10))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merged, both = [], threading.Barrier(3)

    def missing(plan, missing=index.missing_shards):
        found = missing(plan)
        if threading.current_thread().name.startswith("task") and not found:
            both.wait(200)  # all of them have seen the last shard
        return found

    monkeypatch.setattr(index, "merge", lambda plan, merge=index.merge: merged.append(1) or merge(plan))
    monkeypatch.setattr(index, "missing_shards", missing)
    ends = []
    tasks = [
        threading.Thread(
            name=f"task {number}", target=lambda: ends.append(write_missing(plan, images, forms=None, workers=1))
        )
        for number in range(3)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(200)
    assert ends == [0] * 3 and read_index(tmp_path / "lines").totals
    assert len(merged) == 1


def calibration_of(folder, certificates: int, writers: int) -> dict:
    """An index whose split calibration has so many of both; none: an empty column. -> what index.json says of it."""
    rows = max(certificates, writers)
    names = {"certificate": [f"c{row % certificates}" for row in range(rows)]}
    names["writer"] = [f"w{row % writers}" if writers else None for row in range(rows)]
    both = {name: [*values, f"{name}-of-train"] for name, values in names.items()}
    schema = pa.schema([(name, pa.string()) for name in ("certificate", "writer", "split")])
    pq.write_table(pa.table(both | {"split": ["calibration"] * rows + ["train"]}, schema), folder / "index.parquet")
    return {"totals": {"calibration": rows, "train": 1}}


@pytest.mark.parametrize("writers", [0, 1, 2])
def test_too_few_for_a_promise_is_said_with_the_number_that_calibrate_takes(tmp_path, writers):
    by, least = ("writer", needed_clusters(0.02, 0.05)) if writers > 1 else ("certificate", needed(0.02, 0.05))
    counts = (lambda count: (1, count)) if writers > 1 else (lambda count: (count, writers))
    said = too_few_to_calibrate(tmp_path, calibration_of(tmp_path, *counts(least - 1)))
    assert f"calibration has {least - 1} {by}s; a promise of 2 % takes {least} at least" in said
    assert too_few_to_calibrate(tmp_path, calibration_of(tmp_path, *counts(least))) == ""
    assert too_few_to_calibrate(tmp_path, {"totals": {"train": 1}}) == ""  # whoever made no such split wants none


def test_fields_that_are_cut_by_other_code_than_the_first_are_warned_of(tmp_path):
    """Nobody's cutting is noted where lines come as they are, nor in data sets of older versions."""
    for note, warned in (({"cutting": cutting_code()}, False), ({"cutting": "0" * 16}, True), ({}, False)):
        (tmp_path / "plan.json").write_text(json.dumps(note), encoding="utf-8")
        said = cut_by_other_code(tmp_path)
        assert bool(said) == warned and ("a promise can't see that" in said) == warned


@pytest.mark.parametrize("unit", ["line", "field"])
def test_a_plan_notes_what_code_cuts_its_fields(tmp_path, unit):
    (tmp_path / "fields.csv").write_text("image,text,certificate,field\na.png,x,c,Ia\n", encoding="utf-8")
    plan = make_plan(tmp_path / "set", read_source(tmp_path / "fields.csv")[0], Settings(unit=unit))
    assert read_note(plan.folder).get("cutting") == (cutting_code() if unit == "field" else None)


def test_preprocess_says_it(dataset, capsys):
    report(dataset.folder)
    said = capsys.readouterr().err
    assert "preprocess: split calibration has " in said and "give it a larger share (--shares)" in said
