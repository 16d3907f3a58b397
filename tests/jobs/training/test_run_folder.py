"""The run folder's lock and what it tells others."""

import contextlib
import errno
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from beating import beats_when_watched
from bed import wait_for

from jobs.training import checkpoint, run_lock
from jobs.training.config import DataConfig, ModelConfig, RuntimeConfig, TrainConfig, read_run
from jobs.training.run_folder import RunFolder
from jobs.training.run_lock import STALE_AFTER_S
from shards import files

CONFIG = TrainConfig()


def begin(folder: Path, job: str = "11", workers: int | None = None, model: str = "ctc") -> RunFolder:
    """`workers` may change on resume, `model` may not."""
    config = replace(CONFIG, runtime=RuntimeConfig(workers=workers), model=ModelConfig(architecture=model))
    return RunFolder(folder, config, {}, job)


def held_elsewhere(folder: Path, job: str, age: float = 0) -> None:
    """Make the lock look like that of a job on another node, which beat so many seconds ago."""
    lock = folder / "lock.json"
    lock.write_text(
        json.dumps(
            json.loads(lock.read_text(encoding="utf-8")) | {"job": job, "host": "another", "pid": 1, "birth": "1"}
        )
    )
    os.utime(lock, (time.time() - age,) * 2)


def test_second_job_is_refused_and_changes_nothing(tmp_path: Path):
    first = begin(tmp_path)
    held_elsewhere(tmp_path, "11")
    before = (tmp_path / "lock.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="job 11 on another works in this run folder"):
        begin(tmp_path, "12", workers=5)
    assert (tmp_path / "lock.json").read_text(encoding="utf-8") == before
    assert read_run(tmp_path)["workers"] is None
    assert first.owner["job"] == "11"


def test_same_process_twice_is_refused_too(tmp_path: Path):
    begin(tmp_path, "local-1")
    with pytest.raises(ValueError, match="works in this run folder"):
        begin(tmp_path, "local-1")


def test_lock_of_the_dead_is_taken(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.1)
    begin(tmp_path)
    held_elsewhere(tmp_path, "11", age=STALE_AFTER_S + 5)  # its heartbeat stopped
    assert begin(tmp_path, "12").owner["job"] == "12"
    lock = tmp_path / "lock.json"
    lock.write_text(
        json.dumps(json.loads(lock.read_text(encoding="utf-8")) | {"pid": 2**22 + 1})
    )  # this node has no such process
    assert begin(tmp_path, "13").owner["job"] == "13"
    held_elsewhere(tmp_path, "14")
    with pytest.raises(ValueError, match="job 14 on another works in this run folder"):
        begin(tmp_path, "14")  # another step of the same allocation
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begin(tmp_path, "14").owner["job"] == "14"  # Slurm requeued the job, onto another node
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"pid": 2**22 + 1, "namespace": "pid:[1]"}))
    with pytest.raises(ValueError, match=r"job 14 on .* works in this run folder"):
        begin(tmp_path, "15")  # a container's process: that there is none of this number here says nothing


def test_one_that_wakes_up_finishes_nothing(tmp_path: Path, monkeypatch):
    """It was stopped between its look at the lock and its write, and taken for dead."""
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.05)
    first = begin(tmp_path)
    held_elsewhere(tmp_path, "11", age=STALE_AFTER_S + 5)
    second = begin(tmp_path, "12")
    second.update({"state": "running"})
    monkeypatch.setattr(first.lock, "assert_owner", lambda: None)
    with pytest.raises(FileNotFoundError):
        first.replace(tmp_path / "status.json", "{}")
    assert json.loads((tmp_path / "status.json").read_text())["job"] == "12"


