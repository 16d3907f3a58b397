"""Read every byte of a data set and say what is wrong with which shard."""

import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.worker_pool import each_in_order
from shards import files
from shards.columns import changed
from shards.index import Index
from shards.precomputed import folders, verify_lines

PLACE_COLUMNS = ("key", "offset", "size", "text_size", "width", "height", "length")


def verify(index: Index, workers: int = 1, read: Callable[[], None] = lambda: None) -> list[str]:
    """Read every shard, its lines where they were precomputed, and the maps of the index. -> the faults, a line each;
    empty where every shard is as it was committed and agrees with the index.

    `read` is called after each shard.
    """
    try:
        columns = [*PLACE_COLUMNS, "shard"]
        placed = pq.read_table(index.folder / "index.parquet", columns=columns, read_dictionary=["shard"])
    except (OSError, ValueError):
        return ["index.parquet: missing or damaged; the same preprocess, run again, makes it anew"]
    known = {shard["shard"] for shard in index.shards}
    named = set(placed["shard"].unique().to_pylist())
    faults = [f"index.parquet: names the shard {name}, which index.json does not" for name in sorted(named - known)]
    found = []
    for outcome in each_in_order(partial(verify_shard, index.folder), index.shards, workers):
        found.append(outcome)
        read()
    starts = starts_of(placed)
    for shard, (wrong, rows) in zip(index.shards, found, strict=True):
        faults += wrong
        if rows is not None and not wrong:
            start, count = starts.get(shard["shard"], (0, 0))
            if not same(placed.slice(start, count), rows):
                faults.append(f"index.parquet: differs from {shard['shard']}.parquet")
    maps = [path for path in sorted((index.folder / "maps").glob("*.map")) if changed(path)]
    return faults + [
        f"maps/{path.name}: its bytes changed since it was written: remove it, it is made again" for path in maps
    ]


def starts_of(placed: pa.Table) -> dict[str, tuple[int, int]]:
    """For each shard where its rows are in the index: (first row, number of rows)."""
    codes = placed["shard"].combine_chunks()
    runs = pc.run_end_encode(codes.cast(pa.string()))
    ends = runs.run_ends.to_pylist()
    names = runs.values.to_pylist()
    return {name: (start, end - start) for name, start, end in zip(names, [0, *ends[:-1]], ends, strict=True)}


def same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether both tables have equal columns and cells."""
    return ours.num_rows == theirs.num_rows and all(
        ours[name].combine_chunks().equals(theirs[name].combine_chunks()) for name in PLACE_COLUMNS
    )


def verify_shard(folder: Path, shard: dict) -> tuple[list[str], pa.Table | None]:
    """-> the shard's faults, and a table of where its samples lie, None where it can't be read."""
    name = shard["shard"]
    tar, table, note = folder / f"{name}.tar", folder / f"{name}.parquet", folder / f"{name}.json"
    if not tar.exists():
        return [f"{tar.name}: missing"], None
    size = tar.stat().st_size
    if size != shard["bytes"]:
        return [f"{tar.name}: {size} bytes, {shard['bytes']} were committed"], None
    if files.sha256(tar) != shard["sha256"]:
        return [f"{tar.name}: its bytes changed since it was committed (sha256)"], None
    try:
        committed = json.loads(note.read_text(encoding="utf-8"))["sha256_rows"]
    except (OSError, ValueError, KeyError):
        return [f"{note.name}: missing or damaged"], None
    try:
        if files.sha256(table) != committed:
            return [f"{table.name}: its bytes changed since it was committed (sha256)"], None
        rows = pq.read_table(table)
    except (OSError, ValueError):
        return [f"{table.name}: missing or damaged"], None
    if wrong := [fault for lines in folders(folder) for fault in verify_lines(lines, shard)]:
        return wrong, None
    rows = rows.filter(pc.equal(rows["outcome"], "sample"))
    with tarfile.open(tar) as archive:
        places = {member.name: (member.offset_data, member.size) for member in archive}
    if len(places) != 3 * shard["count"]:
        return [f"{tar.name}: {len(places)} members for {shard['count']} samples"], None
    if rows.num_rows != shard["count"]:
        return [f"{table.name}: {rows.num_rows} samples, {shard['count']} in the tar"], None
    images = {name.rsplit(".", 1)[0]: place for name, place in places.items() if not name.endswith((".txt", ".json"))}
    for row in rows.select(["key", "offset", "size"]).to_pylist():
        if images.get(row["key"]) != (row["offset"], row["size"]):
            return [f"{table.name}: an image does not lie where it says"], None
    return [], rows.select(PLACE_COLUMNS)
