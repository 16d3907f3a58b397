"""Batches in production: exact bounds of the very batch, and alarms that are rare until there is a reason."""

import math

import numpy as np
import pytest

from htr.reliability.monitor import (
    APART,
    FALSE_ALARM_RATE,
    BatchMonitor,
    false_alarms,
    hours,
    hypergeometric,
    most_cer,
    most_wrong,
    sample_size,
)
from htr.reliability.risk_control import PER_LINE


def exact(k: int, wrong: int, batch: int, sample: int) -> float:
    ways = math.comb(batch, sample)
    return sum(math.comb(wrong, i) * math.comb(batch - wrong, sample - i) for i in range(k + 1) if i <= sample) / ways


def test_hypergeometric_tails_are_exact():
    for k, wrong, batch, sample in ((0, 5, 50, 20), (2, 5, 50, 20), (4, 5, 8, 6), (0, 3, 10, 9), (5, 5, 9, 9)):
        assert hypergeometric(k, wrong, batch, sample) == pytest.approx(exact(k, wrong, batch, sample), abs=1e-12)


def test_the_bound_of_a_batch_is_the_largest_number_not_ruled_out():
    for k, sample, batch in ((0, 100, 1000), (2, 50, 300), (0, 30, 30), (7, 30, 30), (0, 1, 10)):
        most = most_wrong(k, sample, batch, 0.05)
        assert hypergeometric(k, most, batch, sample) > 0.05
        assert most == batch - (sample - k) or hypergeometric(k, most + 1, batch, sample) <= 0.05
    assert most_wrong(0, 100, 1000, 0.05) == 28 and most_wrong(3, 20, 20, 0.05) == 3  # all keyed: known
    with pytest.raises(ValueError, match="this is impossible"):
        most_wrong(3, 2, 10, 0.05)


def a_batch(rng: np.random.Generator, count: int, unreadable: float) -> tuple[np.ndarray, np.ndarray]:
    characters = rng.integers(0, 60, count)
    edits = rng.binomial(characters, np.minimum(rng.gamma(0.3, 0.05, count), 1.0))
    return np.where(rng.random(count) < unreadable, np.maximum(characters, 20), edits), characters


def counted(edits: np.ndarray, characters: np.ndarray) -> float:
    part = PER_LINE / np.maximum(np.maximum(edits, characters), PER_LINE)
    return float((edits * part).sum() / (characters * part).sum())


@pytest.mark.parametrize(("unreadable", "sample"), [(0.0, 60), (0.01, 60), (0.05, 150)])
def test_the_bound_of_a_batchs_cer_holds(unreadable: float, sample: int):
    rng, held, runs = np.random.default_rng(sample), 0, 200
    for _ in range(runs):
        edits, characters = a_batch(rng, 600, unreadable)
        keyed = rng.permutation(600)[:sample]
        held += most_cer(edits[keyed], characters[keyed], 600, 0.05) >= counted(edits, characters)
    assert held / runs >= 0.95 - 1.645 * math.sqrt(0.05 * 0.95 / runs)


def test_the_bound_of_a_batchs_cer_comes_near_with_what_is_keyed():
    edits, characters = a_batch(np.random.default_rng(0), 5000, 0.0)
    bounds = [most_cer(edits[:n], characters[:n], 5000, 0.05) for n in (5, 150, 600, 4999)]
    truth = counted(edits, characters)
    assert bounds[0] == math.inf or bounds[0] > 5 * truth
    assert bounds[1] > bounds[2] > bounds[3] > truth and bounds[2] < 2 * truth + 0.02
    assert most_cer(edits, characters, 5000, 0.05) == pytest.approx(truth)  # all of it was keyed
    assert most_cer([0] * 500, [20] * 500, 5000, 0.05) < 0.02
    with pytest.raises(ValueError, match="this is impossible"):
        most_cer(edits, characters, 4000, 0.05)


def test_how_many_to_key():
    size = sample_size(5000, 0.02, 0.05)
    assert most_wrong(0, size, 5000, 0.05) <= 100 < most_wrong(0, size - 1, 5000, 0.05)
    assert size < 149  # of a batch that has an end less is needed than of an endless one
    assert sample_size(5000, 0.02, 0.05, 0.005) > size and sample_size(10, 0.02, 0.05) == 10
    assert hours(1000, 100, 1.5, 20) == pytest.approx(900 * 1.5 * 20 / 3600)


def test_alarms_are_rare_while_alpha_holds_and_come_soon_when_it_does_not():
    samples = [150] * 60
    true = false_alarms(samples, 0.02, 0.02, 200)
    assert true["bet"] <= FALSE_ALARM_RATE + 1.645 * math.sqrt(FALSE_ALARM_RATE * (1 - FALSE_ALARM_RATE) / 200)
    assert true["detector"] <= len(samples) / APART + 0.06
    assert false_alarms(samples, 0.02, 0.008, 50) == {"bet": 0.0, "detector": 0.0}
    assert false_alarms(samples, 0.02, 0.04, 50) == {"bet": 1.0, "detector": 1.0}


