"""From shards to padded batches: the same global batches whatever the world, each rank its share of every one.

What is read is a text with the images of its lines: one, or those of a field, in reading order. Each rank takes one
part of each global batch of the plan (see shards.sampler), so all ranks have the same number of steps, neighbouring
widths, and each text is visited once.

Steps come in windows. A rank reads all that it needs in a window in few large reads, in the order of the shards, while
the window before is being trained on: at every step as large a part of them as that step is of its window. What is held
is encoded, about a window of it, whatever the size of the data set. Each batch is decoded and padded by one thread.
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from htr.lines import normalise as lines
from htr.lines.augment import LEVELS, augment, random_for
from shards.reading import Read, Samples
from shards.sampler import share

__all__ = ["Batch", "Samples", "batches", "few_widths", "in_order", "stream"]

BATCHES_READ_TOGETHER = 64  # batches of a plan without windows whose texts are read together
MAX_WINDOW_BYTES = 512 << 20  # encoded bytes of a window; of a larger one each step is read by itself
CONCURRENT_READS = 4  # reads under way at once: on a parallel file system each waits for a server of its own


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


@dataclass(frozen=True)
class AugmentConfig:
    """How a rank sees lines."""

    height: int
    key: tuple[int, int] | None = None  # (seed, the training's step of the first batch): lines are augmented by it
    strength: str = "medium"  # see htr.lines.augment.LEVELS


def in_order(widths: np.ndarray, batch: int) -> list[np.ndarray]:
    """For evaluation: all rows once, from narrow to wide."""
    return np.array_split(np.argsort(widths, kind="stable"), max(-(-len(widths) // batch), 1))


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
    """This rank's share of each global batch of the plan, as `stream` has those of windows."""
    windows = [plan[start : start + BATCHES_READ_TOGETHER] for start in range(0, len(plan), BATCHES_READ_TOGETHER)]
    return stream(samples, windows, rank, size, AugmentConfig(height, key, strength), threads, ahead)


def stream(
    samples: Samples,
    windows: Iterable[list[np.ndarray]],
    rank: int,
    size: int,
    look: AugmentConfig,
    threads: int = 1,
    ahead: int = 4,
) -> Iterator[Batch]:
    """This rank's share of each global batch of the windows, read and decoded ahead in background threads.

    `ahead`: batches that are made before they are asked for, at least. Lines that are augmented are so by random
    numbers of their own, keyed by seed, step and key. Raises ValueError naming a shard that was cut short or changed.
    """
    batcher = Batcher(samples, samples.widths(look.height), look, rank, size)
    with contextlib.ExitStack() as stack:
        pool, readers = (ThreadPoolExecutor(count, "stream") for count in (threads, CONCURRENT_READS))
        for each in (pool, readers):  # the readers are shut down first: what waits for them goes on, and fails
            stack.callback(each.shutdown, wait=True, cancel_futures=True)
        coming = held(samples, windows, rank, size)
        made: deque[tuple[Window, int, Future]] = deque()
        window, step = next(coming, None), 0
        while window:
            window.read(readers, 1.0)
            following = next(coming, None)
            for number in range(len(window.steps)):
                if following:
                    following.read(readers, (number + 1) / len(window.steps))
                made.append((window, number, pool.submit(batcher.make, window, number, step)))
                step += 1
                if len(made) > ahead:
                    yield finished(*made.popleft())
            window = following
        while made:
            yield finished(*made.popleft())


def finished(window: "Window", number: int, batch: "Future[Batch]") -> Batch:
    done = batch.result()
    window.release(number)
    return done


# ---------------------------------------------------------------------------------------------------- reading


