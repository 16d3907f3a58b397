"""The worker processes that write the shards of a task: for a first preprocess and for a retry."""

import concurrent.futures
import json
from functools import cache
from pathlib import Path

from htr.forms.prepared import prepare_forms
from htr.worker_pool import worker_pool
from jobs.cli.console import Progress, log
from jobs.distributed.cpus import cpus_of_task
from jobs.distributed.work_sharding import share_of_work
from jobs.launch.part_watchdog import PartWatchdog, watch_besides
from jobs.launch.shared_work import own_share
from jobs.launch.worker_status import StatusWriter, clear_worker_status


def write_missing(plan, images: Path, *, forms: Path | None, workers: int | None) -> int:
    """Write this task's share of the shards that are not committed; the task that ends last merges the index. -> exit
    status.

    `images`: the folder that the rows' images are relative to; `forms`: of templates; `workers`: processes (default:
    one a CPU).
    """
    from shards.claim import clock, modified, take_turns
    from shards.files import in_shell
    from shards.index import merge, missing_shards, read_index
    from shards.plan import read_plan

    if warning := cut_by_other_code(plan.folder):
        log(warning)
    numbers = {shard["name"]: number for number, shard in enumerate(plan.shards)}
    _, missing = own_share("preprocess", "write", "shards", list(numbers), numbers.keys() - missing_shards(plan))
    task, todo = share_of_work()[0], [numbers[name] for name in missing]
    workers = max(min(workers or cpus_of_task(), len(todo)), 1)
    count = rejected = 0
    with (
        worker_pool(workers) as pool,
        Progress("preprocess", sum(plan.shards[number]["rows"] for number in todo), "rows") as progress,
    ):
        jobs = [pool.submit(write_one, plan.folder, plan.name, number, images, forms, task) for number in todo]
        for job in concurrent.futures.as_completed(jobs):
            rows, kept, lost = job.result()
            count, rejected = count + kept, rejected + lost
            progress.advance(rows)
    index_of = plan.folder / "index.json"
    since = clock(index_of)
    left = missing_shards(plan)
    if left:
        log(f"preprocess: this task is done ({count} samples, {rejected} rejected); others have {len(left)} shards")
        return 0
    whole = read_plan(plan.folder)

    def merge_index() -> None:
        with watch_besides(plan.folder, "merging the shards' tables"):
            merge(whole)

    # several tasks may see that none is left: one merges for all of them
    take_turns(plan.folder / ".index.claim", lambda: (modified(index_of) or 0) > since, merge_index, poll=0.2)
    index = read_index(plan.folder)
    clear_worker_status(plan.folder)
    report(plan.folder)
    log(
        f"preprocess: {sum(index.totals.values())} samples in {len(index.shards)} shards under {plan.folder}; "
        f"next: python -m jobs stats {in_shell(plan.folder)}"
    )
    return 0


def write_one(
    folder: Path, name: str, number: int, images: Path, forms: Path | None, task: int
) -> tuple[int, int, int]:
    """Write one shard, in a worker process, which reads the plan of this name itself. -> rows, samples, rejected
    rows."""
    import cv2

    from shards.write import write_shard

    cv2.setNumThreads(1)
    plan = plan_of(folder, name)
    prepared = prepare_forms(forms) if plan.settings.unit == "field" else None
    shard = plan.shards[number]
    with (
        StatusWriter(plan.folder, task=task, shard=shard["name"], rows=shard["rows"]) as status,
        PartWatchdog(plan.folder, shard["name"]),
    ):
        note = write_shard(plan, number, images, prepared, status.show)
    return note["rows"], note["count"], sum(note["rejects"].values())


@cache
def plan_of(folder: Path, name: str):
    """The plan, read once in each worker process."""
    from shards.plan import read_plan

    return read_plan(folder, name)


def cut_by_other_code(folder: Path) -> str:
    """A warning where the code that cuts fields has changed since the data set was planned; "" otherwise."""
    from htr.code_digest import cutting_code
    from shards.plan import read_note

    if read_note(folder).get("cutting", cutting_code()) == cutting_code():
        return ""
    return (
        f"preprocess: the code that cuts fields has changed since {folder} was planned, so that its shards are not all "
        f"cut alike, and a promise can't see that: make the data set anew before you calibrate with it"
    )


def too_few_to_calibrate(folder: Path, index: dict, alpha: float = 0.02, delta: float = 0.05) -> str:
    """A warning where the split `calibration` has too few writers, or certificates, for calibrate's defaults; empty
    otherwise."""
    import pyarrow.parquet as pq

    from htr.reliability.risk_control import needed, needed_clusters

    if not index["totals"].get("calibration"):
        return ""
    of_split = [("split", "=", "calibration")]
    known = pq.read_table(folder / "index.parquet", columns=["certificate", "writer"], filters=of_split)
    counts = {name: len(known[name].unique().drop_null()) for name in ("writer", "certificate")}
    by = "writer" if counts["writer"] > 1 else "certificate"  # as calibrate takes it
    least = needed_clusters(alpha, delta) if by == "writer" else needed(alpha, delta)
    if counts[by] >= least:
        return ""
    return (
        f"split calibration has {counts[by]} {by}s; a promise of {100 * alpha:g} % takes {least} at least whose texts "
        f"are accepted without an error: give it a larger share (--shares), or calibrate with a larger --alpha"
    )


def report(folder: Path) -> None:
    """Log what became of the source: samples by split and level, rejected rows by reason."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    counts = ", ".join(f"{split} {count}" for split, count in index["totals"].items() if count)
    levels = ", ".join(f"{count} x {level}" for level, count in index["levels"].items())
    log(f"preprocess: {index['rows']} rows: {counts or 'no sample'} ({levels}); "
        f"rejected {sum(index['rejects'].values())}")  # fmt: skip
    for reason, count in sorted(index["rejects"].items()):
        log(f"    {count:6d} x {reason}")
    if nearest := index.get("nearest"):
        log(f"preprocess: an image that is missing: {nearest}")
    if few := too_few_to_calibrate(folder, index):
        log(f"preprocess: {few}")
    if unread := index.get("unread_pages"):
        log(f"preprocess: {unread} further pages of TIFFs were not read: give the table a column page, from 0")
    if dropped := index.get("dropped"):
        kinds = ", ".join(f"{count} x {character}" for character, count in dropped.items())
        log(f"preprocess: characters that nobody sees were dropped from texts: {kinds}")
