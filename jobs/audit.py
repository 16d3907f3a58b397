"""python -m jobs audit --run RUN --evaluation NAME --promise NAME: transcriptions that a sure reading contradicts.

    python -m jobs audit --run runs/ctc --evaluation val-014000-beam --promise fields --source certificates.csv
    … in RUN/audit/val-014000-beam.csv a person corrects `text`, or writes into `reject` why a row can't be used …
    python -m jobs audit --apply runs/ctc/audit/val-014000-beam.csv --source certificates.csv --out mended.csv

The table has the lines whose reading differs from the transcription, the most surprising first. A line is surprising if
its frames fit the reading much better than the transcription (jobs/evaluation/label_gap.py), compared with the number
of edits that a reading of this probability usually needs. (For evaluations of an older version: the number of edits
itself.) --promise gives calibrated probabilities: any promise of RUN/reliability, its threshold is not used. Without it
the uncalibrated confidence is taken. A reader has learnt the labels of its own training lines, errors too: audit other
lines.

With --source the rows are those of the source, with all its columns, and --apply puts them back in their places, in a
new source beside the old one. Without --source the images are the stored lines of the data set, and --out must lie in
its folder or above. A table whose images lie below it can be given to `preprocess` as it is. It holds transcriptions:
only its owner and group may read it, and no log has any of it.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting

AUDIT_COLUMNS = (
    "audit_row",
    "audit_text",
    "audit_reading",
    "audit_edits",
    "audit_expected",
    "audit_probability",
    "audit_surprise",
)


@dataclass(frozen=True)
class Settings:
    run: Path | None = setting(None, "run whose evaluation it is")
    evaluation: str | None = setting(None, "evaluation to look through, a name in RUN/evaluation or a folder")
    promise: str | None = setting(
        None, "promise whose scores are used, a name in RUN/reliability (default: the uncalibrated confidence)"
    )
    source: Path | None = setting(None, "table that the data set was made from")
    most: int = setting(500, "largest number of rows to write", least=1)
    out: Path | None = setting(None, "table to write (default: RUN/audit/NAME.csv); with --apply the corrected source")
    apply: Path | None = setting(None, "table that a person went through: put its rows into --source", metavar="TABLE")


def main(args: Settings) -> int:
    if args.apply:
        return put_back(args)
    if not (args.run and args.evaluation):
        raise ValueError("give --run and --evaluation: the run, and the evaluation to look through")
    import numpy as np

    from htr.reliability.promise import Promise
    from htr.reliability.units import CHARACTER, probabilities
    from jobs.evaluation.results import Evaluation, find

    evaluation = Evaluation.read(find(args.run, args.evaluation))
    table, confidence = evaluation.table, evaluation.numbers("confidence")
    edits, right, share = evaluation.numbers("edits"), confidence, confidence
    if args.promise:
        promise = Promise.load(args.run / "reliability" / args.promise)
        promise.check(evaluation.conditions, reader_alone=True)
        right, share = (probabilities(promise.scores, table, unit) for unit in ("line", CHARACTER))
    length = np.maximum([len(text) for text in table["hypothesis"].to_pylist()], evaluation.numbers("characters"))
    expected = (1 - share) * np.maximum(length, 1)
    wrong, surprise = np.flatnonzero(evaluation.numbers("exact") == 0), np.zeros(len(table))
    if "label_gap" in table.column_names:
        surprise[wrong] = surprise_of(evaluation.numbers("label_gap")[wrong], expected[wrong])
    else:
        surprise[wrong] = surprises(edits[wrong], expected[wrong])
        log(f"audit: {evaluation.name} was made by an older version: ranked by edits alone; evaluate again for more")
    chosen = wrong[np.argsort(-surprise[wrong], kind="stable")][: args.most]
    own = [
        {
            "audit_row": row, "audit_reading": reading, "audit_text": reference, "audit_edits": int(edits[i]),
            "audit_expected": round(float(expected[i]), 2), "audit_probability": round(float(right[i]), 4),
            "audit_surprise": round(float(surprise[i]), 2), "reject": "",
        }
        for i, row, reading, reference in zip(
            chosen.tolist(),
            *(table[name].take(chosen).to_pylist() for name in ("row", "hypothesis", "reference")),
            strict=True,
        )
    ]  # fmt: skip
    out = args.out or args.run / "audit" / f"{evaluation.name}.csv"
    if out.exists():
        raise ValueError(f"{out} exists already, perhaps with corrections: remove it, or give another --out")
    if not args.source and not args.out:
        raise ValueError(
            "give --source, the table that the data set was made from, or an --out in the data set's folder"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    rows, images = (of_source if args.source else of_shards)(args, evaluation, chosen, own)
    if not args.source or images.resolve().is_relative_to(out.parent.resolve()):
        below(rows, images, out)
    write(out, rows)
    print(f"{len(chosen)} of {len(wrong)} lines whose reading differs from the transcription, of {len(table)}: {out}")
    return 0


def surprise_of(gaps, expected):
    """(N,) gaps in nats and (N,) edits that the reader's own doubts let expect -> (N,): the gap of a doubtful reading
    counts less."""
    return gaps / (1 + expected)


def surprises(edits, expected):
    """(N,) edits and (N,) edits expected -> (N,) -log10 of the probability of as many or more, if they were Poisson
    distributed."""
    import math

    import numpy as np

    found = np.zeros(len(edits))
    for i, (k, mean) in enumerate(zip(edits.tolist(), np.maximum(expected, 1e-6).tolist(), strict=True)):
        j = np.arange(k, k + 60 + 4 * mean)
        terms = j * math.log(mean) - mean - np.array([math.lgamma(x + 1) for x in j])
        found[i] = max(-(terms.max() + math.log(np.exp(terms - terms.max()).sum())) / math.log(10), 0.0)
    return found


def of_source(args, evaluation, chosen, own) -> tuple[list[dict], Path]:
    """The rows of the source's table, unchanged, with ours beside them; and the folder of their images."""
    import pyarrow as pa

    from htr.io.sources import read_source

    source, images = read_source(args.source)
    taken = [row["audit_row"] for row in own]
    if any(row is None for row in taken):
        raise ValueError(f"{args.source}: {evaluation.name} has lines that no row of a source stands for: leave it out")
    certificates = evaluation.table["certificate"].take(chosen).to_pylist()
    fits = [row < len(source) for row in taken]
    rows = source.take(pa.array(taken)).to_pylist() if all(fits) else []
    differ = sum(row["certificate"] != one for row, one in zip(rows, certificates, strict=True)) if rows else len(taken)
    if differ:
        raise ValueError(f"{args.source}: {differ} rows are of other certificates: not what the data set was made from")
    return [{**row, **about} for row, about in zip(rows, own, strict=True)], images


