"""A threshold with a guarantee: with probability 1 - delta at least, what it accepts errs at most alpha.

Learn then Test (Angelopoulos, Bates, Candès, Jordan & Lei 2021, Learn then Test: calibrating predictive algorithms to
achieve risk control) with fixed-sequence testing: a sequence of thresholds, strict to loose, is set before (from the
part that the score was fitted on); each is tested at the level delta on another part, until the first that fails; the
last one that passed is promised. Two tests of "the accepted err more than alpha":

    binomial   units that are right or wrong, drawn independently: exact (Clopper & Pearson 1934)
    betting    groups of units (a writer's lines): the loss of a group is what its accepted units err beyond alpha,
               sum(errors - alpha * size), at most a bound; its mean is at most 0 where the accepted err at most alpha,
               all groups together. Who bets that it is, and gets rich, has shown it (Waudby-Smith & Ramdas 2024,
               Estimating means of bounded random variables by betting). No assumption but that groups are independent
               draws; a ratio such as CER, not monotone in the threshold, is as good as any.
"""

import math
from dataclasses import dataclass

import numpy as np

MAX_THRESHOLDS = 100  # thresholds of a sequence, at most
FIRST_THRESHOLD_POWER = 0.98  # the power that the first threshold of a sequence is wanted to have
STAKE_FRACTIONS = np.geomspace(2e-3, 0.95, 24)  # of the bound's inverse: stakes of the betting test
FITTED_STAKE_SHARE = 0.5  # share of the stake that the fitting part found best


@dataclass(frozen=True)
class Step:
    """One threshold tested. `errors` of `total`: wrong units of the accepted, or edits of their characters."""

    threshold: float
    accepted: int
    errors: float
    total: float
    groups: int  # that have an accepted unit
    bound: float | None  # of a group's loss; None: binomial
    clipped: int  # groups whose loss was over it, and counted as much as it
    p: float
    passed: bool


@dataclass(frozen=True)
class Units:
    """N units: the probability that orders them, their errors and sizes (1 and 1 for wrong units; edits and reference
    characters for CER), and the number of the group (0 to G - 1, every one there) that each is of; None: its own.
    """

    probability: np.ndarray
    errors: np.ndarray
    sizes: np.ndarray
    groups: np.ndarray | None = None

    def losses(self, threshold: float, alpha: float) -> np.ndarray:
        """(G,) what the accepted of each group err beyond alpha; 0 for a group without any."""
        loss = np.where(self.probability >= threshold, self.errors - alpha * self.sizes, 0.0)
        return loss if self.groups is None else np.bincount(self.groups, loss)

    @property
    def count(self) -> int:
        """Of groups."""
        return len(self.probability) if self.groups is None else int(self.groups.max(initial=-1)) + 1


# ---------------------------------------------------------------------------------------------------- binomial


def binomial(k: int, n: int, p: float) -> float:
    """P(X <= k) of n draws with the probability p each."""
    if k >= n or p <= 0:
        return 1.0
    if k < 0 or p >= 1:
        return 0.0
    i = np.arange(1, k + 1)
    terms = n * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(np.log((n - i + 1) / i) + math.log(p / (1 - p)))])
    return min(float(np.exp(terms - terms.max()).sum() * math.exp(terms.max())), 1.0)


def upper(k: int, n: int, delta: float) -> float:
    """The exact upper bound of a share, k of n seen: the largest p with P(X <= k) >= delta. 1 without any seen."""
    return bisect(lambda p: binomial(k, n, p) >= delta) if k < n else 1.0


def lower(k: int, n: int, delta: float) -> float:
    return 1 - upper(n - k, n, delta) if n else 0.0


def bisect(holds) -> float:
    """The largest x of 0 to 1 for which it holds, if it holds from 0 on."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def needed(alpha: float, delta: float) -> int:
    """Accepted units without a single error that a promise takes at least: (1 - alpha)^n <= delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def allowed(n: int, alpha: float, delta: float) -> int:
    """The most errors among n with which the binomial test passes; -1: not even without one."""
    low, high = -1, min(math.floor(n * alpha) + 1, n) if delta < 0.5 else n  # over the median half of them lie
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if binomial(middle, n, alpha) <= delta else (low, middle)
    return low


# ---------------------------------------------------------------------------------------------------- betting


