"""What an evaluation adds up to: how a reading is judged, and the figures of all parts in metrics.json."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from htr.references import References, best_reference
from htr.scoring.errors import compare
from htr.scoring.interval import by_whom, interval
from htr.scoring.words import unseen
from shards import files

WITHOUT_SLICES = ("key", "certificate", "writer", "line", "image", "shard", "split", "reference", "hypothesis")
MOST_SLICES = 100  # of one column; more is not a slice but a name
COUNTED = ("characters", "edits", "words", "word_edits", "exact")


def judge(reference: str, hypothesis: str, references: References | None = None) -> dict[str, int]:
    """The one place where a reading is held against its reference: COUNTED, by name.

    `references`: abbreviations whose expansions are as good; the accepted text of the fewest edits counts then.
    """
    reference = best_reference(references, reference, hypothesis) if references else reference
    counted = asdict(compare(reference, hypothesis))
    return {name: counted[name] for name in COUNTED}


def part(folder: Path, shard: str) -> Path:
    return folder / "parts" / f"{shard}.parquet"


def merge(folder: Path, shards: list[str], asked: dict, known: set[str] | None) -> dict:
    """metrics.json from all parts; written by any task that finds them whole, always the same.

    known: the words that the reader was trained on, None where its data set is no longer there.
    """
    table = pa.concat_tables([pq.read_table(part(folder, shard)) for shard in shards])
    keys = table["key"].to_pylist()
    if len(set(keys)) != len(keys):
        raise ValueError(f"{folder}: {len(keys) - len(set(keys))} lines were read twice: remove the folder")
    slices = {}
    for name in table.column_names:
        if name in WITHOUT_SLICES or table.schema.field(name).type != pa.string():
            continue
        groups = table.group_by(name).aggregate([(column, "sum") for column in COUNTED] + [("key", "count")])
        if 1 < groups.num_rows <= MOST_SLICES:
            rows = sorted(groups.to_pylist(), key=lambda row: row[name])
            slices[name] = {row[name]: rates({c: row[f"{c}_sum"] for c in COUNTED}, row["key_count"]) for row in rows}
    counts = {column: table[column].to_numpy() for column in COUNTED}
    groups = groups_of(table)
    metrics = {**asked, **rates({name: int(column.sum()) for name, column in counts.items()}, len(keys)), "by": slices}
    metrics["interval"] = {
        "cer": interval(counts["edits"], counts["characters"], groups),
        "wer": interval(counts["word_edits"], counts["words"], groups),
        "groups": len(set(groups)),
    }
    metrics["unseen"] = unseen_words(table, known) if known is not None else None
    files.replace(folder / "metrics.json", files.to_json(metrics))
    return metrics


def rates(sums: dict[str, int], lines: int) -> dict:
    return {
        "lines": lines,
        **sums,
        "cer": sums["edits"] / sums["characters"] if sums["characters"] else None,  # of blank lines alone
        "wer": sums["word_edits"] / sums["words"] if sums["words"] else None,
        "line_accuracy": sums["exact"] / lines,
    }


def groups_of(table: pa.Table) -> list[str]:
    return by_whom(table["writer"].to_pylist(), table["certificate"].to_pylist())


def unseen_words(table: pa.Table, known: set[str]) -> dict:
    pairs = zip(table["reference"].to_pylist(), table["hypothesis"].to_pylist(), strict=True)
    counts = [unseen(reference, hypothesis, known) for reference, hypothesis in pairs]
    words, missed = (sum(count[i] for count in counts) for i in (0, 1))
    return {"words": words, "missed": missed, "rate": missed / words if words else None}


# ---------------------------------------------------------------------------------------------------- how fast


def speed(folder: Path, shards: list[str]) -> dict | None:
    """timing.json: how fast the tasks were, apart from metrics.json, which is the same however often it is made.

    Lines a second of one task, on so many cores; `decoding` without reading images and without the model. None where a
    task ended before it could say.
    """
    notes = [folder / "timing" / f"{shard}.json" for shard in shards]
    if not all(note.exists() for note in notes):
        return None
    read = [json.loads(note.read_text()) for note in notes]
    lines, seconds, decoding = (sum(note[name] for note in read) for name in ("lines", "seconds", "decoding"))
    cores = sorted({note["cores"] for note in read})
    found = {"lines": lines, "lines_per_s": lines / seconds, "decoding_lines_per_s": lines / decoding, "cores": cores}
    files.replace(folder / "timing.json", files.to_json(found))
    return found


# ---------------------------------------------------------------------------------------------------- two evaluations


def paired(folder: Path, other: Path) -> dict:
    """CER of an evaluation less that of another one, on the lines that both have, with a 95 % interval over writers.

    Raises ValueError when either is not whole, when they share no line, or hold different references of the same line.
    """
    one, two = (
        dict(zip(table["key"].to_pylist(), table.to_pylist(), strict=True)) for table in map(lines_of, (folder, other))
    )
    keys = sorted(one.keys() & two.keys())
    if not keys:
        raise ValueError(f"{folder} and {other} have no line in common: were they made from different data sets?")
    differ = sum(one[key]["reference"] != two[key]["reference"] for key in keys)
    if differ:
        raise ValueError(f"{folder} and {other} hold different references of {differ} lines: compare like with like")
    edits = [one[key]["edits"] - two[key]["edits"] for key in keys]
    # accepted references may differ by what was read: the first one's lengths count for both
    characters = [one[key]["characters"] for key in keys]
    groups = by_whom([one[key]["writer"] for key in keys], [one[key]["certificate"] for key in keys])
    low, high = interval(edits, characters, groups) or (None, None)
    difference = sum(edits) / max(sum(characters), 1)
    return {"difference": difference, "low": low, "high": high, "lines": len(keys), "groups": len(set(groups))}


def lines_of(folder: Path) -> pa.Table:
    if not (folder / "metrics.json").exists():
        raise ValueError(f"{folder}: no evaluation that is whole (no metrics.json)")
    columns = ["key", "certificate", "writer", "reference", "edits", "characters"]
    tables = [pq.read_table(path, columns=columns) for path in sorted((folder / "parts").glob("*.parquet"))]
    return pa.concat_tables(tables)
