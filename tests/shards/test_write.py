"""One shard: what is rejected and why, the same bytes from whoever writes it, nothing half there."""

import errno
import json
import os
import shutil
import signal
import struct
import tarfile
import threading
import zlib
from pathlib import Path

import cv2
import jsonschema
import pyarrow.parquet as pq
import pytest
import webdataset

import shards.write
from htr.certificate import sample_key
from htr.io.sources import read_source
from htr.lines.normalise import decode
from shards import files
from shards.index import merge, missing_shards
from shards.plan import Plan, Settings, make_plan
from shards.sample import Sample
from shards.write import Outcomes, is_committed, write_shard

ONE = Settings(shares={"train": 1.0})
CANARY = "CANARY septique"
SCHEMA = json.loads(Path(shards.write.__file__).with_name("sample.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def plan(tmp_path, source) -> Plan:
    """Of one shard, nothing written yet."""
    return make_plan(tmp_path / "lines", read_source(source)[0], ONE)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()
    }  # maps/ lies there, too


def written(folder: Path) -> list[str]:
    return [name for name in contents(folder) if not name.startswith("plan.")]


WHOLE = ["train-00000.json", "train-00000.parquet", "train-00000.tar"]


# --- what is rejected


REASONS = {
    "good": ({}, None),
    "boxed": ({"box": "2 2 150 30"}, None),
    "blank text": ({"text": " \t "}, "no text"),
    "no image": ({"image": ""}, "no image"),
    "missing": ({"image": "missing.png"}, "image file is missing"),
    "missing, the next line of the page": ({"image": "missing.png"}, "image file is missing"),
    "a folder": ({"image": "folder"}, "image file is missing"),
    "below a file": ({"image": "good.png/x.png"}, "image file is missing"),
    "too long a path": ({"image": "x" * 300}, "image file is missing"),
    "not an image": ({"image": "broken.png"}, "image is not a JPEG, PNG, TIFF, JPEG 2000, WebP, BMP or GIF"),
    "not an image, the next line of the page": (
        {"image": "broken.png"},
        "image is not a JPEG, PNG, TIFF, JPEG 2000, WebP, BMP or GIF",
    ),
    "empty": ({"image": "empty.png"}, "image file is empty"),
    "outside": ({"box": "5000 2 100 30"}, "box lies outside the image"),
    "far outside": ({"box": "1 1 1e300 1e300"}, "box lies outside the image"),
    "no numbers": ({"box": CANARY}, "box is not four numbers 'x y w h'"),
    "no area": ({"box": "1 1 0 30"}, "box is empty"),
    "no polygon": ({"polygon": CANARY}, "polygon is not at least three points 'x,y'"),
    "dense": ({"text": CANARY * 40}, "text is longer than its image can carry"),
    "parent": ({"image": "../outside.png"}, "image lies outside the source's folder"),
    "roundabout": ({"image": "folder/../../outside.png"}, "image lies outside the source's folder"),
    "absolute": ({"image": "/etc/hostname"}, "image lies outside the source's folder"),
    "link": ({"image": "link.png"}, "image lies outside the source's folder"),
    "link to itself": ({"image": "loop.png"}, "image file is missing"),
    "twice": ({"certificate": "good"}, "certificate, field and line were there before"),
    "long name": ({"certificate": "c" * 200}, "certificate, field and line make too long a name"),
    "good after all": ({"image": "folder/../good.png"}, None),
}


@pytest.fixture
def bad(tmp_path, draw, write_table) -> Path:
    folder = tmp_path / "bad"
    (folder / "folder").mkdir(parents=True)
    for path in (folder / "good.png", tmp_path / "outside.png"):
        cv2.imwrite(str(path), draw(CANARY))
    (folder / "broken.png").write_text(CANARY)
    (folder / "empty.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to("loop.png")
    rows = [
        {"image": "good.png", "text": CANARY, "certificate": name} | change for name, (change, _) in REASONS.items()
    ]
    for row in rows:
        row.setdefault("box", "")
        row.setdefault("polygon", "")
    return write_table(folder / "lines.csv", rows)


def test_each_bad_row_has_its_reason(tmp_path, bad):
    plan = make_plan(tmp_path / "lines", read_source(bad)[0], ONE)
    note = write_shard(plan, 0, bad.parent)
    table = pq.read_table(plan.folder / "train-00000.parquet").sort_by("row").to_pylist()
    expected = [reason for _, reason in REASONS.values()]
    assert [row["row"] for row in table] == list(range(len(REASONS)))
    assert [row["reason"] for row in table] == expected
    assert [row["outcome"] for row in table] == ["rejected" if reason else "sample" for reason in expected]
    assert note["rows"] == len(REASONS) == note["count"] + sum(note["rejects"].values())
    assert note["rejects"] == {reason: expected.count(reason) for reason in expected if reason}
    assert note["count"] == 3 and sum(note["characters"].values()) == 3 * len(CANARY)
    for name, content in contents(plan.folder).items():
        assert CANARY.encode() not in content or name == "train-00000.tar" or name.startswith("plan."), name


def test_an_image_that_may_not_be_read(plan, source, monkeypatch):
    real = os.open

    def refuse(path, *args, **more) -> int:
        if str(path).endswith(".png"):
            raise PermissionError(errno.EACCES, "denied")
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert write_shard(plan, 0, source.parent)["rejects"] == {"image file may not be read": 60}


def test_a_file_system_that_fails_is_no_reject(plan, source, monkeypatch):
    """A shard without its lines because storage was away for a minute would be committed for ever."""

    real = os.open

    def fail(path, *args, **more) -> int:
        if str(path).endswith(".png"):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Input/output"):
            write_shard(plan, 0, source.parent)
    assert not written(plan.folder)


# --- what is in a shard


@pytest.mark.parametrize("encoding", ["jpg", "png"])
def test_others_read_it(tmp_path, source, encoding):
    """webdataset and tarfile: the same keys, text and JSON; PNG keeps each pixel."""
    table, images = read_source(source)
    plan = make_plan(tmp_path, table, Settings(shares={"train": 1.0}, encoding=encoding))
    write_shard(plan, 0, images)
    rows = {sample_key(row["certificate"], row["field"], row["line"]): row for row in table.to_pylist()}
    tar = tmp_path / "train-00000.tar"
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == list(rows)
    with tarfile.open(tar) as archive:
        plain = {member.name: archive.extractfile(member).read() for member in archive}
    assert len(plain) == 3 * len(rows)
    for sample, (key, row) in zip(samples, rows.items(), strict=True):
        assert sample["txt"].decode() == row["text"]
        note = json.loads(sample["json"])
        jsonschema.validate(note, SCHEMA)
        gray = cv2.imread(str(images / row["image"]), cv2.IMREAD_GRAYSCALE)
        assert note == {
            **{name: row[name] for name in ("certificate", "field", "line", "writer", "year", "form", "image")},
            "split": "train",
            "level": "line",
            "page": 0,
            "box": None,
            "height": gray.shape[0],
            "width": gray.shape[1],
        }
        stored = decode(sample[encoding])
        assert stored.shape == gray.shape
        assert (stored == gray).all() if encoding == "png" else abs(stored.astype(int) - gray).mean() < 4
        for ending in (encoding, "txt", "json"):
            assert plain[f"{key}.{ending}"] == sample[ending]


def test_the_parquet_says_where_each_image_lies(plan, source):
    write_shard(plan, 0, source.parent)
    content = (plan.folder / "train-00000.tar").read_bytes()
    with tarfile.open(plan.folder / "train-00000.tar") as archive:
        for row in pq.read_table(plan.folder / "train-00000.parquet").to_pylist():
            image = archive.extractfile(f"{row['key']}.jpg").read()
            assert content[row["offset"] : row["offset"] + row["size"]] == image
            text = archive.extractfile(f"{row['key']}.txt").read()
            assert (row["text_size"], row["length"]) == (len(text), len(text.decode()))
            assert decode(image).shape == (row["height"], row["width"])


def test_a_sample_keeps_the_way_back_to_its_page(tmp_path, bad):
    plan = make_plan(tmp_path / "lines", read_source(bad)[0], ONE)
    write_shard(plan, 0, bad.parent)
    samples = {s["__key__"]: s for s in webdataset.WebDataset(str(plan.folder / "train-00000.tar"), shardshuffle=False)}
    note = json.loads(samples["boxed_text_0"]["json"])
    assert (note["box"], note["image"], note["certificate"]) == ([2, 2, 150, 30], "good.png", "boxed")
    page = cv2.imread(str(bad.parent / "good.png"), cv2.IMREAD_GRAYSCALE)
    assert decode(samples["boxed_text_0"]["jpg"]).shape == page[2:32, 2:152].shape


# --- the same bytes, whole or not there


def test_the_same_bytes_in_any_order_and_place(tmp_path, source, build, dataset):
    table, images = read_source(source)
    plan = make_plan(tmp_path / "again", table, json_settings(dataset.folder))
    for number in reversed(range(len(plan.shards))):
        write_shard(plan, number, images)
    merge(plan)
    moved = shutil.copytree(images, tmp_path / "moved")
    build(tmp_path / "third", moved / source.name)
    assert contents(dataset.folder) == contents(tmp_path / "again") == contents(tmp_path / "third")


def json_settings(folder: Path) -> Settings:
    return Settings(**json.loads((folder / "plan.json").read_text(encoding="utf-8"))["settings"])


def test_written_twice_is_written_once(plan, source):
    first = write_shard(plan, 0, source.parent)
    before = {path: path.stat().st_mtime_ns for path in plan.folder.iterdir()}
    assert write_shard(plan, 0, source.parent) == first
    assert {path: path.stat().st_mtime_ns for path in plan.folder.iterdir()} == before


@pytest.mark.parametrize(("call", "good"), [("fsync", 0), ("fsync", 1), ("link", 0), ("link", 1), ("link", 2)])
def test_a_killed_attempt_is_no_shard(plan, source, call, good):
    """The plug is pulled before the n-th file is synced or linked; the next attempt and the index clear up."""
    child = os.fork()
    if not child:  # never returns to pytest
        real, done = getattr(os, call), []

        def unplugged(*args, **more):
            if len(done) == good:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(real(*args, **more))

        setattr(os, call, unplugged)
        try:
            write_shard(plan, 0, source.parent)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    left = written(plan.folder)
    assert left and not is_committed(plan.folder, "train-00000") and missing_shards(plan) == ["train-00000"]
    note = write_shard(plan, 0, source.parent)
    assert note["count"] == 60 and not missing_shards(plan)
    merge(plan)
    assert written(plan.folder) == ["index.json", "index.parquet", "rejects.parquet", *WHOLE]


def test_attempts_that_meet_make_one_shard(tmp_path, plan, source, monkeypatch):
    """All four have written their files before the first links one."""
    alone = make_plan(tmp_path / "alone", read_source(source)[0], ONE)
    write_shard(alone, 0, source.parent)
    together, commit, seen = threading.Barrier(4, timeout=200), files.commit, threading.local()

    def wait(attempt: Path, path: Path) -> bool:
        if not hasattr(seen, "waited"):
            seen.waited = together.wait()
        return commit(attempt, path)

    monkeypatch.setattr(files, "commit", wait)
    notes = []
    threads = [threading.Thread(target=lambda: notes.append(write_shard(plan, 0, source.parent))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes) == 4 and all(note == notes[0] for note in notes)
    assert contents(plan.folder) == contents(alone.folder)


def test_an_attempt_whose_files_were_swept_takes_the_shard_of_the_first(plan, source, monkeypatch):
    synced, once = files.write_synced, []

    def overtaken(path: Path, content: str) -> None:
        synced(path, content)
        if not once:
            once.append(True)
            write_shard(plan, 0, source.parent)
            merge(plan)

    monkeypatch.setattr(files, "write_synced", overtaken)
    assert write_shard(plan, 0, source.parent)["count"] == 60
    assert written(plan.folder) == ["index.json", "index.parquet", "rejects.parquet", *WHOLE]


@pytest.mark.parametrize(("call", "good"), [("fsync", 0), ("fsync", 1), ("fsync", 2), ("link", 0), ("link", 1)])
def test_a_full_disk_commits_nothing(plan, source, monkeypatch, call, good):
    real, done = getattr(os, call), []

    def full(*args, **more):
        if len(done) >= good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done.append(real(*args, **more))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_shard(plan, 0, source.parent)
    assert missing_shards(plan) == ["train-00000"] and not [name for name in written(plan.folder) if ".tmp" in name]
    assert write_shard(plan, 0, source.parent)["count"] == 60
    assert written(plan.folder) == WHOLE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_full_while_the_tar_grows(plan, source, monkeypatch):
    temporary = files.temporary

    def on_full(path: Path) -> Path:
        name = temporary(path)
        if path.suffix == ".tar":
            name.symlink_to("/dev/full")
        return name

    monkeypatch.setattr(files, "temporary", on_full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(plan, 0, source.parent)
    assert not written(plan.folder)


def test_a_shard_is_on_the_disk_before_it_has_its_name(plan, source, commits):
    write_shard(plan, 0, source.parent)
    assert commits == ["train-00000.tar", "train-00000.parquet", "train-00000.json"]


@pytest.mark.parametrize("ending", ["tar", "parquet"])
def test_an_orphan_with_other_bytes(plan, source, ending):
    """Left by an attempt of other versions that died before its JSON: never joined to this one's files."""
    orphan = plan.folder / f"train-00000.{ending}"
    orphan.write_bytes(b"other bytes")
    with pytest.raises(ValueError, match=rf"train-00000\.{ending} was left by an attempt.*remove"):
        write_shard(plan, 0, source.parent)
    assert not is_committed(plan.folder, "train-00000") and not [n for n in written(plan.folder) if ".tmp" in n]
    orphan.unlink()
    assert write_shard(plan, 0, source.parent)["count"] == 60


def test_an_orphan_with_the_same_bytes_is_taken(plan, source):
    write_shard(plan, 0, source.parent)
    before = contents(plan.folder)
    (plan.folder / "train-00000.json").unlink()
    write_shard(plan, 0, source.parent)
    assert contents(plan.folder) == before


@pytest.mark.parametrize(("level", "characters"), [("line", "10"), ("field", "10"), ("tick", ""), ("part", "")])
def test_only_what_a_reader_writes_counts_as_characters(level, characters):
    """Not the 1 of a tick box."""
    outcomes = Outcomes([])
    outcomes.add(Sample(0, "key", level, "10", b"", 9, 9, None, {}), 0, 1)
    assert outcomes.note()["characters"] == dict.fromkeys(characters, 1)


def test_the_resolution_of_the_scan_is_kept(tmp_path, bad):
    """Where the header says it: pHYs of a PNG, in pixels a metre."""
    content = (bad.parent / "good.png").read_bytes()
    chunk = b"pHYs" + struct.pack(">IIB", 11811, 11811, 1)
    at = content.index(b"IDAT") - 4
    (bad.parent / "good.png").write_bytes(
        content[:at] + struct.pack(">I", 9) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[at:]
    )
    plan = make_plan(tmp_path / "lines", read_source(bad)[0], ONE)
    write_shard(plan, 0, bad.parent)
    for sample in webdataset.WebDataset(str(plan.folder / "train-00000.tar"), shardshuffle=False):
        assert json.loads(sample["json"])["dpi"] == pytest.approx(300, abs=0.01)
