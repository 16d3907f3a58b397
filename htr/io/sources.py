"""Sources as one table: CSV, Parquet, or page images with ALTO or PAGE XML (a folder, a tar, a METS).

A row is a line or a field. Five million rows are to fit: every column but those of `PLAIN` is kept as codes and the
values that they stand for, and nothing goes through Python row by row.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.io.account import Account
from htr.io.mets import split_group
from htr.io.pages import open_tree, read_pages, tree_kind
from htr.io.tables import AROUND_NAMES, as_ours, read_csv
from htr.io.trees import nearest

NEEDED = ("image", "text", "certificate")
OPTIONAL = {"field": "text", "line": "0", "page": "", "box": "", "polygon": "", "baseline": "", "writer": ""}
OPTIONAL |= {"year": "", "form": "", "split": ""}
OURS = (*NEEDED, *OPTIONAL)
PLAIN = ("text", "box", "polygon", "baseline")  # hardly two alike: kept as they come, in pieces
RESERVED = ("key", "fault", "shard", "outcome", "reason", "offset", "size", "text_size", "width", "height", "length")
RESERVED += ("group", "row", "level", "input", "ink", "template", "registration", "pitch", "lines", "fields", "dpi")
WHOLE = ("page", "line", "year", "turn")  # whole numbers, which pandas and Excel may write as 3.0
KNOWN = (*OURS, "page_size", "turn", "reject")  # names that tell a header, whatever its case

NO_TABLES = {  # what people hand in for one, and what to do
    ".xml": "a single ALTO or PAGE XML is no source: name the folder that holds it and its image (a METS may be named)",
    ".xlsx": "an Excel workbook: save its sheet as CSV in UTF-8",
    ".xls": "an Excel workbook: save its sheet as CSV in UTF-8",
    ".ods": "a workbook: save its sheet as CSV in UTF-8",
    **dict.fromkeys((".zip", ".7z", ".rar", ".tgz"), "an archive: unpack it and name the folder"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst"), "compressed: unpack it first"),
}


def read_source(source: Path, quotes: str = "auto", account: Account | None = None) -> tuple[pa.Table, Path]:
    """-> (table of text: OURS, then the metadata columns in their order; the folder that `image` is relative to).

    Columns of PLAIN are strings, the others dictionaries of strings; no cell is null. `quotes`: of a CSV, see
    tables.read_csv. What is there and not read goes into `account`; without one, its notes are warnings. Raises
    ValueError when there is no such source, it can't be read or has no rows, or a column is missing or has a reserved
    name.
    """
    images, given = images_of(source), account
    account = Account() if account is None else account
    table = read_any(source, quotes, account)
    if given is None:
        for note in account.notes:
            warnings.warn(note, stacklevel=2)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ValueError(f"{source}: more than one column {', '.join(twice)}")
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise ValueError(f"{source}: {no_column(missing, table.column_names)}")
    taken = [name for name in RESERVED if name in table.column_names]
    if taken:
        raise ValueError(f"{source}: the column name {', '.join(taken)} is reserved, please rename it")
    if not table.num_rows:
        raise ValueError(f"{source}: a table without rows")
    columns = {}
    for name in (*OURS, *(name for name in table.column_names if name not in OURS)):
        try:
            columns[name] = as_text(table, name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # Arrow's message may quote a cell
            kind = table.schema.field(name).type
            raise ValueError(
                f"{source}: column {name} ({kind}) can't be read as text in UTF-8: write it as text, or leave it out"
            ) from None
        if name in table.column_names:
            table = table.drop_columns([name])  # at most one column is there twice
    return pa.table(columns), images


def no_column(missing: Sequence[str], names: Sequence[str]) -> str:
    """What is said of a table that lacks these columns."""
    advice = ": please rename its columns" if has_header(names) else ""
    return f"no column {', '.join(missing)} ({columns_shown(names)}){advice}"


def columns_shown(names: Sequence[str]) -> str:
    """A table's columns, in words."""
    if not has_header(names):
        return "its first line, not shown, names none of ours: please give it a header, cells apart by , ; or tab"
    return f"it has {', '.join(names)}"


def has_header(names: Sequence[str]) -> bool:
    """Where no name is one of ours, the first line is perhaps a row: it may hold a text."""
    return any(name in KNOWN for name in names)


def read_any(source: Path, quotes: str = "auto", account: Account | None = None) -> pa.Table:
    """A folder of pages, a tar, a METS, a Parquet file or a CSV, with the columns that it has. Raises ValueError."""
    account = Account() if account is None else account
    if tree_kind(source):
        return read_tree(source, account)
    if is_parquet(source):
        table = read_parquet(source)
        account.there += table.num_rows
        return table
    if source.suffix.lower() in NO_TABLES:
        raise ValueError(f"{source}: {NO_TABLES[source.suffix.lower()]}")
    return read_csv(source, PLAIN, KNOWN, quotes, account)


