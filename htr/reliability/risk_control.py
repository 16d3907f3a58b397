"""Risk control: a threshold whose accepted readings err at most alpha, with a probability of at least 1 - delta.

What is promised. Clusters (for example writers) are independent draws from one population. Cluster g has units i = 1 …
n_g (for example lines). A unit has a probability p_i that orders the units, errors e_i >= 0 and a size s_i >= 0: for
wrong units 1 or 0 of 1, for CER edits and reference characters. Two limits are fixed before any data are seen: a
cluster counts as at most m units, and a unit as at most c of size and of errors. Larger ones count in proportion, so
nothing is clipped:

    f_i = min(1, c / max(e_i, s_i))          of a unit: one of 3 c characters and 30 edits counts as c and 10
    w_g = min(n_g, m) / n_g                  of a cluster: as if m of its units were drawn at random
    R(t) = E[w_g sum_i f_i e_i [p_i >= t]] / E[w_g sum_i f_i s_i [p_i >= t]]          the rate of what t accepts

With m = c = 1 and units that are right or wrong, R is the share of wrong units where every cluster has the same weight.
The promise is R(t) <= alpha for the threshold t that is chosen.

Why it holds. The loss of a cluster, X_g(t) = w_g sum_i f_i (e_i - alpha s_i) [p_i >= t] / (m c), lies between -alpha
and 1, whatever its data are: w_g sum_i f_i e_i [..] <= w_g n_g c <= m c, and the same for s. Nothing estimated enters
this bound, so no unseen cluster can break it.
  1. If R(t) > alpha then E X_g(t) >= 0. For a stake b, 0 <= b < 1, each factor 1 - b X_g is positive and has a mean of
     at most 1. So their product over clusters, in an order that does not depend on the losses (`numbered`), is a
     supermartingale that starts at 1. So is a mixture over stakes with fixed shares. By Ville's inequality (1939) its
     maximum reaches 1 / delta with a probability of at most delta. `betting` is the inverse of that maximum: a p-value.
     (Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting.)
  2. The thresholds t_1, t_2, …, strict to loose, and the stakes depend on the fitting part alone, which shares no
     cluster with the part that chooses. They are tested in this order at the level delta, up to the first that fails;
     the last one that passed is promised. Let k be the first with R(t_k) > alpha. A false promise needs t_k to pass,
     which has a probability of at most delta, whether R is monotone or not (fixed-sequence testing; Learn then Test:
     Angelopoulos, Bates, Candès, Jordan & Lei 2021).

The price is coverage. There may always be unseen clusters that are wholly wrong. At alpha = 2 % and delta = 5 % a
promise needs 159 clusters that are all accepted as a whole and without an error (`needed_clusters`). No test can do
with fewer than 149: if 2 % of all clusters are wholly wrong and the others right, it takes that many to see one of them
with a probability of 95 %.

Without clusters (the user says that no two units have anything in common) the number of wrong units is binomial, and
the test is exact (`binomial`, and the bounds of Clopper & Pearson 1934).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

MAX_THRESHOLDS = 100  # of a sequence
FIRST_THRESHOLD_POWER = 0.98  # least power of the first threshold of a sequence, if one has it
UNSEEN = 0.2  # loss of one more cluster that planning assumes: the worst one is seldom in the smaller part
STAKES = np.append(np.geomspace(2e-3, 0.9, 22), (0.97, 0.99))  # shares of the wealth that a wholly wrong cluster takes
FITTED_STAKE_SHARE = 0.9  # of the capital, on the stake that was best in the fitting part
PER_CLUSTER = {"writer": 10, "certificate": 5, "unit": 1}  # m: most units that a cluster counts as
PER_LINE = 30  # c: most characters, and edits, that a line counts as where CER is promised


@dataclass(frozen=True)
class Step:
    """A threshold that was tested. `errors` of `total`: wrong units among the accepted ones, or edits among their
    characters; weighted where there are clusters.
    """

    threshold: float
    accepted: int
    errors: float
    total: float
    groups: int  # number of clusters that have an accepted unit
    p: float  # p-value
    passed: bool


@dataclass(frozen=True)
class Units:
    """N units in G clusters, all (N,) arrays: the probability that orders the units, their errors and their sizes.

    Errors and sizes: 1 of 1 for a wrong unit; edits and reference characters for CER. `groups`: the number of each
    unit's cluster, 0 to G - 1 without a gap (`numbered`); None: independent units. `per_cluster`: most units that a
    cluster counts as. `per_unit`: most size, and errors, that a unit counts as.
    """

    probability: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    groups: np.ndarray | None = None
    per_cluster: int = 1
    per_unit: float = 1.0

    @cached_property
    def weights(self) -> np.ndarray:
        """(N,) w f of each unit (see above), so that no cluster has a size over per_cluster * per_unit."""
        if self.groups is None:
            return np.ones(len(self.probability))
        units = np.bincount(self.groups)[self.groups]
        most = np.maximum(np.maximum(self.errors, self.sizes), self.per_unit)
        return np.minimum(units, self.per_cluster) / units * self.per_unit / most

    def losses(self, threshold: float, alpha: float) -> np.ndarray:
        """(G,) X_g of each cluster (see above): the errors of its accepted units beyond alpha, from -alpha to 1."""
        accepted = self.probability >= threshold
        loss = np.where(accepted, self.weights * (self.errors - alpha * self.sizes), 0.0)
        groups = np.arange(len(loss)) if self.groups is None else self.groups
        return np.bincount(groups, loss, self.count) / (self.per_cluster * self.per_unit)

    @property
    def count(self) -> int:
        """G; N where units are independent."""
        return len(self.probability) if self.groups is None else int(self.groups.max(initial=-1)) + 1


def numbered(names: Sequence[str]) -> np.ndarray:
    """(N,) the name of each unit's cluster -> (N,) its number from 0 on, in the order of the SHA-256 of the names.

    The order of the names themselves is not that of independent draws: names contain hospitals and years, which errors
    depend on. A seeded permutation does not help, since it is the same for every data set with as many clusters: with
    331 writers, the worst of them last by name, 34 % of the promises of 2 % were false in place of 5 %.
    """
    there, number = np.unique(np.asarray(names, str), return_inverse=True)
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in there.tolist()]
    rank = np.empty(len(there), np.int64)
    rank[sorted(range(len(there)), key=digests.__getitem__)] = np.arange(len(there))
    return rank[number]


# ---------------------------------------------------------------------------------------------------- binomial


def binomial(k: int, n: int, p: float) -> float:
    """P(X <= k) for n draws of probability p."""
    return float(stats.binom.cdf(k, n, p))


def upper(k: int, n: int, delta: float) -> float:
    """The exact upper bound, at the level delta, of a share that k of n show (Clopper & Pearson 1934); 1 if n is 0."""
    return float(stats.beta.ppf(1 - delta, k + 1, n - k)) if k < n else 1.0


def lower(k: int, n: int, delta: float) -> float:
    """The exact lower bound, as `upper`; 0 if n is 0."""
    return 1 - upper(n - k, n, delta) if n else 0.0


def needed(alpha: float, delta: float) -> int:
    """The least number of accepted units, all right, with which the binomial test passes: (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def needed_clusters(alpha: float, delta: float) -> int:
    """The least number of clusters with which `betting` passes, each of full size, accepted as a whole and right."""
    return math.ceil(math.log(1 / (delta * FITTED_STAKE_SHARE)) / math.log1p(float(STAKES.max()) * alpha))


def allowed(n: int, alpha: float, delta: float) -> int:
    """The largest number of errors among n units with which the binomial test passes; -1: none passes."""
    k = int(stats.binom.ppf(delta, n, alpha))  # the least with P(X <= k) >= delta
    return k if binomial(k, n, alpha) <= delta else k - 1


# ---------------------------------------------------------------------------------------------------- betting


def betting(losses: np.ndarray, own: float | None = None, seed: int = 0) -> float:
    """(G,) losses of clusters, at most 1 -> a p-value of the hypothesis "their mean is 0 or more" (1. above).

    The clusters must be in the order of independent draws (`numbered`); a seeded permutation is made of that order.
    `own`: the stake that was best in other data. Raises ValueError for a loss over 1: clipping it here would break the
    test.
    """
    losses = np.asarray(losses, np.float64)
    if not len(losses):
        return 1.0
    if losses.max() > 1 + 1e-9:
        raise ValueError(f"a loss of {losses.max():g}: losses must be at most 1")
    losses = losses[np.random.default_rng(seed).permutation(len(losses))]
    stakes, capital = STAKES, np.full(len(STAKES), 1 / len(STAKES))
    if own is not None:
        stakes, capital = np.append(stakes, own), np.append(capital * (1 - FITTED_STAKE_SHARE), FITTED_STAKE_SHARE)
    total = np.full(len(losses), -np.inf)
    for stake, share in zip(stakes, capital, strict=True):
        total = np.logaddexp(total, math.log(share) + np.cumsum(np.log1p(-stake * losses)))
    return float(min(math.exp(-max(total.max(), 0.0)), 1.0))


def best_stake(losses: np.ndarray) -> tuple[float, float, float]:
    """(G,) losses -> the stake of the fastest growth, its mean log growth a cluster, and the deviation of that."""
    growth = np.log1p(-STAKES[:, None] * losses)
    means = growth.mean(axis=1)
    best = int(np.argmax(means))
    return float(STAKES[best]), float(means[best]), float(growth[best].std())


# ---------------------------------------------------------------------------------------------------- the sequence


@dataclass(frozen=True)
class Plan:
    """The sequence of tests. It is fixed before the part that chooses is looked at."""

    thresholds: list[float]  # strict to loose
    stakes: list[float] | None  # one a threshold; None: binomial
    alpha: float
    delta: float


def plan(fitted: Units, count: int, alpha: float, delta: float) -> Plan:
    """The sequence of thresholds, from the fitting part.

    `fitted`: its units, with probabilities that other rows were fitted for. `count`: number of clusters of the part
    that chooses. The sequence begins with the strictest threshold that will almost surely pass, or else with the most
    likely one: an early failure would end it at once. This choice can cost coverage, but can't make a promise false.
    Raises ValueError for an alpha or delta that is not between 0 and 1, and where no unit can be accepted.
    """
    if not (0 < alpha < 1 and 0 < delta < 1):
        raise ValueError(f"alpha {alpha}, delta {delta}: both are shares, over 0 and below 1")
    if not len(fitted.probability):
        raise ValueError("no units to plan thresholds with")
    shares = np.arange(1, MAX_THRESHOLDS + 1) / MAX_THRESHOLDS
    # from strict to loose; the last one accepts all that the fitting part has
    grid = np.unique(np.quantile(fitted.probability, 1 - shares, method="lower"))[::-1]
    grid = grid[np.isfinite(grid)]  # units that are never accepted have the probability -inf
    if not len(grid):
        raise ValueError("no unit of the fitting part can be accepted: all were read as nothing")
    if fitted.groups is None:
        powers, stakes = [power_alone(fitted, threshold, count, alpha, delta) for threshold in grid], None
    else:
        found = [power_of_clusters(fitted.losses(threshold, alpha), count, delta) for threshold in grid]
        powers, stakes = [power for power, _ in found], [stake for _, stake in found]
    first = next((i for i, power in enumerate(powers) if power >= FIRST_THRESHOLD_POWER), int(np.argmax(powers)))
    return Plan(grid[first:].tolist(), stakes and stakes[first:], alpha, delta)


def power_alone(fitted: Units, threshold: float, count: int, alpha: float, delta: float) -> float:
    """The power of the binomial test of a threshold with `count` units."""
    accepted = fitted.probability >= threshold
    n = round(count * accepted.mean())
    # the mean of what the score says and what was seen: a few accepted units may show no error at all
    seen = (fitted.errors[accepted].sum() + 0.5) / (accepted.sum() + 1)
    rate = float(1 - fitted.probability[accepted].mean() + seen) / 2
    return binomial(allowed(n, alpha, delta), n, rate)


def power_of_clusters(losses: np.ndarray, count: int, delta: float) -> tuple[float, float]:
    """(G,) losses of the fitting part -> the power of `betting` with `count` clusters, and the stake for it."""
    stake, growth, spread = best_stake(np.append(losses, UNSEEN))
    gap = growth * count - math.log(1 / (delta * FITTED_STAKE_SHARE))
    return float(stats.norm.cdf(gap / max(spread * math.sqrt(count), 1e-12))), stake


def choose(plan: Plan, units: Units) -> tuple[float | None, list[Step]]:
    """Test the sequence on the units of another part.

    -> the promised threshold, None where the first test failed; and the tests, up to the first that failed.
    """
    chosen, steps = None, []
    for i, threshold in enumerate(plan.thresholds):
        accepted = units.probability >= threshold
        errors, total = error_rate(units, threshold)
        count = int(accepted.sum())
        if plan.stakes is None:
            p, groups = binomial(round(errors), count, plan.alpha) if count else 1.0, count
        else:
            p = betting(units.losses(threshold, plan.alpha), plan.stakes[i])
            groups = len(np.unique(units.groups[accepted]))
        passed = p <= plan.delta
        steps.append(Step(threshold, count, errors, total, groups, p, passed))
        if not passed:
            break
        chosen = threshold
    return chosen, steps


def coverage(units: Units, threshold: float | None) -> float:
    """The share of units that are accepted; 0 with threshold None."""
    if threshold is None or not len(units.probability):
        return 0.0
    return float((units.probability >= threshold).mean())


def error_rate(units: Units, threshold: float | None) -> tuple[float, float]:
    """-> weighted errors and weighted size of the accepted units."""
    counted = units.weights * (units.probability >= (np.inf if threshold is None else threshold))
    return float(units.errors @ counted), float(units.sizes @ counted)
