"""python -m jobs preprocess SOURCE --out DATASET: a table, or pages with ALTO or PAGE XML, to WebDataset shards.

Runs alone, as any task of a job array, or as any rank of a job step: tasks own shards by number, skip what is
committed, and the last to finish merges the index. A second run does only what is missing.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
from pathlib import Path

from jobs.show import Progress, say
from jobs.work import share_of_work


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a CSV or Parquet table, or a folder of page images with XML")
    parser.add_argument("--out", type=Path, required=True, help="the data set's folder, on shared storage")
    parser.add_argument("--rows", type=int, default=1000, help="rows a shard (default: %(default)s)")
    parser.add_argument("--shares", help="of the splits, as train=0.9,dev=0.02,… where the source has no split column")
    parser.add_argument("--encoding", choices=["jpg", "png"], default="jpg", help="of the stored lines")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="processes of this task (default: one a CPU that it may use)")


def main(args: argparse.Namespace) -> int:
    from htr.images.sources import read_source
    from shards.index import merge, missing_shards
    from shards.plan import SHARES, Settings, make_plan

    shares = SHARES
    if args.shares:
        try:
            shares = {name: float(value) for name, value in (part.split("=") for part in args.shares.split(","))}
        except ValueError:
            raise ValueError(f"--shares {args.shares}: write it as train=0.9,dev=0.1") from None
    settings = Settings(rows=args.rows, shares=shares, encoding=args.encoding, quality=args.quality)
    source, images = read_source(args.source)
    plan = make_plan(args.out, source, settings)
    del source

    task, tasks = share_of_work()
    mine = [number for number in range(len(plan.shards)) if number % tasks == task]
    names = set(missing_shards(plan))
    todo = [number for number in mine if plan.shards[number]["name"] in names]
    say(f"preprocess: task {task + 1} of {tasks}, {len(todo)} of its {len(mine)} shards to write")
    workers = max(min(args.workers or len(os.sched_getaffinity(0)), len(todo)), 1)
    count = rejected = 0
    # forkserver: a worker that is killed is noticed, and none inherits threads
    context = multiprocessing.get_context("forkserver")
    with (
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool,
        Progress("preprocess", sum(plan.shards[number]["rows"] for number in todo), "lines") as progress,
    ):
        jobs = [pool.submit(write_one, args.out, number, images) for number in todo]
        try:
            for job in concurrent.futures.as_completed(jobs):
                rows, kept = job.result()
                count, rejected = count + kept, rejected + rows - kept
                progress.advance(rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    left = missing_shards(plan)
    if left:
        say(f"preprocess: this task is done ({count} samples, {rejected} rejected); {len(left)} shards are others'")
        return 0
    index = merge(plan)
    report(args.out)
    say(f"preprocess: {sum(index.totals.values())} samples in {len(index.shards)} shards under {args.out}")
    return 0


def write_one(folder: Path, number: int, images: Path) -> tuple[int, int]:
    """In a worker process. -> rows, samples."""
    import cv2

    from shards.plan import read_plan
    from shards.write import write_shard

    cv2.setNumThreads(1)
    note = write_shard(read_plan(folder), number, images)
    return note["rows"], note["count"]


def report(folder: Path) -> None:
    """What a person asks first: how much of what, and what was rejected why."""
    import json

    index = json.loads((folder / "index.json").read_text())
    counts = ", ".join(f"{split} {count}" for split, count in index["totals"].items() if count)
    say(f"preprocess: {index['rows']} rows: {counts or 'no sample'}; rejected {sum(index['rejects'].values())}")
    for reason, count in sorted(index["rejects"].items()):
        print(f"    {count:6d} x {reason}", file=sys.stderr)
