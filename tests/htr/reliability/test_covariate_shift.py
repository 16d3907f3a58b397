"""Whether a part is like another by its signals: false alarms at the level asked for, and what is there is seen."""

import math

import numpy as np
import pytest

from htr.reliability.covariate_shift import covariate_shift_test, means_by, ranks, statistic


def part(seed: int, groups: int, moved: float = 0.0, lines: int = 8) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three signals of lines that have their group's hand in common; the last one moves."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rng.poisson(lines, groups) + 1)
    hand = rng.normal(0, 1, (groups, 3)) + moved * np.array([0, 0, 1])
    values = hand[group] + rng.normal(0, 1, (len(group), 3))
    return {f"s{i}": values[:, i] for i in range(3)}, group


def test_false_alarms_are_as_rare_as_promised():
    warned = [
        covariate_shift_test(*part(2 * i, 40), *part(2 * i + 1, 25), permutations=99, seed=i).warns for i in range(200)
    ]
    assert np.mean(warned) <= 0.05 + 1.645 * math.sqrt(0.05 * 0.95 / 200)
    # lines alone, as if a hand were not the same in all of them, warn of nothing far more often
    naive = []
    for i in range(60):
        (one, first), (other, second) = part(2 * i, 40), part(2 * i + 1, 25)
        naive.append(
            covariate_shift_test(
                one, np.arange(len(first)), other, np.arange(len(second)), permutations=99, seed=i
            ).warns
        )
    assert np.mean(naive) > 0.5


def test_what_has_moved_is_named():
    found = covariate_shift_test(*part(0, 100), *part(1, 100, moved=0.8))
    assert found.warns and found.p <= 0.01 and found.groups == (100, 100)
    assert found.signals["s2"] == found.p and min(found.signals["s0"], found.signals["s1"]) > 0.05
    assert found.shifts["s2"] > 0.4 and abs(found.shifts["s0"]) < 0.4


def test_one_outlier_is_not_a_drift_and_scales_make_no_difference():
    (one, first), (other, second) = part(0, 60), part(1, 60)
    plain = covariate_shift_test(one, first, other, second)
    other["s1"] = other["s1"].copy()
    other["s1"][0] = 1e12
    assert not covariate_shift_test(one, first, other, second).warns
    stretched = [{name: np.exp(column) for name, column in side.items()} for side in (one, part(1, 60)[0])]
    assert covariate_shift_test(stretched[0], first, stretched[1], second) == plain


def test_statistic_shift_and_level_are_those_computed_by_hand():
    """Means 0.1 and 0.8 of two groups each, variances 0.01 and 0.04 of these: 0.7 over the root of 0.025."""
    groups = np.array([[0.0], [0.2], [0.6], [1.0]])
    dealt = np.array([[0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1]], bool)
    second = abs(0.5 - 0.4) / math.sqrt(0.25 / 2 + 0.04 / 2)
    one, three = (1 - 0.8 / 3) / math.sqrt(0.56 / 9 / 3), 0.6 / math.sqrt(0.32 / 3 / 3)  # parts of unequal size
    assert statistic(groups, dealt)[:, 0] == pytest.approx([0.7 / math.sqrt(0.025), second, one, three])
    assert means_by(np.array([[1.0], [2.0], [6.0]]), ["b", "a", "b"]).tolist() == [[2.0], [3.5]]
    # twelve groups of a line below twelve others: none of 999 deals is as far apart, and the data are one more
    one, other = np.arange(12.0), np.arange(12.0) + 20
    found = covariate_shift_test({"s": one}, np.arange(12), {"s": other}, np.arange(12), permutations=999)
    assert found.p == found.signals["s"] == 1 / 1000
    assert found.shifts["s"] == pytest.approx(12 / math.sqrt((12**2 - 1) / 12))  # in ranks; to the right is more
    assert (
        covariate_shift_test({"s": other}, np.arange(12), {"s": one}, np.arange(12)).shifts["s"] == -found.shifts["s"]
    )


def test_the_same_question_has_the_same_answer_and_too_few_have_none():
    assert covariate_shift_test(*part(0, 10), *part(1, 10)) == covariate_shift_test(*part(0, 10), *part(1, 10))
    same = {"s": np.ones(6)}
    assert covariate_shift_test(same, [0, 0, 1, 1, 2, 2], same, [0, 0, 1, 1, 2, 2]).p == 1.0
    with pytest.raises(ValueError, match="1 and 10 groups"):
        covariate_shift_test(*part(0, 1), *part(1, 10))
    with pytest.raises(ValueError, match="no signal in common"):
        covariate_shift_test({"a": [1.0]}, [0], {"b": [1.0]}, [0])
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [0.75, 0.125, 0.75, 0.375]
