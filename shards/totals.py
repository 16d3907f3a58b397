"""What index.json says: the sums of all shards, where a row that was written once more counts as it came out last."""

import collections
import hashlib

import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS, code_point, invisible
from shards.plan import Plan


def describe(plan: Plan, retries: list[Plan], notes: list[dict], levels: dict[str, int], reasons: dict[str, int]):
    """`notes`: of the shards, the plan's and then those of its retries; `levels`, `reasons`: of rows as they came out
    last.
    """
    characters = {split: collections.Counter() for split in SPLITS}
    totals, lines, dropped, unread = (collections.Counter() for _ in range(4))
    for note in notes:
        dropped.update(note.get("dropped"))
        unread |= note.get("unread_of", {note["shard"]: note.get("unread_pages", 0)})  # a scan counts once
        characters[note["split"]].update(note["characters"])
        totals[note["split"]] += note["count"]
        lines[note["split"]] += note["levels"].get("line", 0)
    if dropped and retries:
        dropped -= dropped_before(plan, retries)
    return {
        "format": 2,
        "fingerprint": fingerprint(plan, notes[len(plan.shards) :]),
        # what a model may write is what it was shown; a character that only a test line has counts as an error
        "alphabet": "".join(sorted(characters["train"] or sum(characters.values(), collections.Counter()))),
        "rows": sum(shard["rows"] for shard in plan.shards),
        "totals": {split: totals[split] for split in SPLITS},
        "lines": {split: lines[split] for split in SPLITS},
        "levels": dict(levels),
        "rejects": dict(reasons),
        "nearest": next((note["nearest"] for note in notes if note.get("nearest")), ""),
        "unread_pages": unread.total(),
        "dropped": dict(sorted(dropped.items())),
        "bytes": sum(note["bytes"] for note in notes),
        "encoding": plan.settings.encoding,
        "shards": [{key: note[key] for key in ("shard", "split", "count", "bytes", "sha256")} for note in notes],
    }


def dropped_before(plan: Plan, retries: list[Plan]) -> collections.Counter:
    """Characters that nobody sees in the texts that rows had before they were written once more."""
    found: collections.Counter = collections.Counter()
    again = [pq.read_table(plan.folder / f"{retry.name}.parquet", columns=["row", "text"]) for retry in retries]
    for number, rows in enumerate(again):
        left = rows["row"].combine_chunks()
        planned = pq.ParquetFile(plan.folder / "plan.parquet")
        groups = (planned.read_row_group(group, ["row", "text"]) for group in range(planned.num_row_groups))
        for table in (*reversed(again[:number]), *groups):
            same = table.filter(pc.is_in(table["row"], left))
            for text in same["text"].to_pylist():
                found.update(map(code_point, invisible(text)))
            left = left.filter(pc.invert(pc.is_in(left, same["row"].combine_chunks())))
            if not len(left):
                break
    return found


def fingerprint(plan: Plan, retried: list[dict]) -> str:
    """The plan's; what a retry added is another data set."""
    if not retried:
        return plan.fingerprint
    tars = "".join(f"{note['shard']} {note['sha256']}\n" for note in retried)
    return hashlib.sha256(f"{plan.fingerprint}\n{tars}".encode()).hexdigest()[:16]
