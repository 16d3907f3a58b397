"""Which rank has stopped answering: each renews a small file every few seconds, in a thread of its own.

RUN/.pulse/RANK-HOST; the pulse is the file's own time, compared with the file system's clock. A rank that hangs is
noticed by Horovod's time-out (HOROVOD_GLOO_TIMEOUT_SECONDS) on all the others, which can't tell whom they waited for: a
process that is stopped, or a node that is gone, has no pulse either. Pulses are hints: a failure to write one is none.
"""

import contextlib
import socket
import threading
from pathlib import Path

from shards.claim import clock

BEAT_INTERVAL_S = 5.0  # seconds
SILENT_AFTER_S = 15.0  # seconds without a pulse, after which a rank counts as hanging


class Heartbeat:
    """A context, on every rank; `folder` is the run's."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank = folder / ".pulse", rank
        self.path = self.folder / f"{rank}-{socket.gethostname()}"
        self.ended = threading.Event()

    def __enter__(self) -> "Heartbeat":
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            # what a killed start left of this rank, on whatever host
            for path in self.folder.glob(f"{self.rank}-*"):
                path.unlink(missing_ok=True)
        threading.Thread(target=self.beat, daemon=True, name="pulse").start()
        return self

    def beat(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self.path.touch()
            if self.ended.wait(BEAT_INTERVAL_S):
                return

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def silent(self) -> list[tuple[int, str, float]]:
        """Ranks that hang: number, host, seconds since their last pulse."""
        found = []
        with contextlib.suppress(OSError):
            now = clock(self.folder / f".clock-{self.rank}")
            for path in self.folder.glob("[0-9]*-*"):
                rank, _, host = path.name.partition("-")
                with contextlib.suppress(FileNotFoundError):
                    if (seconds := now - path.stat().st_mtime) > SILENT_AFTER_S:
                        found.append((int(rank), host, seconds))
        return sorted(found)

    def blame(self) -> str:
        """What to add to the message that another rank stopped answering; empty where all have a pulse."""
        silent = self.silent()
        if not silent:
            return ""
        who = ", ".join(f"rank {rank} on {host} ({seconds:.0f} s)" for rank, host, seconds in silent)
        hosts = ",".join(sorted({host for _, host, _ in silent}))
        return f"; without a sign of life: {who}. If that comes again, --exclude={hosts}"
