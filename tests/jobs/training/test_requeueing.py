"""What becomes of the job of a run that hung: back into the queue once, and again only where it came further."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.sentinel import ANOTHER
from jobs.training.requeueing import again_after_hang, note_not_queued


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that job 17 holds, on a node whose scontrol notes what it is asked."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "lock.json").write_text('{"job": "17", "restart": 0}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    ACTIVITY.__init__()
    yield tmp_path
    ACTIVITY.__init__()


def asked(run) -> int:
    return (run / "asked").read_text().count("requeue 17") if (run / "asked").exists() else 0


def test_a_job_that_hung_before_its_first_step_comes_back_once(run):
    """Its node may be at fault: a mount that is gone there, a file that is a pipe."""
    assert again_after_hang(run, 20, "no step") == "the job is queued again, 1 of 20 --requeues"
    said = again_after_hang(run, 20, "no step")
    assert "not queued again: it hung before, at step 0, and came no further: another node does not help" in said
    assert asked(run) == 1 and json.loads((run / "status.json").read_text())["requeues"] == 1


def test_a_job_that_comes_further_each_time_comes_back_until_its_requeues_are_spent(run):
    for step, number in ((10, 1), (30, 2)):
        ACTIVITY.took(step)
        assert again_after_hang(run, 2, "no step") == f"the job is queued again, {number} of 2 --requeues"
    ACTIVITY.took(31)
    assert "not queued again: 2 of 2 --requeues" in again_after_hang(run, 2, "no step")
    assert asked(run) == 2 and "no step" in (run / "logs" / "train.log").read_text()


def test_a_run_that_is_another_jobs_now_is_left_alone(run):
    (run / "lock.json").write_text('{"job": "17", "restart": 1}')
    assert "the run is not its own any more" in again_after_hang(run, 20, "no step")
    assert not asked(run) and not (run / "status.json").exists()


def test_a_sentinel_hears_that_another_rank_came_first(run, monkeypatch):
    """By the exit status: it must not end its rank, and with it the step, before that rank has done it."""
    command = [sys.executable, "-m", "jobs.training.requeueing", run, "20", "7", "no step"]
    (run / ".heartbeat").mkdir()
    monkeypatch.chdir(Path(__file__).parents[3])
    assert subprocess.call(command) == 0 and asked(run) == 1
    assert subprocess.call(command) == ANOTHER and asked(run) == 1


def test_a_job_that_slurm_does_not_take_back_is_not_waited_for(run):
    """At its time limit it had said that it is queued again."""
    told = {"state": "stopped", "reason": "time limit: the job is queued again, 3 of 20 --requeues", "requeues": 3}
    for job, changed in (("17", True), ("18", False)):  # 18: another one has the run already
        (run / "status.json").write_text(json.dumps(told | {"job": job}))
        said = note_not_queued(run, "scontrol is disabled")
        status = json.loads((run / "status.json").read_text())
        assert said == "the job is not queued again: scontrol is disabled; start it again to go on"
        assert (status["reason"] == f"time limit: {said}", status["requeues"] == 2) == (changed, changed)
    assert (run / "logs" / "train.log").read_text().count(said) == 1
