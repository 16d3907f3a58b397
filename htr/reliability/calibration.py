"""Calibration of signals to probabilities: a small logistic regression, plain enough to be a JSON file.

Each signal is brought to a scale on which it is about linear (a probability to its logit), bent at a few quantiles
(a linear spline), kept within what the fitting part has shown, and weighed; a ridge, chosen by cross-validation over
groups (writers or certificates), holds the weights. Logistic calibration: Platt 1999; of several signals: Menon et
al. 2012 (Predicting accurate probabilities with a ranking loss) and what speech recognition does since Evermann &
Woodland 2000 (Posterior probability decoding, confidence estimation and system combination).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_PROBABILITY = 1e-6  # of a probability: an exact 0 or 1 has no logit
SCALES = {"width": "log", "length": "log", "lines": "log"}  # of signals that are no probability
KNOT_QUANTILES = (1 / 3, 2 / 3)  # quantiles at which a slope may change
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 5
DIGITS = 9  # of a probability
MAX_FIT_ROWS = 50_000  # rows that a fit looks at: more change nothing of some thirty weights


@dataclass(frozen=True)
class Feature:
    """A signal on its scale (logit or log), within low and high, and its slopes: one from low on, one more from each
    knot on.
    """

    signal: str
    transform: str
    low: float
    high: float
    knots: tuple[float, ...]

    def columns(self, values: np.ndarray) -> np.ndarray:
        """(N,) -> (N, 1 + knots)."""
        x = np.clip(on_scale(values, self.transform), self.low, self.high)
        return np.stack([x, *(np.maximum(x - knot, 0.0) for knot in self.knots)], axis=1)


@dataclass(frozen=True)
class Score:
    """Signals -> the probability that a unit is right: sigmoid(intercept + weights · (columns - mean) / scale)."""

    unit: str
    features: tuple[Feature, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    ridge: float

    @property
    def signals(self) -> list[str]:
        return [feature.signal for feature in self.features]

    def probability(self, signals: Mapping[str, Sequence[float]]) -> np.ndarray:
        """Columns of N values by name (more than are needed do no harm) -> (N,) probabilities. Raises ValueError for
        a signal that is missing or holds what is no number.
        """
        columns = design(self.features, columns_of(signals, self.signals, self.unit))
        found = sigmoid(self.intercept + ((columns - self.mean) / self.scale) @ self.weights)
        # the last bits of a sum hang on how many rows there are, and a threshold is one of these numbers
        return np.round(found, DIGITS)

    def to_json(self) -> dict:
        features = [vars(feature) | {"knots": list(feature.knots)} for feature in self.features]
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights")}
        return {"unit": self.unit, "features": features, **arrays, "intercept": self.intercept, "ridge": self.ridge}

    @classmethod
    def from_json(cls, content: Mapping) -> "Score":
        """Raises ValueError, KeyError or TypeError for what is no score."""
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
    """Columns of N values by name, (N,) whether right (or what share is), (N,) groups, (N,) weights -> a score.

    Raises ValueError with fewer than two groups, or when all are right or all are wrong: nothing can be learnt then.
    """
    columns, right, groups, weights = prepared(unit, signals, right, groups, weights, seed)
    features = [f for name, values in columns.items() if (f := feature_of(name, values)) is not None]
    if not features:
        raise ValueError(f"{unit}: every signal is the same in all {len(right)} of them: nothing to tell them by")
    matrix = design(features, columns)
    # a spline whose quantiles coincide has a column without any variety, which weighs nothing
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
    """(N,) probabilities, each by a score that was fitted without the row's group."""
    columns, right, groups, weights = arrays_of(unit, signals, right, groups, weights)
    fold, result = folds_of(groups, seed, folds), np.zeros(len(right))
    for number in range(fold.max() + 1):
        train, test = fold != number, fold == number
        score = fit(unit, {n: c[train] for n, c in columns.items()}, right[train], groups[train], weights[train], seed)
        result[test] = score.probability({name: column[test] for name, column in columns.items()})
    return result


def prepared(unit, signals, right, groups, weights, seed):
    """Arrays, checked, of MOST rows at most; weights of mean 1."""
    columns, right, groups, weights = arrays_of(unit, signals, right, groups, weights)
    if len(right) > MAX_FIT_ROWS:
        some = np.sort(np.random.default_rng(seed).choice(len(right), MAX_FIT_ROWS, replace=False))
        columns = {name: column[some] for name, column in columns.items()}
        right, groups, weights = right[some], groups[some], weights[some]
    share = float(weights @ right / weights.sum()) if len(right) and weights.sum() else 0.0
    if not 0 < share < 1:
        raise ValueError(f"{unit}: {len(right)} of them, and no right ones beside wrong ones: nothing can be fitted")
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
            raise ValueError(f"{unit}: no signal '{name}' here, and the score was fitted with it") from None
        bad = int(np.count_nonzero(~np.isfinite(columns[name])))
        if bad:
            raise ValueError(f"{unit}: the signal '{name}' is missing or no number in {bad} of {len(columns[name])}")
    return columns


def feature_of(name: str, values: np.ndarray) -> Feature | None:
    """None for a signal that is always the same."""
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
    """(N,) the fold of each row's group. Raises ValueError with fewer than two groups."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} writer or certificate: at least two are needed to fit a score")
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % min(folds, len(names)))[group]


def newton(matrix: np.ndarray, right: np.ndarray, weights: np.ndarray, ridge: float) -> tuple[float, np.ndarray]:
    """The weights of least cross-entropy + ridge / 2 · |w|², the intercept free."""
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
            size /= 2  # far from the optimum a whole step of Newton's may overshoot
        w, before, now = w - size * step, now, min(then, now)
        if before - now < 1e-9 * max(abs(before), 1.0):
            break
    return w[0], w[1:]
