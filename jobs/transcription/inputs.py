"""What transcribe is given: a folder of images, pages with XML, a table, a data set; cut into chunks in a fixed order.

The order, and where chunks end, hang on the input alone, so that every task finds the same by itself. A chunk holds
what a worker process needs to read its images, and no more.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from htr.certificate import log_name
from htr.io import sources
from htr.io.pages import ENDINGS
from htr.lines.normalise import Region, RejectedInput, cut
from shards.scans import Scans

COLUMNS = ("image", "page", "certificate", "field", "line", "box", "polygon", "baseline")
LEVELS = ("line", "field", "part")  # of a data set's samples: a field's parts are its images
MAX_CERTIFICATE_ROWS = 20_000  # lines or scans of one certificate, which are never parted
Item = tuple[dict, list[np.ndarray], str]  # what is known of it; gray (H, W) uint8 of its lines, or none and the reason


@dataclass(frozen=True)
class Chunk:
    """Some items of an input, to be sent to another process."""

    kind: str
    folder: Path  # that the images' names are relative to, or of the data set
    rows: list[dict]
    samples: pa.Table | None = None  # of a data set: rows of its index

    def items(self) -> Iterator[Item]:
        """Raises OSError where storage fails, which never names an image."""
        if self.samples is not None:
            yield from self.stored()
            return
        scans = Scans(self.folder)
        for row in self.rows:
            try:
                yield item(row, scans)
            except OSError as error:
                name = log_name(f"{row['image']} {row['page']}")
                raise OSError(error.errno, f"{error.strerror or type(error).__name__} at {name}") from None

    def stored(self) -> Iterator[Item]:
        from shards.loader import Samples

        samples = Samples(self.folder, self.samples)
        try:
            for number, row in enumerate(self.rows):
                yield row, samples.read(number)[0], ""
        finally:
            samples.close()


@dataclass(frozen=True)
class Input:
    kind: str  # lines, samples or fields
    unit: str  # of what is counted
    count: int
    digest: str  # of what it is: another one is another input
    images: Path  # the folder that the images' names are relative to
    chunk: Callable[[int, int], Chunk]  # of the items of these numbers: the first, the last + 1
    starts: np.ndarray | None = None  # the numbers at which a chunk may begin: a certificate is in one; None: at any
    scattered: bool = False  # whether the rows of some certificate do not follow each other

    def chunks(self, size: int) -> list[tuple[int, int]]:
        """The first item and the last + 1 of each chunk: about `size` items, whole certificates."""
        if self.starts is None:
            return [(first, min(first + size, self.count)) for first in range(0, self.count, size)]
        ends, found, first = np.append(self.starts[1:], self.count), [], 0
        while first < self.count:
            place = max(np.searchsorted(ends, first + size, side="right") - 1, np.searchsorted(ends, first + 1))
            last = int(ends[place])
            if last - first > max(MAX_CERTIFICATE_ROWS, size):
                raise ValueError(
                    f"{last - first} {self.unit} in a row are of one certificate: at most {MAX_CERTIFICATE_ROWS} may be"
                )
            found.append((first, last))
            first = last
        return found


def open_input(path: Path, unit: str, split: str | None = None, where: Sequence[str] = ()) -> Input:
    """Raises ValueError: nothing that can be read, or options that don't go with it."""
    if (path / "index.json").exists() or (path / "plan.json").exists():
        if unit == "field":
            raise ValueError(f"{path}: a data set holds lines: leave out --unit field, or name the scans")
        return data_set(path, split, list(where))
    if split or where:
        raise ValueError(f"{path}: --split and --where choose from a data set; this is none (no index.json)")
    if not path.exists():
        raise ValueError(f"{path}: no such table, image or folder")
    if path.suffix.lower() in ENDINGS and path.is_file():
        return images(path.parent, [path.name], unit)
    if path.is_dir():
        names, pages = files_below(path)
        if not names and not pages:
            kinds = ", ".join(ENDINGS)
            raise ValueError(f"{path}: no image ({kinds}), no ALTO or PAGE XML and no data set in this folder")
        if not pages:
            return images(path, names, unit)
    return table(path, unit)


