"""What index.json says: the sums of all shards, where a row that was written once more counts as it came out last."""

import collections
import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from htr.certificate import SPLITS, code_point, invisible
from shards.plan import Plan

NEEDED = {"fingerprint", "alphabet", "shards", "totals", "lines", "encoding", "rows", "rejects"}  # by read_index
AGAIN = "the same python -m jobs preprocess, run again, makes it anew"


def read_totals(folder: Path) -> tuple[dict, str]:
    """-> what index.json says, and the digest of all of that. Raises FileNotFoundError where there is none, ValueError
    where it is damaged, or index.parquet beside it is damaged or another data set's."""
    path, table = folder / "index.json", folder / "index.parquet"
    content = path.read_bytes()
    try:
        note = dict(json.loads(content))
    except (ValueError, TypeError):
        raise ValueError(f"{path}: damaged: {AGAIN}") from None
    if missing := NEEDED - note.keys():
        raise ValueError(f"{path}: of another version, it lacks {', '.join(sorted(missing))}: {AGAIN}")
    try:
        rows = pq.read_metadata(table).num_rows
    except FileNotFoundError:
        raise ValueError(f"{table}: missing: {AGAIN}") from None
    except pa.ArrowInvalid:  # Arrow does not say which file
        raise ValueError(f"{table}: damaged: {AGAIN}") from None
    if rows != (count := sum(note["totals"].values())):
        raise ValueError(f"{table}: {rows} samples, index.json has {count}: not of one data set; {AGAIN}")
    return note, hashlib.sha256(content).hexdigest()[:16]


def describe(plan: Plan, retries: list[Plan], notes: list[dict], levels: dict[str, int], reasons: dict[str, int]):
    """The content of index.json. `notes`: of the shards, the plan's first and then those of its retries; `levels`,
    `reasons`: how many rows have which outcome in the end."""
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
    """Invisible characters, by code point, in texts that a later retry has replaced: they are counted no more."""
    found: collections.Counter = collections.Counter()
    again = pa.array([], pa.int64())  # rows that were written after the plan that is looked at, the newest first
    for earlier in (*reversed(retries), plan):
        for rows in earlier.rows_with("row", again, ["row", "text"]):
            for text in rows["text"].to_pylist():
                found.update(map(code_point, invisible(text)))
        if earlier is not plan:
            own = pq.read_table(plan.folder / f"{earlier.name}.parquet", columns=["row"])["row"].combine_chunks()
            again = pa.concat_arrays([again, own]).unique()
    return found


def fingerprint(plan: Plan, retried: list[dict]) -> str:
    """The data set's: the plan's own, or another one where retries added shards."""
    if not retried:
        return plan.fingerprint
    tars = "".join(f"{note['shard']} {note['sha256']}\n" for note in retried)
    return hashlib.sha256(f"{plan.fingerprint}\n{tars}".encode()).hexdigest()[:16]
