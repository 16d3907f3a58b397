"""Inputs of transcribe: a folder of images, pages with XML, a table, a data set; cut into chunks in a fixed order.

The order, and where chunks end, hang on the input alone, so that every task finds the same by itself. A chunk holds
what a worker process needs to read its images, and no more.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from htr.certificate import log_name
from htr.io import sources
from htr.io.account import Account
from htr.io.folders import ENDINGS
from htr.io.page_content import local
from htr.io.pages import METADATA, open_tree, parse, tree_kind
from htr.io.trees import FolderTree, Tree
from htr.lines.normalise import RejectedInput, cut
from jobs.transcription.tiff_pages import pages_of, with_pages
from shards.scans import MISSING_FILE, Scans

COLUMNS = ("image", "page", "certificate", "field", "line", "box", "polygon", "baseline", "page_size", "turn", "reject")
LEVELS = ("line", "field", "part")  # of a data set's samples: a field's parts are its images
MAX_CERTIFICATE_ROWS = 20_000  # lines or scans of one certificate, which are never parted
Item = tuple[dict, list[np.ndarray], str]  # what is known of it; gray (H, W) uint8 of its lines, or none and the reason


@dataclass(frozen=True)
class Chunk:
    """Some items of an input, which can be sent to another process."""

    kind: str
    folder: Path  # that the images' names are relative to, or of the data set
    rows: list[dict]
    samples: pa.Table | None = None  # of a data set: rows of its index

    def items(self) -> Iterator[Item]:
        """The items with their images. Raises OSError where storage fails; the message names no image."""
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
    """What there is to read, in a fixed order, and how it is cut into chunks."""

    kind: str  # lines, samples or fields
    unit: str  # of what is counted
    count: int
    digest: str  # of what it is: another one is another input
    images: Path  # the folder that the images' names are relative to
    chunk: Callable[[int, int], Chunk]  # of the items of these numbers: the first, the last + 1
    starts: np.ndarray | None = None  # the numbers at which a chunk may begin: a certificate is in one; None: at any
    scattered: bool = False  # whether the rows of some certificate do not follow each other
    account: dict = field(default_factory=dict)  # of what is there, see htr.io.account

    def chunks(self, size: int) -> list[tuple[int, int]]:
        """For each chunk its first item, and the one after its last. A chunk has about `size` items, and whole
        certificates."""
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


def open_input(
    path: Path, unit: str, split: str | None = None, where: Sequence[str] = (), quotes: str = "auto"
) -> Input:
    """Find out what the path is, and open it: a data set, an image, images, pages with XML, or a table.

    `unit`: line, or field (scans of forms); `split`, `where`: of a data set; `quotes`: of a CSV. Raises ValueError:
    nothing that can be read, or options that don't go with it.
    """
    if (path / "index.json").exists() or (path / "plan.json").exists():
        if unit == "field":
            raise ValueError(f"{path}: a data set holds lines: leave out --unit field, or name the scans")
        return data_set(path, split, list(where))
    if split or where:
        raise ValueError(f"{path}: --split and --where choose from a data set, and this is not one (no index.json)")
    try:
        sources.images_of(path)
    except ValueError as error:
        raise ValueError(str(error).replace("no such table or folder", "no such table, image or folder")) from None
    if path.suffix.lower() in ENDINGS and path.is_file():
        return images(FolderTree(path.parent, [path.name]), path.parent, unit, Account(there=1))
    if tree_kind(path):
        account = Account()
        tree = open_tree(path, account, wants_xml=unit != "field")
        if not tree.images and not tree.xml:
            kinds = ", ".join(ENDINGS)
            raise ValueError(f"{path}: no image ({kinds}), no ALTO or PAGE XML and no data set in it")
        if tree.images and (unit == "field" or not any_lines(tree)):
            account.pass_over("XML, which is not read with images that are lines or scans", len(tree.xml))
            return images(tree, sources.images_of(path), unit, account)
    return table(path, unit, quotes)


def any_lines(tree: Tree) -> bool:
    """Whether any XML of the tree is a page, rather than metadata beside images. Raises ValueError for XML that is
    broken."""
    return any(local(parse(tree, name)) not in METADATA for name in tree.xml)


def images(tree: Tree, folder: Path, unit: str, account: Account) -> Input:
    """Every image of the tree, and every page of a TIFF, is a line or a scan, and a certificate of its own. The images'
    names are relative to `folder`."""
    names = [tree.prefix + name for name in tree.images]
    account.kinds["images"] += len(names)
    ids = [os.path.splitext(name)[0] for name in names]
    if len(set(ids)) < len(ids):  # the same name with two endings
        ids = names
    pages = pages_of(folder, names)
    if pages:
        further = sum(len(found) - 1 for found in pages.values())
        account.note(f"{folder}: {len(pages)} TIFFs have {further} further pages, each is read as one of its own")
    each = [(name, own, page) for name, own in zip(names, ids, strict=True) for page in pages.get(name, ("",))]
    digest = hashlib.sha256()
    try:
        for name, _, page in each:
            digest.update(name.encode() + b"\0" + (f"{page}\0".encode() if page else b""))
    except UnicodeEncodeError:
        raise ValueError(f"{folder}: a file's name below it is not UTF-8, please rename it (convmv does)") from None

    def chunk(first: int, last: int) -> Chunk:
        empty = dict.fromkeys(COLUMNS, "")
        rows = [
            empty | {"image": name, "page": page, "certificate": f"{own}-{int(page) + 1}" if page else own}
            for name, own, page in each[first:last]
        ]
        return Chunk(kind, folder, rows)

    kind, counted = ("fields", "scans") if unit == "field" else ("lines", "lines")
    return Input(kind, counted, len(each), digest.hexdigest(), folder, chunk, account=account.as_dict())


def table(path: Path, unit: str, quotes: str = "auto") -> Input:
    """Every row is a line; if the unit is field, every image that the rows name is a scan. Where a row names neither
    page nor box, each page of a TIFF is one."""
    account = Account()
    rows, kind, counted = read_table(path, quotes, account), "lines", "lines"
    if unit == "field":
        kind, counted = "fields", "scans"
        plain = pa.table({name: rows[name].cast(pa.string()) for name in ("image", "page", "certificate")})
        # with threads they would not come in the order in which they are first named
        groups = plain.group_by(["image", "page"], use_threads=False).aggregate([("certificate", "first")])
        empty = pa.array([""] * groups.num_rows)
        rows = groups.rename_columns(["image", "page", "certificate"])
        for name in COLUMNS[3:]:
            rows = rows.append_column(name, empty)
    folder = sources.images_of(path)
    rows = with_pages(rows, folder, account)
    starts, scattered = whole_certificates(rows["certificate"], rows["image"])

    def chunk(first: int, last: int) -> Chunk:
        some = rows.slice(first, last - first).to_pylist()
        own = [{"certificate": row["certificate"] or os.path.splitext(row["image"])[0]} for row in some]
        return Chunk(kind, folder, [row | name for row, name in zip(some, own, strict=True)])

    digest, known = sources.digest(path), account.as_dict()
    return Input(kind, counted, rows.num_rows, digest, folder, chunk, starts, scattered, known)


def whole_certificates(certificates: pa.ChunkedArray, names: pa.ChunkedArray) -> tuple[np.ndarray, bool]:
    """-> the rows at which a new certificate begins (by its name, or by `names` where it has none); whether the rows of
    any certificate do not follow each other."""
    certificate, name = sources.encode(certificates), sources.encode(names)
    codes, unnamed = certificate.indices.to_numpy(), certificate.dictionary.index("").as_py()
    codes = np.where(codes == unnamed, len(certificate.dictionary) + name.indices.to_numpy(), codes)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return starts, len(np.unique(codes)) < len(starts)


def item(row: dict, scans: Scans) -> Item:
    """The row, with the box of its region and the size of its page, and its image or the reason why there is none."""
    known = dict(row)
    try:
        if row["reject"]:
            raise RejectedInput(row["reject"])
        page, region = scans.cut_from(row)
        if region:
            known["box"] = f"{region.x} {region.y} {region.w} {region.h}"
            if row["page_size"] and region.polygon is not None:  # in pixels of the image, as the box is
                known["polygon"] = " ".join(f"{x},{y}" for x, y in region.polygon.tolist())
            if region.baseline is not None and (row["page_size"] or region.turn):
                known["baseline"] = " ".join(f"{x:g},{y:g}" for x, y in region.baseline.tolist())
            known["turn"] = str(region.turn or "")
        if row["page_size"]:  # of what was read: who reads it again takes the pixels as they are stored, too
            known["page_size"] = f"{page.shape[1]} {page.shape[0]}"
        known["height"], known["width"] = page.shape
        return known, [cut(page, region)], ""
    except RejectedInput as reason:
        near = scans.nearest.get(row["image"]) if str(reason) == MISSING_FILE else ""
        return known, [], f"{reason} (the nearest name there is: {near})" if near else str(reason)


def read_table(path: Path, quotes: str, account: Account) -> pa.Table:
    """The columns COLUMNS as text, empty where the table has none of this name. A column of texts is not needed.

    Raises ValueError: no table, no column `image`, a column that is there twice, or one that can't be read as text.
    """
    sources.images_of(path)
    found = sources.read_any(path, quotes, account)
    if not tree_kind(path) and "reject" in found.column_names:
        found = found.drop_columns(["reject"])  # why a text was no good, or is not there yet: it is to be read
    names = [name for name in COLUMNS if name in found.column_names]
    if "image" not in names:
        raise ValueError(f"{path}: {sources.no_column(['image'], found.column_names)}")
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
    """The lines and written fields of a split, or of all splits, in the order of their shards; `where` may name other
    levels.

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

    asked = f"{index.digest} {split} {sorted(where)}"  # of its shards: the same rows may have other images now
    digest = hashlib.sha256(asked.encode()).hexdigest()
    starts, scattered = whole_certificates(known["certificate"], known["key"])
    return Input("samples", "texts", len(samples), digest, index.folder, chunk, starts, scattered)
