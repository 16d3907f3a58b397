"""Sign flips and false discoveries, against what can be counted by hand and by simulation."""

import math

import numpy as np
import pytest

from htr.metrics.significance import (
    MAX_EXACT_CLUSTERS,
    MIN_NORMAL_CLUSTERS,
    RANDOM_FLIPS,
    false_discovery,
    is_small,
    sign_flip,
)


def test_all_signs_of_few_clusters():
    assert sign_flip(np.array([1, 1, 1, 1])) == 2 / 16
    assert sign_flip(np.array([3, -1, 0])) == 1.0 and sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.array([3, 1])) == 0.5  # both with one sign, of four


@pytest.mark.parametrize("n", [10, MAX_EXACT_CLUSTERS + 6, 60])
def test_it_is_wrong_as_often_as_it_says(n: int):
    rng = np.random.default_rng(n)
    found = [sign_flip(rng.normal(0, rng.gamma(1, 2, n)).round(2), seed) for seed in range(200)]
    assert 3 <= sum(p <= 0.05 for p in found) <= 20  # 10 are expected
    assert sum(sign_flip(rng.normal(1, 1, n)) <= 0.05 for _ in range(50)) > 35


def test_drawn_signs_agree_with_all_of_them_and_with_the_normal_limit():
    rng = np.random.default_rng(5)
    few = rng.normal(0.5, 1, MAX_EXACT_CLUSTERS)
    doubled = np.r_[few, np.full(1, 1e-9)]  # one more cluster that says nothing: signs are drawn
    assert sign_flip(doubled) == pytest.approx(sign_flip(few), abs=0.015)
    many = rng.normal(0.02, 1, MIN_NORMAL_CLUSTERS)
    assert sign_flip(many[:-1]) == pytest.approx(sign_flip(many), abs=0.02)
    assert sign_flip(many) == sign_flip(-many) == sign_flip(many)


def test_the_shares_of_drawn_signs_and_of_the_normal_limit_are_those_computed_by_hand():
    assert sign_flip(np.ones(60)) == 1 / (RANDOM_FLIPS + 1)  # none of the signs drawn is as far: the data are one more
    # twelve of sixteen, less four: at least 12 or at most 4 heads of 16 coins are as far from 0
    p = 2 * sum(math.comb(16, heads) for heads in range(12, 17)) / 2**16
    assert sign_flip(np.r_[np.ones(12), -np.ones(4)]) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / RANDOM_FLIPS))
    # a sum of 100 whose standard deviation is the root of 5000: sqrt(2) of them
    assert sign_flip(np.r_[np.ones(2550), -np.ones(2450)]) == pytest.approx(math.erfc(1), rel=1e-9)


def test_false_discovery_is_that_of_benjamini_and_hochberg():
    p = [0.01, 0.04, 0.03, 0.005, 0.8]
    assert false_discovery(p) == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.8])  # p.adjust(p, "BH") of R
    assert false_discovery([]) == [] and false_discovery([0.2]) == [0.2]


def test_small_slices_are_those_of_few_clusters_or_characters():
    assert is_small(4, 10_000) and is_small(50, 199) and not is_small(5, 200)
