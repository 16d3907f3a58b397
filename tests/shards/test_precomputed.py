"""Lines made beside their shards: the same to the bit, whole or not used, of these shards, height and code alone."""

import dataclasses
import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from htr.lines.normalise import normalise_line
from jobs.cli.command_line import main
from jobs.training.config import DataConfig
from jobs.training.data import TrainingData
from shards import files, precomputed
from shards.batcher import Batcher
from shards.decoding import CODED, PLACES_AT, RAW, Damaged, pack_record, read_records, unpack_record
from shards.index import Index, read_index
from shards.loader import AugmentConfig, stream
from shards.open_shards import OpenShards
from shards.plan import Settings
from shards.reading import MapSource, Samples
from shards.ready import prepare
from shards.sample import pack
from shards.tar import Tar
from shards.verify import verify
from shards.write import Outcomes

HEIGHT = 48


@pytest.fixture
def copy(tmp_path, dataset) -> Index:
    return read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))


@pytest.fixture
def made(copy) -> Index:
    for shard in copy.shards:
        precomputed.write_lines(copy.folder, shard, HEIGHT)
    precomputed.write_note(copy, HEIGHT)
    return copy


def samples_of(index: Index, height: int = HEIGHT) -> Samples:
    source = MapSource(index, "train", ("line", "field", "blank"), {})
    source.lines, _ = precomputed.find(index, height)
    return Samples.of([source])


def batches(samples: Samples, workers: int = 0, key=None, kept=None) -> list:
    windows = [np.array_split(np.random.default_rng(1).permutation(len(samples)), 6)] * 2
    return list(stream(samples, windows, 0, 1, AugmentConfig(HEIGHT, key), workers, kept=kept))


def same(ones: list, others: list) -> bool:
    return len(ones) == len(others) > 0 and all(
        torch.equal(a.images, b.images) and (a.texts, a.keys, a.parts) == (b.texts, b.keys, b.parts)
        for a, b in zip(ones, others, strict=True)
    )


# --- what a training reads


@pytest.mark.parametrize("key", [None, (5, 1)])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_lines_without_a_shard(made, workers, key):
    plain = batches(Samples.of([MapSource(made, "train", ("line", "field", "blank"), {})]), key=key)
    for path in made.folder.glob("*.tar"):
        path.unlink()
    assert same(plain, batches(samples_of(made), workers, key))


def test_lines_of_fields_and_long_keys(tmp_path):
    """A text's lines are one record; those of a field have none of their own, nor what no reader learns from."""
    rng, settings = np.random.default_rng(0), Settings(encoding="png")
    levels = ["tick", "line", "field", "part", "part", "field", "line", "page", "blank"]
    table, key = Outcomes([]), {"certificate": "é" * 60, "line": ""}
    with open(tmp_path / "train-00000.tar", "wb") as file:
        tar = Tar(file)
        for number, level in enumerate(levels):
            row = {"row": number, **key, "field": f"f{number}", "image": "i", "page": 0, "text": ""}
            gray = rng.integers(0, 255, (60 + number, 200 + 30 * number), np.uint8)
            sample = pack(row, gray, settings, level=level, text=f"décès {number}" if level != "part" else "")
            members = sample.members("png")
            table.add(sample, tar.add(sample.key, members), len(members["txt"]))
        digest = tar.close()
    rows = table.table()
    pq.write_table(rows, tmp_path / "train-00000.parquet")
    index_rows = rows.append_column("shard", pa.array(["train-00000"] * len(levels)))
    pq.write_table(index_rows.append_column("split", pa.array(["train"] * len(levels))), tmp_path / "index.parquet")
    shard = {"shard": "train-00000", "split": "train", "count": len(levels), "bytes": tar.size, "sha256": digest}
    index = Index(tmp_path, "f", "abc", [shard], {"train": len(levels)}, {"train": 2}, "png", "digest")
    precomputed.write_lines(tmp_path, shard, HEIGHT)
    precomputed.write_note(index, HEIGHT)
    plain = Samples.of([MapSource(index, "train", ("line", "field", "blank"), {})])
    assert plain.count.tolist() == [1, 2, 1, 1] and len(plain.key(1)) > 100
    assert same(batches(plain), batches(samples_of(index)))
    content = (tmp_path / f"lines-{HEIGHT}" / "train-00000.lines").read_bytes()
    at, _ = read_records(lambda start, size: content[start : start + size], 0, len(levels))
    assert (np.diff(at) > 0).tolist() == [level in ("line", "field", "blank") for level in levels[:5]] + [
        False, True, False, True,
    ]  # fmt: skip


