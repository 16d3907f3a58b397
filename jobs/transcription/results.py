"""Results of a transcription from its parts: decisions under a promise, tables of texts, tables to key.

No image is read for it: another promise, or a review table that was not asked for, takes seconds.
"""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.distributed.heartbeat import ACTIVITY
from jobs.transcription.sample import Sample
from jobs.transcription.table_writer import BESIDE, COLUMNS, Table
from shards import files
from shards.sample import NOT_YET

ACCEPT, REVIEW, NOT_JUDGED = "accept", "review", ""
KEYED = {  # columns of a table for people: where it stands, then what they fill in
    "lines": (
        *("image", "page", "certificate", "field", "line"),
        *("box", "polygon", "baseline", "page_size", "turn", "text", "reject"),
    ),
    "fields": ("image", "page", "certificate", "form", "field", "place", "text", "reject"),
}
SHOWN = {  # of a review, after them
    "lines": ("reading", "alternatives", "words", "confidence", "probability"),
    "fields": ("reading", "alternatives", "words", "confidence", "probability", "contradicts"),
}
SUMMARY = "summary.json"


@dataclass(frozen=True)
class Asked:
    """What is to be written, and how it is to be decided."""

    out: Path
    promise: object | None = None  # htr.reliability.promise.Promise
    sure: float = 0.8  # of a blank field or a tick box: less is looked at by a person
    review: Path | None = None
    sample: int = 0  # how many of the accepted are keyed once more
    seed: int = 0

    @property
    def sampled(self) -> Path | None:
        return self.review.with_stem(f"{self.review.stem}-sample") if self.sample else None

    @property
    def written(self) -> list[Path]:
        return [path for path in (self.out, self.review, self.sampled) if path]

    def note(self, promise: Path | None) -> dict:
        """What tells it from other requests: for the same note the same parts give the same result."""
        digests = [files.sha256(promise / f"{name}.json") for name in ("score", "promise")] if promise else None
        paths = [str(path.absolute()) for path in self.written]
        return {"written": paths, "promise": digests, "sure": self.sure, "sample": self.sample, "seed": self.seed}


# ---------------------------------------------------------------------------------------------------- decisions


def decide(part: pa.Table, promise, sure: float) -> pa.Table:
    """The part with `probability`, `decision` and `words`, and each signal_NAME that of the row's least sure line.

    `words` is the JSON of the calibrated probability of each word of the text, "[]" where there is none to be had.
    A row's probability is the least of its lines', null where none was read. Without a promise nothing that was read is
    accepted. A promise speaks of what was read: a blank field and a tick box, which only their ink tells, are reviewed
    or not by how `sure` that is, and so is to be reviewed what could not be read, was read as nothing, or contradicts
    another field by a rule of the form (see htr/forms/field_rules.py) or lines of its own that were left out; under a
    promise of lines a field of several.
    """
    signals = [name for name in part.column_names if name.startswith("signal_")]
    words = word_probabilities(part, promise, signals)
    counts = pc.fill_null(pc.list_value_length(part["confidences"]), 0).to_numpy()
    rows = np.repeat(np.arange(len(part)), counts)
    columns = {name: flat(part[name]) for name in ("confidences", *signals)}
    probabilities = columns["confidences"]
    if promise is not None and len(rows):
        named = {name: part[name].take(pa.array(rows)).combine_chunks() for name in ("certificate", "field")}
        known = {name: columns[name] for name in signals} | named
        probabilities = np.asarray(promise.probability(pa.table(known)), np.float64)
    order = np.lexsort((columns["confidences"], probabilities, rows))  # lines of a field have its probability
    read, first = np.unique(rows[order], return_index=True)
    least = order[first]  # the least sure line of each row that has any
    probability = np.full(len(part), np.nan)
    probability[read] = probabilities[least]
    accepted = np.zeros(len(part), bool)
    if promise is not None and len(rows):
        accepted[read] = promise.accept(probability[read], counts[read])

    reason, text = (np.asarray(part[name].to_pylist(), object) for name in ("reason", "text"))
    told_by_ink = (counts == 0) & (reason == "") & (part["confidence"].to_numpy() >= sure)
    accepted &= (reason == "") & (text != "")
    if "contradicts" in part.column_names:  # what can't be true together is never accepted, however sure
        apart = np.asarray(part["contradicts"].to_pylist(), object) != ""
        accepted, told_by_ink = accepted & ~apart, told_by_ink & ~apart
    decision = np.where(accepted, ACCEPT, np.where(told_by_ink, NOT_JUDGED, REVIEW))
    if promise is None:
        probability[:] = np.nan
    for name in signals:
        values = np.full(len(part), np.nan)
        values[read] = columns[name][least]
        part = part.set_column(part.column_names.index(name), name, numbers(values))
    part = part.append_column("probability", numbers(probability.round(4)))
    part = part.append_column("decision", pa.array(decision.tolist(), pa.string()))
    return part.append_column("words", pa.array(words, pa.string()))