class Window:
    """What a rank reads together, and holds until it was used."""

    def __init__(self, samples: Samples, steps: list[np.ndarray], rank: int, size: int):
        self.samples, self.steps = samples, steps
        self.mine = [share(rows, rank, size) for rows in steps]
        self.reads: list[Read] = []
        self.bytes = samples.bytes(np.concatenate(self.mine))
        self.stored: dict[int, tuple[bytes, bytes]] = {}
        self.under_way: list[Future] = []
        self.last: list[np.ndarray] = []  # rows that each step is the last to need

    def plan(self) -> "Window":
        self.reads = self.samples.reads(np.concatenate(self.mine))
        rows = [self.samples.rows(texts) for texts in self.mine]
        flat, step = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(of_step) for of_step in rows])
        different, first = np.unique(flat[::-1], return_index=True)
        order = np.argsort(step[::-1][first], kind="stable")
        edges = np.searchsorted(step[::-1][first][order], np.arange(1, len(rows)))
        self.last = np.split(different[order], edges)
        return self

    def read(self, readers: ThreadPoolExecutor, part: float) -> None:
        """Begin with as many of the reads that this part of them has begun."""
        for read in self.reads[len(self.under_way) : round(part * len(self.reads))]:
            self.under_way.append(readers.submit(lambda read=read: self.stored.update(self.samples.take(read))))

    def wait(self) -> None:
        for future in self.under_way:
            future.result()

    def release(self, number: int) -> None:
        for row in self.last[number].tolist():
            del self.stored[row]


def held(samples: Samples, windows: Iterable[list[np.ndarray]], rank: int, size: int) -> Iterator[Window]:
    """The windows, one that is too large to be held in pieces of a step."""
    for steps in windows:
        window = Window(samples, steps, rank, size)
        if window.bytes <= MAX_WINDOW_BYTES:
            yield window.plan()
        else:
            yield from (Window(samples, [step], rank, size).plan() for step in steps)


# ---------------------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class Batcher:
    """Makes a rank's batches of what was read."""

    samples: Samples
    widths: np.ndarray  # of all texts
    look: AugmentConfig
    rank: int
    size: int

    def make(self, window: Window, number: int, step: int) -> Batch:
        """`step`: how many were before it in the stream."""
        window.wait()
        rows, mine = window.steps[number], window.mine[number]
        widest = few_widths(int(self.widths[rows].max())) if len(rows) else 0
        loaded = [self.load(text, step, widest, window.stored) for text in mine.tolist()]
        inks = [ink for of_text, _ in loaded for ink in of_text]
        counts = [len(of_text) for of_text, _ in loaded]
        widths = [ink.shape[1] for ink in inks]
        images = np.zeros((len(inks), 1, self.look.height, few_widths(max(widths)) if widths else 0), np.uint8)
        for image, ink in zip(images, inks, strict=True):
            image[0, :, : ink.shape[1]] = ink
        return Batch(
            images=torch.from_numpy(images),
            widths=torch.tensor(widths, dtype=torch.int64),
            parts=counts if max(counts, default=1) > 1 else None,
            texts=[text for _, text in loaded],
            keys=[self.samples.key(text) for text in mine.tolist()],
            rows=mine.tolist(),
            characters=int(self.samples.columns["length"][rows].sum()),
            total=len(rows),
        )

    def load(self, text: int, step: int, widest: int, stored: dict) -> tuple[list[np.ndarray], str]:
        images, content = self.samples.decode(text, stored)
        inks = [lines.normalise_line(gray, self.look.height) for gray in images]
        if self.look.key is not None:
            seed, first = self.look.key
            numbers = [random_for(seed, first + step, self.samples.key(text), i) for i in range(len(inks))]
            inks = [augment(ink, rng, LEVELS[self.look.strength]) for ink, rng in zip(inks, numbers, strict=True)]
            # one that augmentation made wider than all others of the global batch would pad them all
            inks = [cv2.resize(i, (widest, self.look.height)) if i.shape[1] > widest else i for i in inks]
        return inks, content


def few_widths(width: int) -> int:
    """The next of eight widths an octave: a process's memory grows with the shapes that oneDNN has met."""
    grid = max(1 << (width.bit_length() - 4), 8)
    return -(-width // grid) * grid
