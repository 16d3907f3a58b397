"""The rows of a source in the order of the plan: splits, faults, images kept together, cut into shards.

Columns are handled as codes and row numbers (see htr.io.sources): five million rows take seconds and megabytes.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from htr.certificate import SPLITS
from htr.io.account import Account
from htr.io.sources import encode
from shards.splits import choose_splits

FAULTS = ("", "certificate, field and line were there before", "no certificate")
PLACE = ("image", "page", "box", "polygon", "baseline")  # where a row's line is
NUMBERED = "no line has a number: lines of a certificate and field are numbered in the order of the table"
PAGE = 1000  # rows; a page of fewer is never parted where its fields are cut out


def lay_out(source: pa.Table, settings) -> tuple[pa.Table, np.ndarray, list[dict]]:
    """Arrange a source's rows (R of them) into shards.

    -> the source with the columns `split` and `fault`, its rows in their own order; (R,) int64, the rows' numbers in
    the order of the plan; the shards, each with its name, split and number of rows. `settings`: see
    shards.plan.Settings. Raises ValueError as choose_splits does, and for rows that name lines where the settings say
    fields.
    """
    splits = choose_splits(source, settings.shares, settings.salt, settings.years, settings.share)
    faults = find_faults(source, settings.unit)
    images, pages = image_codes(source)
    orders, shards = [], []
    for position, split in enumerate(SPLITS):
        rows = np.flatnonzero(splits == position)
        places = first_rows(images, rows) * source.num_rows + first_rows(pages, rows)
        order = np.argsort(places, kind="stable")
        orders.append(rows[order])
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        most = max(settings.rows, PAGE) if settings.unit == "field" else settings.rows
        for number, size in enumerate(sizes(starts, len(rows), settings.rows, most)):
            shards.append({"name": f"{split}-{number:05d}", "split": split, "rows": size})
    split = pa.DictionaryArray.from_arrays(splits, pa.array(SPLITS))
    table = source.set_column(source.column_names.index("split"), "split", split)
    fault = pa.DictionaryArray.from_arrays(faults, pa.array(FAULTS))
    return table.append_column("fault", fault), np.concatenate(orders), shards


def number_lines(source: pa.Table, unit: str, account: Account | None = None) -> pa.Table:
    """A source of lines that nobody has numbered, with several rows of one certificate and field: the same with
    numbers, from 1, in the order of the table. Without them all but the first row would count as repeated.

    A row that names the same place (image, page, box, outline) as an earlier one gets that one's number and so stays a
    repeated row. Rows that are alone in their certificate and field keep what they have.
    """
    if unit != "line" or len(set(source["line"].unique().to_pylist()) - {"", "0"}):
        return source
    names = codes_of(source, ("certificate", "field"))
    if len(np.unique(names)) == source.num_rows:
        return source
    places = codes_of(source, ("certificate", "field", *PLACE))
    _, first, place = np.unique(places, return_index=True, return_inverse=True)
    order = np.lexsort((first, names[first]))  # places by certificate and field, then as they come
    group = names[first[order]]
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    lengths = np.diff(np.append(begins, len(group)))
    numbers = np.arange(len(group)) - np.repeat(begins, lengths) + 1
    numbers[np.repeat(lengths, lengths) == 1] = 0
    of_place = np.empty_like(numbers)
    of_place[order] = numbers
    lines = of_place[place]
    if not lines.any():
        return source  # nothing but repeated rows
    if account:
        account.note(NUMBERED)
    values = pa.array(["0", *map(str, range(1, int(lines.max()) + 1))])
    column = pa.DictionaryArray.from_arrays(pa.array(lines.astype(np.int32)), values)
    return source.set_column(source.column_names.index("line"), "line", column)


def codes_of(source: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """(R,) int64: two rows have the same number exactly where they are equal in all these columns."""
    encoded = [encode(source[name]) for name in columns]
    return combine([(part.indices.to_numpy(), len(part.dictionary)) for part in encoded])


def find_faults(source: pa.Table, unit: str) -> np.ndarray:
    """-> (R,) int8, positions in FAULTS: which rows are rejected before an image is opened.

    It is done here, where all rows are known, since two rows of the same name may go to different shards.
    """
    certificate, field, line = (encode(source[name]) for name in ("certificate", "field", "line"))
    if unit == "field":
        lines = np.count_nonzero(
            np.array([text not in ("", "0") for text in line.dictionary.to_pylist()])[line.indices]
        )
        if lines:
            raise ValueError(
                f"{lines} rows have a number in the column line, but a row is to be a whole field: leave the column "
                f"out, or read the rows as lines (--unit line)"
            )
    parts = [certificate, field] if unit == "field" else [certificate, field, line]
    names = combine([(part.indices.to_numpy(), len(part.dictionary)) for part in parts])
    order = np.argsort(names, kind="stable")
    faults = np.zeros(source.num_rows, np.int8)
    faults[order[1:][np.diff(names[order]) == 0]] = 1
    empty = certificate.dictionary.index("").as_py()
    faults[certificate.indices.to_numpy() == empty] = 2
    return faults


def combine(columns: list[tuple[np.ndarray, int]]) -> np.ndarray:
    """Several columns of codes as one: (R,) int64, equal for rows whose codes are all equal.

    `columns`: for each its codes (R,), whole numbers from 0, and their upper bound (excluded).
    """
    total, size = np.zeros(len(columns[0][0]), np.int64), 1
    for codes, most in columns:
        if size * most >= 2**63:
            used, total = np.unique(total, return_inverse=True)
            size = len(used)
        total = total * most + codes
        size *= most
    return total


def image_codes(source: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """-> (R,) int64, a number for each row's image, and (R,) int64, a number for its page of that image."""
    image, page = encode(source["image"]), encode(source["page"])
    images = image.indices.to_numpy()
    if len(page.dictionary) == 1:
        return images, images
    pages = combine([(images, len(image.dictionary)), (page.indices.to_numpy(), len(page.dictionary))])
    return images, np.unique(pages, return_inverse=True)[1]


