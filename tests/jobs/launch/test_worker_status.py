"""Signs of life: written while a worker is at work, gone when it ends, told from the dead by the storage's clock."""

import os
import time
from types import SimpleNamespace

import pytest
from beating import beats_when_watched

from jobs.launch import worker_status
from jobs.launch.worker_status import (
    LOST_AFTER_S,
    WRITE_INTERVAL_S,
    StatusWriter,
    clear_worker_status,
    read_worker_status,
)


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Of the workers: it goes on when a test says so."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(worker_status, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_a_worker_shows_what_it_does_and_leaves_nothing(tmp_path, clock):
    assert read_worker_status(tmp_path) == []
    with StatusWriter(tmp_path, task=3, shard="train-00001", rows=50) as writer:
        (sign,) = read_worker_status(tmp_path)
        assert (sign.pid, sign.task, sign.shard, sign.rows) == (os.getpid(), 3, "train-00001", 50)
        assert (sign.samples, sign.rejected) == (0, 0) and sign.silent < LOST_AFTER_S
        writer.show(5, 1)  # too soon: a row takes a millisecond, a file on shared storage more
        assert read_worker_status(tmp_path)[0].samples == 0
        clock.seconds += WRITE_INTERVAL_S + 1
        writer.show(6, 1)
        assert (read_worker_status(tmp_path)[0].samples, read_worker_status(tmp_path)[0].rejected) == (6, 1)
    assert read_worker_status(tmp_path) == []


@pytest.mark.parametrize("off", [-LOST_AFTER_S - 5, 7200])
def test_the_dead_are_told_from_the_living(tmp_path, monkeypatch, off):
    """Also where a node's clock is ahead: its files would look young for hours."""
    monkeypatch.setattr(worker_status, "WATCH_S", 0.2)
    writer = StatusWriter(tmp_path, task=0, shard="train-00001", rows=50).__enter__()
    os.utime(writer.path, (time.time() + off,) * 2)
    (sign,) = read_worker_status(tmp_path)
    assert sign.silent >= LOST_AFTER_S
    beats_when_watched(monkeypatch, writer.path, off)
    (sign,) = read_worker_status(tmp_path)
    assert sign.silent == 0
    clear_worker_status(tmp_path)
    assert not (tmp_path / ".workers").exists()


def test_a_folder_that_takes_no_status_stops_no_work(tmp_path):
    (tmp_path / ".workers").touch()  # a file in its place, as a full disk or a missing right would refuse it
    with StatusWriter(tmp_path, task=0, shard="train-00001", rows=1) as writer:
        writer.write(1, 0)


def test_a_damaged_status_is_skipped(tmp_path):
    with StatusWriter(tmp_path, task=0, shard="train-00001", rows=50) as writer:
        writer.path.with_name("other-1.json").write_text("{")
        assert len(read_worker_status(tmp_path)) == 1


def test_the_speed_is_that_of_all_shards_of_a_process(tmp_path, monkeypatch, clock):
    """A worker that has just begun a shard is as fast as it was, not at a standstill."""
    monkeypatch.setattr(StatusWriter, "before", (0, 0.0))
    with StatusWriter(tmp_path, task=0, shard="train-00000", rows=100) as writer:
        clock.seconds += 10
        writer.show(90, 10)
    with StatusWriter(tmp_path, task=0, shard="train-00001", rows=100):
        (sign,) = read_worker_status(tmp_path)
        assert sign.samples == 0 and sign.speed == 10
