"""Yearly trend of the character error rate, with writers that appear in several years.

Every figure is a linear function of the years' rates, so its standard error is the linearised one over clusters, as in
interval.py: what a cluster adds to each year's rate goes into one number before it is squared.
"""

import math
from statistics import NormalDist

import numpy as np

from htr.metrics.intervals import MIN_NORMAL_CLUSTERS, Z, student
from htr.metrics.significance import false_discovery, is_small


def yearly_trend(years: np.ndarray, clusters: np.ndarray, edits: np.ndarray, characters: np.ndarray) -> dict | None:
    """(m,) sums of each year and cluster that is there -> the years' CER against the first and the previous one, and
    the slope; None with fewer than two years that have characters.

    {"first", "years": {year: {cer, difference, low, high, p, q, clusters, small}}, "previous": the same,
    "trend": {"per_year", low, high, p}}
    """
    names, year = np.unique(years, return_inverse=True)
    groups, cluster = np.unique(clusters, return_inverse=True)
    totals = np.bincount(year, characters, len(names))
    if np.count_nonzero(totals) < 2 or len(groups) < 2:
        return None
    keep = totals[year] > 0
    names, year = names[totals > 0], (np.cumsum(totals > 0) - 1)[year[keep]]
    cluster, edits, characters = cluster[keep], edits[keep], characters[keep]
    totals = totals[totals > 0]
    rates = np.bincount(year, edits, len(names)) / totals
    # (years, clusters): what each cluster adds to each rate
    influence = np.zeros((len(names), len(groups)))
    influence[year, cluster] = (edits - rates[year] * characters) / totals[year]
    there = np.zeros(influence.shape, bool)
    there[year, cluster] = True

    def compared(later: int, earlier: int) -> dict:
        both = there[later] | there[earlier]
        found = tested(rates[later] - rates[earlier], (influence[later] - influence[earlier])[both])
        least = min(there[later].sum(), there[earlier].sum())
        small = is_small(int(least), int(min(totals[later], totals[earlier])))
        row = {"cer": float(rates[later]), "difference": float(rates[later] - rates[earlier])}
        return row | found | {"clusters": int(both.sum()), "small": small}

    first = {str(names[i]): compared(i, 0) for i in range(1, len(names))}
    previous = {str(names[i]): compared(i, i - 1) for i in range(1, len(names))}
    for family in (first, previous):
        for row, q in zip(family.values(), false_discovery([row["p"] for row in family.values()]), strict=True):
            row["q"] = q
    off = names - np.average(names, weights=totals)
    weights = totals * off / (totals * off * off).sum()
    slope = float((weights * rates).sum())
    trend = {"per_year": slope, **tested(slope, (weights[:, None] * influence).sum(0))}
    return {"first": str(names[0]), "years": first, "previous": previous, "trend": trend}


def tested(value: float, influence: np.ndarray) -> dict:
    """Low, high and two-sided p of a value that clusters add these to; None with fewer than two."""
    n = len(influence)
    if n < 2:
        return {"low": None, "high": None, "p": 1.0}
    error = math.sqrt((influence * influence).sum() * n / (n - 1))
    half = (Z if n >= MIN_NORMAL_CLUSTERS else student(n - 1)) * error
    # Student's t at n - 1 degrees, as the normal deviate that is as rare (Wallace 1959, to 1 % from three degrees on)
    z = abs(value) / error if error else math.inf if value else 0.0
    if math.isfinite(z) and n < MIN_NORMAL_CLUSTERS:
        d = n - 1
        z = (8 * d + 1) / (8 * d + 3) * math.sqrt(d * math.log1p(z * z / d))
    return {"low": float(value - half), "high": float(value + half), "p": 2 * NormalDist().cdf(-z)}
