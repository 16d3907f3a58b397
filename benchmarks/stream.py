"""From shards to padded batches: lines a second of one core, beside plain webdataset and beside reading and decoding.

    python benchmarks/stream.py [--dataset DATASET] [--lines 6000] [--repeat 3] [--batch 32] [--memory 60000]

DATASET is a folder that preprocess made; without it, one of drawn lines is made. All in this run, on the same shards,
on one core that the processes are bound to, in CPU seconds of the process and its worker, the best of the repeats,
which take turns; the shards are in the page cache.

    limit        the index's lines of the split in the order of the shards: read, cv2.imdecode, thrown away
    webdataset   shards shuffled, shuffle(1000), decode("torchl8"), padded to the widest of a batch: no height to be
                 made equal, no paper evened, no like widths in a batch
    first        what a training reads (epochs, windows, evened ink 48 high, padded) in its first epoch, and in all of
                 them without --local-copy
    precomputed  the same where `precompute` has put lines beside the shards, which are read in their place: other
                 bytes than those of the peers, how many is said
    stream       the same from the second epoch on with --local-copy: lines kept ready-made on the node's disk

The last three without augmentation and with it (medium). `two_workers`: lines/s by the clock of two worker processes on
two cores beside one, with augmentation: how a training scales with the CPUs that it is given. `two_workers_cpu` is the
same by CPU time, for a machine that is not free: what the busiest process spends, or half of what all of them do; it
leaves out what they wait for each other. `two_bare_processes`: two that do as `limit` beside one, what the machine has
to give. `padding` is that of a rank's pixels. Memory is that of a rank and its worker together, processes of their own
that stream: of 10 000 lines, all of which are one window, after one epoch and after five; of 20 000, which are two, and
of 200 000, the first --memory lines of an epoch. Where DATASET has fewer, its rows are listed again and again.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pyarrow as pa
import torch
from support.drawn_set import drawn
from support.stream_processes import HEIGHT, bare, limit, peaks

from shards import precomputed
from shards.index import Index, read_index
from shards.loader import AugmentConfig, Team, stream
from shards.reading import COLUMNS, MapSource, Samples
from shards.ready import prepare
from shards.sampler import EpochSampler, Weight

GPU = 3000  # lines/s that a GPU is assumed to train with


# ---------------------------------------------------------------------------- what is measured


def plain(index: Index, table: pa.Table, batch: int) -> int:
    import webdataset

    def padded(samples: list[tuple]) -> tuple:
        images = [image for image, _ in samples]
        height, width = (max(image.shape[axis] for image in images) for axis in (-2, -1))
        out = torch.zeros(len(images), 1, height, width, dtype=images[0].dtype)
        for place, image in zip(out, images, strict=True):
            place[:, : image.shape[-2], : image.shape[-1]] = image
        return out, [text for _, text in samples]

    urls = [str(index.folder / f"{shard}.tar") for shard in dict.fromkeys(table["shard"].to_pylist())]
    data = webdataset.WebDataset(urls, shardshuffle=100, seed=0, empty_check=False).shuffle(1000).decode("torchl8")
    found = data.to_tuple(index.encoding, "txt").batched(batch, collation_fn=padded)
    count = 0
    for _, texts in found:
        count += len(texts)
        if count >= table.num_rows:
            break
    return count


@dataclass(frozen=True)
class Some:
    """The first lines of the samples, which are all that a training reads here."""

    samples: Samples
    count: int

    def sampler(self, batch: int, lines: int) -> EpochSampler:
        widths = self.samples.widths(HEIGHT)[: self.count]
        return EpochSampler([self.count], widths, [Weight()], batch, max(lines // batch, 1))


def ours(some: Some, batch: int, team: Team, strength: str | None, kept: list | None, lines: int = 1) -> int:
    """As `train` reads them: so many lines, in whole epochs."""
    epochs = some.sampler(batch, lines)
    windows = (window for epoch in epochs.epochs for window in epochs.windows(epoch, seed=1))
    look = AugmentConfig(HEIGHT, (1, 0), strength or "medium") if strength else AugmentConfig(HEIGHT)
    count = 0
    for made in stream(some.samples, windows, 0, 1, look, team, kept=kept):
        count += len(made.texts)
    return count


def padding(some: Some, batch: int, team: Team, kept: list | None) -> float:
    """Of the pixels of an epoch's batches, the share that is none of a line."""
    epochs, pixels, ink = some.sampler(batch, 1), 0, 0
    windows = epochs.windows(epochs.epochs[0], 1)
    for made in stream(some.samples, windows, 0, 1, AugmentConfig(HEIGHT), team, kept=kept):
        pixels, ink = pixels + made.images.numel(), ink + int(made.widths.sum()) * HEIGHT
    return 1 - ink / pixels