def images_of(source: Path) -> Path:
    """The folder that a source's images are relative to. Raises ValueError when there is no such source."""
    file = split_group(source)[0]
    if not file.is_dir() and not file.is_file():
        near = nearest(file.name, names_beside(file))
        raise ValueError(
            f"{source}: no such table or folder" + (f"; the nearest name there is: {near}" if near else "")
        )
    return file if file.is_dir() else file.parent


def names_beside(file: Path) -> list[str]:
    try:
        return os.listdir(file.parent)
    except OSError:
        return []


def digest(source: Path) -> str:
    """SHA-256 of a source's bytes: of the table or the tar, or of the names and contents of the XML of a folder, or of
    a METS. Reads, parses nothing else.

    The same digest is the same source; another one may still hold the same rows.
    """
    images_of(source)
    kind = tree_kind(source)
    if kind in ("", "tar"):
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    if kind == "METS":
        total.update(source.name.encode(errors="surrogateescape") + split_group(source)[0].read_bytes())
    tree = open_tree(source, Account())
    for name in tree.xml:
        content = hashlib.sha256(tree.read(name)).hexdigest()
        total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def read_tree(source: Path, account: Account) -> pa.Table:
    rows = read_pages(source, account)
    pieces = []
    while part := list(islice(rows, 50_000)):
        names = dict.fromkeys(name for row in part for name in row)
        try:
            pieces.append(pa.table({name: [row.get(name, "") for row in part] for name in names}))
        except UnicodeEncodeError:
            raise ValueError(f"{source}: a file's name in it is not UTF-8, please rename it (convmv does)") from None
    if not pieces:
        raise ValueError(
            f"{source}: no ALTO or PAGE XML with a text line in this {tree_kind(source)}: images without XML need a "
            f"table (image, text, certificate)"
        )
    return pa.concat_tables(pieces, promote_options="default")


def is_parquet(source: Path) -> bool:
    return source.suffix.lower() in (".parquet", ".pq")


def read_parquet(source: Path) -> pa.Table:
    """Columns whose names are nearly ours are given ours; a number that is none is an empty cell."""
    try:
        names = pq.read_schema(source).names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{source}: more than one column {', '.join(twice)}")
        table = pq.read_table(source, read_dictionary=[name for name in names if name not in PLAIN])
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{source}: damaged, or not a Parquet file") from None
    table = table.rename_columns(as_ours([AROUND_NAMES.sub("", name) for name in names], KNOWN))
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            gaps = pc.is_nan(table.column(place))
            column = pc.if_else(gaps, pa.scalar(None, field.type), table.column(place))
            table = table.set_column(place, field.name, column)
        elif field.name == "box" and (pa.types.is_list(field.type) or pa.types.is_large_list(field.type)):
            numbers = pc.cast(table.column(place), pa.list_(pa.string()))
            table = table.set_column(place, field.name, pc.binary_join(numbers, " "))
    return table


def as_text(table: pa.Table, name: str) -> pa.ChunkedArray | pa.DictionaryArray:
    """A column as text; the default of OPTIONAL where the column is missing or a cell is empty."""
    default = OPTIONAL.get(name, "")
    if name not in table.column_names:
        return pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int8), pa.array([default]))
    if name not in PLAIN:
        return whole_numbers(encode(table[name], default)) if name in WHOLE else encode(table[name], default)
    column = pc.fill_null(pc.cast(table[name], pa.string()), "")
    column.validate(full=True)  # a Parquet file may hold bytes that are not UTF-8
    return column


def encode(column: pa.ChunkedArray, default: str = "") -> pa.DictionaryArray:
    """Int32 codes and the different texts that they stand for; `default` where a cell is null or empty.

    Nearly free for a column that was encoded before. A text that no code stands for may be among the others, or null.
    """
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    column = column.unify_dictionaries().combine_chunks()
    codes, texts = pc.cast(column.indices, pa.int32()), pc.cast(column.dictionary, pa.string())
    texts.validate(full=True)
    empty = pc.is_null(texts) if not default else pc.or_kleene(pc.is_null(texts), pc.equal(texts, ""))
    if codes.null_count or pc.any(empty).as_py():
        if texts.index(default).as_py() < 0:
            texts = pa.concat_arrays([texts, pa.array([default])])
        place = texts.index(default).as_py()
        becomes = np.arange(len(texts), dtype=np.int32)
        becomes[np.flatnonzero(empty)] = place
        codes = pa.array(becomes[pc.fill_null(codes, place)])
    return pa.DictionaryArray.from_arrays(codes, texts)


def whole_numbers(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """With 3 for a cell 3.0, as programs write that hold numbers with gaps."""
    texts = column.dictionary.to_pylist()
    better = [re.sub(r"^(\d+)[.,]0+$", r"\1", text) if text else text for text in texts]
    if better == texts:
        return column
    return encode(
        pa.chunked_array([pa.DictionaryArray.from_arrays(column.indices, pa.array(better))]).cast(pa.string())
    )
