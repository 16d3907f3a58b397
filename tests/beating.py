"""A holder of a claim, mark or lock that lives, wherever: its file is touched all the time."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def beats_when_watched(monkeypatch: pytest.MonkeyPatch, path: Path, off: float = 0.0) -> None:
    """Whoever waits for its beat has seen one after the first wait, however busy the machine is. `off`: seconds by
    which the clock is ahead that stamps it."""
    real, number = time.sleep, itertools.count(1)

    def sleep(seconds: float) -> None:
        real(min(seconds, 0.01))
        if path.exists():
            os.utime(path, (time.time() + off + next(number),) * 2)

    monkeypatch.setattr("shards.claim.time.sleep", sleep)


@contextlib.contextmanager
def beating(path: Path, off: float | None = None) -> Iterator[None]:
    """Within the block the file beats; by a clock that is so many seconds off, or (None) by that of the storage."""
    ended = threading.Event()

    def beat() -> None:
        for number in itertools.count():
            if ended.wait(0.02):
                return
            os.utime(path, None if off is None else (time.time() + off + number,) * 2)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
