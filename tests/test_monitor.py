"""Batches in production: exact bounds of the very batch, and alarms that are rare until there is a reason."""

import math

import pytest

from htr.scoring.monitor import APART, FALSE, Watch, false_alarms, hours, hypergeometric, most_wrong, sample_size


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
    with pytest.raises(ValueError, match="that cannot be"):
        most_wrong(3, 2, 10, 0.05)


def test_how_many_to_key():
    size = sample_size(5000, 0.02, 0.05)
    assert most_wrong(0, size, 5000, 0.05) <= 100 < most_wrong(0, size - 1, 5000, 0.05)
    assert size < 149  # of a batch that has an end less is needed than of an endless one
    assert sample_size(5000, 0.02, 0.05, 0.005) > size and sample_size(10, 0.02, 0.05) == 10
    assert hours(1000, 100, 1.5, 20) == pytest.approx(900 * 1.5 * 20 / 3600)


def test_alarms_are_rare_while_alpha_holds_and_come_soon_when_it_does_not():
    samples = [150] * 60
    true = false_alarms(samples, 0.02, 0.02, 200)
    assert true["bet"] <= FALSE + 1.645 * math.sqrt(FALSE * (1 - FALSE) / 200)
    assert true["detector"] <= len(samples) / APART + 0.06
    assert false_alarms(samples, 0.02, 0.008, 50) == {"bet": 0.0, "detector": 0.0}
    assert false_alarms(samples, 0.02, 0.04, 50) == {"bet": 1.0, "detector": 1.0}


def test_the_detector_sees_a_late_change_sooner_than_the_bet():
    watch, first = Watch(0.02), {}
    for batch in range(140):
        watch.add(1 if batch < 100 else 6, 150)  # 0.7 %, then 4 %
        for name in watch.alarms:
            first.setdefault(name, batch)
    assert 100 <= first["detector"] <= 106 and first.get("bet", 140) > first["detector"] + 5


def test_a_watch_goes_on_from_what_was_written():
    one, two = Watch(0.02), Watch(0.02)
    for wrong in (1, 9, 4):
        one.add(wrong, 100)
    for wrong in (1, 9, 4):
        two.add(wrong, 100)
        two = Watch(**two.to_json())
    assert one == two and (one.batches, one.sampled, one.wrong) == (3, 300, 14)
    assert Watch(0.02).bet == 0.0 and Watch(0.02).alarms == []
    with pytest.raises(ValueError, match="that cannot be"):
        one.add(3, 2)
