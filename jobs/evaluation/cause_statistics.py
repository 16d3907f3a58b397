"""Bias of statistics of causes of death by reading errors, and by the acceptance of a promise.

    terms.json       {table, texts, clusters, unit, categories: {NAME: texts read both recall precision bias
                     bias_interval p q small clusters}}                               see htr/metrics/terms.py
    selection.json   {promise, texts, accepted, coverage, by: {year, field, length, COLUMN: {VALUE: {texts, coverage:
                     {value, interval}, clusters, small}}}, writers: {groups, none, quantiles: {0.1, 0.5, 0.9}
                     of each one's coverage}, categories: {NAME: texts coverage bias …}}

Both hold figures and names of categories, years and fields, and no text. They are made of an evaluation that is whole,
after metrics.json, and made anew whenever they are asked for.
"""

from pathlib import Path

import numpy as np

from htr.metrics.significance import is_small
from htr.metrics.terms import FRENCH, Found, Terms, by_cluster, find, of_acceptance, share, statistics
from htr.reliability.promise import Promise
from htr.reliability.units import lines_in
from jobs.evaluation.accumulators import LENGTH_EDGES, MAX_SLICES, classes
from jobs.evaluation.metrics import QUANTILES
from jobs.evaluation.results import Evaluation
from shards import files

COLUMNS = ("year", "field", "form", "level")
SHOWN = 25  # categories printed


def table_of(name: str) -> Path:
    """The file of a table of terms: its path, or "french" for the one that comes with the project."""
    return FRENCH if name == "french" else Path(name)


def write(folder: Path, terms: str | None, promise: Path | None) -> list[str]:
    """Write terms.json and selection.json into the evaluation's folder. -> lines for a person. Raises ValueError."""
    evaluation = Evaluation.read(folder)
    clusters, unit = np.unique(evaluation.groups("writer"), return_inverse=True)[1], "writer"
    if not evaluation.has_writers:
        unit = "certificate"
    found = None
    said = []
    if terms:
        texts = (evaluation.table[name].to_pylist() for name in ("reference", "hypothesis"))
        found = find(Terms.load(table_of(terms)), *texts)
        about = {"table": files.sha256(table_of(terms))[:16], "texts": len(clusters), "unit": unit}
        about |= {"clusters": int(clusters.max(initial=-1)) + 1, "categories": statistics(found, clusters)}
        files.replace(folder / "terms.json", files.to_json(about))
        said += printed(about["categories"])
    if promise:
        about = selection(evaluation, Promise.load(promise), clusters, found) | {"promise": promise.name}
        files.replace(folder / "selection.json", files.to_json(about))
        said.append(f"accepted under {promise.name}: {about['accepted']} of {about['texts']} texts")
        for column, values in about["by"].items():
            said.append(f"    by {column}: " + ", ".join(f"{v} {percent(r['coverage'])}" for v, r in values.items()))
    return said


def selection(evaluation: Evaluation, promise: Promise, clusters: np.ndarray, found: Found | None) -> dict:
    """What the promise accepts of the evaluation's texts. Raises ValueError where they were read under other conditions
    than those of the promise."""
    promise.check(evaluation.conditions)
    read = np.array([bool((text or "").strip()) for text in evaluation.table["hypothesis"].to_pylist()])
    accepted = promise.accept(promise.probability(evaluation.table), lines_in(evaluation.table)) & read
    result = {"texts": len(accepted), "accepted": int(accepted.sum()), "coverage": float(accepted.mean())}
    result["by"] = {}
    names = evaluation.table.column_names
    slices = {column: evaluation.table[column].to_pylist() for column in COLUMNS if column in names}
    edges = classes(LENGTH_EDGES)
    slices["length"] = [edges[i] for i in np.searchsorted(LENGTH_EDGES, evaluation.numbers("characters"))]
    for column, values in slices.items():
        values = np.array(["" if value is None else str(value) for value in values])
        there = edges if column == "length" else sorted(set(values))
        if 1 < len(set(values)) <= MAX_SLICES:
            rows = {v: covered(values == v, accepted, evaluation, clusters) for v in there if (values == v).any()}
            result["by"][column] = rows
    of = np.bincount(clusters)
    each = by_cluster(accepted, clusters) / np.maximum(of, 1)
    quantiles = dict(zip(map(str, QUANTILES), np.quantile(each, QUANTILES).tolist(), strict=True))
    result["writers"] = {"groups": len(of), "none": int((each == 0).sum()), "quantiles": quantiles}
    if found is not None:
        result["categories"] = of_acceptance(found, accepted, clusters)
    return result


def covered(inside: np.ndarray, accepted: np.ndarray, evaluation: Evaluation, clusters: np.ndarray) -> dict:
    of = by_cluster(inside, clusters)
    witnesses, characters = int(np.count_nonzero(of)), int(evaluation.numbers("characters")[inside].sum())
    found = {"texts": int(inside.sum()), "coverage": share(by_cluster(inside & accepted, clusters), of)}
    return found | {"clusters": witnesses, "small": is_small(witnesses, characters)}


def printed(categories: dict[str, dict]) -> list[str]:
    """The most frequent categories as a table for people."""
    often = sorted(categories.items(), key=lambda item: -item[1]["texts"])[:SHOWN]
    wide = max((len(name) for name, _ in often), default=8)
    lines = [f"{'':{wide}} {'texts':>6} {'read':>6} {'recall':>8} {'precision':>10} {'bias':>8}  {'95 %':20} {'q':>6}"]
    for name, row in often:
        within = row["bias_interval"]
        between = f"{100 * within[0]:+.1f} to {100 * within[1]:+.1f} %" if within else "-"
        bias = "-" if row["bias"] is None else f"{100 * row['bias']:+.1f} %"
        lines.append(f"{name:{wide}} {row['texts']:6d} {row['read']:6d} {percent(row['recall']):>8} "
                     f"{percent(row['precision']):>10} {bias:>8}  {between:20} {row['q']:6.3f}"
                     + (" *" if row["small"] else ""))  # fmt: skip
    return [*lines, "* few writers or texts"] if any(row["small"] for _, row in often) else lines


def percent(figure: dict) -> str:
    return "-" if figure["value"] is None else f"{100 * figure['value']:.1f} %"