def test_who_beats_lives_whatever_the_clocks_say(tmp_path: Path, monkeypatch):
    """A node whose clock is two hours off stamps its beats so, where the file system takes the client's time."""
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.1)
    begin(tmp_path)
    held_elsewhere(tmp_path, "11")
    lock = tmp_path / "lock.json"
    for off in (-7200, 7200):
        os.utime(lock, (time.time() + off,) * 2)
        with pytest.MonkeyPatch.context() as patch:
            beats_when_watched(patch, lock, off)
            with pytest.raises(ValueError, match="job 11 on another works in this run folder"):
                begin(tmp_path, "12")
    monkeypatch.setattr(
        "jobs.training.run_lock.STALE_AFTER_S", 0.5
    )  # nobody beats now: it is not refused for two hours
    assert begin(tmp_path, "12").owner["job"] == "12"


def test_a_run_whose_folder_is_gone_says_so(tmp_path: Path):
    with begin(tmp_path / "run") as run:
        (tmp_path / "run").rename(tmp_path / "other")
        with pytest.raises(
            ValueError, match="run: the run's folder was removed or renamed while this job worked in it"
        ):
            run.update({"state": "running"})


WRITER = """
import random, sys, time
from pathlib import Path
from jobs.training import run_lock
from jobs.training.config import TrainConfig
from jobs.training.run_folder import RunFolder
run_lock.BEAT_INTERVAL_S, run_lock.STALE_AFTER_S = 0.03, 0.3
folder, job, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(1000):
    try:
        with RunFolder(folder, TrainConfig(), {}, job, patient=True) as run:
            for step in range(random.Random(seed + number).randrange(5, 60)):
                run.update({"writer": run.owner["token"], "step": step})
                run.lock.append(folder / "metrics.jsonl", f"{run.owner['token']} {step}")
                print(run.owner["token"], step, flush=True)
    except (ValueError, OSError) as error:
        time.sleep(0.01)
"""


@pytest.mark.parametrize(
    "job", [("11", "12", "13"), ("11", "11", "13"), ("11", "11 1", "13")], ids=["jobs", "two steps", "a requeued one"]
)
def test_one_writer_at_any_time(tmp_path: Path, job):
    """Three writers, stopped and woken at random, 25 times each way: what is written is never an earlier owner's.

    Jobs by number and restart: a requeued job takes the run of the one it was before, which may still be there.
    """
    rng, logs = random.Random(len(set(job))), [open(tmp_path / f"log-{n}", "w+") for n in range(3)]  # noqa: SIM115
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    writers = []
    for n, (name, _, restart) in enumerate(one.partition(" ") for one in job):
        command = [sys.executable, "-c", WRITER, tmp_path / "run", name, str(100 * n)]
        told = environ | {"SLURM_RESTART_COUNT": restart or "0"}
        writers.append(subprocess.Popen(command, stdout=logs[n], stderr=subprocess.DEVNULL, env=told))
    seen, ended = [], threading.Event()  # the owners, in the order in which status.json was theirs

    def watch() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError, ValueError):
                writer = json.loads((tmp_path / "run" / "status.json").read_text()).get("writer")
                if writer and writer not in seen[-1:]:
                    seen.append(writer)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wait_for(lambda: len(seen) >= 2, 400, every=0.01)
        had_turns = lambda: all(Path(log.name).read_text().count("\n") > 5 for log in logs)  # noqa: E731
        for stops in itertools.count():
            if stops >= 25 and had_turns():
                break
            held = seen[-1]
            victim = rng.choice(writers)
            victim.send_signal(signal.SIGSTOP)
            if rng.random() < 0.7:  # until it counts as dead, and another has written; else for a moment
                count = len(seen)
                wait_for(lambda count=count, held=held: len(seen) > count or seen[-1] != held, 400, every=0.01)
            victim.send_signal(signal.SIGCONT)
            count = len(seen)
            wait_for(lambda count=count: len(seen) > count, 400, every=0.01)  # nobody is refused for ever
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
        ended.set()
        watcher.join()
    assert len(seen) == len(set(seen)) >= 25  # no owner came again after another
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    owners = [owner for owner, _ in itertools.groupby(lines, key=lambda line: line.split()[0])]
    assert len(owners) == len(set(owners)) >= 25 and len(lines) == len(set(lines))
    for log in logs:
        log.seek(0)
        assert log.read().count("\n") > 5, "one of them never had a turn"
        log.close()


