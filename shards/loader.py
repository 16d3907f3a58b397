"""From shards to padded batches: the same global batches whatever the world, each rank its share of every one.

What is read is a text with the images of its lines: one, or those of a field, in reading order. Each rank takes one
part of each global batch of the plan (see shards.sampler), so all ranks have the same number of steps, neighbouring
widths, and each text is visited once.

Steps come in windows. A rank reads all that it needs in a window in few large reads, in the order of the shards, while
the window before is being trained on: at every step as large a part of them as that step is of its window. What is held
is encoded, about a window of it, whatever the size of the data set. Workers (shards.team) read, decode and augment;
windows are planned in a thread of their own.
"""

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from shards.batcher import AugmentConfig, DamagedText, Made
from shards.reading import Samples
from shards.team import Region, Team, given_out
from shards.window import Planner, Step, few_widths

__all__ = ["AugmentConfig", "Batch", "Samples", "Team", "batches", "by_pixels", "few_widths", "in_order", "stream"]

LINES_AHEAD = 128  # of each worker, at least: one that has more to do in a batch has less in the next ones
MEAN_WIDTH_PX = 2048  # that a batch by pixels counts with, at most: memory is bounded where all lines are wide
BATCHES_READ_TOGETHER = 64  # batches of a plan without windows whose texts are read together


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


