"""Drift over years: found where it is, with writers that come again."""

import math

import numpy as np
import pytest

from htr.metrics.yearly_trend import tested as z_test
from htr.metrics.yearly_trend import yearly_trend


def simulated(rng: np.random.Generator, rates: list[float], writers: int = 60) -> tuple[np.ndarray, ...]:
    """(year, writer): each writer has a factor of their own, the same in all years; a third of them is away."""
    years, names = (
        axis.ravel() for axis in np.meshgrid(2015 + np.arange(len(rates)), np.arange(writers), indexing="ij")
    )
    there = rng.random(len(years)) < 2 / 3
    factor = rng.gamma(5, 0.2, writers)[names]
    characters = rng.integers(200, 2000, len(years))
    edits = rng.binomial(characters, np.minimum(np.array(rates)[years - 2015] * factor, 1))
    return tuple(values[there] for values in (years, names, edits, characters))


def test_a_step_in_the_last_year():
    years, names, edits, characters = simulated(np.random.default_rng(0), [0.08, 0.08, 0.08, 0.13])
    found = yearly_trend(years, names, edits, characters)
    assert found["first"] == "2015" and list(found["years"]) == list(found["previous"]) == ["2016", "2017", "2018"]
    last = found["years"]["2018"]
    of = {year: edits[years == year].sum() / characters[years == year].sum() for year in (2015, 2017, 2018)}
    assert last["cer"] == pytest.approx(of[2018]) and last["difference"] == pytest.approx(of[2018] - of[2015])
    assert last["low"] < 0.05 < last["high"] and last["p"] <= last["q"] < 0.01 and not last["small"]
    assert found["previous"]["2018"]["difference"] == pytest.approx(of[2018] - of[2017])
    assert found["previous"]["2018"]["q"] < 0.01
    trend = found["trend"]
    assert trend["low"] <= trend["per_year"] <= trend["high"] and trend["per_year"] > 0.005


def test_it_is_wrong_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [yearly_trend(*simulated(rng, [0.1, 0.1, 0.1], 30)) for _ in range(200)]
    assert 2 <= sum(row["years"]["2017"]["p"] < 0.05 for row in found) <= 22  # 10 are expected
    assert 2 <= sum(row["trend"]["p"] < 0.05 for row in found) <= 22
    covered = sum(row["trend"]["low"] <= 0 <= row["trend"]["high"] for row in found)
    assert covered == sum(row["trend"]["p"] >= 0.05 for row in found)


def test_the_slope_is_that_of_least_squares():
    years, names, edits, characters = simulated(np.random.default_rng(2), [0.05, 0.06, 0.08, 0.07, 0.1])
    rates, weights = (np.bincount(years - 2015, values) for values in (edits, characters))
    slope = np.polyfit(np.arange(5), rates / weights, 1, w=np.sqrt(weights))[0]
    assert yearly_trend(years, names, edits, characters)["trend"]["per_year"] == pytest.approx(slope)


def test_ends_and_level_are_those_computed_by_hand():
    """Four clusters add 1, 1, -3 and 1 hundredths: an error of sqrt(12 * 4/3) of them, and Student's t of 3 degrees."""
    influence = np.array([0.01, 0.01, -0.03, 0.01])
    found = z_test(0.04 * 3.1824, influence)  # of which 5 % are beyond
    assert (found["low"], found["high"]) == pytest.approx((0.0, 0.08 * 3.1824), abs=1e-5)
    assert found["p"] == pytest.approx(0.05, rel=0.03) and z_test(-0.04 * 3.1824, influence)["p"] == found["p"]
    assert z_test(0.0, influence)["p"] == z_test(0.0, np.zeros(4))["p"] == 1.0
    assert z_test(1.0, np.zeros(4))["p"] == 0.0
    # two writers in both years, rates of 0.1 and 0.2
    rows = yearly_trend([2015, 2015, 2016, 2016], [0, 1, 0, 1], np.array([5, 15, 10, 30]), np.array([100] * 4))
    assert rows["years"]["2016"]["difference"] == pytest.approx(0.1) == rows["trend"]["per_year"]
    # the second writer has 5 and 10 more than the rates of 10 and 20 foretell: ±(0.05 - 0.025), t of one degree
    half = 12.7062 * math.sqrt(2 * 0.025**2 * 2)
    assert rows["years"]["2016"]["low"] == pytest.approx(0.1 - half, rel=1e-4)
    assert rows["trend"]["high"] == pytest.approx(0.1 + half, rel=1e-4)


def test_there_is_none_without_two_years_or_two_clusters():
    one = np.ones(3, int)
    assert yearly_trend(2015 * one, np.arange(3), one, 9 * one) is None
    assert yearly_trend(2015 + np.arange(3), one, one, 9 * one) is None
    assert yearly_trend(2015 + np.arange(3), np.arange(3), one, np.array([9, 0, 0])) is None  # blank lines alone
    assert yearly_trend(np.zeros(0, int), *[np.zeros(0)] * 3) is None
