"""Texts of data sets with their line images: read by offset, damage noticed, fields with their lines."""

import dataclasses
import errno
import mmap
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from htr.lines.normalise import normalise_line
from shards import row_map
from shards.columns import read_columns
from shards.index import Index, read_index
from shards.loader import batches, in_order
from shards.plan import Settings
from shards.reading import MapSource, Samples, TableSource
from shards.tar import header, padded

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
        (gray,), text = samples.read(i)
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
        list(batches(samples, in_order(samples.columns["width"], 5), 0, 1, height=64, team=2))
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


def test_a_shard_that_ends_within_its_last_text_is_named(tmp_path):
    folder, table = shard(tmp_path / "lines", ["texte", "un texte long"], ["line", "line"])
    samples = Samples(folder, table)
    os.truncate(folder / "train-00000.tar", int(samples.locate(np.array([1])).end[0]) - 2)
    with pytest.raises(ValueError, match=r"train-00000\.tar: cut short"):
        samples.read(1)
    samples.close()


def test_a_jpeg_whose_end_is_gone_is_damaged(tmp_path):
    """libjpeg fills what is missing with gray and says nothing."""
    folder, table = shard(tmp_path / "lines", ["a", "b"], ["line", "line"], "jpg")
    path, end = folder / "train-00000.tar", table["offset"][1].as_py() + table["size"][1].as_py()
    content = bytearray(path.read_bytes())
    content[end - 200 : end] = bytes(200)
    path.write_bytes(content)
    samples = Samples(folder, table)
    assert samples.read(0)[1] == "a"
    with pytest.raises(ValueError, match="cut short or changed"):
        samples.read(1)
    samples.close()


def test_closing_gives_back_every_handle(samples):
    def shards() -> int:
        """That this process has open now."""
        handles = Path("/proc/self/fd").iterdir()
        return sum(os.path.realpath(handle).endswith(".tar") for handle in handles)

    before = shards()
    for row in range(len(samples)):
        samples.read(row)
    assert shards() > before
    samples.close()
    assert shards() == before
    assert samples.read(0)[1]  # and it can be used again


# --- fields of several lines, blank ones, several data sets


def shard(
    folder: Path, texts: list[str], levels: list[str], ending: str = "png", seed: int = 0
) -> tuple[Path, pa.Table]:
    """train-00000.tar of noise images, each wider than the one before, and the rows that an index has of it."""
    rng, rows, content = np.random.default_rng(seed), [], b""
    folder.mkdir(exist_ok=True)
    for i, (text, level) in enumerate(zip(texts, levels, strict=True)):
        image = cv2.imencode(f".{ending}", rng.integers(0, 255, (96, 200 + 50 * i), np.uint8))[1].tobytes()
        key, raw = f"c_{i}_0", text.encode()
        members = b"".join(
            header(f"{key}.{kind}", len(body)) + body.ljust(padded(len(body)), b"\0")
            for kind, body in ((ending, image), ("txt", raw))
        )
        rows.append({"key": key, "shard": "train-00000", "offset": len(content) + 512, "size": len(image),
                     "text_size": len(raw), "width": 200 + 50 * i, "height": 96, "length": len(text), "level": level,
                     "typed": text.upper()})  # fmt: skip
        content += members
    (folder / "train-00000.tar").write_bytes(content)
    return folder, pa.Table.from_pylist(rows)


@pytest.fixture
def fields(tmp_path) -> tuple[Path, pa.Table]:
    """A shard with a line, a field of two parts, a field whose lines have texts of their own, and a blank field."""
    texts = ["une ligne", "deux lignes", "", "", "a b", "a", "b", ""]
    return shard(tmp_path, texts, ["line", "field", "part", "part", "field", "line", "line", "blank"])


