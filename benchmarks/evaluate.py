"""Evaluation beside the bare forward pass of the same model on the same batches.

    python benchmarks/evaluate.py DATASET [--split val] [--model htr/pretrained/model] [--lines 400] [--cores 1]

`forward` is the model alone, on batches that lie in memory: what nobody can be faster than. `evaluate` is what
python -m jobs evaluate does with the shards that these lines are in: read and decode the images, the model, greedy
decoding with its signals, counting the errors, writing the parts. Both go over the same lines in turns, after a
warm-up; a turn's ratio is of neighbours in time, and the middle one counts. A table, then one line of JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent
TURNS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", type=Path, default=CHECKOUT / "htr" / "pretrained" / "model")
    parser.add_argument("--lines", type=int, default=400, help="at least, whole shards (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--amp", choices=["auto", "off", "bf16", "fp16"], default="auto")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    return measure(args)


def measure(args: argparse.Namespace) -> int:
    import cv2
    import torch

    from htr.reader import Reader
    from jobs.distributed.precision import precision
    from jobs.evaluation.read_shards import read_shard
    from shards.index import read_index
    from shards.loader import Samples

    torch.set_num_threads(args.cores)
    cv2.setNumThreads(1)
    index, reader = read_index(args.dataset), Reader.load(args.model)
    mixed, _ = precision(args.amp, torch.device("cpu"))
    pieces = shards_of(index, args.split, args.lines)
    lines = sum(len(rows) for _, rows in pieces)

    def evaluate() -> float:
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), mixed():
            (Path(folder) / "parts").mkdir()
            began = time.monotonic()
            for shard, rows in pieces:
                read_shard(Samples(index.folder, rows), rows, reader, mixed, None, args.batch, Path(folder), shard)
            return time.monotonic() - began

    height = reader.geometry.height
    ready = [batch for _, rows in pieces for batch in in_memory(Samples(index.folder, rows), args.batch, height)]

    def forward() -> float:
        began = time.monotonic()
        with torch.no_grad(), mixed():
            for images, widths in ready:
                reader.encode(images, widths)
        return time.monotonic() - began

    evaluate(), forward()  # shapes that oneDNN has not met take longer
    print(f"{lines} lines of {len(pieces)} shards, {args.cores} cores")
    print(f"{'turn':>4s} {'forward':>12s} {'evaluate':>12s} {'ratio':>7s}")
    ratios, speeds = [], []
    for turn in range(TURNS):
        alone, whole = forward(), evaluate()
        ratios.append(alone / whole)
        speeds.append((lines / alone, lines / whole))
        print(f"{turn:4d} {lines / alone:8.1f} l/s {lines / whole:8.1f} l/s {ratios[-1]:7.3f}", flush=True)
    middle = ratios.index(statistics.median_low(ratios))
    figures = {"lines": lines, "cores": args.cores, "ratio_to_forward": round(ratios[middle], 3)}
    figures |= {"forward_lines_per_s": round(speeds[middle][0], 1), "lines_per_s": round(speeds[middle][1], 1)}
    print(json.dumps(figures))
    return 0


def shards_of(index, split: str, lines: int) -> list:
    """The first shards of the split with so many lines or more: their names and rows."""
    import pyarrow.compute as pc

    table, found = index.samples(split), []
    for shard in dict.fromkeys(table["shard"].to_pylist()):
        if sum(len(rows) for _, rows in found) >= lines:
            break
        found.append((shard, table.filter(pc.equal(table["shard"], shard))))
    return found


def in_memory(samples, batch: int, height: int) -> list:
    """The images and widths of the batches that an evaluation cuts."""
    from shards.loader import batches, in_order

    plan = in_order(samples.widths(height), batch)
    return [(piece.images, piece.widths) for piece in batches(samples, plan, 0, 1, height)]


if __name__ == "__main__":
    raise SystemExit(main())
