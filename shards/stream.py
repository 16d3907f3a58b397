"""From shards to padded batches: the same global batches whatever the world, each rank its share of every one.

What is read is a text with the images of its lines: one, or those of a field, in reading order. Each rank takes every
world-th text of each global batch of the plan (see shards.epochs), so all ranks have the same number of steps,
neighbouring widths, and each text is visited once.
"""

import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from htr.certificate import log_name
from htr.images import line as lines
from htr.images.augment import LEVELS, augment, random_for
from shards.tar import text_offset


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (N, 1, H, W) uint8, 0 paper to 255 ink, 0 beyond each line's width
    widths: torch.Tensor  # (N,) int64
    parts: list[int] | None  # how many of the N lines, one after the other, each of the M texts has; None: one each
    texts: list[str]  # M
    keys: list[str]
    rows: list[int]  # of the samples that the stream was given
    characters: int  # of the whole global batch, all ranks together
    total: int  # texts of the whole global batch


class Samples:
    """The texts of tables (see Index.samples), each with its line images, read by offset from their shards.

    A row a text; rows of the level `part` belong to the row of level `field` before them, and are its images. A field
    without them is left out. `column`: where the texts stand, instead of the shards.
    """

    def __init__(self, folder: Path, table: pa.Table, column: str | None = None):
        self.start([(folder, table)], column)

    @classmethod
    def of(cls, sources: Sequence[tuple[Path, pa.Table]], column: str | None = None) -> "Samples":
        """Of several data sets, one after the other; `source` says of each text which."""
        self = cls.__new__(cls)
        self.start(sources, column)
        return self

    def start(self, sources: Sequence[tuple[Path, pa.Table]], column: str | None) -> None:
        names = ("key", "shard", "offset", "size", "text_size", "width", "height", "length")
        parts = [{name: table[name].to_numpy(zero_copy_only=False) for name in names} for _, table in sources]
        self.images = {name: np.concatenate([part[name] for part in parts]) for name in names}  # a row an image
        self.folders = [folder for folder, _ in sources]
        self.folder_of = np.repeat(np.arange(len(sources)), [table.num_rows for _, table in sources])
        level = np.concatenate([np.asarray(table["level"].to_pylist(), object) for _, table in sources])
        is_part = level == "part"
        text_rows = np.flatnonzero(~is_part)
        owner = np.searchsorted(text_rows, np.arange(len(level)), side="right") - 1  # the text that a part belongs to
        counts = np.bincount(owner[is_part], minlength=len(text_rows)) if len(text_rows) else np.zeros(0, int)
        several = level[text_rows] == "field"
        kept = ~several | (counts > 0)
        self.text_row = text_rows[kept]
        self.first = np.where(several, text_rows + 1, text_rows)[kept]
        self.count = np.where(several, counts, 1)[kept]
        self.source = self.folder_of[self.text_row]
        self.columns = {name: self.images[name][self.text_row] for name in names}
        self.texts = None
        if column:
            self.texts = [text or "" for _, table in sources for text in table[column].to_pylist()]
            self.columns["length"] = np.array([len(self.texts[row]) for row in self.text_row])
        self.handles: dict[tuple[int, str], int] = {}
        self.opening = threading.Lock()
        # a shard stays open: a large data set has more of them than a shell's soft limit of files
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __len__(self) -> int:
        return len(self.text_row)

    def widths(self, height: int) -> np.ndarray:
        """(M,) px of the widest line of each text, at this height."""
        wide = self.images["width"] * height // self.images["height"]
        widest = wide[self.first]
        for line in range(1, int(self.count.max(initial=1))):
            more = self.count > line
            widest[more] = np.maximum(widest[more], wide[self.first[more] + line])
        return widest

    def read(self, text: int) -> tuple[list[np.ndarray], str]:
        """-> stored images (H, W) uint8 of its lines, and the text. Raises ValueError naming a shard that was cut short
        or changed.
        """
        row, first, count = int(self.text_row[text]), int(self.first[text]), int(self.count[text])
        found = [self.sample(line) for line in range(first, first + count)]
        try:
            images = [lines.decode(image) for image, _ in found]
            own = found[0][1] if row == first else self.sample(row)[1]
            return images, own.decode() if self.texts is None else self.texts[row]
        except ValueError:
            raise self.damaged(row) from None

    def sample(self, row: int) -> tuple[bytes, bytes]:
        """-> encoded image and text of a row of `images`."""
        shard, key, offset, size, text_size = (
            self.images[name][row] for name in ("shard", "key", "offset", "size", "text_size")
        )
        name = (int(self.folder_of[row]), shard)
        with self.opening:
            if name not in self.handles:
                self.handles[name] = os.open(self.folders[name[0]] / f"{shard}.tar", os.O_RDONLY)
        text_at = text_offset(int(size), key)
        content = os.pread(self.handles[name], text_at + int(text_size), int(offset))
        if len(content) != text_at + text_size:
            raise self.damaged(row)
        return content[:size], content[text_at:]

    def damaged(self, row: int) -> ValueError:
        folder = self.folders[self.folder_of[row]]
        return ValueError(
            f"{folder / self.images['shard'][row]}.tar: cut short or changed since it was committed, at "
            f"{log_name(self.images['key'][row])} (see python -m jobs verify {folder})"
        )

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)
        self.handles.clear()


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
    key: tuple[int, int] | None = None,
    strength: str = "medium",
    ahead: int = 4,
) -> Iterator[Batch]:
    """This rank's share of each global batch of the plan, read and decoded ahead in background threads.

    With `key` = (seed, the training's step of the plan's first batch) the lines are augmented at this strength (see
    htr.images.augment.LEVELS), each by random numbers of its own.
    """
    lengths, widths = samples.columns["length"], samples.widths(height)

    def load(row: int, step: int, widest: int) -> tuple[list[np.ndarray], str]:
        images, text = samples.read(row)
        inks = [lines.to_ink(gray, height) for gray in images]
        if key is not None:
            numbers = [random_for(key[0], step, samples.columns["key"][row], i) for i in range(len(inks))]
            inks = [augment(ink, rng, LEVELS[strength]) for ink, rng in zip(inks, numbers, strict=True)]
            # one that augmentation made wider than all others would pad them all
            inks = [cv2.resize(i, (widest, height)) if i.shape[1] > widest else i for i in inks]
        return inks, text

    def make(number: int, rows: np.ndarray, pool: ThreadPoolExecutor) -> Callable[[], Batch]:
        mine, widest = share(rows, rank, size), few_widths(int(widths[rows].max()))
        step = key[1] + number if key else 0
        loads = [pool.submit(load, row, step, widest) for row in mine]
        counts = int(lengths[rows].sum()), len(rows)
        return lambda: collate(samples, mine, [f.result() for f in loads], (height, widest), *counts)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="stream")
    try:
        steps = enumerate(plan)
        waiting = [make(*step, pool) for step in islice(steps, ahead)]
        while waiting:
            yield waiting.pop(0)()
            waiting.extend(make(*step, pool) for step in islice(steps, 1))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def few_widths(width: int) -> int:
    """The next of eight widths an octave: a process's memory grows with the shapes that oneDNN has met."""
    grid = max(1 << (width.bit_length() - 4), 8)
    return -(-width // grid) * grid


def collate(
    samples: Samples,
    rows: np.ndarray,
    loaded: list[tuple[list[np.ndarray], str]],
    shape: tuple[int, int],
    characters: int,
    total: int,
) -> Batch:
    inks = [ink for of_text, _ in loaded for ink in of_text]
    widths = [ink.shape[1] for ink in inks]
    images = np.zeros((len(inks), 1, shape[0], max(shape[1], *widths, 0)), np.uint8)
    for image, ink in zip(images, inks, strict=True):
        image[0, :, : ink.shape[1]] = ink
    counts = [len(of_text) for of_text, _ in loaded]
    return Batch(
        torch.from_numpy(images),
        torch.tensor(widths, dtype=torch.int64),
        counts if max(counts, default=1) > 1 else None,
        [text for _, text in loaded],
        [samples.columns["key"][row] for row in rows],
        rows.tolist(),
        characters,
        total,
    )