def best(works: dict[str, Callable[[], int]], repeat: int, team: Team) -> dict[str, float]:
    """Lines a CPU second of each, the best of its turns."""
    found = dict.fromkeys(works, 0.0)
    for _ in range(repeat):
        for name, work in works.items():
            began = time.process_time() + team.cpu_seconds()
            count = work()
            found[name] = max(found[name], count / (time.process_time() + team.cpu_seconds() - began))
    return found


def precompute(index: Index, scratch: Path) -> tuple[Samples, float]:
    """-> the samples of train with lines made beside their shards; bytes a sample. The data set is left as it is: its
    files are linked to from another folder."""
    linked = scratch / "linked"
    linked.mkdir()
    for path in index.folder.iterdir():
        if path.is_file():
            (linked / path.name).symlink_to(path.resolve())
    made = read_index(linked)
    shards = [shard for shard in made.shards if shard["split"] == "train"]
    for shard in shards:
        precomputed.write_lines(linked, shard, HEIGHT)
    source = MapSource(made, "train", ("line",), {})
    source.lines = precomputed.folder_of(linked, HEIGHT)
    size = sum(path.stat().st_size for path in source.lines.iterdir())
    return Samples.of([source]), size / sum(shard["count"] for shard in shards)


def scaling(some: Some, batch: int, kept: list | None, repeat: int, lines: int) -> dict[int, tuple[float, float]]:
    """Lines a second with augmentation, of one worker and of two: by the clock, and by CPU time."""
    found = {1: (0.0, 0.0), 2: (0.0, 0.0)}
    for _ in range(repeat):
        for workers in found:
            with Team(workers) as team:
                ours(some, batch, team, "medium", kept)  # the workers' start is not measured
                before = [member.cpu_seconds() for member in team.members]
                began, own = time.monotonic(), time.process_time()
                count = ours(some, batch, team, "medium", kept, lines)
                passed, own = time.monotonic() - began, time.process_time() - own
                spent = [member.cpu_seconds() - was for member, was in zip(team.members, before, strict=True)]
            # on two cores that are free the busiest process is what takes time, or all three share them
            least = max(*spent, own, (sum(spent) + own) / 2)
            found[workers] = max(found[workers][0], count / passed), max(found[workers][1], count / least)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--lines", type=int, default=6000, help="of the data set's train split, the first")
    parser.add_argument(
        "--many", type=int, default=15_000, help="lines that one and two workers are compared by, and of what is quick"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", type=int, default=60_000, help="lines of the 200 000; 0: no memory is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, options.dataset or drawn(Path(scratch)), Path(scratch))


