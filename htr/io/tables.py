"""CSV tables in UTF-8, UTF-16 or cp1252, with any of three delimiters and quotes of either convention.

A quote is CSV's where it opens a cell and its partner closes it. A bare quote in a cell, a ditto mark in registers, is
none: two of them would make one cell of all rows between. So quotes are looked at before the table is read.
"""

import csv
import io
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from htr.io.account import Account
from htr.io.encodings import HINT, from_cp1252, opened

CSV_BLOCK_BYTES = 16 << 20  # of a CSV that are read at once; no row may be longer
QUOTE_CHECK_BYTES = 1 << 19  # bytes whose quotes are looked at together: they stay in the processor's cache
DELIMITERS = ",;\t"
QUOTES = ("auto", "csv", "none")
QUOTE, NEWLINE, RETURN = b'"\n\r'
AROUND_NAMES = re.compile("^[\\s\u200b\ufeff]+|[\\s\u200b\ufeff]+$")  # \s has the no-break spaces too


@dataclass(frozen=True)
class Layout:
    """How a CSV is written."""

    delimiter: str
    names: list[str]  # of the columns, as they are to be called; "" for one without
    header_lines: int  # before the first row


def read_csv(source: Path, plain: tuple[str, ...], known: tuple[str, ...], quotes: str, account: Account) -> pa.Table:
    """-> the table, every cell text; columns of `plain` as strings, the others as codes and their strings.

    `known`: names that tell the header, in lower case. `quotes`: "csv", "none" (they are text) or "auto", which looks.
    What was done to read it goes into the account. Raises ValueError, naming rows and never quoting one.
    """
    if quotes not in QUOTES:
        raise ValueError(f"--quotes {quotes}: choose one of {', '.join(QUOTES)}")
    content, encoding = opened(source)
    if encoding != "UTF-8":
        account.note(f"{source}: read as {encoding}")
    while True:
        layout = layout_of(source, content, known, csv_quotes=quotes != "none")
        chosen = quotes_of(source, content, layout, account) if quotes == "auto" else quotes
        try:
            table = parse(content, source, layout, plain, chosen)
        except pa.ArrowInvalid as error:  # its message quotes the row, which may hold a transcription
            message = str(error)
        else:
            return tidy(source, table, layout, known, account)
        if "UTF8" not in message or isinstance(content, bytes):
            raise ValueError(f"{source}: {fault_of(message, content, layout, chosen)}")
        content = from_cp1252(source, content)
        account.note(f"{source}: read as cp1252, since it is not UTF-8")


def parse(content: bytes | mmap.mmap, source: Path, layout: Layout, plain: tuple[str, ...], quotes: str) -> pa.Table:
    """Columns are called by their numbers. Raises pa.ArrowInvalid."""
    coded = pa.dictionary(pa.int32(), pa.string())
    columns = [f"{number}" for number in range(len(layout.names))]
    named = zip(columns, layout.names, strict=True)
    kinds = {column: pa.string() if name in plain else coded for column, name in named}
    return pa.csv.read_csv(
        pa.BufferReader(content) if isinstance(content, bytes) else source,
        read_options=pa.csv.ReadOptions(
            block_size=CSV_BLOCK_BYTES, column_names=columns, skip_rows=layout.header_lines
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char='"' if quotes == "csv" else False,
            newlines_in_values=quotes == "csv",
        ),
        # everything is text: "007" is an id, "NA" and "null" may be what a physician wrote
        convert_options=pa.csv.ConvertOptions(column_types=kinds, strings_can_be_null=False),
    )


# ---------------------------------------------------------------------------------------------------- header


def layout_of(source: Path, content, known: tuple[str, ...], csv_quotes: bool) -> Layout:
    """From the first line, or the second after Excel's sep=; line. Raises ValueError."""
    begin, lines, asked = 3 if content[:3] == b"\xef\xbb\xbf" else 0, 1, ""
    end = line_end(content, begin)
    first = content[begin:end].decode("utf-8", "replace").strip("\r\n")
    if match := re.fullmatch(r'"?sep=(.)"?[,;\t|]*', first, re.IGNORECASE):
        asked, lines = match[1], 2
        begin, end = end, line_end(content, end)
        first = content[begin:end].decode("utf-8", "replace").strip("\r\n")
    if not first.strip():
        raise ValueError(f"{source}: an empty file, or one that begins with an empty line")

    def names_by(delimiter: str) -> list[str]:
        cells = first.split(delimiter)
        if csv_quotes and len(first) <= csv.field_size_limit():
            cells = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
        return as_ours([AROUND_NAMES.sub("", cell) for cell in cells], known)

    choices = [asked] if asked else list(DELIMITERS)
    delimiter = max(choices, key=lambda d: (sum(name in known for name in names_by(d)), len(names_by(d))))
    names = names_by(delimiter)
    if not any(name in known for name in names):
        below = content[end : line_end(content, end)].decode("utf-8", "replace").lower()
        if sum(cell.strip('" \r\n') in known for cell in re.split(r"[,;\t|]", below)) > 1:
            raise ValueError(f"{source}: the header stands in line {lines + 1}: remove what is above it")
    if end >= len(content):
        raise ValueError(f"{source}: a table without rows")
    return Layout(delimiter, names, lines)


