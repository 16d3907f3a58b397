"""Calibration: from signals of a reading to the probability that it is right. A logistic regression, kept as JSON.

Each signal is put on a scale on which the log odds are about linear in it: a probability on its logit, a length on its
logarithm. A linear spline, whose slope may change at two quantiles, takes up the rest. A value outside the range of the
fitting part counts as the end of that range. The weights have a ridge penalty, chosen by cross-validation over groups
(writers or certificates). Logistic calibration: Platt 1999; of several signals: Menon et al. 2012 (Predicting accurate
probabilities with a ranking loss), and in speech recognition since Evermann & Woodland 2000 (Posterior probability
decoding, confidence estimation and system combination).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_PROBABILITY = 1e-6  # probabilities are kept this far from 0 and 1, which have no logit
SCALES = {"width": "log", "length": "log", "lines": "log"}  # of signals that are not probabilities
KNOT_QUANTILES = (1 / 3, 2 / 3)  # quantiles at which a slope may change
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
DIGITS = 9  # decimals of a probability
MAX_FIT_ROWS = 50_000  # rows of a fit, drawn at random: more do not change some thirty weights


class OneSidedError(ValueError):
    """Nothing can be fitted: what there is, is all right or all wrong."""


@dataclass(frozen=True)
class Feature:
    """The linear spline of a signal. `low`, `high`, `knots` are on its scale (`transform`: logit or log).

    Values are clipped to low and high. The slope may change at each knot.
    """

    signal: str
    transform: str
    low: float
    high: float
    knots: tuple[float, ...]

    def columns(self, values: np.ndarray) -> np.ndarray:
        """(N,) values of the signal -> (N, 1 + len(knots)), the columns that weights are given to."""
        x = np.clip(on_scale(values, self.transform), self.low, self.high)
        return np.stack([x, *(np.maximum(x - knot, 0.0) for knot in self.knots)], axis=1)


@dataclass(frozen=True)
class Score:
    """From signals to the probability that a unit is right: sigmoid(intercept + weights · (columns - mean) / scale).

    C columns: those of all features, side by side.
    """

    unit: str  # line, word, field, certificate, or character
    features: tuple[Feature, ...]
    mean: np.ndarray  # (C,) float64
    scale: np.ndarray  # (C,) float64, standard deviations
    weights: np.ndarray  # (C,) float64
    intercept: float
    ridge: float

    @property
    def signals(self) -> list[str]:
        return [feature.signal for feature in self.features]

    def probability(self, signals: Mapping[str, Sequence[float]]) -> np.ndarray:
        """Signals by name, N values each (others than its own are ignored) -> (N,) probabilities.

        Raises ValueError for a signal that is missing or has a value that is not finite.
        """
        columns = design(self.features, columns_of(signals, self.signals, self.unit))
        found = sigmoid(self.intercept + ((columns - self.mean) / self.scale) @ self.weights)
        # the last bits of a sum depend on the number of rows, and a threshold is one of these numbers
        return np.round(found, DIGITS)

    def to_json(self) -> dict:
        features = [vars(feature) | {"knots": list(feature.knots)} for feature in self.features]
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        return {"unit": self.unit, "features": features, **arrays, "intercept": self.intercept, "ridge": self.ridge}

    @classmethod
    def from_json(cls, content: Mapping) -> "Score":
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        features = tuple(
            Feature(f["signal"], f["transform"], f["low"], f["high"], tuple(f["knots"])) for f in content["features"]
        )
        arrays = [np.array(content[name], np.float64) for name in ("mean", "scale", "weights")]
        count = sum(1 + len(feature.knots) for feature in features)
        if any(array.shape != (count,) or not np.isfinite(array).all() for array in arrays) or (arrays[1] <= 0).any():
            raise ValueError(f"a score of {count} columns has other weights")
        return cls(content["unit"], features, *arrays, float(content["intercept"]), float(content["ridge"]))


def fit(
    unit: str,
    signals: Mapping[str, Sequence[float]],
    right: Sequence[float],
    groups: Sequence,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Score:
    """Fit the score of a unit.

    `signals`: by name, N values each. `right` (N,): 1 for right and 0 for wrong, or the share that is right. `groups`
    (N,): writers or certificates, for cross-validation. `weights` (N,): of the rows, 1 by default.
    Raises ValueError with fewer than two groups, where all units are right or all wrong, and where no signal varies.
    """
    columns, right, groups, weights = prepared(unit, signals, right, groups, weights, seed)
    features = [f for name, values in columns.items() if (f := feature_of(name, values)) is not None]
    if not features:
        raise ValueError(f"{unit}: each signal has one value in all {len(right)} of them: nothing can be fitted")
    matrix = design(features, columns)
    # a spline whose quantiles coincide has a constant column: its weight has no effect
    mean, scale = matrix.mean(axis=0), np.maximum(matrix.std(axis=0), 1e-9)
    matrix = (matrix - mean) / scale
    folds = folds_of(groups, seed)
    losses = [0.0] * len(RIDGES)
    for fold in range(folds.max() + 1):
        train, test = folds != fold, folds == fold
        for i, ridge in enumerate(RIDGES):
            intercept, found = newton(matrix[train], right[train], weights[train], ridge)
            losses[i] += float(weights[test] @ cross_entropy(sigmoid(intercept + matrix[test] @ found), right[test]))
    ridge = RIDGES[int(np.argmin(losses))]
    intercept, found = newton(matrix, right, weights, ridge)
    return Score(unit, tuple(features), mean, scale, found, float(intercept), ridge)


def cross_fitted(
    unit: str,
    signals: Mapping[str, Sequence[float]],
    right: Sequence[float],
    groups: Sequence,
    weights: Sequence[float] | None = None,
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """(N,) probabilities of the rows, each from a score that was fitted without the row's fold of groups. See `fit`.

    Raises OneSidedError where all rows, or all outside a fold, are right or all wrong.
    """
    columns, right, groups, weights = arrays_of(unit, signals, right, groups, weights)
    fold, result = folds_of(groups, seed, folds), np.zeros(len(right))
    for number in range(fold.max() + 1):
        train, test = fold != number, fold == number
        own = {name: column[train] for name, column in columns.items()}
        try:
            score = fit(unit, own, right[train], groups[train], weights[train], seed)
        except OneSidedError as error:
            raise OneSidedError(f"{error}, when one fold of {fold.max() + 1} is held out: too few writers") from None
        result[test] = score.probability({name: column[test] for name, column in columns.items()})
    return result


def prepared(unit, signals, right, groups, weights, seed):
    """The arguments of `fit` as checked arrays of at most MAX_FIT_ROWS rows; the weights have mean 1."""
    columns, right, groups, weights = arrays_of(unit, signals, right, groups, weights)
    if len(right) > MAX_FIT_ROWS:
        some = np.sort(np.random.default_rng(seed).choice(len(right), MAX_FIT_ROWS, replace=False))
        columns = {name: column[some] for name, column in columns.items()}
        right, groups, weights = right[some], groups[some], weights[some]
    share = float(weights @ right / weights.sum()) if len(right) and weights.sum() else 0.0
    if not 0 < share < 1:
        raise OneSidedError(f"{unit}: {len(right)} of them, all right or all wrong: nothing can be fitted")
    return columns, right, groups, weights / weights.mean()


def arrays_of(unit, signals, right, groups, weights):
    right = np.asarray(right, np.float64)
    weights = np.ones(len(right)) if weights is None else np.asarray(weights, np.float64)
    return columns_of(signals, list(signals), unit), right, np.asarray(groups), weights


def columns_of(signals: Mapping, names: Sequence[str], unit: str) -> dict[str, np.ndarray]:
    columns = {}
    for name in names:
        try:
            columns[name] = np.asarray(signals[name], np.float64)
        except KeyError:
            raise ValueError(f"{unit}: the signal '{name}' is missing, and the score was fitted with it") from None
        bad = int(np.count_nonzero(~np.isfinite(columns[name])))
        if bad:
            raise ValueError(f"{unit}: the signal '{name}' is missing or not finite in {bad} of {len(columns[name])}")
    return columns


def feature_of(name: str, values: np.ndarray) -> Feature | None:
    """(N,) values of a signal -> its spline; None for a signal with one value alone."""
    transform = SCALES.get(name, "logit")
    x = on_scale(values, transform)
    low, *knots, high = np.quantile(x, (0.0, *KNOT_QUANTILES, 1.0)).tolist()
    if low == high:
        return None
    return Feature(name, transform, low, high, tuple(sorted({knot for knot in knots if low < knot < high})))


def on_scale(values: np.ndarray, transform: str) -> np.ndarray:
    if transform == "log":
        return np.log1p(np.maximum(values, 0.0))
    if transform != "logit":
        raise ValueError(f"transform '{transform}': known are logit and log")
    p = np.clip(values, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.log(p) - np.log1p(-p)


def design(features: Sequence[Feature], columns: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([feature.columns(columns[feature.signal]) for feature in features], axis=1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.5 * (1 + np.tanh(0.5 * x)), MIN_PROBABILITY, 1 - MIN_PROBABILITY)


def cross_entropy(probs: np.ndarray, right: np.ndarray) -> np.ndarray:
    return -(right * np.log(probs) + (1 - right) * np.log1p(-probs))


def folds_of(groups: np.ndarray, seed: int, folds: int = FOLDS) -> np.ndarray:
    """(N,) groups -> (N,) the number of each row's fold; a group is in one fold. ValueError with fewer than two."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} writer or certificate: at least two are needed to fit a score")
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % min(folds, len(names)))[group]


