"""The index: what all shards hold, merged when the last one is committed. A folder without index.json is not whole.

index.parquet has a row a sample, rejects.parquet a row for every row of the source that has none. Rejected rows may be
written again, after a fix, into shards of their own, which a file retry-NN.json names: what came out last counts.
"""

import collections
import os
import re
import time
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.charset import Charset
from shards import files
from shards.plan import Plan, read_plan
from shards.totals import describe, read_totals

OF_REJECTS = ("row", "key", "certificate", "field", "line", "shard", "reason")
AGAIN = "remove it, and the same preprocess, run again, makes its shard anew"
MIN_ROWS_PER_READ = 50_000  # rows of index.parquet that are read together, at least


@dataclass(frozen=True)
class Index:
    """What index.json says of a data set."""

    folder: Path
    fingerprint: str
    characters: str  # of its texts, those of train
    shards: list[dict]
    totals: dict[str, int]  # samples of every level, by split
    lines: dict[str, int]  # those of level line
    encoding: str
    digest: str  # of all that index.json says: the same data set made again may lie in other bytes

    @property
    def charset(self) -> Charset:
        """Raises ValueError for a data set without any text, of blank fields alone."""
        return Charset(self.characters)

    def samples(
        self, split: str, where: dict[str, list[str]] | None = None, columns: list[str] | None = None
    ) -> pa.Table:
        """The samples of a split in the order of their shards, as index.parquet has them, or only these columns.

        `where` keeps the rows whose column has one of the values; unless it names `level`, those of level line. Raises
        ValueError for an unknown column, or when nothing is left.
        """
        path = self.folder / "index.parquet"
        names = pq.read_schema(path).names
        wrong = [name for name in (*(where or {}), *(columns or ())) if name not in names]
        if wrong:
            raise ValueError(f"{self.folder}: no column {', '.join(wrong)}; there are {', '.join(names)}")
        wanted = {"level": ["line"], **(where or {})}
        fits = [pc.field(name).cast(pa.string()).isin(values) for name, values in wanted.items()]
        rows = reduce(lambda one, other: one & other, fits, pc.field("split") == split)
        table = pq.read_table(path, columns=columns, filters=rows)
        if not table.num_rows:
            raise self.nothing_left(split, wanted)
        return table

    def nothing_left(self, split: str, wanted: dict[str, list[str]]) -> ValueError:
        """The error that says which condition leaves no sample."""
        have = ", ".join(f"{name} {count}" for name, count in self.totals.items() if count) or "none at all"
        return ValueError(
            f"{self.folder}: no sample in split '{split}' where {wanted} (there are, of every level: {have}): "
            f"choose another --split or --where, or preprocess with other --shares"
        )


def missing_shards(plan: Plan) -> list[str]:
    """The names of the plan's shards that are not committed yet."""
    there = set(os.listdir(plan.folder))
    return [shard["name"] for shard in plan.shards if f"{shard['name']}.json" not in there]


def names_of(plan: Plan) -> list[str]:
    return [shard["name"] for shard in plan.shards]


def read_retries(folder: Path) -> list[Plan]:
    """The data set's retries, in the order in which they were made."""
    found = [match for match in map(re.compile(r"retry-(\d+)\.json").fullmatch, os.listdir(folder)) if match]
    return [read_plan(folder, f"retry-{match[1]}") for match in sorted(found, key=lambda match: int(match[1]))]


def finished_retries(folder: Path) -> list[Plan]:
    """Those whose shards are all committed."""
    return [plan for plan in read_retries(folder) if not missing_shards(plan)]


# ---------------------------------------------------------------------------------------------------- merging


class Account:
    """Counts what became of each row of the source: one or more samples, or a rejection, never both and never
    neither."""

    def __init__(self, rows: int):
        self.last = np.zeros(rows, np.int32)  # the retry that it was last written in; 0 is the plan itself
        self.shard = np.full(rows, -1, np.int32)  # with its samples
        self.rejected = np.zeros(rows, bool)
        self.twice = np.zeros(rows, bool)  # in two shards, rejected twice, or sampled and written again

    def retried(self, rows: np.ndarray, retry: int) -> None:
        """These rows were written again in the retry of this number."""
        self.last[rows] = retry

    def add(self, shard: int, retry: int, sampled: np.ndarray, rejected: np.ndarray) -> np.ndarray:
        """Count a shard: the numbers of its rows with samples and of its rejected rows.

        -> (rejected,) bool, which of these rejections count; the others were written again in a later retry.
        """
        final = self.last[rejected] == retry
        different, counts = np.unique(rejected[final], return_counts=True)
        self.twice[different] |= (counts > 1) | self.rejected[different]
        self.rejected[different] = True
        sampled = np.unique(sampled)
        self.twice[sampled] |= (self.shard[sampled] >= 0) | (self.last[sampled] != retry)
        self.shard[sampled] = shard
        return final

    def close(self, folder: Path) -> None:
        """Raises ValueError where some row has no outcome, or more than one."""
        neither = np.count_nonzero((self.shard < 0) & ~self.rejected)
        both = np.count_nonzero((self.shard >= 0) & self.rejected)
        twice = np.count_nonzero(self.twice)
        if neither or both or twice:
            raise ValueError(
                f"{folder}: the account of {len(self.last)} rows does not close: {neither} are neither a sample nor "
                f"rejected, {both} are both, {twice} are there twice; run python -m jobs verify"
            )


