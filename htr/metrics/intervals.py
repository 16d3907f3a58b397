"""95 % confidence intervals of error rates, clustered by writer: lines of one hand are not independent.

A rate is a ratio of two sums over clusters (writers, or certificates where no writer is known). With u_c = e_c - r t_c
for the errors e and the totals t of each of n clusters, its linearised standard error (Taylor, delta method; Cochran
1977, Sampling Techniques, 6.4) is the root of n / (n - 1) times the sum of u_c^2, over the sum of t_c. From it:

    bootstrap-t   clusters drawn with replacement, each time the rate's distance in its own standard errors (Efron &
                  Tibshirani 1993, 12.5). Where writers differ it covers more often than the percentile and BCa forms
                  when there are few of them: benchmarks/intervals.py
    log-t         Student's t on the logarithm of the rate, where fewer than 10 clusters are there or have an error;
                  not above 1 unless the rate is near it
    linearised    the normal distribution, from 5 000 clusters on

Of a difference of two readers, which has either sign: Student's t on the linearised error, with as many degrees of
freedom as the spread of the u_c^2 leaves (Satterthwaite 1946; `degrees_of_freedom`), n - 1 at most. Where a few
clusters make the difference a bootstrap that draws from them knows no more than they do, and covers too seldom.

Where no cluster has an error the upper end is the exact one of n clusters without any (Clopper & Pearson 1934), far
above the rate as a rule. Heavy tails, a few hands that can't be read at all, no interval sees before it has met some
of them: `doubts` says when. All sums are whole numbers and the draws are seeded: the same counts give the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
MIN_BOOTSTRAP_CLUSTERS, MIN_NORMAL_CLUSTERS = 10, 5000  # clusters
MIN_TRUSTED_CLUSTERS = 40  # clusters below which an interval is said to stand on few
MISSED_PROBABILITY = 0.05  # the probability with which a rare kind of clusters is not among those seen
# clusters whose equal shares would vary as much as these do: with fewer the bootstrap covers too seldom
MIN_EFFECTIVE_CLUSTERS = 12
Z = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2))


@dataclass(frozen=True)
class Interval:
    """A confidence interval of CONFIDENCE_LEVEL, as fractions."""

    low: float
    high: float
    method: str

    @property
    def pair(self) -> tuple[float, float]:
        return self.low, self.high


def ratio_interval(errors: np.ndarray, totals: np.ndarray, seed: int = 0) -> Interval | None:
    """(n,) sums of each cluster, 0 or more -> the interval of sum(errors) / sum(totals); None with fewer than two
    clusters or without a total. Raises ValueError for a negative error: differences have `difference_interval`.
    """
    e, t = (np.asarray(counts, np.float64) for counts in (errors, totals))
    n, total = len(e), t.sum()
    if (e < 0).any():
        raise ValueError("negative errors: are these differences of two readers? Take difference_interval")
    if n < 2 or total <= 0:
        return None
    if not e.any():
        return Interval(0.0, 1 - ((1 - CONFIDENCE_LEVEL) / 2) ** (1 / n), "exact")
    rate, error = float(e.sum() / total), standard_error(e, t)
    if min(n, np.count_nonzero(e)) < MIN_BOOTSTRAP_CLUSTERS:
        factor = math.exp(student(n - 1) * error / rate)
        return Interval(rate / factor, min(rate * factor, max(1.0, 2 * rate)), "log-t")
    low, high, method = ends(e, t, rate, error, seed)
    return Interval(max(low, 0.0), high, method)


def difference_interval(differences: np.ndarray, totals: np.ndarray) -> Interval | None:
    """(n,) differences of two readers' errors, summed by cluster, of any sign, even if all of them have one -> the
    interval of sum(differences) / sum(totals); None as above.
    """
    d, t = (np.asarray(counts, np.float64) for counts in (differences, totals))
    n, total = len(d), t.sum()
    if n < 2 or total <= 0:
        return None
    if not d.any():
        return Interval(0.0, 0.0, "exact")
    rate, error = float(d.sum() / total), standard_error(d, t)
    half = student(degrees_of_freedom(d - rate * t)) * error
    return Interval(rate - half, rate + half, "t")


def share_interval(right: np.ndarray, of: np.ndarray, seed: int = 0) -> Interval | None:
    """The same of an accuracy, sum(right) / sum(of), within 0 and 1: by way of what is wrong, which is rare."""
    right, of = (np.asarray(counts, np.float64) for counts in (right, of))
    if not right.any():  # then what is right is the rare thing, and nothing tells of its spread
        return ratio_interval(right, of, seed)
    found = ratio_interval(of - right, of, seed)
    return found and Interval(max(1 - found.high, 0.0), 1 - found.low, found.method)


def ends(e: np.ndarray, t: np.ndarray, rate: float, error: float, seed: int) -> tuple[float, float, str]:
    """-> low, high, and the method that gave them. `e`, `t`: errors and totals of each cluster, `rate`: their ratio,
    `error`: its standard error."""
    if len(e) >= MIN_NORMAL_CLUSTERS or not error:
        return rate - Z * error, rate + Z * error, "linearised"
    low, high = np.quantile(studentised(e, t, rate, seed), [(1 + CONFIDENCE_LEVEL) / 2, (1 - CONFIDENCE_LEVEL) / 2])
    return float(rate - low * error), float(rate - high * error), "bootstrap-t"


def standard_error(e: np.ndarray, t: np.ndarray) -> float:
    """The linearised one of sum(e) / sum(t) over n >= 2 clusters."""
    sums = (np.array([values.sum()], np.float64) for values in (e, t, e * e, e * t, t * t))
    return float(errors_of(*sums, len(e))[1][0])


def errors_of(e: np.ndarray, t: np.ndarray, ee: np.ndarray, et: np.ndarray, tt: np.ndarray, n: int):
    """Sums over n clusters of errors, totals and their products, a sample each -> rates, standard errors."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = e / t
        squares = np.maximum(ee - 2 * rates * et + rates * rates * tt, 0)
        return rates, np.sqrt(squares * n / (n - 1)) / t


