"""Monitoring in production, batch by batch: an upper bound of the error rate, and tests of whether it has grown.

A person types a random sample of the accepted units of a batch, without sight of the readings. The number of wrong
units in the sample bounds the number in this batch by the hypergeometric distribution. That bound is exact and assumes
nothing of other batches. Where CER is promised, the edits of the sample bound the CER of the batch (`most_cer`).

Two alarms watch over all batches whether the accepted units err more than alpha.

The bet: wealth that grows if they do. While they do not, it ever reaches 1 / false with a probability of at most
`false` (Ville 1939; Shafer & Vovk 2019).

The detector: a sum of bets, one begun with each batch, so that it sees a late change as quickly as an early one
(Shiryaev and Roberts; Shin, Ramdas & Rinaldo 2022, E-detectors). Between two false alarms there are at least APART
batches on average.

Where CER is promised, the bets are on the edits of each unit less alpha times its characters (Waudby-Smith & Ramdas
2024). Both are counted as in the promise: a unit counts as at most so many characters and edits, a longer one in
proportion.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from htr.reliability.risk_control import PER_LINE

STAKES = np.geomspace(0.5, 16.0, 12)  # rates that are bet on, as (rate / alpha) - 1
OF_EDITS = np.geomspace(0.01, 0.9, 12)  # stakes, as shares of the largest one at which no unit can lose everything
OF_BATCH = np.geomspace(0.02, 0.95, 8)  # stakes of the bound of a batch's rate
HIGHEST = 64.0  # largest rate that the bound is looked for at
FALSE_ALARM_RATE = 0.05  # largest probability that the bet ever gives a false alarm
APART = 200  # batches between two false alarms of the detector, on average and at least


# ---------------------------------------------------------------------------------------------------- one batch


def hypergeometric(k: int, wrong: int, batch: int, sample: int) -> float:
    """P(at most k wrong units in the sample), for a batch that has `wrong` wrong units."""
    return float(stats.hypergeom.cdf(k, batch, wrong, sample))


def most_wrong(k: int, sample: int, batch: int, delta: float) -> int:
    """The upper bound of the number of wrong units in a batch, from k wrong units in a random sample of it.

    Whatever the batch, it has no more than that with a probability of at least 1 - delta. Raises ValueError for numbers
    that no sample can have.
    """
    if not 0 <= k <= sample <= batch:
        raise ValueError(f"{k} wrong ones in a sample of {sample} from a batch of {batch}: this is impossible")
    low, high = k, batch - (sample - k)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if hypergeometric(k, middle, batch, sample) > delta else (low, middle - 1)
    return low


def sample_size(batch: int, alpha: float, delta: float, expected: float = 0.0) -> int:
    """The size of the smallest sample that bounds the batch's error rate by alpha.

    `expected`: the error rate that the sample is expected to show; its number of wrong units is rounded up. The whole
    batch where no smaller sample is enough.
    """

    def enough(sample: int) -> bool:
        k = math.ceil(expected * sample)
        return k <= sample and most_wrong(k, sample, batch, delta) <= alpha * batch

    low, high = 0, batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def counted(edits: Sequence[int], characters: Sequence[int], per_line: float) -> tuple[np.ndarray, np.ndarray]:
    """(n,) edits, (n,) characters of lines -> the same as they count: a line as at most `per_line` of either."""
    e, s = np.asarray(edits, np.float64), np.asarray(characters, np.float64)
    most = np.maximum(np.maximum(e, s), per_line) / per_line
    return e / most, s / most


def most_cer(
    edits: Sequence[int], characters: Sequence[int], batch: int, delta: float, per_line: float = PER_LINE
) -> float:
    """The upper bound of the character error rate of a batch of accepted lines, with a probability of 1 - delta.

    `edits` (n,): of the lines of a random sample; `characters` (n,): of their text as keyed. A line counts as at most
    `per_line` characters and edits, a longer one in proportion, as in the promise (risk_control.py). All lines of the
    batch have the same weight. `inf` where so small a sample bounds nothing. Raises ValueError for a sample that is
    larger than its batch.

    Why it holds: for a rate r the loss of a line, x = (edits - r characters) / per_line, is at most 1. If the batch's
    rate is r or more, then the mean loss is 0 or more. Then the product of 1 - stake · x has a mean of at most 1, and
    so has its mean over stakes; a sample without replacement makes the product smaller (Maclaurin's inequality). By
    Markov's inequality the smallest rate at which this mean is 1 / delta is the bound.
    """
    if len(edits) > batch:
        raise ValueError(f"a sample of {len(edits)} from a batch of {batch}: this is impossible")
    e, s = (values / per_line for values in counted(edits, characters, per_line))
    if len(e) == batch and s.sum():
        return float(e.sum() / s.sum())  # the whole batch was keyed
    need = math.log(len(OF_BATCH) / delta)

    def is_ruled_out(rate: float) -> bool:
        return np.logaddexp.reduce(np.log1p(-OF_BATCH[:, None] * (e - rate * s)).sum(axis=1)) >= need

    low, high = 0.0, 1.0
    while not is_ruled_out(high):
        low, high = high, 2 * high
        if high > HIGHEST:
            return math.inf
    for _ in range(50):  # bisection: a rate above one that is ruled out is ruled out too
        middle = (low + high) / 2
        low, high = (low, middle) if is_ruled_out(middle) else (middle, high)
    return high


# ---------------------------------------------------------------------------------------------------- over batches


@dataclass
class BatchMonitor:
    """The state of both alarms after the batches so far. It is stored as JSON between two batches."""

    alpha: float
    false: float = FALSE_ALARM_RATE
    batches: int = 0
    sampled: int = 0  # units of all samples; where CER is promised, their characters
    wrong: int = 0  # wrong units of all samples; where CER is promised, edits
    wealth: list[float] | None = None  # of the bet: logarithms, one a stake
    detector: list[float] | None = None  # of the detector: the same

    def add(self, k: int, sample: int) -> None:
        """Add a batch: k wrong units in a sample of `sample`. Raises ValueError for numbers that no sample can have.

        Units are drawn without replacement. The mean of the product is then at most that with replacement (Hoeffding
        1963), so both alarms keep their guarantee.
        """
        if not 0 <= k <= sample:
            raise ValueError(f"{k} wrong ones in a sample of {sample}: this is impossible")
        rates = np.minimum(self.alpha * (1 + STAKES), (1 + self.alpha) / 2)
        # the likelihood ratio of a higher rate and alpha is a bet at fair odds
        gain = k * np.log(rates / self.alpha) + (sample - k) * (np.log1p(-rates) - math.log1p(-self.alpha))
        self._bet(gain, k, sample)

    def add_edits(self, edits: Sequence[int], characters: Sequence[int], per_line: float = PER_LINE) -> None:
        """Add a batch: (n,) edits and (n,) keyed characters of the units of its sample.

        A unit counts as at most `per_line` characters and edits, so that it loses at most alpha · per_line · stake.
        Also here sampling without replacement makes the mean of the product smaller (Maclaurin's inequality).
        """
        e, s = counted(edits, characters, per_line)
        stakes = OF_EDITS / (self.alpha * per_line)
        gain = np.log1p(stakes[:, None] * (e - self.alpha * s)).sum(axis=1)
        self._bet(gain, int(np.sum(edits)), int(np.sum(characters)))

    def _bet(self, gain: np.ndarray, wrong: int, sampled: int) -> None:
        wealth = np.zeros(len(gain)) if self.wealth is None else np.array(self.wealth)
        self.wealth = (wealth + gain).tolist()
        before = np.full(len(gain), -np.inf) if self.detector is None else np.array(self.detector)
        self.detector = (np.logaddexp(before, 0.0) + gain).tolist()
        self.batches, self.sampled, self.wrong = self.batches + 1, self.sampled + sampled, self.wrong + wrong

    @property
    def bet(self) -> float:
        """The wealth of the bet that more than alpha are wrong; an alarm from 1 / false on."""
        return mean_of(self.wealth)

    @property
    def change(self) -> float:
        """The value of the detector; an alarm from APART on."""
        return mean_of(self.detector)

    @property
    def alarms(self) -> list[str]:
        """The alarms that are on: some of "bet" and "detector"."""
        return [name for name, on in (("bet", self.bet >= 1 / self.false), ("detector", self.change >= APART)) if on]

    def to_json(self) -> dict:
        return asdict(self)


def mean_of(logs: list[float] | None) -> float:
    if logs is None:
        return 0.0
    return float(np.exp(min(np.logaddexp.reduce(logs) - math.log(len(logs)), 700.0)))


def hours(accepted: int, sampled: int, lines: float, seconds: float) -> float:
    """Hours of typing that were saved. `accepted`, `sampled`: units; `lines`: of a unit; `seconds`: to type a line."""
    return (accepted - sampled) * lines * seconds / 3600


def false_alarms(samples: Sequence[int], alpha: float, rate: float, runs: int, seed: int = 0) -> dict[str, float]:
    """By simulation: the share of `runs` sequences of batches in which each alarm comes at least once, by its name.

    `samples`: the sample size of each batch of a sequence. `rate`: the true error rate.
    """
    rng, found = np.random.default_rng(seed), {"bet": 0, "detector": 0}
    for _ in range(runs):
        watch, seen = BatchMonitor(alpha), set()
        for sample in samples:
            watch.add(int(rng.binomial(sample, rate)), sample)
            seen |= set(watch.alarms)
        found = {name: count + (name in seen) for name, count in found.items()}
    return {name: count / runs for name, count in found.items()}