class Rows:
    """Writes a Parquet file that appears whole: row groups of MIN_ROWS_PER_READ rows or more, each of one split."""

    def __init__(self, path: Path):
        self.path, self.attempt = path, files.temporary(path)
        self.writer: pq.ParquetWriter | None = None
        self.waiting: list[pa.Table] = []
        self.split = ""

    def add(self, table: pa.Table, split: str) -> None:
        if self.waiting and (split != self.split or sum(part.num_rows for part in self.waiting) >= MIN_ROWS_PER_READ):
            self.flush()
        self.split = split
        self.waiting.append(table)

    def flush(self) -> None:
        with files.named(self.path):
            self.write()

    def write(self) -> None:
        table = pa.concat_tables(self.waiting).combine_chunks()
        self.waiting = []
        if self.writer is None:
            some = [name for name in ("split", "level") if name in table.column_names]
            self.writer = pq.ParquetWriter(self.attempt, table.schema, compression="zstd", write_statistics=some)
        if table.num_rows:
            self.writer.write_table(table, row_group_size=table.num_rows)

    def commit(self) -> None:
        self.flush()
        with files.named(self.path):
            self.writer.close()
        files.sync(self.attempt)
        self.attempt.replace(self.path)


def merge(plan: Plan) -> Index:
    """Write index.parquet and rejects.parquet, then index.json. Any number of workers may: they write the same.

    Raises FileNotFoundError when a shard is missing, ValueError when the account of the plan's rows does not close.
    """
    folder = plan.folder
    retries = finished_retries(folder)
    names = [(0, name) for name in names_of(plan)]
    names += [(number, name) for number, retry in enumerate(retries, 1) for name in names_of(retry)]
    notes = [files.read_json(folder / f"{name}.json", AGAIN) for _, name in names]
    samples, rejects = Rows(folder / "index.parquet"), Rows(folder / "rejects.parquet")
    try:
        levels, reasons = merge_rows(plan, names, notes, samples, rejects)
        content = files.to_json(describe(plan, retries, notes, levels, reasons))
        try:
            samples.commit()
            rejects.commit()
            # now, so that a folder with index.json holds nothing of attempts that were killed
            sweep(folder, {"plan", "index", "rejects", *(name for _, name in names)})
            files.replace(folder / "index.json", content)
        except FileNotFoundError:  # another merge was done first, and swept this one's
            if not appears(folder / "index.json", content):
                return merge(plan)
    finally:
        samples.attempt.unlink(missing_ok=True)
        rejects.attempt.unlink(missing_ok=True)
    return read_index(folder)


def merge_rows(
    plan: Plan, names: list[tuple[int, str]], notes: list[dict], samples: Rows, rejects: Rows
) -> tuple[collections.Counter, collections.Counter]:
    """Copy the shards' tables into those of the data set. -> samples by level, rejected rows by reason.

    `names`: of the shards, each with the number of its retry (0: the plan's own).
    """
    folder = plan.folder
    account = Account(sum(shard["rows"] for shard in plan.shards))
    for retry, name in names[len(plan.shards) :]:
        account.retried(rows_of(pq.read_table(folder / f"{name}.parquet", columns=["row"]), account, folder), retry)
    levels, reasons = collections.Counter(), collections.Counter()
    for number, ((retry, name), note) in enumerate(zip(names, notes, strict=True)):
        table = pq.read_table(folder / f"{name}.parquet")
        table = table.append_column("shard", pa.repeat(name, table.num_rows))
        is_sample = pc.equal(table["outcome"], "sample")
        kept, lost = table.filter(is_sample), table.filter(pc.invert(is_sample))
        final = account.add(number, retry, rows_of(kept, account, folder), rows_of(lost, account, folder))
        lost = lost.filter(pa.array(final))
        samples.add(kept.drop_columns(["outcome", "reason"]), note["split"])
        rejects.add(lost.select(OF_REJECTS), "")
        levels.update(counts(kept["level"]))
        reasons.update(counts(lost["reason"]))
    account.close(folder)
    return levels, reasons


def rows_of(table: pa.Table, account: Account, folder: Path) -> np.ndarray:
    """The numbers of the source's rows in this table. Blank fields that no row asked for have none, and are left
    out."""
    rows = table["row"].drop_null().to_numpy()
    if len(rows) and (rows.min() < 0 or rows.max() >= len(account.last)):
        raise ValueError(f"{folder}: shards with rows beyond the plan's {len(account.last)}: they are of another plan")
    return rows


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(column).to_pylist()}


def sweep(folder: Path, names: set[str]) -> None:
    """Remove temporary files that killed attempts at these names left, and the claim on a plan that is made."""
    for name in os.listdir(folder):
        of_one = name.startswith(".") and name[1:].split(".")[0] in names
        if of_one and (name.endswith(".tmp") or name.startswith(".plan.claim")):
            (folder / name).unlink(missing_ok=True)


def appears(path: Path, content: str, seconds: float = 5.0) -> bool:
    """Whether the file has this content, now or within `seconds`: another node's file may be seen late."""
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text(encoding="utf-8") == content):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def read_index(folder: Path) -> Index:
    """Read the data set in this folder. Raises ValueError: no data set, one that is not complete or is damaged, or one
    without a sample."""
    try:
        note, digest = read_totals(folder)
    except FileNotFoundError:
        plan = read_plan(folder)
        left = len(missing_shards(plan))
        raise ValueError(
            f"{folder}: the data set is not whole, {left} of {len(plan.shards)} shards are missing: run the same "
            f"python -m jobs preprocess again, it does only what is missing"
        ) from None
    if not sum(note["totals"].values()):
        reasons = ", ".join(f"{count} x {reason}" for reason, count in note["rejects"].items())
        raise ValueError(f"{folder}: an empty data set, all {note['rows']} rows were rejected ({reasons})")
    return Index(
        folder=folder,
        fingerprint=note["fingerprint"],
        characters=note["alphabet"],
        shards=note["shards"],
        totals=note["totals"],
        lines=note["lines"],
        encoding=note["encoding"],
        digest=digest,
    )
