"""Tables to key, as transcribe or audit wrote them, and the keyed table that is made of them.

    review   `transcribe --review`         keyed: what is still to do              shown: reading, alternatives
    sample   `transcribe --sample`         keyed: what is still to do              nothing: it is blind
    texts    `transcribe --out`            keyed: what is to review, a sample      shown: reading; of the sample nothing
    audit    `audit`                       keyed: all without a `reject`           shown: transcription and reading

What comes out has the columns of `transcribe --review`, or those of the table itself: `preprocess`, `monitor` and
`audit --apply` take it as it is. The table that came in is never changed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.keying.answers import ILLEGIBLE, Answer
from jobs.transcription.results import REVIEW, NotChanged, keyed_schema, prefix_of, to_key
from jobs.transcription.table_writer import Table
from shards import files
from shards.sample import NOT_YET

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
