"""Monitoring in production, batch by batch: a bound of the error rate, and tests of whether it grows.

A random sample of a batch's accepted units is typed by a person who does not see the readings. The number of wrong ones
in the sample bounds that of the very batch by the hypergeometric distribution, exactly and whatever has drifted; where
CER is promised, their edits bound the batch's CER (`most_cer`).

Over the batches two alarms watch whether the accepted err more than alpha: a bet that they do, whose wealth is over
1 / false with probability `false` at most, ever, while they do not (Ville 1939; Shafer & Vovk 2019); and a detector
that begins anew with every batch, so that it is as quick to see what changes late (Shiryaev and Roberts; Shin, Ramdas &
Rinaldo 2022, E-detectors), whose false alarms are APART batches apart on average, at least. Where CER is promised, the
bets are on what each unit's edits are over alpha times its characters (Waudby-Smith & Ramdas 2024), both counted as the
promise counts them: a unit as at most so many characters and edits, longer ones in proportion.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from htr.reliability.risk_control import PER_LINE

STAKES = np.geomspace(0.5, 16.0, 12)  # how much higher than alpha the rate may have become, less one
OF_EDITS = np.geomspace(0.01, 0.9, 12)  # of the largest stake with which no unit can ruin
OF_BATCH = np.geomspace(0.02, 0.95, 8)  # stakes on a batch's rate
HIGHEST = 64.0  # of a rate that is looked for
FALSE_ALARM_RATE = 0.05
APART = 200


# ---------------------------------------------------------------------------------------------------- one batch


def hypergeometric(k: int, wrong: int, batch: int, sample: int) -> float:
    """P(at most k wrong ones in the sample) of a batch that has so many."""
    return float(stats.hypergeom.cdf(k, batch, wrong, sample))


def most_wrong(k: int, sample: int, batch: int, delta: float) -> int:
    """The largest number of wrong ones in the batch that k of the sample do not rule out at the level delta: with
    probability 1 - delta at least, whatever the batch, there are not more. Raises ValueError for no such sample.
    """
    if not 0 <= k <= sample <= batch:
        raise ValueError(f"{k} wrong ones in a sample of {sample} from a batch of {batch}: this is impossible")
    low, high = k, batch - (sample - k)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if hypergeometric(k, middle, batch, sample) > delta else (low, middle - 1)
    return low


def sample_size(batch: int, alpha: float, delta: float, expected: float = 0.0) -> int:
    """The smallest sample that bounds the batch's share of wrong ones by alpha, if it shows no more than `expected`
    (a rate, rounded up) of them; the whole batch where nothing smaller does.
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
    """(n,) edits and characters of lines -> the same, a line as at most `per_line` of either, in proportion."""
    e, s = np.asarray(edits, np.float64), np.asarray(characters, np.float64)
    most = np.maximum(np.maximum(e, s), per_line) / per_line
    return e / most, s / most


def most_cer(
    edits: Sequence[int], characters: Sequence[int], batch: int, delta: float, per_line: float = PER_LINE
) -> float:
    """The character error rate that a batch of so many accepted lines does not exceed, with probability 1 - delta.

    (n,) edits of the lines of a random sample, and their characters as keyed. A line counts as at most `per_line`
    characters and edits, longer ones in proportion, as in the promise (risk_control.py); the lines of the batch weigh
    alike. For a rate r the loss x = (edits - r characters) / per_line of a line is at most 1. Were the batch's rate r
    or more, the mean loss would be 0 or more, and the product of 1 - stake x would have a mean of at most 1, and so the
    mean of it over stakes: without replacement it is at most what it is with (Maclaurin's inequality). By Markov's
    inequality the smallest rate at which it is 1 / delta is the bound. `inf` where a sample so small bounds
    nothing. Raises ValueError for a sample that is larger than its batch.
    """
    if len(edits) > batch:
        raise ValueError(f"a sample of {len(edits)} from a batch of {batch}: this is impossible")
    e, s = (values / per_line for values in counted(edits, characters, per_line))
    if len(e) == batch and s.sum():
        return float(e.sum() / s.sum())  # all of it was keyed
    need = math.log(len(OF_BATCH) / delta)

    def is_ruled_out(rate: float) -> bool:
        return np.logaddexp.reduce(np.log1p(-OF_BATCH[:, None] * (e - rate * s)).sum(axis=1)) >= need

    low, high = 0.0, 1.0
    while not is_ruled_out(high):
        low, high = high, 2 * high
        if high > HIGHEST:
            return math.inf
    for _ in range(50):  # the higher the rate, the more is against it
        middle = (low + high) / 2
        low, high = (low, middle) if is_ruled_out(middle) else (middle, high)
    return high


