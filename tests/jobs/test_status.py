"""How far a preprocess is: before, while and after, from the folder alone."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from htr.io.sources import read_source
from jobs.cli.command_line import main
from jobs.launch import worker_status
from jobs.launch.under_way import note_work
from jobs.launch.worker_status import StatusWriter
from jobs.status import duration, read_state
from jobs.training.config import write_adopted
from shards.plan import Settings, make_plan
from shards.write import write_shard


@pytest.fixture
def begun(tmp_path, source):
    """A plan of seven shards or more, two of which are written."""
    plan = make_plan(tmp_path / "lines", read_source(source)[0], Settings(rows=7, shares={"train": 1.0}))
    for number in (0, 1):
        write_shard(plan, number, source.parent)
    return plan


def test_while_somebody_is_at_work(begun, capsys, monkeypatch):
    monkeypatch.setattr(StatusWriter, "before", (0, 0.0))
    with StatusWriter(begun.folder, task=2, shard="train-00002", rows=7) as writer:
        assert main(["status", str(begun.folder)]) == 0 and "at work" in capsys.readouterr().out
        monkeypatch.setattr(worker_status, "time", SimpleNamespace(monotonic=lambda: writer.began + 2))
        writer.write(3, 1)
        state = read_state(begun.folder)
        assert (state["shards"], state["done"], state["rows"], state["rows_done"]) == (9, 2, 60, 14)
        assert state["left"] == 60 - 14 - 4 and state["rate"] == 2 and not state["whole"]
        assert main(["status", str(begun.folder)]) == 0
    said = capsys.readouterr().out
    assert "2 of 9 shards, 14 of 60 rows" in said and "left" in said
    assert re.search(r"train-00002 │ 4 of 7", said)


def test_while_nobody_is(begun, capsys):
    main(["status", str(begun.folder)])
    assert "nobody is at work" in capsys.readouterr().out


def test_when_it_is_whole(dataset, capsys):
    main(["status", str(dataset.folder)])
    assert "whole" in capsys.readouterr().out


def test_no_file_is_asked_for_twice_nor_each_shard_of_a_whole_set(begun, dataset, source, monkeypatch):
    read, real = [], Path.read_text

    def counted(path: Path, *how, **more) -> str:
        read.append(path.name)
        return real(path, *how, **more)

    monkeypatch.setattr(Path, "read_text", counted)
    assert read_state(dataset.folder)["samples"] == sum(dataset.totals.values())
    assert not [name for name in read if name.startswith(("train-", "dev-", "val-"))]
    known: dict = {}
    assert read_state(begun.folder, known)["done"] == 2
    write_shard(begun, 4, source.parent)
    read.clear()
    state = read_state(begun.folder, known)
    assert (state["done"], state["rows_done"]) == (3, 21)
    assert [name for name in read if name.startswith("train-")] == ["train-00004.json"]


def test_when_only_the_index_is_missing(tmp_path, dataset, capsys):
    folder = shutil.copytree(dataset.folder, tmp_path / "lines")
    (folder / "index.json").unlink()
    main(["status", str(folder)])
    assert "the index is not" in capsys.readouterr().out


def test_no_data_set(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 1
    assert "was begun here" in capsys.readouterr().err


@pytest.mark.parametrize("step", [None, 7])
def test_a_run_that_trains(tmp_path, capsys, step):
    """From its first moment on, when status.json is all that there is."""
    (tmp_path / "status.json").write_text(json.dumps({"state": "starting", "step": step, "steps": 20}))
    if step:
        (tmp_path / "config.yaml").write_text("model: {architecture: ctc, size: tiny}\n")
        (tmp_path / "lock.json").write_text("{}")
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path}: training" in said and ("step 7 of 20" in said) == bool(step)


def test_a_run_is_watched_to_its_end(tmp_path, capsys, monkeypatch):
    (tmp_path / "config.yaml").write_text("model: {architecture: ctc, size: tiny}\n")
    (tmp_path / "lock.json").write_text("{}")
    states = [("running", 7), ("running", 9), ("finished", 20)]

    def goes_on(_) -> None:
        state, step = states.pop(0)
        (tmp_path / "status.json").write_text(json.dumps({"state": state, "step": step, "steps": 20}))

    goes_on(None)
    monkeypatch.setattr("jobs.status.time.sleep", goes_on)
    assert main(["status", str(tmp_path), "--watch"]) == 0
    said = capsys.readouterr().out
    assert [line.split("step ")[1].split(" ")[0] for line in said.splitlines()] == ["7", "9", "20"]


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_that_trains_on_after_an_evaluation(tmp_path, capsys, monkeypatch, ended):
    """Both are told, and watched until both have ended."""
    (tmp_path / "config.yaml").write_text("model: {architecture: ctc, size: tiny}\n")
    (tmp_path / "lock.json").write_text("{}")
    parts = tmp_path / "evaluation" / "val-000007"
    parts.mkdir(parents=True)
    note_work(parts, "evaluate", "shards", ["val-00000"])
    if ended:
        (parts / "val-00000.parquet").touch()
    states = ["running", "finished", "finished"]

    def goes_on(_) -> None:
        status = {"state": states.pop(0), "step": 20 - 5 * len(states), "steps": 20}
        (tmp_path / "status.json").write_text(json.dumps(status))
        if not states:
            (parts / "val-00000.parquet").touch()

    goes_on(None)
    monkeypatch.setattr("jobs.status.time.sleep", goes_on)
    assert main(["status", str(tmp_path), "--watch"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert [line.split(", ")[1] for line in lines[::2]] == ["running", "finished", "finished"][: len(lines) // 2]
    assert lines[-1].endswith("evaluate, 1 of 1 shards") and len(lines) == (4 if ended else 6)


def test_a_model_s_run_folder_is_no_training_that_has_just_begun(tmp_path, capsys):
    write_adopted(tmp_path, {"architecture": "ctc", "size": "tiny"}, {"adopted": "given"})
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "trained elsewhere" in said and "damage" not in said


@pytest.mark.parametrize(("seconds", "said"), [(3, "3 seconds"), (90, "1.5 minutes"), (86400 * 2, "2.0 days")])
def test_durations(seconds, said):
    assert duration(seconds) == said
