"""Risk control: a threshold whose accepted readings err at most alpha, with probability 1 - delta at least.

What is promised. Clusters (writers, say) are independent draws from one population. Cluster g has units i = 1 … n_g
(lines, say), each with a probability p_i that orders them, errors e_i >= 0 and a size s_i >= 0: 1 or 0 wrong of 1; or
edits of reference characters. Two limits are fixed before any data are seen: a cluster counts as at most m units, a
unit as at most c of size (and of errors). What has more counts in proportion, so that nothing is clipped:

    f_i = min(1, c / max(e_i, s_i))          of a unit: one of 3 c characters and 30 edits counts as c and 10
    w_g = min(n_g, m) / n_g                  of a cluster: as if m of its units were drawn at random
    R(t) = E[w_g sum_i f_i e_i [p_i >= t]] / E[w_g sum_i f_i s_i [p_i >= t]]          the rate of what t accepts

With m = c = 1 and units that are right or wrong, R is the share of wrong ones where every cluster weighs the same. The
promise is R(t) <= alpha for the threshold t that is chosen.

Why it holds. The loss of a cluster, X_g(t) = w_g sum_i f_i (e_i - alpha s_i) [p_i >= t] / (m c), lies between -alpha
and 1, whatever its data are: w_g sum_i f_i e_i [..] <= w_g n_g c <= m c, and the same of s. Nothing estimated enters
this bound, so no cluster that is still unseen can break it.
  1. If R(t) > alpha then E X_g(t) >= 0. For a stake b, 0 <= b < 1, each factor 1 - b X_g is over 0 and has a mean of at
     most 1. So their product over clusters, in an order that does not hang on the losses (`numbered`), is a
     supermartingale that starts at 1, and so is a mixture over stakes with fixed shares. By Ville's inequality (1939)
     its maximum is 1 / delta or more with a probability of delta at most. `betting` is the inverse of that maximum: a
     p-value. (Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting.)
  2. Thresholds t_1, t_2, …, strict to loose, and the stakes hang on the fitting part alone, which shares no cluster
     with the part that chooses. They are tested in this order at the level delta, up to the first that fails; the last
     one that passed is promised. Let k be the first with R(t_k) > alpha. A false promise needs t_k to pass, which has
     the probability delta at most, whether R is monotone or not (fixed-sequence testing; Learn then Test: Angelopoulos,
     Bates, Candès, Jordan & Lei 2021).

The price is coverage. A cluster that is wholly wrong may always be there unseen: at alpha = 2 % and delta = 5 % it
takes 159 clusters, all accepted as a whole and without an error, to promise anything (`needed_clusters`). No test can
do with fewer than 149: if 2 % of all clusters are wholly wrong and the others right, it takes so many to see one of
them with a probability of 95 %.

Units without clusters, of which the user says that no two have anything in common, are right or wrong by the binomial
distribution: that test is exact (`binomial`, and the bounds of Clopper & Pearson 1934).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

MAX_THRESHOLDS = 100  # thresholds of a sequence, at most
FIRST_THRESHOLD_POWER = 0.98  # the power that the first threshold of a sequence is wanted to have
UNSEEN = 0.2  # the loss of a cluster that planning adds to those seen: the worst one is seldom in the smaller part
STAKES = np.append(np.geomspace(2e-3, 0.9, 22), (0.97, 0.99))  # shares of the wealth that a cluster wholly wrong takes
FITTED_STAKE_SHARE = 0.9  # share of the capital that goes to the stake that the fitting part found best
PER_CLUSTER = {"writer": 10, "certificate": 5, "unit": 1}  # m: units that a cluster counts as, at most
PER_LINE = 30  # c: characters, and edits, that a line counts as, at most, where CER is promised


@dataclass(frozen=True)
class Step:
    """One threshold tested. `errors` of `total`: wrong units of the accepted, or edits of their characters, as they
    count where there are clusters.
    """

    threshold: float
    accepted: int
    errors: float
    total: float
    groups: int  # that have an accepted unit
    p: float
    passed: bool


@dataclass(frozen=True)
class Units:
    """N units: the probability that orders them, their errors and sizes (1 and 1 for wrong units; edits and reference
    characters for CER), and the number of the cluster (`numbered`: 0 to G - 1, every one there) that each is of; None:
    independent units. With clusters: how many units one of them counts as at most, and how much of size and errors a
    unit.
    """

    probability: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    groups: np.ndarray | None = None
    per_cluster: int = 1
    per_unit: float = 1.0

    @cached_property
    def weights(self) -> np.ndarray:
        """(N,) w f: how much of a unit counts, so that no cluster has more than per_cluster * per_unit."""
        if self.groups is None:
            return np.ones(len(self.probability))
        units = np.bincount(self.groups)[self.groups]
        most = np.maximum(np.maximum(self.errors, self.sizes), self.per_unit)
        return np.minimum(units, self.per_cluster) / units * self.per_unit / most

    def losses(self, threshold: float, alpha: float) -> np.ndarray:
        """(G,) what the accepted units of each cluster err beyond alpha, of the most that one can: -alpha to 1."""
        accepted = self.probability >= threshold
        loss = np.where(accepted, self.weights * (self.errors - alpha * self.sizes), 0.0)
        groups = np.arange(len(loss)) if self.groups is None else self.groups
        return np.bincount(groups, loss, self.count) / (self.per_cluster * self.per_unit)

    @property
    def count(self) -> int:
        """Of clusters; of units where they are independent."""
        return len(self.probability) if self.groups is None else int(self.groups.max(initial=-1)) + 1


def numbered(names: Sequence[str]) -> np.ndarray:
    """(N,) the cluster of each unit by its name -> (N,) its number, from 0 on, in the order of the names' SHA-256.

    In the order of the names themselves a sequence would not be one of independent draws: names have hospitals and
    years in them, hence errors. A seeded permutation of that order is one and the same for so many clusters, whatever
    they are called: of 331 writers, the worst named last, 34 % of the promises of 2 % were false in place of 5 %.
    """
    there, number = np.unique(np.asarray(names, str), return_inverse=True)
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in there.tolist()]
    rank = np.empty(len(there), np.int64)
    rank[sorted(range(len(there)), key=digests.__getitem__)] = np.arange(len(there))
    return rank[number]


# ---------------------------------------------------------------------------------------------------- binomial


def binomial(k: int, n: int, p: float) -> float:
    """P(X <= k) of n draws with the probability p each."""
    return float(stats.binom.cdf(k, n, p))


def upper(k: int, n: int, delta: float) -> float:
    """The exact upper bound of a share, k of n seen (Clopper & Pearson 1934). 1 without any seen."""
    return float(stats.beta.ppf(1 - delta, k + 1, n - k)) if k < n else 1.0


def lower(k: int, n: int, delta: float) -> float:
    return 1 - upper(n - k, n, delta) if n else 0.0


def needed(alpha: float, delta: float) -> int:
    """Accepted units without a single error that the binomial test takes at least: (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def needed_clusters(alpha: float, delta: float) -> int:
    """Clusters, as large as they can count, accepted as a whole and without an error, with which `betting` passes."""
    return math.ceil(math.log(1 / (delta * FITTED_STAKE_SHARE)) / math.log1p(float(STAKES.max()) * alpha))


def allowed(n: int, alpha: float, delta: float) -> int:
    """The most errors among n with which the binomial test passes; -1: not even without one."""
    k = int(stats.binom.ppf(delta, n, alpha))  # the least with P(X <= k) >= delta
    return k if binomial(k, n, alpha) <= delta else k - 1


# ---------------------------------------------------------------------------------------------------- betting


def betting(losses: np.ndarray, own: float | None = None, seed: int = 0) -> float:
    """(G,) losses of clusters, at most 1 -> a p-value of "their mean is 0 or more" (1. above).

    The clusters come as independent draws (see `numbered`), and are taken in a seeded order. `own`: a stake that other
    data found best. Raises ValueError for a loss over 1: what is bounded must be bounded before it comes here, since
    clipping it would break the test.
    """
    losses = np.asarray(losses, np.float64)
    if not len(losses):
        return 1.0
    if losses.max() > 1 + 1e-9:
        raise ValueError(f"a loss of {losses.max():g}: the test wants losses of 1 at most, and never clips one")
    losses = losses[np.random.default_rng(seed).permutation(len(losses))]
    stakes, capital = STAKES, np.full(len(STAKES), 1 / len(STAKES))
    if own is not None:
        stakes, capital = np.append(stakes, own), np.append(capital * (1 - FITTED_STAKE_SHARE), FITTED_STAKE_SHARE)
    total = np.full(len(losses), -np.inf)
    for stake, share in zip(stakes, capital, strict=True):
        total = np.logaddexp(total, math.log(share) + np.cumsum(np.log1p(-stake * losses)))
    return float(min(math.exp(-max(total.max(), 0.0)), 1.0))


def best_stake(losses: np.ndarray) -> tuple[float, float, float]:
    """(G,) losses -> the stake whose wealth grows fastest, its growth a cluster and the spread of that."""
    growth = np.log1p(-STAKES[:, None] * losses)
    means = growth.mean(axis=1)
    best = int(np.argmax(means))
    return float(STAKES[best]), float(means[best]), float(growth[best].std())


# ---------------------------------------------------------------------------------------------------- the sequence


@dataclass(frozen=True)
class Plan:
    """What is set before the part that chooses is looked at."""

    thresholds: list[float]  # strict to loose
    stakes: list[float] | None  # one a threshold; None: binomial
    alpha: float
    delta: float


def plan(fitted: Units, count: int, alpha: float, delta: float) -> Plan:
    """Units that did not fit their own probabilities, and how many clusters the other part has -> the sequence.

    It begins with the strictest threshold that is all but sure to pass, as far as these units can tell, else with the
    likeliest to: an error among the first few accepted would end it before it has begun. None of this can make a
    promise false, only poor. Raises ValueError for an alpha or delta that is no share.
    """
    if not (0 < alpha < 1 and 0 < delta < 1):
        raise ValueError(f"alpha {alpha}, delta {delta}: both are shares, over 0 and below 1")
    if not len(fitted.probability):
        raise ValueError("no units to plan thresholds with")
    shares = np.arange(1, MAX_THRESHOLDS + 1) / MAX_THRESHOLDS
    # from strict to loose; the last one accepts all that the fitting part has
    grid = np.unique(np.quantile(fitted.probability, 1 - shares, method="lower"))[::-1]
    grid = grid[np.isfinite(grid)]  # what is never accepted has the probability -inf
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
    """How likely the binomial test of a threshold will pass."""
    accepted = fitted.probability >= threshold
    n = round(count * accepted.mean())
    # what the score says and what was seen, half and half: a few accepted units show no error at all
    seen = (fitted.errors[accepted].sum() + 0.5) / (accepted.sum() + 1)
    rate = float(1 - fitted.probability[accepted].mean() + seen) / 2
    return binomial(allowed(n, alpha, delta), n, rate)


def power_of_clusters(losses: np.ndarray, count: int, delta: float) -> tuple[float, float]:
    """(G,) losses of the fitting part -> how likely `betting` will pass with `count` clusters, and the stake for it."""
    stake, growth, spread = best_stake(np.append(losses, UNSEEN))
    gap = growth * count - math.log(1 / (delta * FITTED_STAKE_SHARE))
    return float(stats.norm.cdf(gap / max(spread * math.sqrt(count), 1e-12))), stake


def choose(plan: Plan, units: Units) -> tuple[float | None, list[Step]]:
    """The units of a part that neither fitted nor planned -> the threshold promised, None for nothing, and what was
    tested, up to the first that failed.
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
    """The share of units accepted."""
    if threshold is None or not len(units.probability):
        return 0.0
    return float((units.probability >= threshold).mean())


def error_rate(units: Units, threshold: float | None) -> tuple[float, float]:
    """-> errors and total of what is accepted, as they count."""
    counted = units.weights * (units.probability >= (np.inf if threshold is None else threshold))
    return float(units.errors @ counted), float(units.sizes @ counted)