def files_below(folder: Path) -> tuple[list[str], bool]:
    """-> names of all images below the folder, in order, hidden ones left out; whether there is any XML.

    No file is opened: half a million scans take seconds. Links to folders are not followed.
    """
    names, pages, waiting = [], False, [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = entry.name.lower()
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                elif name.endswith(ENDINGS):
                    if not name.startswith(".") and entry.is_file():
                        names.append(below + entry.name)
                elif name.endswith(".xml"):
                    pages = pages or entry.is_file()
    return sorted(names), pages


def images(folder: Path, names: list[str], unit: str) -> Input:
    """Every image a line or a scan, and a certificate of its own."""
    digest = hashlib.sha256()
    try:
        for name in names:
            digest.update(name.encode() + b"\0")
    except UnicodeEncodeError:
        raise ValueError(f"{folder}: a file's name below it is not UTF-8, please rename it (convmv does)") from None
    ids = [os.path.splitext(name)[0] for name in names]
    if len(set(ids)) < len(ids):  # the same name with two endings
        ids = names

    def chunk(first: int, last: int) -> Chunk:
        empty = dict.fromkeys(COLUMNS, "")
        some = zip(names[first:last], ids[first:last], strict=True)
        return Chunk(kind, folder, [empty | {"image": name, "certificate": own} for name, own in some])

    kind, counted = ("fields", "scans") if unit == "field" else ("lines", "lines")
    return Input(kind, counted, len(names), digest.hexdigest(), folder, chunk)


def table(path: Path, unit: str) -> Input:
    """A row a line; or, if the unit is field, each image that the rows name a scan."""
    rows, kind, counted = read_table(path), "lines", "lines"
    if unit == "field":
        kind, counted = "fields", "scans"
        plain = pa.table({name: rows[name].cast(pa.string()) for name in ("image", "page", "certificate")})
        # with threads they would not come in the order in which they are first named
        groups = plain.group_by(["image", "page"], use_threads=False).aggregate([("certificate", "first")])
        empty = pa.array([""] * groups.num_rows)
        rows = groups.rename_columns(["image", "page", "certificate"])
        for name in COLUMNS[3:]:
            rows = rows.append_column(name, empty)
    starts, scattered = whole_certificates(rows["certificate"], rows["image"])
    folder = sources.images_of(path)

    def chunk(first: int, last: int) -> Chunk:
        some = rows.slice(first, last - first).to_pylist()
        own = [{"certificate": row["certificate"] or os.path.splitext(row["image"])[0]} for row in some]
        return Chunk(kind, folder, [row | name for row, name in zip(some, own, strict=True)])

    return Input(kind, counted, rows.num_rows, sources.digest(path), folder, chunk, starts, scattered)


def whole_certificates(certificates: pa.ChunkedArray, names: pa.ChunkedArray) -> tuple[np.ndarray, bool]:
    """-> the rows with which a certificate begins, or another name where none is given; whether one begins twice."""
    certificate, name = sources.encode(certificates), sources.encode(names)
    codes, unnamed = certificate.indices.to_numpy(), certificate.dictionary.index("").as_py()
    codes = np.where(codes == unnamed, len(certificate.dictionary) + name.indices.to_numpy(), codes)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return starts, len(np.unique(codes)) < len(starts)


def item(row: dict, scans: Scans) -> Item:
    """The row with the box that its region has and the size of its page, if that can be read."""
    known = dict(row)
    try:
        region = Region.parse(row["box"], row["polygon"], row["baseline"])
        if region:
            known["box"] = f"{region.x} {region.y} {region.w} {region.h}"
        page = scans.read(row["image"], row["page"])
        known["height"], known["width"] = page.shape
        return known, [cut(page, region)], ""
    except RejectedInput as reason:
        return known, [], str(reason)


def read_table(path: Path) -> pa.Table:
    """The columns of WANTED as text, empty where the table has none. A text column is not needed.

    Raises ValueError: no table, no column image, one that is there twice, or one that is no text.
    """
    sources.images_of(path)
    read = sources.read_folder if path.is_dir() else sources.read_csv
    found = sources.read_parquet(path) if sources.is_parquet(path) else read(path)
    names = [name for name in COLUMNS if name in found.column_names]
    if "image" not in names:
        raise ValueError(f"{path}: no column image (it has {', '.join(found.column_names)})")
    if twice := [name for name in names if found.column_names.count(name) > 1]:
        raise ValueError(f"{path}: more than one column {', '.join(twice)}")
    columns = {name: pa.DictionaryArray.from_arrays(np.zeros(found.num_rows, np.int8), [""]) for name in COLUMNS}
    for name in names:
        try:
            columns[name] = sources.as_text(found, name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # Arrow's message may quote a cell
            raise ValueError(f"{path}: column {name} can't be read as text in UTF-8") from None
    return pa.table(columns)


def data_set(folder: Path, split: str | None, where: list[str]) -> Input:
    """The lines and written fields of a split, or of all, in the order of their shards; `where` may name other levels.

    Raises ValueError: no data set, or no such sample.
    """
    from htr.certificate import SPLITS
    from jobs.training.config import parse_where
    from shards.index import read_index
    from shards.loader import Samples

    index, wanted, parts, failure = read_index(folder), {"level": LEVELS} | parse_where(where), [], None
    for name in [split] if split else [name for name in SPLITS if index.totals.get(name)]:
        try:
            parts.append(index.samples(name, wanted))
        except ValueError as error:  # of all splits one may have none
            failure = error
    if not parts:
        raise failure
    rows = pa.concat_tables(parts)
    samples = Samples(index.folder, rows)
    known = rows.select(["key", "split", "certificate", "field", "line"]).take(pa.array(samples.text_row))

    def chunk(first: int, last: int) -> Chunk:
        # with the images of the last one; a copy, as a slice would be sent with all that it is a slice of
        begin, end = samples.text_row[first], samples.first[last - 1] + samples.count[last - 1]
        some = rows.take(pa.array(np.arange(begin, end)))
        return Chunk("samples", index.folder, known.slice(first, last - first).to_pylist(), some)

    asked = f"{index.fingerprint} {split} {sorted(where)}"
    digest = hashlib.sha256(asked.encode()).hexdigest()
    starts, scattered = whole_certificates(known["certificate"], known["key"])
    return Input("samples", "texts", len(samples), digest, index.folder, chunk, starts, scattered)