def measure(options: argparse.Namespace, dataset: Path, scratch: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    index = read_index(dataset)
    table = index.samples("train", columns=list(COLUMNS)).slice(0, options.lines)
    some, batch = Some(Samples.of([MapSource(index, "train", ("line",), {})]), table.num_rows), options.batch
    coded, coded_bytes = precompute(index, scratch)
    coded = Some(coded, table.num_rows)
    kept = [prepare(index.digest, sum(index.totals.values()), HEIGHT, scratch)]
    with Team(1) as team:  # bound to the same core
        padded = padding(some, batch, team, kept)  # the first epoch keeps the lines
        works = {
            "limit": lambda: limit(index, table, batch),
            "webdataset": lambda: plain(index, table, batch),
            "first": lambda: ours(some, batch, team, None, None),
            "first, augmented": lambda: ours(some, batch, team, "medium", None),
            "precomputed": lambda: ours(coded, batch, team, None, None, options.many),
            "precomputed, augmented": lambda: ours(coded, batch, team, "medium", None),
            "stream": lambda: ours(some, batch, team, None, kept, options.many),
            "stream, augmented": lambda: ours(some, batch, team, "medium", kept),
        }
        found = best(works, options.repeat, team)
    os.sched_setaffinity(0, set(sorted(cores)[:2]))
    speed = scaling(some, batch, kept, options.repeat, options.many) if len(cores) > 1 else {}
    machine = max(bare(dataset, 2) for _ in range(options.repeat)) / max(
        bare(dataset, 1) for _ in range(options.repeat)
    )
    heights, widths = table["height"].to_numpy(), table["width"].to_numpy()
    stored_bytes = float(table["size"].to_numpy().mean())
    print(f"{table.num_rows} lines, stored {np.median(heights):.0f} x {widths.mean():.0f} px, one core")
    print(f"bytes a line: {stored_bytes:.0f} of its image in the shard, {coded_bytes:.0f} precomputed")
    for name, lines in found.items():
        print(f"{name:22} {lines:8.0f} lines/s {1e6 / lines:8.1f} us a line")
    for workers, (clock, cpu) in speed.items():
        name = f"{workers} worker{'s' * (workers > 1)}, augmented"
        print(f"{name:22} {clock:8.0f} lines/s by the clock, {cpu:.0f} by CPU time")
    print(f"2 bare processes       {machine:8.3f} times one")
    print(f"padding                {padded:8.3f}")
    needed = GPU / found["stream, augmented"]
    print(f"cores a GPU            {needed:8.1f} with augmentation, if it trains {GPU} lines/s")
    figures = {
        "lines_per_s": round(found["stream"]),
        "augmented_lines_per_s": round(found["stream, augmented"]),
        "ratio_to_webdataset": round(found["stream"] / found["webdataset"], 3),
        "ratio_to_limit": round(found["stream"] / found["limit"], 3),
        "first_lines_per_s": round(found["first"]),
        "first_augmented_lines_per_s": round(found["first, augmented"]),
        "first_to_webdataset": round(found["first"] / found["webdataset"], 3),
        "first_to_limit": round(found["first"] / found["limit"], 3),
        "precomputed_lines_per_s": round(found["precomputed"]),
        "precomputed_augmented_lines_per_s": round(found["precomputed, augmented"]),
        "precomputed_to_webdataset": round(found["precomputed"] / found["webdataset"], 3),
        "precomputed_to_limit": round(found["precomputed"] / found["limit"], 3),
        "stored_bytes": round(stored_bytes),
        "precomputed_bytes": round(coded_bytes),
        "two_workers": round(speed[2][0] / speed[1][0], 3) if speed else None,
        "two_workers_cpu": round(speed[2][1] / speed[1][1], 3) if speed else None,
        "two_bare_processes": round(machine, 3),
        "padding": round(padded, 4),
        "cores_a_gpu": round(needed, 2),
    }
    if options.memory:
        few = peaks(dataset, min(10_000, options.memory), 5, options.memory, options.batch)
        [some], [many] = (peaks(dataset, count, 1, options.memory, options.batch) for count in (20_000, 200_000))
        print(f"memory       {few[0]:8.3f} GiB after one epoch, {few[-1]:.3f} after five")
        print(f"             {some:8.3f} of 20 000 lines, {many:.3f} of 200 000")
        figures["memory_gib"] = round(few[0], 4)
        figures["memory_epoch_5_to_1"] = round(few[-1] / few[0], 3)
        figures["memory_200000_to_20000"] = round(many / some, 3)
        figures["memory_200000_to_10000"] = round(many / few[0], 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
