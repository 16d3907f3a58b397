"""95 % intervals of error rates, with the writer as the unit: lines of one hand are not independent.

A rate is a ratio of two sums over clusters (writers, or certificates where no writer is known). With u_c = e_c - r t_c
for the errors e and the totals t of each of n clusters, its linearised standard error (Taylor, delta method; Cochran
1977, Sampling Techniques, 6.4) is the root of n / (n - 1) times the sum of u_c^2, over the sum of t_c. From it:

    bootstrap-t   clusters drawn with replacement, each time the rate's distance in its own standard errors (Efron &
                  Tibshirani 1993, 12.5). Where writers differ it covers more often than the percentile and BCa forms
                  when there are few of them: benchmarks/intervals.py
    log-t         Student's t on the logarithm of the rate, where fewer than FEW clusters are there or have an error;
                  not above 1 unless the rate is near it
    linearised    the normal distribution, from MANY clusters on

Where no cluster has an error the upper end is the exact one of n clusters without any (Clopper & Pearson 1934), far
above the rate as a rule. All sums are whole numbers and the draws are seeded: the same counts give the same bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95
FEW, MANY = 10, 5000  # clusters
Z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    method: str

    @property
    def pair(self) -> tuple[float, float]:
        return self.low, self.high


def interval(
    edits: Sequence[int], totals: Sequence[int], groups: Sequence[str], seed: int = 0
) -> tuple[float, float] | None:
    """Edits, reference characters (or words) and the group of each of N lines -> low and high of sum(edits) /
    sum(totals); None with fewer than two groups. `edits` may be differences of two readers' edits.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    # in the order of the names: the order of the lines makes no difference
    sums = (np.bincount(group, np.asarray(counts, np.float64), minlength=len(names)) for counts in (edits, totals))
    found = ratio_interval(*sums, seed=seed) if len(names) else None
    return found.pair if found else None


def ratio_interval(
    errors: np.ndarray, totals: np.ndarray, seed: int = 0, signed: bool | None = None
) -> Interval | None:
    """(n,) sums of each cluster -> the interval of sum(errors) / sum(totals); None with fewer than two clusters or
    without a total. `signed`: errors are differences, which need not be positive (default: if one is negative).
    """
    e, t = (np.asarray(counts, np.float64) for counts in (errors, totals))
    n, total = len(e), t.sum()
    if n < 2 or total <= 0:
        return None
    signed = bool((e < 0).any()) if signed is None else signed
    if not e.any():
        return Interval(0.0, 0.0 if signed else 1 - ((1 - CONFIDENCE_LEVEL) / 2) ** (1 / n), "exact")
    rate, error = float(e.sum() / total), standard_error(e, t)
    if signed:
        low, high, method = signed_ends(e, t, rate, error, seed)
        return Interval(low, high, method)
    if min(n, np.count_nonzero(e)) < FEW:
        factor = math.exp(student(n - 1) * error / rate)
        return Interval(rate / factor, min(rate * factor, max(1.0, 2 * rate)), "log-t")
    low, high, method = ends(e, t, rate, error, seed)
    return Interval(max(low, 0.0), high, method)


def share_interval(right: np.ndarray, of: np.ndarray, seed: int = 0) -> Interval | None:
    """The same of an accuracy, sum(right) / sum(of), within 0 and 1: by way of what is wrong, which is rare."""
    right, of = (np.asarray(counts, np.float64) for counts in (right, of))
    if not right.any():  # then what is right is the rare thing, and nothing tells of its spread
        return ratio_interval(right, of, seed, signed=False)
    found = ratio_interval(of - right, of, seed, signed=False)
    return found and Interval(max(1 - found.high, 0.0), 1 - found.low, found.method)


def signed_ends(e: np.ndarray, t: np.ndarray, rate: float, error: float, seed: int) -> tuple[float, float, str]:
    if len(e) < FEW:
        half = student(len(e) - 1) * error
        return rate - half, rate + half, "t"
    return ends(e, t, rate, error, seed)


def ends(e: np.ndarray, t: np.ndarray, rate: float, error: float, seed: int) -> tuple[float, float, str]:
    if len(e) >= MANY or not error:
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
    """Of each resample that has a standard error, how many of them its rate is off."""
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


def student(degrees: int) -> float:
    """The upper end of Student's t that a two-sided interval of LEVEL wants, for any number of degrees of freedom: by
    bisection of its distribution, which for whole degrees is a finite sum (Abramowitz & Stegun 1964, 26.7.3 and 4).
    """
    low, high = Z, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, degrees) < CONFIDENCE_LEVEL else (low, middle)
    return high


def within(t: float, degrees: int) -> float:
    """The probability that |T| < t."""
    if degrees > 200:
        return 2 * NormalDist().cdf(t * (1 - 1 / (4 * degrees)) / math.sqrt(1 + t * t / (2 * degrees))) - 1
    angle = math.atan(t / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1, (degrees - odd) // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def cluster_ids(writers: Sequence[str | None], certificates: Sequence[str]) -> list[str]:
    """The group of each line: its writer or, where none is known, its certificate."""
    pairs = zip(writers, certificates, strict=True)
    return [f"writer {writer}" if writer else f"certificate {certificate}" for writer, certificate in pairs]
