"""python -m jobs runs [FOLDER]: the experiments below a folder, how far they are and whether they live.

    python -m jobs runs --watch           renewed every ten seconds until Ctrl-C
    python -m jobs runs RUN --curves      draws RUN/curves.png anew (a training draws it each time it has read dev)

The state is what the run's folder says of itself, corrected by its heartbeat (a run that says "running" and no longer
beats is "lost") and, where sacct answers, by what Slurm knows of its job: node_fail, timeout, cancelled, pending, …
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.console import log
from jobs.settings import setting
from jobs.training import learning_curves as curves
from jobs.training.config import has_run, read_run
from jobs.training.run_folder import is_stale, read_json

MAX_FOLDER_DEPTH = 3  # levels of folders below the one that is listed
SACCT_TIMEOUT_S = 20.0  # seconds for sacct
ASK_EVERY = 60.0  # seconds from one question to it to the next, while the table is watched: it asks a shared data base
FIELDS = (
    *("run", "model", "size", "world", "step", "steps", "lines_per_s", "dev_cer"),
    *("eval_cer", "eval_split", "eval_lines", "state", "reason", "job", "heartbeat"),
)
HEADINGS = ("run", "model", "world", "step", "lines/s", "CER dev", "evaluation", "job", "beat", "state")
NUMBERS = ("world", "step", "lines/s", "CER dev", "job", "beat")  # set to the right
# what Slurm says of a job that is over, whatever its run folder still says; the rest is said by the folder better
ENDED = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def seconds(text: str) -> float:
    if not text.replace(".", "", 1).isdigit() or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0 (a folder goes before --watch)")
    return float(text)


@dataclass(frozen=True)
class Settings:
    folder: Path = setting(Path("runs"), "default: %(default)s", positional=True)
    json: bool = setting(False, "one JSON object a run; CER is a fraction")
    watch: float | None = setting(
        None,
        "renew the table every so many seconds, until Ctrl-C (default: %(const)g)",
        parse=seconds,
        const=10.0,
        metavar="SECONDS",
        exclusive="one",
    )
    curves: bool = setting(False, "draw the learning curves of each run, in its folder", exclusive="one")


def main(args: Settings) -> int:
    if not args.folder.is_dir():
        raise ValueError(f"{args.folder}: no such folder: give the one that holds your runs")
    if args.curves:
        return draw(args.folder)
    slurm = Slurm()
    if not args.watch:
        show(args, table(args.folder, slurm))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        watch(args, slurm)
    return 0


def table(folder: Path, slurm: "Slurm", quiet: bool = False) -> list[dict]:
    """A row a run; `quiet`: folders that can't be read are passed over without a word."""
    rows = [describe(run, str(run.relative_to(folder))) for run in find(folder, quiet=quiet)]
    refine(rows, slurm.ask(row["job"] for row in rows if row["state"] != "finished"))
    return rows


def watch(args: Settings, slurm: "Slurm") -> None:
    """In place on a terminal, one table after the other elsewhere. Ends with KeyboardInterrupt alone."""
    if args.json or not sys.stdout.isatty():
        for rows in renewed(args, slurm):
            show(args, rows)
            sys.stdout.flush()
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), auto_refresh=False) as live:
        for rows in renewed(args, slurm):
            live.update(framed(rows, time.strftime("%H:%M:%S")), refresh=True)


def renewed(args: Settings, slurm: "Slurm") -> Iterator[list[dict]]:
    for number in itertools.count():
        yield table(args.folder, slurm, quiet=number > 0)
        time.sleep(args.watch)


def draw(folder: Path) -> int:
    for run in find(folder):
        picture = curves.draw(run)
        log(f"runs: {picture}" if picture else f"runs: {run} has nothing to draw yet")
    return 0


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


# --- one run