def word_probabilities(part: pa.Table, promise, signals: list[str]) -> list[str]:
    """For each row the calibrated probabilities of its words, as JSON; "[]" without a promise that has a score for
    words."""
    none = ["[]"] * len(part)
    if promise is None or "word" not in promise.scores or "word_confidence" not in part.column_names:
        return none
    sizes = part["line_words"].to_pylist()  # a row's lines, each with so many words
    texts = part["text"].to_pylist()
    fits = [bool(own) and sum(own) == len(text.split()) for own, text in zip(sizes, texts, strict=True)]
    some = part.filter(pa.array(fits))
    if not any(fits) or not sum(map(sum, some["line_words"].to_pylist())):
        return none
    lines = np.concatenate([np.asarray(own, np.int64) for own in some["line_words"].to_pylist()])
    of_words = [name for name in part.column_names if name.startswith("word_")]
    columns = {name: np.split(flat(some[name]), np.cumsum(lines)[:-1]) for name in of_words}
    columns |= {name: flat(some[name]) for name in signals}
    found = iter(np.concatenate(promise.probability(columns, "word")).round(3).tolist())
    return [
        json.dumps([next(found) for _ in text.split()]) if fit else "[]" for fit, text in zip(fits, texts, strict=True)
    ]


def flat(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column of lists, one after the other."""
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)


def numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), mask=np.isnan(values))


# ---------------------------------------------------------------------------------------------------- the tables


def merge(
    folder: Path, parts: list[Path], kind: str, images: Path, asked: Asked, note: dict, account: dict | None = None
) -> None:
    """Write all that is asked for, from the parts in their order, and the summary last. Any task may do so; each writes
    the same."""
    before = read_summary(folder)
    signals = sorted({name for path in parts for name in pq.read_schema(path).names if name.startswith("signal_")})
    signals = signals if asked.promise is not None else []
    strings = (*COLUMNS[kind], "text", "decision", "alternatives", "words", *BESIDE[kind], "reason")
    strings = dict.fromkeys(strings, pa.string())
    schema = [*COLUMNS[kind], "text", "confidence", "probability", "decision", "alternatives", "words"]
    schema += ["lines", "contradicts"] * (kind == "fields") + ["reason", *signals]
    schema = pa.schema([(name, strings.get(name, pa.float64())) for name in schema])
    reasons, decisions, sample = Counter(), Counter(), Sample(asked.sample, asked.seed)
    contradicting = 0
    with ExitStack() as stack:
        table = stack.enter_context(Table(asked.out, schema))
        review = None
        if asked.review:
            check = NotChanged(asked.review, before)
            review = stack.enter_context(Table(asked.review, keyed_schema(kind, shown=True), check))
        for path in parts:
            part = decide(read_part(path), asked.promise, asked.sure)
            ACTIVITY.progressed()  # what the watchdog sees
            for name in signals:
                if name not in part.column_names:  # no line was read
                    part = part.append_column(name, pa.nulls(len(part), pa.float64()))
            table.write(part)
            decision = part["decision"]
            decisions.update(decision.to_pylist())
            reasons.update(reason.partition(" (")[0] for reason in part["reason"].to_pylist() if reason)
            if kind == "fields":
                contradicting += sum(map(bool, part["contradicts"].to_pylist()))
            if review:
                rows = part.filter(pc.equal(decision, REVIEW))
                review.write(to_key(rows, kind, prefix_of(images, asked.review)))
            if asked.sample:
                sample.take(part.filter(pc.equal(decision, ACCEPT)), unit_of(asked.promise))
        total = table.rows
    summary = {"rows": total, "reasons": dict(reasons), "decisions": dict(decisions), "contradicting": contradicting}
    summary |= {"account": account or {}}
    if asked.sample:
        schema = keyed_schema(kind, shown=False)
        with Table(asked.sampled, schema, NotChanged(asked.sampled, before)) as table:
            for rows in sample.chosen():
                table.write(to_key(rows, kind, prefix_of(images, asked.review)))
        summary |= {"accepted": sample.seen, "sampled": sample.drawn}
    digests = {str(path.absolute()): files.sha256(path) for path in asked.written[1:]}
    files.replace(folder / SUMMARY, files.to_json(summary | {"asked": note, "sha256": digests}))


def read_part(path: Path) -> pa.Table:
    """A part's table, read by one thread: it is small, and waking up others takes longer."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(use_threads=False)


def read_summary(folder: Path) -> dict:
    try:
        return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


@dataclass(frozen=True)
class NotChanged:
    """Raises ValueError where a table for people was changed since it was written, and would be replaced by another
    content: it may hold what they have keyed."""

    path: Path
    before: dict  # the summary that was written after it
    option: str = "--review"  # that names it

    def __call__(self, attempt: Path) -> None:
        if not self.path.exists():
            return
        now = files.sha256(self.path)
        if now not in (files.sha256(attempt), self.before.get("sha256", {}).get(str(self.path.absolute()))):
            raise ValueError(
                f"{self.path} was changed since it was written, perhaps by hand: give {self.option} another name"
            )


def prefix_of(images: Path, table: Path) -> str:
    """What to put before image names in a table that lies in a folder above them. Raises ValueError: it lies
    elsewhere."""
    below, folder = images.resolve(), table.parent.resolve()
    if not below.is_relative_to(folder):
        raise ValueError(
            f"{table}: the table names its images by their place below its own folder, so that preprocess finds them: "
            f"put it into {images} or a folder above it"
        )
    return "" if below == folder else below.relative_to(folder).as_posix() + "/"


def keyed_schema(kind: str, shown: bool) -> pa.Schema:
    kinds = {"confidence": pa.float64(), "probability": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*KEYED[kind], *(SHOWN[kind] if shown else ()))])