def test_a_field_is_read_with_its_lines_in_order(fields):
    samples = Samples(*fields)
    assert [samples.read(i)[1] for i in range(len(samples))] == ["une ligne", "deux lignes", "a", "b", ""]
    assert [[image.shape[1] for image in samples.read(i)[0]] for i in range(len(samples))] == [
        [200], [300, 350], [450], [500], [550],
    ]  # fmt: skip
    assert samples.widths(48).tolist() == [100, 175, 225, 250, 275]
    batch = next(batches(samples, [np.array([1, 0, 4])], 0, 1, height=48))
    assert batch.parts == [2, 1, 1] and batch.texts == ["deux lignes", "une ligne", ""]
    assert batch.widths.tolist() == [150, 175, 100, 275] and batch.total == 3 and batch.characters == 20
    samples.close()


def test_texts_may_stand_in_another_column(fields):
    samples = Samples(*fields, column="typed")
    assert [samples.read(i)[1] for i in range(3)] == ["UNE LIGNE", "DEUX LIGNES", "A"]
    samples.close()


def test_a_null_in_another_column_is_no_text(fields):
    folder, table = fields
    typed = [text if i else None for i, text in enumerate(table["typed"].to_pylist())]
    samples = Samples(folder, table.set_column(table.column_names.index("typed"), "typed", pa.array(typed)), "typed")
    assert [samples.read(i)[1] for i in range(2)] == ["", "DEUX LIGNES"]
    assert samples.columns["length"].tolist()[:2] == [0, len("DEUX LIGNES")]
    samples.close()


def test_several_data_sets_are_read_as_one(fields, dataset):
    other = dataset.samples("train")
    samples = Samples.of([TableSource(*fields), TableSource(dataset.folder, other)])
    assert samples.counts == [5, other.num_rows]
    assert samples.read(3)[1] == "b"
    assert samples.read(5)[1] == Samples(dataset.folder, other).read(0)[1]
    samples.close()


