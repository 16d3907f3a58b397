"""Lines ready-made beside their shards, as a model of one height sees them: evened, scaled, coded without loss.

    lines-48/NAME.lines   of a shard, at this height: a head (HEAD), where the record of each of its samples begins (8
                          bytes each, and the end of the last one), the records (see shards.decoding), the SHA-256
    lines-48/lines.json   written last: of which index they are, and by which code they were made

A record is of a text: its lines, the text, its key, so that a worker reads nothing else. Samples that are no text of
their own (lines of a field, ticks, pages) have an empty one. They are made of the stored images as a worker makes them,
bit for bit where OpenCV computes alike. Shards stay as they are.
"""

import contextlib
import hashlib
import inspect
import json
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pyarrow.parquet as pq

from htr.lines import normalise
from shards import files
from shards.decoding import CODED, PLACES_AT, pack_record
from shards.index import Index
from shards.reading import COLUMNS, Samples

MAGIC, FORMAT = b"htrlines", 2  # 2: each record has its sum
HEAD = struct.Struct("<8sHHQQ32s16s")  # MAGIC, FORMAT, height, samples, bytes of the file, the tar's SHA-256, `code`
LEVELS = ("line", "field", "part", "blank")  # what a reader learns from
NOTE = "lines.json"
ENDING = ".lines"  # of the file of a shard


def folder_of(dataset: Path, height: int) -> Path:
    return dataset / f"lines-{height}"


@cache
def code() -> str:
    """Of what makes a line what it is. 16 hexadecimal digits."""
    made = inspect.getsource(normalise.normalise_line), normalise.MIN_LINE_WIDTH_PX, normalise.MAX_LINE_WIDTH_PX
    made += normalise.PAPER_KERNEL.shape, cv2.__version__, FORMAT
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------- made


def finished(index: Index, height: int) -> set[str]:
    """The shards whose lines are made. Raises ValueError where they are of other shards or of another version."""
    folder = folder_of(index.folder, height)
    try:
        there = set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    found = {shard["shard"]: shard for shard in index.shards if f"{shard['shard']}{ENDING}" in there}
    for name, shard in found.items():
        if fault := fault_of_head(folder / f"{name}{ENDING}", shard, height):
            raise ValueError(f"{folder / name}{ENDING}: {fault}: remove {folder} and give the same command again")
    return set(found)


def fault_of_head(path: Path, shard: dict, height: int) -> str:
    """What is wrong with a file by its head and size; empty if nothing is."""
    with files.named(path), open(path, "rb") as file:
        head, size = file.read(HEAD.size), os.fstat(file.fileno()).st_size
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        return "no lines of a shard"
    _, form, high, samples, whole, digest, made = HEAD.unpack(head)
    if (form, made) != (FORMAT, code().encode()):
        return "made by another version"
    if (digest.hex(), high, samples) != (shard["sha256"], height, shard["count"]):
        return "made of another shard"
    return "" if size == whole else f"{size} bytes, {whole} were written"


def write_lines(dataset: Path, shard: dict, height: int, progress: Callable[[], object] = lambda: None) -> None:
    """Make and commit the lines of one shard. `shard`: its entry in index.json; `progress`: called after each sample.
    Raises ValueError naming a shard that is damaged, OSError (a full disk), and leaves nothing half written."""
    path = folder_of(dataset, height) / f"{shard['shard']}{ENDING}"
    table = pq.read_table(dataset / f"{shard['shard']}.parquet", columns=[*(set(COLUMNS) - {"shard"}), "outcome"])
    table = table.filter([outcome == "sample" for outcome in table["outcome"].to_pylist()])
    if table.num_rows != shard["count"]:
        raise ValueError(f"{dataset / shard['shard']}.parquet: not that of the index (see python -m jobs verify)")
    chosen = np.flatnonzero([level in LEVELS for level in table["level"].to_pylist()])
    some = table.take(chosen).append_column("shard", [[shard["shard"]] * len(chosen)])
    samples = Samples(dataset, some)
    record_of = {int(chosen[row]): text for text, row in enumerate(samples.text_row)}
    path.parent.mkdir(exist_ok=True)

    def records() -> Iterator[bytes]:
        for sample in range(table.num_rows):
            yield record_at(samples, record_of.get(sample), height)
            progress()

    with (
        contextlib.closing(samples),
        files.first_at(path) as attempt,
        files.named(path),
        open(attempt, "wb", buffering=1 << 20) as file,
    ):
        fill(file, records(), shard, height)


