"""The table of all experiments: an evaluation a row, what a run took, nothing that a broken folder could do."""

import csv
import json
import math
import os
import re
import time
from pathlib import Path

import made
import pyarrow.parquet as pq
import pytest
from beating import beats_when_watched

from jobs import collect
from jobs.cli.command_line import main
from jobs.collect import COLUMNS
from jobs.training import run_lock
from jobs.training.run_usage import usage


def collected(*words: object, out: Path) -> list[dict]:
    assert main(["collect", *map(str, words), "--out", str(out)]) == 0
    if out.suffix == ".parquet":
        return pq.read_table(out).to_pylist()
    with open(out, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs, one of them with a second evaluation, and a model's folder, which is none."""
    folder = tmp_path / "runs"
    one = made.run(folder / "one", 0.08, 4)
    made.write(one / "evaluation" / "test" / "metrics.json", made.metrics(0.1) | {"split": "test"})
    made.run(folder / "deep" / "two", 0.09, 1, lr=1, augment="none", where=[])
    made.write(folder / "model" / "config.json", {"model": "ctc"})
    (folder / "model" / "weights.safetensors").touch()
    return folder


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_row_an_evaluation(runs: Path, tmp_path: Path, ending: str):
    rows = collected(runs, out=tmp_path / f"table.{ending}")
    assert [(Path(row["run"]).name, row["evaluation"]) for row in rows] == [
        ("two", "val"),
        ("one", "test"),
        ("one", "val"),
    ]
    assert tuple(rows[0])[: len(COLUMNS)] == COLUMNS
    for row, cer in zip(rows, (0.09, 0.1, 0.08), strict=True):
        assert float(row["cer"]) == pytest.approx(cer) and float(row["cer_low"]) < cer < float(row["cer_high"])
        assert float(row["wer"]) == pytest.approx(3.4 * cer) and int(row["clusters"]) == 38
        assert row["cluster_unit"] == "writer" and row["code"] == "b60f05d7a1c2" and row["state"] == "finished"
        assert not row["reason"]
    assert [row["split"] for row in rows] == ["val", "test", "val"]
    assert [int(row["world"]) for row in rows] == [1, 4, 4]
    assert [row["setting_augment"] or None for row in rows] == ["none", None, None]
    assert {float(row["setting_lr"]) for row in rows} == {1, 0.002}
    assert not {"setting_alphabet", "setting_model"} & set(rows[0])


def test_a_run_that_is_seen_to_beat_is_not_lost(tmp_path: Path, monkeypatch):
    """Whose node's clock is two hours off, beside one that is dead."""
    monkeypatch.setattr(run_lock, "BEAT_INTERVAL_S", 0.2)
    for name in ("dead", "living"):
        run = made.run(tmp_path / name, 0.08, 4)
        made.write(run / "status.json", {"state": "running", "step": 5})
        made.write(run / "lock.json", {})
        os.utime(run / "lock.json", (time.time() - 7200,) * 2)
    beats_when_watched(monkeypatch, tmp_path / "living" / "lock.json", -7200)
    rows = collected(tmp_path, out=tmp_path / "table.csv")
    states = {Path(row["run"]).name: (row["state"], row["reason"]) for row in rows}
    assert states == {"dead": ("lost", "no heartbeat"), "living": ("running", "")}


def test_what_a_run_took(tmp_path: Path):
    run = made.run(tmp_path / "run", world=4)  # two starts of half an hour, on four GPUs and 32 CPUs
    assert {name: usage(run)[name] for name in ("hours", "gpu_hours", "cpu_hours", "starts", "hosts")} == {
        "hours": 1.0, "gpu_hours": 4.0, "cpu_hours": 32.0, "starts": 2, "hosts": 1}  # fmt: skip
    record = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    record["starts"] = [start | {"device": "cpu"} for start in record["starts"]]
    made.write(run / "provenance.json", record)
    assert usage(run)["gpu_hours"] == 0 and usage(run)["cpu_hours"] == 32
    # a start that ended before its seconds were written: no sum of the others is given out as the whole
    del record["starts"][0]["seconds"]
    made.write(run / "provenance.json", record)
    assert usage(run)["hours"] is usage(run)["gpu_hours"] is None and usage(run)["starts"] == 2
    # the status is still that of the start before
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    record["starts"][0]["seconds"] = 1800.0
    made.write(run / "provenance.json", record)
    made.write(run / "status.json", status | {"begun": "2026-11-20T08:00:00+0100"})
    assert usage(run)["hours"] is None
    (run / "provenance.json").unlink()
    assert usage(run)["hours"] is None and usage(run)["world"] == 4


def test_damage_is_a_row_with_its_reason(runs: Path, tmp_path: Path):
    (runs / "deep" / "two" / "status.json").write_text("{")
    (runs / "one" / "evaluation" / "test" / "metrics.json").write_text("[]")
    (runs / "one" / "evaluation" / "begun" / "parts").mkdir(parents=True)
    made.write(runs / "half" / "config.json", {"model": "ctc"})
    made.run(runs / "odd")
    made.write(runs / "odd" / "provenance.json", {"starts": [{"world": "many"}]})
    made.run(runs / "strange")
    metrics = made.metrics()
    made.write(
        runs / "strange" / "evaluation" / "val" / "metrics.json",
        metrics | {"interval": {"cer": "wide"}, "cer": math.nan},
    )
    rows = {(Path(row["run"]).name, row["evaluation"]): row for row in collected(runs, out=tmp_path / "table.csv")}
    reasons = {name: row["reason"] for name, row in rows.items() if row["reason"]}
    assert reasons == {
        ("two", "val"): "status.json is damaged",
        ("half", ""): "status.json missing",
        ("odd", ""): "world is not a number",
        ("one", "begun"): "the evaluation is not finished: no metrics.json",
        ("one", "test"): "evaluation/test/metrics.json is damaged",
        ("strange", "val"): "low is not a number",
    }
    assert {rows[name]["state"] for name in reasons} == {"unreadable", "finished"}
    assert rows["one", "val"]["cer"] and not rows["one", "test"]["cer"]


def test_other_users_folders_are_passed_over(runs: Path, tmp_path: Path, monkeypatch, capsys):
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert {Path(row["run"]).name for row in collected(runs, out=tmp_path / "table.csv")} == {"one"}
    assert "deep is passed over: Permission denied" in capsys.readouterr().err


def test_a_file_that_is_not_ours_to_read(runs: Path, tmp_path: Path, monkeypatch):
    read = Path.read_text

    def refused(path, *options, **named):
        if path.name == "provenance.json" and path.parent.name == "two":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *options, **named)

    monkeypatch.setattr(Path, "read_text", refused)
    rows = collected(runs, out=tmp_path / "table.csv")
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("unreadable", "Permission denied"), ("finished", ""), ("finished", "")]  # fmt: skip