def in_order(widths: np.ndarray, batch: int) -> list[np.ndarray]:
    """For evaluation: all rows once, from narrow to wide."""
    return np.array_split(np.argsort(widths, kind="stable"), max(-(-len(widths) // batch), 1))


def by_pixels(widths: np.ndarray, batch: int, counts: np.ndarray | None = None) -> list[np.ndarray]:
    """To be read: all rows once, from narrow to wide, each batch with as many pixels as `batch` lines of mean width.

    So narrow ones come many at a time, and what wide ones take of memory is bounded. `counts`: lines of each row.
    """
    if not len(widths):
        return []
    order = np.argsort(widths, kind="stable")
    lines = np.ones(len(widths), np.int64) if counts is None else counts
    mean = float((widths * lines).sum() / max(lines.sum(), 1))
    most = batch * min(mean, MEAN_WIDTH_PX)
    starts, held = [0], 0
    for place, (wide, count) in enumerate(zip(widths[order].tolist(), lines[order].tolist(), strict=True)):
        held += count
        if held * wide > most and place > starts[-1]:
            starts.append(place)
            held = count
    return np.split(order, starts[1:])


def batches(
    samples: Samples,
    plan: list[np.ndarray],
    rank: int,
    size: int,
    height: int,
    team: Team | int = 0,
    key: tuple[int, int] | None = None,
    strength: str = "medium",
    ahead: int = 4,
) -> Iterator[Batch]:
    """This rank's share of each global batch of the plan, as `stream` has those of windows."""
    windows = [plan[start : start + BATCHES_READ_TOGETHER] for start in range(0, len(plan), BATCHES_READ_TOGETHER)]
    return stream(samples, windows, rank, size, AugmentConfig(height, key, strength), team, ahead)


def stream(
    samples: Samples,
    windows: Iterable[list[np.ndarray]],
    rank: int,
    size: int,
    look: AugmentConfig,
    team: Team | int = 0,
    ahead: int = 4,
    kept: list[Path | None] | None = None,
) -> Iterator[Batch]:
    """This rank's share of each global batch of the windows, made ahead by the team, or by so many workers.

    `ahead`: batches that are made before they are asked for, at least; `kept`: of each source of the samples the folder
    where its lines are kept ready-made (see shards.ready). Lines that are augmented are so by random numbers of their
    own, keyed by seed, step and key. Raises ValueError naming a shard that was cut short or changed, OSError naming one
    that can't be read, or saying how a worker ended.
    """
    with contextlib.ExitStack() as stack:
        team = stack.enter_context(Team(team)) if isinstance(team, int) else team
        planner = Planner(samples, samples.widths(look.height), rank, size, team.size, look.key is None)
        coming = planner.windows(windows)
        pool = ThreadPoolExecutor(1, "stream")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        flow = Flow(samples, team, look, kept or [None] * len(samples.sources))
        stack.callback(flow.close)
        window, following = next(coming, None), None
        if window:
            flow.share(window)
            lines = sum(step.lines for step in window.steps) / len(window.steps)
            ahead = max(ahead, math.ceil(LINES_AHEAD * team.size / max(lines, 1)))
            flow.together = max(ahead // 4, 1)
        while window:
            flow.begin(window, 1.0)
            planned, following = pool.submit(next, coming, None), None
            for number, step in enumerate(window.steps):
                last = number + 1 == len(window.steps)
                if following is None and (planned.done() or last) and (following := planned.result()):
                    flow.share(following)
                if following:
                    flow.begin(following, (number + 1) / len(window.steps))
                flow.make(step)
                while len(flow.asked) > ahead:
                    yield flow.next()
            flow.release(window)
            window = following
        while flow.asked:
            yield flow.next()


@dataclass
class Asked:
    """A batch that is being made."""

    step: Step
    region: Region | None
    array: np.ndarray
    made: dict[int, Made] = field(default_factory=dict)  # by worker


class Flow:
    """The batches of one stream on their way through a team."""

    def __init__(self, samples: Samples, team: Team, look: AugmentConfig, kept: list[Path | None]):
        self.samples, self.team, self.height = samples, team, look.height
        self.stream = team.open_stream(look, kept)
        self.asked: deque[Asked] = deque()
        self.first = 0  # the number of the first of them in the stream
        # each message costs a worker as much as some lines do, so that they are few
        self.together = 1  # batches that workers are asked for in one message
        self.untold: list[list[tuple]] = [[] for _ in range(team.size)]  # of each worker, parts not asked for yet
        self.begun: dict[tuple[int, int], int] = {}  # of a window and worker, reads that it was told to begin

    def share(self, window) -> None:
        for member, share in enumerate(window.shares):
            self.team.tell(member, self.stream, "share", share)

    def begin(self, window, part: float) -> None:
        for member, share in enumerate(window.shares):
            reads = round(part * len(share.reads))
            if reads > self.begun.get((window.number, member), 0):
                self.begun[window.number, member] = reads
                self.team.tell(member, self.stream, "begin", window.number, part)

    def release(self, window) -> None:
        self.ask()
        for member in range(self.team.size):
            self.team.tell(member, self.stream, "release", window.number)
            self.begun.pop((window.number, member), None)

    def make(self, step: Step) -> None:
        shape = (step.lines, 1, self.height, step.wide)
        region = self.team.regions.take(int(np.prod(shape))) if step.lines else None
        self.asked.append(Asked(step, region, region.batch(shape) if region else np.zeros(shape, np.uint8)))
        for member, part in enumerate(step.parts):
            if part:
                self.untold[member].append((part, region.offset, shape))
        if max(map(len, self.untold)) >= self.together:
            self.ask()

    def ask(self) -> None:
        """Tell the workers what they have not been asked for yet."""
        for member, parts in enumerate(self.untold):
            if parts:
                self.team.tell(member, self.stream, "make", parts)
                self.untold[member] = []

    def next(self) -> Batch:
        """The first of those that were asked for, once it is made."""
        first, step = self.asked[0], self.asked[0].step
        wanted = sum(part is not None for part in step.parts)
        if len(first.made) < wanted:
            self.ask()
        try:
            while len(first.made) < wanted:
                member, made = self.team.hear(self.stream)
                self.asked[made.step - self.first].made[member] = made
        except DamagedText as error:
            raise self.samples.damaged(error.args[0]) from None
        self.asked.popleft()
        self.first += 1
        return self.batch(first)

    def batch(self, asked: Asked) -> Batch:
        step, count = asked.step, len(asked.step.texts)
        widths, texts, keys = ([None] * count for _ in range(3))
        for member, made in asked.made.items():
            for at, ordinal in enumerate(step.ordinals[member].tolist()):
                widths[ordinal], texts[ordinal], keys[ordinal] = made.widths[at], made.texts[at], made.keys[at]
        numbers = step.texts.tolist()
        if any(source.column is not None for source in self.samples.sources):
            others = map(self.samples.text, numbers)
            texts = [own if other is None else other for own, other in zip(texts, others, strict=True)]
        counts, flat = [len(of_text) for of_text in widths], [width for of_text in widths for width in of_text]
        array = given_out(self.team.regions, asked.region, asked.array) if asked.region else asked.array
        return Batch(
            images=torch.from_numpy(array)[..., : few_widths(max(flat)) if flat else 0],
            widths=torch.tensor(flat, dtype=torch.int64),
            parts=counts if max(counts, default=1) > 1 else None,
            texts=texts,
            keys=keys,
            rows=numbers,
            characters=step.characters,
            total=step.total,
        )

    def close(self) -> None:
        """What was asked for and not given out is given back when no worker writes into it any more."""
        self.team.end(self.stream)
        for asked in self.asked:
            if asked.region:
                self.team.regions.give_back(asked.region)
