"""Read every byte of a data set and say what is wrong with which shard."""

import io
import tarfile
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.index import Index
from shards.write import sha256


def verify(index: Index) -> list[str]:
    """-> the faults, one line each; none when every shard is as it was committed."""
    return [fault for shard in index.shards for fault in verify_shard(index.folder, shard)]


def verify_shard(folder: Path, shard: dict) -> list[str]:
    tar, table = folder / f"{shard['shard']}.tar", folder / f"{shard['shard']}.parquet"
    if not tar.exists():
        return [f"{tar.name}: missing"]
    size = tar.stat().st_size
    if size != shard["bytes"]:
        return [f"{tar.name}: {size} bytes, {shard['bytes']} were committed"]
    if sha256(tar) != shard["sha256"]:
        return [f"{tar.name}: its bytes changed since it was committed (sha256)"]
    with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as archive:
        names = archive.getnames()
    if len(names) != 3 * shard["count"]:
        return [f"{tar.name}: {len(names)} members for {shard['count']} samples"]
    try:
        rows = pq.read_table(table)
    except (OSError, ValueError):
        return [f"{table.name}: missing or damaged"]
    counted = rows.filter(pc.equal(rows["outcome"], "sample")).num_rows
    return [] if counted == shard["count"] else [f"{table.name}: {counted} samples, {shard['count']} in the tar"]
