"""Texts of data sets with their line images: read by offset, damage noticed, fields with their lines."""

import errno
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from shards.index import read_index
from shards.loader import batches, in_order
from shards.plan import Settings
from shards.reading import Samples
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


def test_a_shard_that_ends_within_its_last_text_is_named(tmp_path):
    folder, table = shard(tmp_path / "lines", ["texte", "un texte long"], ["line", "line"])
    samples = Samples(folder, table)
    os.truncate(folder / "train-00000.tar", table["offset"][1].as_py() + int(samples.text_at[1]) + 3)
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
    samples = Samples.of([fields, (dataset.folder, other)])
    assert samples.source.tolist() == [0] * 5 + [1] * other.num_rows
    assert samples.read(3)[1] == "b"
    assert samples.read(5)[1] == Samples(dataset.folder, other).read(0)[1]
    samples.close()


def test_shards_of_one_name_in_two_data_sets_are_read_apart(tmp_path):
    """Beside each other in the order of reading, and both near the beginning of their files."""
    sets = [shard(tmp_path / name, ["a", "b", "c"], ["line"] * 3, seed=seed) for seed, name in enumerate("ab")]
    samples, stored = Samples.of(sets), {}
    for read in samples.reads(np.arange(6)):
        stored |= samples.take(read)
    for i in range(6):
        (together,), _ = samples.decode(i, stored)
        (alone,), _ = Samples(*sets[i // 3]).read(i % 3)
        assert np.array_equal(together, alone)
    samples.close()


def test_a_file_system_that_reads_in_pieces_and_forgets_handles(dataset, monkeypatch):
    """The bytes are those of one large read; a handle that went stale is opened again once, and never another's."""
    table = dataset.samples("train")

    def raw(samples: Samples) -> dict:
        return {
            row: content
            for read in samples.reads(np.arange(len(samples)))
            for row, content in samples.take(read).items()
        }

    whole = raw(Samples(dataset.folder, table))
    pread, told = os.pread, []

    def in_pieces(handle: int, size: int, offset: int) -> bytes:
        if len(told) < 1:
            told.append(handle)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return pread(handle, min(size, 1000), offset)

    monkeypatch.setattr("shards.reading.os.pread", in_pieces)
    assert raw(Samples(dataset.folder, table)) == whole and told

    def broken(handle: int, size: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("shards.reading.os.pread", broken)
    with pytest.raises(OSError, match=r"Input/output error: '.*\.tar'"):
        raw(Samples(dataset.folder, table))
