"""What transcribe is given: a folder of images, pages with XML, a table, a data set; each as items in a fixed order."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from htr.images import sources
from htr.images.line import BadLine, Region, cut
from htr.images.pages import ENDINGS, xml_files
from shards.scans import Scans

BLOCK = 1000  # rows of a table that are Python's at once
REGION = ("box", "polygon", "baseline")
WANTED = ("image", "page", "certificate", "field", "line", *REGION)
LEVELS = ("line", "field", "part")  # of a data set's samples: a field's parts are its images
Item = tuple[dict, list[np.ndarray], str]  # what is known of it; gray (H, W) uint8 of its lines, or none and the reason


@dataclass(frozen=True)
class Input:
    kind: str  # lines, samples or fields
    unit: str  # of what is counted
    count: int
    items: Callable[[int, int], Iterator[Item]]  # those of these numbers: the first, the last + 1
    close: Callable[[], None] = lambda: None


def open_input(args: argparse.Namespace) -> Input:
    """Raises ValueError: nothing that can be read, or options that don't go with it."""
    path = args.input
    if (path / "index.json").exists() or (path / "plan.json").exists():
        if args.unit == "field":
            raise ValueError(f"{path}: a data set holds lines: leave out --unit field, or name the scans")
        return data_set(path, args.split, args.where)
    if args.split or args.where:
        raise ValueError(f"{path}: --split and --where choose from a data set; this is none (no index.json)")
    if not path.exists():
        raise ValueError(f"{path}: no such table, image or folder")
    if path.suffix.lower() in ENDINGS and path.is_file():
        return images(path.parent, [path.name], args.unit)
    if path.is_dir() and not xml_files(path):
        names = [str(file.relative_to(path)) for file in sorted(path.rglob("*")) if is_image(file)]
        if not names:
            kinds = ", ".join(ENDINGS)
            raise ValueError(f"{path}: no image ({kinds}), no ALTO or PAGE XML and no data set in this folder")
        return images(path, names, args.unit)
    return table(path, args.unit)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.is_file()


def images(folder: Path, names: list[str], unit: str) -> Input:
    """Every image a line or a scan."""
    scans = Scans(folder)

    def items(first: int, last: int) -> Iterator[Item]:
        for name in names[first:last]:
            yield item(dict.fromkeys(WANTED, "") | {"image": name}, scans)

    return Input(*(("fields", "scans") if unit == "field" else ("lines", "lines")), len(names), items)


def table(path: Path, unit: str) -> Input:
    """A row a line; or, if the unit is field, each image that the rows name a scan."""
    rows, kind = read_table(path), ("lines", "lines")
    if unit == "field":
        plain = pa.table({name: rows[name].cast(pa.string()) for name in ("image", "page", "certificate")})
        # with threads they would not come in the order in which they are first named
        groups = plain.group_by(["image", "page"], use_threads=False).aggregate([("certificate", "first")])
        empty = pa.array([""] * groups.num_rows)
        rows, kind = groups.rename_columns(["image", "page", "certificate"]), ("fields", "scans")
        for name in WANTED[3:]:
            rows = rows.append_column(name, empty)
    scans = Scans(sources.images_of(path))

    def items(first: int, last: int) -> Iterator[Item]:
        for start in range(first, last, BLOCK):
            for row in rows.slice(start, min(BLOCK, last - start)).to_pylist():
                yield item(row, scans)

    return Input(*kind, rows.num_rows, items)


def item(row: dict, scans: Scans) -> Item:
    known = {name: value for name, value in row.items() if name not in REGION} | {"box": row["box"]}
    try:
        region = Region.parse(row["box"], row["polygon"], row["baseline"])
        if region:
            known["box"] = f"{region.x} {region.y} {region.w} {region.h}"
        return known, [cut(scans.read(row["image"], row["page"]), region)], ""
    except BadLine as reason:
        return known, [], str(reason)


def read_table(path: Path) -> pa.Table:
    """The columns of WANTED as text, empty where the table has none. A text column is not needed.

    Raises ValueError: no table, no column image, one that is there twice, or one that is no text.
    """
    sources.images_of(path)
    read = sources.read_folder if path.is_dir() else sources.read_csv
    found = sources.read_parquet(path) if sources.is_parquet(path) else read(path)
    names = [name for name in WANTED if name in found.column_names]
    if "image" not in names:
        raise ValueError(f"{path}: no column image (it has {', '.join(found.column_names)})")
    if twice := [name for name in names if found.column_names.count(name) > 1]:
        raise ValueError(f"{path}: more than one column {', '.join(twice)}")
    columns = {name: pa.DictionaryArray.from_arrays(np.zeros(found.num_rows, np.int8), [""]) for name in WANTED}
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
    from jobs.train import parse_where
    from shards.index import read_index
    from shards.stream import Samples

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

    def items(first: int, last: int) -> Iterator[Item]:
        for start in range(first, last, BLOCK):
            for number, row in enumerate(known.slice(start, min(BLOCK, last - start)).to_pylist(), start):
                yield row, samples.read(number)[0], ""

    return Input("samples", "texts", len(samples), items, samples.close)
