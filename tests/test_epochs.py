"""Which text comes when: every one once an epoch, weights, curricula, and a schedule that can be entered anywhere."""

import collections

import numpy as np
import pytest

from shards.epochs import Epochs, Weight, share

WORLDS = (1, 2, 3, 4, 7)


def epochs(counts, weights=None, batch=8, steps=100, seed=0) -> Epochs:
    sources = np.repeat(np.arange(len(counts)), counts)
    widths = np.random.default_rng(seed).integers(16, 2000, len(sources))
    return Epochs(sources, widths, weights or [Weight()] * len(counts), batch, steps)


@pytest.mark.parametrize("count", [1, 3, 7, 32, 33, 500, 1001])
@pytest.mark.parametrize("world", WORLDS)
def test_every_text_once_and_equal_steps_on_all_ranks(count, world):
    course = epochs([count])
    plan = course.plan(course.epochs[0], seed=1)
    ranks = [[share(rows, rank, world) for rows in plan] for rank in range(world)]
    assert {len(steps) for steps in ranks} == {course.epochs[0].steps}
    assert sorted(np.concatenate([rows for steps in ranks for rows in steps])) == list(range(count))
    for parts in zip(*ranks, strict=True):
        sizes = [len(rows) for rows in parts]
        assert max(sizes) - min(sizes) <= 1


def test_an_epoch_hangs_on_seed_and_number_alone():
    course = epochs([500], steps=1000)

    def flat(seed: int, number: int) -> str:
        return str([rows.tolist() for rows in course.plan(course.epochs[number], seed)])

    assert flat(1, 2) == flat(1, 2)
    assert len({flat(*key) for key in ((1, 2), (1, 3), (2, 2), (2, 3))}) == 4


def test_batches_are_of_like_width_and_in_random_order():
    course = epochs([4000], batch=16, steps=500)
    plan, again = (course.plan(epoch, seed=0) for epoch in course.epochs[:2])
    wide = course.widths
    assert {len(rows) for rows in plan} == {16}
    filled = sum(wide[rows].sum() for rows in plan) / sum(16 * wide[rows].max() for rows in plan)
    assert filled > 0.9  # at random it is 0.53
    means = [wide[rows].mean() for rows in plan]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2
    assert len({frozenset(rows.tolist()) for rows in plan} & {frozenset(rows.tolist()) for rows in again}) == 0


def test_short_lines_come_first_in_the_first_epoch_alone():
    course = epochs([800], batch=8, steps=200)
    widest = [course.widths[rows].max() for rows in course.plan(course.epochs[0], seed=0, ordered=40)]
    assert widest[:40] == sorted(widest[:40]) and widest[40:] != sorted(widest[40:])
    later = [course.widths[rows].max() for rows in course.plan(course.epochs[1], seed=0, ordered=40)]
    assert later[:40] != sorted(later[:40])


@pytest.mark.parametrize("weight", [0.25, 0.3, 1.0, 2.5])
def test_a_weight_is_visits_an_epoch(weight):
    """And no text comes again before all have been."""
    course = epochs([101, 60], [Weight(), Weight(weight, weight)], steps=400)
    seen = collections.Counter()
    whole = course.epochs[:20]
    for epoch in whole:
        rows = np.concatenate(course.plan(epoch, seed=3))
        assert sorted(rows[rows < 101]) == list(range(101))
        seen.update(rows[rows >= 101].tolist())
    assert sum(seen.values()) == int(weight * len(whole) * 60 + 1e-6)
    counts = [seen[row] for row in range(101, 161)]
    assert max(counts) - min(counts) <= 1


def test_a_curriculum_goes_from_one_weight_to_the_other():
    course = epochs([100, 100], [Weight(0.0, 1.0), Weight(1.0, 0.0)], steps=500)
    shares = [(epoch.visits[1][1] - epoch.visits[1][0]) / 100 for epoch in course.epochs]
    assert shares[0] == 1.0 and shares[-1] < 0.1 and shares == sorted(shares, reverse=True)
    assert all(abs(sum(b - a for a, b in epoch.visits) - 100) <= 2 for epoch in course.epochs)


def test_the_schedule_can_be_entered_anywhere():
    course = epochs([103, 40], [Weight(), Weight(0.5, 0.1)], steps=150)
    firsts = [epoch.first_step for epoch in course.epochs]
    assert firsts == [0, *np.cumsum([epoch.steps for epoch in course.epochs])[:-1].tolist()]
    assert firsts[-1] < 150 <= firsts[-1] + course.epochs[-1].steps
    for step in range(150):
        epoch = course.since(step)[0]
        assert epoch.first_step <= step < epoch.first_step + epoch.steps


def test_weights_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="leave nothing"):
        epochs([10], [Weight(0.0, 0.0)])
    with pytest.raises(ValueError, match="leave nothing"):
        epochs([10], [Weight(-1.0, 1.0)])
