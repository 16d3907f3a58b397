"""python -m jobs verify DATASET: read every byte of a data set and say what is wrong with which shard."""

import argparse
from pathlib import Path

from jobs.show import say


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path)


def main(args: argparse.Namespace) -> int:
    from shards.index import read_index
    from shards.verify import verify

    index = read_index(args.dataset)
    faults = verify(index)
    for fault in faults:
        say(fault)
    say(f"verify: {len(index.shards)} shards, {len(faults)} with faults")
    return 1 if faults else 0