def as_ours(names: list[str], known: tuple[str, ...]) -> list[str]:
    """One of ours whatever its case, unless it is there as we write it."""
    return [name.lower() if name.lower() in known and name.lower() not in names else name for name in names]


def line_end(content, begin: int) -> int:
    found = content.find(b"\n", begin)
    return min(found + 1 if found >= 0 else len(content), begin + CSV_BLOCK_BYTES)


# ---------------------------------------------------------------------------------------------------- quotes


def quotes_of(source: Path, content, layout: Layout, account: Account) -> str:
    """-> "csv" or "none": what the quotes of this table are. Raises ValueError where it can't be told."""
    if content.find(b'"') < 0:
        return "none"
    if are_plain(content, layout):
        return "csv"
    fault = first_fault(content, layout)
    if fault is None:
        return "csv"
    at, what = fault
    row = content[:at].count(b"\n") + 1 - layout.header_lines
    if are_text(content, at, layout) and lines_are_rows(content, layout):
        account.note(f"{source}: quotes are read as text, since row {row} has one that {what}; every line is a row")
        return "none"
    raise ValueError(
        f"{source}: row {row} (line {row + layout.header_lines}) has a quote that {what}: quote its cells as CSV does, "
        f"or choose --quotes none (they are text, every line is a row of {len(layout.names)} columns) or --quotes csv "
        f"(a cell may hold several lines)"
    )


def are_text(content, at: int, layout: Layout) -> bool:
    """Whether the quotes are text, if one is none of CSV's: some cell is a bare quote, a ditto mark, or the cell that
    begins here closes what it opens before it ends."""
    d = re.escape(layout.delimiter.encode())
    if re.search(b'[%b\n]"(?=[%b\r\n]|\\Z)' % (d, d), content):
        return True
    return re.compile(b"[^%b\r\n]*" % d).match(content, at)[0].count(b'"') % 2 == 0


def are_plain(content, layout: Layout) -> bool:
    """Whether all quotes open or close a cell, or are doubled within one, and no cell may hold rows. Quick, and exact
    where it says yes: five million rows of quoted cells take a second."""
    data = np.frombuffer(content, np.uint8)
    edge = np.zeros(256, bool)
    edge[[ord(layout.delimiter), NEWLINE, RETURN]] = True
    ends, size, inside, last = np.array([NEWLINE], np.uint8), len(data), False, -2
    first = start = 3 if content[:3] == b"\xef\xbb\xbf" else 0
    while start < size:  # `inside`: a cell is open; `last`: the place of the last quote
        end = min(start + QUOTE_CHECK_BYTES, size)
        # a byte more on either side: where the file begins and ends a cell does too
        part = data[start - (start > first) : end + 1]
        if start == first or end == size:
            part = np.concatenate([*([ends] if start == first else []), part, *([ends] if end == size else [])])
        places = np.flatnonzero(part[1:-1] == QUOTE) + 1
        if len(places):
            opening, closing = places[inside::2], places[1 - inside :: 2]
            before, after = edge[part[opening - 1]], edge[part[closing + 1]]
            if not (before.all() and after.all()):  # a quote beside its twin stands for one quote of the cell
                gaps = np.diff(places, prepend=last - start + 1)
                twin_after = np.append(gaps[1:] == 1, part[places[-1] + 1] == QUOTE)
                if not ((before | (gaps[inside::2] == 1)).all() and (after | twin_after[1 - inside :: 2]).all()):
                    return False
            last = start + int(places[-1]) - 1
        newlines = np.flatnonzero(part[1:-1] == NEWLINE) + 1
        if (np.searchsorted(places, newlines) + inside & 1).any():
            return False
        inside = bool(inside + len(places) & 1)
        start = end
    return not inside


