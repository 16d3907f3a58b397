"""Bootstrap over groups: against what is known of simple cases, and the same whatever the order."""

import numpy as np
import pytest

from htr.scoring import interval as module
from htr.scoring.interval import by_whom, interval


def test_it_covers_the_truth_as_often_as_it_says():
    """Forty writers of 10 lines of 50 characters, each writer with an error rate of their own around 10 %."""
    rng, hits = np.random.default_rng(0), 0
    groups = [f"w{k // 10}" for k in range(400)]
    for seed in range(60):
        rates = np.repeat(rng.beta(2, 18, 40), 10)
        low, high = interval(rng.binomial(50, rates), [50] * 400, groups, seed)
        hits += low <= 0.1 <= high
    assert 50 <= hits < 60  # 57 are expected of 95 %; an interval over single lines, far too narrow, has some 30


def test_lines_of_one_writer_are_drawn_together():
    edits, totals = [0, 0, 9, 9], [10] * 4
    wide, narrow = interval(edits, totals, ["a", "a", "b", "b"]), interval([0, 9, 0, 9], totals, ["a", "a", "b", "b"])
    assert wide == (0.0, 0.9) and narrow == (0.45, 0.45)


def test_it_is_the_same_whatever_the_order_and_the_memory(monkeypatch):
    rng = np.random.default_rng(1)
    edits, totals, groups = rng.integers(0, 9, 50), rng.integers(9, 90, 50), [f"w{k % 7}" for k in range(50)]
    once, order = interval(edits, totals, groups), rng.permutation(50)
    assert interval(edits[order], totals[order], [groups[k] for k in order]) == once
    assert interval(edits, totals, groups, seed=1) != once
    monkeypatch.setattr(module, "MOST", 100)
    assert interval(edits, totals, groups) == once


def test_there_is_none_where_nothing_varies():
    assert interval([1, 2], [9, 9], ["a", "a"]) is None and interval([], [], []) is None
    assert interval([0, 0], [0, 0], ["a", "b"]) is None  # blank lines
    low, high = interval([-1, -1, -2], [9, 9, 9], ["a", "b", "c"])  # differences may be negative
    assert low == pytest.approx(-2 / 9) and high == pytest.approx(-1 / 9)


def test_a_certificate_stands_for_a_writer_who_is_not_known():
    assert by_whom(["w", "", None], ["w", "w", "c"]) == ["writer w", "certificate w", "certificate c"]
