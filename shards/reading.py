"""The texts of data sets, each with its line images: one by one, or some thousand together in few large reads."""

import errno
import os
import resource
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.certificate import clean_text, log_name
from htr.lines.normalise import MAX_LINE_WIDTH_PX, MIN_LINE_WIDTH_PX
from shards import files
from shards.tar import text_after

MAX_GAP_BYTES = 16 << 10  # bytes between two samples that are read over, where a second read would cost more
MAX_READ_BYTES = 4 << 20  # bytes of a read
under_way: dict[int, str] = {}  # the shard that each thread reads now: what a process waits for, if that hangs
COLUMNS = ("key", "shard", "offset", "size", "text_size", "width", "height", "length", "level")  # of the index


@dataclass(frozen=True)
class Read:
    """Some images, with their texts, that lie near each other in a shard."""

    folder: int
    shard: int
    offset: int
    size: int
    images: np.ndarray  # rows of the table


class Samples:
    """The texts of tables (see Index.samples), each with its line images, read by offset from their shards.

    A row a text; rows of the level `part` belong to the row of level `field` before them, and are its images. A field
    without them is left out. `column`: where the texts stand, instead of the shards. Of five million rows numbers are
    held and the keys as Arrow has them, no Python object a row.
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
        def joined(name: str) -> pa.ChunkedArray:
            return pa.chunked_array([chunk for _, table in sources for chunk in table[name].chunks], pa.string())

        numbers = ("offset", "size", "text_size", "width", "height", "length")
        # a row an image
        self.images = {name: np.concatenate([table[name].to_numpy() for _, table in sources]) for name in numbers}
        self.keys = joined("key").cast(pa.large_string()).combine_chunks()  # of five million more than 2 GiB, it may be
        shards = joined("shard").dictionary_encode().combine_chunks()
        self.shard, self.shards = shards.indices.to_numpy(), shards.dictionary.to_pylist()
        lengths = pc.binary_length(self.keys).to_numpy()
        self.text_at = text_after(self.images["size"], lengths)  # bytes from an image's first to its text's first
        self.folders = [folder for folder, _ in sources]
        self.folder_of = np.repeat(np.arange(len(sources), dtype=np.int16), [table.num_rows for _, table in sources])
        level = joined("level")
        is_part = pc.equal(level, "part").to_numpy()
        text_rows = np.flatnonzero(~is_part)
        owner = np.searchsorted(text_rows, np.flatnonzero(is_part), side="right") - 1  # the text that a part belongs to
        counts = np.bincount(owner, minlength=len(text_rows)) if len(text_rows) else np.zeros(0, int)
        several = pc.equal(level, "field").to_numpy()[text_rows]
        kept = ~several | (counts > 0)
        self.text_row = text_rows[kept]
        self.first = np.where(several, text_rows + 1, text_rows)[kept].astype(np.int32)
        self.count = np.where(several, counts, 1)[kept].astype(np.int32)
        self.source = self.folder_of[self.text_row]
        self.columns = {name: self.images[name][self.text_row] for name in ("width", "height", "length")}
        self.texts = None
        if column:
            self.texts = [clean_text(text) for _, table in sources for text in table[column].to_pylist()]
            self.columns["length"] = np.array([len(self.texts[row]) for row in self.text_row])
        pa.default_memory_pool().release_unused()  # what the tables were cast in
        self.handles: dict[tuple[int, int], int] = {}
        self.opening = threading.Lock()
        # a shard stays open: a large data set has more of them than a shell's soft limit of files
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __len__(self) -> int:
        return len(self.text_row)

    def key(self, text: int) -> str:
        return self.keys[self.text_row[text]].as_py()

    def widths(self, height: int) -> np.ndarray:
        """(M,) px of the widest line of each text, at this height."""
        wide = np.rint(self.images["width"] * height / self.images["height"]).astype(np.int32)
        wide = np.clip(wide, MIN_LINE_WIDTH_PX, MAX_LINE_WIDTH_PX)  # as normalise_line makes them
        widest = wide[self.first]
        for line in range(1, int(self.count.max(initial=1))):
            more = self.count > line
            widest[more] = np.maximum(widest[more], wide[self.first[more] + line])
        return widest

    # ---------------------------------------------------------------- one text

    def read(self, text: int) -> tuple[list[np.ndarray], str]:
        """-> stored images (H, W) uint8 of its lines, and the text. Raises ValueError naming a shard that was cut short
        or changed.
        """
        stored = {}
        for read in self.reads(np.array([text])):
            stored |= self.take(read)
        return self.decode(text, stored)

    def decode(self, text: int, stored: dict[int, tuple[bytes, bytes]]) -> tuple[list[np.ndarray], str]:
        """The same from what was read of it: its encoded image and text by row of `images`."""
        row, first, count = int(self.text_row[text]), int(self.first[text]), int(self.count[text])
        try:
            images = [self.image(line, stored[line][0]) for line in range(first, first + count)]
            return images, stored[row][1].decode() if self.texts is None else self.texts[row]
        except ValueError:
            raise self.damaged(row) from None

    def image(self, row: int, encoded: bytes) -> np.ndarray:
        """Its pixels. Raises ValueError where they are not what the index says of them.

        Without the care of htr.io.image_files: what lies in a shard was encoded by OpenCV, has no orientation, and its
        size is known.
        """
        gray = None
        if encoded[-2:] == b"\xff\xd9" or encoded[:3] != b"\xff\xd8\xff":  # libjpeg fills what is missing with gray
            try:
                flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
                gray = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
            except cv2.error:
                gray = None
        if gray is None or gray.shape != (self.images["height"][row], self.images["width"][row]):
            raise ValueError("image can't be decoded")
        return gray

    # ---------------------------------------------------------------- many texts

    def rows(self, texts: np.ndarray) -> np.ndarray:
        """The rows of `images` that these texts are read from, in the order of the shards."""
        counts = self.count[texts]
        lines = (
            np.repeat(self.first[texts], counts) + np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        )
        rows = np.unique(np.concatenate([lines, self.text_row[texts]]))
        return rows[np.lexsort((self.images["offset"][rows], self.shard[rows], self.folder_of[rows]))]

    def bytes(self, texts: np.ndarray) -> int:
        """That these texts take in memory before they are decoded."""
        rows = self.rows(texts)
        return int(self.images["size"][rows].sum() + self.images["text_size"][rows].sum())

    def reads(self, texts: np.ndarray) -> list[Read]:
        """The fewest reads that bring these texts without reading much more, in the order of the shards."""
        rows = self.rows(texts)
        start = self.images["offset"][rows]
        end = start + self.text_at[rows] + self.images["text_size"][rows]
        near = (
            (np.diff(self.folder_of[rows]) == 0)
            & (np.diff(self.shard[rows]) == 0)
            & (start[1:] - end[:-1] <= MAX_GAP_BYTES)
        )
        found = []
        for run in np.split(np.arange(len(rows)), np.flatnonzero(~near) + 1) if len(rows) else ():
            pieces = (start[run] - start[run[0]]) // MAX_READ_BYTES
            for piece in np.split(run, np.flatnonzero(np.diff(pieces)) + 1):
                row, offset = rows[piece[0]], int(start[piece[0]])
                size = int(end[piece[-1]]) - offset
                found.append(Read(int(self.folder_of[row]), int(self.shard[row]), offset, size, rows[piece]))
        return found

    def content(self, name: tuple[int, int], path: Path, read: Read) -> bytes:
        """Its bytes, or fewer where the file ends before."""
        handle = self.handles[name]
        try:
            return read_all(handle, read.size, read.offset)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        with self.opening:  # the file server has forgotten the handle; shards never change, so another one will do
            if self.handles[name] == handle:
                self.handles[name] = os.open(path, os.O_RDONLY)
        return read_all(self.handles[name], read.size, read.offset)

    def take(self, read: Read) -> dict[int, tuple[bytes, bytes]]:
        """Read -> encoded image and text by row. Raises ValueError for a shard that is shorter than it was."""
        name, thread = (read.folder, read.shard), threading.get_ident()
        path = self.folders[read.folder] / f"{self.shards[read.shard]}.tar"
        try:
            with self.opening:
                under_way[thread] = path.name
                if name not in self.handles:
                    self.handles[name] = os.open(path, os.O_RDONLY)
            with files.named(path):
                content = self.content(name, path, read)
        finally:
            under_way.pop(thread, None)
        if len(content) != read.size:
            raise self.damaged(int(read.images[-1]))
        found = {}
        starts = (self.images["offset"][read.images] - read.offset).tolist()
        text_at, sizes = self.text_at[read.images].tolist(), self.images["size"][read.images].tolist()
        texts = self.images["text_size"][read.images].tolist()
        for row, at, between, size, text in zip(read.images.tolist(), starts, text_at, sizes, texts, strict=True):
            found[row] = content[at : at + size], content[at + between : at + between + text]
        return found

    def damaged(self, row: int) -> ValueError:
        folder = self.folders[self.folder_of[row]]
        return ValueError(
            f"{folder / self.shards[self.shard[row]]}.tar: cut short or changed since it was committed, at "
            f"{log_name(self.keys[row].as_py())} (see python -m jobs verify {folder})"
        )

    def close(self) -> None:
        for handle in self.handles.values():
            os.close(handle)
        self.handles.clear()


def read_all(handle: int, size: int, offset: int) -> bytes:
    """So many bytes, or fewer where the file ends before: a file system may give a read in pieces."""
    content = os.pread(handle, size, offset)
    while 0 < len(content) < size:
        more = os.pread(handle, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content
