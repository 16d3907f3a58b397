"""The index in its binary form: where every sample lies, some 16 to 24 bytes each, mapped once a node (shards.columns).

index.parquet says more, in 365 bytes a row once it is in memory. From it are made, once each, and kept in the folder
`maps` of the data set (in the node's scratch where the data set may not be written):

    rows.map            every sample, in the order of index.parquet: place, sizes, width, height, length, level
    texts-DIGEST.map    the texts of one choice of split and columns: the row of each and how many images it has
    widths-DIGEST.map   their widths at a height
    column-DIGEST.map   their texts where these stand in a column of index.parquet and not in the shards
"""

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS, clean_text
from shards.columns import Columns, made_once, read_columns, small_dtype, write_columns
from shards.files import own_folder
from shards.index import Index
from shards.tar import BLOCK_BYTES

LEVELS = ("line", "field", "part", "blank", "tick", "page")  # by their numbers in `level`
NUMBERS = ("offset", "size", "text_size", "width", "height", "length")
LONG_KEY_BYTES = 96  # a longer one makes a member's name too long for a tar's header (see shards.tar)
LONG_KEY, SPLIT_SHIFT, LEVEL_MASK = 64, 3, 7  # bits of `kind`: level, split, whether the key is a long one
CHUNK = 1 << 22  # rows that are looked at together


def rows_of(index: Index) -> Columns:
    """offset (in blocks of a tar), size, text_size, width, height, length, kind (see `levels`); `starts` and the note's
    `shards`: the first row of each shard, and its name."""
    path = index.folder / "index.parquet"

    def make(place: Path) -> None:
        file = pq.ParquetFile(path)
        most, names, counts = dict.fromkeys(NUMBERS, 0), [], []
        for table in groups(file, [*NUMBERS, "shard"]):
            for name in NUMBERS:
                most[name] = max(most[name], pc.max(table[name]).as_py() or 0)
            runs = pc.run_end_encode(table["shard"].combine_chunks().cast(pa.string()))
            for name, count in zip(runs.values.to_pylist(), np.diff(runs.run_ends.to_numpy(), prepend=0), strict=True):
                if names[-1:] == [name]:
                    counts[-1] += int(count)
                else:
                    names.append(name)
                    counts.append(int(count))
        most["offset"] //= BLOCK_BYTES
        total = sum(counts)
        columns = {name: (small_dtype(value), total) for name, value in most.items()}
        columns |= {"kind": (np.uint8, total), "starts": (np.uint64, len(names))}
        note = {"index": index.digest, "shards": names}
        write_columns(place, note, columns, lambda arrays: fill_rows(file, arrays, counts))
        for other in place.parent.glob("*.map"):  # of what the index was before
            try:
                ours = read_columns(other).note.get("index") == index.digest
            except (ValueError, FileNotFoundError):  # of another version, damaged, or gone since
                ours = False
            if not ours:
                other.unlink(missing_ok=True)

    return kept(index, "rows.map", {"index": index.digest}, make)


def fill_rows(file: pq.ParquetFile, arrays: dict[str, np.ndarray], counts: list[int]) -> None:
    arrays["starts"][:] = np.cumsum(counts) - counts
    at = 0
    for table in groups(file, [*NUMBERS, "key", "level", "split"]):
        part = slice(at, at + table.num_rows)
        for name in NUMBERS:
            numbers = table[name].to_numpy()
            if name == "offset":
                if (numbers % BLOCK_BYTES).any():
                    raise ValueError("index.parquet: an image that begins within a block of its tar")
                numbers = numbers // BLOCK_BYTES
            arrays[name][part] = numbers
        level = pc.index_in(table["level"].cast(pa.string()), pa.array(LEVELS)).fill_null(LEVEL_MASK)
        split = pc.index_in(table["split"].cast(pa.string()), pa.array(SPLITS)).fill_null(LEVEL_MASK)
        long = pc.greater(pc.binary_length(table["key"].cast(pa.string())), LONG_KEY_BYTES)
        kind = level.to_numpy() | split.to_numpy() << SPLIT_SHIFT
        arrays["kind"][part] = kind | np.where(long.to_numpy(), LONG_KEY, 0)
        at += table.num_rows


def groups(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    """The row groups of a Parquet file, one by one: what is in memory does not grow with it."""
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=columns, use_threads=False).combine_chunks()


def level_of(kind: np.ndarray) -> np.ndarray:
    return kind & LEVEL_MASK


# ---------------------------------------------------------------------------- a choice of texts


