"""Significance tests between two readers or slices, with control of the false discovery rate."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

RANDOM_FLIPS = 9999
MAX_EXACT_CLUSTERS = 14  # clusters up to which all signs are tried
MIN_NORMAL_CLUSTERS = 5000  # clusters from which on the sum of random signs is taken as normal
MIN_SLICE_CLUSTERS, MIN_SLICE_CHARACTERS = 5, 200


def sign_flip(differences: np.ndarray, seed: int = 0) -> float:
    """(n,) differences of two readers' errors, summed by cluster -> two-sided p value of their sum being 0.

    If the readers are as good as each other, each cluster's difference is as likely with the other sign: the share of
    random signs with a sum at least as far from 0 (Fisher's permutation test with clusters as its units). All signs are
    tried with at most MAX_EXACT_CLUSTERS clusters, else RANDOM_FLIPS of them. 1.0 where nothing differs.
    """
    d = np.asarray(differences, np.float64)
    d = d[d != 0]
    n, seen = len(d), abs(d.sum())
    if not n:
        return 1.0
    if n <= MAX_EXACT_CLUSTERS:
        signs = 1 - 2.0 * (np.arange(1 << n)[:, None] >> np.arange(n) & 1)
        return float((np.abs(signs @ d) >= seen).mean())
    if n >= MIN_NORMAL_CLUSTERS:
        return float(2 * stats.norm.cdf(-seen / math.sqrt(d @ d)))
    rng, far = np.random.default_rng(seed), 0
    for start in range(0, RANDOM_FLIPS, 1000):
        signs = 1 - 2.0 * rng.integers(0, 2, (min(1000, RANDOM_FLIPS - start), n), dtype=np.int8)
        far += int((np.abs(signs @ d) >= seen).sum())
    return (far + 1) / (RANDOM_FLIPS + 1)


def false_discovery(p_values: Sequence[float]) -> list[float]:
    """p values of a family of questions -> their q values: those of at most q are wrong in a share q at most, in the
    mean (Benjamini & Hochberg 1995).
    """
    return stats.false_discovery_control(p_values).tolist() if len(p_values) else []


def is_small(clusters: int, characters: int) -> bool:
    """A slice that says little, whatever its interval."""
    return clusters < MIN_SLICE_CLUSTERS or characters < MIN_SLICE_CHARACTERS