def test_a_process_that_has_the_pid_of_a_dead_one_does_not_hold_its_lock(tmp_path: Path):
    begin(tmp_path)
    lock = tmp_path / "lock.json"
    lock.write_text(
        json.dumps(json.loads(lock.read_text(encoding="utf-8")) | {"birth": "1"})
    )  # this process was born later
    assert begin(tmp_path, "12").owner["job"] == "12"


def test_a_lock_that_another_job_took_meanwhile_is_given_back(tmp_path: Path, monkeypatch):
    """Two find the lock of a dead job; the quicker one's new lock is what the slower one moves aside."""
    begin(tmp_path)
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.1)  # how long a lock is watched hangs on it
    held_elsewhere(tmp_path, "11", age=STALE_AFTER_S + 5)
    rename, quick = Path.rename, []

    def overtaken(self: Path, target: Path) -> Path:
        if self.name == "lock.json" and not quick:
            quick.append(True)
            held_elsewhere(tmp_path, "13")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    with pytest.raises(ValueError, match="job 13 on another works in this run folder"):
        begin(tmp_path, "12")
    assert quick and json.loads((tmp_path / "lock.json").read_text(encoding="utf-8"))["job"] == "13"


def test_a_patient_job_waits_for_the_dead_and_not_for_the_living(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.1)
    with RunFolder(tmp_path, CONFIG, {}, "11") as living:
        monkeypatch.setattr("jobs.training.run_lock.birth", lambda pid: living.owner["birth"])
        with pytest.raises(ValueError, match="works in this run folder"):
            RunFolder(tmp_path, CONFIG, {}, "12", patient=True)
    RunFolder(tmp_path, CONFIG, {}, "13")
    held_elsewhere(tmp_path, "13", age=STALE_AFTER_S - 0.5)
    began = time.monotonic()
    assert RunFolder(tmp_path, CONFIG, {}, "14", patient=True).owner["job"] == "14"
    assert time.monotonic() - began < STALE_AFTER_S  # the rest of it, not all


def test_lock_is_given_back_only_by_its_owner(tmp_path: Path):
    with begin(tmp_path):
        assert (tmp_path / "lock.json").exists()
    assert not (tmp_path / "lock.json").exists()
    with begin(tmp_path, "12") as run:
        held_elsewhere(tmp_path, "13")
        for write in (lambda: run.update({"state": "running"}), lambda: run.log({"step": 1})):
            with pytest.raises(ValueError, match="job 13 on another has taken it over while this job did not beat"):
                write()
    assert json.loads((tmp_path / "lock.json").read_text())["job"] == "13"


def test_failure_is_told_and_the_lock_free(tmp_path: Path):
    with pytest.raises(ValueError, match="no more disk"), begin(tmp_path):
        raise ValueError("no more disk")
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert (status["state"], status["reason"]) == ("failed", "ValueError: no more disk")
    assert not (tmp_path / "lock.json").exists()


def test_the_time_of_a_run_is_that_of_its_starts(tmp_path: Path, monkeypatch):
    """What a start took stands in status.json, and is kept beside the start when the next one comes."""
    took = []
    for job in ("11", "12", "13"):
        monkeypatch.setattr(time, "strftime", lambda form, job=job: f"begun {job}")  # in another second each
        with begin(tmp_path, job) as run:
            run.note_start({"world": 2, "device": "cpu", "cpus": 8})
            run.began -= 100 * int(job)
            run.update({"state": "running"})
        took.append(json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["seconds"])
        with pytest.raises(ValueError, match="no data"), begin(tmp_path, job):  # a start that came to nothing
            raise ValueError("no data")
    starts = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))["starts"]
    assert [start.get("seconds") for start in starts] == [*took[:2], None] and took[0] >= 1100
    assert json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["begun"] == starts[-1]["begun"]


def test_run_of_another_model(tmp_path: Path):
    with begin(tmp_path):
        pass
    with pytest.raises(ValueError, match="is a run of model 'ctc', asked was 'attention'"):
        begin(tmp_path, model="attention")
    assert not (tmp_path / "lock.json").exists()  # who was refused holds nothing
    with begin(tmp_path, workers=5):  # what is not fixed may change
        assert read_run(tmp_path)["workers"] == 5


