"""The texts of data sets, each with its line images: where they lie, and one of them read at a time.

A row is a sample of the index, a text what a reader learns at once: a line, or a field with the images of its lines
(rows of level `part`). What many texts need is read together by shards.loader.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import clean_text, log_name
from htr.lines.normalise import MAX_LINE_WIDTH_PX, MIN_LINE_WIDTH_PX
from shards.decoding import Damaged, Span, decode_text
from shards.files import in_shell
from shards.index import Index
from shards.open_shards import OpenShards
from shards.row_map import CHUNK, LONG_KEY, column_of, level_of, rows_of, texts_of, widths_kept
from shards.tar import BLOCK_BYTES, text_after

COLUMNS = ("key", "shard", "offset", "size", "text_size", "width", "height", "length", "level")  # of the index
NUMBERS = ("offset", "size", "text_size", "width", "height", "length")
# of a row: its image's bytes in its shard, its text `text_at` bytes after their start; `sample`: its number, if known
PLACE = np.dtype([("shard", "i4"), ("sample", "i4"), ("offset", "i8"), ("size", "i8"), ("text_at", "i8"),
                  ("text_size", "i4"), ("height", "i4"), ("width", "i4")])  # fmt: skip


class TableSource:
    """The texts of a table (see Index.samples), in the memory of this process.

    `row`, `count` (M,): the row of each text and how many images it has, rows one after the other from `firsts` on.
    """

    def __init__(self, folder: Path, table: pa.Table, column: str | None = None):
        self.folder, self.lines = folder, None  # nor is it known which samples of their shards its rows are
        self.numbers = {name: table[name].to_numpy() for name in NUMBERS}
        self.keys = table["key"].cast(pa.large_string()).combine_chunks()  # of five million more than 2 GiB, it may be
        coded = table["shard"].cast(pa.string()).combine_chunks().dictionary_encode()
        self.codes, self.shards = coded.indices.to_numpy(), coded.dictionary.to_pylist()
        self.text_at = text_after(self.numbers["size"], pc.binary_length(self.keys).to_numpy())
        level = table["level"].cast(pa.string()).combine_chunks()
        is_part = pc.equal(level, "part").to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~is_part)
        owner = np.searchsorted(rows, np.flatnonzero(is_part), side="right") - 1  # the text of a part; -1: not chosen
        counts = np.bincount(owner[owner >= 0], minlength=len(rows)) if len(rows) else np.zeros(0, int)
        fields = pc.equal(level, "field").to_numpy(zero_copy_only=False)[rows]
        kept = ~fields | (counts > 0)
        self.row = rows[kept]
        self.first = np.where(fields, rows + 1, rows)[kept]
        self.count = np.where(fields, counts, 1)[kept].astype(np.int32)
        self.column = None
        self.length = self.numbers["length"]
        if column:
            self.column = [clean_text(text) for text in table[column].to_pylist()]
            self.length = np.array([len(text) for text in self.column])
        pa.default_memory_pool().release_unused()  # what the table was cast in

    def places(self, rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), PLACE)
        found["shard"], found["text_at"] = self.codes[rows], self.text_at[rows]
        for name in ("offset", "size", "text_size", "height", "width"):
            found[name] = self.numbers[name][rows]
        return found

    def firsts(self, texts: np.ndarray | slice) -> np.ndarray:
        return self.first[texts]

    def lengths(self, texts: np.ndarray) -> np.ndarray:
        return self.length[self.row[texts]]

    def text(self, text: int) -> str | None:
        return self.column[self.row[text]] if self.column is not None else None

    def key(self, text: int) -> str:
        return self.keys[self.row[text]].as_py()

    def widths(self, height: int) -> np.ndarray:
        return widest(self, np.arange(len(self.row)), height)


class MapSource:
    """The same of a data set's map (see shards.row_map), which the ranks of a node share. `lines`: the folder with the
    lines of its shards ready-made, if there is one (see shards.precomputed)."""

    def __init__(
        self, index: Index, split: str, levels: tuple[str, ...], where: dict[str, list[str]], column: str = ""
    ):
        self.folder, self.index, self.map = index.folder, index, rows_of(index)
        self.lines: Path | None = None
        self.texts = texts_of(index, self.map, split, levels, where)
        self.shards, self.starts = self.map.note["shards"], self.map["starts"].astype(np.int64)
        self.row, self.count = self.texts["row"], self.texts["count"]
        self.several = "field" in levels
        self.column = column_of(index, self.texts, column) if column else None
        self.whole = int(self.texts["whole"][0])

    def characters(self) -> set[str]:
        """That are in its texts, where these stand in a column."""
        content = self.column["bytes"]
        found, starts = set(), [0, *np.flatnonzero((content & 0xC0) != 0x80)[CHUNK::CHUNK].tolist(), len(content)]
        for start, end in pairwise(starts):
            found |= set(content[start:end].tobytes().decode())
        return found

    def places(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty(len(rows), PLACE)
        found["shard"] = np.searchsorted(self.starts, rows, side="right") - 1
        found["sample"] = rows - self.starts[found["shard"]]
        for name in ("size", "text_size", "height", "width"):
            found[name] = self.map[name][rows]
        found["offset"] = self.map["offset"][rows].astype(np.int64) * BLOCK_BYTES
        long = (self.map["kind"][rows] & LONG_KEY) > 0
        found["text_at"] = text_after(found["size"], np.where(long, 200, 0))
        return found

    def firsts(self, texts: np.ndarray | slice) -> np.ndarray:
        rows = self.row[texts].astype(np.int64)
        return rows + (level_of(self.map["kind"][rows]) == 1) if self.several else rows  # LEVELS[1] is field

    def lengths(self, texts: np.ndarray) -> np.ndarray:
        if self.column is not None:
            return self.column["length"][texts]
        return self.map["length"][self.row[texts]]

    def text(self, text: int) -> str | None:
        if self.column is None:
            return None
        start = int(self.column["ends"][text - 1]) if text else 0
        return self.column["bytes"][start : int(self.column["ends"][text])].tobytes().decode()

    def key(self, text: int) -> str:
        """From index.parquet: for a message, not for many."""
        file, row = pq.ParquetFile(self.folder / "index.parquet"), int(self.row[text])
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            if row < count:
                return file.read_row_group(number, columns=["key"])["key"][row].as_py()
            row -= count
        raise ValueError(f"{self.folder}: index.parquet has fewer rows than its map")

    def widths(self, height: int) -> np.ndarray:
        return widths_kept(self.index, self.texts, height, lambda some: widest(self, some, height))


def widest(source: TableSource | MapSource, texts: np.ndarray, height: int) -> np.ndarray:
    """(len(texts),) px of the widest line of each, at this height, as normalise_line makes them."""
    first, count = source.firsts(texts), source.count[texts]
    found = np.zeros(len(texts), np.int64)
    for line in range(int(count.max(initial=0))):
        more = np.flatnonzero(count > line)
        place = source.places(first[more] + line)
        wide = np.rint(place["width"].astype(np.int64) * height / place["height"]).astype(np.int64)
        found[more] = np.maximum(found[more], np.clip(wide, MIN_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX))
    return found


@dataclass
class Texts:
    """Where some texts lie: `source`, `shard`, `start` and `end` (bytes of the shard) of each, and of its lines, one
    text after the other, `lines` (PLACE, `count` of each); `own` (PLACE): of the text itself."""

    source: np.ndarray
    row: np.ndarray
    shard: np.ndarray
    start: np.ndarray
    end: np.ndarray
    count: np.ndarray
    own: np.ndarray
    lines: np.ndarray = field(repr=False)


class Samples:
    """The texts of tables or maps, each with its line images, read by offset from their shards."""

    def __init__(self, folder: Path, table: pa.Table, column: str | None = None):
        self.start([TableSource(folder, table, column)])

    @classmethod
    def of(cls, sources: Sequence[TableSource | MapSource]) -> "Samples":
        """Of several data sets, one after the other."""
        self = cls.__new__(cls)
        self.start(sources)
        return self

    def start(self, sources: Sequence[TableSource | MapSource]) -> None:
        self.sources = list(sources)
        self.counts = [len(source.row) for source in self.sources]  # texts of each source
        self.bounds = np.cumsum([0, *self.counts])
        self.open = OpenShards()

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def parts(self, texts: np.ndarray):
        """The texts by their source: (source's number, which of them, their numbers within it)."""
        of = np.searchsorted(self.bounds, texts, side="right") - 1
        for number in np.unique(of).tolist():
            which = np.flatnonzero(of == number)
            yield number, which, texts[which] - self.bounds[number]

    def lengths(self, texts: np.ndarray) -> np.ndarray:
        """Characters of each."""
        found = np.zeros(len(texts), np.int64)
        for number, which, own in self.parts(texts):
            found[which] = self.sources[number].lengths(own)
        return found

    def widths(self, height: int) -> np.ndarray:
        """(M,) px of the widest line of each text, at this height."""
        found = [source.widths(height) for source in self.sources]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def key(self, text: int) -> str:
        [(number, _, own)] = self.parts(np.array([text]))
        return self.sources[number].key(int(own[0]))

    def text(self, text: int) -> str | None:
        """Where it does not stand in its shard; else None."""
        [(number, _, own)] = self.parts(np.array([text]))
        return self.sources[number].text(int(own[0]))

    def locate(self, texts: np.ndarray) -> Texts:
        found = Texts(
            *(np.zeros(len(texts), np.int64) for _ in range(6)), np.zeros(len(texts), PLACE), np.zeros(0, PLACE)
        )
        for number, which, own in self.parts(texts):
            source = self.sources[number]
            found.source[which], found.row[which], found.count[which] = number, source.row[own], source.count[own]
            found.own[which] = source.places(source.row[own].astype(np.int64))
        ends = np.cumsum(found.count)
        found.lines = np.zeros(ends[-1] if len(ends) else 0, PLACE)
        for number, which, own in self.parts(texts):
            first, count = self.sources[number].firsts(own), found.count[which]
            step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            to = np.repeat(ends[which] - count, count) + step
            found.lines[to] = self.sources[number].places(np.repeat(first, count) + step)
        found.shard[:], found.start[:] = found.own["shard"], found.own["offset"]
        last = found.lines[ends - 1] if len(ends) else found.lines
        found.end[:] = np.maximum(*(p["offset"] + p["text_at"] + p["text_size"] for p in (found.own, last)))
        return found

    def path(self, source: int, shard: int) -> Path:
        return self.sources[source].folder / f"{self.sources[source].shards[shard]}.tar"

    def lines_path(self, source: int, shard: int) -> Path | None:
        folder, name = self.sources[source].lines, self.sources[source].shards[shard]
        return folder and folder / f"{name}.lines"

    def read(self, text: int) -> tuple[list[np.ndarray], str]:
        """-> stored images (H, W) uint8 of its lines, and the text. Raises ValueError naming a shard that was cut short
        or changed, OSError naming one that can't be read.
        """
        at = self.locate(np.array([text]))
        path, start = self.path(int(at.source[0]), int(at.shard[0])), int(at.start[0])
        content = self.open.read(path, start, int(at.end[0]) - start)
        try:
            images, written, _ = decode_text(Span.of(at.own[0], at.lines, start), content)
        except Damaged:
            raise self.damaged(text) from None
        other = self.text(text)
        return images, written if other is None else other

    def damaged(self, text: int) -> ValueError:
        at = self.locate(np.array([text]))
        path = self.path(int(at.source[0]), int(at.shard[0]))
        told = f"{path}: cut short or changed since it was committed, at {log_name(self.key(text))}"
        return ValueError(f"{told} (see python -m jobs verify {in_shell(path.parent)})")

    def close(self) -> None:
        self.open.close()

    # ---------------------------------------------------------------- of all texts at once, for small data sets

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """width and height as stored, of the text's own row, and length."""
        own = self.locate(np.arange(len(self))).own
        return {"width": own["width"], "height": own["height"], "length": self.lengths(np.arange(len(self)))}

    @property
    def text_row(self) -> np.ndarray:
        """Rows of the table of a single source."""
        [only] = self.sources
        return only.row

    @property
    def first(self) -> np.ndarray:
        [only] = self.sources
        return only.firsts(slice(None))

    @property
    def count(self) -> np.ndarray:
        [only] = self.sources
        return only.count