def fill(file: BinaryIO, records: Iterable[bytes], shard: dict, height: int) -> None:
    """Write the records of a shard's samples, what comes before them, and the sum of all."""
    places, digest = np.zeros(shard["count"] + 1, "<u8"), hashlib.sha256()
    end = places[0] = PLACES_AT + places.nbytes
    file.seek(end)
    for sample, record in enumerate(records):
        end += len(record)
        places[sample + 1] = end
        file.write(record)
        digest.update(record)
    head = (MAGIC, FORMAT, height, shard["count"], end + digest.digest_size, bytes.fromhex(shard["sha256"]))
    start = HEAD.pack(*head, code().encode()).ljust(PLACES_AT, b"\0") + places.tobytes()
    digest.update(start)
    file.write(digest.digest())
    file.seek(0)
    file.write(start)


def record_at(samples: Samples, text: int | None, height: int) -> bytes:
    if text is None:
        return b""
    images, written = samples.read(text)
    lines = [normalise.normalise_line(gray, height) for gray in images]
    return pack_record(lines, written, samples.key(text), CODED)


def write_note(index: Index, height: int) -> int:
    """Say that the lines of all shards are there. -> their bytes."""
    folder = folder_of(index.folder, height)
    size = sum((folder / f"{shard['shard']}{ENDING}").stat().st_size for shard in index.shards)
    for left in folder.glob(f".*{ENDING}.*.tmp"):  # of attempts that were killed
        left.unlink(missing_ok=True)
    note = {"format": FORMAT, "index": index.digest, "height": height, "code": code(), "bytes": size}
    files.replace(folder / NOTE, files.to_json(note))
    return size


# ---------------------------------------------------------------------------- found, verified


def find(index: Index, height: int) -> tuple[Path | None, str]:
    """-> the folder of the lines at this height, None where they are not whole; and then, where there are some, why
    they are not used."""
    folder = folder_of(index.folder, height)
    try:
        note = dict(json.loads(files.read_text(folder / NOTE)))
    except FileNotFoundError:
        return None, f"{folder} is not whole" if folder.is_dir() else ""
    except OSError as error:
        return None, f"{folder / NOTE} can't be read ({error.strerror})"
    except (ValueError, TypeError):
        return None, f"{folder / NOTE} is damaged"
    if (note.get("format"), note.get("code")) != (FORMAT, code()):
        return None, f"{folder} was made by another version: remove it, and make it anew"
    return (folder, "") if note.get("index") == index.digest else (None, f"{folder} is of an earlier index")


def folders(dataset: Path) -> list[Path]:
    """Those of all heights."""
    return sorted(path for path in dataset.glob("lines-*") if re.fullmatch(r"lines-\d+", path.name))


def verify_lines(folder: Path, shard: dict) -> list[str]:
    """What is wrong with this shard's lines in a folder of them, a line each."""
    path = folder / f"{shard['shard']}{ENDING}"
    name = f"{folder.name}/{path.name}"
    if not path.exists():
        return [f"{name}: missing"] if (folder / NOTE).exists() else []
    if fault := fault_of_head(path, shard, int(folder.name.partition("-")[2])):
        return [f"{name}: {fault}"]
    content = np.memmap(path, np.uint8, "r")
    begin = PLACES_AT + 8 * (shard["count"] + 1)
    digest = hashlib.sha256(content[begin:-32])
    digest.update(content[:begin])
    good = digest.digest() == content[-32:].tobytes()
    return [] if good else [f"{name}: its bytes changed since it was written (sha256)"]
