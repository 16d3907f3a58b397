"""Every fault is named with its file, and a whole data set has none."""

import io
import re
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.files import sha256
from shards.index import Index, read_index
from shards.row_map import rows_of
from shards.verify import verify, verify_shard


@pytest.fixture
def copy(tmp_path, dataset) -> Index:
    return read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))


def flip(path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_whole_data_set(dataset):
    assert verify(dataset) == []


@pytest.mark.parametrize(
    ("ending", "damage", "fault"),
    [
        ("tar", lambda path: path.unlink(), "missing"),
        ("tar", lambda path: path.write_bytes(path.read_bytes()[:-700]), r"\d+ bytes, \d+ were committed"),
        ("tar", lambda path: path.write_bytes(b""), "0 bytes"),
        ("tar", lambda path: flip(path, path.stat().st_size // 2), "changed since it was committed"),
        ("tar", lambda path: flip(path, 0), "changed since it was committed"),
        ("parquet", lambda path: path.unlink(), "missing or damaged"),
        ("parquet", lambda path: path.write_bytes(path.read_bytes()[:-9]), "changed since it was committed"),
        ("parquet", lambda path: path.write_bytes(b""), "changed since it was committed"),
        ("json", lambda path: path.unlink(), "missing or damaged"),
        ("json", lambda path: path.write_bytes(b"{"), "missing or damaged"),
    ],
)
def test_a_fault_names_its_file_alone(copy, ending, damage, fault):
    path = copy.folder / f"train-00001.{ending}"
    damage(path)
    (found,) = verify(copy)
    assert found.startswith(f"{path.name}: ")
    assert re.search(fault, found)


def test_all_faults_are_listed(copy):
    (copy.folder / "train-00000.tar").unlink()
    flip(copy.folder / "val-00000.tar", 1000)
    (copy.folder / "test-00000.parquet").unlink()
    assert [fault.split(":")[0] for fault in verify(copy)] == ["train-00000.tar", "val-00000.tar", "test-00000.parquet"]


def test_a_parquet_of_another_shard(copy):
    shutil.copy(copy.folder / "train-00001.parquet", copy.folder / "train-00000.parquet")
    (fault,) = verify(copy)
    assert fault == "train-00000.parquet: its bytes changed since it was committed (sha256)"


def test_an_index_that_says_something_else(copy):
    """Offsets are what training reads by: an index of another moment must not pass."""
    path = copy.folder / "index.parquet"
    table = pq.read_table(path)
    moved = table.set_column(
        table.column_names.index("offset"), "offset", pa.array([n + 1 for n in table["offset"].to_pylist()])
    )
    pq.write_table(moved, path)
    assert [fault.split(":")[0] for fault in verify(copy)] == ["index.parquet"] * len(copy.shards)
    pq.write_table(table.slice(1), path)
    assert verify(copy) == ["index.parquet: differs from train-00000.parquet"]
    path.write_bytes(b"")
    (fault,) = verify(copy)
    assert fault.startswith("index.parquet: missing or damaged")


def test_a_map_of_the_index_that_changed(copy):
    """All trainings read by it, and the shards are blamed for what it says."""
    rows_of(copy)
    assert verify(copy) == []
    flip(copy.folder / "maps" / "rows.map", 4100)
    assert verify(copy) == ["maps/rows.map: its bytes changed since it was written: remove it, it is made again"]


def test_two_processes_find_the_same(copy):
    flip(copy.folder / "val-00000.tar", 1000)
    assert verify(copy, workers=2) == verify(copy)


def test_members_are_counted(copy):
    """A tar that is what its JSON says, but not three files a sample."""
    tar = copy.folder / "train-00000.tar"
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("more.txt"), io.BytesIO())
    rows = pq.read_table(copy.folder / "train-00000.parquet").num_rows
    shard = {"shard": "train-00000", "count": rows, "bytes": tar.stat().st_size, "sha256": sha256(tar)}
    faults, _ = verify_shard(copy.folder, shard)
    assert faults == [f"train-00000.tar: {3 * rows + 1} members for {rows} samples"]