def describe(run: Path, name: str, evaluated: bool = True) -> dict:
    """A row: FIELDS, None where it is not known. CER as a fraction, heartbeat in seconds since the last one.
    `evaluated`: with the figures of its newest evaluation.
    """
    row = dict.fromkeys(FIELDS) | {"run": name}
    try:
        config, status, lock = settings(run), read(run / "status.json"), run / "lock.json"
        row |= {"model": text(config, "model"), "size": text(config, "size"), "job": text(status, "job")}
        row |= {name: number(status, name) for name in ("world", "step", "steps", "lines_per_s", "dev_cer")}
        newest = max(run.glob("evaluation/*/metrics.json"), key=lambda path: path.stat().st_mtime, default=None)
        if newest and evaluated:
            metrics = read(newest)
            row |= {f"eval_{name}": number(metrics, name) for name in ("cer", "lines")}
            row["eval_split"] = text(metrics, "split")
        stale = is_stale(lock)
        if stale is not None:
            row["heartbeat"] = round(max(time.time() - lock.stat().st_mtime, 0.0), 1)
        row["state"], row["reason"] = text(status, "state"), text(status, "reason")
        if row["state"] in ("starting", "running") and stale is not False:
            row |= {"state": "lost", "reason": "no heartbeat" if stale else "nobody holds its lock.json"}
    except (ValueError, OSError) as error:
        row |= {"state": "unreadable", "reason": clean(str(error))}
    return row


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
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]


# --- what Slurm knows


def ask_slurm(jobs: Iterable[str | None]) -> dict[str, str]:
    """Slurm's word for each of the jobs it knows, from one call; empty where accounting does not answer."""
    ids = sorted({job for job in jobs if job and job.isascii() and job.isdigit()})
    if not ids or not shutil.which("sacct"):
        return {}
    command = ["sacct", "-X", "-n", "-P", "--format=JobIDRaw,State", f"--jobs={','.join(ids)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SACCT_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    pairs = (line.split("|") for line in done.stdout.splitlines() if line.count("|") == 1)
    return {job: state.split()[0] for job, state in pairs if state.strip()}  # "CANCELLED by 1000"


class Slurm:
    """What it last said; it is asked again when that is old or a job has come up that it was not asked for."""

    def __init__(self):
        self.states, self.asked, self.when = {}, frozenset(), -math.inf

    def ask(self, jobs: Iterable[str | None]) -> dict[str, str]:
        jobs = frozenset(jobs)
        if not jobs <= self.asked or time.monotonic() - self.when >= ASK_EVERY:
            self.states, self.asked, self.when = ask_slurm(jobs), jobs, time.monotonic()
        return self.states


def refine(rows: list[dict], states: dict[str, str]) -> None:
    for row in rows:
        word = states.get(row["job"] or "")
        if not word or row["state"] in ("finished", "unreadable"):
            continue
        if word in WAITING:  # a requeued job finds its run again
            row |= {"state": "pending", "reason": None}
        elif word in ENDED:
            lost = row["state"] == "lost"
            row |= {"state": word.lower(), "reason": None if lost else row["reason"]}
        elif row["state"] == "lost":
            row["reason"] += f", Slurm says {word}"


# --- the table


def cells(row: dict) -> list[str]:
    def shown(name: str, form: str = "{}", unknown: str = "-") -> str:
        return unknown if row[name] is None else form.format(row[name])

    lines = shown("eval_lines", ", {:,} lines", "")
    evaluation = "-" if row["eval_cer"] is None else f"{row['eval_cer']:.1%} {shown('eval_split')}{lines}"
    return [
        row["run"],
        f"{shown('model')}/{shown('size')}",
        shown("world"),
        f"{shown('step')}/{shown('steps')}",
        shown("lines_per_s", "{:,.0f}"),
        shown("dev_cer", "{:.1%}"),
        evaluation,
        shown("job"),
        "-" if row["heartbeat"] is None else ago(row["heartbeat"]),
        f"{row['state']}: {row['reason']}" if row["reason"] else shown("state"),
    ]


def ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def show(args: Settings, rows: list[dict]) -> None:
    if args.json:
        for row in rows:
            print(json.dumps(row))
    elif not rows:
        log(f"runs: no experiment in {args.folder}, down to {MAX_FOLDER_DEPTH} folders below it")
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(framed(rows))
    else:
        print("\n".join(plain([HEADINGS, *map(cells, rows)])))


def framed(rows: list[dict], caption: str = ""):
    """The table of a terminal."""
    from rich.table import Table
    from rich.text import Text

    rich = Table(caption=caption)
    for heading in HEADINGS:
        rich.add_column(heading, justify="right" if heading in NUMBERS else "left", overflow="fold")
    for row in rows:
        rich.add_row(*map(Text, cells(row)))  # Text: a bracket in a reason is no markup
    return rich


def plain(lines: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        aligned = (
            f"{cell:>{width}}" if heading in NUMBERS else f"{cell:<{width}}"
            for heading, cell, width in zip(HEADINGS, line, widths, strict=True)
        )
        yield "  ".join(aligned).rstrip()