def to_key(rows: pa.Table, kind: str, prefix: str) -> pa.Table:
    """Rows of a decided part as a table for people to key, which is a source for preprocess too: `text` is to be filled
    in.

    Until then `reject` says so, or why the row could not be read.
    """
    columns = {name: rows[name] for name in KEYED[kind] if name in rows.column_names}
    columns["image"] = pc.binary_join_element_wise(pa.scalar(prefix), rows["image"], "")
    if kind == "fields":
        columns["place"] = rows["box"]  # a box would be cut as it is; the field is to be found on its form again
    columns["text"] = pa.array([""] * len(rows), pa.string())
    columns["reject"] = pc.if_else(pc.equal(rows["reason"], ""), NOT_YET, rows["reason"])
    columns["reading"] = rows["text"]
    others = (json.loads(cell) for cell in rows["alternatives"].to_pylist())
    columns["alternatives"] = pa.array([" | ".join(text for text, _ in texts) for texts in others], pa.string())
    shown = [name for name in ("words", "confidence", "probability", "contradicts") if name in rows.column_names]
    return pa.table(columns | {name: rows[name] for name in shown})


def unit_of(promise) -> str:
    return promise.unit if promise is not None else "line"


def report(summary: dict, count: int, unit: str, asked: Asked) -> list[str]:
    """Lines for a person, with numbers alone."""
    reasons, decisions = summary["reasons"], summary["decisions"]
    found = [f"{summary['rows']} rows of {count} {unit}, {sum(reasons.values())} not read, {asked.out}"]
    found += [f"    {times:6d} x {reason}" for reason, times in sorted(reasons.items())]
    found.append(f"{decisions.get(ACCEPT, 0)} accepted, {decisions.get(REVIEW, 0)} to review, "
                 f"{decisions.get(NOT_JUDGED, 0)} blank or ticked for sure")  # fmt: skip
    if summary.get("contradicting"):
        found.append(
            f"{summary['contradicting']} contradict another field of their form or a line that was left out: to review"
        )
    if asked.sample:
        kinds = {"line": "rows"}.get(unit_of(asked.promise), f"{unit_of(asked.promise)}s")
        found.append(f"{summary['sampled']} of {summary['accepted']} accepted {kinds} to be keyed: {asked.sampled}")
    return found