def test_shards_of_one_name_in_two_data_sets_are_read_apart(tmp_path):
    """Beside each other in the order of reading, and both near the beginning of their files."""
    sets = [shard(tmp_path / name, ["a", "b", "c"], ["line"] * 3, seed=seed) for seed, name in enumerate("ab")]
    samples = Samples.of([TableSource(*each) for each in sets])
    batch = next(batches(samples, [np.arange(6)], 0, 1, height=48))
    for i in range(6):
        (alone,), _ = Samples(*sets[i // 3]).read(i % 3)
        assert np.array_equal(batch.images[i, 0, :, : batch.widths[i]].numpy(), normalise_line(alone, 48))
    samples.close()


# --- a map of the index, which the ranks of a node share


def test_a_map_reads_as_the_table_does(dataset):
    table = Samples(dataset.folder, dataset.samples("train"))
    mapped = Samples.of([MapSource(dataset, "train", ("line",), {})])
    texts = np.arange(len(table))
    assert len(mapped) == len(table) and mapped.widths(48).tolist() == table.widths(48).tolist()
    assert mapped.lengths(texts).tolist() == table.lengths(texts).tolist()
    for i in texts.tolist():
        assert mapped.key(i) == table.key(i) and mapped.read(i)[1] == table.read(i)[1]
    plan = [texts[:7], texts[7:]]
    for a, b in zip(*(batches(each, plan, 0, 1, 48, key=(1, 2)) for each in (table, mapped)), strict=True):
        assert torch.equal(a.images, b.images) and (a.keys, a.texts) == (b.keys, b.texts)


def test_parts_without_their_field_are_left_out(fields):
    """As --where line=1 chooses them."""
    folder, table = fields
    samples = Samples(folder, table.slice(2))
    assert [samples.key(i) for i in range(len(samples))] == [table["key"][row].as_py() for row in (5, 6, 7)]


@pytest.fixture
def indexed(fields, tmp_path) -> Index:
    """The data set of `fields` with an index; columns of a source beside what is read."""
    folder, table = fields
    table = table.append_column("split", pa.array(["train"] * len(table)))
    table = table.append_column("year", pa.array(["2020", *["2021"] * (len(table) - 1)]))
    pq.write_table(table, folder / "index.parquet", row_group_size=3)
    return Index(folder, "f", "abc", [], {"train": len(table)}, {"train": 3}, "png", "digest")


@pytest.mark.parametrize("levels", [("line",), ("line", "field"), ("field",), ("blank",)])
def test_fields_and_levels_of_a_map(indexed, fields, levels):
    folder, table = fields
    chosen = table.filter(pc.is_in(table["level"], pa.array([*levels, *(["part"] if "field" in levels else [])])))
    expected, mapped = Samples(folder, chosen), Samples.of([MapSource(indexed, "train", levels, {})])
    assert len(mapped) == len(expected) > 0
    for i in range(len(expected)):
        (images, text), (others, same) = expected.read(i), mapped.read(i)
        assert text == same and [image.tobytes() for image in images] == [image.tobytes() for image in others]
    assert mapped.widths(48).tolist() == expected.widths(48).tolist()


def test_texts_of_a_map_by_a_column_and_in_a_column(indexed):
    some = Samples.of([MapSource(indexed, "train", ("line",), {"year": ["2021"]}, "typed")])
    assert [some.read(i)[1] for i in range(len(some))] == ["A", "B"] and some.lengths(np.arange(2)).tolist() == [1, 1]
    assert some.sources[0].characters() == {"A", "B"}
    batch = next(batches(some, [np.array([1, 0])], 0, 1, height=48))
    assert batch.texts == ["B", "A"]
    assert not len(MapSource(indexed, "dev", ("line",), {}).row)
    with pytest.raises(ValueError, match="no column nosuch; there are key"):
        MapSource(indexed, "train", ("line",), {"nosuch": ["1"]})


def test_a_map_is_made_once_and_anew_for_another_index(indexed, monkeypatch):
    MapSource(indexed, "train", ("line",), {})
    made = {path.name: path.stat().st_ino for path in (indexed.folder / "maps").iterdir()}
    MapSource(indexed, "train", ("line",), {})
    assert {path.name: path.stat().st_ino for path in (indexed.folder / "maps").iterdir()} == made and len(made) == 2
    other = dataclasses.replace(indexed, digest="another")
    MapSource(other, "train", ("line",), {})
    now = [read_columns(path).note["index"] for path in (indexed.folder / "maps").iterdir()]
    assert now == ["another"] * 2  # nothing is left of the older one


def test_a_data_set_that_may_not_be_written_has_its_map_in_scratch(indexed, tmp_path, monkeypatch):
    def refused(path, note, make, made_once=row_map.made_once):
        if path.is_relative_to(indexed.folder / "maps"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return made_once(path, note, make)

    monkeypatch.setattr(row_map, "made_once", refused)
    monkeypatch.setenv("HTR_SCRATCH", str(tmp_path / "scratch"))
    assert len(MapSource(indexed, "train", ("line",), {}).row) == 3
    assert not (indexed.folder / "maps").exists()
    assert len(list((tmp_path / "scratch").rglob("rows.map"))) == 1


def test_where_files_cannot_be_mapped_the_index_is_read_for_scratch_alone(indexed, tmp_path, monkeypatch):
    """As on some FUSE: and for the next reader, whose map lies there, not at all."""
    mapped, groups, read = mmap.mmap, row_map.groups, []

    def refused(handle, *rest, **options):
        if Path(os.readlink(f"/proc/self/fd/{handle}")).parent == indexed.folder / "maps":
            raise OSError(errno.ENODEV, "No such device")
        return mapped(handle, *rest, **options)

    monkeypatch.setattr(mmap, "mmap", refused)
    monkeypatch.setattr(row_map, "groups", lambda *of: read.append(of) or groups(*of))
    monkeypatch.setenv("HTR_SCRATCH", str(tmp_path / "scratch"))
    for _ in range(2):
        assert len(MapSource(indexed, "train", ("line",), {}).row) == 3
        assert len(read) == 2 and len(list((tmp_path / "scratch").rglob("rows.map"))) == 1  # to count, and to write
