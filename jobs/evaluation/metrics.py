"""The metrics of an evaluation, from the sums of its parts: all of metrics.json but the settings."""

from collections import Counter

import numpy as np

from htr.metrics import counts
from htr.metrics.characters import CLASSES, class_of
from htr.metrics.intervals import CONFIDENCE_LEVEL, Interval, doubts, ratio_interval, share_interval
from htr.metrics.significance import is_small
from htr.metrics.yearly_trend import yearly_trend
from jobs.evaluation.accumulators import MAX_SLICES, Accumulator, grouped

MAX_CONFUSIONS, MIN_CONFUSION_COUNT = 100, 5  # confusions shown, and how often one must be there to be shown
QUANTILES = (0.1, 0.5, 0.9)
RATES = {"cer": ("edits", "characters"), "wer": ("word_edits", "words")}


def metrics_of(sums: Accumulator) -> dict:
    """The content of metrics.json, but for what was asked for and the words unseen in training."""
    clusters = len(sums.names["cluster"])
    totals = {name: int(sums.cluster(name).sum()) for name in sums.columns}
    lines = {name: sums.line(name) for name in ("cluster", "certificate", *counts.OF_TEXT)}
    found = {name: totals[name] for name in (*counts.OF_TEXT, *counts.OTHERS)} | {"lines": len(lines["cluster"])}
    found |= rates(totals, found["lines"]) | {
        "wer_unicode": over(totals["word_edits_unicode"], totals["words_unicode"])
    }
    cluster_lines = np.bincount(lines["cluster"], minlength=clusters)
    within = {name: pair(ratio_interval(*map(sums.cluster, both))) for name, both in RATES.items()}
    within["wer_unicode"] = pair(ratio_interval(sums.cluster("word_edits_unicode"), sums.cluster("words_unicode")))
    within["line_accuracy"] = pair(share_interval(sums.cluster("exact"), cluster_lines))
    method = ratio_interval(*map(sums.cluster, RATES["cer"]))
    for name, codes in units(sums, lines).items():
        whole, right, of = whole_units(codes, lines, clusters)
        correct = int(right.sum())
        found |= {f"{name}s": whole, f"{name}s_exact": correct, f"{name}_accuracy": over(correct, whole)}
        within[f"{name}_accuracy"] = pair(share_interval(right, of))
    found["interval"] = within | about(sums, clusters) | {"method": method and method.method, "level": CONFIDENCE_LEVEL}
    found["macro"] = {name: macro(name, sums, lines, clusters) for name in ("writer", "certificate")}
    found["normalised"] = normalised(sums, totals, cluster_lines)
    found |= {"value": values(sums, totals), "blank": blanks(sums, totals)}
    found |= {"character_classes": character_classes(sums, totals), "confusions": confusions(sums.confusions)}
    found["by"], found["drift"] = slices(sums, lines)
    found["unseen"] = None
    return found


def over(number: int, of: int) -> float | None:
    return number / of if of else None


def pair(found: Interval | None) -> list[float] | None:
    return [found.low, found.high] if found else None


def rates(sums: dict[str, int], lines: int) -> dict[str, float | None]:
    return {
        **{name: over(sums[errors], sums[total]) for name, (errors, total) in RATES.items()},
        "line_accuracy": over(sums["exact"], lines),
    }


def about(sums: Accumulator, clusters: int) -> dict:
    """What the clusters of the intervals are, and warnings about them."""
    writers = sum(name.startswith("w") for name in sums.names["cluster"].numbers)
    unit = "writer" if writers == clusters else "certificate" if not writers else "writer or certificate"
    warnings = []
    if unit != "writer":
        whose = f"{sums.without_writer} lines do not say who wrote them" if writers else "no line says who wrote it"
        warnings.append(f"{whose}: intervals take certificates as independent, and speak of the same physicians only")
    warnings += doubts(*map(sums.cluster, RATES["cer"]), unit if " " not in unit else "cluster")
    return {"groups": clusters, "unit": unit, "warning": "; ".join(warnings) or None}


