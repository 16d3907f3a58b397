"""The pages of TIFFs that have several: rows of their own where an input names no page."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.io import sources
from htr.io.account import Account
from htr.io.image_files import full_pages, tiff_pages
from htr.lines.normalise import RejectedInput
from shards.scans import Scans


def pages_of(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """For each TIFF with several pages their numbers, from 0. Of each file only the directory of its pages is read."""
    tiffs = [name for name in names if name.lower().endswith((".tif", ".tiff"))]
    in_tars = [name for name in tiffs if ".tar/" in name.lower()]
    files = [name for name in tiffs if ".tar/" not in name.lower()]
    with ThreadPoolExecutor(min(16, len(files)) or 1) as pool:
        found = dict(zip(files, pool.map(lambda name: tiff_pages(folder / name), files), strict=True))
    scans = Scans(folder)  # one after the other: it knows where the members of the last tar are
    found |= {name: pages_in(scans, name) for name in in_tars}
    return {name: [str(page) for page in pages] for name, pages in found.items() if len(pages) > 1}


def pages_in(scans: Scans, name: str) -> list[int]:
    """The numbers of the pages of a member of a tar, from 0."""
    try:
        return full_pages(scans.content(name))
    except (OSError, RejectedInput):  # said where its row is
        return [0]


def with_pages(rows: pa.Table, folder: Path, account: Account) -> pa.Table:
    """The rows; where one names neither a page nor a box and its TIFF has several pages, it becomes a row for each."""
    image, page = sources.encode(rows["image"]), sources.encode(rows["page"])
    names = [name or "" for name in image.dictionary.to_pylist()]
    bare = page.indices.to_numpy() == page.dictionary.index("").as_py()
    asked = np.unique(image.indices.to_numpy()[bare])
    pages = pages_of(folder, [names[code] for code in asked])
    if not pages:
        return rows
    boxed = np.zeros(rows.num_rows, bool)
    for name in ("box", "polygon"):
        boxed |= pc.not_equal(rows[name].cast(pa.string()), "").to_numpy()
    counts, numbers, left = np.ones(rows.num_rows, np.int64), page.cast(pa.string()).to_pylist(), set()
    chosen: list[str] = []
    for row, (code, free) in enumerate(zip(image.indices.to_numpy().tolist(), bare.tolist(), strict=True)):
        found = pages.get(names[code]) if free else None
        if found and boxed[row]:
            left.add(names[code])
        some = found if found and not boxed[row] else [numbers[row]]
        counts[row] = len(some)
        chosen += some
    if left:
        further = sum(len(pages[name]) - 1 for name in left)
        account.note(f"{folder}: {further} further pages of TIFFs are not read: rows with boxes need a column page")
    if len(chosen) > rows.num_rows:
        account.note(f"{folder}: {len(chosen) - rows.num_rows} further pages of TIFFs are read as rows of their own")
    rows = rows.take(pa.array(np.repeat(np.arange(rows.num_rows), counts)))
    return rows.set_column(rows.column_names.index("page"), "page", pa.array(chosen).dictionary_encode())
