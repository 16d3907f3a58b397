"""The plan: which row of the source becomes a sample of which shard. Decided once, before any image is read.

plan.parquet holds the rows, a row group a shard; plan.json, written last, the settings, the source's digest and the
fingerprint. Both are a pure function of the source's content and the settings. Within a split rows keep the source's
order, but those of one image, and of one page of it, come together, at the place of the first, and in one shard.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS
from htr.charset import CROSSED_MARKS, ILLEGIBLE_MARKS
from htr.code_digest import cutting_code
from htr.io import sources
from htr.io.account import Account
from htr.io.tables import QUOTES
from shards import files
from shards.arrange import cut, lay_out, number_lines
from shards.claim import STALE_AFTER_S, take_turns
from shards.splits import SHARED, parse_years

PLAN = "plan"  # the name of its files; what was rejected may get plans of its own later, see shards.retry
SHARES = {"train": 0.9, "dev": 0.02, "val": 0.04, "calibration": 0.02, "test": 0.02}


@dataclass(frozen=True)
class Settings:
    rows: int = 1000  # of a shard
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))
    salt: str = "1"  # another one gives another random split
    encoding: str = "jpg"  # or png
    quality: int = 95  # of JPEG
    unit: str = "line"  # what a row of the source is: a line or a field of a certificate
    forms: str = ""  # digest of the templates that scans are registered on
    rulings: str = "keep"  # or remove, from the stored image
    stray: str = "reject"  # what may be writing on a field without text; or blank, where a source never leaves one out
    pages: bool = False  # whether a certificate's whole page is stored too
    years: str = ""  # a rule for the splits in place of the shares: train=-2018,dev=2019,test=2020-
    crossed: tuple[str, ...] = CROSSED_MARKS  # what the source writes for crossed-out pieces, and for illegible ones
    illegible: tuple[str, ...] = ILLEGIBLE_MARKS
    quotes: str = "auto"  # of a CSV: csv, none (they are text) or auto, see htr.io.tables
    share: tuple[str, ...] = ()  # of certificate, image, writer: what two splits may have in common

    def __post_init__(self):
        # one way to write what is the same, and what comes back from JSON
        for name in ("share", "crossed", "illegible"):
            object.__setattr__(self, name, tuple(sorted({*getattr(self, name)})))
        object.__setattr__(self, "shares", {name: float(share) for name, share in self.shares.items()})
        wrong = [name for name in self.shares if name not in SPLITS]
        if wrong or not self.shares or abs(sum(self.shares.values()) - 1) > 1e-6 or min(self.shares.values()) < 0:
            raise ValueError(f"the shares of {', '.join(SPLITS)} must sum to 1, not {self.shares}")
        if self.rows < 1:
            raise ValueError(f"a shard needs at least one row, not {self.rows}")
        if self.encoding not in ("jpg", "png"):
            raise ValueError(f"images are stored as jpg or png, not {self.encoding}")
        if self.unit not in ("line", "field"):
            raise ValueError(f"a row of the source is a line or a field, not {self.unit}")
        if self.rulings not in ("keep", "remove"):
            raise ValueError(f"rulings: choose keep or remove, not {self.rulings}")
        if self.stray not in ("reject", "blank"):
            raise ValueError(f"stray: choose reject or blank, not {self.stray}")
        if not all(mark.strip("* ") for mark in (*self.crossed, *self.illegible)):
            raise ValueError("a mark of crossed-out or illegible text must hold more than *")
        if not {*self.share} <= {*SHARED}:
            raise ValueError(f"splits may share {', '.join(SHARED)}, not {', '.join({*self.share} - {*SHARED})}")
        if self.quotes not in QUOTES:
            raise ValueError(f"quotes {self.quotes}: choose one of {', '.join(QUOTES)}")
        if self.years:
            parse_years(self.years)


@dataclass(frozen=True)
class Plan:
    folder: Path
    settings: Settings
    fingerprint: str
    shards: list[dict]  # name, split, rows; the i-th one is the i-th row group of NAME.parquet
    name: str = PLAN

    def rows(self, shard: int) -> list[dict]:
        """The rows of the shard of this number, each a dictionary: `row` (its number in the source, from 0), the
        source's columns, and `fault` (why it is rejected before an image is opened, or "")."""
        path = self.folder / f"{self.name}.parquet"
        known = path.stat()
        footer = footer_of(path, known.st_ino, known.st_mtime_ns)
        with pq.ParquetFile(path, metadata=footer) as file:
            return file.read_row_group(shard).to_pylist()

    def rows_with(self, column: str, values: pa.Array, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows whose `column` has one of these values, one table a shard that has any; the plan as a whole is never
        in memory.

        `columns`: which to read, that one among them (default: all).
        """
        with pq.ParquetFile(self.folder / f"{self.name}.parquet") as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns)
                rows = rows.filter(pc.is_in(rows[column], values))
                if rows.num_rows:
                    yield rows


@lru_cache(1)
def footer_of(path: Path, *_) -> pq.FileMetaData:
    """The description of a plan's row groups, read once by a process that writes many shards."""
    return pq.read_metadata(path)


def open_plan(folder: Path, source: Path, settings: Settings, stale: float = STALE_AFTER_S) -> tuple[Plan, Path]:
    """The plan of a source, made if the folder has none. -> the plan, and the folder that its images are relative to.

    Any number of tasks may call it at once: one makes the plan and the others wait (see shards.claim, also for
    `stale`). If there is a plan, the source's rows are not read. Raises ValueError as read_source and make_plan do.
    """
    images, digest = sources.images_of(source), sources.digest(source)

    def make() -> None:
        account = Account()
        table, _ = sources.read_source(source, settings.quotes, account)
        make_plan(folder, table, settings, digest, account)

    folder.mkdir(parents=True, exist_ok=True)
    take_turns(folder / ".plan.claim", (folder / "plan.json").exists, make, stale)
    plan, note = read_plan(folder), read_note(folder)
    if not note["source"]:  # made of a table in memory: the rows themselves must tell
        make()
    elif note["source"] != digest or plan.settings != settings:
        raise another(plan, settings, "another source" if note["source"] != digest else "")
    else:
        check_rows(plan)
    return plan, images


def make_plan(
    folder: Path, source: pa.Table, settings: Settings, digest: str = "", account: Account | None = None
) -> Plan:
    """Plan a table (see read_source) into the folder, or take the plan that is there if it is the same.

    `digest`: of the source, if it is a file; `account`: of what was in it, kept with the plan. Raises ValueError when
    the folder was planned from another source or with other settings, when a split is unknown, and when something would
    be in two splits.
    """
    table, order, shards = lay_out(number_lines(source, settings.unit, account), settings)
    folder.mkdir(parents=True, exist_ok=True)
    attempt, note = files.temporary(folder / "plan.parquet"), files.temporary(folder / "plan.json")
    try:
        described = {"settings": asdict(settings), "shards": shards, "columns": ["row", *table.column_names]}
        schema = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in table.column_names)])
        # of the rows themselves: another version of Parquet's writer must not look like another source
        total = hashlib.sha256(files.to_json(described).encode())
        with files.named(folder / "plan.parquet"), open(attempt, "wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer:
                for group in cut(table, order, shards):
                    add_content(total, group)
                    writer.write_table(group)
            file.flush()
            os.fsync(file.fileno())
        fingerprint = total.hexdigest()[:16]
        if not (folder / "plan.json").exists():
            # more than one may get here and write the same
            described |= {"format": 2, "fingerprint": fingerprint, "sha256": files.sha256(attempt), "source": digest}
            described |= {"account": account.as_dict()} if account else {}
            described |= {"cutting": cutting_code()} if settings.unit == "field" else {}
            attempt.replace(folder / "plan.parquet")
            with files.named(folder / "plan.json"):
                files.write_synced(note, files.to_json(described))
            files.commit(note, folder / "plan.json")
    finally:
        attempt.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    plan = read_plan(folder)
    if plan.fingerprint != fingerprint:
        raise another(plan, settings, f"plan {plan.fingerprint}, now {fingerprint}")
    check_rows(plan)
    return plan


def another(plan: Plan, settings: Settings, what: str) -> ValueError:
    """The error that says in what the folder's plan differs."""
    old, new = asdict(plan.settings), asdict(settings)
    differ = [f"{name} {old[name]}, now {new[name]}" for name in old if old[name] != new[name]]
    return ValueError(
        f"{plan.folder} was planned from another source or with other settings ({'; '.join(differ) or what}): give "
        f"another --out, or remove the folder to begin again"
    )


def add_content(total, group: pa.Table) -> None:
    """Add every cell's length and bytes to a hash, column by column, without a copy of them."""
    for column in group.columns:
        array = column.chunk(0)
        if array.type == pa.int64():
            total.update(array.to_numpy().astype("<i8", copy=False))
            continue
        _, offsets, content = array.buffers()
        bounds = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        total.update(np.diff(bounds).astype("<i4", copy=False))
        if bounds[-1] > bounds[0]:
            total.update(memoryview(content)[bounds[0] : bounds[-1]])


def read_plan(folder: Path, name: str = PLAN) -> Plan:
    """The folder's plan, or that of the retry of this name. Raises ValueError where there is none, or one of a newer
    version."""
    note = read_note(folder, name)
    try:
        settings = note["settings"] if name == PLAN else read_note(folder)["settings"]
        return Plan(folder, Settings(**settings), note["fingerprint"], note["shards"], name)
    except (TypeError, KeyError):
        raise ValueError(f"{folder / name}.json: not a plan that this version reads: update the program") from None


def read_note(folder: Path, name: str = PLAN) -> dict:
    """What NAME.json says: of a plan, or of a shard. Raises ValueError where there is none, or a damaged one."""
    try:
        return files.read_json(folder / f"{name}.json", "remove it, and the same preprocess, run again, makes it anew")
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: no data set here (no {name}.json); make one with: python -m jobs preprocess"
        ) from None


def check_rows(plan: Plan) -> None:
    """Raises ValueError where plan.parquet is not the one that plan.json was written for."""
    if files.sha256(plan.folder / "plan.parquet") != read_note(plan.folder)["sha256"]:
        raise ValueError(
            f"{plan.folder}: plan.parquet is not what plan.json was made for: remove both, preprocess again"
        )
