"""A table that people key, opened: what kind it is, and which of its rows are keyed, which blind and which twice."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.io import sources
from jobs.keying.tables import AUDIT, REVIEWED, SAMPLE, TEXTS, KeyTable, plain_text
from jobs.transcription.results import ACCEPT, REVIEW, prefix_of
from jobs.transcription.sample import Sample
from shards.sample import NOT_YET, given_reason


@dataclass(frozen=True)
class Asked:
    """What is to be keyed, and how often. It must be the same at every start, since it decides which rows are blind."""

    sample: int = 0  # of what was accepted, drawn from a table of texts
    double: float = 0.0  # the share of rows that two people key
    seed: int = 0
    unit: str = "line"  # of the sample: line, field or certificate


def open_table(path: Path, asked: Asked, images: Path | None = None, out: Path | None = None) -> KeyTable:
    """Raises ValueError: no such table, none that people key, or no place for the keyed table."""
    if not path.is_file():
        raise ValueError(f"{path}: no such table")
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".pq"):
        raise ValueError(f"{path}: give a .csv or .parquet (transcribe writes either)")
    table = sources.read_any(path, quotes="csv")
    kind = kind_of(path, table)
    needed = ("reason", "alternatives", "box") if kind == TEXTS else ()  # what to_key takes
    if missing := [name for name in needed if name not in table.column_names]:
        raise ValueError(f"{path}: {sources.no_column(missing, table.column_names)}, as transcribe wrote them")
    folder = images or path.parent
    made = KeyTable(path, kind, table, folder, sources.digest(path), out or default_out(path, folder))
    prefix_of(folder, made.out)
    if made.out.resolve() == path.resolve():
        raise ValueError(f"{path}: the table that comes out is another file: give another --out")
    if asked.sample and kind != TEXTS:
        raise ValueError(f"{path}: --sample draws from what was accepted: name the table that transcribe --out wrote, "
                         "or name the sample that transcribe drew and leave --sample out")  # fmt: skip
    choose(made, asked)
    if kind == TEXTS and images is None and len(made.todo):
        name = made.cell(int(made.todo[0]), "image")
        if not (folder / name).exists() and not (folder / name).parent.suffix == ".tar":
            raise ValueError(f"{path}: its images are not beside it: say with --images what folder was transcribed")
    return made


def kind_of(path: Path, table: pa.Table) -> str:
    names = set(table.column_names)
    if {"audit_text", "audit_reading", "text", "reject", "image"} <= names:
        return AUDIT
    if {"decision", "text", "image"} <= names:
        return TEXTS
    if {"image", "text", "reject"} <= names:
        return REVIEWED if "reading" in names else SAMPLE
    raise ValueError(f"{path}: not a table that people key: one that transcribe wrote (--out, --review) or audit "
                     f"({sources.columns_shown(table.column_names)})")  # fmt: skip


def default_out(path: Path, images: Path) -> Path:
    ending = ".parquet" if sources.is_parquet(path) else ".csv"
    folder = path.parent if images.resolve().is_relative_to(path.parent.resolve()) else images
    return folder / f"{path.stem}-keyed{ending}"


def choose(made: KeyTable, asked: Asked) -> None:
    """Decide which rows are keyed, which of them blind and which twice. The sample comes first."""
    table = made.table
    if made.kind == TEXTS:
        decision = pc.cast(table["decision"], pa.string())
        todo = np.flatnonzero(pc.equal(decision, REVIEW).to_numpy(zero_copy_only=False))
        drawn = np.empty(0, np.int64)
        if asked.sample:
            accepted = np.flatnonzero(pc.equal(decision, ACCEPT).to_numpy(zero_copy_only=False))
            drawn, made.accepted_units, made.sampled_units = draw(table, accepted, asked)
        made.todo, made.sampled = np.concatenate([drawn, todo]), len(drawn)
    elif made.kind == AUDIT:
        made.todo = np.flatnonzero(~has_reason(table["reject"], NOT_YET))
    else:
        reject = table["reject"]
        typed = pc.not_equal(pc.utf8_trim_whitespace(pc.cast(table["text"], pa.string())), "")
        done = typed.to_numpy(zero_copy_only=False) & ~has_reason(reject, NOT_YET)
        made.todo = np.flatnonzero(has_reason(reject) & ~done)
        made.sampled = len(made.todo) if made.kind == SAMPLE else 0
    twice = chosen_by_hash(made.digest, made.todo, asked.double, asked.seed)
    made.double = frozenset(made.todo[twice].tolist())
    made.blind = twice | made.blind_sample


def has_reason(column: pa.ChunkedArray, but: str = "") -> np.ndarray:
    """(N,) bool: whether the cell of `reject` gives a reason other than `but`."""
    coded = sources.encode(column)
    values = [value or "" for value in coded.dictionary.to_pylist()]
    said = [given_reason({"reject": value, "text": ""}) for value in values]
    return np.array([bool(reason) and reason != but for reason in said] or [False])[coded.indices.to_numpy()]


def draw(table: pa.Table, accepted: np.ndarray, asked: Asked) -> tuple[np.ndarray, int, int]:
    """-> the rows of units drawn from the accepted ones; how many units are accepted, and how many were drawn."""
    names = [name for name in ("certificate", "field") if name in table.column_names]
    rows = plain_text(table.select(names).take(pa.array(accepted))).append_column("item", pa.array(accepted))
    drawing = Sample(asked.sample, asked.seed)
    drawing.take(rows, asked.unit)
    found = [row for part in drawing.chosen() for row in part["item"].to_pylist()]
    return np.array(found, np.int64), drawing.seen, drawing.drawn


def chosen_by_hash(digest: str, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(N,) bool: a random share of the rows, the same at every start."""
    if not share:
        return np.zeros(len(rows), bool)
    key = int.from_bytes(hashlib.sha256(f"{seed}/{digest}".encode()).digest()[:8], "big")
    return np.random.default_rng(key).random(len(rows)) < share
