"""What a user hands in, as one table: CSV, Parquet, or a folder of page images with ALTO or PAGE XML."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from htr.images.pages import read_pages

NEEDED = ("image", "text", "certificate")
OPTIONAL = {"field": "text", "line": "0", "box": "", "polygon": "", "writer": "", "year": "", "form": "", "split": ""}
OURS = (*NEEDED, *OPTIONAL)
RESERVED = ("key", "fault", "shard", "outcome", "reason", "offset", "size", "text_size")
RESERVED += ("width", "height", "length", "group")


def read_source(source: Path) -> tuple[pa.Table, Path]:
    """-> (table of strings: OURS, then the metadata columns in their order; the folder that `image` is relative to).

    Raises ValueError when there is no such source, it has no rows, or a column is missing or has a reserved name.
    """
    if source.is_dir():
        rows = list(read_pages(source))
        if not rows:
            raise ValueError(f"{source}: no ALTO or PAGE XML with a text line in this folder")
        table, images = pa.Table.from_pylist(rows), source
    elif not source.is_file():
        raise ValueError(f"{source}: no such table or folder")
    else:
        table, images = read_table(source), source.parent
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
    columns = {name: as_strings(table, name) for name in NEEDED}
    columns |= {name: as_strings(table, name, default) for name, default in OPTIONAL.items()}
    columns |= {name: as_strings(table, name) for name in table.column_names if name not in OURS}
    return pa.table(columns), images


def read_table(source: Path) -> pa.Table:
    if source.suffix == ".parquet":
        return pq.read_table(source)
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        delimiter = max(",;\t", key=first.count)
        header = next(csv.reader([first], delimiter=delimiter), [])
        return pa.csv.read_csv(
            source,
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            # everything is text: "007" is an id, "NA" and "null" may be what a physician wrote
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        # Arrow's message quotes the row, which may hold a transcription
        kind = "a row has more or fewer columns than the header" if "columns" in str(error) else "not UTF-8 CSV"
        raise ValueError(f"{source}: {kind}") from None


def as_strings(table: pa.Table, name: str, default: str = "") -> pa.ChunkedArray:
    """A column as strings; `default` where the column is missing or a cell is empty."""
    if name not in table.column_names:
        return pa.chunked_array([pa.array([default]).take(pa.array([0] * table.num_rows, pa.int32()))])
    column = pc.fill_null(pc.cast(table[name], pa.string()), default)
    return pc.if_else(pc.equal(column, ""), default, column) if default else column
