"""Intervals over clusters: against what is known of simple cases, and the same whatever the order."""

import math

import numpy as np
import pytest

from htr.metrics.intervals import (
    MIN_NORMAL_CLUSTERS,
    MIN_TRUSTED_CLUSTERS,
    RESAMPLES,
    cluster_ids,
    degrees_of_freedom,
    difference_interval,
    doubts,
    draws,
    ratio_interval,
    share_interval,
    standard_error,
    student,
)


def simulated(rng: np.random.Generator, clusters: int) -> tuple[np.ndarray, ...]:
    """Writers of 5 to 14 lines of 50 characters, each with an error rate of their own around 10 %: by line."""
    writer = np.repeat(np.arange(clusters), rng.integers(5, 15, clusters))
    return rng.binomial(50, rng.beta(2, 18, clusters)[writer]), np.full(len(writer), 50), writer


@pytest.mark.parametrize(("clusters", "least"), [(20, 180), (200, 184)])
def test_it_covers_the_truth_and_an_interval_over_lines_does_not(clusters: int, least: int):
    rng, hits, naive = np.random.default_rng(clusters), 0, 0
    for seed in range(200):
        edits, totals, writer = simulated(rng, clusters)
        sums = (np.bincount(writer, counts) for counts in (edits, totals))
        low, high = ratio_interval(*sums, seed=seed).pair
        hits += low <= 0.1 <= high
        low, high = ratio_interval(edits, totals, seed=seed).pair
        naive += low <= 0.1 <= high
    assert least <= hits < 200  # 190 are expected of 95 %
    assert naive < 130


def test_lines_of_one_writer_are_drawn_together():
    rng = np.random.default_rng(0)
    edits, totals, writer = simulated(rng, 30)
    low, high = ratio_interval(*(np.bincount(writer, counts) for counts in (edits, totals))).pair
    alone = ratio_interval(edits, totals).pair
    assert high - low > 1.4 * (alone[1] - alone[0])


def test_it_is_the_same_each_time():
    rng = np.random.default_rng(1)
    edits, totals = rng.integers(1, 9, 17), rng.integers(9, 90, 17)
    assert ratio_interval(edits, totals) == ratio_interval(edits.copy(), totals.copy())
    assert ratio_interval(edits, totals, seed=1) != ratio_interval(edits, totals)


def test_it_is_the_same_whatever_was_asked_before():
    """The draws that are kept are those of the last number of clusters."""
    rng = np.random.default_rng(4)
    edits, totals = rng.integers(1, 9, 30), rng.integers(20, 90, 30)
    once = ratio_interval(edits, totals)
    assert ratio_interval(edits[:29], totals[:29]) != once and ratio_interval(edits, totals, seed=1) != once
    draws.cache_clear()
    assert ratio_interval(edits, totals) == once


def test_the_ends_are_those_computed_by_hand():
    """Of three clusters: r = 9/60, u = -0.5, -1 and 1.5, their squares 3.5, an error of sqrt(3/2 * 3.5) / 60."""
    error = math.sqrt(5.25) / 60
    assert standard_error(np.array([1, 2, 6]), np.array([10, 20, 30])) == pytest.approx(error)
    factor = math.exp(4.3027 * error / 0.15)  # Student's t of two degrees of freedom
    found = ratio_interval([1, 2, 6], [10, 20, 30])
    assert found.method == "log-t" and found.pair == pytest.approx((0.15 / factor, 0.15 * factor), rel=1e-4)
    found = difference_interval([1, -2, 6], [10, 20, 30])
    u = np.array([1, -2, 6]) - 5 / 60 * np.array([10, 20, 30])
    half = 4.3027 * math.sqrt(1.5 * (u @ u)) / 60  # the squares of three vary as those of more than 2 degrees
    assert found.method == "t" and found.pair == pytest.approx((5 / 60 - half, 5 / 60 + half), abs=1e-5)
    many = ratio_interval(np.tile([1, 2, 6], MIN_NORMAL_CLUSTERS), np.tile([10, 20, 30], MIN_NORMAL_CLUSTERS))
    half = (
        1.95996
        * math.sqrt(3 * MIN_NORMAL_CLUSTERS / (3 * MIN_NORMAL_CLUSTERS - 1) * 3.5 * MIN_NORMAL_CLUSTERS)
        / (60 * MIN_NORMAL_CLUSTERS)
    )
    assert many.method == "linearised" and many.pair == pytest.approx((0.15 - half, 0.15 + half), rel=1e-6)


