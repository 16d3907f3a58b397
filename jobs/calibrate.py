"""python -m jobs calibrate --run RUN --fit DEV --choose CALIBRATION --judge TEST: probabilities, and a promise.

    for split in dev calibration test; do python -m jobs evaluate --run runs/ctc --split $split --decode beam; done
    python -m jobs calibrate --run runs/ctc --fit dev-014000-beam --choose calibration-014000-beam \
        --judge test-014000-beam --unit field --alpha 0.02 --delta 0.05 --name fields

Three evaluations of one reader that share no certificate and no writer: on the first the signals of readings are made
into the probability that a line, word, field or certificate is right; on the second a threshold is chosen, so that with
probability 1 - delta at least what it accepts errs at most alpha, or the answer is that nothing can be promised with
these data; on the third both are judged. RUN/reliability/NAME/ has score.json, promise.json and reliability.json.

`--loss wrong`: the share of accepted units that differ from the transcription. `--loss cer`, of lines: the character
error rate of the accepted lines. What is independent of what is an assumption, and yours: `--by writer` (the default
where writers are known: it speaks of other writers of that kind), `--by certificate` (of other certificates of the same
writers and years), `--by unit` (as if no two units had anything in common). A writer counts as at most --per-cluster
units, and of CER a line as at most --per-line characters, what has more in proportion: so the worst that one writer can
do is known before any of them is seen (docs/reliability.md). Set both before you look at the data.

A promise is against the transcription: what data entry has mistyped or mended counts as an error of the reading. It is
about readings chosen as these were: choose a threshold once, since one that is chosen again and again on the same part,
until it pleases, promises nothing; so a promise that is there is not replaced.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cli.console import log
from jobs.cli.settings import setting
from jobs.training.adopted import run_of

PLURAL = {"line": "lines", "field": "fields", "certificate": "certificates"}


@dataclass(frozen=True)
class Settings:
    run: Path | None = setting(None, "the run whose evaluations these are")
    model: Path | None = setting(
        None, "a model's folder in place of a run: what evaluate made for it", metavar="FOLDER"
    )
    fit: str = setting(help="a name under RUN/evaluation (dev), or a folder", metavar="EVALUATION")
    choose: str = setting(help="the same (calibration)", metavar="EVALUATION")
    judge: str = setting(help="the same (test)", metavar="EVALUATION")
    unit: Literal["line", "field", "certificate"] = setting("field", "what is accepted as a whole (default: field)")
    loss: Literal["wrong", "cer"] = setting("wrong")
    alpha: float = setting(0.02, "errors among what is accepted, at most (default: 0.02)")
    delta: float = setting(0.05, "the probability that it is more, at most (default: 0.05)")
    by: Literal["writer", "certificate", "unit"] | None = setting(
        None, "what is taken as independent (default: see above)"
    )
    per_cluster: int | None = setting(None, "units that a writer or certificate counts as, at most (default: 10 and 5)")
    per_line: int = setting(30, "of CER: characters that a line counts as, at most (default: 30)")
    may_share: list[Literal["writer"]] = setting([], "where splits are made by year")
    name: str | None = setting(None, "of the promise (default: of unit, loss, alpha and delta)")


def main(args: Settings) -> int:
    from htr.reliability.promise import Promise, files_of, score_of
    from htr.reliability.risk_control import choose, plan
    from htr.reliability.units import fit_scores
    from jobs.evaluation.results import Evaluation, check_apart, check_same_reader, find
    from shards import files

    args = replace(args, run=run_of(args.run, args.model))
    name = args.name or f"{args.unit}-{args.loss}-{args.alpha:g}-{args.delta:g}"
    folder = args.run / "reliability" / name
    if args.loss == "cer" and args.unit != "line":
        raise ValueError("--loss cer is of lines: give --unit line")
    if not (0 < args.alpha < 1 and 0 < args.delta < 1):
        raise ValueError(f"--alpha {args.alpha:g} --delta {args.delta:g}: both are shares, over 0 and below 1")
    if (args.per_cluster is not None and args.per_cluster < 1) or args.per_line < 1:
        raise ValueError("--per-cluster and --per-line are 1 or more")
    if (folder / "promise.json").exists():
        raise ValueError(f"{folder}: a promise is there, and is not made twice: give another --name, or remove it")
    parts = [Evaluation.read(find(args.run, given)) for given in (args.fit, args.choose, args.judge)]
    check_same_reader(parts)
    check_apart(parts, args.may_share)
    fitting, choosing, judging = parts
    by = args.by or ("writer" if any(part.has_writers for part in parts) else "certificate")

    # ---------------------------------------------------------------- fit
    known = "writer" if fitting.has_writers else "certificate"
    lines = [fitting.numbers(column) for column in ("exact", "edits", "characters")]
    scores, held_out = fit_scores(fitting.table, *lines, fitting.groups(known), fitting.table["word_right"].to_pylist())
    if score_of(args.unit, args.loss) not in scores:
        raise ValueError(
            f"{fitting.name}: no {args.unit} can be told from another there: all right, all wrong, or none"
        )
    log(f"calibrate: {', '.join(scores)} fitted on {len(fitting.table)} lines of {fitting.name}")

    # ---------------------------------------------------------------- choose
    before = units_of(fitting, args, by, held_out=held_out)
    units = units_of(choosing, args, by, scores)
    threshold, steps = choose(plan(before, units.count, args.alpha, args.delta), units)

    # ---------------------------------------------------------------- judge, and say
    check_conditions(choosing)
    note = {"conditions": choosing.conditions} | described(args, by, threshold, steps, units, choosing)
    note["judged"] = judged(units_of(judging, args, by, scores), threshold, judging)
    note["drift"] = drifted(choosing, judging, by)
    fitted = {"evaluation": fitting.name, "dataset": fitting.asked["dataset"], "split": fitting.asked["split"]}
    fitted |= {"lines": len(fitting.table), "groups": len(set(fitting.groups(known))), "by": known}
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files_of(scores, fitted, note, figures_of(judging, scores)).items():
        files.replace(folder / file, content)
    print(Promise.load(folder).text)
    found = note["judged"]
    if threshold is not None and found["total"]:
        about = "" if found["low"] is None else f" ({100 * found['low']:.2f} to {100 * found['high']:.2f})"
        print(f"on {judging.name}: {100 * found['coverage']:.1f} % of {found['items']} accepted, "
              f"{100 * found['rate']:.2f} %{about} of them wrong")  # fmt: skip
    if note["drift"] and note["drift"]["warns"]:
        moved = [f"{signal} (p {p:.3f})" for signal, p in note["drift"]["signals"].items() if p <= 0.05]
        print(f"drift: {judging.name} is not like {choosing.name}: {', '.join(moved)}; the promise may not hold there")
    log(f"calibrate: {folder / 'promise.json'}")
    return 0


def units_of(evaluation, args, by: str, scores=None, held_out=None):
    """What is accepted or not, and errs: by the scores or, of the part that they were fitted on, by what scores fitted
    without its writers say. What was read as nothing is never accepted, as in production: its probability is -inf.
    """
    import numpy as np

    from htr.reliability.promise import score_of
    from htr.reliability.risk_control import PER_CLUSTER, Units
    from htr.reliability.units import all_right, first_rows, groups_of_unit, lines_in, probabilities

    score = score_of(args.unit, args.loss)
    found = held_out[score] if held_out else probabilities(scores, evaluation.table, score)
    if args.unit == "line":
        rows = np.flatnonzero(lines_in(evaluation.table) == 1)
        errors, sizes, found = 1 - evaluation.numbers("exact")[rows], np.ones(len(rows)), found[rows]
        if args.loss == "cer":
            errors, sizes = (evaluation.numbers(name)[rows] for name in ("edits", "characters"))
    else:
        of_unit = groups_of_unit(evaluation.table, args.unit)
        rows = first_rows(of_unit)
        errors, sizes = 1 - all_right(evaluation.numbers("exact"), of_unit), np.ones(len(rows))
        found = found if held_out else found[rows]
    found = np.where(is_read(evaluation, args.unit)[rows], found, -np.inf)
    if args.loss == "wrong" and by in (args.unit, "unit"):
        return Units(found, errors, sizes)
    groups = np.arange(len(rows)) if by == "unit" else evaluation.groups(by)[rows]
    limits = args.per_cluster or PER_CLUSTER[by], float(args.per_line) if args.loss == "cer" else 1.0
    return Units(found, errors, sizes, np.unique(groups, return_inverse=True)[1], *limits)


def is_read(evaluation, unit: str):
    """(N,) of each row whether its line, field or certificate was read as some text: nothing else is accepted."""
    import numpy as np

    from htr.reliability.units import groups_of_unit

    some = np.array([bool((text or "").strip()) for text in evaluation.table["hypothesis"].to_pylist()])
    if unit == "line":
        return some
    of_unit = groups_of_unit(evaluation.table, unit)
    return (np.bincount(of_unit, some) > 0)[of_unit]


def check_conditions(evaluation) -> None:
    """Raises ValueError for an evaluation of an older version, which did not note how it was read."""
    missing = [name for name, value in evaluation.conditions.items() if value is None and name != "decoding"]
    if missing:
        raise ValueError(
            f"{evaluation.name} does not say under what {', '.join(missing)} it was read: evaluate again, under "
            f"another --name, since a promise holds for readings made in the same way alone"
        )


def described(args, by: str, threshold, steps, units, choosing) -> dict:
    """promise.json but for how it was judged."""
    from dataclasses import asdict

    from htr.reliability.risk_control import coverage, needed, needed_clusters

    independent = args.unit if by == "unit" else by
    many, groups = PLURAL[args.unit], f"{independent}s"
    items, count, last = len(units.probability), units.count, steps[-1]
    sure, most = f"{100 * (1 - args.delta):g} %", f"{100 * args.alpha:g} %"
    counts = ""
    if units.groups is not None and by != "unit":
        counts = f", where a {independent} counts as at most {units.per_cluster} {many}"
    if args.loss == "cer":
        counts += f"{' and' if counts else ', where'} a line as at most {units.per_unit:g} characters"
    if threshold is not None:
        share = coverage(units, threshold)
        what = (
            f"the character error rate against the transcription is at most {most}"
            if args.loss == "cer"
            else f"at most {most} differ from the transcription"
        )
        text = (
            f"Of the {many} accepted (probability at least {threshold:.4f}; {100 * share:.1f} % of those that chose "
            f"it) {what}{counts}, with a probability of at least {sure} over the choice by {items} {many} of {count} "
            f"{groups}."
        )
    else:
        rate = f"{last.errors:g} in {last.total:g}" if last.total else "none accepted"
        text = (
            f"Nothing can be promised with these data ({items} {many} of {count} {groups}): that the accepted {many} "
            f"err at most {most}{counts} could not be shown with {sure} at the first threshold tested ({rate}, p "
            f"{last.p:.2g})."
        )
    if units.groups is None:
        least = needed(args.alpha, args.delta)
        text += f" It takes at least {least} accepted {many} without an error."
    else:
        least = needed_clusters(args.alpha, args.delta)
        text += f" It takes at least {least} {groups} whose {many} are all accepted and without an error."
    kind = {
        "writer": "other writers of this kind",
        "certificate": "other certificates of the same writers, years and scanners",
    }.get(independent, f"other {many} of this kind, if no two of them have anything in common")
    assumes = f"{groups[0].upper()}{groups[1:]} are independent draws: the promise speaks of {kind}. "
    assumes += "It is against the transcription, whose own errors count as the reading's."
    if counts:
        assumes += f" What has more counts in proportion{counts.replace(', where', ':')}."
    return {
        "unit": args.unit, "loss": args.loss, "alpha": args.alpha, "delta": args.delta, "threshold": threshold,
        "promise": text, "assumes": assumes, "test": "binomial" if units.groups is None else "betting",
        "clusters": {"by": independent, "count": count}, "sequence": [
            asdict(step) | {"rate": step.errors / step.total if step.total else None} for step in steps
        ],
        "coverage": coverage(units, threshold) if threshold is not None else None,
        "needed": least, "per_cluster": units.per_cluster if units.groups is not None else None,
        "per_unit": units.per_unit if units.groups is not None else None,
        "chosen": {"evaluation": choosing.name, "dataset": choosing.asked["dataset"], "split": choosing.asked["split"],
                   "lines": len(choosing.table), "items": items, "groups": count, "by": independent},
    }  # fmt: skip


def judged(units, threshold, judging) -> dict:
    """How the threshold does on a part that nothing was chosen on, with a 95 % interval: exact, or over groups."""
    import numpy as np

    from htr.reliability.diagrams import resamples, with_interval
    from htr.reliability.risk_control import coverage, error_rate, lower, upper

    errors, total = error_rate(units, threshold)
    accepted = round(coverage(units, threshold) * len(units.probability))
    rate, low, high = (errors / total if total else None), None, None
    if total and units.groups is None:
        low, high = lower(int(errors), accepted, 0.025), upper(int(errors), accepted, 0.025)
    elif total:
        group, draws = resamples(units.groups)
        inside = units.probability >= threshold
        inside = inside * units.weights
        sums = [np.bincount(group, column * inside, draws.shape[1]) for column in (units.errors, units.sizes)]
        bounds = with_interval(rate, draws, lambda w: (w @ sums[0]) / max(w @ sums[1], 1e-12))
        low, high = bounds["low"], bounds["high"]
    return {
        "evaluation": judging.name, "split": judging.asked["split"], "items": len(units.probability),
        "accepted": accepted, "coverage": coverage(units, threshold), "errors": errors, "total": total,
        "rate": rate, "low": low, "high": high,
    }  # fmt: skip


def drifted(choosing, judging, by: str) -> dict | None:
    """Whether the two parts are alike by their signals; None with fewer than two groups."""
    from htr.reliability.covariate_shift import covariate_shift_test
    from htr.reliability.units import line_signals

    by = "certificate" if by == "unit" else by
    try:
        found = covariate_shift_test(
            line_signals(choosing.table), choosing.groups(by), line_signals(judging.table), judging.groups(by)
        )
    except ValueError:
        return None
    return {"p": found.p, "signals": found.signals, "shifts": found.shifts, "warns": found.warns,
            "groups": list(found.groups), "against": judging.name}  # fmt: skip


def figures_of(judging, scores) -> dict:
    """reliability.json: of every unit how far its probabilities hold, before and after."""
    import numpy as np

    from htr.reliability.diagrams import figures
    from htr.reliability.units import (
        CHARACTER,
        all_right,
        first_rows,
        groups_of_unit,
        least_of,
        lines_in,
        probabilities,
        word_signals,
    )

    by = "writer" if judging.has_writers else "certificate"
    groups, table = judging.groups(by), judging.table
    exact, edits, characters = (judging.numbers(name) for name in ("exact", "edits", "characters"))
    confidence, found = judging.numbers("confidence"), {}
    for unit in scores:
        calibrated = probabilities(scores, table, unit)
        plain, of_unit, extra = {"confidence": confidence}, groups, {}
        if unit in ("line", CHARACTER):
            plain["frames"], extra = judging.numbers("signal_frames"), {"edits": edits, "characters": characters}
            right = exact if unit == "line" else 1 - np.minimum(edits, characters) / np.maximum(characters, 1)
            alone = lines_in(table) == 1
            right, of_unit, calibrated = right[alone], groups[alone], calibrated[alone]
            plain, extra = ({name: values[alone] for name, values in part.items()} for part in (plain, extra))
        elif unit == "word":
            signals, rows = word_signals(table)
            right = np.array([float(one) for words in table["word_right"].to_pylist() for one in words])
            plain, of_unit = {"confidence": signals["confidence"]}, groups[rows]
        else:
            of_lines = groups_of_unit(table, unit)
            rows = first_rows(of_lines)
            least = least_of(confidence, of_lines, len(rows))  # as sure as its least sure line
            right, of_unit = all_right(exact, of_lines), groups[rows]
            plain, calibrated = {"confidence": least}, calibrated[rows]
        if len(right):
            about = {n: figures(p, right, of_unit, **extra) for n, p in {**plain, "calibrated": calibrated}.items()}
            found[unit] = {"items": len(right), "right": float(right.mean()), "scores": about}
    return {"evaluation": judging.name, "split": judging.asked["split"], "by": by,
            "groups": len(set(groups)), "units": found}  # fmt: skip
