"""Which text comes when: every one once an epoch, weights, curricula, and a schedule that can be entered anywhere."""

import collections
import hashlib
import tracemalloc
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.sampler import MIXINGS, EpochSampler, Weight, share

WORLDS = (1, 2, 3, 4, 7)
OLDER_ORDER = {"lines": "ce948fa7f80427ba", "pixels": "f252d1ebb72693a3"}


def epochs(counts, weights=None, batch=8, steps=100, seed=0, by="lines", mixing=MIXINGS[2]) -> EpochSampler:
    widths = np.random.default_rng(seed).integers(16, 2000, sum(counts))
    return EpochSampler(counts, widths, weights or [Weight()] * len(counts), batch, steps, by, mixing)


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


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 900), min_size=1, max_size=3),
    batch=st.integers(1, 130),
    by=st.sampled_from(["lines", "pixels"]),
    ordered=st.integers(0, 60),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_exactly_once_also_after_a_resume_in_another_world(counts, batch, by, ordered, seed, data):
    """Three epochs, stopped after any step of each and gone on with by another world."""
    course = epochs(counts, batch=batch, steps=3 * max(sum(counts) // batch, 1), seed=seed, by=by)
    assert len(course.epochs) == 3
    for epoch in course.epochs:
        stop = data.draw(st.integers(0, epoch.steps), label="steps until the resume")
        first, then = data.draw(st.sampled_from(WORLDS)), data.draw(st.sampled_from(WORLDS))
        before = [b for window in course.windows(epoch, seed, ordered) for b in window][:stop]
        after = [b for window in course.windows(epoch, seed, ordered, stop) for b in window]
        assert len(before) + len(after) == epoch.steps and all(len(rows) for rows in before + after)
        seen = [[share(rows, rank, first) for rows in before] for rank in range(first)]
        seen += [[share(rows, rank, then) for rows in after] for rank in range(then)]
        assert {len(steps) for steps in seen[:first]} == {stop}
        assert {len(steps) for steps in seen[first:]} == {epoch.steps - stop}
        texts = np.concatenate([rows for steps in seen for rows in steps])
        assert sorted(texts.tolist()) == list(range(sum(counts)))


def test_ranks_of_a_power_of_two_read_blocks_of_their_own():
    """Whole blocks, and none of them on two ranks, but for those that a lane ends in."""
    count, world = 12 * MIXINGS[2].blocks, 8
    course = epochs([count], batch=16 * world, steps=100)
    window = next(course.windows(course.epochs[0], seed=0))
    of_rank = [set(np.concatenate([share(b, rank, world) for b in window]) // 12) for rank in range(world)]
    blocks = sum(map(len, of_rank))
    assert blocks <= sum(map(len, window)) / 12 + 2 * world  # as few as can be, and those cut at the ends
    assert blocks - len(set.union(*of_rank)) <= 2 * world


def test_a_small_data_set_is_shuffled_text_by_text():
    """As a full shuffle: what was beside a text in its shard is no likelier in its batch than any other."""
    course = epochs([5000], batch=10, steps=5000)
    batches = [rows for epoch in course.epochs[:8] for rows in course.plan(epoch, seed=4)]
    beside = sum((np.diff(np.sort(rows)) == 1).sum() for rows in batches)
    expected = sum(len(rows) * (len(rows) - 1) for rows in batches) / 5000
    assert abs(beside - expected) < 4 * expected**0.5


def test_large_data_sets_mix_blocks_far_apart():
    """Windows hold blocks from everywhere: a batch's texts are spread over the data set like random ones."""
    count = 400_000
    course = epochs([count], batch=32)
    window = next(course.windows(course.epochs[0], seed=0))
    places = np.sort(np.concatenate(window)) / count
    assert np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max() < 0.08  # Kolmogorov and Smirnov's
    spread = np.array([np.std(rows / count, ddof=1) for rows in window if len(rows) >= 16])
    assert abs(spread.mean() - 12**-0.5) < 0.02


def test_a_register_sorted_by_place_is_mixed():
    """A million texts of a thousand places one after the other: a window is of many of them, more than it was once."""
    places = np.arange(1_000_000) // 1000
    seen = {}
    for number, mixing in MIXINGS.items():
        course = epochs([1_000_000], batch=32, mixing=mixing)
        window = next(course.windows(course.epochs[0], seed=3))
        seen[number] = len(np.unique(places[np.concatenate(window)]))
    assert seen[2] > 350 > 100 > seen[1]


def test_the_order_of_runs_begun_before_is_kept():
    """Digests of what the code gave when windows had 64 blocks."""
    found = {}
    for counts, weights, batch, by in (([300_000, 40_000], [1.0, 0.3], 64, "lines"), ([900], [1.0], 16, "pixels")):
        widths = np.random.default_rng(0).integers(16, 2000, sum(counts))
        course = EpochSampler(counts, widths, [Weight(w, w) for w in weights], batch, 3000, by, MIXINGS[1])
        digest = hashlib.sha256()
        for rows in islice((b for e in course.epochs[:2] for w in course.windows(e, 7, 20) for b in w), 700):
            digest.update(rows.astype("<i8").tobytes())
        found[by] = digest.hexdigest()[:16]
    assert found == OLDER_ORDER


def test_an_epoch_of_many_texts_is_planned_in_little_memory():
    """What is held are its blocks, whatever the number of texts."""
    count = 4_000_000
    course = EpochSampler([count], np.full(count, 500, np.uint16), [Weight()], 64, 10)
    tracemalloc.start()
    next(course.windows(course.epochs[0], seed=0))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * count  # a number of eight bytes for each text


def test_an_epoch_hangs_on_seed_and_number_alone():
    course = epochs([500], steps=1000)

    def flat(seed: int, number: int) -> str:
        return str([rows.tolist() for rows in course.plan(course.epochs[number], seed)])

    assert flat(1, 2) == flat(1, 2)
    assert len({flat(*key) for key in ((1, 2), (1, 3), (2, 2), (2, 3))}) == 4


def padded(wide: np.ndarray, plan: list[np.ndarray], world: int) -> float:
    """Of the pixels that all ranks compute, each its own part as wide as its widest text, the share that is none."""
    parts = [share(rows, rank, world) for rows in plan for rank in range(world)]
    return 1 - sum(wide[part].sum() for part in parts) / sum(
        len(part) * wide[part].max() for part in parts if len(part)
    )


def test_batches_are_of_like_width_and_in_random_order():
    course = epochs([4000], batch=16, steps=500)
    plan, again = (course.plan(epoch, seed=0) for epoch in course.epochs[:2])
    wide = course.widths
    assert {len(rows) for rows in plan} == {16}
    assert padded(wide, plan, 1) < 0.04  # at random it is 0.47
    means = [wide[rows].mean() for rows in plan]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2
    assert len({frozenset(rows.tolist()) for rows in plan} & {frozenset(rows.tolist()) for rows in again}) == 0


@pytest.mark.parametrize("by", ["lines", "pixels"])
@pytest.mark.parametrize(("batch", "worlds"), [(16, (1, 2)), (64, (1, 2, 4, 8)), (256, (1, 16, 32))])
def test_ranks_have_parts_of_like_size_and_width(batch, worlds, by):
    course = epochs([40_000], batch=batch, by=by)
    plan, wide = course.plan(course.epochs[0], seed=2), course.widths
    for world in worlds:
        parts = [[share(rows, rank, world) for rank in range(world)] for rows in plan]
        sizes = [{len(part) for part in step} for step in parts]
        assert sum(len(of_step) > 1 for of_step in sizes) < 0.05 * len(plan)  # where one has what is left
        widest = np.array([[wide[part].max() for part in step] for step in parts])
        assert (widest.max(axis=1) - widest.min(axis=1)).mean() < 0.09 * wide.mean()
        assert padded(wide, plan, world) < 0.08


@pytest.mark.parametrize("batch", [16, 64, 256])
def test_by_pixels_a_batch_is_as_many_pixels_as_others(batch):
    course = epochs([40_000], batch=batch, by="pixels")
    plan, wide = course.plan(course.epochs[0], seed=2), course.widths
    pixels = np.array([wide[rows].sum() for rows in plan]) / (batch * wide.mean())
    usual = np.array([wide[rows].mean() for rows in plan]) > 0.3 * wide.mean()  # narrower ones are counted as wider
    assert np.abs(pixels[usual] - 1).mean() < 0.08 and pixels[~usual].max() < 1.2
    assert 3 * batch < max(map(len, plan)) <= 4.2 * batch
    fixed = epochs([40_000], batch=batch)
    pixels = np.array([wide[rows].sum() for rows in fixed.plan(fixed.epochs[0], seed=2)])
    assert pixels.std() > 0.5 * pixels.mean()


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
