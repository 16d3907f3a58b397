"""Accumulators of an evaluation: sums by cluster of all counts, and by line of the few that slices need.

Parts are read one after the other, in the order of their shards, and no text is kept: some 70 bytes a line and 300 a
cluster. A cluster is what intervals take as the unit: the writer or, where none is known, the certificate.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import log_name, person_key
from htr.metrics.counts import OF_TEXT

NO_SLICE = ("key", "certificate", "writer", "line", "image", "shard", "split", "reference", "hypothesis")
MAX_SLICES = 100  # of one column; more is not a slice but a name
LENGTH_EDGES = (0, 5, 10, 20, 40)  # reference characters: 0, 1-5, …, 41-
SLICE_HEIGHT_PX = 48  # px that lines are scaled to for their slices by width: the same lines, whatever models see
WIDTH_EDGES_PX = (128, 256, 512, 1024)  # px at that height
COUNTED = b"counted"  # in the metadata of a part: its columns that add up, and its confusions


@dataclass
class NameCodes:
    """Numbers for names, in the order in which they come up."""

    numbers: dict[str, int] = field(default_factory=dict)

    def of(self, column: pa.Array) -> np.ndarray:
        column = column.dictionary_encode()
        known = [self.numbers.setdefault(name, len(self.numbers)) for name in column.dictionary.to_pylist()]
        return np.array(known, np.int32)[column.indices.to_numpy()] if known else np.zeros(0, np.int32)

    def sort(self) -> np.ndarray:
        """Number the names alphabetically. -> (names,) the new number of each old one."""
        names = sorted(self.numbers)
        order = np.empty(len(names), np.int32)
        order[[self.numbers[name] for name in names]] = np.arange(len(names))
        self.numbers = {name: number for number, name in enumerate(names)}
        return order

    def __len__(self) -> int:
        return len(self.numbers)


class Accumulator:
    def __init__(self) -> None:
        self.columns: list[str] = []  # what is counted
        self.names = {name: NameCodes() for name in ("cluster", "certificate", "writer")}
        self.slices: dict[str, NameCodes] = {}
        self.lines: dict[str, list[np.ndarray]] = {}  # (lines,) numbers of names and slices ("by NAME"), OF_TEXT
        self.by_cluster = np.zeros((0, 0), np.int32)  # (clusters, columns)
        self.confusions: Counter[tuple[str, str]] = Counter()
        self.keys: list[pa.ChunkedArray] = []
        self.without_writer = 0

    def read(self, path: Path, on_texts: Callable[[pa.Table], None] | None = None) -> None:
        """Add a part of the evaluation. `on_texts` is called with its table of texts. Raises ValueError for a part of
        an older version."""
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        if COUNTED not in (schema.metadata or {}):
            raise ValueError(f"{path}: written by an older version, without what is counted now: remove its folder")
        note = json.loads(schema.metadata[COUNTED])
        counted = note["columns"]
        if not self.columns:
            self.columns = counted
            strings = [name for name in schema.names if schema.field(name).type == pa.string()]
            self.slices = {name: NameCodes() for name in strings if name not in NO_SLICE}
        if counted != self.columns:
            raise ValueError(f"{path}: counts other things than the parts before it: remove its folder")
        texts = ["reference", "hypothesis"] if on_texts else []
        names = ["key", "certificate", "writer", "width", "height", *self.slices, *counted, *texts]
        table = file.read(columns=list(dict.fromkeys(name for name in names if name in schema.names))).combine_chunks()
        self.confusions.update({(one, other): number for one, other, number in note["confusions"]})
        self.add(table)
        if on_texts:
            on_texts(table)

    def add(self, table: pa.Table) -> None:
        certificate, writer = strings(table, "certificate"), writer_keys(table)
        self.without_writer += pc.sum(pc.equal(writer, "")).as_py() or 0
        found = {"cluster": cluster_of(certificate, writer), "certificate": certificate, "writer": writer}
        codes = {name: self.names[name].of(column) for name, column in found.items()}
        for name in list(self.slices):
            codes[f"by {name}"] = self.slices[name].of(strings(table, name)).astype(np.int16)
            if len(self.slices[name]) > MAX_SLICES:
                del self.slices[name], codes[f"by {name}"]
                self.lines.pop(f"by {name}", None)
        added = {name: table[name].to_numpy().astype(np.int32) for name in self.columns}
        codes["by length"] = np.searchsorted(LENGTH_EDGES, added["characters"]).astype(np.int16)
        wide = table["width"].to_numpy() * SLICE_HEIGHT_PX // np.maximum(table["height"].to_numpy(), 1)
        codes["by width"] = np.searchsorted(WIDTH_EDGES_PX, wide).astype(np.int16)
        for name, values in (codes | {name: added[name] for name in OF_TEXT}).items():
            self.lines.setdefault(name, []).append(values)
        self.add_clusters(codes["cluster"], added)
        self.keys.append(table["key"])

    def add_clusters(self, cluster: np.ndarray, added: dict[str, np.ndarray]) -> None:
        clusters = len(self.names["cluster"])
        if clusters > len(self.by_cluster):
            grown = np.zeros((max(clusters, len(self.by_cluster) * 3 // 2), len(self.columns)), np.int32)
            grown[: len(self.by_cluster)] = self.by_cluster.reshape(-1, len(self.columns))
            self.by_cluster = grown
        order = np.argsort(cluster, kind="stable")
        there, first = np.unique(cluster[order], return_index=True)
        if len(there):
            stacked = np.stack([added[name] for name in self.columns], axis=1)
            self.by_cluster[there] += np.add.reduceat(stacked[order], first, axis=0, dtype=np.int32)

    def close(self, folder: Path) -> None:
        """To be called after the last part. Raises ValueError where a line is in two parts."""
        keys = pa.chunked_array([chunk for column in self.keys for chunk in column.chunks], pa.string())
        twice = len(keys) - pc.count_distinct(keys).as_py()
        if twice:
            raise ValueError(f"{folder}: {twice} lines were read twice: remove the folder")
        self.keys = []
        # in the order of their names: which part came first makes no difference to what is drawn
        for name, codes in self.names.items():
            order = codes.sort()
            self.lines[name] = [order[values] for values in self.lines[name]]
            if name == "cluster":
                self.by_cluster = self.by_cluster[: len(order)][np.argsort(order)]

    # ------------------------------------------------------------------------------------------------ what there is

    def line(self, name: str) -> np.ndarray:
        """(lines,) a column that slices need."""
        return np.concatenate(self.lines[name])

    def cluster(self, name: str) -> np.ndarray:
        """(clusters,) the sum of a column for each cluster."""
        return self.by_cluster[:, self.columns.index(name)].astype(np.int64)

    def value_names(self, name: str) -> list[str]:
        """The values of a slice (writers, fields, …), by their numbers."""
        if name == "length":
            return classes(LENGTH_EDGES)
        if name == "width":
            return classes(WIDTH_EDGES_PX, 0)
        if name == "writer":  # a name is nobody's business
            return [
                log_name(writer).replace("sample", "writer") if writer else "" for writer in self.names[name].numbers
            ]
        return list(self.slices[name].numbers)


def strings(table: pa.Table, name: str) -> pa.Array:
    """A column as strings; "" stands for unknown."""
    if name not in table.column_names:
        return pa.repeat(pa.scalar("", pa.string()), table.num_rows)
    column = table[name]
    return pc.fill_null(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0), "")


def writer_keys(table: pa.Table) -> pa.Array:
    """(lines,) the writer of each line, the same for all spellings of one name (`person_key`); "" where unknown."""
    writer = strings(table, "writer").dictionary_encode()
    keys = pa.array(list(map(person_key, writer.dictionary.to_pylist())), pa.string())
    return keys.take(writer.indices)


def cluster_of(certificate: pa.Array, writer: pa.Array) -> pa.Array:
    """(lines,) certificates, (lines,) `writer_keys` -> (lines,) the cluster of each line for intervals: "w WRITER" or,
    where the writer is unknown, "c CERTIFICATE".
    """
    known = pc.not_equal(writer, "")
    return pc.binary_join_element_wise(pc.if_else(known, "w", "c"), pc.if_else(known, writer, certificate), " ")


def classes(edges: tuple[int, ...], first: int | None = None) -> list[str]:
    """Names for the classes into which np.searchsorted divides numbers by these edges."""
    low = [(first if first is not None else 0), *(edge + 1 for edge in edges)]
    names = [str(high) if start == high else f"{start or ''}-{high}" for start, high in zip(low, edges, strict=False)]
    return [*names, f"{low[-1]}-"]


def grouped(*codes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Several numbers for each of N lines -> the combinations that occur, sorted, and (N,) which of them each line
    has."""
    size = [int(code.max(initial=0)) + 1 for code in codes]
    key = np.zeros(len(codes[0]), np.int64)
    for code, count_ in zip(codes, size, strict=True):
        key = key * count_ + code
    there, which = np.unique(key, return_inverse=True)
    found = []
    for count_ in reversed(size):
        found.insert(0, there % count_)
        there = there // count_
    return found, which