def test_what_is_kept_on_the_nodes_disk_is_the_same(made, tmp_path, monkeypatch):
    plain, samples = batches(Samples.of([MapSource(made, "train", ("line", "field", "blank"), {})])), samples_of(made)
    kept = [prepare(made.digest, sum(made.totals.values()), HEIGHT, tmp_path)]
    assert same(plain, batches(samples, kept=kept))
    monkeypatch.setattr(Batcher, "read", lambda *_: pytest.fail("a file of the data set was read"))
    assert same(plain, batches(samples, kept=kept))


def test_nothing_but_the_lines_is_read_in_few_reads(made, monkeypatch):
    read, real = [], OpenShards.read

    def counted(self, path: Path, *where: int) -> bytes:
        read.append(path)
        return real(self, path, *where)

    monkeypatch.setattr(OpenShards, "read", counted)
    batches(samples_of(made))
    assert read and {path.suffix for path in read} == {".lines"}
    assert len(read) <= 4 * len({*read})


# --- the verb


def test_the_verb_does_what_is_missing_and_says_how_much(copy, monkeypatch, capsys):
    folder, tars = copy.folder / f"lines-{HEIGHT}", {p.name: p.read_bytes() for p in copy.folder.glob("*.tar")}
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    for name, value in {"COUNT": 2, "MIN": 0, "MAX": 1, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert main(["precompute", str(copy.folder), "--workers", "1"]) == 0
    half = {path.name: path.stat().st_ino for path in folder.glob("*.lines")}
    assert len(half) == -(-len(copy.shards) // 2) and "left to others" in capsys.readouterr().err
    assert main(["status", str(folder)]) == 0
    said, left = capsys.readouterr().out, len(copy.shards) - len(half)
    assert said.startswith(f"{folder}: precompute, {len(half)} of {len(copy.shards)} shards\nnobody is at work")
    assert f"this does the {left} shards that are missing" in said
    assert precomputed.find(copy, HEIGHT) == (None, f"{folder} is not whole")
    assert same(batches(samples_of(copy)), batches(samples_of(copy)))  # what is not whole is not read
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert main(["precompute", str(copy.folder), "--workers", "1"]) == 0
    assert re.search(r"[\d.]+ MiB in \S+lines-48, beside [\d.]+ MiB of shards", capsys.readouterr().err)
    assert half.items() <= {path.name: path.stat().st_ino for path in folder.glob("*.lines")}.items()
    assert precomputed.find(copy, HEIGHT) == (folder, "") and precomputed.find(copy, 64) == (None, "")
    assert {p.name: p.read_bytes() for p in copy.folder.glob("*.tar")} == tars and not verify(copy)
    assert not list(folder.glob(".*"))


def test_a_height_that_no_model_has_is_refused(copy, capsys):
    assert main(["precompute", str(copy.folder), "--height", "7"]) == 1
    assert "height 7" in capsys.readouterr().err and not list(copy.folder.glob("lines-*"))


def test_what_is_committed_was_synced(copy, commits):
    precomputed.write_lines(copy.folder, copy.shards[0], HEIGHT)
    assert f"{copy.shards[0]['shard']}.lines" in commits


def test_an_attempt_that_fails_leaves_nothing(copy, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(precomputed.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*train-00000\.lines"):
        precomputed.write_lines(copy.folder, copy.shards[0], HEIGHT)
    assert not os.listdir(copy.folder / f"lines-{HEIGHT}")


def test_what_a_killed_attempt_left_is_swept_and_one_that_was_late_is_none(copy, monkeypatch):
    folder = copy.folder / f"lines-{HEIGHT}"
    folder.mkdir()
    (folder / ".train-00000.lines.node-1-abc.tmp").write_bytes(b"half")
    for shard in copy.shards:
        precomputed.write_lines(copy.folder, shard, HEIGHT)
    before = {path.name: path.stat().st_ino for path in folder.glob("*.lines")}

    def swept(attempt: Path, path: Path) -> bool:
        attempt.unlink()
        raise FileNotFoundError(errno.ENOENT, "No such file", str(attempt))

    monkeypatch.setattr(files, "commit", swept)
    precomputed.write_lines(copy.folder, copy.shards[0], HEIGHT)
    precomputed.write_note(copy, HEIGHT)
    assert sorted(os.listdir(folder)) == sorted([*before, "lines.json"])
    assert {path.name: path.stat().st_ino for path in folder.glob("*.lines")} == before


def test_a_damaged_shard_is_named(copy):
    path = copy.folder / f"{copy.shards[0]['shard']}.tar"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(ValueError, match=r"train-00000\.tar: cut short or changed"):
        precomputed.write_lines(copy.folder, copy.shards[0], HEIGHT)


# --- of these shards, height and code alone


def test_another_index_height_or_code_is_not_used(made, monkeypatch):
    folder = made.folder / f"lines-{HEIGHT}"
    later = dataclasses.replace(made, digest="later")
    assert precomputed.find(later, HEIGHT) == (None, f"{folder} is of an earlier index")
    assert precomputed.finished(later, HEIGHT) == {shard["shard"] for shard in made.shards}  # a retry added shards
    other = dataclasses.replace(made, shards=[{**shard, "sha256": "0" * 64} for shard in made.shards])
    with pytest.raises(ValueError, match=rf"made of another shard: remove {folder} and give the same command again"):
        precomputed.finished(other, HEIGHT)
    for content in (b"", b"[]", b"[1]", b"7"):
        (folder / "lines.json").write_bytes(content)
        assert precomputed.find(made, HEIGHT)[0] is None and precomputed.find(made, HEIGHT)[1]
    precomputed.write_note(made, HEIGHT)
    monkeypatch.setattr(precomputed, "code", lambda: "f" * 16)
    assert precomputed.find(made, HEIGHT)[1].startswith(f"{folder} was made by another version: remove it")
    with pytest.raises(ValueError, match="made by another version"):
        precomputed.finished(made, HEIGHT)


def test_a_training_says_what_it_reads(made):
    data = TrainingData.open(DataConfig(dataset=made.folder, batch=8))
    assert data.use_precomputed(64) == [] and data.samples.sources[0].lines is None
    folder = made.folder / f"lines-{HEIGHT}"
    assert data.use_precomputed(HEIGHT) == [f"lines are read from {folder}"]
    assert {source.lines for source in [*data.samples.sources, *data.dev.sources]} == {folder}
    (folder / "lines.json").unlink()
    assert data.use_precomputed(HEIGHT) == [f"{folder} is not whole: lines are made of the shards"]
    assert {source.lines for source in [*data.samples.sources, *data.dev.sources]} == {None}


# --- damage


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("where", ["head", "places", "records", "digest", "end", "gone"])
def test_verify_names_what_changed(made, where):
    path = made.folder / f"lines-{HEIGHT}" / "train-00001.lines"
    at = {"head": 9, "places": PLACES_AT + 9, "records": -200, "digest": -3}
    if where in at:
        flip(path, at[where])
    elif where == "end":
        os.truncate(path, path.stat().st_size - 40)
    else:
        path.unlink()
    [fault] = verify(made)
    assert fault.startswith(f"lines-{HEIGHT}/train-00001.lines: ")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["places", "mark", "pixels", "empty", "gone"])
def test_a_training_names_what_is_damaged_and_says_what_to_do(made, how, workers):
    for path in (made.folder / f"lines-{HEIGHT}").glob("train-*.lines"):
        if how == "places":
            flip(path, PLACES_AT + 15)
        elif how == "mark":
            flip(path, int(np.frombuffer(path.read_bytes()[PLACES_AT:][:8], "<u8")[0]))
        elif how == "pixels":  # zstd alone decodes most of such records to other pixels
            flip(path, path.stat().st_size - 32 - 60)
        elif how == "empty":
            path.write_bytes(b"")
        else:
            path.unlink()
    kind = "gone" if how == "gone" else "damaged"
    with pytest.raises(ValueError, match=rf"train-\d+\.lines: {kind}: remove .*lines-48, then .* precompute") as error:
        batches(samples_of(made), workers)
    assert not any(text in str(error.value) for text in ("grippe", "AVC", "cancer"))


@given(st.lists(st.integers(1, 300), max_size=4), st.text(max_size=20), st.text(max_size=5), st.data())
def test_a_record_comes_back_or_is_damaged(widths, text, key, data):
    text, key = (some.encode("utf-8", "ignore").decode() for some in (text, key))
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 40, (HEIGHT, width), np.uint8) for width in widths]
    mark = data.draw(st.sampled_from([RAW, CODED]))
    content = pack_record(lines, text, key, mark)
    found, *others = unpack_record(content + b"\0" * 7 if mark == RAW else content, HEIGHT, mark)
    assert others == [text, key] and [line.tobytes() for line in found] == [line.tobytes() for line in lines]
    changed = bytearray(content)
    for at in data.draw(st.lists(st.integers(0, min(len(content) - 1, 60)), max_size=5)):
        changed[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    for bad in (bytes(changed), cut):
        try:
            found, _, _ = unpack_record(bad, HEIGHT, mark)
        except Damaged:
            continue
        assert all(line.shape[0] == HEIGHT for line in found)
        assert mark == RAW or bad == content, "what is coded has a sum"


def test_lines_are_those_of_the_stored_images(made):
    samples = samples_of(made)
    for batch in batches(samples):
        for place, text in enumerate(batch.rows):
            [gray], _ = samples.read(text)
            line = batch.images[place, 0, :, : batch.widths[place]].numpy()
            assert (line == normalise_line(gray, HEIGHT)).all()
    assert files.sha256(made.folder / f"{made.shards[0]['shard']}.tar") == made.shards[0]["sha256"]
