"""python -m jobs verify DATASET: read every byte of a data set and report each shard with an error."""

from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.cpus import cpus_of_task


@dataclass(frozen=True)
class Settings:
    dataset: Path = setting(help="folder of a data set", positional=True)
    workers: int | None = setting(None, "number of processes (default: one per CPU)", least=0)


def main(args: Settings) -> int:
    from shards.index import read_index
    from shards.verify import verify

    index = read_index(args.dataset)
    with Progress("verify", len(index.shards), "shards") as progress:
        faults = verify(index, args.workers or cpus_of_task(), progress.advance)
    for fault in faults:
        log(fault)
    log(f"verify: {len(index.shards)} shards, {len(faults)} faults")
    return 1 if faults else 0