def betting(losses: np.ndarray, bound: float, own: float | None = None, seed: int = 0) -> float:
    """(G,) losses of groups -> a p-value of "their mean is over 0": the inverse of the most wealth on the way.

    What is over `bound` counts as much. The groups come in a seeded order, and each stake is a fixed fraction of the
    wealth: capital that is divided among them at the start is a martingale under the hypothesis, so that its maximum
    is over 1 / p with probability p at most (Ville 1939). `own`: a stake (of 1 / bound) found on other data.
    """
    if not len(losses):
        return 1.0
    losses = np.minimum(losses, bound)[np.random.default_rng(seed).permutation(len(losses))] / bound
    fractions, capital = STAKE_FRACTIONS, np.full(len(STAKE_FRACTIONS), 1 / len(STAKE_FRACTIONS))
    if own is not None:
        fractions, capital = (
            np.append(fractions, own),
            np.append(capital * (1 - FITTED_STAKE_SHARE), FITTED_STAKE_SHARE),
        )
    total = np.full(len(losses), -np.inf)
    for fraction, share in zip(fractions, capital, strict=True):
        total = np.logaddexp(total, math.log(share) + np.cumsum(np.log1p(-fraction * losses)))
    return float(min(math.exp(-max(total.max(), 0.0)), 1.0))


def best_stake(losses: np.ndarray, bound: float) -> tuple[float, float, float]:
    """(G,) losses -> the fraction whose wealth grows fastest, its growth a group and the spread of that."""
    growth = np.log1p(-STAKE_FRACTIONS[:, None] * np.minimum(losses, bound) / bound)
    means = growth.mean(axis=1)
    best = int(np.argmax(means))
    return float(STAKE_FRACTIONS[best]), float(means[best]), float(growth[best].std())


# ---------------------------------------------------------------------------------------------------- the sequence


@dataclass(frozen=True)
class Plan:
    """What is set before the part that chooses is looked at."""

    thresholds: list[float]  # strict to loose
    bounds: list[float] | None  # of a group's loss, and stakes, one a threshold; None: binomial
    stakes: list[float]
    alpha: float
    delta: float


def plan(fitted: Units, count: int, alpha: float, delta: float) -> Plan:
    """Units that were not used to fit their own probabilities, and how many groups the other part has -> the sequence.

    It begins with the strictest threshold that is all but sure to pass, as far as these units can tell, else with the
    likeliest to: an error among the first few accepted would end it before it has begun. Raises ValueError for an
    alpha or delta that is no share.
    """
    if not (0 < alpha < 1 and 0 < delta < 1):
        raise ValueError(f"alpha {alpha}, delta {delta}: both are shares, over 0 and below 1")
    if not len(fitted.probability):
        raise ValueError("no units to plan thresholds with")
    shares = np.arange(1, MAX_THRESHOLDS + 1) / MAX_THRESHOLDS
    # from strict to loose; the last one accepts all that the fitting part has
    grid = np.unique(np.quantile(fitted.probability, 1 - shares, method="lower"))[::-1]
    powers, stakes, bounds = [], [], None
    if fitted.groups is None:
        for threshold in grid:
            accepted = fitted.probability >= threshold
            n = round(count * accepted.mean())
            # what the score says and what was seen, half and half: a few accepted units show no error at all
            rate = (
                1 - fitted.probability[accepted].mean() + (fitted.errors[accepted].sum() + 0.5) / (accepted.sum() + 1)
            ) / 2
            powers.append(binomial(allowed(n, alpha, delta), n, float(rate)))
    else:
        bounds = []
        for threshold in grid:
            loss = fitted.losses(threshold, alpha)
            # twice the worst group seen, or the largest unit wholly wrong; and half of that is taken as seen once more
            bound = max(2 * float(loss.max()), float(fitted.sizes.max()), 1.0)
            bounds.append(bound)
            stake, growth, spread = best_stake(np.append(loss, bound / 2), bound)
            gap = growth * count - math.log(1 / delta)
            deviation = max(spread * math.sqrt(count), 1e-12)
            powers.append(0.5 * math.erfc(-gap / deviation / math.sqrt(2)))
            stakes.append(stake)
    first = next((i for i, power in enumerate(powers) if power >= FIRST_THRESHOLD_POWER), int(np.argmax(powers)))
    return Plan(grid[first:].tolist(), bounds and bounds[first:], stakes[first:], alpha, delta)


def choose(plan: Plan, units: Units) -> tuple[float | None, list[Step]]:
    """The units of a part that neither fitted nor planned -> the threshold promised, None for nothing, and what was
    tested, up to the first that failed.
    """
    chosen, steps = None, []
    for i, threshold in enumerate(plan.thresholds):
        accepted = units.probability >= threshold
        errors, total = float(units.errors[accepted].sum()), float(units.sizes[accepted].sum())
        count = int(accepted.sum())
        if plan.bounds is None:
            p, groups, bound, clipped = binomial(round(errors), count, plan.alpha) if count else 1.0, count, None, 0
        else:
            losses, bound = units.losses(threshold, plan.alpha), plan.bounds[i]
            p = betting(losses, bound, plan.stakes[i])
            groups, clipped = len(np.unique(units.groups[accepted])), int((losses > bound).sum())
        passed = p <= plan.delta
        steps.append(Step(threshold, count, errors, total, groups, bound, clipped, p, passed))
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
    """-> errors and total of what is accepted."""
    accepted = units.probability >= (np.inf if threshold is None else threshold)
    return float(units.errors[accepted].sum()), float(units.sizes[accepted].sum())