def first_rows(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`rows` (n,), in rising order, and the codes of all rows (R,) -> (n,) for each of them the first one of the same
    code."""
    first = np.zeros(codes.max(initial=0) + 1, np.int64)
    first[codes[rows[::-1]]] = rows[::-1]  # where several are assigned the last one stays
    return first[codes[rows]]


def sizes(starts: np.ndarray, count: int, rows: int, most: int) -> Iterator[int]:
    """Cut `count` rows into shards of `rows` rows or fewer, without parting a group -> the size of each shard.

    `starts`: the first row of each group. A group alone in its shard may have up to `most` rows; a larger one is
    parted.
    """
    begin = 0
    while begin < count:
        end = begin + rows
        if end < count:
            after = np.searchsorted(starts, end, side="right")
            if starts[after - 1] > begin:
                end = starts[after - 1]
            else:
                group_end = starts[after] if after < len(starts) else count
                end = group_end if group_end - begin <= most else end
        end = min(int(end), count)
        yield end - begin
        begin = end


def cut(table: pa.Table, order: np.ndarray, shards: list[dict]) -> Iterator[pa.Table]:
    """For each shard its rows: the column `row` (their numbers in the table) and the table's columns, as strings."""
    columns = [(column.chunks, np.cumsum([0, *map(len, column.chunks)])) for column in table.columns]
    begin = 0
    for shard in shards:
        rows = order[begin : begin + shard["rows"]]
        picked = [pick(chunks, starts, rows) for chunks, starts in columns]
        yield pa.table([pa.array(rows), *picked], names=["row", *table.column_names])
        begin += shard["rows"]


def pick(chunks: list[pa.Array], starts: np.ndarray, rows: np.ndarray) -> pa.Array:
    """The cells of these rows, as strings. Arrow's own `take` copies the whole column first where it lies in chunks."""
    which = np.searchsorted(starts, rows, side="right") - 1
    parts = []
    for number in np.unique(which):
        part = chunks[number].take(pa.array(rows[which == number] - starts[number]))
        parts.append(pc.cast(part, pa.string()))
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.argsort(which, kind="stable"))))
