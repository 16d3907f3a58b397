"""The betting test that this project had before, kept as what not to do: its bound was estimated.

A writer's loss was clipped at twice the largest loss that the fitting part had shown. A writer over that bound who had
not been drawn yet broke the promise: benchmarks/guarantee.py counts how often.
"""

import math

import numpy as np

from htr.reliability.risk_control import FIRST_THRESHOLD_POWER, FITTED_STAKE_SHARE, MAX_THRESHOLDS, Units

FRACTIONS = np.geomspace(2e-3, 0.95, 24)


def losses(units: Units, threshold: float, alpha: float) -> np.ndarray:
    loss = np.where(units.probability >= threshold, units.errors - alpha * units.sizes, 0.0)
    return np.bincount(units.groups, loss)


def clipped(loss: np.ndarray, bound: float, own: float) -> float:
    """A p-value, were no loss ever over the bound."""
    loss = np.minimum(loss, bound)[np.random.default_rng(0).permutation(len(loss))] / bound
    capital = np.append(np.full(len(FRACTIONS), (1 - FITTED_STAKE_SHARE) / len(FRACTIONS)), FITTED_STAKE_SHARE)
    grown = np.cumsum(np.log1p(-np.append(FRACTIONS, own)[:, None] * loss), axis=1)
    return float(min(math.exp(-max(np.logaddexp.reduce(grown + np.log(capital)[:, None]).max(), 0.0)), 1.0))


def threshold_of(fitted: Units, units: Units, alpha: float, delta: float) -> float | None:
    """What it would have promised."""
    grid = np.unique(
        np.quantile(fitted.probability, 1 - np.arange(1, MAX_THRESHOLDS + 1) / MAX_THRESHOLDS, method="lower")
    )[::-1]
    powers, tests = [], []
    for threshold in grid:
        loss = losses(fitted, threshold, alpha)
        bound = max(2 * float(loss.max()), float(fitted.sizes.max()), 1.0)
        growth = np.log1p(-FRACTIONS[:, None] * np.minimum(np.append(loss, bound / 2), bound) / bound)
        best = int(np.argmax(growth.mean(axis=1)))
        gap = float(growth[best].mean()) * units.count - math.log(1 / delta)
        powers.append(0.5 * math.erfc(-gap / max(growth[best].std() * math.sqrt(units.count), 1e-12) / math.sqrt(2)))
        tests.append((threshold, bound, float(FRACTIONS[best])))
    first, chosen = (
        next((i for i, power in enumerate(powers) if power >= FIRST_THRESHOLD_POWER), int(np.argmax(powers))),
        None,
    )
    for threshold, bound, own in tests[first:]:
        if clipped(losses(units, threshold, alpha), bound, own) > delta:
            break
        chosen = threshold
    return chosen
