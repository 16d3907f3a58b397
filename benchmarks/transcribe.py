"""Scans to a table of texts, one core: certificates a second of the whole way, beside its bare steps.

    python benchmarks/transcribe.py [--certificates 128] [--model MODEL --decoding DECODING] [--plan 500000]

The whole way is what a worker of `python -m jobs transcribe --unit field` does with its chunks, greedily and with beam
search, and the merge. The bare steps are registering and cutting the same decoded scans and the model's forward pass of
the same lines, batches and padding, nothing else. One by one: read_scan on each decoded scan, as without chunks; it
writes nothing. CPU time of one thread, files read before: no disk is measured. Runs take turns, the best counts.
Then where the time goes; what it costs to plan so many scans (empty files of that number, listed, hashed and cut into
chunks, in a process of its own) and to merge their parts (timed on as many copies of one part as 32 000 scans have).
A table, then one line of JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import psutil
import torch

import htr.scan
import jobs.transcription.predictions as readings
from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.image_files import decode
from htr.reader import Reader
from htr.scan import cut_scan, read_scan
from htr.synth.simulate import simulate
from jobs.transcribe import CHUNK, PRETRAINED
from jobs.transcription.inputs import open_input
from jobs.transcription.results import Asked, merge
from shards.scans import Scans

SIZE = CHUNK["fields"]
MERGED = 500  # parts, of 64 scans each
WAYS = {"greedy": None, "beam": "decoding"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificates", type=int, default=128)
    parser.add_argument("--model", type=Path, default=PRETRAINED / "model", help="default: the project's own reader")
    parser.add_argument("--decoding", type=Path, default=PRETRAINED / "decoding")
    parser.add_argument("--severity", default="light", help="of the simulated scanner")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--plan", type=int, default=500_000, help="scans to be planned; 0: leave it out")
    parser.add_argument("--list", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        plan(args.list)
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(args, Path(scratch))
        if args.plan:
            figures |= planning(Path(scratch) / "many", args.plan)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    table = simulate(folder / "scans", args.certificates, 1, severity=args.severity, workers=2)
    source = open_input(table.parent / "pages", "field")
    forms, chunks = Forms(load_templates()), source.chunks(SIZE)
    scans = [decode(path.read_bytes()) for path in sorted((table.parent / "pages").iterdir())]
    readers = {way: Reader.load(args.model, decoding=args.decoding if place else None) for way, place in WAYS.items()}
    parts = {way: [folder / f"{way}-{number}.parquet" for number in range(len(chunks))] for way in WAYS}
    batches = batches_of(scans, forms, chunks, readers["greedy"])
    lines = sum(len(widths) for _, widths in batches)

    def whole(way: str) -> None:
        for path, (first, last) in zip(parts[way], chunks, strict=True):
            path.unlink(missing_ok=True)
            readings.write_part(path, source.chunk(first, last), first, readers[way], forms, "keep", 16)
        result(folder, parts[way], source)

    def cut() -> None:
        for scan in scans:
            cut_scan(scan, forms)

    def forward() -> None:
        for images, widths in batches:
            readers["greedy"].encode(images, widths)

    def one_by_one() -> None:
        for scan in scans:
            read_scan(scan, forms, readers["greedy"])

    runs: dict[str, Callable[[], None]] = {
        "whole, greedy": lambda: whole("greedy"),
        "whole, beam": lambda: whole("beam"),
        "register and cut": cut,
        "forward pass": forward,
        "one by one, greedy": one_by_one,
    }
    best = dict.fromkeys(runs, float("inf"))
    for repeat in range(args.repeat + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if repeat:  # the first warms up
                best[name] = min(best[name], time.process_time() - began)
    bare = best["register and cut"] + best["forward pass"]
    count = len(scans)
    print(f"{count} certificates, {lines} lines, one core; a certificate's ms, certificates/s")
    for name, seconds in best.items():
        print(f"  {name:22}{1000 * seconds / count:8.1f}{count / seconds:9.2f}")
    print("where the time of the whole way goes, % of it:")
    for way in WAYS:
        shares = ", ".join(f"{name} {100 * share:.1f}" for name, share in spent(lambda way=way: whole(way)).items())
        print(f"  {way:8}{shares}")
    began = time.process_time()
    result(folder, parts["greedy"][:1] * MERGED, source)
    merging = (time.process_time() - began) / (MERGED * min(SIZE, count)) * 100_000
    print(f"merge: {merging:.1f} s for 100 000 scans")
    return {
        "certificates_per_s": count / best["whole, greedy"],
        "certificates_per_s_beam": count / best["whole, beam"],
        "lines_per_s": lines / best["whole, greedy"],
        "ratio_to_bare": bare / best["whole, greedy"],
        "ratio_to_bare_beam": bare / best["whole, beam"],
        "ratio_to_one_by_one": best["one by one, greedy"] / best["whole, greedy"],
        "merge_s_per_100000": merging,
    }


def result(folder: Path, parts: list[Path], source) -> None:
    merge(folder, parts, "fields", source.images, Asked(folder / "texts.parquet"), {})


def batches_of(scans: list, forms: Forms, chunks: list, reader: Reader) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What the model is given of each chunk: padded lines and their widths."""
    found, read = [], reader.read_batch

    def keep(images: torch.Tensor, widths: torch.Tensor, fields: list) -> list:
        found.append((images, widths))
        return read(images, widths, fields)

    reader.read_batch = keep
    for first, last in chunks:
        cuts = [field for scan in scans[first:last] for field in cut_scan(scan, forms)]
        inks = [readings.normalise_line(image, reader.geometry.height) for field in cuts for image in field.images]
        readings.read_inks(reader, inks, [None] * len(inks), 16)
    del reader.read_batch
    return found


