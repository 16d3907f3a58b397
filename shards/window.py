"""What a rank reads together and makes batches of: a window of steps, planned at once and shared out to its workers.

A worker is given whole reads, in which some neighbouring texts lie, so that nothing is read twice and no encoded image
passes from one process to another. Of every batch each worker makes the texts that lie in its reads.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from shards.batcher import LINE, READ, TEXT, Part, Share
from shards.reading import Samples, Texts
from shards.sampler import share
from shards.tar import BLOCK_BYTES

MAX_GAP_BYTES = 16 << 10  # bytes between two samples that are read over, where a second read would cost more
MAX_READ_BYTES, MIN_READ_BYTES = 4 << 20, 128 << 10  # bytes of a read; the least that it is cut to for more workers
READS_PER_WORKER = 16  # that a window has at least, so that each worker has about as much to do
MAX_WINDOW_BYTES = 512 << 20  # encoded bytes of a window; of a larger one each step is read by itself


@dataclass(frozen=True)
class Step:
    """A rank's share of a global batch."""

    texts: np.ndarray
    parts: list[Part | None]  # of each worker
    ordinals: list[np.ndarray]  # which of the texts these are
    lines: int
    wide: int  # px that the batch has room for
    characters: int  # of the whole global batch
    total: int  # texts of the whole global batch


@dataclass(frozen=True)
class Window:
    number: int
    steps: list[Step]
    shares: list[Share]  # of each worker


@dataclass(frozen=True)
class Planner:
    """Of a rank. `widths` (M,): of all texts; `exact`: no line gets wider than it is stored."""

    samples: Samples
    widths: np.ndarray
    rank: int
    size: int
    workers: int
    exact: bool

    def windows(self, given: Iterable[list[np.ndarray]]) -> Iterator[Window]:
        """One that is too large to be held in pieces of a step."""
        number = first = 0
        for steps in given:
            known = self.locate(steps)
            at = known[-1]
            whole = len(steps) == 1 or int((at.end - at.start).sum()) <= MAX_WINDOW_BYTES
            for some in [steps] if whole else [[step] for step in steps]:
                yield self.plan(number, first, some, known if whole else self.locate(some))
                number, first = number + 1, first + len(some)

    def locate(self, steps: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray, Texts]:
        """-> this rank's share of each step; the texts in them, which is where, how often each; where they lie."""
        mine = [share(rows, self.rank, self.size) for rows in steps]
        texts, which, uses = np.unique(np.concatenate(mine), return_inverse=True, return_counts=True)
        return mine, texts, which, uses, self.samples.locate(texts)

    def plan(self, number: int, first: int, steps: list[np.ndarray], known: tuple) -> Window:
        """`first`: how many steps the stream had before."""
        mine, texts, which, uses, at = known
        worker, local, shares = share_out(self.samples, number, (texts, uses, at), self.workers)
        lengths = np.array([len(rows) for rows in mine])
        begins = np.cumsum(lengths) - lengths  # of each step among all texts, in their order
        counts = at.count[which]
        lines = np.concatenate([[0], np.cumsum(counts)])
        places = lines[:-1] - np.repeat(lines[begins], lengths)
        ordinals = np.arange(len(which)) - np.repeat(begins, lengths)
        group = np.repeat(np.arange(len(steps)), lengths) * self.workers + worker[which]
        order = np.argsort(group, kind="stable")
        edges = np.searchsorted(group[order], np.arange(len(steps) * self.workers + 1))
        edge = np.cumsum([0, *map(len, steps)])  # of each step among the rows of all
        characters = np.concatenate([[0], np.cumsum(self.samples.lengths(np.concatenate(steps)))])
        made = []
        for step, rows in enumerate(steps):
            widest, own = (few_widths(int(self.widths[some].max(initial=0))) for some in (rows, mine[step]))
            parts, chosen = [], []
            for member in range(step * self.workers, (step + 1) * self.workers):
                some = order[edges[member] : edges[member + 1]]
                part = Part(first + step, number, local[which[some]].tolist(), places[some].tolist(), widest)
                parts.append(part if len(some) else None)
                chosen.append(ordinals[some])
            count = int(lines[begins[step] + lengths[step]] - lines[begins[step]])
            written = int(characters[edge[step + 1]] - characters[edge[step]])
            wide = own if self.exact else widest
            made.append(Step(mine[step], parts, chosen, count, wide, written, len(rows)))
        return Window(number, made, shares)


