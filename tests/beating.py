"""A holder of a claim, mark or lock that lives, wherever: its file is touched all the time."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path


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
