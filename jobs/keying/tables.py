"""Tables to key, as transcribe or audit wrote them, and the keyed table that is made of them.

    review   `transcribe --review`         keyed: what is still to do              shown: reading, alternatives
    sample   `transcribe --sample`         keyed: what is still to do              nothing: it is blind
    texts    `transcribe --out`            keyed: what is to review, a sample      shown: reading; of the sample nothing
    audit    `audit`                       keyed: all without a `reject`           shown: transcription and reading

What comes out has the columns of `transcribe --review`, or those of the table itself: `preprocess`, `monitor` and
`audit --apply` take it as it is. The table that came in is never changed.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.io import sources
from jobs.keying.answers import ILLEGIBLE, Answer
from jobs.transcription.results import ACCEPT, REVIEW, NotChanged, keyed_schema, prefix_of, to_key
from jobs.transcription.sample import Sample
from jobs.transcription.table_writer import Table
from shards import files
from shards.sample import NOT_YET, given_reason

REVIEWED, SAMPLE, TEXTS, AUDIT = "review", "sample", "texts", "audit"
NUMBERS = ("confidence", "probability")
CELLS = ("image", "page", "certificate", "form", "field", "line", "box", "polygon", "baseline", "place", "reject")
CELLS += ("page_size", "turn")


@dataclass
class KeyTable:
    """A table to be keyed. `todo`: the numbers of its rows to key, in its order; `blind`: for which of them the reading
    is not shown."""

    path: Path
    kind: str
    table: pa.Table
    images: Path  # the folder that its images' names are relative to
    digest: str
    out: Path
    todo: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    blind: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    double: frozenset[int] = frozenset()
    sampled: int = 0  # rows of `todo` that were drawn from what was accepted
    sampled_units: int = 0
    accepted_units: int = 0

    @property
    def folder(self) -> Path:
        """The folder of its journal."""
        return self.path.with_name(f"{self.path.name}.keying")

    @property
    def sample_out(self) -> Path:
        return self.out.with_stem(f"{self.out.stem}-sample")

    @cached_property
    def of_fields(self) -> bool:
        """Whether rows are fields that are found on their form, rather than lines with a box."""
        names = self.table.column_names
        return "place" in names or (self.kind == TEXTS and "form" in names)

    def cell(self, row: int, name: str) -> str:
        if name not in self.table.column_names:
            return ""
        value = self.table[name][row].as_py()
        return "" if value is None else str(value)

    def row(self, row: int) -> dict[str, str]:
        """The row's image, page and region, and the reason why it could not be read, if it could not."""
        found = {name: self.cell(row, name) for name in CELLS}
        if self.kind == TEXTS:
            found["reject"] = self.cell(row, "reason")
            if self.of_fields:  # the box of a field is where it was found on its scan
                found |= {"place": found["box"], "box": ""}
        elif found["reject"] == NOT_YET:
            found["reject"] = ""
        return found

    def reading(self, row: int) -> str:
        return self.cell(row, {TEXTS: "text", AUDIT: "audit_reading"}.get(self.kind, "reading"))

    def alternatives(self, row: int) -> list[str]:
        cell = self.cell(row, "alternatives")
        if self.kind == TEXTS:
            return [text for text, _ in json.loads(cell or "[]")]
        return [text for text in cell.split(" | ") if text]

    def words(self, row: int) -> list[float]:
        """The calibrated probability of each word of the reading; empty where it is not known."""
        found = json.loads(self.cell(row, "words") or "[]")
        return found if len(found) == len(self.reading(row).split()) else []

    def shown(self, row: int) -> dict:
        """What an operator sees of a row that is not blind. `start`: the text that the page begins with."""
        reading = self.reading(row)
        if self.kind == AUDIT:
            return {"start": self.cell(row, "text"), "reading": reading, "words": [], "alternatives": [reading]}
        return {"start": reading, "words": self.words(row), "alternatives": self.alternatives(row)}

    def numbers(self, name: str) -> np.ndarray:
        """(len(todo),) of a column of numbers, NaN where there is none."""
        if name not in self.table.column_names:
            return np.full(len(self.todo), np.nan)
        return pc.fill_null(as_numbers(self.table, name).take(pa.array(self.todo)), np.nan).to_numpy()

    # ------------------------------------------------------------------------------------------ what comes out

    def write(self, final: Callable[[int], Answer | None]) -> list[Path]:
        """Write the keyed table and, for texts, the sample beside it. `final`: gives the answer that counts. Raises
        ValueError where a person has changed what was written before."""
        given = {int(row): answer for row in self.todo if (answer := final(int(row))) is not None}
        if self.kind != TEXTS:
            return [self._write(self.out, self._mended(given))]
        written, kind = [], "fields" if self.of_fields else "lines"
        sampled = np.zeros(len(self.table), bool)
        sampled[self.todo[self.blind_sample]] = True
        review = pc.equal(self.table["decision"], REVIEW).to_numpy(zero_copy_only=False)
        for out, chosen, shown in ((self.out, review, True), (self.sample_out, sampled, False)):
            if shown or self.sampled:
                rows = np.flatnonzero(chosen)
                keyed = to_key(plain_text(self.table.take(pa.array(rows))), kind, prefix_of(self.images, out))
                keyed = keyed.select([name for name in keyed_schema(kind, shown).names if name in keyed.column_names])
                written.append(self._write(out, filled(keyed, rows, given)))
        return written

    @property
    def blind_sample(self) -> np.ndarray:
        """(len(todo),) bool: which rows were drawn from the accepted ones."""
        found = np.zeros(len(self.todo), bool)
        found[: self.sampled] = True
        return found

    def _mended(self, given: dict[int, Answer]) -> pa.Table:
        table, prefix = self.table, prefix_of(self.images, self.out)
        if prefix:
            names = pc.binary_join_element_wise(pa.scalar(prefix), pc.cast(table["image"], pa.string()), "")
            table = table.set_column(table.column_names.index("image"), "image", names)
        return filled(table, np.arange(len(table)), given)

    def _write(self, out: Path, table: pa.Table) -> Path:
        note = self.folder / "written.json"
        before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {"sha256": {}}
        kinds = {name: pa.float64() if pa.types.is_floating(table[name].type) else pa.string()
                 for name in table.column_names}  # fmt: skip
        with Table(out, pa.schema(list(kinds.items())), NotChanged(out, before, "--out")) as file:
            file.write(table)
        before["sha256"][str(out.absolute())] = files.sha256(out)
        files.replace(note, files.to_json(before))
        return out


