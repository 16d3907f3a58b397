"""Calibration and ranking of probabilities: reliability diagram, ECE, Brier score, log loss, risk-coverage curve.

The expected calibration error (ECE) of N units is the sum over bins of |right - predicted| · share, in bins of equal
numbers of units. Even an ideal score does not reach 0: it shows 2.6 % with 2 200 units. So two figures stand beside it:
the ECE of an ideal score, and the debiased error, from which the part that noise adds is subtracted (Kumar, Liang & Ma
2019, Verified uncertainty calibration, appendix). Here that noise has the variance among groups, since the lines of
one writer err together. Risk and coverage: El-Yaniv & Wiener 2010; the area under that curve: Geifman, Uziel & El-Yaniv
2019. Intervals: 95 %, bootstrap over groups.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from htr.reliability.calibration import cross_entropy
from htr.reliability.risk_control import lower, upper

BIN_COUNT = 15
CURVE_POINTS = 50  # of the curve of risk and coverage
RESAMPLES = 400  # of the bootstrap
MAX_GROUPS = 5000  # more groups are merged at random into so many: the bootstrap gains nothing from more
MIN_PROBABILITY = 1e-6  # a probability of exactly 0 or 1 would have an infinite log loss


def figures(
    probability: Sequence[float],
    right: Sequence[float],
    groups: Sequence,
    edits: Sequence[float] | None = None,
    characters: Sequence[float] | None = None,
    seed: int = 0,
) -> dict:
    """(N,) probabilities, (N,) right, (N,) groups -> ece, brier, log_loss, aurc, bins, risk_coverage.

    `right`: 1 for right, 0 for wrong, or the share that is right. `edits` and `characters` (N,) add the CER of the
    accepted units to the curve. Raises ValueError where there is no unit.
    """
    p, y = (
        np.clip(np.asarray(probability, np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY),
        np.asarray(right, np.float64),
    )
    if not len(p):
        raise ValueError("no units to judge the probabilities by")
    group, draws = resamples(groups, seed)
    count = draws.shape[1]
    found = {"ece": ece(p, y, group, draws)}
    for name, loss in (("brier", (p - y) ** 2), ("log_loss", cross_entropy(p, y))):
        sums = np.bincount(group, loss, count), np.bincount(group, minlength=count)
        found[name] = with_interval(float(loss.mean()), draws, lambda w, sums=sums: (w @ sums[0]) / (w @ sums[1]))
    order, risk = ordered(p, y)
    found["aurc"] = with_interval(area(np.ones(len(p)), risk), draws, lambda w: area(w[group][order], risk))
    found["bins"] = diagram(p, y, group)
    found["risk_coverage"] = curve(p, y, edits, characters)
    return found


# ---------------------------------------------------------------------------------------------------- calibration


def bins_of(p: np.ndarray, bins: int = BIN_COUNT) -> np.ndarray:
    """(N,) probabilities -> (N,) the number of the bin of each. Bins have equal numbers; ties stay together."""
    edges = np.unique(np.quantile(p, np.arange(1, bins) / bins, method="lower"))
    found = np.searchsorted(edges, p, side="right")
    return np.unique(found, return_inverse=True)[1]


def tables(p: np.ndarray, y: np.ndarray, group: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) probabilities, right, groups; how many groups -> (groups, bins) sums of right - predicted, and of units."""
    bins = bins_of(p)
    shape = count, int(bins.max()) + 1
    cell = group * shape[1] + bins
    sums = np.bincount(cell, y - p, shape[0] * shape[1]).reshape(shape)
    return sums, np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def gaps(sums: np.ndarray, numbers: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibration gaps of resampled groups.

    (groups, bins) sums and numbers of `tables`, (groups,) how often each group was drawn -> (bins,) the share of units
    in each bin, (bins,) right - predicted, (bins,) the variance of that among groups.
    """
    n = np.maximum(weights @ numbers, 1e-12)
    gap = (weights @ sums) / n
    spread = weights @ (sums - gap * numbers) ** 2
    drawn = max(float(weights.sum()), 2.0)
    return n / n.sum(), gap, spread / n**2 * drawn / (drawn - 1)


def debiased(share: np.ndarray, gap: np.ndarray, variance: np.ndarray) -> float:
    """The calibration error without the part that noise adds, E|gap + noise| - |gap| with normal noise; at least 0."""
    sd = np.sqrt(np.maximum(variance, 1e-18))
    z = gap / sd
    expected = sd * math.sqrt(2 / math.pi) * np.exp(-(z**2) / 2) + gap * np.array(
        [math.erf(x) for x in z / math.sqrt(2)]
    )
    return max(float(share @ (2 * np.abs(gap) - expected)), 0.0)


def ece(p: np.ndarray, y: np.ndarray, group: np.ndarray, draws: np.ndarray) -> dict:
    sums, numbers = tables(p, y, group, draws.shape[1])
    share, gap, variance = gaps(sums, numbers, np.ones(draws.shape[1]))

    def once_more(weights: np.ndarray) -> float:
        share, gap, variance = gaps(sums, numbers, weights)
        return debiased(share, gap, 2 * variance)  # a resample has the noise twice: the sample's and its own

    value = {"value": float(share @ np.abs(gap)), "ideal": ideal(p)}
    found = with_interval(debiased(share, gap, variance), draws, once_more)
    return {**value, "debiased": found["value"], "low": found["low"], "high": found["high"]}


def ideal(p: np.ndarray) -> float:
    """The expected ECE of an ideal score: each p is true, units are independent, and the gaps are normal noise."""
    bins = bins_of(p)
    variance = np.bincount(bins, p * (1 - p))
    return float(np.sqrt(variance * 2 / math.pi).sum() / len(p))


def diagram(p: np.ndarray, y: np.ndarray, group: np.ndarray) -> list[dict]:
    """The reliability diagram, a dict a bin.

    The interval is exact (Clopper & Pearson) for the effective number of units: fewer than there are, where the units
    of a group err together.
    """
    bins, rows = bins_of(p), []
    for number in range(int(bins.max()) + 1):
        inside = bins == number
        n, share = int(inside.sum()), float(y[inside].mean())
        sums = np.bincount(np.unique(group[inside], return_inverse=True)[1], y[inside] - share)
        plain = share * (1 - share) * n
        worth = n / max(float(sums @ sums) / plain, 1.0) if plain else n
        k, seen = round(share * worth), max(round(worth), 1)
        k = min(k, seen)
        rows.append(
            {
                "low": float(p[inside].min()),
                "high": float(p[inside].max()),
                "items": n,
                "predicted": float(p[inside].mean()),
                "right": share,
                "right_low": min(lower(k, seen, 0.025), share),
                "right_high": max(upper(k, seen, 0.025), share),
            }
        )
    return rows


# ---------------------------------------------------------------------------------------------------- risk and coverage


def ordered(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) probabilities, (N,) right -> (N,) the units from the surest on, (N,) the error of each in this order.

    Units of equal probability all have their mean error, so that their order does not matter.
    """
    order = np.argsort(-p, kind="stable")
    _, ties = np.unique(-p, return_inverse=True)
    return order, (np.bincount(ties, 1 - y) / np.bincount(ties))[ties][order]


def area(weights: np.ndarray, risk: np.ndarray) -> float:
    """Area under the risk-coverage curve. (N,) weights and errors of units, from the surest on."""
    accepted = np.cumsum(weights)
    risks = np.cumsum(weights * risk) / np.maximum(accepted, 1e-12)
    return float(weights @ risks / accepted[-1])


def curve(p: np.ndarray, y: np.ndarray, edits=None, characters=None) -> list[dict]:
    """Points of coverage and risk, with the threshold that gives both; with edits also the CER of what is accepted."""
    order = np.argsort(-p, kind="stable")
    wrong = np.cumsum(1 - y[order])
    ratio = None
    if edits is not None:
        lengths = np.cumsum(np.asarray(characters, np.float64)[order])
        ratio = np.cumsum(np.asarray(edits, np.float64)[order]) / np.maximum(lengths, 1)
    # a threshold accepts all units that are equal to it
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    wanted = np.searchsorted(ends, np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS * len(p) - 1)
    points = []
    for end in ends[np.unique(np.minimum(wanted, len(ends) - 1))].tolist():
        point = {
            "coverage": (end + 1) / len(p),
            "risk": float(wrong[end] / (end + 1)),
            "threshold": float(p[order[end]]),
        }
        points.append(point | ({"cer": float(ratio[end])} if ratio is not None else {}))
    return points


# ---------------------------------------------------------------------------------------------------- intervals


def resamples(groups: Sequence, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N,) groups -> (N,) their numbers from 0 on, (RESAMPLES, G) how often each is drawn in each resample."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    rng, count = np.random.default_rng(seed), int(group.max()) + 1
    if count > MAX_GROUPS:
        group = (rng.permutation(count) % MAX_GROUPS)[group]
        count = MAX_GROUPS
    return group, rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def with_interval(value: float, draws: np.ndarray, of: Callable[[np.ndarray], float]) -> dict:
    """The figure with its 95 % bootstrap interval; None, None with fewer than two groups.

    `of`: (G,) how often each group counts -> the figure.
    """
    if draws.shape[1] < 2:
        return {"value": value, "low": None, "high": None}
    low, high = np.quantile([of(weights) for weights in draws], (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}
