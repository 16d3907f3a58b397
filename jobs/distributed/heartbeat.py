"""Heartbeats: every few seconds a thread of each rank writes to a small file what the rank is doing, and for how long.

RUN/.heartbeat/RANK-HOST has a counter, the step, the activity, and how long it has lasted by the rank's own clock.
Times of two machines are never compared: a rank has stopped if its counter does not change while another one watches.
Heartbeats are hints, so a failure to write or read one is ignored.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from shards.open_shards import shards_under_way

BEAT_INTERVAL_S = 3.0  # seconds
FOLDER = ".heartbeat"
WATCH_S = BEAT_INTERVAL_S + 1.5  # in this time every rank that is alive changes its counter
BEAT_BYTES = 400  # of a heartbeat
KINDS = {"beat": int, "step": int, "at": str, "idle": int | float, "waits": int}  # what a heartbeat says
MAX_NAMED_SHARDS = 5  # in a heartbeat, which must not be cut off
# parts of the paths of code in which a rank waits for the others in a collective
COLLECTIVES = ("/horovod/", "/torch/distributed/", "distributed/horovod_backend.py", "distributed/torch_backend.py")


@dataclass
class Activity:
    """What the main thread of this process is doing. The watchdog judges by this alone."""

    step: int = 0
    at: str = "starting"
    collective: str = ""  # the collective in which it waits for the others
    count: int = 0  # signs of progress so far
    met: int = 0  # collectives so far that it has waited for, and that came to their end
    first: bool = True  # no step was taken yet
    lasted: float = 0.0  # seconds of the last step, without what was done besides (`during`)
    inside: bool = False  # in `during`
    paused: float = 0.0  # seconds in `during` since the last step
    stepped: float = field(default_factory=time.monotonic)

    def progressed(self, at: str | None = None) -> None:
        """Note a sign of progress. `at`: what it is doing now."""
        self.count += 1
        self.at = at or self.at

    def took(self, step: int) -> None:
        """Note that this step is done."""
        now = time.monotonic()
        if not self.first:
            self.lasted = max(now - self.stepped - self.paused, 0.0)
        self.step, self.first, self.stepped, self.paused = step, False, now, 0.0
        self.progressed("waiting for data")

    @contextlib.contextmanager
    def during(self, at: str) -> Iterator[None]:
        """Around work that is no step: an evaluation, a checkpoint. Within another one, the outer name is kept."""
        if self.inside:
            yield
            return
        before, began, self.inside = self.at, time.monotonic(), True
        self.progressed(at)
        try:
            yield
        finally:
            self.paused += time.monotonic() - began
            self.inside = False
            self.progressed(before)

    def describe(self) -> str:
        """What it is doing, in words, with the shards that are being read and the collective that it waits in."""
        names = shards_under_way()
        more = [f"and {len(names) - MAX_NAMED_SHARDS} more"] if len(names) > MAX_NAMED_SHARDS else []
        shards = ", ".join([*names[:MAX_NAMED_SHARDS], *more])
        data = f" ({shards})" if shards and self.at == "waiting for data" else ""
        waits = f", waiting for the others in '{self.collective}'" if self.collective else ""
        return f"{self.at}{data}{waits}"


ACTIVITY = Activity()


class Heartbeat:
    """A context on every rank, with the thread that writes its heartbeats. `folder`: of the run; `ranks`: how many this
    start has.
    """

    def __init__(
        self, folder: Path, rank: int, host: str = "", activity: Activity = ACTIVITY, ranks: int | None = None
    ):
        self.folder, self.rank, self.activity, self.ranks = folder / FOLDER, rank, activity, ranks
        self.path = self.folder / f"{rank}-{host or socket.gethostname()}"
        self.beats, self.idle = 0, 0.0
        self.ended = threading.Event()

    def __enter__(self) -> "Heartbeat":
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            # of an earlier start that was killed, on any host: files of this rank, and of ranks that are no more
            for rank, path in heartbeats(self.folder):
                if rank == self.rank or (self.rank == 0 and self.ranks is not None and rank >= self.ranks):
                    path.unlink(missing_ok=True)
        threading.Thread(target=self.beat, daemon=True, name="heartbeat of the rank").start()
        return self

    def beat(self) -> None:
        while True:
            self.write()
            if self.ended.wait(BEAT_INTERVAL_S):
                return

    def write(self) -> None:
        self.beats += 1
        act = self.activity
        said = {"beat": self.beats, "step": act.step, "at": act.describe(), "idle": round(self.idle, 1)}
        said["waits"] = bool(act.collective) and in_collective()
        with contextlib.suppress(OSError):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o640)
            try:  # one write over the last heartbeat: half of one is never read
                os.pwrite(handle, f"{json.dumps(said)[:BEAT_BYTES]:<{BEAT_BYTES}}".encode(), 0)
            finally:
                os.close(handle)

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def in_collective() -> bool:
    """Whether the main thread is inside the code of a collective; it may still be on its way there."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    return frame is not None and any(name in frame.f_code.co_filename for name in COLLECTIVES)


def heartbeats(folder: Path) -> Iterator[tuple[int, Path]]:
    """The ranks and their files in RUN/.heartbeat; other files are passed over."""
    for path in folder.glob("[0-9]*-*"):
        rank = path.name.partition("-")[0]
        if rank.isdecimal():
            yield int(rank), path


def beats(folder: Path) -> dict[tuple[int, str], dict]:
    """The heartbeats of a run, by rank and host; {} for one that can't be read."""
    found = {}
    with contextlib.suppress(OSError):
        for rank, path in heartbeats(folder / FOLDER):
            found[rank, path.name.partition("-")[2]] = read_beat(path)
    return found


def read_beat(path: Path) -> dict:
    """The heartbeat in the file; {} where it can't be read or is damaged."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        whole = all(isinstance(said[name], kind) for name, kind in KINDS.items())
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return said if whole else {}


def blame(folder: Path, watch: float = WATCH_S) -> tuple[list[tuple[int, str, str]], str]:
    """Watch the heartbeats for `watch` seconds, to find the ranks that keep the others waiting.

    -> (rank, host, what it does) of each; the same as the end of a message. Both are empty where no rank differs.
    """
    before = beats(folder)
    time.sleep(watch)
    after = beats(folder)
    stopped = [
        (rank, host, f"stopped answering at step {said.get('step', '?')}")
        for (rank, host), said in sorted(after.items())
        if said and said == before.get((rank, host))
    ]
    own = [(key, said) for key, said in sorted(after.items()) if said.get("idle", 0) > 0 and not said["waits"]]
    least = min((said["step"] for _, said in own), default=0)
    busy = [(*key, f"{said['at']}, step {said['step']}") for key, said in own if said["step"] == least]
    found = stopped or (busy if len(busy) < len(after) or len(after) == 1 else [])
    if not found:
        return [], ""
    who = "; ".join(f"rank {rank} on {host}: {what}" for rank, host, what in found)
    hosts = ",".join(sorted({host for _, host, _ in found}))  # in Slurm its own names of the nodes
    return found, f"; {who}. If that comes again, --exclude={hosts}"
