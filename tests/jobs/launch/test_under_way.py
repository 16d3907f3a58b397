"""Parts of a work that tasks share: one that lives keeps its part, one that is gone leaves it, status tells which."""

import json
import os
import shlex
import socket
import time
from pathlib import Path

import pytest
from beating import beating, beats_when_watched

from jobs.__main__ import main
from jobs.launch import under_way as module
from jobs.launch.under_way import MARKS, Work, note_work, state_of, under_way
from shards.claim import abandoned, namespace

DEAD = 2**22 + 1  # more than there are processes


def mark(folder: Path, part: str, pid: int, host: str = "", age: float = 0) -> Path:
    path = folder / MARKS / part
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{host or socket.gethostname()} {pid} {namespace()}")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_part_is_one_tasks_as_long_as_that_lives(tmp_path):
    with under_way(tmp_path, "a") as ours:
        assert ours
        with under_way(tmp_path, "a") as theirs, under_way(tmp_path, "b") as other:
            assert not theirs and other
    assert not list((tmp_path / MARKS).iterdir())
    mark(tmp_path, "a", 1, "elsewhere")
    with under_way(tmp_path, "a") as ours:
        assert not ours
    for gone in ({"pid": DEAD}, {"pid": 1, "host": "elsewhere", "age": 100}):
        mark(tmp_path, "a", **gone)
        with under_way(tmp_path, "a", stale=6) as ours:  # a fifth of it is waited for
            assert ours


@pytest.mark.parametrize("off", [-7200, 7200])
def test_what_is_done_under_way_and_left(tmp_path, monkeypatch, off):
    """`d` is done by a node whose clock is two hours off."""
    monkeypatch.setattr(module, "WATCH_S", 0.2)
    note_work(tmp_path, "evaluate", "shards", ["a", "b", "c", "d"], "parts/")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.parquet").touch()
    mark(tmp_path, "a", DEAD)  # it was killed between the commit and here
    mark(tmp_path, "b", os.getpid())
    mark(tmp_path, "c", DEAD, "node7", age=100)
    beats_when_watched(monkeypatch, mark(tmp_path, "d", DEAD, "node8", age=-off), off)
    (tmp_path / MARKS / f"d{module.IDLE}").write_text("421")
    work = Work.read(tmp_path)
    state = state_of(tmp_path, work)
    assert (state.done, state.waiting) == (1, 1)
    assert state.at_work == [("b", socket.gethostname(), 0.0), ("d", "node8", 421.0)] and state.gone == [("c", "node7")]
    said = list(module.lines_of(tmp_path, state))
    assert said[2] == "    d is under way on node8: no progress for 7 min" and "c was under way on node7" in said[3]
    (tmp_path / "work.json").write_text("{")
    with pytest.raises(ValueError, match=r"work.json is damaged"):
        Work.read(tmp_path)


def parts(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "parts").glob("*.parquet")}


def test_an_array_task_that_is_resubmitted_alone(trained, dataset, tmp_path, monkeypatch, capsys):
    """It reads what is missing and nobody has under way; status says whose tasks are gone, and what goes on."""
    import shutil

    run = shutil.copytree(trained, tmp_path / "run", symlinks=True)
    command = ["evaluate", str(dataset.folder), "--run", str(run), "--split", "train", "--device", "cpu", "--name", "a"]
    folder = run / "evaluation" / "a"
    monkeypatch.setattr("sys.argv", ["jobs", *command])
    array = {"TASK_ID": "1", "TASK_COUNT": "3", "TASK_MIN": "0", "TASK_MAX": "2"}
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", value)
    assert main(command) == 0
    assert f"left to others (python -m jobs status {folder})" in capsys.readouterr().err
    work, before = Work.read(folder), parts(folder)
    assert 0 < len(before) < len(work.parts)
    missing = sorted(set(work.parts) - before)
    held, gone = missing[0], missing[1]
    monkeypatch.setattr(module, "WATCH_S", 0.2)
    monkeypatch.setattr(module, "abandoned", lambda marks, seconds: abandoned(marks, min(seconds, 3.0)))
    mark(folder, held, os.getpid())
    mark(folder, gone, DEAD, "node7", age=100)
    main(["status", str(run)])
    said = capsys.readouterr().out
    assert f"{len(before)} of {len(work.parts)} shards" in said and f"{held} is under way on" in said
    assert f"{gone} was under way on node7: that task is gone" in said
    for name, value in {"TASK_ID": "2", "TASK_COUNT": "1", "TASK_MIN": "2", "TASK_MAX": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}", value)
    with beating(folder / MARKS / held):
        assert main(command) == 0
    assert parts(folder) == set(work.parts) - {held}
    (folder / MARKS / held).unlink()
    capsys.readouterr()
    main(["status", str(folder)])
    again = capsys.readouterr().out.rpartition("that are missing: ")[2]
    assert shlex.split(again)[3:] == command
    assert main(shlex.split(again)[3:]) == 0
    assert json.loads((folder / "metrics.json").read_text())["lines"] == dataset.totals["train"]
    assert not (folder / MARKS).exists()


def test_status_of_a_transcription(trained, dataset, tmp_path, capsys):
    out = tmp_path / "texts.parquet"
    command = ["transcribe", str(dataset.folder), "--model", str(trained), "--out", str(out), "--device", "cpu"]
    assert main([*command, "--workers", "1"]) == 0
    for path in (out, out.with_name("texts.parquet.parts")):
        assert main(["status", str(path)]) == 0
        assert "transcribe, " in capsys.readouterr().out
    (tmp_path / "other.parquet").touch()
    assert main(["status", str(tmp_path / "other.parquet")]) == 1
    assert "beside it, which transcribe makes" in capsys.readouterr().err


def test_a_hundred_thousand_parts_are_not_asked_for_one_by_one(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "modified", lambda path, modified=module.modified: asked.append(path) or modified(path))
    parts = [f"{number:06d}" for number in range(3000)]
    for part in parts[:2500]:
        (tmp_path / f"{part}.parquet").touch()
    state = module.state_of(tmp_path, Work("transcribe", "", "chunks", "", parts, 0.0))
    assert state.done == 2500 and len(asked) <= 2 * module.MAX_TIMES


def test_the_folder_goes_while_a_task_asks_for_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All is done and the task that ended last takes the marks away: there is nothing to do, and no error."""

    def taken_away(mark: Path, now: float, stale: float = 0) -> bool:
        mark.parent.rmdir()
        return False

    monkeypatch.setattr("jobs.launch.under_way.looks_gone", taken_away)
    with under_way(tmp_path, "train-00000") as ours:
        assert not ours
    assert not list(tmp_path.iterdir())


def test_what_a_node_left_that_was_switched_off_a_moment_ago(tmp_path: Path):
    """Its mark looks young, but nobody beats; one that beats is left to its task."""
    marks = tmp_path / MARKS
    marks.mkdir()
    for name in ("gone", "alive"):
        (marks / name).write_text("another-host 1")
    with beating(marks / "alive"):
        assert module.left_behind(tmp_path, ["gone", "alive", "given up"], stale=2.0) == ["gone", "given up"]
    assert [mark.name for mark in marks.iterdir()] == ["alive"]