# ---------------------------------------------------------------------------------------------------- over batches


@dataclass
class BatchMonitor:
    """What has been seen so far, of batches one after the other; a JSON object between them."""

    alpha: float
    false: float = FALSE_ALARM_RATE
    batches: int = 0
    sampled: int = 0  # units, or their characters
    wrong: int = 0  # units, or edits
    wealth: list[float] | None = None  # logarithms, one a stake
    detector: list[float] | None = None

    def add(self, k: int, sample: int) -> None:
        """A batch of whose sample of so many k were wrong.

        Within a batch units are drawn without replacement: the product's mean is then at most what it is with
        (Hoeffding 1963), so that both alarms keep their promise.
        """
        if not 0 <= k <= sample:
            raise ValueError(f"{k} wrong ones in a sample of {sample}: this is impossible")
        rates = np.minimum(self.alpha * (1 + STAKES), (1 + self.alpha) / 2)
        # the likelihood ratio of a higher rate and alpha: a bet at fair odds
        gain = k * np.log(rates / self.alpha) + (sample - k) * (np.log1p(-rates) - math.log1p(-self.alpha))
        self._bet(gain, k, sample)

    def add_edits(self, edits: Sequence[int], characters: Sequence[int], per_line: float = PER_LINE) -> None:
        """A batch of whose sample each unit had so many edits, of so many characters as were keyed.

        A unit counts as at most `per_line` of either, so it can lose no more than alpha times that stakes. Without
        replacement the product's mean is smaller than with, too (Maclaurin's inequality).
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
        """The wealth of who bets that more than alpha are wrong; from 1 / false on, an alarm."""
        return mean_of(self.wealth)

    @property
    def change(self) -> float:
        """What the detector has; from APART on, an alarm."""
        return mean_of(self.detector)

    @property
    def alarms(self) -> list[str]:
        """Of "bet" and "detector"."""
        return [name for name, on in (("bet", self.bet >= 1 / self.false), ("detector", self.change >= APART)) if on]

    def to_json(self) -> dict:
        return asdict(self)


def mean_of(logs: list[float] | None) -> float:
    if logs is None:
        return 0.0
    return float(np.exp(min(np.logaddexp.reduce(logs) - math.log(len(logs)), 700.0)))


def hours(accepted: int, sampled: int, lines: float, seconds: float) -> float:
    """What a person need not type: of each accepted unit so many lines at so many seconds, less the sample's."""
    return (accepted - sampled) * lines * seconds / 3600


def false_alarms(samples: Sequence[int], alpha: float, rate: float, runs: int, seed: int = 0) -> dict[str, float]:
    """Simulated: the share of `runs` sequences of batches, of which so many are sampled each, wrong with this rate,
    that the bet and the detector alarm in.
    """
    rng, found = np.random.default_rng(seed), {"bet": 0, "detector": 0}
    for _ in range(runs):
        watch, seen = BatchMonitor(alpha), set()
        for sample in samples:
            watch.add(int(rng.binomial(sample, rate)), sample)
            seen |= set(watch.alarms)
        found = {name: count + (name in seen) for name, count in found.items()}
    return {name: count / runs for name, count in found.items()}
