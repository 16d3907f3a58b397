"""Sources as one table: CSV, Parquet, or a folder of page images with ALTO or PAGE XML.

A row is a line or a field. Five million rows are to fit: every column but those of `PLAIN` is kept as codes and the
values that they stand for, and nothing goes through Python row by row.
"""

import hashlib
import re
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.io.account import Account
from htr.io.pages import read_pages, xml_files
from htr.io.tables import read_csv

NEEDED = ("image", "text", "certificate")
OPTIONAL = {"field": "text", "line": "0", "page": "", "box": "", "polygon": "", "baseline": "", "writer": ""}
OPTIONAL |= {"year": "", "form": "", "split": ""}
OURS = (*NEEDED, *OPTIONAL)
PLAIN = ("text", "box", "polygon", "baseline")  # hardly two alike: kept as they come, in pieces
RESERVED = ("key", "fault", "shard", "outcome", "reason", "offset", "size", "text_size", "width", "height", "length")
RESERVED += ("group", "row", "level", "input", "ink", "template", "registration", "pitch", "lines", "fields", "dpi")
WHOLE = ("page", "line", "year")  # whole numbers, which pandas and Excel may write as 3.0
KNOWN = (*OURS, "reject")  # names that tell a header, whatever its case

NO_TABLES = {  # what people hand in for one, and what to do
    ".xml": "a single XML is no source: name the folder that holds it and its image",
    ".xlsx": "an Excel workbook: save its sheet as CSV in UTF-8",
    ".xls": "an Excel workbook: save its sheet as CSV in UTF-8",
    ".ods": "a workbook: save its sheet as CSV in UTF-8",
    ".tar": "a tar is no source: name a table whose column image says ARCHIVE.tar/NAME, or unpack it",
    ".zip": "an archive: unpack it and name the folder",
    ".gz": "compressed: unpack it first",
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
        have = ", ".join(table.column_names)
        raise ValueError(f"{source}: no column {', '.join(missing)} (it has {have}): please rename its columns")
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
            raise ValueError(f"{source}: column {name} ({kind}) can't be read as text in UTF-8") from None
        if name in table.column_names:
            table = table.drop_columns([name])  # at most one column is there twice
    return pa.table(columns), images


def read_any(source: Path, quotes: str = "auto", account: Account | None = None) -> pa.Table:
    """A folder of pages, a Parquet file or a CSV, with the columns that it has. Raises ValueError."""
    account = Account() if account is None else account
    if source.is_dir():
        return read_folder(source, account)
    if is_parquet(source):
        table = read_parquet(source)
        account.there += table.num_rows
        return table
    if source.suffix.lower() in NO_TABLES:
        raise ValueError(f"{source}: {NO_TABLES[source.suffix.lower()]}")
    return read_csv(source, PLAIN, KNOWN, quotes, account)


def images_of(source: Path) -> Path:
    """The folder that a source's images are relative to. Raises ValueError when there is no such source."""
    if not source.is_dir() and not source.is_file():
        raise ValueError(f"{source}: no such table or folder")
    return source if source.is_dir() else source.parent


def digest(source: Path) -> str:
    """SHA-256 of a source's bytes: of the table, or of the names and contents of a folder's XML. Reads, parses nothing.

    The same digest is the same source; another one may still hold the same rows.
    """
    if not source.is_dir():
        images_of(source)
        with open(source, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    total = hashlib.sha256()
    for path in xml_files(source):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(source)}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def read_folder(source: Path, account: Account) -> pa.Table:
    rows = read_pages(source, account)
    pieces = []
    while part := list(islice(rows, 50_000)):
        names = dict.fromkeys(name for row in part for name in row)
        pieces.append(pa.table({name: [row.get(name, "") for row in part] for name in names}))
    if not pieces:
        raise ValueError(f"{source}: no ALTO or PAGE XML with a text line in this folder")
    return pa.concat_tables(pieces, promote_options="default")


def is_parquet(source: Path) -> bool:
    return source.suffix.lower() in (".parquet", ".pq")


def read_parquet(source: Path) -> pa.Table:
    try:
        names = pq.read_schema(source).names
        return pq.read_table(source, read_dictionary=[name for name in names if name not in PLAIN])
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(f"{source}: damaged, or not a Parquet file") from None


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
    better = [re.sub(r"^(\d+)\.0+$", r"\1", text) if text else text for text in texts]
    if better == texts:
        return column
    return encode(
        pa.chunked_array([pa.DictionaryArray.from_arrays(column.indices, pa.array(better))]).cast(pa.string())
    )
