"""What a user hands in, as one table: CSV, Parquet, or a folder of page images with ALTO or PAGE XML.

A row is a line or a field. Five million rows are to fit: every column but those of `PLAIN` is kept as codes and the
values that they stand for, and nothing goes through Python row by row.
"""

import csv
import hashlib
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from htr.io.pages import read_pages, xml_files

NEEDED = ("image", "text", "certificate")
OPTIONAL = {"field": "text", "line": "0", "page": "", "box": "", "polygon": "", "baseline": "", "writer": ""}
OPTIONAL |= {"year": "", "form": "", "split": ""}
OURS = (*NEEDED, *OPTIONAL)
PLAIN = ("text", "box", "polygon", "baseline")  # hardly two alike: kept as they come, in pieces
RESERVED = ("key", "fault", "shard", "outcome", "reason", "offset", "size", "text_size", "width", "height", "length")
RESERVED += ("group", "row", "level", "input", "ink", "template", "registration", "pitch", "lines", "fields", "dpi")
CSV_BLOCK_BYTES = 16 << 20  # bytes of a CSV that are read at once; no row may be longer


def read_source(source: Path) -> tuple[pa.Table, Path]:
    """-> (table of text: OURS, then the metadata columns in their order; the folder that `image` is relative to).

    Columns of PLAIN are strings, the others dictionaries of strings; no cell is null. Raises ValueError when there is
    no such source, it can't be read or has no rows, or a column is missing or has a reserved name.
    """
    images = images_of(source)
    read = read_folder if source.is_dir() else read_parquet if is_parquet(source) else read_csv
    table = read(source)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise ValueError(f"{source}: more than one column {', '.join(twice)}")
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        have = ", ".join(table.column_names)
        raise ValueError(f"{source}: no column {', '.join(missing)} (it has {have})")
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


def read_folder(source: Path) -> pa.Table:
    rows = read_pages(source)
    pieces = []
    while part := list(islice(rows, 50_000)):
        names = [name for name in OURS if any(name in row for row in part)]
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


def read_csv(source: Path) -> pa.Table:
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            first = file.readline(CSV_BLOCK_BYTES)
        if not first.strip():
            raise ValueError(f"{source}: an empty file, or one that begins with an empty line")
        delimiter = max(",;\t", key=first.count)
        header = next(csv.reader([first], delimiter=delimiter), [])
        coded = pa.dictionary(pa.int32(), pa.string())
        return pa.csv.read_csv(
            source,
            read_options=pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # everything is text: "007" is an id, "NA" and "null" may be what a physician wrote
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() if name in PLAIN else coded for name in header},
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        # Arrow's message quotes the row, which may hold a transcription
        message, kind = str(error), "not UTF-8 CSV"
        if "columns" in message:
            kind = "a row has more or fewer columns than the header"
        elif "straddl" in message or "out of sync" in message:
            kind = f"a row of more than {CSV_BLOCK_BYTES >> 20} MiB: a quote that is never closed?"
        raise ValueError(f"{source}: {kind}") from None


def as_text(table: pa.Table, name: str) -> pa.ChunkedArray | pa.DictionaryArray:
    """A column as text; the default of OPTIONAL where the column is missing or a cell is empty."""
    default = OPTIONAL.get(name, "")
    if name not in table.column_names:
        return pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int8), pa.array([default]))
    if name not in PLAIN:
        return encode(table[name], default)
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
