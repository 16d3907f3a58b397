"""python -m jobs verify DATASET: read every byte of a data set and say what is wrong with which shard."""

import argparse
import os
from pathlib import Path

from jobs.show import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--workers", type=int, help="processes (default: one a CPU)")


def main(args: argparse.Namespace) -> int:
    from shards.index import read_index
    from shards.verify import verify

    index = read_index(args.dataset)
    faults = verify(index, args.workers or len(os.sched_getaffinity(0)))
    for fault in faults:
        say(fault)
    say(f"verify: {len(index.shards)} shards, {len(faults)} faults")
    return 1 if faults else 0
