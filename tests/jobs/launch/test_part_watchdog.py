"""A task of a verb that stands still at a part says so, and ends; one that gets on does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bed import wait_for

from jobs.launch import part_watchdog
from jobs.launch.part_watchdog import PartWatchdog, quiet_for, watch_reading
from jobs.launch.under_way import MARKS, Work, left_behind, lines_of, note_work, state_of, under_way

HERE = Path(__file__).parents[3]
# a task that has a part under way and does what argv says there
TASK = """
import os, sys, threading, time
from pathlib import Path
from jobs.distributed.heartbeat import ACTIVITY
from jobs.launch import part_watchdog
from jobs.launch.part_watchdog import watch_besides, watch_reading
from jobs.launch.under_way import under_way

part_watchdog.NOTE_AFTER_S, part_watchdog.TICK_S, part_watchdog.NOTE_INTERVAL_S = 0.2, 0.05, 0.05
folder, what = Path(sys.argv[1]), sys.argv[2]
if what == "merges":
    with watch_besides(folder / "not there yet", "merging the parts"):
        time.sleep(10000)
if what == "lists":
    with watch_reading(folder, "reading the source"):
        (folder / "fifo").open()
with under_way(folder, "train-00003"):
    if what == "reads":
        threading.Thread(target=lambda: open(folder / "fifo").read(), name="grippe").start()
        (folder / "fifo").open().read()
    if what == "loops":
        while True: pass
    while what == "waits" and not (folder / "go").exists():
        time.sleep(0.02)
    if what == "gets on":
        for _ in range(5):
            time.sleep(1); ACTIVITY.progressed()
"""


def start(folder: Path, what: str, limit: str, **environ: str) -> subprocess.Popen:
    known = os.environ | {"HTR_STEP_TIMEOUT": limit, "SLURM_JOB_ID": "17", "SLURMD_NODENAME": "node7"} | environ
    pipes = {"stderr": subprocess.PIPE, "text": True, "env": known, "cwd": HERE}
    return subprocess.Popen([sys.executable, "-c", TASK, folder, what], **pipes)


@pytest.mark.parametrize("what", ["reads", "loops"])
def test_a_task_that_stands_still_ends_and_leaves_its_part_to_others(tmp_path, what):
    os.mkfifo(tmp_path / "fifo")
    task = start(tmp_path, what, "2")
    said = task.communicate()[1]
    assert task.returncode == 75
    assert said.startswith(
        "error: train-00003: no progress for 2 s on node7, as where storage does not answer; stacks "
    )
    assert said.endswith("The same command does what is missing; if that comes again, --exclude=node7\n")
    [stacks] = (tmp_path / "logs").glob("stacks-17-train-00003-*.txt")
    assert str(stacks) in said and "most recent call first" in stacks.read_text()
    assert "grippe" not in stacks.read_text()
    assert (tmp_path / MARKS / "train-00003").exists()
    assert left_behind(tmp_path, ["train-00003"]) == ["train-00003"]


def test_what_is_no_part_ends_too_after_five_times_as_long(tmp_path):
    task = start(tmp_path, "merges", "0.4")
    said = task.communicate()[1]
    assert task.returncode == 75 and said.startswith("error: merging the parts: no progress for 2 s on node7, as where")
    [stacks] = (tmp_path / "not there yet" / "logs").glob("stacks-17-merging-the-parts-*.txt")
    assert str(stacks) in said and "most recent call first" in stacks.read_text()


def test_a_listing_that_waits_for_storage_ends_too_and_one_that_computes_gets_on(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    task = start(tmp_path, "lists", "0.4")
    said = task.communicate()[1]
    assert task.returncode == 75 and said.startswith("error: reading the source: no progress for 2 s on node7"), said
    with watch_reading(tmp_path, "reading the source") as watched:
        for _ in range(3):  # as a task does that waits until another one has made the plan
            before = watched.signs()
            time.sleep(0.01)
            assert not (tmp_path / "plan.json").exists() and watched.signs() != before


def test_while_it_stands_still_status_says_so(tmp_path):
    """Until it gets on; 0: it is never ended for it."""
    note_work(tmp_path, "evaluate", "shards", ["train-00003"])
    task = start(tmp_path, "waits", "0")
    note = tmp_path / MARKS / "train-00003.idle"
    wait_for(lambda: quiet_for(note) >= 1)
    said = list(lines_of(tmp_path, state_of(tmp_path, Work.read(tmp_path))))
    assert "train-00003 is under way on " in said[1] and ": no progress for " in said[1]
    (tmp_path / "go").touch()
    assert task.communicate()[1] == "" and task.returncode == 0
    assert not list((tmp_path / MARKS).iterdir())


def test_what_a_task_that_was_ended_said_is_not_said_of_the_next_one(tmp_path):
    note = tmp_path / MARKS / "train-00003.idle"
    note.parent.mkdir()
    note.write_text("1801")
    with under_way(tmp_path, "train-00003") as is_ours:
        assert is_ours and quiet_for(note) == 0
    assert not list(note.parent.iterdir())


def test_no_alarm_where_there_is_progress(tmp_path):
    task = start(tmp_path, "gets on", "4")
    assert task.communicate()[1] == "" and task.returncode == 0


def test_time_in_which_the_whole_process_was_stopped_does_not_count(tmp_path, monkeypatch):
    """By a clock that jumps between two looks, as after `scontrol resume`."""
    watchdog = PartWatchdog(tmp_path, "train-00003")
    times, looks = iter([0.0, 1.0, 5000.0, 5001.0]), []

    def look(_: float) -> bool:
        looks.append(watchdog.quiet)
        return len(looks) == 4

    monkeypatch.setattr(watchdog.ended, "wait", look)
    monkeypatch.setattr(part_watchdog.time, "monotonic", lambda: next(times))
    watchdog.watch()
    assert looks == [0.0, 1.0, 3.0, 4.0]


def test_the_limit(tmp_path, monkeypatch):
    monkeypatch.delenv("HTR_STEP_TIMEOUT", raising=False)
    assert PartWatchdog(tmp_path, "a").limit == part_watchdog.LIMIT_S
    monkeypatch.setenv("HTR_STEP_TIMEOUT", "40")
    assert PartWatchdog(tmp_path, "a").limit == 40
    assert quiet_for(tmp_path / "none") == 0
    (tmp_path / "half").touch()
    assert quiet_for(tmp_path / "half") == 0
