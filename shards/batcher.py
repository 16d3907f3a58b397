"""What a worker makes of the texts it is given: reads its part of a window, decodes it, and writes lines into batches.

A worker knows shards by their paths and places, no index, no torch. It reads ahead in threads of its own, and gives up
what it holds of a text when the last batch that needs it is made.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from htr.lines import normalise as lines
from htr.lines.augment import LEVELS, augment, random_for
from shards.decoding import CODED, Damaged, Span, decode_text, read_records, unpack_record
from shards.files import in_shell
from shards.open_shards import OpenShards
from shards.ready import Ready, ReadyLines

CONCURRENT_READS = 2  # reads under way at once, of each worker: on a parallel file system each waits for a server


@dataclass(frozen=True)
class AugmentConfig:
    """How a rank sees lines."""

    height: int
    key: tuple[int, int] | None = None  # (seed, the training's step of the first batch): lines are augmented by it
    strength: str = "medium"  # see htr.lines.augment.LEVELS


# of a text in a worker's share: its number among the samples, where it is kept ready-made, which sample of its shard it
# is, how many batches use it, where its parts lie in the bytes of its read (see shards.decoding.Span); its lines are
# `count` of LINE from `first` on
TEXT = np.dtype([("number", "i8"), ("source", "i2"), ("row", "i8"), ("sample", "i4"), ("uses", "i4"), ("header", "i8"),
                 ("text", "i8"), ("text_size", "i4"), ("long_key", "?"), ("first", "i4"), ("count", "i4")])  # fmt: skip
LINE = np.dtype([("at", "i8"), ("size", "i8"), ("height", "i4"), ("width", "i4")])
READ = np.dtype(
    [("path", "i4"), ("offset", "i8"), ("size", "i8"), ("first", "i4"), ("last", "i4")]
)  # texts: first to last


@dataclass(frozen=True)
class Share:
    """A worker's part of a window."""

    window: int
    paths: list[Path]
    ready: list[Path | None]  # of each of the paths where the same lines lie ready-made (see shards.precomputed)
    reads: np.ndarray  # READ
    texts: np.ndarray  # TEXT
    lines: np.ndarray  # LINE

    def spans(self, first: int, last: int) -> list[Span]:
        """Of the texts of a read. Plain numbers at once: of an array, one field of one row costs as much as a list."""
        texts = self.texts[first:last]
        if not len(texts):
            return []
        begin = int(texts["first"][0])
        lines = self.lines[begin : begin + int(texts["count"].sum())].tolist()
        rows = texts[["header", "text", "text_size", "long_key", "first", "count"]].tolist()
        return [
            Span(header, text, size, lines[line - begin : line - begin + count], long_key)
            for header, text, size, long_key, line, count in rows
        ]


@dataclass(frozen=True)
class Part:
    """A worker's part of a batch: texts (of its share of the window) and the place of each one's first line there."""

    step: int  # of the stream, from 0
    window: int
    texts: list[int]
    places: list[int]
    widest: int  # px that no line may be wider than, for augmentation made it so


@dataclass(frozen=True)
class Made:
    """What a worker says of its part of a batch, text after text; the pixels are in the batch."""

    step: int
    widths: list[list[int]]
    texts: list[str]
    keys: list[str]


class DamagedText(Exception):
    """The number of a text that is not what was committed."""


@dataclass
class Held:
    """A share of a window and what was read of it."""

    share: Share
    uses: list[int]
    sources: list[int]
    stored: dict[int, tuple[Span, bytes]] = field(default_factory=dict)
    coded: dict[int, tuple[Path, bytes]] = field(default_factory=dict)  # records of lines that lay ready-made
    ready: dict[int, Ready] = field(default_factory=dict)
    reads: list[int] = field(default_factory=list)  # those that are needed
    of_text: dict[int, Future] = field(default_factory=dict)
    begun: int = 0


