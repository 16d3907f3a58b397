"""Paired comparison of two evaluations of the same lines: difference of CER, interval, significance.

against-RUN-NAME.json in the folder of the first: {difference, low, high, p, lines, groups, unit, warning, by: {COLUMN:
{VALUE: {difference, low, high, p, q, lines, clusters, small}}}}. `warning`: how many lines only one of them has, and
why the interval may cover too seldom; or null. Differences are CER less the other's; p is that of a sign-flip test over
clusters, q that of false discovery over all slices (htr/metrics/significance.py).
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.metrics.intervals import difference_interval, doubts
from htr.metrics.significance import false_discovery, is_small, sign_flip
from jobs.evaluation.accumulators import MAX_SLICES, NO_SLICE, NameCodes, cluster_of, grouped, strings, writer_keys
from shards import files

OF_LINES = ("key", "certificate", "writer", "reference", "edits", "characters")


def paired(folder: Path, other: Path) -> dict:
    """The first one's CER less that of the other, on the lines that both have.

    Raises ValueError when either is not whole, when they share no line, or hold different references of the same line.
    """
    one, two = lines_of(folder, slices=True), lines_of(other)
    both = one.join(
        two.rename_columns({name: f"other {name}" for name in two.column_names}), "key", "other key", "inner"
    )
    if not both.num_rows:
        raise ValueError(f"{folder} and {other} have no line in common: were they made from different data sets?")
    differ = pc.sum(pc.not_equal(both["reference"], both["other reference"])).as_py()
    if differ:
        raise ValueError(f"{folder} and {other} hold different references of {differ} lines: compare like with like")
    both = both.sort_by("key")
    edits = both["edits"].to_numpy().astype(np.int64) - both["other edits"].to_numpy()
    counts = {"edits": edits, "characters": both["characters"].to_numpy().astype(np.int64)}
    names = cluster_of(strings(both, "certificate"), writer_keys(both))
    known = pc.sum(pc.starts_with(names, "w")).as_py()
    cluster = NameCodes().of(names)
    unit = "writer" if known == both.num_rows else "writer or certificate" if known else "certificate"
    whole = compared(np.zeros(len(edits), np.int32), cluster, counts)[0]
    by_cluster = (np.bincount(cluster, counts[name]) for name in ("edits", "characters"))
    doubtful = doubts(*by_cluster, unit if " " not in unit else "cluster", difference=True)
    if alone := one.num_rows + two.num_rows - 2 * both.num_rows:
        doubtful.insert(0, f"{alone} lines are in one of the two evaluations alone, and are left out")
    found = whole | {"groups": whole.pop("clusters"), "unit": unit, "warning": "; ".join(doubtful) or None, "by": {}}
    del found["small"]
    for name in both.column_names:
        if name in NO_SLICE or name in OF_LINES or name.startswith("other "):
            continue
        codes = NameCodes()
        code = codes.of(strings(both, name))
        if 1 < len(codes) <= MAX_SLICES:
            found["by"][name] = dict(sorted(zip(codes.numbers, compared(code, cluster, counts), strict=True)))
    rows = [row for values in found["by"].values() for row in values.values()]
    for row, q in zip(rows, false_discovery([row["p"] for row in rows]), strict=True):
        row["q"] = q
    return found


def compared(code: np.ndarray, cluster: np.ndarray, counts: dict[str, np.ndarray]) -> list[dict]:
    """A row for each value of `code`, by its number: CER of both, their difference, its interval and significance."""
    (value, _), which = grouped(code, cluster)
    edits, characters = (np.bincount(which, counts[name], len(value)) for name in ("edits", "characters"))
    lines, rows = np.bincount(code), []
    for number in range(len(lines)):
        own = slice(*np.searchsorted(value, [number, number + 1]))
        within = difference_interval(edits[own], characters[own])
        total, clusters = int(characters[own].sum()), own.stop - own.start
        rows.append({
            "difference": float(edits[own].sum() / max(total, 1)),
            "low": within and within.low,
            "high": within and within.high,
            "p": sign_flip(edits[own]),
            "lines": int(lines[number]),
            "clusters": int(clusters),
            "small": is_small(int(clusters), total),
        })  # fmt: skip
    return rows


def lines_of(folder: Path, slices: bool = False) -> pa.Table:
    """The lines of a finished evaluation; `slices`: with the columns that it may be sliced by."""
    parts = sorted((folder / "parts").glob("*.parquet"))
    if not (folder / "metrics.json").exists() or not parts:
        raise ValueError(f"{folder}: no evaluation that is whole (no metrics.json)")
    columns = list(OF_LINES)
    if slices:
        schema = pq.read_schema(parts[0])
        texts = [name for name in schema.names if schema.field(name).type == pa.string()]
        columns += [name for name in texts if name not in NO_SLICE and name not in columns]
    tables = [pq.read_table(path, columns=columns).replace_schema_metadata() for path in parts]
    return pa.concat_tables(tables, promote_options="permissive")


def check_against(folder: Path) -> dict:
    """What the other evaluation was asked for, before anything is read. Raises ValueError, naming the evaluations that
    there are."""
    if (folder / "metrics.json").exists():
        return files.read_json(folder / "evaluation.json", f"remove {folder} and evaluate again")
    places = (folder, folder.parent, folder / "evaluation")
    whole = sorted({str(path.parent) for place in places for path in place.glob("*/metrics.json")})
    there = f"there are: {', '.join(whole)}" if whole else "evaluate that run first"
    raise ValueError(f"--against {folder}: no evaluation that is whole (no metrics.json); {there}")
