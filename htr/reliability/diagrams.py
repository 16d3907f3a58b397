"""Calibration and ranking of probabilities: reliability diagram, ECE, Brier score, log loss, risk-coverage curve.

The expected calibration error of N units is sum over bins |right - predicted| · share, bins of equal numbers. It is
never 0, of an ideal score neither: 2.6 % with 2 200 units. So beside it stand what an ideal score would show, and the
debiased error (Kumar, Liang & Ma 2019, Verified uncertainty calibration, appendix: what noise adds, taken off), here
with the variance of groups, since the lines of one writer err together. Risk and coverage: El-Yaniv & Wiener 2010;
the area under that curve: Geifman, Uziel & El-Yaniv 2019. Intervals: 95 %, bootstrap over groups.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from htr.reliability.calibration import cross_entropy
from htr.reliability.risk_control import lower, upper

BIN_COUNT = 15
CURVE_POINTS = 50  # of a curve of risk and coverage
RESAMPLES = 400
MAX_GROUPS = 5000  # more are put together: a bootstrap gains nothing from them
MIN_PROBABILITY = 1e-6  # a probability of exactly 0 or 1 would have an infinite log loss


def figures(
    probability: Sequence[float],
    right: Sequence[float],
    groups: Sequence,
    edits: Sequence[float] | None = None,
    characters: Sequence[float] | None = None,
    seed: int = 0,
) -> dict:
    """(N,) probabilities, (N,) whether right, (N,) groups -> ece, brier, log_loss, aurc, bins, risk_coverage.

    `edits` and `characters` (N,) add the CER of what is accepted to the curve. Raises ValueError without a unit.
    """
    p, y = (
        np.clip(np.asarray(probability, np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY),
        np.asarray(right, np.float64),
    )
    if not len(p):
        raise ValueError("no units to judge a score by")
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
    """(N,) probabilities -> (N,) the bin of each, of equal numbers; equal probabilities are in one bin."""
    edges = np.unique(np.quantile(p, np.arange(1, bins) / bins, method="lower"))
    found = np.searchsorted(edges, p, side="right")
    return np.unique(found, return_inverse=True)[1]


def tables(p: np.ndarray, y: np.ndarray, group: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """-> (groups, bins) sums of right - predicted, and numbers."""
    bins = bins_of(p)
    shape = count, int(bins.max()) + 1
    cell = group * shape[1] + bins
    sums = np.bincount(cell, y - p, shape[0] * shape[1]).reshape(shape)
    return sums, np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)


def gaps(sums: np.ndarray, numbers: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(groups, bins) twice, (groups,) how often each group counts -> of each bin its share, right - predicted, and the
    variance of that among groups.
    """
    n = np.maximum(weights @ numbers, 1e-12)
    gap = (weights @ sums) / n
    spread = weights @ (sums - gap * numbers) ** 2
    drawn = max(float(weights.sum()), 2.0)
    return n / n.sum(), gap, spread / n**2 * drawn / (drawn - 1)


def debiased(share: np.ndarray, gap: np.ndarray, variance: np.ndarray) -> float:
    """The error less what its own noise adds: E|gap + noise| - |gap|, the noise normal."""
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
    """What ECE shows where each p is true and units are independent: the mean absolute of normal noise."""
    bins = bins_of(p)
    variance = np.bincount(bins, p * (1 - p))
    return float(np.sqrt(variance * 2 / math.pi).sum() / len(p))


def diagram(p: np.ndarray, y: np.ndarray, group: np.ndarray) -> list[dict]:
    """A row a bin; the interval is exact (Clopper & Pearson) on as many units as the groups' variance leaves."""
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
    """-> the units from sure to unsure, and what each errs; units of equal probability err alike, on average."""
    order = np.argsort(-p, kind="stable")
    _, ties = np.unique(-p, return_inverse=True)
    return order, (np.bincount(ties, 1 - y) / np.bincount(ties))[ties][order]


def area(weights: np.ndarray, risk: np.ndarray) -> float:
    """The mean over the coverage of the risk of what is accepted."""
    accepted = np.cumsum(weights)
    risks = np.cumsum(weights * risk) / np.maximum(accepted, 1e-12)
    return float(weights @ risks / accepted[-1])


def curve(p: np.ndarray, y: np.ndarray, edits=None, characters=None) -> list[dict]:
    """Coverage, risk, the threshold that gives both, and the CER of the accepted where edits are given."""
    order = np.argsort(-p, kind="stable")
    wrong = np.cumsum(1 - y[order])
    ratio = None
    if edits is not None:
        lengths = np.cumsum(np.asarray(characters, np.float64)[order])
        ratio = np.cumsum(np.asarray(edits, np.float64)[order]) / np.maximum(lengths, 1)
    # a threshold accepts all that are equal to it
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
    """(N,) groups -> (N,) their numbers, (RESAMPLES, G) how often each is drawn."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    rng, count = np.random.default_rng(seed), int(group.max()) + 1
    if count > MAX_GROUPS:
        group = (rng.permutation(count) % MAX_GROUPS)[group]
        count = MAX_GROUPS
    return group, rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)


def with_interval(value: float, draws: np.ndarray, of: Callable[[np.ndarray], float]) -> dict:
    """`of`: (G,) weights of groups -> the figure. No interval with fewer than two groups."""
    if draws.shape[1] < 2:
        return {"value": value, "low": None, "high": None}
    low, high = np.quantile([of(weights) for weights in draws], (0.025, 0.975))
    return {"value": value, "low": float(low), "high": float(high)}
