"""A training that stands still ends in bounded time, with the reason, and its job goes back into the queue.

Horovod notices a process that is stopped, no one whose main thread sleeps, waits for storage or for a collective that
others never come to. So a thread of every rank watches for steps. After too long without one it writes the stacks of
all threads (names of files and functions, no data) to RUN/logs, says which rank on which host keeps the others waiting
and what it is at, has Slurm queue the job again, and ends the process.

How long is too long comes from the run's own steps, or from HTR_STEP_TIMEOUT (seconds; 0: never); the first step, an
evaluation's batch and a checkpoint have longer. Time in which the whole process was stopped (`scontrol suspend`) does
not count. Where the process can't act any more itself, a sentinel beside it does (see sentinel.py).
"""

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from htr.process_end import end_after
from jobs.distributed import heartbeat
from jobs.distributed.heartbeat import ACTIVITY, Activity, Heartbeat
from jobs.distributed.network import is_number
from jobs.distributed.placement import DistributedError
from jobs.distributed.sentinel import Sentinel, within
from jobs.distributed.signals import AGAIN
from jobs.distributed.work_sharding import job_name

MIN_LIMIT_S, MAX_LIMIT_S = 180.0, 3600.0  # seconds, of a limit that is found
TIMES = 20  # the slowest of the last steps
STEPS = 50  # that are looked back at
LONGER = 5  # times the limit: the first step, with its compilation, and what is no step
LONGEST_START = 900.0  # seconds until the first step, where the limit is to be found yet
# seconds since the ranks last met until a collective fails, from which on another rank was waited for in vain:
SILENT = 10.0
TICK = 1.0  # seconds between two looks; a longer pause of the watchdog itself was one of the whole process
# Of a short limit both are a tenth, and STORAGE not less than MIN_STORAGE:
GRACE = 5.0  # seconds that the other ranks have to say what they saw, before srun ends them with this one
STORAGE, MIN_STORAGE = 15.0, 2.0  # seconds for each thing that is asked of the storage: it may be what hangs
TENTH = 0.1
EXIT_WITHIN = 2.0  # seconds from its last word until the process is gone; else the sentinel ends it
DEAD_STORAGE = "; the run folder's storage does not answer"


