"""Messages for people, one line each on stderr, and progress bars on a terminal. They never hold a transcription."""

import contextlib
import os
import re
import sys
import time

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters, but for tab and line end
SHOWN = {"progress": True}  # of this process


def log(message: str) -> None:
    """A line that nobody takes, as where the log's disk is full, ends no work. A name in it steers no terminal."""
    with contextlib.suppress(OSError):
        print(STEERING.sub("?", str(message)), file=sys.stderr, flush=True)


def give_up_lines() -> None:
    """At the end: what stderr did not take is lost. Python's own try at it would fail, and change the exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def printable(name: str) -> str:
    """A name on one line that can't steer a terminal, and that UTF-8 can encode: a file's name may be any bytes."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def be_quiet() -> None:
    """From here on show no progress, only results, summaries, warnings and errors."""
    SHOWN["progress"] = False


def duration(seconds: float) -> str:
    """Seconds in words: 3.2 hours."""
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"


def ago(seconds: float) -> str:
    """Seconds in short, for a table: 3 h."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


class Progress:
    """The progress of `total` units: a bar on a terminal; in a log, a line at most every ten seconds.

    `unit`: its plural, for the messages. `done`: how many an earlier start has done; they do not count for the rate.
    """

    def __init__(self, title: str, total: int, unit: str, shown: bool = True, done: int = 0):
        self.title, self.total, self.unit, self.shown = title, total, unit, shown and SHOWN["progress"]
        self.first = done
        self.done, self.began, self.said, self.note = done, time.monotonic(), time.monotonic(), ""
        self.bar = None

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), self.unit)
            after = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
            self.bar = Bar(*columns, *after, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done, note="", rate="")
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.show(self.done + amount, self.total, note)

    def show(self, done: int, total: int, note: str = "") -> None:
        self.done, self.total, self.note = done, total, note
        if self.bar:
            rate = f"{(done - self.first) / max(time.monotonic() - self.began, 1e-9):.1f}/s"
            self.bar.update(self.task, completed=done, total=total, note=note, rate=rate)
        elif self.shown and time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            rate = (done - self.first) / max(self.said - self.began, 1e-9)
            left = f", about {duration((total - done) / rate)} left" if rate > 0 else ""
            log(f"{self.title}: {done} of {total} {self.unit}, {rate:.1f} a second{left}{', ' * bool(note)}{note}")

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()
