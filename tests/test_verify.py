"""Every fault is named with its file, and a whole data set has none."""

import io
import re
import shutil
import tarfile

import pyarrow.parquet as pq
import pytest

from shards.index import Index, read_index
from shards.verify import verify, verify_shard
from shards.write import sha256


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
        ("parquet", lambda path: path.write_bytes(path.read_bytes()[:-9]), "missing or damaged"),
        ("parquet", lambda path: path.write_bytes(b""), "missing or damaged"),
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
    shards = {shard["shard"]: shard["count"] for shard in copy.shards}
    other = next(name for name, count in shards.items() if count != shards["train-00000"])
    shutil.copy(copy.folder / f"{other}.parquet", copy.folder / "train-00000.parquet")
    (fault,) = verify(copy)
    assert fault.startswith(f"train-00000.parquet: {shards[other]} samples")


def test_members_are_counted(copy):
    """A tar that is what its JSON says, but not three files a sample."""
    tar = copy.folder / "train-00000.tar"
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo("more.txt"), io.BytesIO())
    rows = pq.read_table(copy.folder / "train-00000.parquet").num_rows
    shard = {"shard": "train-00000", "count": rows, "bytes": tar.stat().st_size, "sha256": sha256(tar)}
    assert verify_shard(copy.folder, shard) == [f"train-00000.tar: {3 * rows + 1} members for {rows} samples"]
