"""Copies of shards on the node's disk: whole or not there, with several processes, and with little room."""

import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from shards import local
from shards.index import read_index
from shards.local import copy_shards

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def names(dataset) -> list[str]:
    return [shard["shard"] for shard in dataset.shards if shard["split"] == "train"]


def test_the_shards_that_are_asked_for_are_there_and_nothing_else(tmp_path, dataset, names):
    folder = copy_shards(dataset, names, tmp_path / "disk")
    assert sorted(path.name for path in folder.glob("*.tar")) == sorted(f"{name}.tar" for name in names)
    for name in names:
        assert (folder / f"{name}.tar").read_bytes() == (dataset.folder / f"{name}.tar").read_bytes()
    assert not [path for path in folder.iterdir() if path.suffix not in (".tar", ".lock")]
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_time_nothing_is_copied(tmp_path, dataset, names, monkeypatch):
    folder = copy_shards(dataset, names, tmp_path)
    monkeypatch.setattr(local, "copy", lambda *_: pytest.fail("copied again"))
    assert copy_shards(dataset, names, tmp_path) == folder


def test_what_was_cut_short_or_left_behind_is_made_anew(tmp_path, dataset, names):
    folder = copy_shards(dataset, names, tmp_path)
    os.truncate(folder / f"{names[0]}.tar", 1000)
    (folder / f".{names[0]}.tar.node-1-abcd.tmp").write_bytes(b"killed")
    copy_shards(dataset, names, tmp_path)
    assert (folder / f"{names[0]}.tar").read_bytes() == (dataset.folder / f"{names[0]}.tar").read_bytes()
    assert not list(folder.glob(".*.tmp"))


def test_ranks_of_a_node_share_the_work(tmp_path, dataset, names):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=logged, args=(dataset.folder, names, tmp_path, rank)) for rank in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0] * 4
    done = [line for rank in range(4) for line in (tmp_path / f"log-{rank}").read_text(encoding="utf-8").split()]
    assert sorted(done) == sorted(f"{name}.tar" for name in names)  # each shard once, by one of them


def logged(folder: Path, names: list[str], disk: Path, rank: int) -> None:
    plain = local.copy

    def copy(source: Path, path: Path, shard: dict) -> None:
        plain(source, path, shard)
        with open(disk / f"log-{rank}", "a") as log:
            log.write(f"{path.name}\n")

    (disk / f"log-{rank}").touch()
    local.copy = copy
    copy_shards(read_index(folder), names, disk)


def test_room_is_looked_at_first(tmp_path, dataset, names, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, local.SPARE_BYTES))
    with pytest.raises(ValueError, match=r"shards of 0\.0 GiB are to be copied, 1\.0 GiB are free"):
        copy_shards(dataset, names, tmp_path)
    assert not list(tmp_path.rglob("*.tar"))
    monkeypatch.undo()
    copy_shards(dataset, names, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 0))
    copy_shards(dataset, names, tmp_path)  # what is there needs no room


def test_a_shard_that_changed_is_not_copied(tmp_path, dataset, names):
    index = read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))
    damaged = index.folder / f"{names[0]}.tar"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    with pytest.raises(ValueError, match=rf"{names[0]}\.tar: changed since it was committed"):
        copy_shards(index, names, tmp_path / "disk")
    assert not list((tmp_path / "disk").rglob(f"*{names[0]}.tar"))


def test_a_folder_that_others_may_write_in_is_refused(tmp_path, dataset, names):
    folder = tmp_path / f"htr-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        copy_shards(dataset, names, tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        copy_shards(dataset, names, tmp_path)