def units(sums: Accumulator, lines: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """The numbers that identify a field of a certificate (none where fields have no names), and a certificate."""
    named = set(sums.slices["field"].numbers) - {""} if "field" in sums.slices else set()
    field = [lines["certificate"], sums.line("by field")] if named else []
    return {"field": field, "certificate": [lines["certificate"]]}


def whole_units(
    codes: list[np.ndarray], lines: dict[str, np.ndarray], clusters: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """-> how many units there are; for each cluster (clusters,) how many without a wrong line, and (clusters,) how many
    in all."""
    if not codes:
        return 0, np.zeros(clusters, np.int64), np.zeros(clusters, np.int64)
    (first, *_), which = grouped(*codes)
    wrong = np.bincount(which, 1 - lines["exact"], len(first)) > 0
    owner = np.zeros(len(first), np.int32)
    owner[which] = lines["cluster"]
    right = np.bincount(owner, ~wrong, clusters).astype(np.int64)
    return len(first), right, np.bincount(owner, minlength=clusters)


def macro(name: str, sums: Accumulator, lines: dict[str, np.ndarray], clusters: int) -> dict | None:
    """The mean over writers, or certificates, of a rate of each; those with nothing to divide by are left out."""
    if name == "writer" and sums.without_writer == len(lines["cluster"]):
        return None
    code, groups = sums.line(name), len(sums.names[name])
    owner = np.zeros(groups, np.int32)
    owner[code] = lines["cluster"]
    named = np.ones(groups, bool)
    if name == "writer" and "" in sums.names[name].numbers:
        named[sums.names[name].numbers[""]] = False
    found: dict = {"groups": int(named.sum()), "interval": {}}
    for rate, (errors, total) in RATES.items():
        of = np.bincount(code, lines[total], groups)
        some = named & (of > 0)
        each = np.bincount(code, lines[errors], groups)[some] / of[some]
        found[rate] = float(each.mean()) if len(each) else None
        # as whole millionths: their sums are then the same in whatever order
        parts = (np.bincount(owner[some], what, clusters) for what in (np.rint(1e6 * each), np.full(len(each), 1e6)))
        numerator, denominator = parts
        kept = denominator > 0
        found["interval"][rate] = pair(ratio_interval(numerator[kept], denominator[kept]))
        if rate == "cer":
            edges = np.quantile(each, QUANTILES).tolist() if len(each) else [None] * len(QUANTILES)
            found["quantiles"] = dict(zip(map(str, QUANTILES), edges, strict=True))
    return found


def normalised(sums: Accumulator, totals: dict[str, int], cluster_lines: np.ndarray) -> dict:
    found = {}
    for name in counts.names(table=True):
        columns = {stem: counts.column(stem, name) for stem in counts.OF_TEXT}
        if columns["edits"] not in totals:
            continue
        own = {stem: totals[column] for stem, column in columns.items()}
        within = {rate: pair(ratio_interval(*(sums.cluster(columns[c]) for c in both))) for rate, both in RATES.items()}
        within["line_accuracy"] = pair(share_interval(sums.cluster(columns["exact"]), cluster_lines))
        found[name] = own | rates(own, int(cluster_lines.sum())) | {"interval": within}
    return found


def values(sums: Accumulator, totals: dict[str, int]) -> dict:
    found = {}
    for kind in counts.KINDS:
        lines, right, same = (totals[f"{what}_{kind}"] for what in ("value", "right", "same"))
        if not lines:
            continue
        of = sums.cluster(f"value_{kind}")
        found[kind] = {
            "lines": lines,
            "right": right,
            "accuracy": right / lines,
            "exact": same,
            "exact_accuracy": same / lines,
        }
        found[kind] |= {
            "interval": some_share(sums.cluster(f"right_{kind}"), of),
            "clusters": int(np.count_nonzero(of)),
        }
    return found


def some_share(right: np.ndarray, of: np.ndarray) -> list[float] | None:
    """The interval of a share, over the clusters that have any: one without any says nothing."""
    return pair(share_interval(right[of > 0], of[of > 0]))


def some_errors(errors: np.ndarray, of: np.ndarray) -> list[float] | None:
    """The same for a share of errors, which is rare."""
    found = some_share(of - errors, of)
    return found and [1 - found[1], 1 - found[0]]


def blanks(sums: Accumulator, totals: dict[str, int]) -> dict:
    blank, written = sums.cluster("blank"), sums.cluster("written")
    return {
        "lines": totals["blank"],
        "false_text": totals["false_text"],
        "false_text_rate": over(totals["false_text"], totals["blank"]),
        "interval": some_errors(sums.cluster("false_text"), blank),
        "written": totals["written"],
        "read_blank": totals["read_blank"],
        "read_blank_rate": over(totals["read_blank"], totals["written"]),
        "read_blank_interval": some_errors(sums.cluster("read_blank"), written),
    }


def character_classes(sums: Accumulator, totals: dict[str, int]) -> dict:
    found = {}
    for place, name in enumerate(CLASSES):
        of, missed = totals[f"of_{name}"], totals[f"missed_{name}"]
        put_in = sum(
            number for (one, other), number in sums.confusions.items() if not one and class_of(other) >> place & 1
        )
        within = some_errors(sums.cluster(f"missed_{name}"), sums.cluster(f"of_{name}"))
        found[name] = {
            "characters": of,
            "missed": missed,
            "rate": over(missed, of),
            "interval": within,
            "inserted": put_in,
        }
    return found


def confusions(pairs: Counter) -> list[dict]:
    often = sorted((-number, one, other) for (one, other), number in pairs.items() if number >= MIN_CONFUSION_COUNT)
    return [{"reference": one, "hypothesis": other, "count": -number} for number, one, other in often[:MAX_CONFUSIONS]]


# ---------------------------------------------------------------------------------------------------- slices


def slices(sums: Accumulator, lines: dict[str, np.ndarray]) -> tuple[dict, dict | None]:
    """`by` and `drift`."""
    found, moved = {}, None
    columns = [*sorted(sums.slices), "length", "width", "writer"]
    for column in columns:
        if column == "writer" and len(sums.names["writer"]) > MAX_SLICES:
            continue
        names = sums.value_names(column)
        if len(names) < 2:
            continue
        code = sums.line("writer" if column == "writer" else f"by {column}")
        (value, cluster), which = grouped(code, lines["certificate" if column == "writer" else "cluster"])
        own = {name: np.bincount(which, lines[name], len(value)).astype(np.int64) for name in counts.OF_TEXT}
        own["lines"] = np.bincount(which, minlength=len(value))
        there = np.unique(value).tolist()
        if len(there) > 1:
            order = sorted(there, key=None if column in ("length", "width") else names.__getitem__)
            edge = {number: slice(*np.searchsorted(value, [number, number + 1])) for number in order}
            found[column] = {names[n]: of_slice({k: v[edge[n]] for k, v in own.items()}) for n in order}
        if column == "year":
            moved = by_year(names, value, cluster, own)
    return found, moved


def of_slice(own: dict[str, np.ndarray]) -> dict:
    """(clusters,) sums of a slice -> its metrics."""
    totals = {name: int(values.sum()) for name, values in own.items()}
    within = {name: pair(ratio_interval(own[errors], own[total])) for name, (errors, total) in RATES.items()}
    within["line_accuracy"] = pair(share_interval(own["exact"], own["lines"]))
    clusters = len(own["lines"])
    small = is_small(clusters, totals["characters"])
    return totals | rates(totals, totals["lines"]) | {"interval": within, "clusters": clusters, "small": small}


def by_year(names: list[str], value: np.ndarray, cluster: np.ndarray, own: dict[str, np.ndarray]) -> dict | None:
    """Drift over the years; values that are no number are left out. None with fewer than two years."""
    year = np.array([int(name) if name.isdecimal() and len(name) < 6 else -1 for name in names])[value]
    kept = year >= 0
    return yearly_trend(year[kept], cluster[kept], own["edits"][kept], own["characters"][kept])
