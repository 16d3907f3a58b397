"""Populations that promises are tried on: mild hands, heavy tails, bursts, one who wrote a third of it all.

Each draws a calibration: `draw(rng, n)` -> htr.reliability.risk_control.Units of n fields, or of
n writers' lines. In all but `fields` the lines of a writer have something in common.
"""

import numpy as np

from htr.reliability.risk_control import PER_CLUSTER, PER_LINE, Units

MOST = PER_CLUSTER["writer"]


def cer(probability: np.ndarray, edits: np.ndarray, characters: np.ndarray, writer: np.ndarray) -> Units:
    return Units(probability, edits.astype(float), characters.astype(float), writer, MOST, PER_LINE)


def wrong(probability: np.ndarray, is_wrong: np.ndarray, writer: np.ndarray) -> Units:
    return Units(probability, is_wrong.astype(float), np.ones(len(is_wrong)), writer, MOST)


# ---------------------------------------------------------------------------------------------------- mild


def fields(rng: np.random.Generator, count: int) -> Units:
    """Independent fields, whose probability of being right is known but for some noise; 28 % can be accepted at 2 %."""
    hard = rng.normal(1.0, 3.0, count)
    is_wrong = rng.random(count) >= 1 / (1 + np.exp(-hard))
    return Units(1 / (1 + np.exp(-(hard + rng.normal(0.0, 0.5, count)))), is_wrong.astype(float), np.ones(count))


def lines(rng: np.random.Generator, writers: int, kind: str = "cer") -> Units:
    """A writer's hand makes all the lines of it easy or hard, beyond what the score knows."""
    hand, own = rng.gamma(1.5, 0.7, writers), rng.lognormal(0.0, 0.3, writers)
    writer = np.repeat(np.arange(writers), rng.poisson(11.0, writers) + 1)
    hard = hand[writer] * rng.gamma(0.6, 1.7, len(writer))
    error = 1 - np.exp(-0.06 * hard)
    characters = rng.integers(15, 60, len(writer))
    edits = rng.binomial(characters, 1 - (1 - error) ** own[writer])
    known = hard * rng.lognormal(0.0, 0.3, len(writer))
    if kind == "cer":
        return cer(np.exp(-0.06 * known), edits, characters, writer)
    return wrong(np.exp(-0.06 * known * characters / 30), edits > 0, writer)


# ---------------------------------------------------------------------------------------------------- heavy


def unreadable(
    rng: np.random.Generator, writers: int, share: float, rate: float = 0.012, each: int = 100, knows: float = 0.0
) -> Units:
    """A share of the writers can't be read at all, the others' CER is `rate`. `knows`: how far scores tell a line of
    theirs, in standard deviations; 0: they say nothing, and whatever is accepted errs as all lines do.
    """
    writer = np.repeat(np.arange(writers), each)
    bad = (rng.random(writers) < share)[writer]
    characters = rng.integers(15, 60, len(writer))
    edits = np.where(bad, characters, rng.binomial(characters, rate))
    score = rng.normal(0.0, 1.0, len(writer)) - knows * bad
    return cer(1 / (1 + np.exp(-score)), edits, characters, writer)


def one_writes_a_third(rng: np.random.Generator, writers: int, knows: float = 0.5) -> Units:
    """Hands of very different CER, 3 % in the mean; one of the writers, whoever it is, has a third of all lines."""
    counts = rng.poisson(11.0, writers) + 1
    first = int(rng.integers(writers))
    counts[first] = (counts.sum() - counts[first]) // 2
    writer = np.repeat(np.arange(writers), counts)
    hand = np.minimum(rng.gamma(0.25, 0.12, writers), 1.0)
    characters = rng.integers(15, 60, len(writer))
    edits = rng.binomial(characters, hand[writer])
    score = rng.normal(0.0, 1.0, len(writer)) - knows * 40 * hand[writer]
    return cer(1 / (1 + np.exp(-score)), edits, characters, writer)


def bursts(rng: np.random.Generator, writers: int, share: float = 0.25, knows: float = 1.0) -> Units:
    """Errors come together: in a quarter of the writers a stretch of lines, a fifth of theirs, has half of its
    characters wrong, else hardly any has.
    """
    counts = rng.poisson(20.0, writers) + 5
    writer = np.repeat(np.arange(writers), counts)
    place = np.arange(len(writer)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = rng.integers(0, counts)
    hit = (rng.random(writers) < share)[writer]
    inside = hit & ((place - start[writer]) % counts[writer] < np.maximum(counts // 5, 1)[writer])
    characters = rng.integers(15, 60, len(writer))
    edits = rng.binomial(characters, np.where(inside, 0.5, 0.005))
    score = rng.normal(0.0, 1.0, len(writer)) - knows * inside
    return cer(1 / (1 + np.exp(-score)), edits, characters, writer)


# ---------------------------------------------------------------------------------------------------- the worst case


def useless(rng: np.random.Generator, count: int, rate: float) -> Units:
    """Independent fields, and scores that say nothing."""
    return Units(rng.random(count), (rng.random(count) < rate).astype(float), np.ones(count))


def useless_lines(rng: np.random.Generator, writers: int, rate: float) -> Units:
    """Scores that say nothing, of gamma hands whose mean is the rate."""
    writer = np.repeat(np.arange(writers), 12)
    characters = rng.integers(15, 60, len(writer))
    hands = rate * np.minimum(rng.gamma(1.5, 1 / 1.5, writers), 10.0)
    return cer(rng.random(len(writer)), rng.binomial(characters, hands[writer]), characters, writer)
