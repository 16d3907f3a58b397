"""A threshold with a guarantee: exact bounds, bets that are fair, sequences that stop, and promises that are kept."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from htr.reliability.risk_control import (
    Plan,
    Units,
    allowed,
    best_stake,
    betting,
    binomial,
    choose,
    coverage,
    lower,
    needed,
    plan,
    upper,
)

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from guarantee import fields, lines, promises

sys.path.pop(0)


def test_binomial_tails_are_exact():
    for k, n, p in ((0, 149, 0.02), (3, 20, 0.1), (19, 20, 0.97), (20, 20, 0.5), (40, 3000, 0.02)):
        exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))
        assert binomial(k, n, p) == pytest.approx(exact, rel=1e-9)
    assert binomial(0, 0, 0.1) == 1.0 and binomial(-1, 5, 0.1) == 0.0 and binomial(2, 5, 0.0) == 1.0
    assert 0 < binomial(90_000, 5_000_000, 0.02) < 1e-200 or binomial(90_000, 5_000_000, 0.02) == 0.0


def test_bounds_are_those_of_clopper_and_pearson():
    assert upper(0, 149, 0.05) == pytest.approx(1 - 0.05 ** (1 / 149)) and upper(5, 5, 0.05) == 1.0
    assert upper(10, 100, 0.025) == pytest.approx(0.17622, abs=1e-5)  # their table
    assert lower(10, 100, 0.025) == pytest.approx(0.04900, abs=1e-5) and lower(0, 9, 0.025) == pytest.approx(
        0, abs=1e-9
    )
    assert upper(0, 0, 0.05) == 1.0


def test_how_many_a_promise_needs():
    assert needed(0.02, 0.05) == 149 and needed(0.5, 0.5) == 1
    assert binomial(0, 149, 0.02) <= 0.05 < binomial(0, 148, 0.02)
    for n, alpha, delta in ((149, 0.02, 0.05), (500, 0.1, 0.05), (40, 0.3, 0.7), (3, 0.9, 0.2)):
        most = allowed(n, alpha, delta)
        assert binomial(most, n, alpha) <= delta < binomial(most + 1, n, alpha)
    assert allowed(148, 0.02, 0.05) == -1 and allowed(149, 0.02, 0.05) == 0 and allowed(236, 0.02, 0.05) == 1


# --- betting


def test_a_bet_is_fair_where_the_mean_is_zero_whatever_the_losses_are():
    """The rate of p <= 0.05 is 5 % at most: rare large losses, skewed ones, and those of a coin."""
    rng, runs = np.random.default_rng(0), 1000
    for draw in (
        lambda n: np.where(rng.random(n) < 0.02, 0.98, -0.02),
        lambda n: rng.choice([-1.0, 1.0], n),
        lambda n: np.minimum(rng.exponential(1.0, n), 9.0) - (1 - math.exp(-9)),
    ):
        false = sum(betting(draw(300), 9.0, 0.5, seed) <= 0.05 for seed in range(runs)) / runs
        assert false <= 0.05 + 1.645 * math.sqrt(0.05 * 0.95 / runs)


def test_the_wealth_of_a_bet_is_that_computed_by_hand():
    """The capital is 1 at the start, whoever it is divided among; a stake of its own is half of it."""
    stakes = np.geomspace(0.002, 0.95, 24)
    for own in (None, 0.5):
        assert betting(np.zeros(5), 1.0, own) == pytest.approx(1.0)
    # each group gains half of the bound, then the third one loses as much as it: the most was before
    losses, once = np.full(3, -2.0), 1 + stakes / 2
    assert betting(losses, 4.0) == pytest.approx(1 / np.mean(once**3))
    assert betting(losses, 4.0, own=0.9) == pytest.approx(1 / (np.mean(once**3) / 2 + 1.45**3 / 2))
    assert betting(np.array([-4.0]), 4.0, own=0.9) == pytest.approx(1 / (np.mean(1 + stakes) / 2 + 1.9 / 2))
    seed = next(seed for seed in range(99) if np.random.default_rng(seed).permutation(3)[2] == 0)
    assert betting(np.array([4.0, -2.0, -2.0]), 4.0, seed=seed) == pytest.approx(1 / np.mean(once**2))


def test_a_step_of_the_sequence_and_the_best_stake_are_those_computed_by_hand():
    """Two groups of a unit of 10 characters: at 0.9 the first one is accepted, its loss -0.5; at 0.5 both, one with an
    edit and so a loss of 0.5.
    """
    units = Units(np.array([0.9, 0.5]), np.array([0.0, 1.0]), np.array([10.0, 10.0]), np.array([0, 1]))
    threshold, (first, second) = choose(Plan([0.9, 0.5], [10.0, 5.0], [0.9, 0.5], 0.05, 0.98), units)
    stakes = np.geomspace(0.002, 0.95, 24)
    assert first.p == pytest.approx(1 / (np.mean(1 + 0.05 * stakes) / 2 + 1.045 / 2)) and threshold == 0.5
    assert (first.errors, first.total, first.groups, first.clipped, first.passed) == (0.0, 10.0, 1, 0, True)
    assert second.p == betting(np.array([-0.5, 0.5]), 5.0, 0.5)
    assert (second.errors, second.total, second.groups, second.accepted) == (1.0, 20.0, 2, 2)
    best, growth, spread = best_stake(np.array([-1.0, -1.0, 0.5]), 2.0)
    logs = np.log1p(-stakes[:, None] * np.array([-0.5, -0.5, 0.25]))
    assert best == stakes[logs.mean(1).argmax()] == stakes[-1] and growth == pytest.approx(logs[-1].mean())
    assert spread == pytest.approx(logs[-1].std())


def test_a_bet_finds_what_is_there_and_needs_as_many_as_the_exact_test():
    rng = np.random.default_rng(1)
    assert betting(rng.normal(-0.5, 1.0, 200).clip(-3, 3), 3.0) < 1e-4
    # without an error, one stake alone of nearly all: as good as the binomial test, all but
    assert betting(np.full(160, -0.02), 1.0, 0.95) <= 0.11 and betting(np.full(250, -0.02), 1.0, 0.95) <= 0.05
    assert betting(np.zeros(0), 1.0) == 1.0 and betting(np.full(50, 0.5), 1.0) == 1.0


def test_losses_over_the_bound_count_as_much_as_it():
    losses = np.full(100, -1.0)
    losses[7] = 1e6
    assert betting(losses, 5.0) == betting(np.minimum(losses, 5.0), 5.0) < 0.05


# --- the sequence


def test_the_sequence_ends_with_the_first_threshold_that_fails():
    p = np.repeat([0.9, 0.8, 0.7, 0.6], 200)
    wrong = np.zeros(800)
    wrong[400:600:4] = 1  # a quarter of those at 0.7; none at 0.6, so that all of them would pass again
    units, made = Units(p, wrong, np.ones(800)), Plan([0.9, 0.8, 0.7, 0.6], None, [], 0.1, 0.05)
    threshold, steps = choose(made, units)
    assert threshold == 0.8 and [step.passed for step in steps] == [True, True, False]
    assert [step.accepted for step in steps] == [200, 400, 600] and steps[-1].errors == 50
    assert coverage(units, threshold) == 0.5 and coverage(units, None) == 0.0
    assert binomial(50, 800, 0.1) <= 0.05  # it would have
    wrong[:100] = 1
    threshold, steps = choose(made, units)
    assert threshold is None and len(steps) == 1


def test_nothing_can_be_promised_with_too_few():
    few = Units(np.linspace(0, 1, 148), np.zeros(148), np.ones(148))
    assert choose(plan(few, 148, 0.02, 0.05), few)[0] is None
    one_more = Units(np.linspace(0, 1, 149), np.zeros(149), np.ones(149))
    assert choose(plan(few, 149, 0.02, 0.05), one_more)[0] is not None
    for alpha, delta in ((0.0, 0.05), (0.02, 1.0), (2.0, 0.05)):
        with pytest.raises(ValueError, match="both are shares"):
            plan(few, 148, alpha, delta)
    with pytest.raises(ValueError, match="no units"):
        plan(Units(np.zeros(0), np.zeros(0), np.zeros(0)), 10, 0.02, 0.05)


def test_a_plan_does_not_begin_where_one_error_would_end_it():
    """The strictest thresholds accept too few to be sure of; the plan is the same whatever the other part shows."""
    made = plan(fields(np.random.default_rng(0), 2000), 10_000, 0.02, 0.05)
    shares = [(fields(np.random.default_rng(1), 100_000).probability >= t).mean() for t in made.thresholds[:2]]
    assert shares[0] * 10_000 > 300 and shares == sorted(shares)
    assert made.bounds is None and made.thresholds == sorted(made.thresholds, reverse=True)


def test_groups_without_an_accepted_line_lose_nothing():
    units = Units(
        np.array([0.9, 0.1, 0.2]), np.array([1.0, 5.0, 5.0]), np.array([10.0, 10.0, 10.0]), np.array([0, 0, 1])
    )
    assert units.losses(0.5, 0.05).tolist() == [0.5, 0.0] and units.losses(0.0, 0.05).tolist() == [5.0, 4.5]
    assert units.count == 2 and Units(*[np.ones(4)] * 3).count == 4


# --- promises are kept, and worth having: benchmarks/guarantee.py does it 1 000 times


CALIBRATIONS = 60
LEAST = 0.95 - 1.645 * math.sqrt(0.05 * 0.95 / CALIBRATIONS)


def test_promises_of_right_and_wrong():
    found = promises(fields, 2000, 10_000, 0.02, 0.05, CALIBRATIONS, seed=1, size=500_000)
    assert found["held"] >= LEAST and found["of_oracle"] >= 0.8 and found["nothing"] <= 0.02
    assert found["plain"] < 0.7  # the loosest threshold that looked good


def test_promises_of_cer_over_writers():
    found = promises(lines, 60, 150, 0.03, 0.05, 30, seed=1, size=40_000)
    assert found["held"] >= 0.95 - 1.645 * math.sqrt(0.05 * 0.95 / 30) and found["of_oracle"] >= 0.8


def test_a_fitting_part_that_misleads_does_not_make_a_false_promise():
    """Scores that say nothing, a rate just over alpha: every promise is a false one, and one in twenty is allowed."""
    rng, promised = np.random.default_rng(0), 0
    made = plan(Units(rng.random(2000), (rng.random(2000) < 0.002).astype(float), np.ones(2000)), 3000, 0.02, 0.05)
    for _ in range(300):
        true = Units(rng.random(3000), (rng.random(3000) < 0.0201).astype(float), np.ones(3000))
        promised += choose(made, true)[0] is not None
    assert 0 < promised <= 300 * (0.05 + 1.645 * math.sqrt(0.05 * 0.95 / 300))
