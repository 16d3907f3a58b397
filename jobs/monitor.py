"""python -m jobs monitor READINGS KEYED --promise RUN/reliability/NAME: does a promise hold in production?

    python -m jobs transcribe scans/2026-11/ --unit field --model runs/ctc --decode beam --out batch.parquet \\
        --promise runs/ctc/reliability/fields --review scans/review.csv --sample 150
    python -m jobs monitor batch.parquet scans/review-sample.csv --promise runs/ctc/reliability/fields
    python -m jobs monitor --plan --accepted 5000 --promise runs/ctc/reliability/fields      # how many to key

READINGS is a batch that transcribe wrote. KEYED is the random sample of its accepted units, typed by persons who did
not see the readings. The answer has three parts: the largest number of accepted units of this batch that may be wrong
(hypergeometric, with probability 1 - delta) and, where CER is promised, its largest CER; whether over all batches more
than alpha are wrong; and whether the signals of the readings are like those of the part that chose the threshold. One
line a batch is added to RUN/reliability/NAME/monitor.jsonl. Exit status 3: alarm.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from htr.certificate import single_spaced
from jobs.cli.console import log
from jobs.cli.settings import setting
from shards.sample import given_reason

ALARM = 3
ACCEPT = "accept"
PARTS = ("line", "page", "image")  # what tells the rows of a field from each other, of what both tables have


@dataclass(frozen=True)
class Settings:
    readings: Path | None = setting(
        None, "table that transcribe wrote for this batch, .parquet or .csv", positional=True
    )
    keyed: Path | None = setting(None, "keyed sample that transcribe drew", positional=True)
    promise: Path = setting(help="promise to watch", metavar="RUN/reliability/NAME")
    log: Path | None = setting(None, "file that keeps the batches so far (default: monitor.jsonl beside the promise)")
    seconds: float = setting(20.0, "seconds that typing a line takes, for the hours saved")
    plan: bool = setting(False, "only say how large a sample a batch of --accepted needs")
    accepted: int | None = setting(None, "with --plan: number of units that a batch accepts")
    expected: float = setting(0.005, "with --plan: expected share of wrong ones")


def main(args: Settings) -> int:
    from htr.reliability.monitor import FALSE_ALARM_RATE, BatchMonitor, hours, most_wrong
    from htr.reliability.promise import Promise
    from shards import files

    promise = Promise.load(args.promise)
    many = f"{promise.unit}s"
    if args.plan:
        return print_plan(args, promise)
    if not (args.readings and args.keyed):
        raise ValueError("give two tables: the readings of a batch, and its keyed sample")
    journal = args.log or args.promise / "monitor.jsonl"
    before = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    batch = files.sha256(args.readings)[:16]
    if any(entry["batch"] == batch for entry in before):
        raise ValueError(f"{journal}: this batch is in it already; each batch counts once")

    # ---------------------------------------------------------------- this batch
    readings = read(args.readings, ("certificate", "field", "text", "decision"))
    keyed = read(args.keyed, ("certificate", "field", "text"))
    parts = parts_of_both(readings, keyed)
    accepted, lines = accepted_units(readings, promise.unit, parts)
    typed = sample_of(accepted, keyed, promise.unit, args.keyed, parts)
    sampled, wrong = len(typed), sum(texts != accepted[name] for name, texts in typed.items())
    bound = most_wrong(wrong, sampled, len(accepted), promise.delta)
    saved = hours(len(accepted), sampled, lines / len(accepted), args.seconds)
    sure, most = f"{100 * (1 - promise.delta):g} %", f"{bound} of this batch ({100 * bound / len(accepted):.2f} %)"
    print(
        f"{len(accepted)} {many} accepted, {sampled} of them keyed: {wrong} differ from what was keyed, so with {sure} "
        f"at most {most}. {saved:.1f} hours of typing saved at {args.seconds:g} s a line"
    )

    # ---------------------------------------------------------------- all batches
    watch = BatchMonitor(**before[-1]["watch"]) if before else BatchMonitor(promise.alpha)
    cer, counted = add_batch(watch, promise, accepted, typed, wrong)
    alarms = watch.alarms
    print(f"{watch.batches} batches, {counted}: evidence {watch.bet:.3g} that it is more than "
          f"{100 * promise.alpha:g} % (alarm from {1 / FALSE_ALARM_RATE:g} on)")  # fmt: skip
    found = drifted(args.promise, readings, promise.unit)
    if found:
        moved = ", ".join(f"{name} {found.shifts[name]:+.1f}" for name, p in found.signals.items() if p <= 0.05)
        print(f"signals: p {found.p:.3f}" + (f", not like the part that chose the threshold: {moved}" if moved else ""))
        alarms += ["drift"] if found.warns else []
    entry = {"batch": batch, "accepted": len(accepted), "sampled": sampled, "wrong": wrong, "bound": bound,
             "cer_bound": cer, "hours": saved, "watch": watch.to_json(), "alarms": alarms,
             "drift": asdict(found) if found else None}  # fmt: skip
    files.replace(journal, "".join(json.dumps(line) + "\n" for line in [*before, entry]))
    if alarms:
        log(f"monitor: ALARM ({', '.join(alarms)}): key all of what is accepted until it is understood")
        return ALARM
    return 0


def add_batch(watch, promise, accepted: dict, typed: dict, wrong: int) -> tuple[float | None, str]:
    """Add the sample of a batch to the monitor of all batches, as the promise counts it.

    -> the bound of the batch's CER, None where none is promised or so small a sample bounds none; the counts, in words.
    """
    from htr.reliability.monitor import most_cer

    if promise.loss == "wrong":
        watch.add(wrong, len(typed))
        return None, f"{watch.wrong} of {watch.sampled} wrong"
    edits = edits_of(accepted, typed)
    bounded = most_cer(*edits, len(accepted), promise.delta, promise.per_line)
    cer = bounded if math.isfinite(bounded) else None
    at_most = "not bounded by so small a sample" if cer is None else f"at most {100 * cer:.2f} %"
    print(f"with {100 * (1 - promise.delta):g} % the CER of this batch is {at_most}, where a line counts as at most "
          f"{promise.per_line:g} characters")  # fmt: skip
    watch.add_edits(*edits, promise.per_line)
    return cer, f"{watch.wrong} edits of {watch.sampled} characters"


def print_plan(args: Settings, promise) -> int:
    """Print how large a sample of a batch must be keyed."""
    from htr.reliability.monitor import sample_size

    many = f"{promise.unit}s"
    if not args.accepted:
        raise ValueError("--plan needs --accepted, the number of units that a batch accepts")
    size = sample_size(args.accepted, promise.alpha, promise.delta, args.expected)
    print(f"key {size} of {args.accepted} accepted {many}: with {100 * args.expected:g} % of them wrong that shows "
          f"at most {100 * promise.alpha:g} % with {100 * (1 - promise.delta):g} %")  # fmt: skip
    return 0


def read(path: Path, needed: tuple[str, ...]) -> dict[str, list]:
    """Columns of a CSV (all text) or Parquet table."""
    from htr.io.sources import no_column, read_any

    if not path.is_file():
        raise ValueError(f"{path}: no such table")
    table = read_any(path)
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: {no_column(missing, table.column_names)}")
    return {name: table[name].to_pylist() for name in table.column_names}


def names_of(table: dict[str, list], unit: str, parts: tuple[str, ...]) -> list[tuple]:
    """For each row the name of the unit that it belongs to."""
    columns = [table["certificate"]] if unit == "certificate" else [table["certificate"], table["field"]]
    if unit == "line":
        columns += [table[name] for name in parts]
    return list(zip(*([value or "" for value in column] for column in columns), strict=True))


def parts_of_both(readings: dict[str, list], keyed: dict[str, list]) -> tuple[str, ...]:
    """PARTS that both tables have. A table for people names images from its own folder on: what stands before is taken
    away here; images that are none of the batch's tell nothing.
    """
    parts = [name for name in PARTS if name in readings and name in keyed]
    if "image" not in parts or not keyed["image"]:
        return tuple(parts)
    there, first = set(readings["image"]), keyed["image"][0] or ""
    for at in (0, *(i + 1 for i, letter in enumerate(first) if letter == "/")):
        names = [(name or "").removeprefix(first[:at]) for name in keyed["image"]]
        if there.issuperset(names):
            keyed["image"] = names
            return tuple(parts)
    return tuple(name for name in parts if name != "image")


def rows_of(table: dict[str, list], unit: str, parts: tuple[str, ...]) -> dict[tuple, dict[tuple, str]]:
    """Unit -> (row -> its text, NFC, with single spaces)."""
    found: dict[tuple, dict[tuple, str]] = {}
    both = zip(names_of(table, unit, parts), names_of(table, "line", parts), table["text"], strict=True)
    for name, row, text in both:
        rows = found.setdefault(name, {})
        if row in rows:
            raise ValueError(
                f"two rows have one {' and '.join(('certificate', 'field', *parts))}: which one was keyed is "
                "unknown; take the tables as transcribe wrote them"
            )
        rows[row] = single_spaced(text or "")
    return found


def accepted_units(readings: dict[str, list], unit: str, parts: tuple[str, ...]) -> tuple[dict, int]:
    """The accepted units, and how many lines of text they have together."""
    kept = [i for i, decision in enumerate(readings["decision"]) if decision == ACCEPT]
    if not kept:
        raise ValueError("nothing was accepted of this batch: there is nothing to watch")
    table = {name: [values[i] for i in kept] for name, values in readings.items()}
    lines = sum((text or "").count("\n") + 1 for text in table["text"])
    return rows_of(table, unit, parts), lines


def sample_of(
    accepted: dict, keyed: dict[str, list], unit: str, path: Path, parts: tuple[str, ...]
) -> dict[tuple, dict[tuple, str]]:
    """-> what was keyed, by unit as what was accepted. Names none of them.

    Raises ValueError while some are still to be keyed: those left out might be the hard ones.
    """
    reasons = keyed.get("reject") or [""] * len(keyed["text"])
    rows = [{"reject": reason, "text": text} for reason, text in zip(reasons, keyed["text"], strict=True)]
    left = sum(bool(given_reason(row)) for row in rows)
    if left:
        raise ValueError(f"{path}: {left} rows are still to be keyed (their `reject` says why not): all are needed")
    typed = rows_of(keyed, unit, parts)
    if not typed:
        raise ValueError(f"{path}: a sample without rows")
    foreign = len(typed.keys() - accepted.keys())
    if foreign:
        raise ValueError(
            f"{path}: {foreign} of its {unit}s are not among those that the batch accepted: another batch?"
        )
    lost = sum(rows.keys() != accepted[name].keys() for name, rows in typed.items())
    if lost:
        raise ValueError(f"{path}: of {lost} of its {unit}s rows are missing, or are others: all of a {unit} is keyed")
    return typed


def edits_of(accepted: dict, typed: dict) -> tuple[list[int], list[int]]:
    """For each keyed unit the edits of its reading, and the number of characters keyed."""
    from rapidfuzz.distance import Levenshtein

    edits, characters = [], []
    for name, texts in typed.items():
        read = accepted[name]
        edits.append(sum(Levenshtein.distance(texts.get(row, ""), read.get(row, "")) for row in texts.keys() | read))
        characters.append(sum(map(len, texts.values())))
    return edits, characters


def drifted(folder: Path, readings: dict[str, list], unit: str):
    """The batch's readings beside the evaluation that chose the threshold, by certificate; None where it has gone."""
    import numpy as np

    from htr.reliability.covariate_shift import covariate_shift_test
    from htr.reliability.units import PREFIX, codes, first_rows, groups_of_unit, line_signals
    from jobs.evaluation.results import Evaluation

    chosen = json.loads((folder / "promise.json").read_text(encoding="utf-8"))["chosen"]["evaluation"]
    signals = {name.removeprefix(PREFIX): name for name in readings if name.startswith(PREFIX)}
    try:
        reference = Evaluation.read(folder.resolve().parents[1] / "evaluation" / chosen)
    except ValueError as error:
        log(f"monitor: no drift check ({error})")
        return None
    if not signals:
        log("monitor: no drift check (the readings have no columns signal_NAME)")
        return None
    new = {
        name: np.array([np.nan if v in (None, "") else float(v) for v in readings[c]]) for name, c in signals.items()
    }
    read = np.flatnonzero(np.all([np.isfinite(column) for column in new.values()], axis=0))
    # transcribe's row of a field has the signals of one of its lines
    rows = np.arange(len(reference.table)) if unit == "line" else first_rows(groups_of_unit(reference.table, "field"))
    known = {name: column[rows] for name, column in line_signals(reference.table).items()}
    groups = codes(reference.table, "certificate")[rows]
    try:
        return covariate_shift_test(
            known, groups, {n: c[read] for n, c in new.items()}, codes(readings, "certificate")[read]
        )
    except ValueError as error:
        log(f"monitor: no drift check ({error})")
        return None
