"""How far probabilities hold: against closed cases, and scores that are calibrated by construction."""

import math

import numpy as np
import pytest

from htr.reliability.diagrams import RESAMPLES, bins_of, figures, ideal


def drawn(seed: int, count: int, sharper: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that are true (sharper = 1) or too sure, whether right, groups."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(1.0, 1.5, count)
    right = rng.random(count) < 1 / (1 + np.exp(-logit))
    return 1 / (1 + np.exp(-sharper * logit)), right.astype(float), rng.integers(0, count // 20, count)


def test_an_ideal_score_shows_what_ideal_says_and_less_debiased():
    found = [figures(*drawn(seed, 2200))["ece"] for seed in range(12)]
    value, expected, debiased = (np.mean([f[name] for f in found]) for name in ("value", "ideal", "debiased"))
    assert value == pytest.approx(expected, rel=0.15) and 0.02 < expected < 0.03
    assert debiased < 0.65 * value
    assert np.mean([f["low"] <= 0.01 for f in found]) >= 0.9  # the interval does not take noise for an error


def test_a_score_that_is_too_sure_has_an_error_that_does_not_hang_on_the_number():
    small, large = (figures(*drawn(1, count, 2.0))["ece"] for count in (2200, 40_000))
    assert large["debiased"] == pytest.approx(large["value"], abs=0.002) and large["value"] > 0.05
    assert small["debiased"] == pytest.approx(large["value"], abs=0.02)
    assert small["low"] < large["value"] < small["high"]


def test_lines_that_err_together_widen_the_interval():
    rng = np.random.default_rng(0)
    p, group = np.full(4000, 0.7), np.repeat(np.arange(40), 100)
    hands = (rng.random(40) < 0.7)[group].astype(float)  # all lines of a hand right, or all wrong
    alone = (rng.random(4000) < 0.7).astype(float)
    together, apart = (figures(p, right, group)["brier"] for right in (hands, alone))
    assert together["high"] - together["low"] > 4 * (apart["high"] - apart["low"])
    [bin_] = figures(p, hands, group)["bins"]
    assert bin_["right_high"] - bin_["right_low"] > 0.2 and bin_["right_low"] <= bin_["right"] <= bin_["right_high"]


def test_closed_cases():
    p, right = np.array([0.9, 0.8, 0.6, 0.2]), np.array([1.0, 0.0, 1.0, 0.0])
    found = figures(p, right, np.arange(4), edits=[0, 1, 0, 4], characters=[10, 10, 10, 10])
    assert found["brier"]["value"] == pytest.approx((0.01 + 0.64 + 0.16 + 0.04) / 4)
    assert found["log_loss"]["value"] == pytest.approx(-np.log([0.9, 0.2, 0.6, 0.8]).mean())
    assert found["aurc"]["value"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    curve = found["risk_coverage"]
    assert [point["coverage"] for point in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [point["risk"] for point in curve] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert [point["cer"] for point in curve] == pytest.approx([0, 0.05, 1 / 30, 5 / 40])
    assert [point["threshold"] for point in curve] == [0.9, 0.8, 0.6, 0.2]
    assert ideal(np.full(100, 0.5)) == pytest.approx(math.sqrt(100 * 0.25 * 2 / math.pi) / 100)


def test_the_debiased_error_and_its_interval_are_those_computed_by_hand():
    """Two groups of ten lines at 0.7, of which 9 and 7 are right: the gap is 0.1, the groups' sums of right - predicted
    are 1 more and 1 less than it says, so that its variance is 2 / 20^2 * 2 / 1 = 0.1^2. Normal noise of 0.1 makes the
    mean absolute of 0.1 larger: E|x| = 0.1166629.
    """
    right = np.repeat([1.0, 0.0, 1.0, 0.0], [9, 1, 7, 3])
    found = figures(np.full(20, 0.7), right, np.repeat([0, 1], 10))["ece"]
    assert found["value"] == pytest.approx(0.1) and found["debiased"] == pytest.approx(0.2 - 0.1166629, abs=1e-6)
    # groups of unequal size, each drawn as often as in the same resamples one by one
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(8), np.arange(2, 10))
    p, right = rng.random(len(group)), (rng.random(len(group)) < 0.2 + 0.6 * (group % 2)).astype(float)
    found, means = figures(p, right, group)["brier"], []
    for drawn in np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), RESAMPLES):
        rows = np.concatenate([np.flatnonzero(group == g) for g in np.repeat(np.arange(8), drawn)])
        means.append(((p - right)[rows] ** 2).mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_equal_probabilities_are_accepted_together_and_in_one_bin():
    p, right = np.array([0.9, 0.5, 0.5, 0.5]), np.array([1.0, 0.0, 0.0, 1.0])
    found = figures(p, right, np.arange(4))
    assert [point["coverage"] for point in found["risk_coverage"]] == [0.25, 1.0]
    # among equals the risk is that of a random order, whatever the rows' own is
    assert found["aurc"]["value"] == figures(p, right[[0, 3, 1, 2]], np.arange(4))["aurc"]["value"]
    assert len(set(bins_of(p)[1:])) == 1 and "cer" not in found["risk_coverage"][0]


def test_few_groups_have_no_interval_and_none_is_an_error():
    found = figures([0.9, 0.8], [1.0, 0.0], ["w", "w"])
    assert found["ece"]["low"] is None and found["aurc"]["high"] is None
    assert figures([1.0, 0.0], [0.0, 1.0], [1, 2])["log_loss"]["value"] < 20  # sure and wrong, but not infinite
    with pytest.raises(ValueError, match="no units"):
        figures([], [], [])


def test_more_groups_than_a_bootstrap_needs_are_put_together():
    p, right, _ = drawn(3, 12_000)
    found = figures(p, right, np.arange(12_000))["brier"]
    value = (p - right) ** 2
    assert found["high"] - found["low"] == pytest.approx(4 * value.std() / math.sqrt(12_000), rel=0.2)