class Watchdog:
    """A context, on every rank, from the time that the ranks have met.

    `hung`: called once, on one rank, with the reason, before the process ends: it queues the job again -> what to say.
    `log`: takes a line for the job's log. `again`: a command that does what `hung` does, for a rank that stands still
    itself; STEP and REASON come after it. Its exit status is sentinel.ANOTHER where another rank has come first.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        host: str,
        hung: Callable[[str], str],
        log: Callable[[str], None],
        activity: Activity = ACTIVITY,
        again: list[str] | None = None,
        ranks: int | None = None,
    ):
        self.log, self.again = log, again or []
        self.folder, self.rank, self.host, self.hung, self.activity = folder, rank, host, hung, activity
        self.heartbeat = Heartbeat(folder, rank, host, activity, ranks)
        self.asked = asked()
        self.lasted: deque[float] = deque(maxlen=STEPS)
        self.ended = threading.Event()
        self.quiet = 0.0  # seconds that the process ran without a sign of progress
        self.apart = 0.0  # and without a collective that came to its end: between two of them a rank may work alone
        self.ending = False  # by the thread

    def __enter__(self) -> "Watchdog":
        self.activity.__init__()
        self.sentinel = Sentinel(f"rank {self.rank} on {self.host}", self.again)
        threading.Thread(target=self.watch, daemon=True, name="watchdog").start()
        self.heartbeat.__enter__()
        if self.rank == 0:
            with contextlib.suppress(OSError):
                for path in (self.folder / heartbeat.FOLDER).glob("hung-*"):  # of starts that hung before
                    if path.name != f"hung-{start()}":
                        path.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.ended.set()
        said = ""
        if self.ending and isinstance(error, DistributedError):  # another rank has ended first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of srun, which ends all then
            threading.Event().wait()  # for the thread, which has the job queued again and ends the process
        if isinstance(error, DistributedError) and self.apart > SILENT:  # one that died would have shown at once
            found, said = self.look()
            if said and self.asked != 0:
                self.end(f"{error}{said}", self.limit(), answers=bool(found))
        within(patience(self.limit()), self.heartbeat.__exit__)  # nobody watches any more
        self.sentinel.close()
        if said:
            raise DistributedError(f"{error}{said}") from error

    def limit(self) -> float:
        """Seconds without a sign of progress that are too long now."""
        longer = self.activity.first or self.activity.at in ("evaluating", "writing a checkpoint")
        if self.asked is not None:
            return self.asked * (LONGER if longer else 1)
        if self.activity.first or not self.lasted:
            return LONGEST_START
        return min(max(TIMES * max(self.lasted), MIN_LIMIT_S), MAX_LIMIT_S) * (LONGER if longer else 1)

    def watch(self) -> None:
        """The thread."""
        seen, met, step, before = self.activity.count, self.activity.met, self.activity.step, time.monotonic()
        while not self.ended.wait(TICK):
            now = time.monotonic()
            passed, before = min(now - before, 2 * TICK), now
            self.quiet, self.apart = self.quiet + passed, self.apart + passed
            if self.activity.met != met:
                met, self.apart = self.activity.met, 0.0
            if self.activity.count != seen:
                seen, self.quiet = self.activity.count, 0.0
                if self.activity.step != step and self.activity.lasted:
                    step = self.activity.step
                    self.lasted.append(self.activity.lasted)
            self.heartbeat.idle = self.quiet
            limit = self.limit()
            self.sentinel.tell(limit=0 if self.asked == 0 else limit, step=self.activity.step)
            if self.asked != 0 and self.quiet > limit:
                self.ending = True
                at, quiet = f"step {self.activity.step}, {self.activity.describe()}", self.quiet
                self.end_after(limit)
                answers = within(patience(limit), lambda: self.heartbeat.write() or True)
                found = self.look()[1] if answers else DEAD_STORAGE
                said = f"no step for {quiet:.0f} s; this is rank {self.rank} on {self.host} at {at}{found}"
                self.end(said, limit, bool(answers))
                return

    def look(self) -> tuple[list, str]:
        """What heartbeat.blame says, in bounded time: what hangs may be the storage."""
        seconds = heartbeat.WATCH_S + patience(self.limit())
        return within(seconds, lambda: heartbeat.blame(self.folder)) or ([], DEAD_STORAGE)

    def end(self, reason: str, limit: float, answers: bool = True) -> None:
        """Say it, and end the process: no `finally` and no other thread is waited for. `answers`: the storage does."""
        self.end_after(limit)
        where = within(patience(limit), self.stacks) if answers else None
        first = within(patience(limit), lambda: is_first(self.folder)) if answers else None
        told = f"error: {reason}; stacks of its threads: {where or 'could not be written'}"
        if first is None:
            told += (
                "\ntrain: the job is not queued again, since its run folder does not answer; start it again to go on"
            )
        within(min(GRACE, patience(limit)), lambda: self.log(told))  # the log may lie on that storage, too
        grace = min(GRACE, TENTH * limit)
        time.sleep(grace)
        if first:
            with contextlib.suppress(Exception):
                self.log(f"train: {self.hung(reason)}")
        elif first is False:
            time.sleep(grace)  # for the one that came first: srun ends it with this one
        self.sentinel.tell(end=EXIT_WITHIN)
        os._exit(AGAIN)

    def end_after(self, limit: float) -> None:
        """By a thread of C, and by the sentinel where the system does not let the process go."""
        seconds = end_after(limit)
        if seconds is not None:
            self.sentinel.tell(end=seconds)

    def stacks(self) -> Path:
        return write_stacks(self.folder, f"{start()}-rank{self.rank}-{self.host}")


def write_stacks(folder: Path, name: str) -> Path:
    """The stacks of all threads of this process (files and functions, no data) -> the file, in folder/logs."""
    path = folder / "logs" / f"stacks-{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    return path


def is_first(folder: Path) -> bool:
    """Whether no other rank of this start has come here before. `folder`: the run's."""
    try:
        os.close(os.open(folder / heartbeat.FOLDER / f"hung-{start()}", os.O_CREAT | os.O_EXCL, 0o640))
    except FileExistsError:
        return False
    return True


def patience(limit: float) -> float:
    """Seconds for something that is asked of the storage."""
    return min(STORAGE, max(TENTH * limit, MIN_STORAGE))


def start() -> str:
    """A name of this start of the job."""
    return f"{job_name()}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def asked() -> float | None:
    """HTR_STEP_TIMEOUT; None where it is not set. Raises ValueError for what is no number."""
    text = os.environ.get("HTR_STEP_TIMEOUT", "")
    if not text:
        return None
    if not is_number(text):
        raise ValueError(f"HTR_STEP_TIMEOUT={text!r} is not a number of seconds (0: never)")
    return float(text)
