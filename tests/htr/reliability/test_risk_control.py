"""Risk control: bounds known beforehand, bets that are fair, sequences that stop, promises kept."""

import hashlib
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from scipy import stats

from htr.reliability.risk_control import (
    Plan,
    Units,
    allowed,
    best_stake,
    betting,
    binomial,
    choose,
    coverage,
    error_rate,
    lower,
    needed,
    needed_clusters,
    numbered,
    plan,
    upper,
)

sys.path.insert(0, str(Path(__file__).parents[3]))
from benchmarks.guarantee import CELLS, Cell, promises
from benchmarks.simulated.populations import fields, lines, unreadable

sys.path.pop(0)


# --- binomial


@pytest.mark.parametrize(("k", "n"), [(0, 149), (3, 20), (19, 20), (20, 20), (40, 3000), (0, 1)])
def test_bounds_are_those_of_clopper_and_pearson(k: int, n: int):
    exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
    assert (lower(k, n, 0.025), upper(k, n, 0.025)) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_bounds_without_any_seen():
    assert upper(0, 0, 0.05) == 1.0 and lower(0, 0, 0.05) == 0.0


def test_how_many_a_promise_needs():
    assert needed(0.02, 0.05) == 149 and needed(0.5, 0.5) == 1
    assert binomial(0, 149, 0.02) <= 0.05 < binomial(0, 148, 0.02)
    for n, alpha, delta in ((149, 0.02, 0.05), (500, 0.1, 0.05), (40, 0.3, 0.7), (3, 0.9, 0.2)):
        most = allowed(n, alpha, delta)
        assert binomial(most, n, alpha) <= delta < binomial(most + 1, n, alpha)
    assert allowed(148, 0.02, 0.05) == -1 and allowed(149, 0.02, 0.05) == 0 and allowed(236, 0.02, 0.05) == 1


# a rate over thresholds is seldom monotone, and need not be
@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires a monotonic risk:UserWarning")
@pytest.mark.filterwarnings("ignore:All provided predict_params control the risk:UserWarning")
@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.15])
def test_the_sequence_is_that_of_mapies_learn_then_test(alpha: float):
    """The same data, the same thresholds from strict to loose. Its test of a share is that of Hoeffding and Bentkus,
    which is weaker than the exact one: it may stop sooner, never later.
    """
    drawn = fields(np.random.default_rng(3), 4000)
    thresholds = np.linspace(0.6, 0.995, 40)[::-1]
    made = Plan(thresholds.tolist(), None, alpha, 0.05)
    ours, steps = choose(made, drawn)
    right = 1 - drawn.errors.astype(int)
    proba = np.stack([1 - drawn.probability, drawn.probability], axis=1)
    theirs = BinaryClassificationController(
        lambda rows: proba[np.asarray(rows)[:, 0].astype(int)],
        risk="precision",  # of those accepted, the share of right ones
        target_level=1 - alpha,
        confidence_level=0.95,
        list_predict_params=thresholds,
        fwer_method="fixed_sequence",
    )
    theirs.calibrate(np.arange(len(right))[:, None], right)
    valid = np.asarray(theirs.valid_predict_params).ravel()
    assert len(valid) and ours is not None
    assert ours <= valid.min() + 1e-12, "the exact test accepts at least as much"
    # every threshold that we promise is one whose upper bound of Clopper and Pearson is at most alpha, and the first
    # that fails is one whose bound is not
    for step in steps:
        bound = stats.binomtest(round(step.errors), step.accepted).proportion_ci(0.9, "exact").high
        assert (bound <= alpha) == step.passed
    assert np.isin(valid, [step.threshold for step in steps if step.passed]).all()


# --- the bound of a cluster, known beforehand


def worst(units: int, size: float, per_cluster: int, per_unit: float) -> Units:
    """A cluster of which everything is accepted and wrong, beside one that is right."""
    count = np.r_[np.full(units, size), size]
    errors = np.r_[np.full(units, size), 0.0]
    return Units(np.ones(units + 1), errors, count, np.r_[np.zeros(units, int), 1], per_cluster, per_unit)