def test_run_of_a_version_that_did_not_know_an_option(tmp_path: Path):
    files.replace(tmp_path / "config.json", '{"model": "ctc", "lr": 0.002}')
    by_pixels = replace(CONFIG, data=DataConfig(batch_by="pixels"))
    with RunFolder(tmp_path, by_pixels, {}, "11"):
        pass
    with pytest.raises(ValueError, match="is a run of batch_by 'pixels', asked was 'lines'"):
        RunFolder(tmp_path, CONFIG, {}, "11")


def test_heartbeat_is_felt(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.01)
    with begin(tmp_path):
        os.utime(tmp_path / "lock.json", (0, 0))
        deadline = time.monotonic() + 100
        while (tmp_path / "lock.json").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_heartbeat_for_another_job(tmp_path: Path, monkeypatch):
    """One that took the run over while this job did not beat: its lock would never grow old."""
    beaten, read = [], run_lock.read_json

    def counted(path: Path) -> dict | None:
        beaten.append(path.name)
        return read(path)

    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.001)
    with begin(tmp_path) as run:
        held_elsewhere(tmp_path, "13", age=30)
        before, lock = (tmp_path / "lock.json").stat().st_mtime_ns, read(tmp_path / "lock.json")
        monkeypatch.setattr("jobs.training.run_lock.read_json", counted)
        wait_for(lambda: beaten.count("lock.json") >= 4)
        assert lock != run.owner and (tmp_path / "lock.json").stat().st_mtime_ns == before


def step_line(step: int) -> dict:
    return {"step": step, "loss": 1.0, "lr": 0.001, "lines_per_s": 80.0}


def test_what_a_step_leaves(tmp_path: Path):
    status = tmp_path / "status.json"
    with begin(tmp_path) as run:
        run.log_step(step_line(50), 1000)
        kept = json.loads(status.read_text(encoding="utf-8"))
        assert kept == {"job": "11", "state": "running", "step": 50, "steps": 1000, "loss": 1.0, "lines_per_s": 80.0}
        run.log_step(step_line(100), 1000)
        run.log_dev(100, 0.5, 0.9)
        assert (
            json.loads(status.read_text(encoding="utf-8"))["step"],
            json.loads(status.read_text(encoding="utf-8"))["dev_cer"],
        ) == (100, 0.5)
        assert (tmp_path / "curves.png").stat().st_size > 10_000
        (tmp_path / "curves.png").unlink()
        run.log_step(step_line(150), 1000)
        assert not (tmp_path / "curves.png").exists()  # nor the picture
        run.update({"state": "finished", "step": 150})
        assert (tmp_path / "curves.png").exists()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line.get("dev_cer")) for line in lines] == [(50, None), (100, None), (100, 0.5), (150, None)]
    [events] = (tmp_path / "tensorboard").iterdir()
    assert (events.read_bytes().count(b"train/loss"), events.read_bytes().count(b"dev/cer")) == (3, 1)


def test_status_of_steps_takes_little_of_the_time(tmp_path: Path, monkeypatch):
    """On a disk where each write takes half a second it follows every ten seconds."""
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    replace = files.replace
    run = begin(tmp_path)

    def slow(path, content, attempts):
        now[0] += 0.5
        replace(path, content, attempts)

    monkeypatch.setattr("jobs.training.run_folder.time", clock)
    monkeypatch.setattr("jobs.training.run_folder.files.replace", slow)
    shown = []
    for step in range(1, 25):
        run.log_step(step_line(step), 1000)
        shown.append(json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["step"])
        now[0] += 1.0
    assert sorted(set(shown)) == [1, 11, 21]
    assert len((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 24
    run.update({"state": "stopped"})
    assert json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))["step"] == 24


def test_a_run_that_fails_leaves_its_curves(tmp_path: Path):
    with pytest.raises(ValueError), begin(tmp_path) as run:
        run.log_step(step_line(50), 1000)
        raise ValueError("no finite gradient")
    assert (tmp_path / "curves.png").exists()


