"""Covariate shift test: whether the signals of new lines are distributed like those of a promise's lines.

It needs no transcription. A promise holds for lines that are exchangeable with the part that chose its threshold. The
test takes the mean of each signal in each group (a certificate, or a writer if the parts have different writers). Its
statistic is the largest difference between the two parts' means, in standard errors. It is compared with the same
statistic after groups are assigned to the two parts at random: a permutation test, for many signals at once by Westfall
& Young 1993. It may warn of a shift that changes no error rate, and it can't see a shift that changes no signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 999
SIGNIFICANCE_LEVEL = 0.05
PERMUTATIONS_PER_BLOCK = 100  # that are computed at once


@dataclass(frozen=True)
class CovariateShift:
    p: float  # p-value of all signals together
    signals: dict[str, float]  # p-value of each signal, adjusted for their number
    shifts: dict[str, float]  # how far the mean of each moved, in standard deviations of the reference's groups
    groups: tuple[int, int]  # number of groups of the reference, and of the new lines

    @property
    def warns(self) -> bool:
        return self.p <= SIGNIFICANCE_LEVEL


def covariate_shift_test(
    reference: Mapping[str, Sequence[float]],
    reference_groups: Sequence,
    new: Mapping[str, Sequence[float]],
    new_groups: Sequence,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> CovariateShift:
    """Signals by name, (N,) of the reference and (M,) of the new lines, and the group of each line.

    Raises ValueError with fewer than two groups in either part, and where the parts have no signal in common.
    """
    names = [name for name in reference if name in new]
    if not names:
        raise ValueError("the two parts have no signal in common")
    # ranks: one outlier does not hide the shift of all others
    pooled = [np.concatenate([np.asarray(part[name], np.float64) for part in (reference, new)]) for name in names]
    values = np.stack([ranks(column) for column in pooled], axis=1)
    size = len(np.asarray(reference_groups))
    one, other = means_by(values[:size], reference_groups), means_by(values[size:], new_groups)
    counts = len(one), len(other)
    if min(counts) < 2:
        raise ValueError(f"{counts[0]} and {counts[1]} groups to compare: at least two of each are needed")
    groups = np.concatenate([one, other])
    seen = statistic(groups, np.arange(len(groups))[None, :] >= counts[0])[0]
    rng, most = np.random.default_rng(seed), []
    for start in range(0, permutations, PERMUTATIONS_PER_BLOCK):
        some = min(PERMUTATIONS_PER_BLOCK, permutations - start)
        dealt = rng.permuted(np.tile(np.arange(len(groups)) >= counts[0], (some, 1)), axis=1)
        most.append(statistic(groups, dealt).max(axis=1))
    largest = np.concatenate(most)
    adjusted = (1 + (largest[:, None] >= seen - 1e-12).sum(axis=0)) / (permutations + 1)
    shifts = (other.mean(axis=0) - one.mean(axis=0)) / np.maximum(one.std(axis=0), 1e-12)
    return CovariateShift(
        float(adjusted.min()),
        dict(zip(names, adjusted.tolist(), strict=True)),
        dict(zip(names, shifts.tolist(), strict=True)),
        counts,
    )


def statistic(groups: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(G, signals) means of groups, (P, G) bool: in the second part -> (P, signals) |difference| / standard error."""
    second = second.astype(np.float64)
    m = second.sum(axis=1, keepdims=True)
    n = len(groups) - m
    total, squares = groups.sum(axis=0), (groups**2).sum(axis=0)
    sums, of_squares = second @ groups, second @ groups**2
    one, other = (total - sums) / n, sums / m
    # each part has its own variance (Welch): otherwise parts of very different size would show spread as shift
    spread = np.maximum((squares - of_squares) / n - one**2, 0) / n + np.maximum(of_squares / m - other**2, 0) / m
    return np.abs(other - one) / np.sqrt(np.maximum(spread, 1e-12))


def means_by(values: np.ndarray, groups: Sequence) -> np.ndarray:
    """(N, signals) of lines -> (G, signals): the mean of each group."""
    _, group, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.stack([np.bincount(group, column) for column in values.T], axis=1) / counts[:, None]


def ranks(values: np.ndarray) -> np.ndarray:
    """(N,) values -> (N,) their ranks, from 0 to 1; equal values have equal ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts / 2) / len(values))[inverse]