@pytest.mark.parametrize("units", [1, 3, 10, 100, 10_000])
@pytest.mark.parametrize("size", [1.0, 29.0, 30.0, 500.0, 1e6])
def test_no_cluster_loses_more_than_is_known_beforehand(units: int, size: float):
    loss = worst(units, size, 10, 30.0).losses(0.5, 0.02)
    assert (loss <= 1).all() and (loss >= -0.02 - 1e-12).all()
    full = units >= 10 and size >= 30
    assert (loss[0] == pytest.approx(0.98)) == full


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_errors_and_sizes_are_the_loss_is_bounded(seed: int):
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, 40, 500), return_inverse=True)[1]
    errors, sizes = rng.pareto(0.5, 500) * 10, rng.pareto(0.5, 500) * 10
    errors[rng.random(500) < 0.2], sizes[rng.random(500) < 0.2] = 0.0, 0.0
    units = Units(rng.random(500), errors, sizes, groups, 7, 25.0)
    for threshold in (0.0, 0.5, 0.9):
        loss = units.losses(threshold, 0.1)
        assert len(loss) == units.count and loss.max() <= 1 and loss.min() >= -0.1 - 1e-12


def test_what_is_over_a_limit_counts_in_proportion():
    """A line of 300 characters and 30 edits as one of 30 and 3; a writer of 20 lines as the mean of 10 of them."""
    long = Units(np.ones(1), np.array([30.0]), np.array([300.0]), np.zeros(1, int), 1, 30.0)
    assert error_rate(long, 0.5) == pytest.approx((3.0, 30.0))
    many = Units(np.ones(20), np.r_[np.ones(4), np.zeros(16)], np.ones(20), np.zeros(20, int), 10)
    assert error_rate(many, 0.5) == pytest.approx((2.0, 10.0))
    # text read where none is written: its edits count, up to the limit
    blank = Units(np.ones(1), np.array([90.0]), np.zeros(1), np.zeros(1, int), 1, 30.0)
    assert error_rate(blank, 0.5) == pytest.approx((30.0, 0.0)) and blank.losses(0.5, 0.1)[0] == pytest.approx(1.0)


def test_groups_without_an_accepted_line_lose_nothing():
    units = Units(
        np.array([0.9, 0.1, 0.2]), np.array([1.0, 5.0, 5.0]), np.array([10.0, 10.0, 10.0]), np.array([0, 0, 1]), 2, 10.0
    )
    assert units.losses(0.5, 0.05) == pytest.approx([0.5 / 20, 0.0])
    assert units.losses(0.0, 0.05) == pytest.approx([5.0 / 20, 4.5 / 20])
    assert units.count == 2 and Units(*[np.ones(4)] * 3).count == 4


# --- betting


def test_a_loss_over_the_bound_is_refused_and_never_clipped():
    losses = np.full(100, -0.02)
    losses[7] = 1e6
    with pytest.raises(ValueError, match=r"a loss of 1e\+06: losses must be at most 1"):
        betting(losses)


def test_one_cluster_that_is_wholly_wrong_is_evidence():
    good = np.full(400, -0.02)
    bad = good.copy()
    bad[:8] = 0.98  # 2 % of them: the mean is 0
    assert betting(good) < 1e-2 and betting(bad) > 0.05


def test_a_bet_is_fair_where_the_mean_is_zero_whatever_the_losses_are():
    """The rate of p <= 0.05 is 5 % at most: rare large losses, skewed ones, those of a coin."""
    rng, runs = np.random.default_rng(0), 1000
    for draw in (
        lambda n: np.where(rng.random(n) < 0.02, 0.98, -0.02),
        lambda n: np.where(rng.random(n) < 0.01, 0.495, -0.005),
        lambda n: rng.choice([-1.0, 1.0], n),
        lambda n: (np.minimum(rng.exponential(1.0, n), 9.0) - (1 - math.exp(-9))) / 9,
    ):
        false = sum(betting(draw(300), 0.5, seed) <= 0.05 for seed in range(runs)) / runs
        assert false <= 0.05 + 1.645 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize(("alpha", "writers"), [(0.02, 331), (0.02, 352), (0.05, 267)])
