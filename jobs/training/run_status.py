"""The status of a run folder: settings, progress, figures; damage is a reason, never a crash."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from jobs.cli.console import ago, log, printable
from jobs.distributed.heartbeat import beats
from jobs.training.config import has_run, read_run
from jobs.training.run_lock import beat_age, living, read_json, seems_to_beat

QUIET_S = 60.0  # seconds without a sign of progress that are shown
MAX_FOLDER_DEPTH = 3  # levels of folders below the one that is listed
MAX_CLOCK_SKEW_S = 24 * 3600.0  # seconds: a heartbeat that is older, by whatever clock, is one of the dead
NO_BEAT = "no heartbeat"
FIELDS = (
    *("run", "model", "size", "world", "step", "steps", "lines_per_s", "dev_cer"),
    *("eval_cer", "eval_split", "eval_lines", "state", "reason", "job", "heartbeat"),
)


def find(folder: Path, depth: int = MAX_FOLDER_DEPTH, quiet: bool = False, half: bool = False) -> Iterator[Path]:
    """Run folders, by name. Nothing is looked for inside a run: its checkpoints may be many. `half`: those too that
    lack their config.yaml or status.json, but no model's folder.
    """
    there = [has_run(folder), os.path.isfile(folder / "status.json")]
    if all(there) or (half and any(there) and not os.path.exists(folder / "weights.safetensors")):
        yield folder
    elif depth:
        try:
            children = sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir())
        except OSError as error:  # another user's
            if not quiet:
                log(f"runs: {folder} is passed over: {error.strerror}")
            return
        for child in children:
            yield from find(child, depth - 1, quiet, half)


def describe(
    runs: Iterable[tuple[str, Path]],
    evaluated: bool = True,
    ended: Callable[[list[dict]], Collection[str]] = lambda rows: (),
) -> list[dict]:
    """A row for each run, (name, folder): FIELDS, None where it is not known. CER as a fraction, heartbeat in seconds
    since the last one. A run that seems to have stopped beating is watched before it is called lost, since clocks
    differ; all such ones at once.

    `evaluated`: with the figures of its newest evaluation. `ended`: of the rows before that, the jobs of which it is
    known that they don't run: theirs are not watched.
    """
    runs = list(runs)
    rows = [row_of(run, name, evaluated) for name, run in runs]
    over = set(ended(rows))
    unsure = {
        run / "lock.json": row
        for (_, run), row in zip(runs, rows, strict=True)
        if (row["state"], row["reason"]) == ("lost", NO_BEAT)
        and row["heartbeat"] < MAX_CLOCK_SKEW_S
        and row["job"] not in over
    }
    unknown: dict[Path, OSError] = {}
    for lock in living(unsure, unknown):
        unsure[lock] |= row_of(lock.parent, unsure[lock]["run"], evaluated, lives=True)
    for lock, error in unknown.items():
        unsure[lock] |= {"state": "unreadable", "reason": clean(str(error))}
    return rows


def row_of(run: Path, name: str, evaluated: bool, lives: bool = False) -> dict:
    """Of one run, as far as clocks tell. `lives`: it was seen to beat, just now."""
    row = dict.fromkeys(FIELDS) | {"run": name}
    try:
        config, lock = settings(run), run / "lock.json"
        # a model's folder that was evaluated: nothing was trained here, and nothing is missing
        adopted = bool(config.get("adopted")) and not (run / "status.json").exists()
        status = {"state": "adopted"} if adopted else read(run / "status.json")
        row |= {"model": text(config, "model"), "size": text(config, "size"), "job": text(status, "job")}
        row |= {name: number(status, name) for name in ("world", "step", "steps", "lines_per_s", "dev_cer")}
        newest = max(run.glob("evaluation/*/metrics.json"), key=lambda path: path.stat().st_mtime, default=None)
        if newest and evaluated:
            metrics = read(newest)
            row |= {f"eval_{name}": number(metrics, name) for name in ("cer", "lines")}
            row["eval_split"] = text(metrics, "split")
        row["state"], row["reason"] = text(status, "state"), text(status, "reason")
        age = 0.0 if lives else beat_age(lock)
        if age is not None:
            row["heartbeat"] = round(max(age, 0.0), 1)
        if row["state"] in ("starting", "running"):
            if not seems_to_beat(age):
                row |= {"state": "lost", "reason": "nobody holds its lock.json" if age is None else NO_BEAT}
            else:
                row["reason"] = still(run) or row["reason"]
    except (ValueError, TypeError, AttributeError, OSError) as error:
        row |= {"state": "unreadable", "reason": clean(str(error))}
    return row


def still(run: Path) -> str:
    """Since when a run that lives takes no step, and what keeps it; empty where it does."""
    said = [said for said in beats(run).values() if said.get("idle", 0) >= QUIET_S]
    if not said:
        return ""
    longest = max(said, key=lambda one: (not one["waits"], one["idle"]))  # rather who is waited for than who waits
    return clean(f"no step for {ago(longest['idle'])}: {longest['at']}")


def settings(run: Path) -> dict:
    """See jobs.training.config.read_run. Raises ValueError where there is nothing, or it is damaged."""
    found = read_run(run)
    if found is None:
        raise ValueError("config.yaml is damaged")
    return found


def read(path: Path) -> dict:
    """A JSON object. Raises ValueError with the file's name for anything else."""
    try:
        content = read_json(path)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.relative_to(path.parents[2]) if path.name == 'metrics.json' else path.name} is damaged"
        )
    return content


def number(content: dict, name: str) -> float | int | None:
    value = content.get(name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):  # JSON has no infinity
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    return value


def text(content: dict, name: str) -> str | None:
    value = content.get(name)
    return None if value is None else clean(str(value))


def clean(message: str) -> str:
    """One short line that can't steer a terminal."""
    line = (message.splitlines() or [""])[0]
    return printable(line)[:200]