def first_fault(content, layout: Layout) -> tuple[int, str] | None:
    """Cell by cell: -> where a quote opens a cell that does not close, or one that holds rows, and what it does. Quotes
    within a cell that begins without one are text."""
    d = re.escape(layout.delimiter.encode())
    cell = re.compile(b'"((?:[^"]|"")*+)"(?=[%b\r\n]|\\Z)|[^"%b\r\n][^%b\r\n]*|' % (d, d, d))
    columns, at, size = len(layout.names), 3 if content[:3] == b"\xef\xbb\xbf" else 0, len(content)
    while at <= size:
        found = cell.match(content, at)
        if found.end() == at and at < size and content[at] == QUOTE:
            return at, "opens a cell and does not close it"
        inner = found[1]
        if inner is not None and b"\n" in inner:
            breaks = inner.count(b"\n")
            if inner.count(layout.delimiter.encode()) >= breaks * (columns - 1):
                return at, "opens a cell that holds whole rows"
        at = found.end() + 1
    return None


def lines_are_rows(content, layout: Layout) -> bool:
    """Whether every line that is not empty has as many cells as there are columns, if quotes are text."""
    wanted, delimiter = len(layout.names) - 1, layout.delimiter.encode()
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    file.seek(0)
    for number, line in enumerate(iter(file.readline, b"")):
        if number >= layout.header_lines and line.strip(b"\r\n") and line.count(delimiter) != wanted:
            return False
    return True


def fault_of(message: str, content, layout: Layout, quotes: str) -> str:
    """What Arrow found, in our words, with the row's number."""
    if "columns" in message.lower():
        row, count = odd_row(content, layout, quotes)
        return f"a row has more or fewer columns than the header: row {row} has {count}, not {len(layout.names)}"
    if "straddl" in message or "out of sync" in message:
        return f"a row of more than {CSV_BLOCK_BYTES >> 20} MiB: a quote that is never closed? (--quotes none)"
    return f"not UTF-8 CSV, please {HINT}"


def odd_row(content, layout: Layout, quotes: str) -> tuple[int, int]:
    """The first row with more or fewer cells than there are columns, from 1, and how many it has."""
    rows = csv.reader(
        io.TextIOWrapper(io.BytesIO(content[:]), "utf-8-sig", newline=""),
        delimiter=layout.delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes == "csv" else csv.QUOTE_NONE,
    )
    row, cells, before = 0, [], csv.field_size_limit(max(len(content), 1))
    try:
        for row, cells in enumerate(rows, 1 - layout.header_lines):
            if row > 0 and cells and len(cells) != len(layout.names):
                break
    finally:
        csv.field_size_limit(before)
    return row, len(cells)


# ---------------------------------------------------------------------------------------------------- rows, columns


def tidy(source: Path, table: pa.Table, layout: Layout, known: tuple[str, ...], account: Account) -> pa.Table:
    """Without rows in which every cell is empty, and columns without a name; both are counted."""
    empty = None
    for column in table.columns:
        blank = is_blank(column)
        empty = blank if empty is None else np.logical_and(empty, blank)
        if not empty.any():
            break
    account.there += table.num_rows
    if empty is not None and empty.any():
        table = table.filter(pa.array(~empty))
        account.pass_over("rows whose cells are all empty", int(empty.sum()))
    unnamed = [number for number, name in enumerate(layout.names) if not name]
    filled = [number for number in unnamed if not is_blank(table.column(number)).all()]
    if filled:
        account.note(f"{source}: left out: column {', '.join(str(n + 1) for n in filled)}, which has no name")
    near = [name for name in layout.names if name not in known and re.split(r"[\s(:]", name.lower())[0] in known]
    if near:
        account.note(
            f"{source}: kept as columns of your own: {', '.join(near)} (rename them if they are meant as ours)"
        )
    kept = [number for number in range(len(layout.names)) if number not in unnamed]
    return table.select(kept).rename_columns([layout.names[number] for number in kept])


def is_blank(column: pa.ChunkedArray) -> np.ndarray:
    """(rows,) bool: cells without anything but white space."""
    if pa.types.is_dictionary(column.type):
        parts = []
        for chunk in column.chunks:
            blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(chunk.dictionary)), 0).to_numpy(False)
            parts.append(np.append(blank, True)[chunk.indices.fill_null(len(blank)).to_numpy(False)])
        return np.concatenate(parts) if parts else np.zeros(0, bool)
    short = pc.less(pc.binary_length(column), 1)
    return pc.fill_null(short, True).to_numpy()
