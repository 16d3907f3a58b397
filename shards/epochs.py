"""Which text comes when: decided from counts and widths alone, before anything is read.

A data set's weight says how often each of its texts is visited in an epoch, on average: 1 once, 0.25 every fourth
epoch, 3 three times. The visits of a data set go through one shuffle after the other, so that a text comes again only
when all have been. A weight may change evenly from the start of the training to its end: a curriculum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from htr.images.augment import random_for

WINDOW = 64  # global batches whose texts are sorted by width together
DATA, ORDER = 1, 2  # what a random number is for


@dataclass(frozen=True)
class Weight:
    start: float = 1.0
    end: float = 1.0

    def at(self, done: float) -> float:
        """`done`: the share of the training, 0 to 1."""
        return self.start + (self.end - self.start) * min(done, 1.0)


@dataclass(frozen=True)
class Epoch:
    number: int
    first_step: int  # of the training
    steps: int
    visits: tuple[tuple[int, int], ...]  # of each data set: from which of its endless visits to which


class Epochs:
    """The epochs of a training of so many steps: `for epoch in epochs.since(step): epochs.plan(epoch)`."""

    def __init__(self, sources: np.ndarray, widths: np.ndarray, weights: Sequence[Weight], batch: int, steps: int):
        """`sources`, `widths` (M,): of each text the number of its data set, and its width in px.

        Raises ValueError when the weights leave nothing to read.
        """
        self.rows = [np.flatnonzero(sources == number) for number in range(len(weights))]
        self.widths, self.weights, self.batch, self.steps = widths, weights, batch, steps
        self.epochs: list[Epoch] = []
        done, before = 0, np.zeros(len(weights))
        while done < steps:
            weight = np.array([w.at(done / steps) for w in weights])
            if (weight < 0).any() or not (weight * [len(rows) for rows in self.rows]).any():
                raise ValueError("weights of the data sets that leave nothing to train on")
            after = before + weight
            visits = tuple(
                (int(a * len(rows) + 1e-6), int(b * len(rows) + 1e-6))
                for a, b, rows in zip(before, after, self.rows, strict=True)
            )
            count = max(sum(b - a for a, b in visits) // batch, 1)
            self.epochs.append(Epoch(len(self.epochs), done, count, visits))
            done, before = done + count, after

    def since(self, step: int) -> list[Epoch]:
        """The epochs that are not over at this step."""
        return [epoch for epoch in self.epochs if epoch.first_step + epoch.steps > step]

    def plan(self, epoch: Epoch, seed: int, ordered: int = 0) -> list[np.ndarray]:
        """The texts of each global batch, `batch` of them or one more, a text once a visit; by width within a batch.

        The first `ordered` batches of epoch 0 come from narrow to wide, since CTC finds its first alignments on short
        lines ("SortaGrad", Amodei et al. 2016, Deep Speech 2).
        """
        visited = [self.visited(number, *span, seed) for number, span in enumerate(epoch.visits)]
        order = np.concatenate(visited)
        rng = random_for(seed, ORDER, epoch.number)
        order = order[rng.permutation(len(order))]
        window = WINDOW * self.batch
        for start in range(0, len(order), window):
            part = order[start : start + window]
            order[start : start + window] = part[np.argsort(self.widths[part], kind="stable")]
        batches = np.array_split(order, epoch.steps)
        shuffled = [batches[i] for i in rng.permutation(epoch.steps)]
        if epoch.number == 0:
            shuffled[:ordered] = sorted(shuffled[:ordered], key=lambda rows: self.widths[rows].max())
        return shuffled

    def visited(self, number: int, start: int, end: int, seed: int) -> np.ndarray:
        """The texts of a data set at these of its visits."""
        rows = self.rows[number]
        found = [rows[:0]]
        for shuffle in range(start // len(rows), -(-end // len(rows))) if len(rows) else ():
            order = rows[random_for(seed, DATA, number, shuffle).permutation(len(rows))]
            found.append(order[max(start - shuffle * len(rows), 0) : end - shuffle * len(rows)])
        return np.concatenate(found)
