"""Parts of a work that several tasks share: which are done, which somebody has under way, whose tasks are gone.

FOLDER/work.json says what the work is: verb, command, names of its parts. FOLDER/.under-way/PART stands there
while a task works at the part, with a heartbeat as its time. It saves work and tells people who does what; that each
part counts once hangs on the commit of its file alone. A task that stands still ends (see part_watchdog.py).
"""

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.launch.part_watchdog import PartWatchdog, quiet_for
from shards import files
from shards.claim import STALE_AFTER_S, abandoned, clock, clock_or_own, died_here, hold, modified, remove

NOTE, MARKS = "work.json", ".under-way"
ENDING = ".parquet"  # of the files of parts
IDLE = ".idle"  # after the name of a mark: says for how long that task stands still
WATCH_S = STALE_AFTER_S / 5  # seconds in which a task that lives is seen to beat
MAX_TIMES = 256  # files whose time is asked for, to tell a rate


@dataclass(frozen=True)
class Work:
    """What work.json says. `parts`: the names of all parts; the file of one is FOLDER / PREFIX + NAME + ENDING."""

    verb: str
    command: str
    unit: str
    prefix: str
    parts: list[str]
    begun: float
    ending: str = ENDING

    @classmethod
    def read(cls, folder: Path) -> "Work | None":
        try:
            return cls(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ValueError(f"{folder / NOTE} is damaged: remove it, the next task writes it anew") from None


def note_work(folder: Path, verb: str, unit: str, parts: Sequence[str], prefix: str = "", ending: str = ENDING) -> None:
    """Write work.json, for `status`. Every task writes the same; the command is that of this program."""
    before = Work.read(folder)
    if before and before.parts == list(parts):
        return
    command = shlex.join(["python", "-m", "jobs", verb, *sys.argv[2:]]) if verb in sys.argv[1:2] else verb
    work = Work(verb, command, unit, prefix, list(parts), time.time(), ending)
    files.replace(folder / NOTE, files.to_json(vars(work)))


@contextlib.contextmanager
def under_way(folder: Path, part: str, stale: float = STALE_AFTER_S) -> Iterator[bool]:
    """Mark the part as this task's while the block runs. -> whether it is: False where another task that lives has
    it."""
    marks = folder / MARKS
    marks.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            now = clock(marks / part) if modified(marks / part) else 0.0
            if looks_gone(marks / part, now, stale):
                names = [name for name in os.listdir(marks) if looks_gone(marks / name, now, stale)]
                left_behind(folder, names, stale)
            held = stack.enter_context(hold(marks / part, stale / 6))
        except FileNotFoundError:  # all is done: the task that ended last has taken the folder away
            held = False
        if held:
            stack.enter_context(PartWatchdog(folder, part, marks / f"{part}{IDLE}"))
        yield held


def looks_gone(mark: Path, now: float, stale: float = STALE_AFTER_S) -> bool:
    """Whether the mark's task has probably ended without removing it, as far as clocks tell, which may differ. `now`:
    the time of the storage."""
    beat = modified(mark)
    return beat is not None and (died_here(mark) or abs(now - beat) > stale)


def left_behind(folder: Path, parts: Sequence[str], stale: float = STALE_AFTER_S) -> list[str]:
    """Remove the marks of those of these parts whose tasks are gone. -> the parts that no task is at work on.

    A task lives if its heartbeat is seen, whatever the clocks say. All marks are watched at the same time, for a little
    longer than one interval of heartbeats.
    """
    marks = {part: folder / MARKS / part for part in parts}
    for mark in abandoned(marks.values(), stale / 5):
        remove(mark)
    return [part for part, mark in marks.items() if not mark.exists()]


def parts_done(folder: Path, parts: Sequence[str], ending: str = ENDING) -> set[str]:
    """Those of these parts that have a file NAME + ENDING, by one listing of the folder."""
    try:
        there = set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    return {part for part in parts if f"{part}{ending}" in there}


# --- what status shows


@dataclass(frozen=True)
class State:
    """How far a work is."""

    work: Work
    done: int
    rate: float  # parts a second since the first of those there
    at_work: list[tuple[str, str, float]]  # part, host, seconds for which it stands still
    gone: list[tuple[str, str]]
    waiting: int  # parts that nobody has


def state_of(folder: Path, work: Work) -> State:
    done = parts_done(folder / work.prefix, work.parts, work.ending)
    # of so many that a file server is not asked for each of a hundred thousand
    some = [part for part in work.parts if part in done]
    some = some[:: max(len(some) // MAX_TIMES, 1)] + some[-1:]
    times = [beat for part in some if (beat := modified(folder / f"{work.prefix}{part}{work.ending}")) is not None]
    at_work, gone = [], []
    with contextlib.suppress(OSError):  # no mark was made yet, or none may be made by this reader
        now = clock_or_own(folder / MARKS / "now")
        marks = [
            mark for mark in sorted((folder / MARKS).iterdir()) if mark.name in work.parts and mark.name not in done
        ]
        # clocks differ: who is seen to beat lives
        left = abandoned([mark for mark in marks if looks_gone(mark, now)], WATCH_S)
        for mark in marks:
            with contextlib.suppress(FileNotFoundError):  # it is done now
                host = (mark.read_text(encoding="utf-8").split() or ["?"])[0]
                if mark in left:
                    gone.append((mark.name, host))
                else:
                    at_work.append((mark.name, host, quiet_for(mark.with_name(f"{mark.name}{IDLE}"))))
    seconds = max(times) - min(times) if times else 0.0
    rate = (len(done) - 1) / seconds if seconds > 0 else 0.0
    return State(work, len(done), rate, at_work, gone, len(work.parts) - len(done) - len(at_work))


def find_work(path: Path) -> list[Path]:
    """The folders of works that belong to a path: of a result's file, its parts, a run or an evaluation."""
    if path.is_file() or not path.exists():
        path = path.with_name(f"{path.name}.parts")
    if (path / NOTE).exists():
        return [path]
    return sorted(note.parent for verb in ("evaluation", "alignment") for note in path.glob(f"{verb}/*/{NOTE}"))


def lines_of(folder: Path, state: State) -> Iterator[str]:
    """The state in words, line by line."""
    from jobs.cli.console import ago, duration

    work, total = state.work, len(state.work.parts)
    yield f"{folder}: {work.verb}, {state.done} of {total} {work.unit}"
    for part, host, quiet in state.at_work:
        yield f"    {part} is under way on {host}{f': no progress for {ago(quiet)}' if quiet else ''}"
    for part, host in state.gone:
        yield f"    {part} was under way on {host}: that task is gone"
    left = total - state.done
    if not left:
        yield f"all {work.unit} are done; if its result is not there, this writes it: {work.command}"
    elif state.at_work:
        about = f", about {duration(left / state.rate)} left" if state.rate else ""
        yield f"{60 * state.rate:.1f} {work.unit} a minute{about}; {state.waiting} have nobody at work yet"
    else:
        yield f"nobody is at work; this does the {left} {work.unit} that are missing: {work.command}"


def ended(folder: Path) -> None:
    """Remove the marks: every part is done."""
    with contextlib.suppress(OSError):
        for mark in (folder / MARKS).iterdir():
            mark.unlink(missing_ok=True)
        os.rmdir(folder / MARKS)