def test_what_clusters_are_called_makes_no_promise_false(alpha: float, writers: int):
    """The worst writers have the last names, as those of a new hospital may: in the order of names, however permuted
    by a seed, more than one in five of the promises would be false.
    """
    rng, runs, false = np.random.default_rng(writers), 300, {"names": 0, "numbered": 0}
    for _ in range(runs):
        bad = rng.random(writers) < 1.01 * alpha
        names = np.array([f"{'zx'[int(rng.integers(2))] if one else 'a'}{rng.integers(10**9)}" for one in bad])
        losses = np.where(bad, 1 - alpha, -alpha)
        for how, place in (("names", np.argsort(np.argsort(names))), ("numbered", numbered(names))):
            ordered = np.empty(writers)
            ordered[place] = losses
            false[how] += betting(ordered, 0.97) <= 0.05
    assert false["names"] > 0.15 * runs
    assert false["numbered"] <= runs * 0.05 + 1.645 * math.sqrt(runs * 0.05 * 0.95)


def test_clusters_are_numbered_each_by_itself():
    names = ["b", "a", "b", "\udce9", "a"]
    found = numbered(names)
    assert sorted(set(found.tolist())) == [0, 1, 2] and found[0] == found[2] and found[1] == found[4]
    digests = sorted(set(names), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    assert [digests[number] for number in found] == names


def test_the_wealth_of_a_bet_is_that_computed_by_hand():
    """The capital is 1 at the start, whoever it is divided among; a stake of its own has nine tenths of it."""
    stakes = np.append(np.geomspace(0.002, 0.9, 22), (0.97, 0.99))
    for own in (None, 0.5):
        assert betting(np.zeros(5), own) == pytest.approx(1.0)
    losses, once = np.full(3, -0.5), 1 + stakes / 2
    assert betting(losses) == pytest.approx(1 / np.mean(once**3))
    assert betting(losses, 0.8) == pytest.approx(1 / (np.mean(once**3) / 10 + 0.9 * 1.4**3))
    # the third group loses all that it can: the most was before
    seed = next(seed for seed in range(99) if np.random.default_rng(seed).permutation(3)[2] == 0)
    assert betting(np.array([1.0, -0.5, -0.5]), seed=seed) == pytest.approx(1 / np.mean(once**2))


def test_a_step_of_the_sequence_and_the_best_stake_are_those_computed_by_hand():
    """Two groups of a unit of 10 characters: at 0.9 the first one is accepted, its loss -0.05 of the most; at 0.5 both,
    one with an edit and so a loss of 0.05.
    """
    units = Units(np.array([0.9, 0.5]), np.array([0.0, 1.0]), np.array([10.0, 10.0]), np.array([0, 1]), 1, 10.0)
    threshold, (first, second) = choose(Plan([0.9, 0.5], [0.9, 0.5], 0.05, 0.98), units)
    stakes = np.append(np.geomspace(0.002, 0.9, 22), (0.97, 0.99))
    assert first.p == pytest.approx(1 / (np.mean(1 + 0.05 * stakes) / 10 + 0.9 * 1.045)) and threshold == 0.5
    assert (first.errors, first.total, first.groups, first.accepted, first.passed) == (0.0, 10.0, 1, 1, True)
    assert second.p == pytest.approx(betting(np.array([-0.05, 0.05]), 0.5))
    assert (second.errors, second.total, second.groups, second.accepted) == (1.0, 20.0, 2, 2)
    best, growth, spread = best_stake(np.array([-0.5, -0.5, 0.25]))
    logs = np.log1p(-stakes[:, None] * np.array([-0.5, -0.5, 0.25]))
    assert best == stakes[logs.mean(1).argmax()] == stakes[-1] and growth == pytest.approx(logs[-1].mean())
    assert spread == pytest.approx(logs[-1].std())


def test_a_bet_finds_what_is_there_with_hardly_more_than_the_exact_test():
    rng = np.random.default_rng(1)
    assert betting(rng.normal(-0.2, 0.3, 200).clip(-1, 1)) < 1e-4
    least = needed_clusters(0.02, 0.05)
    assert least < 1.08 * needed(0.02, 0.05)
    assert betting(np.full(least, -0.02), 0.99) <= 0.05 < betting(np.full(least - 5, -0.02), 0.99)
    assert betting(np.zeros(0)) == 1.0 and betting(np.full(50, 0.5)) == 1.0


# --- the sequence


def test_the_sequence_ends_with_the_first_threshold_that_fails():
    p = np.repeat([0.9, 0.8, 0.7, 0.6], 200)
    wrong = np.zeros(800)
    wrong[400:600:4] = 1  # a quarter of those at 0.7; none at 0.6, so that all of them would pass again
    units, made = Units(p, wrong, np.ones(800)), Plan([0.9, 0.8, 0.7, 0.6], None, 0.1, 0.05)
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


def test_what_was_read_as_nothing_is_never_accepted():
    p = np.r_[np.full(200, -np.inf), np.linspace(0.5, 1, 200)]
    units = Units(p, np.r_[np.ones(200), np.zeros(200)], np.ones(400))
    threshold, _ = choose(plan(units, 400, 0.05, 0.05), units)
    assert 0.5 <= threshold < 0.52 and 0.48 < coverage(units, threshold) <= 0.5
    with pytest.raises(ValueError, match="no unit of the fitting part can be accepted"):
        plan(Units(np.full(9, -np.inf), np.zeros(9), np.ones(9)), 9, 0.05, 0.05)


def test_a_plan_does_not_begin_where_one_error_would_end_it():
    """The strictest thresholds accept too few to be sure of; the plan is the same whatever the other part shows."""
    made = plan(fields(np.random.default_rng(0), 2000), 10_000, 0.02, 0.05)
    shares = [(fields(np.random.default_rng(1), 100_000).probability >= t).mean() for t in made.thresholds[:2]]
    assert shares[0] * 10_000 > 300 and shares == sorted(shares)
    assert made.stakes is None and made.thresholds == sorted(made.thresholds, reverse=True)


# --- promises are kept, and worth having: benchmarks/guarantee.py does it 1 000 times


def least(calibrations: int) -> float:
    return 0.95 - 1.645 * math.sqrt(0.05 * 0.95 / calibrations)


def test_promises_of_right_and_wrong():
    found = promises(CELLS["mild: fields, 10 000, 2 %"], 0.05, 60, seed=1, size=500_000)
    assert found["held"] >= least(60) and found["of_oracle"] >= 0.75 and found["nothing"] <= 0.02
    assert found["plain"] < 0.7  # the loosest threshold that looked good


def test_promises_of_cer_over_writers():
    found = promises(Cell(lines, 150, 600, 0.03, 12), 0.05, 20, seed=1, size=400_000)
    assert found["held"] >= least(20) and found["of_oracle"] >= 0.8


@pytest.mark.parametrize("writers", [60, 200])
def test_writers_who_cannot_be_read_do_not_break_a_promise(writers: int):
    """1 % of them, the rest at a CER of 1.2 %, a true rate of 2.2 %: with an estimated bound 40 % of the promises of a
    CER of 2 % were broken. Nothing may be promised here, but for delta.
    """
    cell = Cell(partial(unreadable, share=0.01), 60, writers, 0.02, 100)
    found = promises(cell, 0.05, 60, seed=2, size=400_000)
    assert found["held"] >= least(60) and found["before_held"] < 0.8


def test_a_fitting_part_that_misleads_does_not_make_a_false_promise():
    """Scores that say nothing, a rate just over alpha: every promise is a false one, and one in twenty is allowed."""
    rng, promised = np.random.default_rng(0), 0
    made = plan(Units(rng.random(2000), (rng.random(2000) < 0.002).astype(float), np.ones(2000)), 3000, 0.02, 0.05)
    for _ in range(300):
        true = Units(rng.random(3000), (rng.random(3000) < 0.0201).astype(float), np.ones(3000))
        promised += choose(made, true)[0] is not None
    assert 0 < promised <= 300 * (0.05 + 1.645 * math.sqrt(0.05 * 0.95 / 300))
