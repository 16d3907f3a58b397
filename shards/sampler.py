"""Which text comes when: decided from counts and widths alone, before anything is read, and the same for every world.

A data set's weight says how often each of its texts is visited in an epoch, on average: 1 once, 0.25 every fourth
epoch, 3 three times. The visits of a data set go through one shuffle after the other, so that a text comes again only
when all have been. A weight may change evenly from the start of the training to its end: a curriculum.

Shards are to be read in large pieces, and by one rank each, while a global batch must not hang on how many ranks there
are. So what is shuffled are blocks of neighbouring texts, and the texts of many blocks make a window, of some hundred
global batches. A window is dealt to lanes, the blocks one after the other, and every global batch takes the same share
of each lane, so that a rank which serves whole lanes reads blocks that no other rank reads. Each lane is sorted by
width by itself: with a thousand texts and more in a lane of a window, the k-th share of one is as wide as the k-th
share of any other, within a percent or two.

    epoch   = blocks of all data sets, shuffled
    window  = the texts of the next few hundred blocks, in `lanes` equal parts, each sorted by width
    batch k = the k-th share of every lane, by number of texts, or by pixels: narrow texts come in larger batches

The number of lanes is a power of two, such that each gives MIN_LANE_TEXTS texts of a batch or more: worlds of 1, 2, 4,
… ranks with so many texts each read nothing twice. In other worlds a rank's first and last lane are also its
neighbour's, and both read a part of their blocks; within a lane's share of a batch the texts are in the order of their
blocks, so that the two meet little. How finely a large data set is cut into blocks, and how many texts a window has, is
said by its Mixing; a small one has blocks of one text: a full shuffle.

What is held of an epoch are its blocks, a hundred thousand for millions of texts; a window's texts are named when it
is planned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from htr.lines.augment import random_for

WINDOW = 256  # global batches whose texts are read together, at least
# global batches that are sorted by width together, at least; at most a window or a quarter of an epoch
MIN_SORTED_BATCHES = 96
MIN_LANE_TEXTS = 16  # texts of a global batch that a lane gives, at least
MIN_WIDTH_RATIO = 0.25  # of the mean width: what the narrowest texts count as, since a text costs more than its pixels
DATA, ORDER, WITHIN = 1, 2, 3  # what a random number is for


@dataclass(frozen=True)
class Weight:
    start: float = 1.0
    end: float = 1.0

    def at(self, done: float) -> float:
        """`done`: the share of the training, 0 to 1."""
        return self.start + (self.end - self.start) * min(done, 1.0)


@dataclass(frozen=True)
class Mixing:
    """How well texts that lie near each other are mixed, against how much is read and held at once."""

    block: int = 16  # texts of a block, at most
    blocks: int = 8192  # of a data set, at least
    window: int = 8192  # texts of a window, at least


# 1: of runs begun when a window had 64 blocks, so of a register that is sorted by place 64 places
MIXINGS = {1: Mixing(block=128), 2: Mixing()}
NEWEST_MIXING = 2


@dataclass(frozen=True)
class Epoch:
    number: int
    first_step: int  # of the training
    steps: int
    visits: tuple[tuple[int, int], ...]  # of each data set: from which of its endless visits to which


class EpochSampler:
    """The epochs of a training of so many steps: `for epoch in epochs.since(step): epochs.windows(epoch, seed)`."""

    def __init__(
        self,
        counts: Sequence[int],
        widths: np.ndarray,
        weights: Sequence[Weight],
        batch: int,
        steps: int,
        by: str = "lines",
        mixing: Mixing = MIXINGS[NEWEST_MIXING],
    ):
        """`counts`: texts of each data set; `widths` (M,): of each text its width in px, one data set after the other,
        and texts that lie beside each other in a shard follow each other. `batch`: texts of a global batch; by `pixels`
        on average, each batch having as many pixels as so many of mean width.

        Raises ValueError when the weights leave nothing to read.
        """
        self.counts = np.asarray(counts, np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.widths, self.weights, self.batch, self.steps = widths, weights, batch, steps
        self.by, self.mixing = by, mixing
        self.lanes = 1 << max(batch // MIN_LANE_TEXTS, 1).bit_length() - 1
        self.window = max(WINDOW, -(-mixing.window // batch))  # steps
        self.epochs: list[Epoch] = []
        done, before = 0, np.zeros(len(weights))
        while done < steps:
            weight = np.array([w.at(done / steps) for w in weights])
            if (weight < 0).any() or not (weight * self.counts).any():
                raise ValueError("the weights of the data sets leave nothing to train on")
            after = before + weight
            visits = tuple(
                (int(a * count + 1e-6), int(b * count + 1e-6))
                for a, b, count in zip(before, after, self.counts.tolist(), strict=True)
            )
            count = max(sum(b - a for a, b in visits) // batch, 1)
            self.epochs.append(Epoch(len(self.epochs), done, count, visits))
            done, before = done + count, after

    def since(self, step: int) -> list[Epoch]:
        """The epochs that are not over at this step."""
        return [epoch for epoch in self.epochs if epoch.first_step + epoch.steps > step]

    def plan(self, epoch: Epoch, seed: int, ordered: int = 0) -> list[np.ndarray]:
        """The texts of each global batch, a text once a visit, lane after lane (see `share`)."""
        return [batch for window in self.windows(epoch, seed, ordered) for batch in window]

    def windows(self, epoch: Epoch, seed: int, ordered: int = 0, done: int = 0) -> Iterator[list[np.ndarray]]:
        """The same window by window, without the epoch's first `done` batches.

        The first `ordered` batches of epoch 0 are a window that goes from narrow to wide, since CTC finds its first
        alignments on short lines ("SortaGrad", Amodei et al. 2016, Deep Speech 2).
        """
        starts, lengths = self.order(epoch, seed)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        sorted_steps = min(ordered, epoch.steps) if epoch.number == 0 else 0
        count = round((epoch.steps - sorted_steps) / self.window) or int(sorted_steps < epoch.steps)
        edges = sorted_steps + np.arange(count + 1) * (epoch.steps - sorted_steps) // max(count, 1)
        edges = np.unique([0, *edges.tolist()])
        for number, (start, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            if end <= done:
                continue
            texts = named(starts, ends, start * total // epoch.steps, end * total // epoch.steps)
            rng = random_for(seed, WITHIN, epoch.number, number)
            group = max(MIN_SORTED_BATCHES, min(epoch.steps // 4, self.window))
            batches = self.cut(texts, end - start, max(round((end - start) / group), 1), rng)
            if end > sorted_steps:
                batches = [batches[i] for i in rng.permutation(len(batches))]
            else:
                batches.sort(key=lambda rows: self.widths[rows].max())
            yield batches[max(done - start, 0) :]

    def order(self, epoch: Epoch, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of an epoch, those of all data sets mixed: the first text of each, and how many there are."""
        found = [self.visited(number, *span, seed) for number, span in enumerate(epoch.visits)]
        starts, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        shuffle = random_for(seed, ORDER, epoch.number).permutation(len(lengths))
        return starts[shuffle], lengths[shuffle]

    def visited(self, number: int, start: int, end: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The blocks of a data set at these of its visits: the first may lack its beginning, the last its end."""
        count = int(self.counts[number])
        if not count or end <= start:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        size = min(max(count // self.mixing.blocks, 1), self.mixing.block)
        lengths = np.full(-(-count // size), size)
        lengths[-1] = count - size * (len(lengths) - 1)
        firsts, counts = [], []
        for shuffle in range(start // count, -(-end // count)):
            blocks = random_for(seed, DATA, number, shuffle).permutation(len(lengths))
            first, of_block = self.starts[number] + size * blocks, lengths[blocks]
            last = np.cumsum(of_block)
            # what of each block lies within these visits
            low = np.maximum(start - shuffle * count, last - of_block)
            high = np.minimum(end - shuffle * count, last)
            some = high > low
            firsts.append((first + low - (last - of_block))[some])
            counts.append((high - low)[some])
        return np.concatenate(firsts), np.concatenate(counts)

    def cut(self, texts: np.ndarray, steps: int, groups: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The texts of a window in so many batches: in groups, drawn anew each time, lest all that is nearly as wide as
        a text of a small data set be in its batch again in the next epoch."""
        each = len(texts) // self.lanes
        lanes = texts[: each * self.lanes].reshape(self.lanes, each)[:, rng.permutation(each)]
        batches, done = [], 0
        for group in range(1, groups + 1):
            end = steps * group // groups
            batches += self.sort(lanes[:, each * done // steps : each * end // steps], end - done)
            done = end
        batches[-1] = np.concatenate([batches[-1], texts[lanes.size :]])  # fewer than there are lanes
        return batches

    def sort(self, lanes: np.ndarray, steps: int) -> list[np.ndarray]:
        """Lanes of texts (lanes, n) in so many batches, from narrow to wide, of as many texts or pixels each."""
        widths, each = self.widths[lanes], lanes.shape[1]
        if not each:  # a set of fewer texts than lanes: `cut` gives them to the last batch
            return [lanes.ravel()] * steps
        costs = np.ones(lanes.size)
        if self.by == "pixels":
            costs = np.sort(np.maximum(widths, MIN_WIDTH_RATIO * widths.mean()), axis=None)
        spent = np.cumsum(costs) / costs.sum()
        # the share of the texts that k steps' pixels are enough for
        shares = np.interp(np.arange(steps + 1) / steps, [0.0, *spent], np.arange(lanes.size + 1) / lanes.size)
        # what each lane has given after each batch; in twos, so that twice as many ranks as lanes have equal parts
        grain = 2 if self.by == "pixels" and each >= 4 * steps else 1
        given, count = np.rint(shares * each / grain).astype(int), np.arange(steps + 1)
        given = np.maximum.accumulate(given - count) + count
        given = grain * np.minimum(given, each // grain - steps + count)  # one more each time, at least
        by_width = np.argsort(widths, axis=1, kind="stable")
        parts = np.split(by_width, given[1:-1], axis=1)
        # the texts of a part in the order of their blocks
        return [np.sort(np.take_along_axis(lanes, places, axis=1), axis=1).ravel() for places in parts]


def named(starts: np.ndarray, ends: np.ndarray, first: int, last: int) -> np.ndarray:
    """The texts from one place to another in the order of these blocks; `ends`: the place at which each one ends."""
    low, high = np.searchsorted(ends, first, side="right"), np.searchsorted(ends, last)
    some = slice(low, high + 1)
    place = np.arange(first, last)
    block = np.searchsorted(ends[some], place, side="right")
    begins = ends[some] - np.diff(ends[some], prepend=ends[low - 1] if low else 0)
    return starts[some][block] + place - begins[block]


def share(rows: np.ndarray, rank: int, size: int) -> np.ndarray:
    """A rank's part of a global batch, whole lanes where the world divides them; empty where it has fewer rows than the
    world has ranks."""
    start, end = (len(rows) * edge // size for edge in (rank, rank + 1))
    return rows[start:end]
