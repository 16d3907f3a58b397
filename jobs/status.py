"""python -m jobs status PATH: how far a preprocess, precompute, transcribe, evaluate or align is, from any terminal.

It shows parts done, speed, time left, what each node does, tasks that are gone and the command that does the rest; for
a preprocess also rejected rows. It only reads the folder of the data set or run, or the one beside --out of transcribe.
"""

import collections
import os
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import duration
from jobs.cli.settings import setting
from jobs.launch.worker_status import LOST_AFTER_S, WorkerStatus, read_worker_status


@dataclass(frozen=True)
class Settings:
    dataset: Path = setting(
        positional=True,
        help="a data set or its folder lines-HEIGHT, the --out of a transcribe, a run, or the folder of an "
        "evaluation or alignment",
    )
    watch: bool = setting(False, "show it again every few seconds until all is done")


def main(args: Settings) -> int:
    from rich.console import Console

    from jobs.launch.under_way import Work, find_work, lines_of, state_of
    from jobs.training.config import has_run

    works = find_work(args.dataset)
    is_run = has_run(args.dataset) or (args.dataset / "status.json").is_file()
    while works or is_run:
        trains = is_run and show_run(args.dataset) in ("starting", "running")
        states = [state_of(folder, Work.read(folder)) for folder in works]
        print(
            "".join(f"{line}\n" for at in zip(works, states, strict=True) for line in lines_of(*at)), end="", flush=True
        )
        if not args.watch or not (trains or any(state.done < len(state.work.parts) for state in states)):
            return 0
        time.sleep(5)
    if args.dataset.is_file():
        raise ValueError(f"{args.dataset}: no {args.dataset.name}.parts beside it, which transcribe makes")
    if not (args.dataset / "plan.json").exists():
        raise ValueError(
            f"{args.dataset}: no data set, run or transcription was begun here. If its job was submitted, it may still "
            "wait in the queue (squeue)"
        )
    console, known = Console(stderr=False), {}
    while True:
        state = read_state(args.dataset, known)
        if args.watch and console.is_terminal:
            console.clear()
        show(console, args.dataset, state)
        if not args.watch or state["whole"]:
            return 0
        time.sleep(5)


def show_run(run: Path) -> str | None:
    """The training of a run: one line, as its row of `runs`. -> its state."""
    from jobs.training.run_status import describe
    from shards.files import in_shell

    [row] = describe([(str(run), run)], evaluated=False)
    if row["state"] == "adopted":
        print(
            f"{run}: the run folder of a model that was trained elsewhere; more: python -m jobs report {in_shell(run)}"
        )
        return row["state"]
    step = f", step {row['step']} of {row['steps']}" if row["step"] is not None else ""
    reason = f" ({row['reason']})" if row["reason"] else ""
    more = f"python -m jobs runs {in_shell(run.parent)}"
    print(f"{run}: training, {row['state'] or 'just begun'}{reason}{step}; more: {more}", flush=True)
    return row["state"]


def read_state(folder: Path, known: dict[str, dict] | None = None) -> dict:
    """What the folder of a data set says of its plan and retries, committed shards, and workers. `known`: what shards
    said that were committed when it was last looked at; what is committed stays as it is, and is not asked for again.
    """
    from shards import files
    from shards.index import read_retries
    from shards.plan import read_plan
    from shards.retry import merged

    plan, retries = read_plan(folder), read_retries(folder)
    index = files.read_json(folder / "index.json") if (folder / "index.json").exists() else {}
    again = retries[-1] if retries and index and not merged(retries[-1]) else None
    shards = again.shards if again else [shard for one in (plan, *retries) for shard in one.shards]
    there, known = set(os.listdir(folder)), {} if known is None else known
    of_index = {shard["shard"]: {**shard, "rows": 0, "rejects": {}} for shard in index.get("shards", ())}
    for name in (shard["name"] for shard in shards):
        if f"{name}.json" in there and name not in known:
            known[name] = of_index.get(name) or files.read_json(folder / f"{name}.json")
    notes = [known[shard["name"]] for shard in shards if shard["name"] in known]
    signs = read_worker_status(folder)
    alive = [sign for sign in signs if sign.silent < LOST_AFTER_S]
    rejects = collections.Counter()
    for note in notes if not index else ():
        rejects.update(note["rejects"])
    rejects.update(index.get("rejects"))  # a row of a retry was rejected before, and is one row
    rows, done = sum(shard["rows"] for shard in shards), sum(note["rows"] for note in notes)
    under_way = sum(sign.samples + sign.rejected for sign in alive)
    if index and not again:
        rows = done = index["rows"]
    return {
        "again": again.name if again else "",
        "shards": len(shards),
        "done": len(notes),
        "rows": rows,
        "rows_done": done,
        "samples": sum(note["count"] for note in notes),
        "bytes": sum(note["bytes"] for note in notes),
        "rejects": rejects,
        "rate": sum(sign.speed for sign in alive),
        "left": max(rows - done - under_way, 0),
        "signs": signs,
        "whole": bool(index) and not again and len(notes) == len(shards),
    }


def show(console, folder: Path, state: dict) -> None:
    from rich.table import Table

    if state["again"]:
        what = f"{folder}: whole but for {state['again']}, rejected rows once more"
        console.print(what, highlight=False, soft_wrap=True)
    done = f"{state['done']} of {state['shards']} shards, {state['rows_done']} of {state['rows']} rows"
    size = f"{state['samples']} samples, {state['bytes'] / 1e9:.2f} GB"
    console.print(f"{folder}: {done}, {size}", highlight=False, soft_wrap=True)
    if state["whole"]:
        console.print("whole: all shards are committed and the index is written", highlight=False, soft_wrap=True)
    elif any(sign.silent < LOST_AFTER_S for sign in state["signs"]) and not state["rate"]:
        console.print("at work", highlight=False, soft_wrap=True)
    elif state["rate"]:
        left = state["left"] / state["rate"]
        console.print(
            f"{state['rate']:.0f} samples a second now, about {duration(left)} left", highlight=False, soft_wrap=True
        )
    elif state["done"] == state["shards"]:
        console.print(
            "all shards are committed, the index is not: run the same preprocess again", highlight=False, soft_wrap=True
        )
    else:
        console.print(
            "nobody is at work: run the same preprocess again, it does what is missing", highlight=False, soft_wrap=True
        )
    for reason, count in state["rejects"].most_common():
        console.print(f"    {count:8d} rejected: {reason}", highlight=False, soft_wrap=True, markup=False)
    if state["signs"]:
        table = Table("node", "task", "shard", "rows", "a second", "rejected", "last sign")
        for sign in state["signs"]:
            table.add_row(*described(sign))
        console.print(table)


def described(sign: WorkerStatus) -> tuple[str, ...]:
    rows = sign.samples + sign.rejected
    rate = f"{sign.speed:.0f}" if sign.speed else ""
    last = f"{sign.silent:.0f} s ago" + (": dead?" if sign.silent >= LOST_AFTER_S else "")
    return sign.host, str(sign.task), sign.shard, f"{rows} of {sign.rows}", rate, str(sign.rejected), last