def test_a_bootstrap_t_leans_to_where_the_errors_have_their_tail():
    """Few clusters have many errors, so that a low rate has a small error of its own: the upper arm is the longer one.
    And the ends are those of the same draws, one by one.
    """
    errors, totals = np.random.default_rng(0).geometric(0.3, 15) - 1, np.full(15, 50)
    found, rate = ratio_interval(errors, totals), errors.sum() / totals.sum()
    assert found.method == "bootstrap-t" and found.high - rate > 1.2 * (rate - found.low) > 0
    distances = []
    for drawn in np.random.default_rng(0).integers(0, 15, (RESAMPLES, 15), dtype=np.int32):
        e, t = errors[drawn], totals[drawn]
        distances.append((e.sum() / t.sum() - rate) / standard_error(e, t))
    low, high = np.quantile(distances, [0.025, 0.975])
    error = standard_error(errors, totals)
    assert found.pair == pytest.approx((rate - high * error, rate - low * error))
    mirrored = share_interval(totals - errors, totals)
    assert mirrored.pair == pytest.approx((1 - found.high, 1 - found.low))


def test_the_form_goes_with_the_clusters():
    rng = np.random.default_rng(2)
    for n, method in ((5, "log-t"), (12, "bootstrap-t"), (400, "bootstrap-t"), (MIN_NORMAL_CLUSTERS, "linearised")):
        found = ratio_interval(rng.integers(1, 9, n), rng.integers(20, 90, n))
        assert found.method == method and 0 < found.low < found.high < 1
    # two of a thousand clusters with an error say as little as two clusters
    rare = ratio_interval(np.r_[1, 2, np.zeros(998)], np.full(1000, 100))
    assert rare.method == "log-t" and 0 < rare.low < 3e-5 < rare.high < 3e-4
    assert ratio_interval([1, 9], [10, 10]).high == 1.0


def test_the_linearised_error_is_that_of_many_draws():
    rng = np.random.default_rng(3)
    edits, totals = rng.integers(0, 9, 60), rng.integers(20, 90, 60)
    drawn = rng.integers(0, 60, (4000, 60))
    assert standard_error(edits, totals) == pytest.approx(np.std(edits[drawn].sum(1) / totals[drawn].sum(1)), rel=0.06)


def test_without_an_error_there_is_still_an_upper_end():
    found = ratio_interval(np.zeros(149), np.full(149, 7))
    assert found.low == 0 and found.high == pytest.approx(1 - 0.025 ** (1 / 149)) and found.method == "exact"
    right = share_interval(np.full(149, 7), np.full(149, 7))
    assert right.high == 1 and right.low == pytest.approx(0.025 ** (1 / 149))


def test_there_is_none_where_nothing_can_vary():
    for interval in (ratio_interval, difference_interval):
        assert interval([3], [18]) is None and interval([], []) is None
        assert interval([0, 0], [0, 0]) is None  # blank lines


@pytest.mark.parametrize("sign", [-1, 1])
def test_differences_of_one_sign_are_differences_all_the_same(sign: int):
    low, high = difference_interval(sign * np.array([1, 1, 2]), [9, 9, 9]).pair
    assert low == pytest.approx(sign * 4 / 27 - student(2) / 27)
    assert high == pytest.approx(sign * 4 / 27 + student(2) / 27)
    assert difference_interval([0, 0], [9, 9]).pair == (0, 0)
    rng = np.random.default_rng(0)
    d, t = rng.integers(0, 5, 60), rng.integers(20, 90, 60)
    below, above = difference_interval(-d, t).pair
    assert difference_interval(d, t).pair == pytest.approx((-above, -below))


