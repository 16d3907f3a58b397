"""A finished evaluation, read again: its lines with their signals, and which evaluations may be combined."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from htr.certificate import person_key
from htr.metrics.intervals import cluster_ids
from htr.reliability.conditions import conditions_in
from shards import files

DISJOINT_COLUMNS = ("certificate", "writer")  # what two parts must not have in common
OWN_COLUMN = ("dataset", "index", "split", "where")  # what two evaluations of one reader may differ in


@dataclass(frozen=True)
class Evaluation:
    """A folder RUN/evaluation/NAME that is whole. Its table has a row a line, in the order of shards and keys."""

    folder: Path
    asked: dict  # evaluation.json
    table: pa.Table

    @classmethod
    def read(cls, folder: Path) -> "Evaluation":
        """Raises ValueError where it is not whole, or older than the signals that are needed."""
        if not (folder / "metrics.json").exists():
            raise ValueError(f"{folder}: no evaluation that is whole (no metrics.json): run python -m jobs evaluate")
        parts = [pq.read_table(path) for path in sorted((folder / "parts").glob("*.parquet"))]
        table = pa.concat_tables(parts, promote_options="default")
        missing = {"certificate", "writer", "exact", "edits", "characters", "signal_frames"} - set(table.column_names)
        if missing:
            listed = ", ".join(sorted(missing))
            raise ValueError(f"{folder}: its parts lack {listed}: remove the folder and evaluate again")
        asked = files.read_json(folder / "evaluation.json", f"remove {folder} and evaluate again")
        return cls(folder, asked, table)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def conditions(self) -> dict:
        """How its readings were made: htr/reliability/conditions.py."""
        return conditions_in(self.asked)

    def numbers(self, name: str) -> np.ndarray:
        """(N,) float64."""
        return self.table[name].to_numpy().astype(np.float64)

    def groups(self, by: str) -> np.ndarray:
        """(N,) "writer": of each line the writer or, where none is known, the certificate; or "certificate"."""
        writers, certificates = (self.table[name].to_pylist() for name in ("writer", "certificate"))
        keys = {name: person_key(name) if by == "writer" else "" for name in set(writers)}
        return np.array(cluster_ids([keys[name] for name in writers], certificates))

    def names(self, column: str) -> set[str]:
        """Of certificates or writers, those that are known; a writer under however many spellings is one."""
        found = set(self.table[column].to_pylist()) - {None}
        return {person_key(name) if column == "writer" else name for name in found} - {""}

    @property
    def has_writers(self) -> bool:
        return bool(self.names("writer"))


def find(run: Path | None, name: str) -> Path:
    """An evaluation's name in the run, or its folder."""
    for folder in (run / "evaluation" / name,) if run else ():
        if folder.is_dir():
            return folder
    if Path(name).is_dir():
        return Path(name)
    there = sorted(path.name for path in (run / "evaluation").glob("*")) if run else []
    raise ValueError(f"no evaluation {name}" + (f" in {run}: there are {', '.join(there) or 'none'}" if run else ""))


def check_apart(parts: Sequence[Evaluation], may_share: Sequence[str] = ()) -> None:
    """Raises ValueError where two have a certificate or writer in common: one would judge what the other knew."""
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            for name in DISJOINT_COLUMNS:
                if name in may_share:
                    continue
                both = one.names(name) & other.names(name)
                if both:
                    raise ValueError(
                        f"{one.name} and {other.name} have {len(both)} {name}{'s' if len(both) > 1 else ''} in common: "
                        f"take evaluations of splits that are apart"
                        + (f", or allow it with --may-share {name}" if name == "writer" else "")
                    )


def check_same_reader(parts: Sequence[Evaluation]) -> None:
    """Raises ValueError where they were read, or judged, in different ways."""
    for other in parts[1:]:
        names = (parts[0].asked.keys() | other.asked.keys()) - set(OWN_COLUMN)
        differ = sorted(name for name in names if parts[0].asked.get(name) != other.asked.get(name))
        if differ:
            raise ValueError(f"{parts[0].name} and {other.name} differ in {', '.join(differ)}: evaluate them alike")


def check_right_and_wrong(evaluation, unit: str) -> None:
    """Raises ValueError for a part that no score can be fitted on, with what it has and lacks."""
    from htr.reliability.units import all_right, groups_of_unit

    right = evaluation.numbers("exact")
    if unit != "line":
        right = all_right(right, groups_of_unit(evaluation.table, unit))
    good, bad = int(right.sum()), int(len(right) - right.sum())
    if good and bad:
        return
    raise ValueError(
        f"{evaluation.name} has {good} right and {bad} wrong {unit}s: --fit needs at least one "
        f"{'wrong' if good else 'right'} one too, and some tens of each to be of use: evaluate more texts (another "
        f"split, or a larger share in preprocess --shares), or give another --unit"
    )


def check_conditions(evaluation) -> None:
    """Raises ValueError for an evaluation of an older version, which did not note how it was read."""
    missing = [name for name, value in evaluation.conditions.items() if value is None and name != "decoding"]
    if missing:
        raise ValueError(
            f"{evaluation.name} does not say under what {', '.join(missing)} it was read: evaluate again, under "
            f"another --name, since a promise holds for readings made in the same way alone"
        )
