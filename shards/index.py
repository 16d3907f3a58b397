"""The index: what all shards hold, merged when the last one is committed. A folder without index.json is not whole."""

import collections
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.alphabet import Alphabet
from htr.certificate import SPLITS
from shards import files
from shards.plan import Plan, read_plan
from shards.write import is_committed


@dataclass(frozen=True)
class Index:
    folder: Path
    fingerprint: str
    alphabet: Alphabet
    shards: list[dict]
    totals: dict[str, int]
    encoding: str

    def samples(self, split: str, where: dict[str, list[str]] | None = None) -> pa.Table:
        """The samples of a split in the order of their shards, as index.parquet has them.

        `where` keeps the rows whose column has one of the values. Raises ValueError for an unknown column, or when
        nothing is left.
        """
        names = pq.read_schema(self.folder / "index.parquet").names
        wrong = [name for name in where or {} if name not in names]
        if wrong:
            raise ValueError(f"{self.folder}: no column {', '.join(wrong)}; there are {', '.join(names)}")
        table = pq.read_table(self.folder / "index.parquet", filters=pc.field("split") == split)
        for name, values in (where or {}).items():
            table = table.filter(pc.is_in(table[name], pa.array(values, pa.string())))
        if not table.num_rows:
            have = ", ".join(f"{name} {count}" for name, count in self.totals.items() if count) or "none at all"
            raise ValueError(
                f"{self.folder}: no sample in split '{split}'{f' where {where}' if where else ''} ({have})"
            )
        return table


def missing_shards(plan: Plan) -> list[str]:
    return [shard["name"] for shard in plan.shards if not is_committed(plan.folder, shard["name"])]


def merge(plan: Plan) -> Index:
    """Write index.parquet, then index.json. Any number of workers may do it at once: they write the same."""
    folder = plan.folder
    notes = [json.loads((folder / f"{shard['name']}.json").read_text()) for shard in plan.shards]
    attempt = files.temporary(folder / "index.parquet")
    try:
        writer = None
        for note in notes:
            table = pq.read_table(folder / f"{note['shard']}.parquet")
            table = table.filter(pc.equal(table["outcome"], "sample")).drop_columns(["outcome", "reason"])
            table = table.append_column("shard", pa.array([note["shard"]] * table.num_rows, pa.string()))
            writer = writer or pq.ParquetWriter(attempt, table.schema, compression="zstd")
            if table.num_rows:
                writer.write_table(table)
        writer.close()
        with open(attempt, "rb") as file:
            os.fsync(file.fileno())
        attempt.replace(folder / "index.parquet")
    finally:
        attempt.unlink(missing_ok=True)
    characters = {split: collections.Counter() for split in SPLITS}
    rejects, totals = collections.Counter(), collections.Counter()
    for note in notes:
        characters[note["split"]].update(note["characters"])
        rejects.update(note["rejects"])
        totals[note["split"]] += note["count"]
    index = {
        "format": 1,
        "fingerprint": plan.fingerprint,
        # what a model may write is what it was shown; a character that only a test line has counts as an error
        "alphabet": "".join(sorted(characters["train"] or sum(characters.values(), collections.Counter()))),
        "rows": sum(note["rows"] for note in notes),
        "totals": {split: totals[split] for split in SPLITS},
        "rejects": dict(rejects),
        "bytes": sum(note["bytes"] for note in notes),
        "encoding": plan.settings.encoding,
        "shards": [{key: note[key] for key in ("shard", "split", "count", "bytes", "sha256")} for note in notes],
    }
    files.replace(folder / "index.json", files.to_json(index))
    for split in SPLITS:  # what attempts at shards left that were killed
        for left in folder.glob(f".{split}-*.tmp"):
            left.unlink(missing_ok=True)
    return read_index(folder)


def read_index(folder: Path) -> Index:
    """Raises ValueError: no data set, one that is not whole yet, or one without a single sample."""
    try:
        note = json.loads((folder / "index.json").read_text())
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
        folder, note["fingerprint"], Alphabet(note["alphabet"]), note["shards"], note["totals"], note["encoding"]
    )
