"""95 % intervals of error rates by bootstrap over groups, writers as a rule: lines of one hand are not independent.

The percentile bootstrap of Efron & Tibshirani 1993 (An Introduction to the Bootstrap, chapter 13), groups drawn with
replacement, edits and characters summed anew for each resample. Seeded: the same counts give the same interval.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)
MOST = 10_000_000  # numbers drawn at once: 80 MB


def interval(
    edits: Sequence[int], totals: Sequence[int], groups: Sequence[str], seed: int = 0
) -> tuple[float, float] | None:
    """Edits, reference characters (or words) and the group of each of N lines -> low and high of sum(edits) /
    sum(totals); None with fewer than two groups. `edits` may be differences of two readers' edits.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2:
        return None
    # (groups, 2), in the order of the names: the order of the lines makes no difference
    sums = np.stack([np.bincount(group, np.asarray(counts, np.float64)) for counts in (edits, totals)], axis=1)
    rng, rates = np.random.default_rng(seed), []
    block = max(MOST // len(names), 1)
    for start in range(0, RESAMPLES, block):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), min(block, RESAMPLES - start))
        rates.append(drawn @ sums)
    drawn = np.concatenate(rates)
    drawn = drawn[drawn[:, 1] > 0]  # a resample of blank lines alone has no rate
    if not len(drawn):
        return None
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], QUANTILES)
    return float(low), float(high)


def by_whom(writers: Sequence[str | None], certificates: Sequence[str]) -> list[str]:
    """The group of each line: its writer or, where none is known, its certificate."""
    pairs = zip(writers, certificates, strict=True)
    return [f"writer {writer}" if writer else f"certificate {certificate}" for writer, certificate in pairs]