def spent(run: Callable[[], None]) -> dict[str, float]:
    """The shares of the time that `run` spends in each step, and in what is none of them."""
    steps = {
        "image decoding": (Scans, "read"),
        "registration": (Forms, "register"),
        "fields and lines": (htr.scan, "cut_field"),
        "ink": (readings, "normalise_line"),
        "forward pass": (Reader, "encode"),
        "text decoding": (Reader, "decode"),
    }
    seconds = dict.fromkeys(steps, 0.0)

    def timed(name: str, inner: Callable) -> Callable:
        def call(*args, **named):
            began = time.process_time()
            try:
                return inner(*args, **named)
            finally:
                seconds[name] += time.process_time() - began

        return call

    before = {name: getattr(owner, attribute) for name, (owner, attribute) in steps.items()}
    try:
        for name, (owner, attribute) in steps.items():
            setattr(owner, attribute, timed(name, before[name]))
        began = time.process_time()
        run()
        total = time.process_time() - began
    finally:
        for name, (owner, attribute) in steps.items():
            setattr(owner, attribute, before[name])
    return {name: value / total for name, value in seconds.items()} | {"rest": 1 - sum(seconds.values()) / total}


# ---------------------------------------------------------------------------------------------------- planning


def planning(folder: Path, count: int) -> dict[str, float]:
    """Empty files of that number, a thousand a folder."""
    for number in range(count):
        if number % 1000 == 0:
            below = folder / f"{number // 1000:04d}"
            below.mkdir(parents=True)
        os.close(os.open(below / f"scan-{number:07d}.jpg", os.O_CREAT | os.O_WRONLY, 0o640))
    command = [sys.executable, __file__, "--list", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(
        f"plan of {count} scans: {figures['plan_s']:.2f} s, {figures['plan_mib']:.0f} MiB, {figures['chunks']} chunks"
    )
    return {"planned": count, "plan_s": figures["plan_s"], "plan_mib": figures["plan_mib"]}


def plan(folder: Path) -> None:
    process = psutil.Process()
    before, began = process.memory_info().rss, time.perf_counter()
    source = open_input(folder, "field")
    chunks = source.chunks(SIZE)
    seconds, after = time.perf_counter() - began, process.memory_info().rss
    print(json.dumps({"plan_s": seconds, "plan_mib": (after - before) / 2**20, "chunks": len(chunks)}))


if __name__ == "__main__":
    main()