def texts_of(index: Index, rows: Columns, split: str, levels: tuple[str, ...], where: dict[str, list[str]]) -> Columns:
    """`row` and `count`: of each text of these levels, the fields with their parts, the row and the number of images;
    `whole`: how many there are with the fields that are left out.

    A field's images are the rows of level `part` that follow it; one without them is left out. Raises ValueError for a
    column of `where` that is not there.
    """
    asked = {"index": index.digest, "split": split, "levels": list(levels), "where": sorted(where.items())}
    asked["where"] = [[name, sorted(values)] for name, values in asked["where"]]
    if split not in SPLITS:
        raise ValueError(f"no split '{split}': choose one of {', '.join(SPLITS)}")
    names = pq.read_schema(index.folder / "index.parquet").names
    if wrong := [name for name in where if name not in names]:
        raise ValueError(f"{index.folder}: no column {', '.join(wrong)}; there are {', '.join(names)}")

    def make(place: Path) -> None:
        wanted = np.zeros(256, bool)
        numbers = [LEVELS.index(level) for level in levels]
        kinds = np.arange(256)
        wanted[np.isin(level_of(kinds), numbers) & ((kinds >> SPLIT_SHIFT & 7) == SPLITS.index(split))] = True
        found, counts, at, whole = [], [], 0, 0
        total = len(rows["kind"])
        masks = matching(index, where) if where else None
        while at < total:
            end = min(at + CHUNK, total) if masks is None else at + len(mask := next(masks))
            chosen = wanted[rows["kind"][at:end]]
            if masks is not None:
                chosen &= mask
            some = np.flatnonzero(chosen) + at
            whole += len(some)
            count = images_of(rows["kind"], some)
            found.append(some[count > 0].astype(small_dtype(total)))
            counts.append(count[count > 0].astype(np.uint16))
            at = end
        chosen = sum(map(len, found))
        most = max((int(count.max(initial=0)) for count in counts), default=0)
        columns = {"row": (small_dtype(total), chosen), "count": (small_dtype(most), chosen), "whole": (np.uint64, 1)}

        def fill(arrays: dict[str, np.ndarray]) -> None:
            arrays["whole"][0], first = whole, 0
            for some, count in zip(found, counts, strict=True):
                arrays["row"][first : first + len(some)] = some
                arrays["count"][first : first + len(some)] = count
                first += len(some)

        write_columns(place, asked, columns, fill)

    return kept(index, f"texts-{digest(asked)}.map", asked, make)


def images_of(kind: np.ndarray, some: np.ndarray) -> np.ndarray:
    """How many images each of these texts (rows) has: 1, of a field as many as parts follow it."""
    count = np.ones(len(some), np.int64)
    fields = np.flatnonzero(level_of(kind[some]) == LEVELS.index("field"))
    count[fields] = 0
    left, line = fields, 1
    while len(left):
        left = left[some[left] + line < len(kind)]
        left = left[level_of(kind[some[left] + line]) == LEVELS.index("part")]
        count[left] += 1
        line += 1
    return count


def matching(index: Index, where: dict[str, list[str]]) -> Iterator[np.ndarray]:
    """Of each row group of index.parquet, which of its rows have one of the values in each of these columns."""
    for table in groups(pq.ParquetFile(index.folder / "index.parquet"), list(where)):
        mask = np.ones(table.num_rows, bool)
        for name, values in where.items():
            mask &= pc.is_in(table[name].cast(pa.string()), pa.array(values, pa.string())).to_numpy()
        yield mask


def column_of(index: Index, texts: Columns, column: str) -> Columns:
    """The texts, cleaned, of this choice in a column: `ends` of each in `bytes`, UTF-8; `length` in characters."""
    asked = {**texts.note, "column": column}
    names = pq.read_schema(index.folder / "index.parquet").names
    if column not in names:
        raise ValueError(f"{index.folder}: no column {column}; there are {', '.join(names)}")

    def make(place: Path) -> None:
        content, ends, lengths, first, at = bytearray(), [], [], 0, 0
        chosen = texts["row"]
        for table in groups(pq.ParquetFile(index.folder / "index.parquet"), [column]):
            last = int(np.searchsorted(chosen, first + table.num_rows))
            rows = pa.array(chosen[at:last].astype(np.int64) - first)
            for text in map(clean_text, table[column].cast(pa.string()).take(rows).to_pylist()):
                content += text.encode()
                ends.append(len(content))
                lengths.append(len(text))
            first, at = first + table.num_rows, last
        columns = {"ends": (np.uint64, len(ends)), "bytes": (np.uint8, len(content))}
        columns["length"] = (small_dtype(max(lengths, default=0)), len(lengths))

        def fill(arrays: dict[str, np.ndarray]) -> None:
            arrays["ends"][:], arrays["length"][:] = ends, lengths
            arrays["bytes"][:] = np.frombuffer(content, np.uint8)

        write_columns(place, asked, columns, fill)

    return kept(index, f"column-{digest(asked)}.map", asked, make)


def widths_kept(index: Index, texts: Columns, height: int, widths: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(M,) px of each text of this choice at this height; `widths`: of these texts."""
    asked, count = {**texts.note, "height": height}, len(texts["row"])

    def make(place: Path) -> None:
        def fill(arrays: dict[str, np.ndarray]) -> None:
            for start in range(0, count, CHUNK):
                some = np.arange(start, min(start + CHUNK, count))
                arrays["width"][some[0] : some[-1] + 1] = widths(some)

        write_columns(place, asked, {"width": (np.uint16, count)}, fill)

    return kept(index, f"widths-{digest(asked)}.map", asked, make)["width"]


# ---------------------------------------------------------------------------- where they are kept


def digest(asked: dict) -> str:
    return hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()[:12]


def kept(index: Index, name: str, note: dict, make: Callable[[Path], None]) -> Columns:
    """The map of this name, made where it is missing or of an older index: beside the index, else in scratch."""
    try:
        return made_once(index.folder / "maps" / name, note, lambda: make(index.folder / "maps" / name))
    except PermissionError:
        pass
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.ENODEV):  # ENODEV: see try_mapping
            raise
    folder = own_folder() / f"maps-{index.digest}"
    return made_once(folder / name, note, lambda: make(folder / name))
