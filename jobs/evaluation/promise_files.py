"""The files of a promise: its text and numbers, how it did on a part apart, and the reliability of all units.

`args`: the settings of the verb, of which unit, loss, alpha and delta are used.
"""

import math
from dataclasses import asdict

import numpy as np

from htr.reliability.covariate_shift import covariate_shift_test
from htr.reliability.diagrams import figures, resamples, with_interval
from htr.reliability.risk_control import coverage, error_rate, lower, needed, needed_clusters, upper
from htr.reliability.units import (
    CHARACTER,
    all_right,
    first_rows,
    groups_of_unit,
    least_of,
    line_signals,
    lines_in,
    probabilities,
    units_among,
    word_signals,
)

PLURAL = {"line": "lines", "field": "fields", "certificate": "certificates"}


def promise_in_words(args, by: str, threshold, steps, units, unknown: int = 0) -> tuple[str, str, int]:
    """-> what is promised, or that nothing can be; what it assumes; how many units, or clusters, it takes at least.

    `unknown`: of the clusters, certificates whose writer nobody knows.
    """
    independent = args.unit if by == "unit" else by
    many, groups = PLURAL[args.unit], f"{independent}s"
    of = f"{units.count} {groups}"
    if unknown:
        of = f"{units.count - unknown} writers and {unknown} certificates of unknown writers"
    items, last = len(units.probability), steps[-1]
    sure, most = f"{100 * (1 - args.delta):g} %", f"{100 * args.alpha:g} %"
    counts = ""
    if units.groups is not None and by != "unit":
        each = f"a {independent}" + (", or a certificate of an unknown one," if unknown else "")
        counts = f", where {each} counts as at most {units.per_cluster} {many}"
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
            f"Of the {many} accepted (probability at least {in_digits(threshold)}; {100 * share:.1f} % of those that "
            f"chose it) {what}{counts}, with a probability of at least {sure} over the choice by {items} {many} of "
            f"{of}."
        )
    else:
        rate = f"{last.errors:.3g} wrong of {last.total:.3g} as weighted" if last.total else "none accepted"
        text = (
            f"Nothing can be promised with these data ({items} {many} of {of}): that the accepted {many} "
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
    if unknown:
        assumes += "Certificates whose writer is not known are taken as of a writer each. "
    assumes += "It is against the transcription, whose own errors count as the reading's."
    if counts:
        assumes += f" What has more counts in proportion{counts.replace(', where', ':')}."
    return text, assumes, least


def in_digits(probability: float) -> str:
    """Four digits, and as many as it takes to tell it from 1."""
    digits = math.ceil(-math.log10(1 - probability)) if 0.99995 <= probability < 1 else 4
    return f"{probability:.{digits}f}"


def describe_promise(args, by: str, threshold, steps, units, choosing, unknown: int = 0) -> dict:
    """The content of promise.json, but for how it was judged; `unknown` as above."""
    text, assumes, least = promise_in_words(args, by, threshold, steps, units, unknown)
    independent, items, count = args.unit if by == "unit" else by, len(units.probability), units.count
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


def judge_promise(units, threshold, judging) -> dict:
    """The threshold's error rate and coverage on a part that nothing was chosen on, with a 95 % interval: exact, or
    over clusters."""
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


def covariate_shift(choosing, judging, by: str) -> dict | None:
    """A test of whether the two parts differ in their signals; None with fewer than two clusters."""
    by = "certificate" if by == "unit" else by
    try:
        found = covariate_shift_test(
            line_signals(choosing.table), choosing.groups(by), line_signals(judging.table), judging.groups(by)
        )
    except ValueError:
        return None
    return {"p": found.p, "signals": found.signals, "shifts": found.shifts, "warns": found.warns,
            "groups": list(found.groups), "against": judging.name}  # fmt: skip


def reliability_of(judging, scores) -> dict:
    """The content of reliability.json: for each unit how well probabilities agree with what is right, before and after
    calibration."""
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
            alone = units_among("line", lines_in(table))
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
