"""From shards to padded batches: lines a second of one core, beside plain webdataset and beside reading and decoding.

    python benchmarks/stream.py [--dataset DATASET] [--lines 6000] [--repeat 3] [--batch 32] [--memory 60000]

DATASET is a folder that preprocess made; without it, one of drawn lines is made. All in this run, on the same shards,
on one core that the process is bound to, in CPU seconds of the process with all its threads, the best of the repeats,
which take turns; the shards are in the page cache.

    limit        the index's lines of the split in the order of the shards: read, cv2.imdecode, thrown away
    webdataset   shards shuffled, shuffle(1000), decode("torchl8"), padded to the widest of a batch: no height to be
                 made equal, no paper evened, no like widths in a batch
    alike        the stream with webdataset's work alone: lines as they are stored, cut off at 48 rows, neither evened
                 nor scaled (no training reads so)
    stream       what a training reads (epochs, windows, evened ink 48 high, padded), without augmentation and with it

`padding` is that of a rank's pixels. Memory is the peak of processes of their own that stream: of 10 000 lines after
one epoch and after five, and of 200 000, the first --memory lines of an epoch. Where DATASET has fewer, its rows are
listed again and again.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import pyarrow as pa
import torch

from htr.models.encoder import EncoderConfig
from jobs.training.metrics import memory
from shards.index import Index, read_index
from shards.loader import AugmentConfig, stream
from shards.reading import COLUMNS, Samples
from shards.sampler import EpochSampler, Weight

HEIGHT = EncoderConfig.height
GPU = 3000  # lines/s that a GPU is assumed to train with


def drawn(folder: Path, count: int = 1200) -> Path:
    """A data set of drawn lines, 64 high."""
    from htr.io.sources import read_source
    from shards.index import merge
    from shards.plan import Settings, make_plan
    from shards.write import write_shard

    rng, rows = np.random.default_rng(0), ["image,text,certificate"]
    (folder / "source").mkdir()
    for number in range(count):
        width = int(np.clip(rng.lognormal(6.4, 0.5), 60, 2000))
        image = rng.normal(225, 6, (64, width)).clip(0, 255).astype(np.uint8)
        for x in range(8, width - 20, 16):
            points = np.array([x, 22]) + np.cumsum(rng.normal(0, 7, (6, 2)), axis=0)
            cv2.polylines(image, [np.rint(points).astype(np.int32)], False, 40, 2, cv2.LINE_AA)
        cv2.imwrite(str(folder / "source" / f"{number}.png"), image)
        rows.append(f"{number}.png,{'n' * (width // 16)},c{number}")
    (folder / "source" / "lines.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    table, images = read_source(folder / "source" / "lines.csv")
    plan = make_plan(folder / "dataset", table, Settings(rows=250, shares={"train": 1.0}))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merge(plan)
    return folder / "dataset"


# ---------------------------------------------------------------------------- what is measured


def limit(index: Index, table: pa.Table, batch: int) -> int:
    rows = zip(*(table[name].to_pylist() for name in ("shard", "offset", "size")), strict=True)
    files: dict[str, int] = {}
    count = 0
    for shard, offset, size in rows:
        if shard not in files:
            files[shard] = os.open(index.folder / f"{shard}.tar", os.O_RDONLY)
        content = os.pread(files[shard], size, offset)
        count += cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    for handle in files.values():
        os.close(handle)
    return count


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


def ours(index: Index, table: pa.Table, batch: int, strength: str | None = None, seen: list | None = None) -> int:
    samples = Samples(index.folder, table)
    epochs = EpochSampler(samples.source, samples.widths(HEIGHT), [Weight()], batch, 1)
    look = AugmentConfig(HEIGHT, (1, 0), strength) if strength else AugmentConfig(HEIGHT)
    count = 0
    for made in stream(samples, epochs.windows(epochs.epochs[0], seed=1), 0, 1, look):
        count += len(made.texts)
        if seen is not None:
            seen.append((made.images.numel(), int(made.widths.sum()) * HEIGHT))
    samples.close()
    return count


def alike(index: Index, table: pa.Table, batch: int) -> int:
    def cut(gray: np.ndarray, height: int) -> np.ndarray:
        return gray[:height] if len(gray) >= height else np.pad(gray, ((0, height - len(gray)), (0, 0)))

    with mock.patch("shards.loader.lines.normalise_line", cut):
        return ours(index, table, batch)


def best(works: dict[str, Callable[[], int]], repeat: int) -> dict[str, float]:
    """Lines a CPU second of each, the best of its turns."""
    found = dict.fromkeys(works, 0.0)
    for _ in range(repeat):
        for name, work in works.items():
            began = time.process_time()
            count = work()
            found[name] = max(found[name], count / (time.process_time() - began))
    return found


# ---------------------------------------------------------------------------- memory, in a process of its own


def peaks(dataset: Path, count: int, epochs: int, most: int, batch: int) -> list[float]:
    """GiB after each epoch of so many lines, or after `most` lines of one."""
    argv = [sys.executable, __file__, "--peaks", *map(str, (dataset, count, epochs, most, batch))]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak(dataset: str, count: int, epochs: int, most: int, batch: int) -> None:
    index = read_index(Path(dataset))
    table = index.samples("train", columns=list(COLUMNS))
    table = table.take(pa.array(np.arange(count) % table.num_rows))
    samples = Samples(index.folder, table)
    del table
    course = EpochSampler(samples.source, samples.widths(HEIGHT), [Weight()], batch, epochs * (count // batch))
    found = []
    for epoch in course.epochs:
        with contextlib.closing(stream(samples, course.windows(epoch, seed=1), 0, 1, AugmentConfig(HEIGHT))) as batches:
            for _ in islice(batches, most // batch):
                pass
        found.append(memory(torch.device("cpu"))["memory_gib"])
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--lines", type=int, default=6000, help="of the data set's train split, the first")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory", type=int, default=60_000, help="lines of the 200 000; 0: no memory is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, options.dataset or drawn(Path(scratch)))


def measure(options: argparse.Namespace, dataset: Path) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    index = read_index(dataset)
    table = index.samples("train", columns=list(COLUMNS)).slice(0, options.lines)
    given, seen = (index, table, options.batch), []
    works = {
        "limit": lambda: limit(*given),
        "webdataset": lambda: plain(*given),
        "alike": lambda: alike(*given),
        "stream": lambda: ours(*given),
        "augmented": lambda: ours(*given, "medium"),
    }
    found = best(works, options.repeat)
    ours(*given, seen=seen)
    pixels, ink = np.array(seen).sum(axis=0)
    heights, widths = table["height"].to_numpy(), table["width"].to_numpy()
    print(f"{table.num_rows} lines, stored {np.median(heights):.0f} x {widths.mean():.0f} px, one core")
    for name, lines in found.items():
        print(f"{name:12} {lines:8.0f} lines/s {1e6 / lines:8.1f} us a line")
    print(f"padding      {1 - ink / pixels:8.3f}")
    print(f"cores a GPU  {GPU / found['augmented']:8.1f} with augmentation, if it trains {GPU} lines/s")
    figures = {
        "lines_per_s": round(found["stream"]),
        "augmented_lines_per_s": round(found["augmented"]),
        "ratio_to_webdataset": round(found["stream"] / found["webdataset"], 3),
        "ratio_to_limit": round(found["stream"] / found["limit"], 3),
        "alike_to_webdataset": round(found["alike"] / found["webdataset"], 3),
        "alike_to_limit": round(found["alike"] / found["limit"], 3),
        "padding": round(float(1 - ink / pixels), 4),
        "cores_a_gpu": round(GPU / found["augmented"], 2),
    }
    if options.memory:
        few = peaks(dataset, min(10_000, options.memory), 5, options.memory, options.batch)
        [many] = peaks(dataset, 200_000, 1, options.memory, options.batch)
        print(f"memory       {few[0]:8.3f} GiB after one epoch, {few[-1]:.3f} after five, {many:.3f} of 200 000 lines")
        figures["memory_gib"] = round(few[0], 4)
        figures["memory_epoch_5_to_1"] = round(few[-1] / few[0], 3)
        figures["memory_200000_to_10000"] = round(many / few[0], 3)
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peaks"]:
        peak(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