def share_out(
    samples: Samples, number: int, known: tuple[np.ndarray, np.ndarray, Texts], workers: int
) -> tuple[np.ndarray, np.ndarray, list[Share]]:
    """Texts, how many batches use each, and where they lie -> the worker of each, its number there, all shares."""
    texts, uses, at = known
    order, read_of, reads = cut_reads(at, workers)
    pixels = np.cumsum([0, *at.lines["width"]])[np.concatenate([[0], np.cumsum(at.count)])]
    pixels = np.diff(pixels)[order]
    # each read goes to the worker that has least to do so far
    load = [(0, member) for member in range(workers)]
    owner = np.zeros(len(reads), np.int64)
    for read, weight in enumerate(np.bincount(read_of, pixels, len(reads)).tolist()):
        least, owner[read] = load[0]
        heapq.heapreplace(load, (least + weight, int(owner[read])))
    worker, local, shares = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64), []
    first_line = np.cumsum(at.count) - at.count
    for member in range(workers):
        some = order[owner[read_of] == member]  # texts, in the order of the shards
        own = np.flatnonzero(owner == member)
        worker[some], local[some] = member, np.arange(len(some))
        count = at.count[some]
        of_lines = np.repeat(first_line[some] - (np.cumsum(count) - count), count) + np.arange(count.sum())
        start = np.repeat(reads["offset"][own], reads["last"][own] - reads["first"][own])
        made = texts_of(at, texts, uses, some, start)
        lines = np.zeros(len(of_lines), LINE)
        lines["at"] = at.lines["offset"][of_lines] - np.repeat(start, count)
        for name in ("size", "height", "width"):
            lines[name] = at.lines[name][of_lines]
        mine, paths = reads[own].copy(), {}
        begins = order[mine["first"]]
        for read, shard in enumerate(zip(at.source[begins].tolist(), at.shard[begins].tolist(), strict=True)):
            mine["path"][read] = paths.setdefault(shard, len(paths))
        sizes = mine["last"] - mine["first"]
        mine["last"] = np.cumsum(sizes)
        mine["first"] = mine["last"] - sizes
        tars, ready = ([find(*path) for path in paths] for find in (samples.path, samples.lines_path))
        shares.append(Share(number, tars, ready, mine, made, lines))
    return worker, local, shares


def texts_of(at: Texts, texts: np.ndarray, uses: np.ndarray, some: np.ndarray, start: np.ndarray) -> np.ndarray:
    """TEXT of some of them; `start`: the first byte of each one's read."""
    made, own = np.zeros(len(some), TEXT), at.own[some]
    made["number"], made["source"], made["row"], made["uses"] = texts[some], at.source[some], at.row[some], uses[some]
    made["count"], made["sample"] = at.count[some], own["sample"]
    made["first"] = np.cumsum(made["count"]) - made["count"]
    made["text"], made["text_size"] = own["offset"] + own["text_at"] - start, own["text_size"]
    made["long_key"] = own["text_at"] - -(-own["size"] // BLOCK_BYTES) * BLOCK_BYTES > BLOCK_BYTES
    made["header"] = made["text"] - np.where(made["long_key"], 2, 1) * BLOCK_BYTES
    return made


def cut_reads(at: Texts, workers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> texts in the order of the shards, the read of each, and the reads (READ): the fewest that bring these texts
    without reading much more, but enough of them for all workers."""
    order = np.lexsort((at.start, at.shard, at.source))
    start, end, source, shard = at.start[order], at.end[order], at.source[order], at.shard[order]
    total = int((end - start).sum())
    most = (
        min(MAX_READ_BYTES, max(total // (READS_PER_WORKER * workers), MIN_READ_BYTES))
        if workers > 1
        else MAX_READ_BYTES
    )
    apart = np.ones(len(order), bool)
    apart[1:] = (np.diff(source) != 0) | (np.diff(shard) != 0) | (start[1:] - end[:-1] > MAX_GAP_BYTES)
    run = np.cumsum(apart) - 1
    piece = (start - start[apart][run]) // most if len(order) else run
    apart[1:] |= np.diff(piece) != 0
    read_of = np.cumsum(apart) - 1
    first = np.flatnonzero(apart)
    reads = np.zeros(len(first), READ)
    reads["first"], reads["last"] = first, np.append(first[1:], len(order))
    reads["offset"] = start[first]
    reads["size"] = (np.maximum.reduceat(end, first) - start[first]) if len(first) else 0
    return order, read_of, reads


def few_widths(width: int) -> int:
    """The next of eight widths an octave: a process's memory grows with the shapes that oneDNN has met."""
    grid = max(1 << max(width.bit_length() - 4, 0), 8)
    return -(-width // grid) * grid
