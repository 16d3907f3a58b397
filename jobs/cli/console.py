"""What a person sees: one line a message, and progress bars where there is a terminal. Never a transcription."""

import sys
import time


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Progress:
    """A bar on a terminal; in a log, a line at most every ten seconds."""

    def __init__(self, title: str, total: int, unit: str, shown: bool = True):
        self.title, self.total, self.unit, self.shown = title, total, unit, shown
        self.done, self.began, self.said, self.note = 0, time.monotonic(), time.monotonic(), ""
        self.bar = None

    def __enter__(self) -> "Progress":
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), self.unit, TimeRemainingColumn())
            self.bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, note="")
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.show(self.done + amount, self.total, note)

    def show(self, done: int, total: int, note: str = "") -> None:
        self.done, self.total, self.note = done, total, note
        if self.bar:
            self.bar.update(self.task, completed=done, total=total, note=note)
        elif self.shown and time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            rate = done / max(self.said - self.began, 1e-9)
            log(f"{self.title}: {done} of {total} {self.unit}, {rate:.1f} a second{' ' * bool(note)}{note}")

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()