def filled(table: pa.Table, rows: np.ndarray, given: dict[int, Answer]) -> pa.Table:
    """These rows of the table, with the columns `text` and `reject` as they were answered.

    A row that could not be read, and that nobody could key either, keeps its reason.
    """
    columns = {name: pc.fill_null(pc.cast(table[name], pa.string()), "").to_pylist()
               if name in table.column_names else [""] * len(table) for name in ("text", "reject")}  # fmt: skip
    texts, rejects = columns["text"], columns["reject"]
    for place, row in enumerate(rows.tolist()):
        answer = given.get(row)
        if answer is None or (answer.kind == ILLEGIBLE and rejects[place] not in ("", NOT_YET)):
            continue
        texts[place], rejects[place] = answer.written, ""
    for name, values in columns.items():
        column = pa.array(values, pa.string())
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
    return table


def plain_text(table: pa.Table) -> pa.Table:
    """All columns but numbers as strings without null, as jobs.transcription.results.to_key needs them."""
    texts = {name: table[name] for name in table.column_names if name not in NUMBERS}
    texts = {name: pc.fill_null(pc.cast(column, pa.string()), "") for name, column in texts.items()}
    return pa.table({name: texts[name] if name in texts else as_numbers(table, name) for name in table.column_names})


def as_numbers(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column as numbers, null where a cell is empty. Raises ValueError for other texts, and quotes none."""
    if pa.types.is_floating(table[name].type):
        return table[name]
    text = pc.cast(table[name], pa.string())
    try:
        return pc.cast(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), pa.float64())
    except pa.ArrowInvalid:  # its message quotes a cell
        raise ValueError(f"column {name} has cells that are no numbers: were columns shifted?") from None


# ---------------------------------------------------------------------------------------------------- opening


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
                     f"(it has the columns {', '.join(table.column_names)})")  # fmt: skip


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
