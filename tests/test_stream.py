"""The stream: every sample once an epoch, in the same global batches whatever the world, and nothing leaks."""

import dataclasses
import os
import shutil
import threading

import cv2
import numpy as np
import pytest
import torch

from htr.images.augment import LEVELS, augment, random_for
from htr.images.line import to_ink
from shards.index import read_index
from shards.plan import Settings
from shards.stream import Samples, batches, in_order, plan_epoch, share

WORLDS = (1, 2, 3, 4, 7)


@pytest.fixture
def samples(dataset):
    opened = Samples(dataset.folder, dataset.samples("train"))
    yield opened
    opened.close()


def widths(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(16, 2000, count)


# --- the plan of an epoch


@pytest.mark.parametrize("count", [1, 3, 7, 32, 33, 500, 1001])
@pytest.mark.parametrize("world", WORLDS)
def test_every_sample_once_and_equal_steps_on_all_ranks(count, world):
    plan = plan_epoch(widths(count), 8, seed=1, epoch=0)
    ranks = [[share(rows, rank, world) for rows in plan] for rank in range(world)]
    assert len({len(steps) for steps in ranks}) == 1
    assert sorted(np.concatenate([rows for steps in ranks for rows in steps])) == list(range(count))
    for parts in zip(*ranks, strict=True):
        sizes = [len(rows) for rows in parts]
        assert max(sizes) - min(sizes) <= 1


def test_an_epoch_hangs_on_seed_and_number_alone():
    def flat(seed: int, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in plan_epoch(widths(500), 8, seed=seed, epoch=epoch)]

    assert flat(1, 2) == flat(1, 2)
    assert len({str(flat(*key)) for key in ((1, 2), (1, 3), (2, 2), (2, 3))}) == 4


def test_batches_are_of_like_width_and_in_random_order():
    wide = widths(4000)
    plan = plan_epoch(wide, 16, seed=0, epoch=0)
    assert {len(rows) for rows in plan} == {16}
    filled = sum(wide[rows].sum() for rows in plan) / sum(16 * wide[rows].max() for rows in plan)
    assert filled > 0.9  # at random it is 0.53
    means = [wide[rows].mean() for rows in plan]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2
    again = plan_epoch(wide, 16, seed=0, epoch=1)
    assert len({frozenset(rows.tolist()) for rows in plan} & {frozenset(rows.tolist()) for rows in again}) == 0


@pytest.mark.parametrize("count", [1, 16, 17, 100])
def test_evaluation_reads_each_line_once_from_narrow_to_wide(count):
    wide = widths(count)
    plan = in_order(wide, 16)
    assert all(1 <= len(rows) <= 16 for rows in plan)
    order = np.concatenate(plan)
    assert sorted(order) == list(range(count)) and (np.diff(wide[order]) >= 0).all()


# --- what comes out


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_global_batches_whatever_the_world(samples, world):
    plan = plan_epoch(samples.columns["width"], 5, seed=3, epoch=1)
    ranks = [list(batches(samples, plan, rank, world, height=64, key=(3, 1))) for rank in range(world)]
    alone = list(batches(samples, plan, 0, 1, height=64, key=(3, 1)))
    assert {len(steps) for steps in ranks} == {len(plan)} == {len(alone)}
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        lines = {key: line(part, i) for part in parts for i, key in enumerate(part.keys)}
        assert len(lines) == sum(len(part.keys) for part in parts)
        assert lines == {key: line(whole, i) for i, key in enumerate(whole.keys)}
        # what a loss is divided by is the whole batch's, also on a rank without a line
        assert {(part.lines, part.characters) for part in parts} == {(len(whole.keys), sum(map(len, whole.texts)))}


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
    assert sorted(found) == sorted(samples.columns["key"])
    for key, (text, image) in found.items():
        certificate, field, _ = key.rsplit("_", 2)
        name = f"c{int(certificate.removeprefix('c~2e')):02d}-{field}.png"
        gray = cv2.imread(str(source.parent / name), cv2.IMREAD_GRAYSCALE)
        assert (image == to_ink(gray, 48)).all() and text.endswith(certificate.removeprefix("c~2e"))


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_augmentation_is_each_samples_own(samples, strength):
    """By (seed, epoch, key): not by its place in a batch, the thread or the world."""
    plan = in_order(samples.columns["width"], 6)
    for batch in batches(samples, plan, 0, 1, height=64, threads=3, key=(5, 2), strength=strength):
        for i, key in enumerate(batch.keys):
            expected = augment(to_ink(samples.read(batch.rows[i])[0], 64), random_for(5, 2, key), LEVELS[strength])
            assert batch.images[i, 0, :, : int(batch.widths[i])].numpy().tobytes() == expected.tobytes()


def test_a_rank_without_a_line_has_an_empty_batch(samples):
    batch = next(batches(samples, [np.array([2, 4])], rank=3, size=4, height=64))
    assert batch.images.shape[:3] == (0, 1, 64) and batch.texts == [] and batch.lines == 2 and batch.characters > 0


def test_threads_and_reading_ahead_change_nothing(samples):
    plan = plan_epoch(samples.columns["width"], 4, seed=0, epoch=0)
    one = [batch.images for batch in batches(samples, plan, 0, 1, height=64, ahead=1)]
    many = [batch.images for batch in batches(samples, plan, 0, 1, height=64, threads=4, ahead=50)]
    assert len(one) == len(many) == len(plan)
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


def test_an_epoch_can_begin_in_its_middle(samples):
    plan = plan_epoch(samples.columns["width"], 4, seed=0, epoch=0)
    whole = [batch.keys for batch in batches(samples, plan, 0, 1, height=64)]
    assert [batch.keys for batch in batches(samples, plan[2:], 0, 1, height=64)] == whole[2:]


def test_leaving_early_ends_the_threads(samples):
    stream = batches(samples, plan_epoch(samples.columns["width"], 2, seed=0, epoch=0), 0, 1, height=64, threads=2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


# --- long names, cut shards


@pytest.mark.parametrize("encoding", ["jpg", "png"])
@pytest.mark.parametrize("length", [88, 89, 90, 91, 92, 93, 150, 190])
def test_long_keys_are_read_back(tmp_path, source, build, write_table, encoding, length):
    """A member's name beyond 100 characters takes two blocks more in a tar: both sides of the step."""
    rows = [
        {"image": "c00-Ia.png", "text": f"décès {field}", "certificate": "c" * length, "field": field}
        for field in ("Ia", "Ib", "II-x")
    ]
    table = write_table(source.parent / "long.csv", rows)
    index = build(tmp_path, table, Settings(shares={"train": 1.0}, encoding=encoding))
    samples = Samples(tmp_path, index.samples("train"))
    shape = cv2.imread(str(source.parent / "c00-Ia.png"), cv2.IMREAD_GRAYSCALE).shape
    for i, row in enumerate(rows):
        gray, text = samples.read(i)
        assert (gray.shape, text) == (shape, row["text"])
    assert len(samples) == 3
    samples.close()


def test_a_shard_that_was_cut_short_is_named_without_its_text(tmp_path, dataset):
    index = read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))
    table = index.samples("train")
    last = table["shard"].to_pylist()[-1]
    text = Samples(index.folder, table).read(len(table) - 1)[1]
    os.truncate(index.folder / f"{last}.tar", int(table["offset"].to_pylist()[-1]) + 40)
    samples = Samples(index.folder, table)
    assert samples.read(0)[1]  # the other shards are still read
    with pytest.raises(ValueError, match=rf"{last}\.tar: cut short or changed.*jobs verify") as error:
        list(batches(samples, in_order(samples.columns["width"], 5), 0, 1, height=64, threads=2))
    assert text not in str(error.value)
    samples.close()


def test_a_shard_that_was_replaced_is_named(tmp_path, dataset):
    index = read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))
    (index.folder / "train-00000.tar").write_bytes(b"CANARY " * 50_000)
    samples = Samples(index.folder, index.samples("train"))
    with pytest.raises(ValueError, match=r"train-00000\.tar: cut short or changed") as error:
        samples.read(0)
    assert "CANARY" not in str(error.value)
    samples.close()


def test_closing_gives_back_every_handle(samples):
    before = len(os.listdir("/proc/self/fd"))
    for row in range(len(samples)):
        samples.read(row)
    assert len(os.listdir("/proc/self/fd")) > before
    samples.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert samples.read(0)[1]  # and it can be used again


def test_a_batch_has_all_that_a_loss_needs(samples):
    batch = next(batches(samples, in_order(samples.columns["width"], 4), 0, 1, height=64))
    sizes = {field.name: len(getattr(batch, field.name)) for field in dataclasses.fields(batch)[:5]}
    assert sizes == dict.fromkeys(("images", "widths", "texts", "keys", "rows"), 4)
