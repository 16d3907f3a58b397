"""python -m jobs precompute DATASET: lines as a model sees them, beside the shards; trainings need not make them then.

Evened, scaled to --height and coded without loss, in DATASET/lines-HEIGHT; `train` with this --height reads them in
place of the shards, from its first epoch on and on any node. Runs alone, as any task of a job array, or as any rank of
a job step; a second run does only what is missing. The shards are not touched; remove the folder to be rid of it.
"""

import concurrent.futures
from dataclasses import dataclass
from pathlib import Path

from htr.worker_pool import worker_pool
from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.cpus import cpus_of_task
from jobs.launch.shared_work import own_share


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
    from shards.precomputed import finished, folder_of, write_lines, write_note

    encoder_config("ctc", "tiny", height=args.height)  # refuses what no model has
    index = read_index(args.dataset)
    shards = {shard["shard"]: shard for shard in index.shards}
    _, todo = own_share("precompute", "write", "shards", list(shards), finished(index, args.height))
    workers = max(min(args.workers or cpus_of_task(), len(todo)), 1)
    with (
        worker_pool(workers, one_thread) as pool,
        Progress("precompute", len(todo), "shards") as progress,
    ):
        jobs = [pool.submit(write_lines, index.folder, shards[name], args.height) for name in todo]
        for job in concurrent.futures.as_completed(jobs):
            job.result()
            progress.advance()
    folder = folder_of(index.folder, args.height)
    if left := len(shards.keys() - finished(index, args.height)):
        log(f"precompute: this task is done; {left} of {len(shards)} shards are left to others")
        return 0
    size = write_note(index, args.height) / 2**20
    stored = sum(shard["bytes"] for shard in index.shards) / 2**20
    log(f"precompute: {size:.1f} MiB in {folder}, beside {stored:.1f} MiB of shards; trainings read it")
    return 0


def one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
