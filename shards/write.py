"""One shard: its rows read, cut, checked, and written as a tar of samples. A pure function of the plan.

Commit without a lock: every attempt writes under names of its own; the tar and the Parquet are linked to their final
names, the JSON last. A shard without its JSON does not exist. Attempts that meet have written the same bytes.
"""

import collections
import errno
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from htr.certificate import LONGEST_KEY, clean_text
from htr.images import line as lines
from htr.images.line import BadLine, Region
from shards import files
from shards.plan import Plan

BLOCK = 512  # of a tar
NOT_META = ("key", "image", "text", "polygon", "box", "fault")  # columns of the plan that a sample's JSON does not copy


@dataclass(frozen=True)
class Sample:
    image: bytes
    text: bytes
    note: bytes
    width: int
    height: int


def is_committed(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").exists()


def write_shard(plan: Plan, number: int, images: Path) -> dict:
    """Write and commit the plan's shard of this number; `images` is what its rows' image column is relative to.

    -> what the shard's JSON says. Raises OSError (a full disk) and leaves nothing that could be taken for a shard.
    """
    folder, shard = plan.folder, plan.shards[number]
    name, rows = shard["name"], plan.rows(number)
    tar_path, rows_path = files.temporary(folder / f"{name}.tar"), files.temporary(folder / f"{name}.parquet")
    note_path = files.temporary(folder / f"{name}.json")
    try:
        outcomes, characters, widths = [], collections.Counter(), []
        with open(tar_path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for row, result in zip(rows, make_samples(rows, images, plan.settings), strict=True):
                kept = {column: value for column, value in row.items() if column not in NOT_META}
                entry = {"key": row["key"], **kept, "outcome": "rejected", "reason": None, "offset": None, "size": None}
                entry |= {"text_size": None, "width": None, "height": None, "length": None}
                if isinstance(result, str):
                    entry["reason"] = result
                else:
                    offset = add(tar, row["key"], plan.settings.encoding, result)
                    text = result.text.decode()
                    characters.update(text)
                    widths.append(result.width)
                    entry |= {"outcome": "sample", "offset": offset, "size": len(result.image)}
                    entry |= {"text_size": len(result.text), "width": result.width, "height": result.height}
                    entry["length"] = len(text)
                outcomes.append(entry)
            tar.close()
            file.flush()
            os.fsync(file.fileno())
        pq.write_table(pa.Table.from_pylist(outcomes, schema(rows)), rows_path, compression="zstd")
        rejects = collections.Counter(entry["reason"] for entry in outcomes if entry["reason"])
        note = {
            "shard": name,
            "split": shard["split"],
            "plan": plan.fingerprint,
            "rows": len(rows),
            "count": len(widths),
            "bytes": tar_path.stat().st_size,
            "sha256": sha256(tar_path),
            "rejects": dict(rejects),
            "widths": {"total": sum(widths), "most": max(widths, default=0)},
            "characters": dict(characters),
        }
        with open(rows_path, "rb") as file:
            os.fsync(file.fileno())
        files.write_synced(note_path, files.to_json(note))
        for attempt, ending in ((tar_path, "tar"), (rows_path, "parquet")):
            final = folder / f"{name}.{ending}"
            ours = note["sha256"] if ending == "tar" else sha256(attempt)
            if not files.commit(attempt, final) and sha256(final) != ours:
                if is_committed(folder, name):
                    break
                raise ValueError(
                    f"{final.name} was left by an attempt with other bytes (other versions, another CPU family, or "
                    f"changed images): remove {name}.tar and {name}.parquet and run preprocess again"
                )
        else:
            files.commit(note_path, folder / f"{name}.json")
    except FileNotFoundError:
        # another attempt was first and the index, made since, swept this one's temporary files
        if not is_committed(folder, name):
            raise
    finally:
        for attempt in (tar_path, rows_path, note_path):
            attempt.unlink(missing_ok=True)
    return json.loads((folder / f"{name}.json").read_text())


def make_samples(rows: list[dict], images: Path, settings):
    """For each row a Sample or, if it is rejected, the reason. Lines of one page follow each other: it is read once."""
    name, page = None, None  # page: its pixels, or why there are none
    for row in rows:
        try:
            if row["fault"]:
                raise BadLine(row["fault"])
            if len(row["key"]) > LONGEST_KEY:
                raise BadLine("certificate, field and line make too long a name")
            text = clean_text(row["text"])
            if not text:
                raise BadLine("no text")
            region = Region.parse(row["box"], row["polygon"])
            if row["image"] != name:
                name = row["image"]
                try:
                    page = read_page(images, name)
                except BadLine as reason:
                    page = str(reason)
            if isinstance(page, str):
                raise BadLine(page)
            gray = lines.cut(page, region)
            if not lines.can_carry(gray.shape, text):
                raise BadLine("text is longer than its image can carry")
            yield pack(row, text, gray, region, settings)
        except BadLine as reason:
            yield str(reason)


def read_page(images: Path, name: str) -> np.ndarray:
    """Raises BadLine, also for a name that leads out of the folder of images."""
    if not name:
        raise BadLine("no image")
    path = images / name
    try:
        if not path.resolve().is_relative_to(images.resolve()):
            raise BadLine("image lies outside the source's folder")
        return lines.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        raise error if isinstance(error, BadLine) else BadLine("image file is missing") from None
    except PermissionError:
        raise BadLine("image file may not be read") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: what pathlib makes of a loop of links
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        raise BadLine("image file is missing") from None


def pack(row: dict, text: str, gray: np.ndarray, region: Region | None, settings) -> Sample:
    height, width = gray.shape
    options = [cv2.IMWRITE_JPEG_QUALITY, settings.quality] if settings.encoding == "jpg" else []
    try:
        done, encoded = cv2.imencode("." + settings.encoding, gray, options)
    except cv2.error:
        done = False
    if not done:
        raise BadLine("image is too large to be stored")
    box = [region.x, region.y, region.w, region.h] if region else None
    note = {column: value for column, value in row.items() if column not in NOT_META}
    note |= {"image": row["image"], "box": box, "width": width, "height": height}
    content = json.dumps(note, ensure_ascii=False, sort_keys=True).encode()
    return Sample(encoded.tobytes(), text.encode(), content, width, height)


def add(tar: tarfile.TarFile, key: str, encoding: str, sample: Sample) -> int:
    """KEY.jpg, KEY.txt, KEY.json. -> the offset of the image's first byte; the text begins `text_offset` after it."""
    offset = 0
    for ending, content in ((encoding, sample.image), ("txt", sample.text), ("json", sample.note)):
        info = tarfile.TarInfo(f"{key}.{ending}")  # no time, owner or host: the same bytes wherever it is written
        info.size, info.mode = len(content), 0o640
        tar.addfile(info, io.BytesIO(content))
        if ending == encoding:
            offset = tar.offset - padded(len(content))
    return offset


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def text_offset(image_size: int, key: str, encoding: str) -> int:
    """From an image's first byte to its text's first byte, in a tar that `add` wrote."""
    long_name = len(f"{key}.txt".encode()) > 100  # GNU tar: a header and a block of its own for the name
    return padded(image_size) + BLOCK + (2 * BLOCK if long_name else 0)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def schema(rows: list[dict]) -> pa.Schema:
    kept = [(column, pa.string()) for column in rows[0] if column not in NOT_META]
    numbers = [(name, pa.int64()) for name in ("offset", "size", "text_size", "width", "height", "length")]
    return pa.schema([("key", pa.string()), *kept, ("outcome", pa.string()), ("reason", pa.string()), *numbers])
