"""A task of a verb that works in parts ends in bounded time where it stands still: as a rule, for storage that does not
answer. Its heartbeat is a thread of its own and would go on beating, and the job would last until its time limit.

So a thread watches for signs of progress while a part is done: a batch read, a scan cut, a row written. After a minute
without one it says so in a file beside the part's mark, for `status`. After the limit it writes the stacks of all
threads (names of files and functions, no data), says in one line what stood still and where, and ends the process. The
part is free then for the same command, given again.

What is no part is watched with a limit of five times as long: the loading of a model, the merging of all parts, and the
reading of lists and tables, of a source or an index. That gives no signs; it gets on as long as it computes.
"""

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from htr.process_end import end_after
from jobs.cli.console import log
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.sentinel import within
from jobs.distributed.signals import AGAIN
from jobs.distributed.watchdog import LONGER, asked, patience, write_stacks
from jobs.distributed.work_sharding import job_name

LIMIT_S = 1800.0  # seconds without a sign of progress that are too long; HTR_STEP_TIMEOUT sets it (0: never)
NOTE_AFTER_S = 60.0  # seconds without one that are shown to who asks
NOTE_INTERVAL_S = 10.0  # seconds from one note to the next
TICK_S = 1.0  # seconds between two looks; a longer pause of this thread itself was one of the whole process


class PartWatchdog:
    """A context, in the process that does the part. `folder`: of the work; `note`: the file that says for how long it
    stands still, if there is to be one; `times`: by which its limit is longer than that of a part; `signs`: what it
    returns changes with each sign of progress.
    """

    def __init__(
        self,
        folder: Path,
        part: str,
        note: Path | None = None,
        times: int = 1,
        signs: Callable[[], object] = lambda: ACTIVITY.count,
    ):
        self.folder, self.part, self.note, self.signs = folder, part, note, signs
        limit = asked()
        self.limit = times * (LIMIT_S if limit is None else limit)
        self.quiet, self.noted = 0.0, -NOTE_INTERVAL_S
        self.ended = threading.Event()

    def __enter__(self) -> "PartWatchdog":
        ACTIVITY.progressed()
        self.remove_note()  # of a task that ended by this limit: it was killed with the note in place
        self.thread = threading.Thread(target=self.watch, daemon=True, name="watchdog of a part")
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.forget()

    def watch(self) -> None:
        """The thread."""
        seen, before = self.signs(), time.monotonic()
        while not self.ended.wait(TICK_S):
            now = time.monotonic()
            self.quiet += min(now - before, 2 * TICK_S)
            before = now
            if (signs := self.signs()) != seen:
                seen, self.quiet = signs, 0.0
                self.forget()
            if self.limit and self.quiet > self.limit:
                self.end()
            elif self.quiet >= NOTE_AFTER_S and now - self.noted >= NOTE_INTERVAL_S:
                self.noted = now
                self.tell()

    def tell(self) -> None:
        """Once more; where the storage of the note does not answer either, never again."""
        seconds = f"{self.quiet:.0f}"
        if self.note and not within(2 * TICK_S, lambda: self.note.write_text(seconds, encoding="utf-8")):
            self.noted = math.inf

    def forget(self) -> None:
        if self.note and self.noted >= 0:
            self.noted = -NOTE_INTERVAL_S
            self.remove_note()

    def remove_note(self) -> None:
        if self.note:
            with contextlib.suppress(OSError):
                self.note.unlink(missing_ok=True)

    def end(self) -> None:
        """Of the process: no `finally` and no other thread is waited for."""
        end_after(self.limit)
        name = f"{job_name()}-{self.part.replace(' ', '-')}-{socket.gethostname()}-{os.getpid()}"
        stacks = within(patience(self.limit), lambda: write_stacks(self.folder, name)) or "could not be written"
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        log(
            f"error: {self.part}: no progress for {self.quiet:.0f} s on {host}, as where storage does not answer; "
            f"stacks of its threads: {stacks}. The same command does what is missing; if that comes again, "
            f"--exclude={host}"
        )
        os._exit(AGAIN)


def watch_besides(folder: Path, what: str) -> PartWatchdog:
    """A context for what is no part. `folder`: where the stacks are to lie; `what`: is done, in words."""
    return PartWatchdog(folder, what, times=LONGER)


def watch_reading(folder: Path, what: str) -> PartWatchdog:
    """As `watch_besides`, for what gives no signs. A thread that waits for storage computes nothing meanwhile; one that
    lists a folder, parses XML or looks every second whether another task has done it computes a little.
    """
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return PartWatchdog(folder, what, times=LONGER, signs=lambda: (ACTIVITY.count, time.clock_gettime(clock)))


def quiet_for(note: Path) -> float:
    """Seconds for which a part stands still, by its note; 0 where it does not."""
    try:
        return float(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or it is being written
        return 0.0
