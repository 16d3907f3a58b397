"""python -m jobs runs [FOLDER]: the experiments below a folder, their progress and their state.

    python -m jobs runs --watch           renewed every ten seconds until Ctrl-C
    python -m jobs runs RUN --curves      draws RUN/curves.png anew (a training draws it each time it has read dev)

The state is taken from the run's folder. It is corrected by its heartbeat (a "running" run without a heartbeat is
"lost") and, where sacct answers, by the state of its job in Slurm: node_fail, timeout, cancelled, pending, …
"""

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import ago, log, printable
from jobs.cli.settings import setting
from jobs.launch.slurm_state import ENDED, WAITING, Slurm
from jobs.training import learning_curves
from jobs.training.run_status import MAX_FOLDER_DEPTH, describe, find

HEADINGS = ("run", "model", "world", "step", "lines/s", "CER dev", "evaluation", "job", "beat", "state")
NUMBERS = ("world", "step", "lines/s", "CER dev", "job", "beat")  # set to the right


def seconds(text: str) -> float:
    if not text.replace(".", "", 1).isdigit() or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0 (a folder goes before --watch)")
    return float(text)


@dataclass(frozen=True)
class Settings:
    folder: Path = setting(Path("runs"), "folder that holds the runs", positional=True)
    json: bool = setting(False, "print one JSON object per run; CER is a fraction")
    watch: float | None = setting(
        None,
        "show the table again every SECONDS seconds, until Ctrl-C (default interval: %(const)g)",
        parse=seconds,
        const=10.0,
        metavar="SECONDS",
        exclusive="one",
    )
    curves: bool = setting(False, "draw the learning curves of each run, into its folder", exclusive="one")


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
    """A row for each run. `quiet`: without a message on folders that can't be read."""
    words: dict[str, str] = {}

    def ended(rows: list[dict]) -> set[str]:
        words.update(slurm.ask(row["job"] for row in rows if row["state"] != "finished"))
        return {job for job, word in words.items() if word in (*ENDED, *WAITING)}

    rows = describe(((str(run.relative_to(folder)), run) for run in find(folder, quiet=quiet)), ended=ended)
    refine(rows, words)
    return rows


def watch(args: Settings, slurm: "Slurm") -> None:
    """Show the table again and again: in place on a terminal, one below the other elsewhere. It ends by
    KeyboardInterrupt alone."""
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
        picture = learning_curves.draw(run)
        log(f"runs: {picture}" if picture else f"runs: {run} has nothing to draw yet")
    return 0


# --- what Slurm knows


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
        printable(row["run"]),
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
    """The table for a terminal."""
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
