"""A training that stands still ends in bounded time, with the reason, and its job goes back into the queue.

Horovod notices a process that is stopped, no one whose main thread sleeps, waits for storage or for a collective that
others never come to. So a thread of every rank watches for steps. After too long without one it writes the stacks of
all threads (names of files and functions, no data) to RUN/logs, says which rank on which host keeps the others waiting
and what it is at, has Slurm queue the job again, and ends the process.

How long is too long comes from the run's own steps, or from HTR_STEP_TIMEOUT (seconds; 0: never); the first step, an
evaluation's batch and a checkpoint have longer. Time in which the whole process was stopped (`scontrol suspend`) does
not count. What it can't end: a lone rank in a C function that keeps Python's lock; other ranks end such a one.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from jobs.distributed import heartbeat
from jobs.distributed.heartbeat import ACTIVITY, Activity, Heartbeat
from jobs.distributed.placement import DistributedError
from jobs.distributed.signals import AGAIN
from jobs.distributed.work_sharding import job_name

MIN_LIMIT_S, MAX_LIMIT_S = 180.0, 3600.0  # seconds, of a limit that is found
TIMES = 20  # the slowest of the last steps
STEPS = 50  # that are looked back at
LONGER = 5  # times the limit: the first step, with its compilation, and what is no step
LONGEST_START = 900.0  # seconds until the first step, where the limit is to be found yet
SILENT = 10.0  # seconds without progress before Horovod's error, from which on a rank was waited for in vain
TICK = 1.0  # seconds between two looks; a longer pause of the watchdog itself was one of the whole process
GRACE = 5.0  # seconds that the other ranks have to say what they saw, before srun ends them with this one
STORAGE = 15.0  # seconds for writing the stacks and reading the others' heartbeats: what hangs may be the storage


class Watchdog:
    """A context, on every rank, from the time that the ranks have met.

    `hung`: called once, on one rank, with the reason, before the process ends: it queues the job again -> what to say.
    `log`: takes a line for the job's log.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        host: str,
        hung: Callable[[str], str],
        log: Callable[[str], None],
        activity: Activity = ACTIVITY,
    ):
        self.log = log
        self.folder, self.rank, self.host, self.hung, self.activity = folder, rank, host, hung, activity
        self.heartbeat = Heartbeat(folder, rank, host, activity)
        self.asked = asked()
        self.lasted: deque[float] = deque(maxlen=STEPS)
        self.ended = threading.Event()
        self.quiet = 0.0  # seconds that the process ran without a sign of progress

    def __enter__(self) -> "Watchdog":
        self.activity.__init__()
        self.heartbeat.__enter__()
        if self.rank == 0:
            with contextlib.suppress(OSError):
                for path in (self.folder / heartbeat.FOLDER).glob("hung-*"):  # of starts that hung before
                    if path.name != f"hung-{start()}":
                        path.unlink(missing_ok=True)
        threading.Thread(target=self.watch, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.ended.set()
        if isinstance(error, DistributedError) and self.quiet > SILENT:  # one that died would have shown at once
            found, said = self.look()
            if found and self.asked != 0:
                self.end(f"{error}{said}")
            self.heartbeat.__exit__()
            raise DistributedError(f"{error}{said}") from error
        self.heartbeat.__exit__()

    def limit(self) -> float:
        """Seconds without a sign of progress that are too long now."""
        longer = self.activity.first or self.activity.at not in ("waiting for data", "computing")
        if self.asked is not None:
            return self.asked * (LONGER if longer else 1)
        if self.activity.first or not self.lasted:
            return LONGEST_START
        return min(max(TIMES * max(self.lasted), MIN_LIMIT_S), MAX_LIMIT_S) * (LONGER if longer else 1)

    def watch(self) -> None:
        """The thread."""
        seen, step, before = self.activity.count, self.activity.step, time.monotonic()
        while not self.ended.wait(TICK):
            now = time.monotonic()
            self.quiet += min(now - before, 2 * TICK)
            before = now
            if self.activity.count != seen:
                seen, self.quiet = self.activity.count, 0.0
                if self.activity.step != step and self.activity.lasted:
                    step = self.activity.step
                    self.lasted.append(self.activity.lasted)
            self.heartbeat.idle = self.quiet
            if self.asked != 0 and self.quiet > self.limit():
                at = f"step {self.activity.step}, {self.activity.describe()}"
                found = self.blame()
                self.end(f"no step for {self.quiet:.0f} s; this is rank {self.rank} on {self.host} at {at}{found}")
                return

    def blame(self) -> str:
        """Who keeps the others waiting, by heartbeats; empty where the storage does not answer."""
        self.heartbeat.write()
        return self.look()[1]

    def look(self) -> tuple[list, str]:
        """What heartbeat.blame says, in bounded time: what hangs may be the storage."""
        silent = [], "; the run folder's storage does not answer either"
        return within(STORAGE, lambda: heartbeat.blame(self.folder)) or silent

    def end(self, reason: str) -> None:
        """Say it, and end the process: no `finally` and no other thread is waited for."""
        # all that follows may hang with the storage: this thread of C ends the process then
        faulthandler.dump_traceback_later(2 * STORAGE + GRACE, exit=True, file=sys.__stderr__)
        where = within(STORAGE, self.stacks)
        self.log(f"error: {reason}; stacks of its threads: {where or 'could not be written'}")
        time.sleep(GRACE)
        if within(STORAGE, self.is_first):
            with contextlib.suppress(Exception):
                self.log(f"train: {self.hung(reason)}")
        os._exit(AGAIN)

    def stacks(self) -> Path:
        path = self.folder / "logs" / f"stacks-{start()}-rank{self.rank}-{self.host}.txt"
        path.parent.mkdir(exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        return path

    def is_first(self) -> bool:
        """Whether no other rank of this start has come here before."""
        try:
            os.close(os.open(self.folder / heartbeat.FOLDER / f"hung-{start()}", os.O_CREAT | os.O_EXCL, 0o640))
        except FileExistsError:
            return False
        return True


def within(seconds: float, work: Callable[[], object]) -> object:
    """Its result; None where it fails or takes longer."""
    found: list[object] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            found.append(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def start() -> str:
    """A name of this start of the job."""
    return f"{job_name()}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def asked() -> float | None:
    """HTR_STEP_TIMEOUT; None where it is not set. Raises ValueError for what is no number."""
    text = os.environ.get("HTR_STEP_TIMEOUT", "")
    if not text:
        return None
    if not text.replace(".", "", 1).isdigit():
        raise ValueError(f"HTR_STEP_TIMEOUT={text!r} is not a number of seconds (0: never)")
    return float(text)
