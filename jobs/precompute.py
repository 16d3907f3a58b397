"""python -m jobs precompute DATASET: lines as a model sees them, beside the shards; trainings need not make them then.

Evened, scaled to --height and coded without loss, in DATASET/lines-HEIGHT; `train` with this --height reads them in
place of the shards, from its first epoch on and on any node. Runs alone, as any task of a job array, or as any rank of
a job step; a second run does only what is missing. The shards are not touched; remove the folder to be rid of it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

from htr.worker_pool import worker_pool
from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.cpus import cpus_of_task
from jobs.distributed.heartbeat import ACTIVITY
from jobs.launch.part_watchdog import watch_besides, watch_reading
from jobs.launch.shared_work import SharedWork
from jobs.launch.under_way import under_way


@dataclass(frozen=True)
class Settings:
    dataset: Path = setting(help="folder of a data set", positional=True)
    height: int = setting(48, "height of the lines in px, that of train --height", metavar="PX")
    workers: int | None = setting(
        None, "number of processes of this task (default: one per CPU that it may use)", least=0
    )


def main(args: Settings) -> int:
    from htr.models.registry import encoder_config
    from shards.index import read_index
    from shards.precomputed import ENDING, finished, folder_of, write_note

    encoder_config("ctc", "tiny", height=args.height)  # refuses what no model has
    with watch_reading(args.dataset, "reading the index"):
        index = read_index(args.dataset)
    shards = {shard["shard"]: shard for shard in index.shards}
    folder = folder_of(index.folder, args.height)
    folder.mkdir(exist_ok=True)

    def done() -> set[str]:
        return finished(index, args.height)

    def write(some: Sequence[str]) -> Iterator[str]:
        workers = max(min(args.workers or cpus_of_task(), len(some)), 1)
        with worker_pool(workers, one_thread) as pool:
            jobs = {pool.submit(write_part, index.folder, shards[name], args.height): name for name in some}
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]

    work = SharedWork("precompute", "write", "shards", list(shards), folder, done=done, ending=ENDING)
    with Progress("precompute", len(work.todo), "shards") as progress:
        for _ in work.each(write):
            progress.advance()
    if work.is_left_to_others():
        return 0
    with watch_besides(folder, "writing lines.json"):
        size = write_note(index, args.height) / 2**20
    stored = sum(shard["bytes"] for shard in index.shards) / 2**20
    log(f"precompute: {size:.1f} MiB in {folder}, beside {stored:.1f} MiB of shards; trainings read it")
    return 0


def write_part(dataset: Path, shard: dict, height: int) -> None:
    """Make the lines of a shard, in a worker process, unless another task has it under way."""
    from shards.precomputed import ENDING, folder_of, write_lines

    folder = folder_of(dataset, height)
    with under_way(folder, shard["shard"]) as ours:
        if ours and not (folder / f"{shard['shard']}{ENDING}").exists():
            write_lines(dataset, shard, height, ACTIVITY.progressed)


def one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
