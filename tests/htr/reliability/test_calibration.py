"""From signals to a probability."""

import json

import numpy as np
import pytest

from htr.reliability.calibration import (
    MAX_FIT_ROWS,
    MIN_PROBABILITY,
    Feature,
    Score,
    cross_fitted,
    fit,
    newton,
    on_scale,
    sigmoid,
)

RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(60), 50)
HARD = RNG.normal(1.0, 2.0, len(GROUPS))
TRUE = 1 / (1 + np.exp(-HARD))
RIGHT = (RNG.random(len(GROUPS)) < TRUE).astype(float)


def signals() -> dict[str, np.ndarray]:
    """One that knows the truth but is far too sure, and one that says nothing."""
    return {"likelihood": 1 / (1 + np.exp(-3 * HARD)), "width": np.random.default_rng(1).normal(18, 3, len(HARD))}


def test_a_score_finds_the_truth_behind_a_signal_that_is_too_sure():
    score = fit("line", signals(), RIGHT, GROUPS)
    found = score.probability(signals())
    assert np.abs(found - TRUE).mean() < 0.02 and np.abs(signals()["likelihood"] - TRUE).mean() > 0.1
    assert abs(found.mean() - RIGHT.mean()) < 1e-4  # a free intercept: right on average
    assert score.signals == ["likelihood", "width"] and score.unit == "line"


def test_a_probability_does_not_hang_on_how_many_rows_there_are():
    """Else what is accepted at a threshold, which is one of them, would be luck: sums have other last bits."""
    many = {f"s{i}": np.random.default_rng(i).random(len(RIGHT)) for i in range(7)}
    score = fit("line", many, RIGHT, GROUPS)
    for row in range(100):
        of_row = {name: values[row] for name, values in many.items()}
        found = [score.probability({n: np.full(k, v) for n, v in of_row.items()}) for k in (1, 2, 3, 5, 33, 257)]
        assert len(set(np.concatenate(found).tolist())) == 1


def test_cross_fitted_probabilities_come_from_other_groups():
    held_out = cross_fitted("line", signals(), RIGHT, GROUPS)
    assert np.abs(held_out - TRUE).mean() < 0.03
    # a row's own answer makes no difference to what is said of its group
    turned = np.where(GROUPS == 7, 1 - RIGHT, RIGHT)
    again = cross_fitted("line", signals(), turned, GROUPS)
    assert np.allclose(held_out[GROUPS == 7], again[GROUPS == 7]) and not np.allclose(held_out, again)


def test_shares_are_fitted_by_their_weights():
    share = np.where(GROUPS % 2, 0.9, 0.5)
    weights = np.where(GROUPS % 2, 3.0, 1.0)
    known = {"frames": np.where(GROUPS % 2, 0.8, 0.3)}
    found = fit("character", known, share, GROUPS, weights).probability(known)
    assert np.allclose(found[GROUPS % 2 == 1], 0.9, atol=0.01) and np.allclose(found[GROUPS % 2 == 0], 0.5, atol=0.01)


def test_a_score_comes_back_from_json_bit_for_bit():
    score = fit("line", signals(), RIGHT, GROUPS)
    back = Score.from_json(json.loads(json.dumps(score.to_json())))
    assert np.array_equal(back.probability(signals()), score.probability(signals()))
    broken = score.to_json()
    broken["weights"] = broken["weights"][1:]
    with pytest.raises(ValueError, match="other weights"):
        Score.from_json(broken)


def test_what_was_not_seen_in_fitting_is_not_extrapolated():
    score = fit("line", signals(), RIGHT, GROUPS)
    known = signals()
    most, beyond = ({"likelihood": [1.0], "width": [width]} for width in (known["width"].max(), 1e9))
    assert score.probability(most) == score.probability(beyond)


