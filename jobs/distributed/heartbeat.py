"""What each rank is doing, and since when: said every few seconds in a small file, by a thread of its own.

RUN/.heartbeat/RANK-HOST holds a counter, the step, what the rank is at and how long it has been at it by its own clock.
Nobody compares times of two machines: a rank whose counter stands still while somebody watches has stopped, whatever
the clocks say. Heartbeats are hints: a failure to write or read one is none.
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
WATCH_S = BEAT_INTERVAL_S + 1.5  # seconds in which whoever lives is seen to beat
BEAT_BYTES = 400  # bytes of a heartbeat
MAX_NAMED_SHARDS = 5  # in a heartbeat, which has to stay whole
# files of the code in which a rank that has come to a collective waits for the others
COLLECTIVES = ("/horovod/", "/torch/distributed/", "distributed/horovod_backend.py", "distributed/torch_backend.py")


@dataclass
class Activity:
    """Of this process: what its main thread is at. The only state that the watchdog judges."""

    step: int = 0
    at: str = "starting"
    collective: str = ""  # that it waits in for the others
    count: int = 0  # of signs of progress
    first: bool = True  # no step was taken yet
    lasted: float = 0.0  # seconds between the last two steps, without what was done between them
    inside: bool = False  # of something that is no step
    paused: float = 0.0  # seconds since the last step that were something else
    stepped: float = field(default_factory=time.monotonic)

    def progressed(self, at: str | None = None) -> None:
        self.count += 1
        self.at = at or self.at

    def took(self, step: int) -> None:
        """A step is done."""
        now = time.monotonic()
        if not self.first:
            self.lasted = max(now - self.stepped - self.paused, 0.0)
        self.step, self.first, self.stepped, self.paused = step, False, now, 0.0
        self.progressed("waiting for data")

    @contextlib.contextmanager
    def during(self, at: str) -> Iterator[None]:
        """Something that is no step: an evaluation, a checkpoint. Inside another such one, that is said."""
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
        names = shards_under_way()
        more = [f"and {len(names) - MAX_NAMED_SHARDS} more"] if len(names) > MAX_NAMED_SHARDS else []
        shards = ", ".join([*names[:MAX_NAMED_SHARDS], *more])
        data = f" ({shards})" if shards and self.at == "waiting for data" else ""
        waits = f", waiting for the others in '{self.collective}'" if self.collective else ""
        return f"{self.at}{data}{waits}"


ACTIVITY = Activity()


class Heartbeat:
    """A context, on every rank; `folder` is the run's."""

    def __init__(self, folder: Path, rank: int, host: str = "", activity: Activity = ACTIVITY):
        self.folder, self.rank, self.activity = folder / FOLDER, rank, activity
        self.path = self.folder / f"{rank}-{host or socket.gethostname()}"
        self.beats, self.idle = 0, 0.0
        self.ended = threading.Event()

    def __enter__(self) -> "Heartbeat":
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            # what a killed start left of this rank, on whatever host
            for path in self.folder.glob(f"{self.rank}-*"):
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
            try:  # over the one before, in one go: nobody reads half of it
                os.pwrite(handle, f"{json.dumps(said)[:BEAT_BYTES]:<{BEAT_BYTES}}".encode(), 0)
            finally:
                os.close(handle)

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def in_collective() -> bool:
    """Whether the main thread is really waiting in one: a rank may be held up on the way there."""
    frame = sys._current_frames().get(threading.main_thread().ident)
    return frame is not None and any(name in frame.f_code.co_filename for name in COLLECTIVES)


def beats(folder: Path) -> dict[tuple[int, str], dict]:
    """What the ranks of a run say now, by rank and host; an empty one where it can't be read."""
    found = {}
    with contextlib.suppress(OSError):
        for path in (folder / FOLDER).glob("[0-9]*-*"):
            rank, _, host = path.name.partition("-")
            try:
                said = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                said = {}
            found[int(rank), host] = said if isinstance(said, dict) else {}
    return found


def blame(folder: Path, watch: float = WATCH_S) -> tuple[list[tuple[int, str, str]], str]:
    """Watch the heartbeats for so many seconds. -> (rank, host, what of it) of those that keep the others waiting, and
    the same as the end of a message; empty where nobody stands out.
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
