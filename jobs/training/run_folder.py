"""A run folder: settings, provenance, lock, metrics and status."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from jobs.cli.code_version import code_version
from jobs.cli.console import log
from jobs.training import learning_curves, run_log
from jobs.training.config import TrainConfig, check_resumable, has_run, write_run
from jobs.training.run_lock import RunLock, read_json
from jobs.training.tensorboard import Events
from shards import files

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
        folder.mkdir(parents=True, exist_ok=True)
        self.state: dict = {}  # of status.json
        self.facts: dict = {}  # of this start
        self.due = -math.inf  # when log_step is to write it again
        self.events = Events(folder / "tensorboard")
        self.given_up: set[str] = set()  # of what a training can do without
        self.lock = RunLock(folder, job, patient)
        self.opened, self.began = time.monotonic(), None
        try:
            if not has_run(folder) and any(folder.glob("checkpoints/*")):
                raise ValueError(f"{folder}: checkpoints without a config.yaml: not a run of this program")
            check_resumable(folder, config, facts)
            write_run(folder, config, facts, self.replace)
            earlier = read_json(folder / "status.json") or {}  # what a resumed run keeps
            kept = ("dev_cer", "requeues", "begun", "seconds", "hung_at", "step", "steps", "lines_per_s")
            self.state = {name: earlier[name] for name in kept if name in earlier}
        except BaseException:
            self.lock.give_back()
            raise

    @property
    def owner(self) -> dict:
        return self.lock.owner

    def replace(self, path: Path, content: bytes | str) -> None:
        """A file of the run, whole or not at all. Raises ValueError when the run is no longer this job's."""
        self.lock.replace(path, content)

    @property
    def requeues(self) -> int:
        """How often its job was put back into the queue before a time limit."""
        return self.state.get("requeues", 0)

    def __enter__(self) -> "RunFolder":
        self.lock.keep_beating()
        return self

    def __exit__(self, kind, error, _) -> None:
        if kind is not None:
            state = "stopped" if kind in (SystemExit, KeyboardInterrupt) else "failed"
            with contextlib.suppress(OSError, ValueError):  # the run may be another job's now
                self.update({"state": state, "reason": f"{kind.__name__}: {error}"[:500]})
        if self.state.get("state") in ENDS:
            run_log.tell(self.folder, self.job, run_log.last_line(self.folder, self.state))
        self.lock.give_back()

    # --- what others read

    def note_first(self, at: str, step: int, resumed: bool) -> None:
        """The first line of a start; `at`: step 40 of 100."""
        run_log.tell(self.folder, self.job, run_log.first_line(self.folder, self.facts, at, resumed))
        self.update({"step": step} if resumed else {})

    def update(self, state: dict) -> None:
        """Merge into status.json: state, step, world, …, and the seconds of this start once it is noted; the curves are
        drawn when that ends the run.
        """
        self.state |= state
        if self.began is not None:
            self.state["seconds"] = round(time.monotonic() - self.began, 1)
        self.replace(self.folder / "status.json", files.to_json({"job": self.job, **self.state}))
        if state.get("state") in ENDS:
            self.spare("curves.png", lambda: learning_curves.draw(self.folder))

    def log(self, metrics: dict) -> None:
        """One JSON object a line, appended to metrics.jsonl; the same for TensorBoard."""
        line = {**metrics, "time": round(time.time(), 3)}
        self.lock.append(self.folder / "metrics.jsonl", json.dumps(line))
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
        """Add this start to provenance.json: code, versions, and what the caller knows (hosts, data set, the digests of
        code and shards); where these differ from the last start's that is said. The last start is given the seconds
        that it took, as far as status.json knows: the time of a run is that of its starts.
        """
        earlier = self.state.get("begun"), self.state.get("seconds")
        self.facts = facts
        begun, self.began = time.strftime("%Y-%m-%dT%H:%M:%S%z"), self.opened
        self.update({"state": "starting", "world": facts["world"], "begun": begun})
        path = self.folder / "provenance.json"
        starts = (read_json(path) or {}).get("starts", [])
        before, now = starts[-1].get("digest") if starts else None, facts.get("digest")
        if before and before != now:
            log(f"train: this run's last start was of other code (digest {before}, now {now})")
        if starts and starts[-1].get("index", facts.get("index")) != facts.get("index"):
            log(
                "train: the data set was made anew since this run's last start, from other images or by another version"
            )
        packages = ("torch", "horovod", "numpy", "opencv-python-headless", "webdataset", "submitit")
        versions = {}
        for name in packages:
            with contextlib.suppress(Exception):
                versions[name] = version(name)
        if starts and starts[-1].get("begun") == earlier[0]:
            starts[-1]["seconds"] = earlier[1]
        starts.append({"begun": begun, "job": self.job, "code": code_version(), "versions": versions, **facts})
        self.replace(path, files.to_json({"starts": starts}))


class NullRun:
    """What the ranks other than 0 hold instead of an experiment: the root does all of it for them."""

    update = log_step = log_dev = note_start = note_first = None

    def __enter__(self) -> "NullRun":
        return self

    def __exit__(self, *_) -> None:
        pass
