"""The files of an evaluation: a part a shard with a row a line, and metrics.json, made of all parts.

A part has a row a text, of a line or of a field of several lines: the columns of the index, `reference`, `hypothesis`,
`confidence`, `label_gap` (jobs/evaluation/label_gap.py), `signal_NAME`, `word_right` (of the words of the hypothesis by
spaces, in their order), `word_confidence` where the reader gives it, `line_signal_NAME` and `line_words` of several
lines (htr/reliability/units.py), and what htr/metrics/counts.py counts. metrics.json is all of them added up, "lines"
there are these texts; it is the same, bit for bit, whoever merges and however the shards were dealt. All rates are
fractions, null where there is nothing to divide by; all intervals are [low, high] of 95 %, null with fewer than two
clusters. Keys are in alphabetical order.

    dataset split where levels batch weights …  what was asked, as in evaluation.json
    lines characters edits words word_edits exact substitutions insertions deletions words_unicode word_edits_unicode
    cer wer wer_unicode line_accuracy           of all lines, as is: the headline
    fields fields_exact field_accuracy certificates certificates_exact certificate_accuracy
                                                fields and certificates all of whose lines are right
    interval      {cer, wer, wer_unicode, line_accuracy, field_accuracy, certificate_accuracy: [low, high], groups: how
                  many clusters, unit: writer, certificate or "writer or certificate", method, level, warning}
    macro         {writer, certificate: {groups, cer, wer: means of each one's rates, interval: {cer, wer}, quantiles:
                  {0.1, 0.5, 0.9} of each one's CER}}; writer is null where none is known
    normalised    {NAME: {characters edits words word_edits exact cer wer line_accuracy interval}}, names and order of
                  htr/metrics/normalise.py
    value         {duration, date, number: {lines, right, accuracy, interval, exact, exact_accuracy, clusters}}: lines
                  whose reference is such a value, those read as the same value, and as the same text
    blank         {lines, false_text, false_text_rate, interval, written, read_blank, read_blank_rate,
                  read_blank_interval}: empty references and text read there, written ones and nothing read there
    character_classes   {letters, capitals, accents, digits, punctuation, space: {characters, missed, rate, interval,
                  inserted}} by the reference's characters, of which a character may have several
    confusions    [{reference, hypothesis, count}], the most frequent first, "" for none; of 5 or more, 100 of them
    by            {COLUMN: {VALUE: {lines characters edits words word_edits exact cer wer line_accuracy interval
                  clusters small}}}: columns of text with 2 to 100 values, `length` in characters, `width` in px at 48
                  px of height, `writer` (names hashed, each one's certificates as its clusters); small: see
                  significance.py
    drift         by year, see htr/metrics/yearly_trend.py; null where there are no two years
    unseen        {words, missed, rate}: words that training never had; null where its data have gone
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from htr.metrics import counts
from htr.metrics.words import unseen
from htr.references import References
from jobs.distributed.heartbeat import ACTIVITY
from jobs.evaluation.accumulators import COUNTED, Accumulator
from jobs.evaluation.contradictions import count_contradictions
from jobs.evaluation.metrics import metrics_of, over
from shards import files

FORMAT = 2  # of the parts and of metrics.json
LINES_PER_BATCH = 10_000  # lines counted at once


def part(folder: Path, shard: str) -> Path:
    return folder / "parts" / f"{shard}.parquet"


def counted(table: pa.Table, references: References | None = None) -> pa.Table:
    """The table of a part, with the counts of its references and hypotheses; columns of the same names are replaced."""
    pieces = [
        counts.count(*(piece[name].to_pylist() for name in ("reference", "hypothesis")), references)
        for piece in (table.slice(start, LINES_PER_BATCH) for start in range(0, table.num_rows, LINES_PER_BATCH))
    ]
    columns = {name: np.concatenate([piece.columns[name] for piece in pieces]) for name in pieces[0].columns}
    confusions = sum((Counter(piece.confusions) for piece in pieces), Counter())
    table = table.drop_columns([name for name in table.column_names if name in columns or name == "word_right"])
    right = pa.array([words for piece in pieces for words in piece.word_right], pa.list_(pa.bool_()))
    table = table.append_column("word_right", right)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    note = {"columns": list(columns), "confusions": [[*pair, number] for pair, number in sorted(confusions.items())]}
    return table.replace_schema_metadata({COUNTED: json.dumps(note, ensure_ascii=False)})


def write_part(table: pa.Table, path: Path) -> None:
    """Commit a part, unless another task was first."""
    with files.first_at(path) as attempt:
        pq.write_table(table, attempt, compression="zstd")


def merge(
    folder: Path,
    shards: Sequence[str],
    asked: dict,
    known: set[str] | None,
    rules: dict[str, tuple] | None = None,
    ticks: Sequence[dict] = (),
) -> dict:
    """metrics.json from all parts; written by any task that finds them whole, always the same.

    known: the words that the reader was trained on, None where its data set is no longer there. `rules`: between the
    fields of a form, by its name (see htr/forms/field_rules.py); None or none: nothing is counted of them. `ticks`: the
    boxes of the split, see contradictions.ticks_of.
    """
    sums, words = Accumulator(), Counter()

    def count_words(table: pa.Table) -> None:
        for reference, hypothesis in zip(
            *(table[name].to_pylist() for name in ("reference", "hypothesis")), strict=True
        ):
            new, missed = unseen(reference, hypothesis, known)
            words.update(words=new, missed=missed)

    for shard in sorted(shards):
        sums.read(part(folder, shard), None if known is None else count_words)
        ACTIVITY.progressed()  # what the watchdog sees
    sums.close(folder)
    metrics = {**asked, **metrics_of(sums)}
    if known is not None:
        metrics["unseen"] = {name: words[name] for name in ("words", "missed")} | {
            "rate": over(words["missed"], words["words"])
        }
    if rules:
        parts = [part(folder, shard) for shard in sorted(shards)]
        metrics["contradictions"] = count_contradictions(parts, rules, ticks)
    files.replace(folder / "metrics.json", files.to_json(metrics))
    for left in (folder / "parts").glob(".*.tmp"):  # of attempts that were killed
        left.unlink(missing_ok=True)
    return metrics


# ---------------------------------------------------------------------------------------------------- how fast


def speed(folder: Path, shards: Sequence[str]) -> dict | None:
    """timing.json: how fast the tasks were, apart from metrics.json, which is the same however often it is made.

    Lines a second of one task, on so many cores; `decoding` without reading images and without the model. None where a
    task ended before it could say.
    """
    try:
        notes = [(folder / "timing" / f"{shard}.json").read_text(encoding="utf-8") for shard in shards]
    except FileNotFoundError:
        return None
    read = [json.loads(note) for note in notes]
    lines, seconds, decoding = (sum(note[name] for note in read) for name in ("lines", "seconds", "decoding"))
    cores = sorted({note["cores"] for note in read})
    found = {"lines": lines, "lines_per_s": lines / seconds, "decoding_lines_per_s": lines / decoding, "cores": cores}
    files.replace(folder / "timing.json", files.to_json(found))
    return found
