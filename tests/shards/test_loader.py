"""The stream: every sample once an epoch, in the same global batches whatever the world, and nothing leaks."""

import threading
from collections.abc import Iterator
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htr.lines.augment import LEVELS, augment, random_for
from htr.lines.normalise import normalise_line
from shards.batcher import Batcher
from shards.index import Index
from shards.loader import AugmentConfig, Team, batches, by_pixels, few_widths, in_order, stream
from shards.open_shards import OpenShards
from shards.plan import Settings
from shards.reading import Samples
from shards.sampler import EpochSampler, Weight
from shards.window import Planner

WORLDS = (1, 2, 3, 4, 7)


def widths(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(16, 2000, count)


def shuffled(samples: Samples, batch: int, seed: int = 0) -> list[np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(samples))
    return np.array_split(order, max(len(samples) // batch, 1))


# --- the order of an evaluation


@pytest.mark.parametrize("count", [1, 16, 17, 100])
def test_evaluation_reads_each_line_once_from_narrow_to_wide(count):
    wide = widths(count)
    plan = in_order(wide, 16)
    assert all(1 <= len(rows) <= 16 for rows in plan)
    order = np.concatenate(plan)
    assert sorted(order) == list(range(count)) and (np.diff(wide[order]) >= 0).all()


@pytest.mark.parametrize(("count", "scale"), [(0, 1), (1, 1), (16, 1), (100, 1), (100, 40)])
def test_reading_by_pixels_takes_each_row_once_and_bounds_what_a_batch_holds(count, scale):
    wide, lines = np.minimum(scale * widths(count), 8192), np.random.default_rng(1).integers(1, 4, count)
    plan = by_pixels(wide, 16, lines)
    order = np.concatenate([*plan, np.zeros(0, int)]).astype(int)
    assert sorted(order) == list(range(count)) and (np.diff(wide[order]) >= 0).all()
    most = 16 * min((wide * lines).sum() / max(lines.sum(), 1), 2048)
    held = [lines[rows].sum() * wide[rows].max() for rows in plan]
    assert all(pixels <= most or len(rows) == 1 for pixels, rows in zip(held, plan, strict=True))
    # as few as that: each has no room for the next one's first
    for rows, following in pairwise(plan):
        more = np.append(rows, following[0])
        assert lines[more].sum() * wide[more].max() > most


def test_reading_by_pixels_has_batches_of_so_many_lines_where_all_are_alike():
    assert [len(rows) for rows in by_pixels(np.full(40, 300), 16)] == [16, 16, 8]


# --- what comes out


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_global_batches_whatever_the_world(samples, world):
    plan = shuffled(samples, 5, seed=3)
    ranks = [list(batches(samples, plan, rank, world, height=64, key=(3, 1))) for rank in range(world)]
    alone = list(batches(samples, plan, 0, 1, height=64, key=(3, 1)))
    assert {len(steps) for steps in ranks} == {len(plan)} == {len(alone)}
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        lines = {key: line(part, i) for part in parts for i, key in enumerate(part.keys)}
        assert len(lines) == sum(len(part.keys) for part in parts)
        assert lines == {key: line(whole, i) for i, key in enumerate(whole.keys)}
        # what a loss is divided by is the whole batch's, also on a rank without a line
        assert {(part.total, part.characters) for part in parts} == {(len(whole.keys), sum(map(len, whole.texts)))}


def line(batch, i: int) -> tuple[str, int, bytes]:
    """A line of a batch, cut to its own width."""
    width = int(batch.widths[i])
    return batch.texts[i], batch.rows[i], batch.images[i, 0, :, :width].numpy().tobytes()


def test_lines_are_those_of_the_source_padded_with_zero(samples, source):
    found = {}
    for batch in batches(samples, in_order(samples.columns["width"], 6), 0, 1, height=48):
        assert batch.images.dtype == torch.uint8 and batch.images.shape[1:3] == (1, 48)
        assert batch.images.shape[3] >= int(batch.widths.max())
        for i, width in enumerate(batch.widths.tolist()):
            assert not batch.images[i, 0, :, width:].any()
            found[batch.keys[i]] = batch.texts[i], batch.images[i, 0, :, :width].numpy()
    assert sorted(found) == sorted(samples.key(text) for text in range(len(samples)))
    for key, (text, image) in found.items():
        certificate, field, _ = key.rsplit("_", 2)
        name = f"c{int(certificate.removeprefix('c~2e')):02d}-{field}.png"
        gray = cv2.imread(str(source.parent / name), cv2.IMREAD_GRAYSCALE)
        assert (image == normalise_line(gray, 48)).all() and text.endswith(certificate.removeprefix("c~2e"))


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_augmentation_is_each_samples_own(samples, strength):
    """By (seed, step, key): not by its place in a batch, the thread or the world."""
    plan = in_order(samples.columns["width"], 6)
    stream = batches(samples, plan, 0, 1, height=64, team=3, key=(5, 2), strength=strength)
    for step, batch in enumerate(stream, start=2):
        widest = few_widths(int(samples.widths(64)[batch.rows].max()))
        for i, key in enumerate(batch.keys):
            ((image,), _) = samples.read(batch.rows[i])
            expected = augment(normalise_line(image, 64), random_for(5, step, key, 0), LEVELS[strength])
            if expected.shape[1] > widest:
                expected = cv2.resize(expected, (widest, 64))
            assert batch.images[i, 0, :, : int(batch.widths[i])].numpy().tobytes() == expected.tobytes()


def test_augmentation_makes_no_batch_wider_than_planned(samples):
    plan = in_order(samples.columns["width"], 6)
    for batch in batches(samples, plan, 0, 1, height=64, key=(1, 0), strength="strong"):
        assert batch.images.shape[3] <= few_widths(int(samples.widths(64)[batch.rows].max()))


def test_a_rank_without_a_line_has_an_empty_batch(samples):
    batch = next(batches(samples, [np.array([2, 4])], rank=2, size=4, height=64))
    assert batch.images.shape[:3] == (0, 1, 64) and batch.texts == [] and batch.total == 2 and batch.characters > 0


def test_workers_and_reading_ahead_change_nothing(samples, monkeypatch):
    monkeypatch.setattr("shards.window.MIN_READ_BYTES", 4000)  # so that every worker has something to do
    plan = shuffled(samples, 4, seed=0)
    one = list(batches(samples, plan, 0, 1, height=64, ahead=1, key=(3, 7)))
    for workers in (1, 3):
        many = list(batches(samples, plan, 0, 1, height=64, team=workers, ahead=50, key=(3, 7)))
        assert len(one) == len(many) == len(plan)
        for a, b in zip(one, many, strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.widths, b.widths)
            assert (a.texts, a.keys, a.rows, a.characters) == (b.texts, b.keys, b.rows, b.characters)


def test_an_epoch_can_begin_in_its_middle(samples):
    plan = shuffled(samples, 4, seed=0)
    whole = [batch.keys for batch in batches(samples, plan, 0, 1, height=64)]
    assert [batch.keys for batch in batches(samples, plan[2:], 0, 1, height=64)] == whole[2:]


def test_leaving_early_ends_the_threads(samples):
    stream = batches(samples, shuffled(samples, 2, seed=0), 0, 1, height=64)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


# --- windows: every text once, through the real reading of shards


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, source, build, write_table) -> Index:
    """41 lines of one certificate each in shards of 9, 8, 9, … and the rest, one with a single line."""
    rows = [
        {
            "image": f"c{i % 20:02d}-{('Ia', 'Ib', 'II')[i % 3]}.png",
            "text": f"n{i}",
            "certificate": f"u{i}",
            "field": "Ia",
        }
        for i in range(41)
    ]
    folder = tmp_path_factory.mktemp("uneven") / "lines"
    return build(folder, write_table(source.parent / "uneven.csv", rows), Settings(rows=8, shares={"train": 1.0}))


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(2) as two:
        yield two


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 12), seed=st.integers(0, 9), worlds=st.tuples(*[st.sampled_from(WORLDS)] * 2), data=st.data()
)
def test_three_epochs_bring_every_text_once_also_after_a_resume(uneven, team, batch, seed, worlds, data):
    """Killed after any step, gone on with by another world: what was read is each key once an epoch, with its text."""
    samples = Samples(uneven.folder, uneven.samples("train"))
    assert len({shard["count"] for shard in uneven.shards}) > 1
    course = EpochSampler(samples.counts, samples.widths(48), [Weight()], batch, 3 * max(len(samples) // batch, 1))
    steps = sum(epoch.steps for epoch in course.epochs)
    killed = data.draw(st.integers(0, steps), label="steps until it is killed")
    found = [
        read_by(samples, course, seed, 0, killed, worlds[0], team),
        read_by(samples, course, seed, killed, steps, worlds[1], team),
    ]
    keys = [key for part in found for key in part]
    of_epoch = sorted((samples.key(i), samples.read(i)[1]) for i in range(len(samples)))
    assert sorted(keys) == sorted(3 * of_epoch)
    samples.close()


def read_by(
    samples: Samples, course: EpochSampler, seed: int, start: int, end: int, world: int, team: Team
) -> list[tuple[str, str]]:
    """Key and text of all that the ranks of a world are given from one step to another, which they all take."""
    found = []
    for rank in range(world):
        windows = (
            window
            for epoch in course.since(start)
            for window in course.windows(epoch, seed, 3, max(start - epoch.first_step, 0))
        )
        made = list(islice(stream(samples, windows, rank, world, AugmentConfig(48), team), end - start))
        assert len(made) == end - start
        found += [pair for batch in made for pair in zip(batch.keys, batch.texts, strict=True)]
    return found


def planned(samples: Samples, windows: list[list[np.ndarray]], workers: int = 1) -> list:
    return list(Planner(samples, samples.widths(48), 0, 1, workers, True).windows(windows))


def test_a_window_is_read_in_few_large_reads(samples, monkeypatch):
    steps = [np.arange(len(samples))]
    [window] = planned(samples, [steps])
    [share] = window.shares
    assert len(share.reads) == len(share.paths)  # one a shard
    assert sorted(share.texts["number"].tolist()) == list(range(len(samples)))
    whole = next(stream(samples, [steps], 0, 1, AugmentConfig(48)))
    monkeypatch.setattr("shards.window.MAX_READ_BYTES", 4000)
    [pieces] = planned(samples, [steps])
    assert len(pieces.shares[0].reads) > len(share.reads) and pieces.shares[0].reads["size"].max() < 8000
    assert torch.equal(next(stream(samples, [steps], 0, 1, AugmentConfig(48))).images, whole.images)
    monkeypatch.setattr("shards.window.MAX_GAP_BYTES", -1)  # every gap is too large
    [single] = planned(samples, [steps])
    assert len(single.shares[0].reads) == len(samples)


def test_workers_read_nothing_twice_and_have_as_much_to_do(samples, monkeypatch):
    monkeypatch.setattr("shards.window.MIN_READ_BYTES", 4000)
    [window] = planned(samples, [shuffled(samples, 5)], workers=3)
    numbers = [share.texts["number"].tolist() for share in window.shares]
    assert sorted(number for some in numbers for number in some) == list(range(len(samples)))
    pixels = [share.lines["width"].sum() for share in window.shares]
    assert min(pixels) > 0.5 * max(pixels)
    for step in window.steps:
        places = sorted(place for part in step.parts if part for place in part.places)
        assert places == list(range(step.lines))


def test_a_window_too_large_to_be_held_is_read_step_by_step(samples, monkeypatch):
    plan = shuffled(samples, 5, seed=0)
    whole = [batch.images for batch in batches(samples, plan, 0, 1, height=48)]
    [window] = planned(samples, [plan])
    assert len(window.steps) == len(plan)
    at = samples.locate(np.arange(len(samples)))
    monkeypatch.setattr("shards.window.MAX_WINDOW_BYTES", int((at.end - at.start).sum()) - 1)
    assert [len(window.steps) for window in planned(samples, [plan])] == [1] * len(plan)
    small = [batch.images for batch in batches(samples, plan, 0, 1, height=48)]
    assert all(torch.equal(a, b) for a, b in zip(whole, small, strict=True))


def test_what_was_used_is_let_go_and_the_next_window_is_read_meanwhile(samples, monkeypatch):
    """A text may be in several batches: it stays until the last of them was made."""
    windows = [[np.arange(6), np.arange(6, 12), np.array([0, 7])], [np.arange(12, 20), np.arange(20, 24)]]
    batchers, sizes = [], []

    def make(self, part, batch, make=Batcher.make):
        batchers.append(self)
        self.begin(part.window, 1.0)
        for read in self.windows[part.window].of_text.values():  # which threads do meanwhile
            read.result()
        done = make(self, part, batch)
        sizes.append({number: len(held.stored) for number, held in self.windows.items()})
        return done

    monkeypatch.setattr(Batcher, "make", make)
    assert [len(batch.rows) for batch in stream(samples, windows, 0, 1, AugmentConfig(48))] == [6, 6, 2, 8, 4]
    # the first window's 12 texts are read at once, 0 and 7 stay until they were used twice
    assert [size[0] for size in sizes[:3]] == [7, 2, 0] and sizes[3][1] == 4 and sizes[4][1] == 0
    assert len({id(batcher) for batcher in batchers}) == 1


# --- for a loss


def test_a_batch_has_all_that_a_loss_needs(samples):
    batch = next(batches(samples, in_order(samples.columns["width"], 4), 0, 1, height=64))
    sizes = {name: len(getattr(batch, name)) for name in ("images", "widths", "texts", "keys", "rows")}
    assert set(sizes.values()) == {4} and batch.parts is None


def test_what_was_read_ahead_is_not_read_again(samples, monkeypatch):
    read, real = [], OpenShards.read

    def counted(self, *where) -> bytes:
        read.append(where)
        return real(self, *where)

    monkeypatch.setattr(OpenShards, "read", counted)
    windows = [[rows] for rows in np.array_split(np.arange(len(samples)), 4)]
    assert sum(len(batch.texts) for batch in stream(samples, windows, 0, 1, AugmentConfig(48))) == len(samples)
    assert len(read) == len({*read}) > 0
