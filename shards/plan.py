"""The plan: which row of the source becomes a sample of which shard. Decided once, before any image is read.

plan.parquet holds the rows in the source's order within a split, a row group a shard; plan.json, written last, the
settings and the fingerprint. Both are a pure function of the source's content and the settings.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS, sample_key, split_of
from shards import files

DOUBLE = "certificate, field and line were there before"
SHARES = {"train": 0.9, "dev": 0.02, "val": 0.04, "calibration": 0.02, "test": 0.02}


@dataclass(frozen=True)
class Settings:
    rows: int = 1000  # of a shard
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))
    salt: str = "1"  # another one gives another random split
    encoding: str = "jpg"  # or png
    quality: int = 95  # of JPEG

    def __post_init__(self):
        wrong = [name for name in self.shares if name not in SPLITS]
        if wrong or not self.shares or abs(sum(self.shares.values()) - 1) > 1e-6 or min(self.shares.values()) < 0:
            raise ValueError(f"the shares of {', '.join(SPLITS)} must sum to 1, not {self.shares}")
        if self.rows < 1:
            raise ValueError(f"a shard needs at least one row, not {self.rows}")
        if self.encoding not in ("jpg", "png"):
            raise ValueError(f"images are stored as jpg or png, not {self.encoding}")


@dataclass(frozen=True)
class Plan:
    folder: Path
    settings: Settings
    fingerprint: str
    shards: list[dict]  # name, split, rows; the i-th one is the i-th row group of plan.parquet

    def rows(self, shard: int) -> list[dict]:
        return pq.ParquetFile(self.folder / "plan.parquet").read_row_group(shard).to_pylist()


def make_plan(folder: Path, source: pa.Table, settings: Settings) -> Plan:
    """Plan the source into the folder, or take the plan that is there if it is the same.

    Raises ValueError when the folder was planned from another source or with other settings, or a split is unknown.
    """
    table = arrange(source, settings)
    shards, groups = [], []
    for split in SPLITS:
        rows = table.filter(pc.equal(table["split"], split))
        for number, start in enumerate(range(0, rows.num_rows, settings.rows)):
            groups.append(rows.slice(start, settings.rows))
            shards.append({"name": f"{split}-{number:05d}", "split": split, "rows": groups[-1].num_rows})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group, row_group_size=group.num_rows)
    content = buffer.getvalue()
    described = {"settings": asdict(settings), "shards": shards, "columns": table.column_names}
    # of the rows themselves: another version of Parquet's writer must not look like another source
    digest = hashlib.sha256(files.to_json(described).encode())
    for batch in table.to_batches(max_chunksize=100_000):
        for column in batch.columns:
            digest.update("\x1f".join(column.to_pylist()).encode())
    fingerprint = digest.hexdigest()[:16]

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "plan.json").exists():
        # every worker that finds no plan makes it, the same one: waiting for each other would take as long
        attempt, note = files.temporary(folder / "plan.parquet"), files.temporary(folder / "plan.json")
        try:
            files.write_synced(attempt, content)
            attempt.replace(folder / "plan.parquet")
            files.write_synced(
                note,
                files.to_json({"format": 1, "fingerprint": fingerprint, "sha256": digest_of(content), **described}),
            )
            files.commit(note, folder / "plan.json")
        finally:
            attempt.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
    plan = read_plan(folder)
    if plan.fingerprint != fingerprint:
        raise ValueError(
            f"{folder} was planned from another source or with other settings (plan {plan.fingerprint}, now "
            f"{fingerprint}): give another --out, or remove the folder to begin again"
        )
    if digest_of((folder / "plan.parquet").read_bytes()) != json.loads((folder / "plan.json").read_text())["sha256"]:
        raise ValueError(f"{folder}: plan.parquet is not what plan.json was made for: remove both, preprocess again")
    return plan


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_plan(folder: Path) -> Plan:
    """Raises ValueError when the folder holds no plan."""
    try:
        note = json.loads((folder / "plan.json").read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: no data set here (no plan.json); make one with: python -m jobs preprocess"
        ) from None
    return Plan(folder, Settings(**note["settings"]), note["fingerprint"], note["shards"])


def arrange(source: pa.Table, settings: Settings) -> pa.Table:
    """The source with the columns `key`, `split`, and `fault` (what rejects a row before it is read) for every row."""
    names = zip(*(source[name].to_pylist() for name in ("certificate", "field", "line")), strict=True)
    keys = [sample_key(*parts) for parts in names]
    # a writer's lines stay together where the writer is known: a reader is judged on hands that it has not seen
    groups = pc.if_else(pc.equal(source["writer"], ""), source["certificate"], source["writer"]).to_pylist()
    known = {group: split_of(group, settings.shares, settings.salt) for group in set(groups)}
    given = source["split"].to_pylist()
    unknown = sorted(set(given) - {"", *SPLITS})
    if unknown:
        raise ValueError(f"the source's column split holds {unknown[:3]}; known are {', '.join(SPLITS)}")
    splits = [split or known[group] for split, group in zip(given, groups, strict=True)]
    table = source.set_column(source.column_names.index("split"), "split", pa.array(splits, pa.string()))
    table = table.add_column(0, "key", pa.array(keys, pa.string()))
    # here, where all rows are seen: the same name twice may fall into two shards
    seen: set[str] = set()
    faults = [DOUBLE if key in seen or seen.add(key) else "" for key in keys]
    return table.append_column("fault", pa.array(faults, pa.string())).combine_chunks()