class Batcher:
    """Of one stream."""

    def __init__(self, look: AugmentConfig, kept: list[ReadyLines | None], shards: OpenShards):
        """`kept`: of each source the lines that are kept ready-made, if any are."""
        self.look, self.kept, self.shards = look, kept, shards
        self.readers = ThreadPoolExecutor(CONCURRENT_READS, "shards")
        self.windows: dict[int, Held] = {}

    def take(self, share: Share) -> None:
        held = self.windows[share.window] = Held(share, share.texts["uses"].tolist(), share.texts["source"].tolist())
        if any(self.kept):
            for text, (source, row) in enumerate(share.texts[["source", "row"]].tolist()):
                if (kept := self.kept[source]) and (place := kept.find(row)):
                    held.ready[text] = place
        for number, (first, last) in enumerate(share.reads[["first", "last"]].tolist()):
            if any(text not in held.ready for text in range(first, last)):
                held.reads.append(number)

    def begin(self, window: int, part: float) -> None:
        """Begin with as many of the window's reads that this part of them has begun."""
        held = self.windows[window]
        end = round(part * len(held.reads))
        for number in held.reads[held.begun : end]:
            *_, first, last = held.share.reads[number].tolist()
            future = self.readers.submit(self.read, held, number)
            held.of_text |= dict.fromkeys(range(first, last), future)
        held.begun = max(end, held.begun)

    def read(self, held: Held, number: int) -> None:
        path, offset, size, first, last = held.share.reads[number].tolist()
        missing = {text for text in range(first, last) if text not in held.ready}
        if lines_path := held.share.ready[path]:
            held.coded |= self.read_ready(lines_path, held.share.texts["sample"][first:last].tolist(), first, missing)
            return
        content = self.shards.read(held.share.paths[path], offset, size)
        for text, span in enumerate(held.share.spans(first, last), first):
            if text in missing:
                held.stored[text] = piece(span, content)

    def read_ready(self, path: Path, places: list[int], first: int, missing: set[int]) -> dict[int, tuple[Path, bytes]]:
        """`places`: of the texts from `first` on, in the order of their shard. -> the records of the missing ones."""
        begin = places[0]
        try:
            at, content = read_records(lambda *what: self.shards.read(path, *what), begin, places[-1] + 1)
        except Damaged:
            raise damaged_lines(path) from None
        except FileNotFoundError:
            raise damaged_lines(path, "gone") from None
        ends = {text: (at[place - begin], at[place - begin + 1]) for text, place in enumerate(places, first)}
        return {text: (path, content[slice(*ends[text])]) for text in missing}

    def make(self, part: Part, batch: np.ndarray) -> Made:
        """Write the lines into the batch (N, 1, H, W). Raises DamagedText, OSError that names a shard."""
        self.begin(part.window, 1.0)
        held, done = self.windows[part.window], Made(part.step, [], [], [])
        for text, place in zip(part.texts, part.places, strict=True):
            inks, written, key = self.lines_of(held, text)
            if self.look.key is not None:
                inks = [self.changed(ink, part, key, number) for number, ink in enumerate(inks)]
            for number, ink in enumerate(inks):
                into = batch[place + number, 0]
                into[:, : ink.shape[1]] = ink
                into[:, ink.shape[1] :] = 0
            done.widths.append([ink.shape[1] for ink in inks])
            done.texts.append(written)
            done.keys.append(key)
            held.uses[text] -= 1
            if not held.uses[text]:
                for of_text in (held.stored, held.coded, held.ready):
                    of_text.pop(text, None)
        return done

    def lines_of(self, held: Held, text: int) -> tuple[list[np.ndarray], str, str]:
        """-> lines as a model sees them, text, key."""
        kept = self.kept[held.sources[text]]
        if text in held.ready:
            return kept.read(held.ready[text])
        held.of_text[text].result()
        inks, written, key = self.decoded(held, text)
        if kept:
            place = kept.add(int(held.share.texts["row"][text]), inks, written, key)
            if place and held.uses[text] > 1:
                held.ready[text] = place
        return inks, written, key

    def decoded(self, held: Held, text: int) -> tuple[list[np.ndarray], str, str]:
        """The same, from what was read of it."""
        if text in held.coded:
            path, content = held.coded[text]
            try:
                return unpack_record(content, self.look.height, CODED)
            except Damaged:
                raise damaged_lines(path) from None
        span, content = held.stored[text]
        try:
            images, written, key = decode_text(span, content)
        except Damaged:
            raise DamagedText(int(held.share.texts["number"][text])) from None
        return [lines.normalise_line(gray, self.look.height) for gray in images], written, key

    def changed(self, ink: np.ndarray, part: Part, key: str, line: int) -> np.ndarray:
        """Augmented by the line's own random numbers, whoever makes it and in whatever batch of whatever world."""
        seed, first = self.look.key
        ink = augment(ink, random_for(seed, first + part.step, key, line), LEVELS[self.look.strength])
        # one that became wider than all others of the global batch would pad them all
        return cv2.resize(ink, (part.widest, self.look.height)) if ink.shape[1] > part.widest else ink

    def release(self, window: int) -> None:
        """No batch will be made of this window any more."""
        self.windows.pop(window, None)

    def close(self) -> None:
        self.readers.shutdown(wait=True, cancel_futures=True)
        for kept in filter(None, self.kept):
            kept.close()


def damaged_lines(path: Path, how: str = "damaged") -> ValueError:
    """Of a file of lines that lay ready-made."""
    return ValueError(
        f"{path}: {how}: remove {path.parent}, then trainings make these lines of the shards, or make them anew "
        f"(python -m jobs precompute {in_shell(path.parent.parent)})"
    )


def piece(span: Span, content: bytes) -> tuple[Span, bytes]:
    """What belongs to one text, and no more: a copy, so that what was read together may go."""
    first = min(span.header, *(at for at, *_ in span.lines))
    end = max(span.text + span.text_size, *(at + size for at, size, *_ in span.lines))
    moved = [(at - first, size, height, width) for at, size, height, width in span.lines]
    return Span(span.header - first, span.text - first, span.text_size, moved, span.long_key), content[first:end]