def studentised(e: np.ndarray, t: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """(resamples,) bootstrap-t: by how many of its own standard errors each resample's rate differs from `rate`.
    Resamples without a standard error are left out."""
    # sums of whole numbers below 2^53 are exact in whatever order they are added
    sums = np.stack([e, t, e * e, e * t, t * t], axis=1)
    rates, errors = errors_of(*(draws(len(e), seed) @ sums).T, len(e))
    fits = (errors > 0) & np.isfinite(errors)
    return (rates[fits] - rate) / errors[fits]


@lru_cache(1)
def draws(n: int, seed: int) -> np.ndarray:
    """(RESAMPLES, n) how often each of n clusters is drawn; kept, since a slice has several rates."""
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n), dtype=np.int32)
    drawn += n * np.arange(RESAMPLES, dtype=np.int32)[:, None]
    return np.bincount(drawn.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(np.float64)


def degrees_of_freedom(residuals: np.ndarray) -> float:
    """(n,) u_c -> of the variance that is estimated by their squares: 2 v^2 / var(v), between 1 and n - 1.

    n independent normal residuals have about n, two clusters that carry all of it about 4, however many others there
    are (Satterthwaite 1946, with the empirical variance of the squares).
    """
    n, squares = len(residuals), residuals * residuals
    varied = squares @ squares - squares.sum() ** 2 / n
    return float(min(max(2 * squares.sum() ** 2 / varied, 1.0), n - 1)) if varied > 0 else float(n - 1)


def student(degrees: float) -> float:
    """The upper end of Student's t that a two-sided interval of CONFIDENCE_LEVEL wants."""
    return float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, degrees))


# ---------------------------------------------------------------------------------------------------- doubts


def doubts(errors: np.ndarray, totals: np.ndarray, unit: str = "cluster", difference: bool = False) -> list[str]:
    """(n,) sums of each cluster -> why the interval of their ratio may cover the truth less often than it says.

    No interval knows what no cluster has shown: among n clusters a kind as rare as 3 / n may be missing (with 5 %, the
    rule of three; Hanley & Lippman-Hand 1983). Were it unreadable, the rate would be as much higher; of a `difference`
    of two readers, were it so to one of them, which is said where the interval leaves out 0: then something is claimed.
    """
    e, t = (np.asarray(counts, np.float64) for counts in (errors, totals))
    n, found = len(e), []
    if n < MIN_TRUSTED_CLUSTERS:
        found.append(f"{n} {unit}{'s' * (n != 1)}: too few, the intervals are wide and rough")
    if n < 2 or t.sum() <= 0:
        return found
    rate = e.sum() / t.sum()
    missing = 1 - MISSED_PROBABILITY ** (1 / n)
    within = difference_interval(e, t) if difference else None
    if missing > abs(rate) / 2 and not (within and within.low <= 0 <= within.high):
        what = f", the rate would be up to {100 * missing:.1f} points higher than any interval of it shows"
        if difference:
            what = f" to one of the readers, the difference would be up to {100 * missing:.1f} points off"
        rare = f"{unit}s as rare as one in {max(round(1 / missing), 1)} may be missing here: if they were unreadable"
        found.append(rare + what)
    squares = (e - rate * t) ** 2
    carried = squares.sum() ** 2 / (squares @ squares) if squares.any() else n
    if carried < MIN_EFFECTIVE_CLUSTERS:
        what, width = ("difference", "rough") if difference else ("errors", "too narrow")
        found.append(f"few {unit}s carry the {what}, as many as {carried:.0f} alike would: the intervals are {width}")
    return found


# ---------------------------------------------------------------------------------------------------- clusters


def cluster_ids(writers: Sequence[str | None], certificates: Sequence[str]) -> list[str]:
    """The group of each line: its writer or, where none is known, its certificate."""
    pairs = zip(writers, certificates, strict=True)
    return [f"writer {writer}" if writer else f"certificate {certificate}" for writer, certificate in pairs]
