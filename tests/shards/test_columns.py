"""Columns in one mapped file: whole or not there, made once, and what is not such a file is said."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from shards.columns import HEAD_BYTES, changed, made_once, read_columns, small_dtype, write_columns


def write(path: Path, note: dict | None = None, count: int = 1000) -> None:
    def fill(arrays):
        arrays["a"][:] = np.arange(count)
        arrays["b"][:] = 7

    write_columns(path, note or {"of": "x"}, {"a": (np.uint32, count), "b": (np.uint8, 3)}, fill)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "x.map")
    found = read_columns(tmp_path / "x.map")
    assert found.note == {"of": "x"} and found["a"].tolist() == list(range(1000)) and found["b"].tolist() == [7] * 3
    with pytest.raises(ValueError, match="read-only"):
        found["a"][0] = 1
    write(tmp_path / "none.map", count=0)
    assert not len(read_columns(tmp_path / "none.map")["a"])


def test_it_appears_whole_or_not_at_all(tmp_path, commits):
    def fails(arrays):
        arrays["a"][:] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_columns(tmp_path / "x.map", {}, {"a": (np.uint8, 9)}, fails)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "x.map")
    assert commits == ["x.map"] and [path.name for path in tmp_path.iterdir()] == ["x.map"]


def test_a_damaged_file_is_said_and_made_anew(tmp_path):
    path = tmp_path / "x.map"
    for content in (b"", b"htr columns 1\n{", b"CANARY" * 1000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.map: .*remove it") as error:
            read_columns(path)
        assert "CANARY" not in str(error.value)
    write(path)
    os.truncate(path, path.stat().st_size - 1000)
    with pytest.raises(ValueError, match="cut short"):
        read_columns(path)
    assert made_once(path, {"of": "x"}, lambda: write(path))["a"][999] == 999


@pytest.mark.parametrize("count", [1000, 0])
def test_bytes_that_changed_are_seen_by_their_sum(tmp_path, monkeypatch, count):
    monkeypatch.setattr("shards.columns.ADDED_TOGETHER", 777)
    path = tmp_path / "x.map"
    write(path, count=count)
    content = path.read_bytes()
    assert not changed(path)
    for place in (0, 20, 4000, HEAD_BYTES, len(content) - 5, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert changed(path), place
    path.write_bytes(content[:HEAD_BYTES] + bytes(len(content) - HEAD_BYTES))  # as a crash of the storage may leave it
    assert changed(path)
    for short in (content[:-4], content[:2]):
        path.write_bytes(short)
        assert changed(path)
    path.write_bytes(content[:-4].replace(b', "sum": true', b"             "))  # of a version without
    assert not changed(path) and len(read_columns(path)["a"]) == count


def test_one_of_many_processes_makes_it(tmp_path):
    path, log = tmp_path / "m" / "x.map", tmp_path / "log"

    def make() -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write("made\n")
        write(path)

    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=made_once, args=(path, {"of": "x"}, make)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(200)
    assert [rank.exitcode for rank in ranks] == [0] * 4
    assert log.read_text(encoding="utf-8") == "made\n" and read_columns(path)["a"][5] == 5


def test_of_another_index_it_is_made_anew(tmp_path):
    path = tmp_path / "x.map"
    write(path, {"of": "x", "more": [1]})
    assert made_once(path, {"of": "x"}, lambda: pytest.fail("made again")).note["more"] == [1]
    assert made_once(path, {"of": "y"}, lambda: write(path, {"of": "y"})).note == {"of": "y"}


@pytest.mark.parametrize(("most", "bytes_each"), [(0, 1), (255, 1), (256, 2), (65_536, 4), (2**32, 8)])
def test_numbers_are_as_small_as_they_can_be(most, bytes_each):
    assert small_dtype(most).itemsize == bytes_each
