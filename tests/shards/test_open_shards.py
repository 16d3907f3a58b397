"""Shards that are open: few at once, read in full, tried again where the storage may recover, and named where not."""

import errno
import os
import threading
from pathlib import Path

import pytest

from shards import open_shards
from shards.open_shards import OpenShards, shards_under_way


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    found = [tmp_path / f"train-{number:05d}.tar" for number in range(12)]
    for number, path in enumerate(found):
        path.write_bytes(bytes([number]) * 100)
    return found


def opened_here(folder: Path) -> int:
    return sum(os.path.realpath(handle).startswith(str(folder)) for handle in Path("/proc/self/fd").iterdir())


def test_no_more_than_so_many_are_open_at_once(paths, tmp_path):
    shards = OpenShards(3)
    for _ in range(2):
        for number, path in enumerate(paths):
            assert shards.read(path, 90, 10) == bytes([number]) * 10
            assert opened_here(tmp_path) <= 3
    shards.close()
    assert opened_here(tmp_path) == 0


def test_one_in_use_is_not_closed(paths):
    shards = OpenShards(1)
    with shards.opened(paths[0]) as handle:
        assert shards.read(paths[1], 0, 5) == bytes([1]) * 5
        assert os.pread(handle, 5, 0) == bytes(5)
    shards.close()


def test_threads_may_share_them(paths):
    shards, wrong = OpenShards(2), []

    def read(seed: int) -> None:
        for turn in range(200):
            number = (7 * turn + seed) % len(paths)
            if shards.read(paths[number], 0, 100) != bytes([number]) * 100:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(shards.handles) <= 2
    shards.close()


def test_a_read_in_pieces_goes_on(paths, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda handle, size, offset, pread=os.pread: pread(handle, min(size, 7), offset))
    assert OpenShards().read(paths[3], 50, 50) == bytes([3]) * 50
    assert OpenShards().read(paths[3], 50, 80) == bytes([3]) * 50  # the file ends there


@pytest.mark.parametrize("kind", [errno.EIO, errno.ESTALE])
def test_what_may_pass_is_tried_again_and_then_named(paths, monkeypatch, kind):
    monkeypatch.setattr(open_shards, "FIRST_PAUSE_S", 0.0)
    failures, tried = [kind] * 2, []

    def pread(handle, size, offset, pread=os.pread):
        tried.append(offset)
        if failures:
            raise OSError(failures.pop(), "of the storage")
        return pread(handle, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    shards = OpenShards()
    assert shards.read(paths[2], 0, 10) == bytes([2]) * 10 and len(tried) == 3
    failures += [kind] * 99
    with pytest.raises(OSError, match=r"train-00002\.tar"):
        shards.read(paths[2], 0, 10)
    assert len(tried) == 3 + open_shards.TRIES
    failures[:] = [errno.EINVAL]
    with pytest.raises(OSError, match=r"train-00002\.tar"):
        shards.read(paths[2], 0, 10)
    assert len(tried) == 4 + open_shards.TRIES  # that does not pass


def test_what_is_read_now_is_said(paths, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "pread", lambda handle, size, offset: seen.append(shards_under_way()) or bytes(size))
    OpenShards().read(paths[4], 0, 10)
    assert seen == [["train-00004.tar"]] and not shards_under_way()


def test_a_pipe_in_a_shards_place_is_an_error_that_names_it(paths):
    """Nobody will ever write to it, and who opens it waits for that."""
    paths[3].unlink()
    os.mkfifo(paths[3])
    shards = OpenShards()
    with pytest.raises(OSError, match=r"train-00003\.tar"):
        shards.read(paths[3], 0, 10)
    assert shards.read(paths[4], 0, 2) == bytes([4, 4]) and os.get_blocking(shards.handles[paths[4]])
    shards.close()
