"""From shards to padded batches: the same global batches whatever the world, each rank its share of every one.

The order is decided from the index alone, before anything is read: an epoch's samples are shuffled by (seed, epoch),
sorted by width within windows, and cut into global batches, which are shuffled again. Each rank takes every world-th
sample of each batch, so all ranks have the same number of steps, neighbouring widths, and each sample is visited once.
"""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from htr.certificate import log_name
from htr.images import line as lines
from htr.images.augment import LEVELS, augment, random_for
from shards.tar import text_offset

WINDOW = 32  # global batches whose samples are sorted by width together


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (N, 1, H, W) uint8, 0 paper to 255 ink, 0 beyond each line's width
    widths: torch.Tensor  # (N,) int64
    texts: list[str]
    keys: list[str]
    rows: list[int]  # of the table that the stream was given
    characters: int  # of the whole global batch, all ranks together
    lines: int


class Samples:
    """The samples of a table (see Index.samples), read one at a time from their shards by offset."""

    def __init__(self, folder: Path, table: pa.Table):
        self.folder = folder
        columns = ("key", "shard", "offset", "size", "text_size", "width", "height", "length")
        self.columns = {name: table[name].to_numpy(zero_copy_only=False) for name in columns}
        self.handles: dict[str, int] = {}
        self.opening = threading.Lock()
        # a shard stays open: a large data set has more of them than a shell's soft limit of files
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __len__(self) -> int:
        return len(self.columns["key"])

    def read(self, row: int) -> tuple[np.ndarray, str]:
        """-> stored image (H, W) uint8, text. Raises ValueError naming the shard when it was cut short or changed."""
        shard, key, offset, size, text_size = (
            self.columns[name][row] for name in ("shard", "key", "offset", "size", "text_size")
        )
        with self.opening:
            if shard not in self.handles:
                self.handles[shard] = os.open(self.folder / f"{shard}.tar", os.O_RDONLY)
        text_at = text_offset(int(size), key)
        content = os.pread(self.handles[shard], text_at + int(text_size), int(offset))
        try:
            if len(content) != text_at + text_size:
                raise ValueError("cut short")
            return lines.decode(content[:size]), content[text_at:].decode()
        except ValueError:
            raise ValueError(
                f"{self.folder / shard}.tar: cut short or changed since it was committed, at {log_name(key)} "
                f"(see python -m jobs verify {self.folder})"
            ) from None

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)
        self.handles.clear()


def plan_epoch(widths: np.ndarray, batch: int, seed: int, epoch: int, ordered: int = 0) -> list[np.ndarray]:
    """Rows of each global batch of an epoch, `batch` of them or one more; in order of width within a batch.

    The first `ordered` batches of epoch 0 come from narrow to wide, since CTC finds its first alignments on short lines
    ("SortaGrad", Amodei et al. 2016, Deep Speech 2).
    """
    rng = random_for(seed, epoch)
    order = rng.permutation(len(widths))
    steps = max(len(widths) // batch, 1)
    window = WINDOW * batch
    for start in range(0, len(order), window):
        part = order[start : start + window]
        order[start : start + window] = part[np.argsort(widths[part], kind="stable")]
    batches = np.array_split(order, steps)
    shuffled = [batches[i] for i in rng.permutation(steps)]
    if epoch == 0:
        shuffled[:ordered] = sorted(shuffled[:ordered], key=lambda rows: widths[rows].max())
    return shuffled


def in_order(widths: np.ndarray, batch: int) -> list[np.ndarray]:
    """For evaluation: all rows once, from narrow to wide."""
    return np.array_split(np.argsort(widths, kind="stable"), max(-(-len(widths) // batch), 1))


def share(rows: np.ndarray, rank: int, size: int) -> np.ndarray:
    """A rank's part of a global batch; empty where the batch has fewer rows than the world has ranks."""
    return rows[rank::size]


def batches(
    samples: Samples,
    plan: list[np.ndarray],
    rank: int,
    size: int,
    height: int,
    threads: int = 1,
    key: tuple[int, ...] | None = None,
    strength: str = "medium",
    ahead: int = 4,
) -> Iterator[Batch]:
    """This rank's share of each global batch of the plan, read and decoded ahead in background threads.

    With `key` = (seed, epoch) the lines are augmented at this strength (see htr.images.augment.LEVELS), each by random
    numbers of its own.
    """
    lengths = samples.columns["length"]

    def load(row: int) -> tuple[np.ndarray, str]:
        gray, text = samples.read(row)
        ink = lines.to_ink(gray, height)
        if key is not None:
            ink = augment(ink, random_for(*key, samples.columns["key"][row]), LEVELS[strength])
        return ink, text

    def make(rows: np.ndarray, pool: ThreadPoolExecutor) -> Callable[[], Batch]:
        mine = share(rows, rank, size)
        loads = [pool.submit(load, row) for row in mine]
        return lambda: collate(samples, mine, [f.result() for f in loads], height, int(lengths[rows].sum()), len(rows))

    pool = ThreadPoolExecutor(threads, thread_name_prefix="stream")
    try:
        steps = iter(plan)
        waiting = [make(rows, pool) for rows in islice(steps, ahead)]
        while waiting:
            yield waiting.pop(0)()
            waiting.extend(make(rows, pool) for rows in islice(steps, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def few_widths(width: int) -> int:
    """The next of eight widths an octave: a process's memory grows with the shapes that oneDNN has met."""
    grid = max(1 << (width.bit_length() - 4), 8)
    return -(-width // grid) * grid


def collate(
    samples: Samples, rows: np.ndarray, loaded: list[tuple[np.ndarray, str]], height: int, characters: int, total: int
) -> Batch:
    widths = [ink.shape[1] for ink, _ in loaded]
    images = np.zeros((len(loaded), 1, height, few_widths(max(widths, default=16))), np.uint8)
    for image, (ink, _) in zip(images, loaded, strict=True):
        image[0, :, : ink.shape[1]] = ink
    keys = [samples.columns["key"][row] for row in rows]
    return Batch(
        torch.from_numpy(images),
        torch.tensor(widths, dtype=torch.int64),
        [text for _, text in loaded],
        keys,
        rows.tolist(),
        characters,
        total,
    )