def newton(matrix: np.ndarray, right: np.ndarray, weights: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """Logistic regression by Newton's method: the weights of least cross-entropy + ridge / 2 · |w|².

    (N, C) columns, (N,) targets between 0 and 1, (N,) weights of rows -> the intercept, which has no penalty, and (C,).
    """
    full = np.concatenate([np.ones((len(matrix), 1)), matrix], axis=1)
    penalty = np.full(full.shape[1], ridge)
    penalty[0] = 1e-6
    share = np.clip(weights @ right / weights.sum(), 1e-3, 1 - 1e-3)
    w = np.zeros(full.shape[1])
    w[0] = np.log(share / (1 - share))

    def loss(w: np.ndarray) -> float:
        return float(weights @ cross_entropy(sigmoid(full @ w), right) + 0.5 * penalty @ w**2)

    now = loss(w)
    for _ in range(50):
        p = sigmoid(full @ w)
        gradient = full.T @ (weights * (p - right)) + penalty * w
        hessian = (full * (weights * p * (1 - p))[:, None]).T @ full + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (then := loss(w - size * step)) > now and size > 1e-4:
            size /= 2  # far from the optimum a full step may overshoot
        w, before, now = w - size * step, now, min(then, now)
        if before - now < 1e-9 * max(abs(before), 1.0):
            break
    return w[0], w[1:]