def test_settings_of_different_kinds_share_a_column(tmp_path: Path):
    for name, value in (("a", 1), ("b", "auto"), ("c", None), ("d", True)):
        made.run(tmp_path / "runs" / name, workers=value, dropout=value if name == "a" else 0.5)
    rows = collected(tmp_path / "runs", out=tmp_path / "table.parquet")
    assert [row["setting_workers"] for row in rows] == ["1", "auto", None, "true"]
    assert [row["setting_dropout"] for row in rows] == [1.0, 0.5, 0.5, 0.5]


def test_markdown_for_people(tmp_path: Path):
    run = made.run(tmp_path / "runs" / "a|b<i>", 0.0835, 16, 1234.5)
    assert main(["collect", str(run), "--out", str(tmp_path / "table.md")]) == 0
    heading, rule, row = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in (heading, rule, row)}) == 1
    assert "8.35 % (6.85 to 9.85)" in row and "| 16 |" in row and "a\\|b\\<i>" in row and "| 16.00 |" in row


def test_each_run_once_and_what_is_refused(runs: Path, tmp_path: Path, capsys):
    rows = collected(runs, runs / "one", runs / "deep", out=tmp_path / "new" / "table.csv")
    assert len(rows) == 3
    for words, message in (
        ([str(tmp_path / "none"), "--out", "x.csv"], "no such folder"),
        ([str(runs), "--out", "x.xlsx"], ".csv, .parquet, .md"),
        ([str(tmp_path / "new"), "--out", "x.csv"], "no run in"),
    ):
        assert main(["collect", *words]) == 1
        assert message in capsys.readouterr().err


def test_columns_are_named_once():
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert set(collect.TEXTS) | set(collect.WHOLE) | set(collect.MAIN) <= set(COLUMNS)