def test_training_goes_on_without_curves_and_events(tmp_path: Path, monkeypatch, capsys):
    tries = []
    monkeypatch.setattr("jobs.training.learning_curves.draw", lambda run: tries.append(run) or 1 / 0)
    (tmp_path / "tensorboard").write_text("no folder")
    with begin(tmp_path) as run:
        for step in (50, 100):
            run.log_step(step_line(step), 1000)
            run.log_dev(step, 0.5, 0.9)
        run.update({"state": "finished"})
    assert len((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    events, drawing, _last = capsys.readouterr().err.splitlines()
    assert "tensorboard" in events and "FileExistsError" in events
    assert "curves.png" in drawing and "ZeroDivisionError" in drawing
    assert len(tries) == 1


def test_checkpoints_kept_are_the_newest_and_the_best(tmp_path: Path):
    for step in range(1, 8):
        checkpoint.save(tmp_path, step, {"step": step}, best=step == 2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == [f"step-{step:06d}.pt" for step in (7, 6, 5, 2)]
    assert (tmp_path / "best.pt").readlink() == Path("step-000002.pt")
    assert (tmp_path / "last.pt").readlink() == Path("step-000007.pt")
    assert checkpoint.load_newest(tmp_path) == {"step": 7}


def test_steps_are_numbers_and_no_names(tmp_path: Path):
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, {"step": step}, best=False)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-1000000.pt", "step-999999.pt"]
    assert checkpoint.load_newest(tmp_path) == {"step": 1_000_000}


def test_checkpoint_that_runs_code_is_not_loaded(tmp_path: Path, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    checkpoint.save(tmp_path, 1, {"step": 1}, best=False)
    (tmp_path / "step-000002.pt").write_bytes(pickle.dumps(Evil()))
    assert checkpoint.load_newest(tmp_path) == {"step": 1}
    assert not (tmp_path / "ran").exists()
    (tmp_path / "step-000001.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 2 checkpoints can be read"):
        checkpoint.load_newest(tmp_path)


def test_a_command_that_is_to_be_copied_is_quoted(tmp_path: Path):
    run = tmp_path / "a run's"
    with begin(run) as begun:
        begun.update({"state": "finished"})
    said = (run / "logs" / "train.log").read_text(encoding="utf-8")
    assert shlex.split(said.partition("next: ")[2]) == ["python", "-m", "jobs", "evaluate", "--run", str(run)]


def test_a_copy_of_a_checkpoint_is_none(tmp_path: Path):
    """It was `invalid literal for int()`, also at the end of a training."""
    for name in ("step-000123-old.pt", "step-000123 (1).pt", "step-.pt", "step-best.pt"):
        (tmp_path / name).touch()
    checkpoint.save(tmp_path, 3, {"step": 3}, best=False)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-000003.pt"]


@pytest.mark.parametrize("kind", [PermissionError, OSError])
def test_checkpoints_that_the_storage_does_not_give_are_not_called_damaged(tmp_path: Path, monkeypatch, kind):
    """Nobody is told to remove them."""
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step}, best=False)
    error = kind(errno.EACCES if kind is PermissionError else errno.EIO, "no", "step-000002.pt")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("torch.load", fail)
    with pytest.raises(OSError) as raised:
        checkpoint.load_newest(tmp_path)
    assert raised.value is error


def test_whatever_bytes_of_a_checkpoint_are_wrong_the_one_before_is_taken(tmp_path: Path):
    state = {"step": 2, "model": {"a": torch.ones(3)}, "best": 0.5, "list": [1, "b"]}
    checkpoint.save(tmp_path, 1, {"step": 1}, best=False)
    checkpoint.save(tmp_path, 2, state, best=False)
    newest, rng = tmp_path / "step-000002.pt", random.Random(0)
    whole, seen = newest.read_bytes(), set()
    for _ in range(300):
        broken = bytearray(whole)
        for at in rng.sample(range(len(whole)), 8):
            broken[at] = rng.randrange(256)
        newest.write_bytes(broken)
        seen.add(checkpoint.load_newest(tmp_path)["step"])
    assert 1 in seen


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"job": 5}'])
def test_a_damaged_lock_is_that_of_somebody_who_beats_or_not(tmp_path: Path, monkeypatch, content: bytes):
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.1)
    lock = tmp_path / "lock.json"
    lock.write_bytes(content)
    with pytest.raises(ValueError, match=r"job (\?|5) on \? works in this run folder"):
        begin(tmp_path, "12")
    os.utime(lock, (time.time() - STALE_AFTER_S - 5,) * 2)
    assert begin(tmp_path, "12").owner["job"] == "12"


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["status.json", "provenance.json"])
def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: damaged, it holds no JSON object"), begin(tmp_path) as run:
        run.note_start({"world": 1})
    assert not (tmp_path / "lock.json").exists()


