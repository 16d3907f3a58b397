"""python -m jobs calibrate --run RUN --fit DEV --choose CALIBRATION --judge TEST: probabilities, and a promise.

    for split in dev calibration test; do python -m jobs evaluate --run runs/ctc --split $split --decode beam; done
    python -m jobs calibrate --run runs/ctc --fit dev-014000-beam --choose calibration-014000-beam \
        --judge test-014000-beam --unit field --alpha 0.02 --delta 0.05 --name fields

It takes three evaluations of one reader that share no certificate and no writer. On the first (--fit) the signals of
the readings are calibrated to the probability that a line, word, field or certificate is right. On the second
(--choose) a threshold is chosen: with a probability of at least 1 - delta, the units that it accepts err at most alpha.
Or the answer is that nothing can be promised with these data. The third (--judge) tests both. RUN/reliability/NAME/ has
score.json, promise.json and reliability.json.

`--loss wrong`: the share of accepted units that differ from the transcription. `--loss cer`, for lines: the character
error rate of the accepted lines. You decide what is taken as independent, by an assumption: `--by writer` (the default
where writers are known; the promise is then about other writers of that kind), `--by certificate` (about other
certificates of the same writers and years), `--by unit` (as if no two units had anything in common). A writer counts as
at most --per-cluster units and, for CER, a line as at most --per-line characters; larger ones count in proportion. So
the effect of one writer is bounded before the data are seen (docs/reliability.md). Set both before you look at the
data.

A promise is about agreement with the transcription: typing errors and corrections of data entry count as errors of the
reading. Choose a threshold once. One that is chosen again and again on the same part, until it pleases, promises
nothing. So an existing promise is never replaced; --promises N is for several of them that are planned beforehand, and
one more than N is refused.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cli.console import log
from jobs.cli.settings import setting
from jobs.training.adopted import run_of
from shards.files import in_shell


@dataclass(frozen=True)
class Settings:
    run: Path | None = setting(None, "run whose evaluations these are")
    model: Path | None = setting(
        None, "folder of a model in place of a run, with the evaluations that evaluate made for it", metavar="FOLDER"
    )
    fit: str = setting(
        help="evaluation that the probabilities are fitted on, a name in RUN/evaluation or a folder (use dev)",
        metavar="EVALUATION",
    )
    choose: str = setting(help="evaluation that the threshold is chosen on (use calibration)", metavar="EVALUATION")
    judge: str = setting(help="evaluation that both are tested on (use test)", metavar="EVALUATION")
    unit: Literal["line", "field", "certificate"] = setting("field", "what is accepted as a whole")
    loss: Literal["wrong", "cer"] = setting(
        "wrong", "what is bounded: the share of wrong units (wrong), or the character error rate of lines (cer)"
    )
    alpha: float = setting(0.02, "largest error rate among what is accepted, as a share")
    delta: float = setting(0.05, "largest probability that the rate is higher")
    promises: int = setting(
        1,
        "number of promises that you will choose on this part, this one among them: each is tested at delta / N, so "
        "that all of them hold together with a probability of 1 - delta",
    )
    by: Literal["writer", "certificate", "unit"] | None = setting(
        None, "what is taken as independent (default: writer where writers are known, else certificate)"
    )
    per_cluster: int | None = setting(
        None,
        "largest number of units that one writer or certificate counts as (default: 10 for a writer, 5 for a "
        "certificate)",
    )
    per_line: int = setting(30, "with --loss cer: largest number of characters that a line counts as")
    may_share: list[Literal["writer"]] = setting([], "allow that the evaluations share writers, for splits by year")
    name: str | None = setting(None, "name of the promise (default: made of unit, loss, alpha and delta)")


def main(args: Settings) -> int:
    from htr.reliability.promise import Promise, files_of, score_of
    from htr.reliability.risk_control import choose, plan
    from htr.reliability.units import fit_scores
    from jobs.evaluation.promise_files import covariate_shift, describe_promise, judge_promise, reliability_of
    from jobs.evaluation.results import (
        Evaluation,
        check_apart,
        check_conditions,
        check_right_and_wrong,
        check_same_reader,
        find,
    )
    from shards import files

    check_options(args)
    # what is tested at delta / N each is true of all N with 1 - delta (Bonferroni)
    args = replace(args, run=run_of(args.run, args.model), delta=args.delta / args.promises)
    folder = args.run / "reliability" / (args.name or f"{args.unit}-{args.loss}-{args.alpha:g}-{args.delta:g}")
    if (folder / "promise.json").exists():
        raise ValueError(
            f"{folder}: this promise exists already and is never replaced: give another --name, or remove the folder"
        )
    parts = [Evaluation.read(find(args.run, given)) for given in (args.fit, args.choose, args.judge)]
    check_same_reader(parts)
    check_apart(parts, args.may_share)
    fitting, choosing, judging = parts
    by = args.by or ("writer" if choosing.has_writers else "certificate")
    check_draws(fitting, choosing, by)
    others = promises_on(args.run, choosing, but=folder)
    check_planned(args.promises, others, choosing)

    # ---------------------------------------------------------------- fit
    check_right_and_wrong(fitting, args.unit)
    known = "writer" if fitting.has_writers else "certificate"
    lines = [fitting.numbers(column) for column in ("exact", "edits", "characters")]
    scores, held_out = fit_scores(fitting.table, *lines, fitting.groups(known), fitting.table["word_right"].to_pylist())
    if score_of(args.unit, args.loss) not in scores:
        raise ValueError(f"{fitting.name}: its lines are all without an error, or all without a right character")
    log(f"calibrate: {', '.join(scores)} fitted on {len(fitting.table)} lines of {fitting.name}")

    # ---------------------------------------------------------------- choose
    before = units_of(fitting, args, by, held_out=held_out)
    units = units_of(choosing, args, by, scores)
    threshold, steps = choose(plan(before, units.count, args.alpha, args.delta), units)

    # ---------------------------------------------------------------- judge
    check_conditions(choosing)
    unknown = unknown_writers(choosing, args.unit) if by == "writer" else 0
    said = describe_promise(args, by, threshold, steps, units, choosing, unknown)
    note = {"conditions": choosing.conditions} | said
    note["judged"] = judge_promise(units_of(judging, args, by, scores), threshold, judging)
    note["drift"] = covariate_shift(choosing, judging, by)
    fitted = {"evaluation": fitting.name, "dataset": fitting.asked["dataset"], "split": fitting.asked["split"]}
    fitted |= {"lines": len(fitting.table), "groups": len(set(fitting.groups(known))), "by": known}
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files_of(scores, fitted, note, reliability_of(judging, scores)).items():
        files.replace(folder / file, content)
    print(Promise.load(folder).text)
    print_judgement(args, note, choosing, judging)
    if others:
        surely = max(1 - args.delta - sum(note["delta"] for note in others.values()), 0)
        log(f"calibrate: {len(others)} more promises were chosen on {choosing.name}: all {len(others) + 1} hold "
            f"together, and so does the one picked when they are known, with {100 * surely:g} % at least")  # fmt: skip
    then = (
        "" if threshold is None else f"; next: python -m jobs transcribe SCANS --promise {in_shell(folder)} --out FILE"
    )
    log(f"calibrate: {folder / 'promise.json'}{then}")
    return 0


def check_options(args: Settings) -> None:
    """Raises ValueError for values that no promise can have."""
    if args.loss == "cer" and args.unit != "line":
        raise ValueError("--loss cer is of lines: give --unit line")
    if not (0 < args.alpha < 1 and 0 < args.delta < 1):
        raise ValueError(f"--alpha {args.alpha:g} --delta {args.delta:g}: both are shares, over 0 and below 1")
    if (args.per_cluster is not None and args.per_cluster < 1) or args.per_line < 1:
        raise ValueError("--per-cluster and --per-line are 1 or more")
    if args.promises < 1:
        raise ValueError("--promises is 1 or more")


def print_judgement(args: Settings, note: dict, choosing, judging) -> None:
    """How the promise did on the part that it was not chosen on, and whether that part is like the other."""
    found = note["judged"]
    if note["threshold"] is not None and found["total"]:
        about = "" if found["low"] is None else f" ({100 * found['low']:.2f} to {100 * found['high']:.2f})"
        what = "of them wrong" if args.loss == "wrong" else "of their characters wrong"
        print(f"on {judging.name}: {100 * found['coverage']:.1f} % of {found['items']} accepted, "
              f"{100 * found['rate']:.2f} %{about} {what}")  # fmt: skip
    if note["drift"] and note["drift"]["warns"]:
        moved = [f"{signal} (p {p:.3f})" for signal, p in note["drift"]["signals"].items() if p <= 0.05]
        print(f"drift: {judging.name} is not like {choosing.name}: {', '.join(moved)}; the promise may not hold there")


def check_draws(fitting, choosing, by: str) -> None:
    """Raises ValueError where writers are to be the independent draws and are not."""
    if by != "writer":
        return
    if not choosing.has_writers:
        raise ValueError(f"{choosing.name} knows no writer: --by certificate")
    both = len(fitting.names("writer") & choosing.names("writer"))
    if both:
        raise ValueError(f"{fitting.name} and {choosing.name} have {both} writers in common: what is tested hangs on "
                         "them then, and no promise speaks of other writers. Give --by certificate, which speaks of "
                         "other certificates of the same writers")  # fmt: skip


def check_planned(planned: int, others: dict[str, dict], choosing) -> None:
    """Raises ValueError where all promises that were planned together on this part exist: this one would not hold with
    them as it says."""
    if 1 < planned <= len(others):
        raise ValueError(
            f"--promises {planned}, but {len(others)} promises were chosen on {choosing.name} already "
            f"({', '.join(sorted(others))}), one more was not planned: calibrate on a part that "
            f"chose none, or give --promises {len(others) + 1} and read with what probability all of them hold"
        )


def promises_on(run: Path, choosing, but: Path) -> dict[str, dict]:
    """By name the promises of this run that were chosen on the same part: each has a chance of its own to be false."""
    import json

    found = {}
    for path in sorted((run / "reliability").glob("*/promise.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # a damaged one promises nothing
            continue
        chosen = note.get("chosen", {})
        if path.parent != but and all(chosen.get(name) == choosing.asked.get(name) for name in ("dataset", "split")):
            found[path.parent.name] = note
    return found


def units_of(evaluation, args, by: str, scores=None, held_out=None):
    """What is accepted or not, and errs: by the scores or, of the part that they were fitted on, by what scores fitted
    without its writers say. What was read as nothing is never accepted, as in production: its probability is -inf.
    """
    import numpy as np

    from htr.reliability.promise import score_of
    from htr.reliability.risk_control import PER_CLUSTER, Units, numbered
    from htr.reliability.units import all_right, groups_of_unit, probabilities

    score = score_of(args.unit, args.loss)
    found = held_out[score] if held_out else probabilities(scores, evaluation.table, score)
    rows = rows_of_units(evaluation, args.unit)
    if args.unit == "line":
        errors, sizes, found = 1 - evaluation.numbers("exact")[rows], np.ones(len(rows)), found[rows]
        if args.loss == "cer":
            errors, sizes = (evaluation.numbers(name)[rows] for name in ("edits", "characters"))
    else:
        of_unit = groups_of_unit(evaluation.table, args.unit)
        errors, sizes = 1 - all_right(evaluation.numbers("exact"), of_unit), np.ones(len(rows))
        found = found if held_out else found[rows]
    found = np.where(is_read(evaluation, args.unit)[rows], found, -np.inf)
    if args.loss == "wrong" and by in (args.unit, "unit"):
        return Units(found, errors, sizes)
    groups = np.arange(len(rows)) if by == "unit" else evaluation.groups(by)[rows]
    limits = args.per_cluster or PER_CLUSTER[by], float(args.per_line) if args.loss == "cer" else 1.0
    return Units(found, errors, sizes, numbered(groups), *limits)


def rows_of_units(evaluation, unit: str):
    """(units,) the number of one row of each unit."""
    import numpy as np

    from htr.reliability.units import first_rows, groups_of_unit, lines_in, units_among

    if unit == "line":
        return np.flatnonzero(units_among(unit, lines_in(evaluation.table)))
    return first_rows(groups_of_unit(evaluation.table, unit))


def unknown_writers(evaluation, unit: str) -> int:
    """How many of the draws are certificates whose writer is not known."""
    groups = evaluation.groups("writer")[rows_of_units(evaluation, unit)].tolist()
    return sum(name.startswith("certificate ") for name in set(groups))


def is_read(evaluation, unit: str):
    """(N,) bool: whether the row's line, field or certificate was read as some text. Nothing else is ever accepted."""
    import numpy as np

    from htr.reliability.units import groups_of_unit

    some = np.array([bool((text or "").strip()) for text in evaluation.table["hypothesis"].to_pylist()])
    if unit == "line":
        return some
    of_unit = groups_of_unit(evaluation.table, unit)
    return (np.bincount(of_unit, some) > 0)[of_unit]