def test_a_difference_that_a_few_clusters_make_has_few_degrees_of_freedom():
    """Satterthwaite's, by hand: of n squares that are alike all, n - 1 are left; of two that carry all, about 4."""
    assert degrees_of_freedom(np.tile([1.0, -1.0], 50)) == 99
    carried = np.r_[1.0, -1.0, np.zeros(998)]
    assert degrees_of_freedom(carried) == pytest.approx(2 * 4 / (2 - 4 / 1000))
    rng = np.random.default_rng(0)
    assert np.mean([degrees_of_freedom(rng.normal(size=200)) for _ in range(200)]) == pytest.approx(199, rel=0.06)
    found = difference_interval(carried * 30, np.full(1000, 100))
    assert found.high == pytest.approx(student(degrees_of_freedom(carried)) * 30 * math.sqrt(2 * 1000 / 999) / 1e5)


@pytest.mark.parametrize(("clusters", "unreadable"), [(20, 0.0), (200, 0.01), (200, 0.03)])
def test_differences_of_readers_that_are_alike_are_covered_whatever_hands_there_are(clusters: int, unreadable: float):
    rng, hits, runs = np.random.default_rng(clusters), 0, 300
    for _ in range(runs):
        totals = 30 * rng.geometric(1 / 15, clusters)
        rate = np.where(rng.random(clusters) < unreadable, 0.98, rng.beta(1.5, 88, clusters))
        d = rng.binomial(totals, 0.1 * rate) * rng.choice([-1, 1], clusters)
        low, high = difference_interval(d, totals).pair
        hits += low <= 0 <= high
    assert hits >= 0.93 * runs  # of the bootstrap-t 84 to 90 %


def test_differences_are_no_errors():
    with pytest.raises(ValueError, match="Take difference_interval"):
        ratio_interval([1, -1], [9, 9])


def test_what_no_cluster_has_shown_is_a_doubt():
    same = np.full(2000, 5), np.full(2000, 100)
    assert doubts(*same) == []
    assert (
        "39 writers: too few"
        in doubts(same[0][: MIN_TRUSTED_CLUSTERS - 1], same[1][: MIN_TRUSTED_CLUSTERS - 1], "writer")[0]
    )
    [missing] = doubts(np.full(100, 3), np.full(100, 100), "writer")  # 3 %: as much as may be missing
    assert "writers as rare as one in 34 may be missing" in missing and "up to 3.0 points" in missing
    few = np.r_[np.full(6, 100), np.full(1994, 1)]
    assert "few clusters carry the errors" in doubts(few, same[1])[-1]
    # of a difference: where something is claimed, or few clusters make it
    assert doubts(np.tile([1, -1], 50), np.full(100, 100), difference=True) == []
    [claimed] = doubts(np.full(100, 1) + np.arange(100) % 2, np.full(100, 100), "writer", difference=True)
    assert "unreadable to one of the readers, the difference would be up to 3.0 points off" in claimed
    [made] = doubts(np.r_[50, -50, np.zeros(98)], np.full(100, 100), "writer", difference=True)
    assert "few writers carry the difference, as many as 2 alike would" in made
    assert doubts(np.zeros(0), np.zeros(0)) == ["0 clusters: too few, the intervals are wide and rough"]


def test_students_t_is_that_of_the_tables():
    table = {1: 12.706, 2: 4.303, 5: 2.571, 10: 2.228, 19: 2.093, 30: 2.042, 120: 1.980, 1000: 1.962}
    assert {degrees: round(student(degrees), 3) for degrees in table} == table


def test_a_certificate_stands_for_a_writer_who_is_not_known():
    assert cluster_ids(["w", "", None], ["w", "w", "c"]) == ["writer w", "certificate w", "certificate c"]


def test_nothing_right_has_an_upper_end():
    """The exact one of so many clusters without any, as nothing wrong has it."""
    none = share_interval(np.zeros(20), np.full(20, 3))
    all_of_them = share_interval(np.full(20, 3), np.full(20, 3))
    assert none.low == 0 and 0.1 < none.high < 0.2
    assert (all_of_them.low, all_of_them.high) == pytest.approx((1 - none.high, 1.0))