def test_the_last_line_says_what_is_kept_and_what_to_do(tmp_path: Path, capsys):
    """In the run's folder too: what srun passes on may be lost when a job is cancelled."""
    facts = {"world": 4, "hosts": ["node1", "node2"], "device": "cuda", "folder": "data/lines", "cpus": 8}
    with begin(tmp_path) as run:
        run.note_start(facts)
        run.note_first("step 0 of 100", 0, resumed=False)
        run.log_step(step_line(40), 100)
        checkpoint.save(tmp_path / "checkpoints", 40, {"step": 40}, False, run.lock)
        run.update({"state": "stopped", "reason": "told to stop"})
    with begin(tmp_path) as run:
        run.note_start(facts)
        assert json.loads((tmp_path / "status.json").read_text())["step"] == 40  # until it is known better
        run.note_first("step 40 of 100", 40, resumed=True)
        run.update({"state": "finished", "step": 100})
    first, stopped, again, finished = [
        line.partition(" job 11: ")[2] for line in (tmp_path / "logs" / "train.log").read_text().splitlines()
    ]
    assert first == f"{tmp_path}: 4 ranks on node1, node2, cuda, data set data/lines, from step 0 of 100"
    assert stopped == "stopped, told to stop; checkpoint of step 40 written; the same command goes on there"
    assert again.endswith("resumed at step 40 of 100")
    assert finished == f"finished; checkpoint of step 40 written; next: python -m jobs evaluate --run {tmp_path}"
    said = capsys.readouterr().err
    assert all(f"train: {line}\n" in said for line in (first, stopped, again, finished))


def test_shards_that_were_made_anew_are_told_of(tmp_path: Path, capsys):
    facts = {"world": 1, "hosts": [], "device": "cpu", "folder": "data/lines", "cpus": 1}
    for index, said in ((None, False), ("a", False), ("a", False), ("b", True)):  # none: a start of an older version
        with begin(tmp_path) as run:
            run.note_start(facts | ({"index": index} if index else {}))
        assert ("the data set was made anew since" in capsys.readouterr().err) == said


def test_what_a_former_owner_adds_is_read_by_nobody(tmp_path: Path, monkeypatch):
    """It was stopped after its look at the lock, with the file open or before it opened it."""
    monkeypatch.setattr("jobs.training.run_lock.BEAT_INTERVAL_S", 0.05)
    path = tmp_path / "metrics.jsonl"
    first = begin(tmp_path)
    first.lock.append(path, "first")
    with open(path, "a", encoding="utf-8") as still_open:
        held_elsewhere(tmp_path, "11", age=STALE_AFTER_S + 5)
        second = begin(tmp_path, "12")
        second.lock.append(path, "second")
        still_open.write("late\n")
    monkeypatch.setattr(first.lock, "assert_owner", lambda: None)
    with pytest.raises(FileNotFoundError):
        first.lock.append(path, "later")
    second.lock.append(path, "third")
    assert path.read_text(encoding="utf-8").splitlines() == ["first", "second", "third"]
    path.unlink()  # by its user: it begins anew
    second.lock.append(path, "fourth")
    assert path.read_text(encoding="utf-8") == "fourth\n"
