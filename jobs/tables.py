"""Tables of results, written row by row as CSV, Parquet or JSON lines, which appear whole or not at all."""

import csv
import json
import os
from pathlib import Path

from shards import files

ENDINGS = (".csv", ".parquet", ".jsonl")
NUMBERS = ("confidence",)
GROUP = 10_000  # rows of a Parquet file that are written together


class Table:
    """with Table(path, columns) as table: table.write(rows). In CSV and Parquet a list is the text of its JSON."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        """Raises ValueError for another ending, or without the folder it is to be written in."""
        if path.suffix not in ENDINGS:
            raise ValueError(f"{path}: choose a name that ends in {', '.join(ENDINGS)}")
        if not path.parent.is_dir():
            raise ValueError(f"{path}: no folder {path.parent}, please make it")
        self.path, self.columns, self.attempt = path, columns, files.temporary(path)
        self.file = self.parquet = None
        self.waiting: list[list] = []

    def __enter__(self) -> "Table":
        if self.path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            kinds = [(name, pa.float32() if name in NUMBERS else pa.string()) for name in self.columns]
            self.parquet = pq.ParquetWriter(self.attempt, pa.schema(kinds), compression="zstd")
        else:
            self.file = open(self.attempt, "w", encoding="utf-8", newline="")
            if self.path.suffix == ".csv":
                csv.writer(self.file).writerow(self.columns)
        return self

    def write(self, rows: list[dict]) -> None:
        """Every row has every column."""
        if self.path.suffix == ".jsonl":
            for row in rows:
                line = {name: row[name] for name in self.columns}
                self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            return
        cells = [[flat(row[name]) for name in self.columns] for row in rows]
        if not self.parquet:
            csv.writer(self.file).writerows(cells)
            return
        self.waiting += cells
        if len(self.waiting) >= GROUP:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.waiting:
            columns = zip(*self.waiting, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, self.parquet.schema.types, strict=True)]
            self.parquet.write_table(pa.Table.from_arrays(arrays, schema=self.parquet.schema))
            self.waiting = []

    def __exit__(self, kind, *_) -> None:
        try:
            if self.parquet and kind is None:
                self.flush()
            (self.parquet or self.file).close()
            if kind is None:
                files.sync(self.attempt)
                os.replace(self.attempt, self.path)
                files.sync(self.path.parent)
        finally:
            self.attempt.unlink(missing_ok=True)


def flat(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
