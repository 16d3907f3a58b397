"""Tables of results, written piece by piece as CSV, Parquet or JSON lines, which appear whole or not at all."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from shards import files

ENDINGS = (".csv", ".parquet", ".jsonl")
LISTS = ("alternatives", "words", "lines")  # columns of JSON
ROW_GROUP_ROWS = 100_000  # rows of a Parquet file that are written together
PLACE = ("image", "page", "certificate")
COLUMNS = {  # of a transcription: what is known of a row, and what was read
    "lines": (*PLACE, "field", "line", "box", "page_size", "turn"),
    "samples": ("key", "split", "certificate", "field", "line"),
    "fields": (*PLACE, "form", "field", "box"),
}
# strings of its parts alone, but for a field's lines
BESIDE = {"lines": ("polygon", "baseline"), "samples": (), "fields": ("lines", "line_alternatives", "contradicts")}


def check_name(path: Path, endings: tuple[str, ...] = ENDINGS) -> None:
    """Raises ValueError for a name with another ending, or in a folder that is not there."""
    if path.suffix not in endings:
        raise ValueError(f"{path}: choose a name that ends in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder {path.parent}, please make it")


class Table:
    """with Table(path, schema) as table: table.write(rows). In JSON lines the columns of LISTS are lists."""

    def __init__(self, path: Path, schema: pa.Schema, check: Callable[[Path], None] = lambda attempt: None):
        """`check` is called with the whole file before it gets its name. Raises ValueError as check_name does."""
        check_name(path)
        self.path, self.schema, self.check, self.attempt = path, schema, check, files.temporary(path)
        self.rows, self.waiting = 0, []

    def __enter__(self) -> "Table":
        if self.path.suffix == ".parquet":
            self.file = pq.ParquetWriter(self.attempt, self.schema, compression="zstd")
        elif self.path.suffix == ".csv":
            options = pa.csv.WriteOptions(quoting_style="needed")
            self.file = pa.csv.CSVWriter(self.attempt, self.schema, write_options=options)
        else:
            self.file = open(self.attempt, "w", encoding="utf-8")
        return self

    def write(self, rows: pa.Table) -> None:
        """Add rows; of their columns those of the schema are written."""
        with files.named(self.path):
            self.add(rows.select(self.schema.names).cast(self.schema))

    def add(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        if self.path.suffix == ".csv":
            self.file.write_table(rows)
        if self.path.suffix == ".parquet":
            self.waiting.append(rows)
            if sum(map(len, self.waiting)) >= ROW_GROUP_ROWS:
                self.flush()
        if self.path.suffix != ".jsonl":
            return
        for row in rows.to_pylist():
            row |= {name: json.loads(row[name]) for name in LISTS if name in row}
            self.file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        if self.waiting:
            self.file.write_table(pa.concat_tables(self.waiting).combine_chunks())
            self.waiting = []

    def __exit__(self, kind, *_) -> None:
        try:
            with files.named(self.path):
                if kind is None:
                    self.flush()
                self.file.close()
            if kind is None:
                files.sync(self.attempt)
                self.check(self.attempt)
                os.replace(self.attempt, self.path)
                files.sync(self.path.parent)
        finally:
            self.attempt.unlink(missing_ok=True)


def parts_folder(out: Path) -> Path:
    """The folder beside the table in which its parts lie."""
    return out.with_name(f"{out.name}.parts")
