"""Status of the workers that write a data set: a small file each, renewed every other second.

DATASET/.workers/HOST-PID.json; the heartbeat is the file's own time, compared with the file system's clock, since the
clocks of nodes differ. They are hints for people: nothing else reads them, and a failure to write one stops no work.
"""

import contextlib
import json
import os
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.distributed.heartbeat import ACTIVITY
from shards import files
from shards.claim import clock_or_own, seen_to_beat

WRITE_INTERVAL_S = 2.0  # seconds
LOST_AFTER_S = 30.0  # seconds without a sign, after which a worker is taken for dead
WATCH_S = 3 * WRITE_INTERVAL_S  # seconds in which one that gets on is seen to renew its file, whatever clocks say


class StatusWriter:
    """Writes the status of this worker process while it writes a shard."""

    before = (0, 0.0)  # rows and seconds of the shards that this process wrote before: its speed is that of all

    def __init__(self, folder: Path, *, task: int, shard: str, rows: int):
        self.path = folder / ".workers" / f"{socket.gethostname()}-{os.getpid()}.json"
        self.note = {"host": socket.gethostname(), "pid": os.getpid(), "task": task, "shard": shard, "rows": rows}
        self.began = self.shown = time.monotonic()
        self.rows = 0

    def __enter__(self) -> "StatusWriter":
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
        self.write(0, 0)
        return self

    def show(self, samples: int, rejected: int) -> None:
        self.rows = samples + rejected
        ACTIVITY.progressed()  # what the watchdog sees
        if time.monotonic() - self.shown > WRITE_INTERVAL_S:
            self.write(samples, rejected)

    def write(self, samples: int, rejected: int) -> None:
        self.shown = time.monotonic()
        self.rows, (rows, seconds) = samples + rejected, StatusWriter.before
        speed = (rows + self.rows) / max(seconds + self.shown - self.began, 1e-3)
        note = self.note | {"samples": samples, "rejected": rejected, "speed": round(speed, 1)}
        attempt = self.path.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # without fsync: it is worth nothing after a crash
            attempt.write_text(files.to_json(note), encoding="utf-8")
            os.replace(attempt, self.path)

    def __exit__(self, *_) -> None:
        rows, seconds = StatusWriter.before
        StatusWriter.before = rows + self.rows, seconds + time.monotonic() - self.began
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class WorkerStatus:
    host: str
    pid: int
    task: int
    shard: str
    rows: int
    samples: int
    rejected: int
    speed: float  # samples and rejected rows a second, of this process since it started
    silent: float  # seconds since it was renewed


def read_worker_status(folder: Path) -> list[WorkerStatus]:
    """The status of every worker that is at work or has died at it, sorted by host and process."""
    place = folder / ".workers"
    if not place.is_dir():
        return []
    now = clock_or_own(place / "now")
    signs = {}
    for path in sorted(place.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            silent = abs(now - path.stat().st_mtime)
            signs[path] = WorkerStatus(**json.loads(path.read_text(encoding="utf-8")), silent=silent)
    # clocks of nodes may differ by hours, and storage may stamp by them
    for path in seen_to_beat([path for path, sign in signs.items() if sign.silent >= LOST_AFTER_S], WATCH_S):
        signs[path] = replace(signs[path], silent=0.0)
    return list(signs.values())


def clear_worker_status(folder: Path) -> None:
    """Remove the files that killed workers left, when the data set is complete."""
    for path in (folder / ".workers").glob("*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / ".workers").rmdir()
