"""A run folder: what was asked, by which code, who works in it now, and how far it is."""

import contextlib
import json
import math
import os
import platform
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from jobs.cli.code_version import code_version
from jobs.cli.console import log
from jobs.training import learning_curves
from jobs.training.config import TrainConfig, check_resumable, has_run, write_run
from jobs.training.tensorboard import Events
from shards import files

BEAT_INTERVAL_S = 5.0  # seconds between heartbeats
STALE_AFTER_S = 60.0  # seconds after the last one until a run counts as left
MAX_STATUS_TIME_SHARE = 0.05  # of the time, at most, for the status of steps
ENDS = ("finished", "stopped", "failed")


class RunFolder:
    """Opened by rank 0 alone. A context: inside it, the run is this job's, and a second job is refused."""

    def __init__(self, folder: Path, config: TrainConfig, facts: dict[str, str], job: str, patient: bool = False):
        """`config` is what was asked, `facts` what came of the data (see jobs/training/config.py). `patient`: wait
        until the heartbeat of a job that was killed counts as old, instead of being refused at once.

        Raises ValueError when the folder holds a run of another kind, or another job works in it.
        """
        self.folder, self.job = folder, job
        self.owner = {"job": job, "host": platform.node(), "pid": os.getpid(), "birth": birth(os.getpid())}
        folder.mkdir(parents=True, exist_ok=True)
        self.lock, self.patient = folder / "lock.json", patient
        self.state: dict = {}  # of status.json
        self.due = -math.inf  # when log_step is to write it again
        self.events = Events(folder / "tensorboard")
        self.given_up: set[str] = set()  # of what a training can do without
        self.ended = threading.Event()
        self.take_lock()
        self.opened, self.began = time.monotonic(), None
        try:
            if not has_run(folder) and any(folder.glob("checkpoints/*")):
                raise ValueError(f"{folder}: checkpoints without a config.yaml: not a run of this program")
            check_resumable(folder, config, facts)
            write_run(folder, config, facts)
            earlier = read_json(folder / "status.json") or {}  # what a resumed run keeps
            kept = ("dev_cer", "requeues", "begun", "seconds")
            self.state = {name: earlier[name] for name in kept if name in earlier}
        except BaseException:
            self.lock.unlink(missing_ok=True)
            raise

    # --- the lock: a file that is linked into place, with a heartbeat as its time of change

    def take_lock(self) -> None:
        attempt = files.temporary(self.lock)
        files.write_synced(attempt, files.to_json(self.owner))
        now = attempt.stat().st_mtime  # the file server's clock, not this node's
        try:
            while True:
                try:
                    os.link(attempt, self.lock)
                    return
                except FileExistsError:
                    self.clear_stale(now)
        finally:
            attempt.unlink(missing_ok=True)

    def clear_stale(self, now: float) -> None:
        """Move a lock aside that nobody holds any more. Raises ValueError when somebody does."""
        owner, age = read_json(self.lock), 0.0
        with contextlib.suppress(FileNotFoundError):
            age = now - self.lock.stat().st_mtime
        if owner is None:  # gone since
            return
        requeued = owner["job"] == self.job and not self.job.startswith("local")
        dead = owner["host"] == platform.node() and birth(owner["pid"]) != owner["birth"]
        if not (requeued or dead or age > STALE_AFTER_S or (self.patient and not self.beats(STALE_AFTER_S - age))):
            raise ValueError(
                f"{self.folder}: job {owner['job']} on {owner['host']} works in this run folder (heartbeat "
                f"{max(age, 0):.0f} s ago): wait for it, cancel it, or give another --run"
            )
        aside = files.temporary(self.lock)
        with contextlib.suppress(FileNotFoundError):
            self.lock.rename(aside)
            if read_json(aside) != owner:  # another job was quicker: this is its lock
                with contextlib.suppress(FileExistsError):
                    os.link(aside, self.lock)
            aside.unlink()

    def beats(self, seconds: float) -> bool:
        """Whether the lock's heart beats within so many seconds; one that is given back doesn't."""
        with contextlib.suppress(FileNotFoundError):
            before, deadline = self.lock.stat().st_mtime, time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(0.2)
                if self.lock.stat().st_mtime != before:
                    return True
        return False

    @property
    def requeues(self) -> int:
        """How often its job was put back into the queue before a time limit."""
        return self.state.get("requeues", 0)

    def __enter__(self) -> "RunFolder":
        threading.Thread(target=self.beat, daemon=True, name="heartbeat").start()
        return self

    def beat(self) -> None:
        while not self.ended.wait(BEAT_INTERVAL_S):
            with contextlib.suppress(OSError):
                if read_json(self.lock) == self.owner:
                    os.utime(self.lock)

    def __exit__(self, kind, error, _) -> None:
        self.ended.set()
        if read_json(self.lock) != self.owner:  # taken over while this job did not beat
            return
        if kind is not None:
            state = "stopped" if kind in (SystemExit, KeyboardInterrupt) else "failed"
            with contextlib.suppress(OSError):
                self.update({"state": state, "reason": f"{kind.__name__}: {error}"[:500]})
        self.lock.unlink(missing_ok=True)

    # --- what others read

    def update(self, state: dict) -> None:
        """Merge into status.json: state, step, world, …, and the seconds of this start once it is noted; the curves are
        drawn when that ends the run.
        """
        self.state |= state
        if self.began is not None:
            self.state["seconds"] = round(time.monotonic() - self.began, 1)
        files.replace(self.folder / "status.json", files.to_json({"job": self.job, **self.state}))
        if state.get("state") in ENDS:
            self.spare("curves.png", lambda: learning_curves.draw(self.folder))

    def log(self, metrics: dict) -> None:
        """One JSON object a line, appended to metrics.jsonl; the same for TensorBoard."""
        line = {**metrics, "time": round(time.time(), 3)}
        path = self.folder / "metrics.jsonl"
        with files.named(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.spare("tensorboard/", lambda: self.events.add(line))

    def spare(self, what: str, write: Callable[[], object]) -> None:
        """Write what a training can do without: where that fails, it is said once, and left out from then on."""
        if what in self.given_up:
            return
        try:
            write()
        except Exception as error:  # matplotlib raises anything
            self.given_up.add(what)
            log(f"{self.folder / what} is not written any more, the training goes on: {type(error).__name__}: {error}")

    def log_step(self, metrics: dict, steps: int) -> None:
        """After some steps. Where the disk is slow and lines come fast, status.json is not renewed for each of them."""
        self.log(metrics)
        shown = {name: metrics[name] for name in ("step", "loss", "lines_per_s")}
        self.state |= {"state": "running", "steps": steps, **shown}
        began = time.monotonic()
        if began >= self.due:
            self.update({})
            self.due = began + (time.monotonic() - began) / MAX_STATUS_TIME_SHARE

    def log_dev(self, step: int, cer: float, wer: float) -> None:
        self.log({"step": step, "dev_cer": cer, "dev_wer": wer})
        self.update({"dev_cer": cer})
        self.spare("curves.png", lambda: learning_curves.draw(self.folder))

    def note_start(self, facts: dict) -> None:
        """Add this start to provenance.json: code, versions, and what the caller knows (hosts, data set, the code's
        digest); code that differs from the last start's is said. The last start is given the seconds that it took, as
        far as status.json knows: the time of a run is that of its starts.
        """
        earlier = self.state.get("begun"), self.state.get("seconds")
        begun, self.began = time.strftime("%Y-%m-%dT%H:%M:%S%z"), self.opened
        self.update({"state": "starting", "world": facts["world"], "begun": begun})
        path = self.folder / "provenance.json"
        starts = (read_json(path) or {"starts": []})["starts"]
        before, now = starts[-1].get("digest") if starts else None, facts.get("digest")
        if before and before != now:
            log(f"train: this run's last start was of other code (digest {before}, now {now})")
        packages = ("torch", "horovod", "numpy", "opencv-python-headless", "webdataset", "submitit")
        versions = {}
        for name in packages:
            with contextlib.suppress(Exception):
                versions[name] = version(name)
        if starts and starts[-1].get("begun") == earlier[0]:
            starts[-1]["seconds"] = earlier[1]
        starts.append({"begun": begun, "job": self.job, "code": code_version(), "versions": versions, **facts})
        files.replace(path, files.to_json({"starts": starts}))


class NullRun:
    """What the ranks other than 0 hold instead of an experiment: the root does all of it for them."""

    update = log = log_step = log_dev = note_start = None

    def __enter__(self) -> "NullRun":
        return self

    def __exit__(self, *_) -> None:
        pass


def birth(pid: int) -> str:
    """When a process of this node was started, in clock ticks since boot; empty if there is none. Pids come again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def is_stale(lock: Path) -> bool | None:
    """Whether the job that holds a run has stopped beating; None when nobody holds it."""
    try:
        return time.time() - lock.stat().st_mtime > STALE_AFTER_S
    except FileNotFoundError:
        return None
