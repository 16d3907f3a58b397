"""Lines that are kept ready-made on the node's disk: the same to the bit, of this data set, height and boot alone."""

import errno
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from shards import ready
from shards.batcher import Batcher
from shards.loader import AugmentConfig, stream
from shards.ready import ReadyLines, prepare

Usage = namedtuple("Usage", "total used free")
ROWS = 60


def lines(seed: int, *widths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (48, width), np.uint8) for width in widths]


@pytest.fixture
def folder(tmp_path) -> Path:
    return prepare("digest", ROWS, 48, tmp_path)


def same(found: tuple, inks: list[np.ndarray], text: str, key: str) -> bool:
    return found[1:] == (text, key) and [i.tobytes() for i in found[0]] == [i.tobytes() for i in inks]


def test_what_is_kept_comes_back_also_to_another_process(folder):
    one = ReadyLines(folder, 48)
    assert one.find(3) is None
    one.add(3, lines(3, 100, 17), "décès", "c_1")
    one.add(7, lines(7, 2000), "", "k" * 190)
    other = ReadyLines(folder, 48)  # as another process has it: they write to files of their own
    other.add(5, lines(5, 16), "x", "c_5")
    for each in (one, other):
        assert same(each.read(each.find(3)), lines(3, 100, 17), "décès", "c_1")
        assert same(each.read(each.find(7)), lines(7, 2000), "", "k" * 190)
        assert same(each.read(each.find(5)), lines(5, 16), "x", "c_5") and each.find(0) is None
    assert sorted(path.name for path in folder.glob("data-*")) == ["data-000.raw", "data-001.raw"]
    one.close()
    third = ReadyLines(folder, 48)  # goes on with the file that is free
    third.add(9, lines(9, 30), "y", "c_9")
    assert third.own == 0 and same(third.read(third.find(3)), lines(3, 100, 17), "décès", "c_1")
    for each in (other, third):
        each.close()


def test_a_writer_that_dies_leaves_nothing_half_written(folder, monkeypatch):
    dying = ReadyLines(folder, 48)

    def half(handle: int, content: bytes, offset: int) -> None:
        os.pwrite(handle, content[: len(content) // 2], offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(ready, "write", half)
    with pytest.raises(KeyboardInterrupt):
        dying.add(3, lines(3, 100), "a", "b")
    monkeypatch.undo()
    assert dying.find(3) is None and ReadyLines(folder, 48).find(3) is None
    dying.close()
    after = ReadyLines(folder, 48)
    after.add(3, lines(3, 100), "a", "b")
    assert same(after.read(after.find(3)), lines(3, 100), "a", "b")


def test_another_index_height_code_or_boot_is_another_folder(folder, tmp_path, monkeypatch):
    assert prepare("digest", ROWS, 48, tmp_path) == folder
    assert len({folder, prepare("other", ROWS, 48, tmp_path), prepare("digest", ROWS, 64, tmp_path)}) == 3
    monkeypatch.setattr(ready, "code", lambda: "changed")
    assert prepare("digest", ROWS, 48, tmp_path) != folder and folder.exists()
    monkeypatch.setattr(ready, "boot_id", lambda: "later")
    prepare("digest", ROWS, 48, tmp_path)
    assert not folder.exists()  # what was written before a crash may be missing


def test_a_disk_that_gets_full_is_left_alone(folder, monkeypatch):
    kept = ReadyLines(folder, 48)
    monkeypatch.setattr(ready.shutil, "disk_usage", lambda _: Usage(1 << 40, 0, ready.SPARE_BYTES))
    assert kept.add(4, lines(3, 100), "a", "b") is None and kept.find(4) is None
    kept = ReadyLines(prepare("full", ROWS, 48, folder.parent.parent), 48)
    monkeypatch.undo()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ready, "write", full)
    assert kept.add(3, lines(3, 100), "a", "b") is None and kept.full


def test_a_damaged_record_is_said(folder):
    kept = ReadyLines(folder, 48)
    kept.add(3, lines(3, 100), "a", "b")
    (folder / "data-000.raw").write_bytes(b"CANARY" * 2000)
    with pytest.raises(ValueError, match=r"data-000\.raw: damaged: remove the folder") as error:
        kept.read(kept.find(3))
    assert "CANARY" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("key", [None, (5, 1)])
def test_a_second_epoch_brings_the_same_lines_without_a_shard(samples, tmp_path, monkeypatch, workers, key):
    windows = [np.array_split(np.random.default_rng(1).permutation(len(samples)), 6)] * 2
    look, kept = AugmentConfig(48, key), [prepare("digest", ROWS, 48, tmp_path)]
    plain = list(stream(samples, windows, 0, 1, look))
    first = list(stream(samples, windows, 0, 1, look, workers, kept=kept))
    for shard in samples.sources[0].shards:  # from here on there is none
        monkeypatch.setattr(Batcher, "read", lambda *_: pytest.fail("a shard was read"))
        samples.sources[0].shards = [f"{shard}-gone" for shard in samples.sources[0].shards]
    second = list(stream(samples, windows, 0, 1, look, workers, kept=kept))
    for a, b, c in zip(plain, first, second, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.images, c.images)
        assert (a.texts, a.keys) == (b.texts, b.keys) == (c.texts, c.keys)
