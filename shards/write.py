"""One shard: a tar of samples and a table of what became of its rows. A pure function of the plan and the images.

Commit without a lock: every attempt writes under names of its own; the tar and the Parquet are linked to their final
names, the JSON last. A shard without its JSON does not exist. Attempts that meet have written the same bytes.
"""

import collections
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from htr.certificate import code_point, invisible, sample_key
from htr.whole_files import FULL
from shards import files
from shards.plan import Plan
from shards.sample import NOT_META, Sample
from shards.samples import make_samples
from shards.tar import Tar

NUMBERS = ("offset", "size", "text_size", "width", "height", "length")  # of a sample; offset and sizes in bytes


def is_committed(folder: Path, name: str) -> bool:
    """Whether the shard of this name is complete."""
    return (folder / f"{name}.json").exists()


def write_shard(
    plan: Plan, number: int, images: Path, forms=None, progress: Callable[[int, int], None] = lambda *_: None
) -> dict:
    """Make and commit the plan's shard of this number. -> the content of its JSON. `images`: the folder that the rows'
    images are relative to.

    `progress` is called with (samples, rejected) so far after every row. Raises OSError (a full disk), and leaves
    nothing then that could be taken for a shard.
    """
    folder, shard = plan.folder, plan.shards[number]
    name, rows = shard["name"], plan.rows(number)
    tar_path, rows_path = files.temporary(folder / f"{name}.tar"), files.temporary(folder / f"{name}.parquet")
    note_path = files.temporary(folder / f"{name}.json")
    try:
        table = Outcomes([column for column in rows[0] if column not in NOT_META])
        with files.named(folder / f"{name}.tar", FULL), open(tar_path, "wb", buffering=1 << 20) as file:
            tar = Tar(file)
            for row, result in make_samples(rows, images, plan.settings, forms):
                if unread := row.get("unread_pages"):
                    table.unread_of[row.get("image") or name] = unread
                table.nearest = table.nearest or row.get("nearest", "")
                table.dropped.update(map(code_point, invisible(row.get("text"))))
                if isinstance(result, str):
                    table.reject(row, result)
                else:
                    for sample in result:
                        members = sample.members(plan.settings.encoding)
                        table.add(sample, tar.add(sample.key, members), len(members["txt"]))
                progress(table.count, sum(table.rejects.values()))
            digest = tar.close()
            file.flush()
            os.fsync(file.fileno())
        with files.named(folder / f"{name}.parquet"):
            pq.write_table(table.table(), rows_path, compression="zstd")
            files.sync(rows_path)
        digests = {"tar": digest, "parquet": files.sha256(rows_path)}
        note = {
            "shard": name,
            "split": shard["split"],
            "plan": plan.fingerprint,
            "rows": len(rows),
            "bytes": tar.size,
            "sha256": digest,
            "sha256_rows": digests["parquet"],
            **table.note(),
        }
        with files.named(folder / f"{name}.json"):
            files.write_synced(note_path, files.to_json(note))
        if commit_parts(folder, name, {"tar": tar_path, "parquet": rows_path}, digests):
            files.commit(note_path, folder / f"{name}.json")
    except FileNotFoundError:
        # another attempt was first and the index, made since, swept this one's temporary files
        if not is_committed(folder, name):
            raise
    finally:
        for attempt in (tar_path, rows_path, note_path):
            attempt.unlink(missing_ok=True)
    return files.read_json(folder / f"{name}.json")


def commit_parts(folder: Path, name: str, attempts: dict[str, Path], digests: dict[str, str]) -> bool:
    """Give the files of an attempt, by ending, their final names, unless equal ones are there already.

    -> False where they differ since another attempt has committed the shard meanwhile. Raises ValueError where they
    differ from files of an attempt that never committed it.
    """
    for ending, attempt in attempts.items():
        final = folder / f"{name}.{ending}"
        if not files.commit(attempt, final) and files.sha256(final) != digests[ending]:
            if is_committed(folder, name):
                return False
            raise ValueError(
                f"{final.name} was left by an attempt with other bytes (other versions, another CPU family, or "
                f"changed images): remove {name}.tar and {name}.parquet and run preprocess again"
            )
    return True


class Outcomes:
    """Collects what became of every row: the shard's table, and the sums that its JSON gives."""

    def __init__(self, columns: list[str]):
        self.columns, self.entries = columns, []
        self.rejects, self.levels, self.characters, self.dropped = (collections.Counter() for _ in range(4))
        self.widths, self.unread_of, self.nearest = {"total": 0, "most": 0}, {}, ""

    @property
    def count(self) -> int:
        return sum(self.levels.values())

    def add(self, sample: Sample, offset: int, text_size: int) -> None:
        """A row became a sample. `offset`: of its image in the tar, `text_size`: of its text, both in bytes."""
        entry = {"row": sample.row, "key": sample.key, "level": sample.level, "outcome": "sample", "ink": sample.ink}
        sizes = (offset, len(sample.image), text_size, sample.width, sample.height, len(sample.text))
        entry |= {column: sample.note[column] for column in self.columns}
        self.entries.append(entry | dict(zip(NUMBERS, sizes, strict=True)))
        self.levels[sample.level] += 1
        self.widths = {"total": self.widths["total"] + sample.width, "most": max(self.widths["most"], sample.width)}
        if sample.level in ("line", "field"):  # what a reader writes; not the 0 and 1 of tick boxes
            self.characters.update(sample.text)

    def reject(self, row: dict, reason: str) -> None:
        key = sample_key(row["certificate"], row["field"], row["line"])
        entry = {"row": row["row"], "key": key, "outcome": "rejected", "reason": reason}
        self.entries.append(entry | {column: row[column] for column in self.columns})
        self.rejects[reason] += 1

    def table(self) -> pa.Table:
        kept = [(column, pa.string()) for column in self.columns]
        strings = [(name, pa.string()) for name in ("level", "outcome", "reason")]
        numbers = [(name, pa.int64()) for name in NUMBERS]
        columns = [("row", pa.int64()), ("key", pa.string()), *kept, *strings, *numbers, ("ink", pa.float32())]
        return pa.Table.from_pylist(self.entries, pa.schema(columns))

    def note(self) -> dict:
        return {
            "count": self.count,
            "levels": dict(self.levels),
            "rejects": dict(self.rejects),
            "widths": self.widths,
            "characters": dict(self.characters),
            "unread_pages": sum(self.unread_of.values()),  # of TIFFs, whose rows name no page
            # what hardly any shard has is there where it has it: of the first image that is missing and like another
            # both names; of TIFFs how many pages each
            **{key: some for key, some in (("nearest", self.nearest), ("unread_of", self.unread_of)) if some},
            "dropped": dict(sorted(self.dropped.items())),  # characters of its rows' texts that nobody sees
        }
