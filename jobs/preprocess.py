"""python -m jobs preprocess SOURCE --out DATASET: a table, or pages with ALTO or PAGE XML, to WebDataset shards.

Runs alone, as any task of a job array, or as any rank of a job step: tasks own shards by number, skip what is
committed, and the last to finish merges the index. A second run does only what is missing. How far it is, from any
terminal: python -m jobs status DATASET.
"""

import concurrent.futures
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from htr.charset import CROSSED_MARKS, ILLEGIBLE_MARKS
from jobs.console import Progress, log
from jobs.distributed.work_sharding import share_of_work
from jobs.launch.worker_status import StatusWriter, clear_worker_status
from jobs.settings import setting


@dataclass(frozen=True)
class Settings:
    source: Path = setting(help="a CSV or Parquet table, or a folder of page images with XML", positional=True)
    out: Path = setting(help="the data set's folder, on shared storage")
    unit: Literal["line", "field"] = setting(
        "line",
        "what a row is: a line (an image of its own, or a box on a page), or a field of a certificate, which is "
        "found on its form, or by the row's box (default: %(default)s)",
    )
    forms: Path | None = setting(None, "a folder of templates, NAME.json and NAME.png (default: those of the project)")
    rulings: Literal["keep", "remove"] = setting("keep", "in the stored fields (default: %(default)s)")
    stray: Literal["reject", "blank"] = setting(
        "reject",
        "with --unit field: ink on a field without text, a stamp perhaps, rejects the row; or it is blank, where "
        "the source never leaves a text out (default: %(default)s)",
    )
    pages: bool = setting(False, "with --unit field: store each certificate's whole page too, upright")
    rows: int = setting(1000, "rows a shard (default: %(default)s)")
    shares: str | None = setting(None, "of the splits, as train=0.9,dev=0.02,… where the source has no split column")
    years: str = setting("", "splits by year instead, as train=-2018,dev=2019,val=2020,test=2021-")
    crossed: list[str] = setting(
        list(CROSSED_MARKS),
        f"what the texts write for crossed-out pieces, * for anything in it ({' '.join(CROSSED_MARKS)})",
        metavar="MARK",
    )
    illegible: list[str] = setting(
        list(ILLEGIBLE_MARKS), f"the same for illegible ones ({' '.join(ILLEGIBLE_MARKS)})", metavar="MARK"
    )
    may_share: list[Literal["writer", "certificate", "image"]] = setting(
        [], "do not refuse a source whose splits have this in common"
    )
    encoding: Literal["jpg", "png"] = setting("jpg", "of the stored lines")
    quality: int = setting(95, "of JPEG (default: %(default)s)")
    workers: int | None = setting(None, "processes of this task (default: one a CPU that it may use)")


def main(args: Settings) -> int:
    from shards.plan import open_plan

    plan, images = open_plan(args.out, args.source, settings_of(args))
    return write_missing(plan, images, forms=args.forms, workers=args.workers)


def settings_of(args: Settings):
    from htr.forms.template import FORMS, digest_of_forms
    from shards.plan import SHARES, Settings

    shares = SHARES
    if args.shares:
        try:
            shares = {name: float(value) for name, value in (part.split("=") for part in args.shares.split(","))}
        except ValueError:
            raise ValueError(f"--shares {args.shares}: write it as train=0.9,dev=0.1") from None
    return Settings(
        rows=args.rows,
        shares=shares,
        years=args.years,
        crossed=tuple(args.crossed),
        illegible=tuple(args.illegible),
        share=sorted(args.may_share),
        encoding=args.encoding,
        quality=args.quality,
        unit=args.unit,
        rulings=args.rulings,
        stray=args.stray,
        pages=args.pages,
        forms=digest_of_forms(args.forms or FORMS) if args.unit == "field" else "",
    )


def write_missing(plan, images: Path, *, forms: Path | None, workers: int | None) -> int:
    """This task's share of the shards that are not committed; the last task merges the index. -> exit status."""
    from shards.index import merge, missing_shards
    from shards.plan import read_plan

    task, tasks = share_of_work()
    mine = [number for number in range(len(plan.shards)) if number % tasks == task]
    names = set(missing_shards(plan))
    todo = [number for number in mine if plan.shards[number]["name"] in names]
    log(f"preprocess: task {task + 1} of {tasks}, {len(todo)} of its {len(mine)} shards to write")
    workers = max(min(workers or len(os.sched_getaffinity(0)), len(todo)), 1)
    count = rejected = 0
    # forkserver: a worker that is killed is noticed, and none inherits threads
    context = multiprocessing.get_context("forkserver")
    with (
        concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool,
        Progress("preprocess", sum(plan.shards[number]["rows"] for number in todo), "rows") as progress,
    ):
        jobs = [pool.submit(write_one, plan.folder, plan.name, number, images, forms, task) for number in todo]
        try:
            for job in concurrent.futures.as_completed(jobs):
                rows, kept, lost = job.result()
                count, rejected = count + kept, rejected + lost
                progress.advance(rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    left = missing_shards(plan)
    if left:
        log(f"preprocess: this task is done ({count} samples, {rejected} rejected); {len(left)} shards are others'")
        return 0
    index = merge(read_plan(plan.folder))
    clear_worker_status(plan.folder)
    report(plan.folder)
    log(f"preprocess: {sum(index.totals.values())} samples in {len(index.shards)} shards under {plan.folder}")
    return 0


def write_one(
    folder: Path, name: str, number: int, images: Path, forms: Path | None, task: int
) -> tuple[int, int, int]:
    """In a worker process, which reads the plan of this name itself. -> rows, samples, rejected."""
    import cv2

    from shards.plan import read_plan
    from shards.write import write_shard

    cv2.setNumThreads(1)
    if (folder, name) not in plans:
        plans[folder, name] = read_plan(folder, name)
    plan = plans[folder, name]
    prepared = prepare_forms(forms) if plan.settings.unit == "field" else None
    with StatusWriter(
        plan.folder, task=task, shard=plan.shards[number]["name"], rows=plan.shards[number]["rows"]
    ) as beacon:
        note = write_shard(plan, number, images, prepared, beacon.show)
    return note["rows"], note["count"], sum(note["rejects"].values())


plans: dict = {}  # of this worker process; so are the prepared forms, which cost as much as a certificate
prepared_forms: dict = {}


def prepare_forms(folder: Path | None):
    from htr.forms.registration import Forms
    from htr.forms.template import FORMS, load_templates

    folder = folder or FORMS
    if folder not in prepared_forms:
        prepared_forms[folder] = Forms(load_templates(folder))
    return prepared_forms[folder]


def report(folder: Path) -> None:
    """What a person asks first: how much of what, and what was rejected why."""
    import json

    index = json.loads((folder / "index.json").read_text())
    counts = ", ".join(f"{split} {count}" for split, count in index["totals"].items() if count)
    levels = ", ".join(f"{count} x {level}" for level, count in index["levels"].items())
    log(f"preprocess: {index['rows']} rows: {counts or 'no sample'} ({levels}); "
        f"rejected {sum(index['rejects'].values())}")  # fmt: skip
    for reason, count in sorted(index["rejects"].items()):
        print(f"    {count:6d} x {reason}", file=sys.stderr)