def test_what_cannot_be_fitted_or_asked_is_an_error():
    score = fit("line", signals(), RIGHT, GROUPS)
    with pytest.raises(ValueError, match="the signal 'width' is missing, and"):
        score.probability({"likelihood": [0.5]})
    with pytest.raises(ValueError, match="'width' is missing or not finite in 1 of 2"):
        score.probability({"likelihood": [0.5, 0.5], "width": [1.0, np.nan]})
    with pytest.raises(ValueError, match="all right or all wrong"):
        fit("line", signals(), np.ones(len(RIGHT)), GROUPS)
    with pytest.raises(ValueError, match="at least two are needed"):
        fit("line", signals(), RIGHT, np.zeros(len(RIGHT)))
    with pytest.raises(ValueError, match="each signal has one value"):
        fit("line", {"frames": np.ones(len(RIGHT))}, RIGHT, GROUPS)
    with pytest.raises(ValueError, match="known are logit and log"):
        on_scale(np.ones(1), "root")


def test_many_rows_are_thinned_out():
    rng = np.random.default_rng(2)
    p = rng.random(MAX_FIT_ROWS + 10_000)
    right, groups = (rng.random(len(p)) < p).astype(float), rng.integers(0, 500, len(p))
    found = fit("line", {"frames": p}, right, groups).probability({"frames": p})
    assert np.abs(found - p).max() < 0.02


def test_what_is_thinned_out_is_of_all_rows():
    """Rows come in the order of their shards: the later ones may be of another kind than the first."""
    rng, count = np.random.default_rng(2), MAX_FIT_ROWS + 50_000
    p, late = rng.random(count), np.arange(count) >= MAX_FIT_ROWS
    right, groups = (rng.random(count) < np.where(late, p * 0.2, p)).astype(float), rng.integers(0, 500, count)
    found = fit("line", {"frames": p}, right, groups).probability({"frames": p})
    assert found.mean() == pytest.approx(right.mean(), abs=0.02)
    assert not np.array_equal(fit("line", {"frames": p}, right, groups, seed=1).probability({"frames": p}), found)
    assert np.array_equal(fit("line", {"frames": p}, right, groups).probability({"frames": p}), found)


def test_a_score_is_computed_from_its_signals_as_by_hand():
    """A probability is bent at its third, a length at its middle: x, max(x - knot, 0), brought to mean 0 and spread 1.
    The signals go in opposite directions, each with a weight of its own.
    """
    features = Feature("frames", "logit", -2.0, 2.0, (1.0,)), Feature("length", "log", 0.0, 9.0, ())
    arrays = np.array([0.5, 0.25, 2.0]), np.array([2.0, 0.5, 1.0]), np.array([1.0, -0.4, -0.3])
    score = Score("line", features, *arrays, 0.7, 1.0)
    x, length = np.array([-3.0, 1.5, 9.0]), np.array([0.0, 4.0, 19.0])
    found = score.probability({"frames": 1 / (1 + np.exp(-x)), "length": length})
    bent = [(-2.0, 0.0), (1.5, 0.5), (2.0, 1.0)]
    logits = [
        0.7 + (a - 0.5) / 2 - 0.4 * (b - 0.25) / 0.5 - 0.3 * (np.log1p(c) - 2)
        for (a, b), c in zip(bent, length, strict=True)
    ]
    assert found == pytest.approx(1 / (1 + np.exp(-np.array(logits))))


def test_newton_ends_where_the_gradient_does():
    rng = np.random.default_rng(3)
    matrix = rng.normal(0, 1, (500, 4))
    right = (rng.random(500) < sigmoid(2 * matrix[:, 0] - 5)).astype(float)  # rare, and nearly separable
    intercept, weights = newton(matrix, right, np.ones(500), 1.0)
    gradient = matrix.T @ (sigmoid(intercept + matrix @ weights) - right) + weights
    assert np.abs(gradient).max() < 1e-4
    assert sigmoid(np.array([-1e9, 1e9])).tolist() == [MIN_PROBABILITY, 1 - MIN_PROBABILITY]