def test_the_detector_sees_a_late_change_sooner_than_the_bet():
    watch, first = BatchMonitor(0.02), {}
    for batch in range(140):
        watch.add(1 if batch < 100 else 6, 150)  # 0.7 %, then 4 %
        for name in watch.alarms:
            first.setdefault(name, batch)
    assert 100 <= first["detector"] <= 106 and first.get("bet", 140) > first["detector"] + 5


def edited(rng: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Lines whose edits come together, a tenth of the lines has them: edits and characters."""
    characters = rng.integers(3, 60, count)
    return rng.binomial(characters, 10 * rate) * (rng.random(count) < 0.1), characters


def test_edits_over_what_was_promised_are_an_alarm_and_fewer_are_none():
    seen = {0.05: [], 0.09: []}
    for rate, found in seen.items():
        for run in range(60):
            rng, watch, alarms = np.random.default_rng(run), BatchMonitor(0.05), set()
            for _ in range(30):
                watch.add_edits(*edited(rng, 150, rate))
                alarms |= set(watch.alarms)
            found.append(alarms)
    assert sum("bet" in alarms for alarms in seen[0.05]) <= 60 * FALSE_ALARM_RATE + 1.645 * math.sqrt(
        60 * FALSE_ALARM_RATE * (1 - FALSE_ALARM_RATE)
    )
    assert all(alarms == {"bet", "detector"} for alarms in seen[0.09])


def test_edits_are_counted_with_the_characters_of_their_units():
    one, other = BatchMonitor(0.05), BatchMonitor(0.05)
    one.add_edits([0, 3, 40], [10, 20, 5])
    other.add_edits([3, 40, 0], [20, 5, 10])
    assert one.wealth == pytest.approx(other.wealth) and (one.wrong, one.sampled, one.batches) == (43, 35, 1)
    assert one.bet > 1 and BatchMonitor(**one.to_json()) == one
    sure = BatchMonitor(0.05)
    sure.add_edits([0] * 200, [1000] * 200)
    assert 0 < sure.bet < 0.05


@pytest.mark.parametrize("per_line", [30.0, 60.0])
def test_edits_are_watched_as_the_promise_counts_them(per_line: float):
    """Long lines, wholly misread, at a rate that is alpha where a line counts as so many characters, and more where all
    characters do: the promise holds, and is not alarmed of.
    """
    alpha, alarms, runs, worse = 0.05, 0, 60, 0
    for run in range(runs):
        rng, watch, late = np.random.default_rng(run), BatchMonitor(alpha), BatchMonitor(alpha)
        for _ in range(30):
            for monitor, rate in ((watch, alpha), (late, 2 * alpha)):
                long = rng.random(150) < rate / (0.9 * per_line / 20 + rate * (1 - per_line / 20))
                characters = np.where(long, 300, 20)
                monitor.add_edits(np.where(long, 270, 0), characters, per_line)
        assert watch.wrong > 1.5 * alpha * watch.sampled
        alarms, worse = alarms + ("bet" in watch.alarms), worse + ("bet" in late.alarms)
    assert alarms <= runs * FALSE_ALARM_RATE + 1.645 * math.sqrt(runs * FALSE_ALARM_RATE * (1 - FALSE_ALARM_RATE))
    assert worse == runs


def test_wealth_and_detector_are_those_computed_by_hand():
    """Two batches with the likelihood ratios L1 and L2 of each higher rate: the bet has the mean of L1 L2, the detector
    that of (1 + L1) L2, since who bets from the second batch on has the stake of 1 as well.
    """
    watch = BatchMonitor(0.02)
    watch.add(5, 100)
    watch.add(1, 50)
    rates = np.minimum(0.02 * (1 + np.geomspace(0.5, 16.0, 12)), 0.51)
    first, second = ((rates / 0.02) ** k * ((1 - rates) / 0.98) ** (n - k) for k, n in ((5, 100), (1, 50)))
    assert watch.bet == pytest.approx(np.mean(first * second))
    assert watch.change == pytest.approx(np.mean((1 + first) * second))
    edits = BatchMonitor(0.05)
    edits.add_edits([0, 3, 40], [10, 20, 5])
    stakes = np.geomspace(0.01, 0.9, 12) / (0.05 * PER_LINE)
    # 40 edits of 5 characters count as 30 of 3.75
    once = (1 - 0.5 * stakes) * (1 + 2 * stakes) * (1 + (30 - 0.05 * 3.75) * stakes)
    assert edits.bet == edits.change == pytest.approx(np.mean(once))


def test_a_watch_goes_on_from_what_was_written():
    one, two = BatchMonitor(0.02), BatchMonitor(0.02)
    for wrong in (1, 9, 4):
        one.add(wrong, 100)
    for wrong in (1, 9, 4):
        two.add(wrong, 100)
        two = BatchMonitor(**two.to_json())
    assert one == two and (one.batches, one.sampled, one.wrong) == (3, 300, 14)
    assert BatchMonitor(0.02).bet == 0.0 and BatchMonitor(0.02).alarms == []
    with pytest.raises(ValueError, match="this is impossible"):
        one.add(3, 2)