def of_shards(args, evaluation, chosen, own) -> tuple[list[dict], Path]:
    """Rows whose images are the stored lines of the data set; and the folder of their images."""
    from htr.io.sources import OURS, RESERVED
    from jobs.evaluation.texts import config_of, dataset_of

    index = dataset_of(config_of(args.run))
    if index.fingerprint != evaluation.asked["dataset"]:
        raise ValueError(f"{evaluation.folder} is not of {index.folder}: give --source")
    counted = (
        "label_gap",
        "reference",
        "hypothesis",
        "confidence",
        "exact",
        "edits",
        "characters",
        "words",
        "word_edits",
    )
    names = [
        name for name in evaluation.table.column_names
        if name not in (*RESERVED, *counted) and not name.startswith(("signal_", "word_"))
    ]  # fmt: skip
    table = evaluation.table.select([*names, "key", "shard"]).take(chosen).to_pylist()
    rows = []
    for row, about in zip(table, own, strict=True):
        image = f"{row.pop('shard')}.tar/{row.pop('key')}.{index.encoding}"
        rows.append({"image": image, "text": about["audit_text"], **row, **about})
    ordered = [name for name in OURS if name in rows[0]] if rows else []
    return [{name: row[name] for name in ordered} | row for row in rows], index.folder


def below(rows: list[dict], images: Path, out: Path) -> None:
    """Name the images relative to the table's folder, so that preprocess finds them. Raises ValueError where they lie
    elsewhere."""
    root, folder = images.resolve(), out.parent.resolve()
    if not root.is_relative_to(folder):
        raise ValueError(f"--out {out}: put it into {images} or a folder above it, so that preprocess finds the images")
    prefix = root.relative_to(folder).as_posix()
    for row in rows:
        row["image"] = row["image"] if prefix == "." else f"{prefix}/{row['image']}"


def write(path: Path, rows: list[dict]) -> None:
    """Write a CSV, whole or not at all, with mode 0640 whatever the umask."""
    import os

    from shards import files

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["image", "text", "certificate", *AUDIT_COLUMNS, "reject"])
    writer.writeheader()
    writer.writerows(rows)
    before = os.umask(0o027)
    try:
        files.replace(path, text.getvalue())
    finally:
        os.umask(before)


def put_back(args: Settings) -> int:
    """Write the source again, with the rows that were mended or rejected in their places."""
    from htr.io.sources import read_any, read_source

    if not (args.source and args.out):
        raise ValueError("--apply needs --source, the table to correct, and --out, the name of a new one")
    if args.out.exists() or args.out.suffix != ".csv":
        raise ValueError(f"{args.out}: give the name of a new .csv")
    source, images = read_source(args.source)
    mended = read_any(args.apply).to_pylist()
    if mended and not {"audit_row", "text", "reject", "certificate"} <= mended[0].keys():
        raise ValueError(f"{args.apply}: not a table that audit wrote with --source")
    rows = source.to_pylist()
    changed = rejected = 0
    for row in mended:
        place = int(row["audit_row"])
        if place >= len(rows) or rows[place]["certificate"] != row["certificate"]:
            raise ValueError(
                f"{args.apply}: a row is not one of the source's: were they sorted, or is it another source?"
            )
        changed += rows[place]["text"] != row["text"]
        rejected += bool(row["reject"])
        rows[place] |= {"text": row["text"], "reject": row["reject"] or rows[place].get("reject", "")}
    for row in rows:
        row.setdefault("reject", "")
    below(rows, images, args.out)
    write(args.out, rows)
    log(f"audit: {changed} texts mended, {rejected} rows rejected of {len(rows)}: {args.out}")
    return 0
