"""Alignments of a shard's texts: aligned lines, rows of words or lines, and one table of all parts."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.decoding.align import INK_DARKNESS, MIN_STROKE_PX, Alignment, align_many, word_boxes
from htr.decoding.text_segmentation import cut_text, least_margin, word_fits
from htr.io.sources import OURS, RESERVED
from htr.lines.normalise import can_carry
from htr.reader import Reader
from jobs.distributed.heartbeat import ACTIVITY
from shards import files
from shards.index import Index
from shards.loader import Samples, batches, in_order

TEXTS = 256  # whose log-probabilities are in memory at once
ALIGNED = 32  # lines aligned at once
LEVELS = ("line", "field", "part")
WORD_MARGIN_PX = 4  # px around a word's strokes, of what the model sees
MAX_CHARACTER_WIDTH_RATIO = 4.0  # times as wide a character as the line's median: more than the word
ALIGNMENT_COLUMNS = (
    "score",
    "margin",
    "reject",
)  # columns of the table that are made here, after those of the data set
LABEL_FITS_BADLY = "label fits badly"
WORD_FITS_BADLY = "word fits badly"  # in a line that fits well as a whole: an abbreviation expanded, say
TEXT_TOO_LONG = "text needs more frames than its line has"


@dataclass
class Line:
    """A line image and the text, or its piece of the field's text, that it should show."""

    row: int  # of the shard's table
    text: str
    log_probs: np.ndarray  # (T, S)
    ink: np.ndarray  # (H, W) uint8, as the model sees it
    reason: str = ""  # why it is not aligned
    alignment: Alignment | None = None
    wrong: float | None = None  # the margin of another line's text in its place


def part(folder: Path, shard: str) -> Path:
    return folder / "parts" / f"{shard}.parquet"


def texts_of_shard(folder: Path, shard: str) -> pa.Table:
    """The shard's samples that have a text to align, or are lines of such a field, as index.parquet has them."""
    table = pq.read_table(folder / f"{shard}.parquet")
    wanted = pc.and_(pc.equal(table["outcome"], "sample"), pc.is_in(table["level"], pa.array(LEVELS)))
    table = table.filter(wanted).drop_columns(["outcome", "reason"])
    return table.append_column("shard", pa.repeat(shard, table.num_rows))


# ---------------------------------------------------------------------------------------------------- lines, aligned


def lines_of(
    folder: Path, table: pa.Table, reader: Reader, batch: int, column: str | None = None
) -> Iterator[list[Line]]:
    """The aligned lines of a shard, some hundreds at a time, in the shard's order.

    `column`: whose texts to align in place of those as written. A field whose lines have their own texts is taken as
    these lines. Padding depends on the shard alone, so that results do not depend on the number of tasks.
    """
    samples, height = Samples(folder, table, column), reader.geometry.height
    try:
        for start in range(0, len(samples), TEXTS):
            chunk = np.arange(start, min(start + TEXTS, len(samples)))
            plan = [chunk[places] for places in in_order(samples.widths(height)[chunk], batch)]
            found: dict[int, list[Line]] = {}
            for piece in batches(samples, plan, 0, 1, height):
                frames = reader.encode(piece.images, piece.widths)
                ACTIVITY.progressed()  # what the watchdog sees
                log_probs, at = frames.log_probs.float().cpu().numpy(), 0
                for text_row, text in zip(piece.rows, piece.texts, strict=True):
                    first, count = int(samples.first[text_row]), int(samples.count[text_row])
                    lines = []
                    for i in range(at, at + count):
                        line, ink = log_probs[i, : frames.lengths[i]], piece.images[i, 0, :, : piece.widths[i]]
                        lines.append(Line(first + i - at, "", line.copy(), ink.numpy().copy()))
                    share_out(lines, text, reader)
                    found[text_row], at = lines, at + count
            lines = [line for row in chunk.tolist() for line in found[row]]
            align_lines(lines, reader)
            yield lines
    finally:
        samples.close()


def share_out(lines: list[Line], text: str, reader: Reader) -> None:
    """Divide a field's text among its lines; where that fails, all of them get the reason."""
    words, reason, cuts = text.split(), "", [(0, None)]
    if reader.charset.missing(text):
        reason = "text has characters that the reader lacks"
    elif len(lines) > 1:
        labels = [reader.charset.encode(word) for word in words]
        cuts = cut_text([line.log_probs for line in lines], labels, reader.charset.labels.get(" ", 0))
        reason = "" if cuts else TEXT_TOO_LONG
    if reason:
        for line in lines:
            line.reason = reason
        lines[0].text = text
        return
    for line, (begin, end) in zip(lines, cuts, strict=True):
        line.text = " ".join(words[begin:end])
        line.reason = "" if line.text else "no word of the field's text stands in this line"


def align_lines(lines: list[Line], reader: Reader) -> None:
    """Align each line with its text, and with a wrong text for comparison. That one is of a line far away, since a
    neighbour's may be the right one where rows are shifted."""
    lines = [line for line in lines if not line.reason]
    texts = [line.text for line in lines]
    others = []
    for i, text in enumerate(texts):
        far = (i + len(texts) // 2) % len(texts)
        others.append(next((other for other in (*texts[far:], *texts[:far]) if other != text), None))
    order = sorted(range(len(lines)), key=lambda i: len(lines[i].log_probs))
    for start in range(0, len(order), ALIGNED):
        some = order[start : start + ALIGNED]
        ACTIVITY.progressed()
        log_probs = [lines[i].log_probs for i in some]
        for i, alignment in zip(
            some, align_many(log_probs, [reader.charset.encode(texts[i]) for i in some]), strict=True
        ):
            lines[i].alignment, lines[i].reason = alignment, "" if alignment else TEXT_TOO_LONG
        paired = [i for i in some if others[i] is not None]
        wrong = align_many([lines[i].log_probs for i in paired], [reader.charset.encode(others[i]) for i in paired])
        for i, alignment in zip(paired, wrong, strict=True):
            lines[i].wrong = alignment.margin if alignment else None


# ---------------------------------------------------------------------------------------------------- rows


def write_part(folder: Path, shard: str, table: pa.Table, index: Index, reader: Reader, args) -> None:
    """Align the shard's texts and commit the part: rows of the table, and the margins from which a threshold is
    found."""
    known = [
        name
        for name in table.column_names
        if name not in RESERVED and name not in (*OURS, *ALIGNMENT_COLUMNS, args.text)
    ]
    named = ("certificate", "field", "line", "writer", "year", "form", "split")
    columns = {name: table[name].to_pylist() for name in (*named, *known, "key", "width", "height")}
    rows: list[dict] = []
    for lines in lines_of(index.folder, table, reader, args.batch, args.text):
        for line in lines:
            row = {name: columns[name][line.row] for name in (*named, *known)}
            row |= {"image": f"{shard}.tar/{columns['key'][line.row]}.{index.encoding}", "text": line.text, "box": ""}
            row |= {"reject": line.reason, "wrong": line.wrong}
            if line.alignment is None:
                rows.append(row)
                continue
            row |= {"score": line.alignment.score, "margin": line.alignment.margin}
            row["line_margin"] = line.alignment.margin
            shape = (columns["height"][line.row], columns["width"][line.row])
            rows += words_of(line, row, shape, reader) if args.to == "words" else [row]
    strings = [pa.field(name, pa.string()) for name in ("image", "text", *named[:3], "box", *named[3:], *known)]
    numbers = [pa.field(name, pa.float64()) for name in ("score", "margin", "line_margin", "wrong")]
    table = pa.Table.from_pylist(rows, pa.schema([*strings, *numbers, pa.field("reject", pa.string())]))
    with files.first_at(part(folder, shard)) as attempt:
        pq.write_table(table, attempt, compression="zstd")


def words_of(line: Line, row: dict, shape: tuple[int, int], reader: Reader) -> Iterator[dict]:
    """A row for each word, with its box in pixels of the stored image of this shape (H, W): its strokes, a margin, and
    the line's full height."""
    height, width = shape
    boxes = word_boxes(line.alignment, line.text, shape, reader.geometry, line.ink, reader.emission_delay)
    fits = word_fits(line.log_probs, line.alignment, line.text, reader.charset.encode(line.text))
    seen, stored = line.ink.shape[1] / width, width / line.ink.shape[1]  # px of one for a px of the other
    usual = float(np.median([(box.right - box.left) / len(box.text) for box in boxes]))
    for number, (box, (score, margin)) in enumerate(zip(boxes, fits, strict=True)):
        left = max(int(box.left - WORD_MARGIN_PX * stored), 0)
        right = min(int(np.ceil(box.right + WORD_MARGIN_PX * stored)), width)
        strokes = np.count_nonzero(line.ink[:, int(box.left * seen) : int(np.ceil(box.right * seen))] > INK_DARKNESS)
        reason = ""
        if right <= left or strokes < MIN_STROKE_PX:
            reason = "no stroke where the word should be"
        elif not can_carry((height, right - left), box.text):
            reason = "text is longer than its image can carry"
        elif box.right - box.left > MAX_CHARACTER_WIDTH_RATIO * usual * len(box.text):
            reason = "place is far wider than the word"
        place = f"{left} 0 {max(right - left, 1)} {height}"
        named = {"text": box.text, "line": f"{row['line']}-{number}", "box": place, "reject": reason}
        # what is measured of the line stands once, with its first word
        yield row | named | {"score": score, "margin": margin, "wrong": None if number else line.wrong}


# ---------------------------------------------------------------------------------------------------- the table


def margins(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The margins of a part's lines: (N,) with their own texts, (M,) with wrong ones."""
    table = pq.read_table(path, columns=["image", "line_margin", "wrong"])
    first = np.unique(table["image"].to_numpy(zero_copy_only=False), return_index=True)[1]  # not a line once a word
    table = table.take(pa.array(np.sort(first)))
    return table["line_margin"].drop_null().to_numpy(), table["wrong"].drop_null().to_numpy()


def merge(folder: Path, shards: list[str], index: Index, out: Path, least: float | None) -> dict:
    """Merge the parts into one table, written whole, in their order. -> the content of summary.json in the alignment's
    folder.

    `least`: the margin below which a row gets a reason to be rejected (None: see text_segmentation.least_margin). Any
    task that finds all parts may merge; each writes the same.
    """
    measured = [margins(part(folder, shard)) for shard in shards]
    own, wrong = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    if least is None:
        least = least_margin(own, wrong)
    rejects, rows = Counter(), 0
    below = os.path.relpath(index.folder.resolve(), out.parent.resolve())
    with files.attempt_at(out) as attempt:
        schema = pa.unify_schemas([pq.read_schema(part(folder, shard)) for shard in shards])
        for name in ("line_margin", "wrong"):
            schema = schema.remove(schema.get_field_index(name))
        with pq.ParquetWriter(attempt, schema, compression="zstd") as writer:
            for shard in shards:
                table = pq.read_table(part(folder, shard))
                if below != ".":
                    prefix = pa.scalar(below.replace(os.sep, "/") + "/")
                    image = pc.binary_join_element_wise(prefix, table["image"], "")
                    table = table.set_column(table.column_names.index("image"), "image", image)
                if least is not None:
                    for name, reason in (("line_margin", LABEL_FITS_BADLY), ("margin", WORD_FITS_BADLY)):
                        bad = pc.fill_null(pc.less(table[name], least), False)
                        bad = pc.and_(bad, pc.equal(table["reject"], ""))
                        reject = pc.if_else(bad, reason, table["reject"])
                        table = table.set_column(table.column_names.index("reject"), "reject", reject)
                for name in ("score", "margin"):
                    column = pc.round(table[name], 3)  # a few thousand different ones: kept as codes
                    table = table.set_column(table.column_names.index(name), name, column)
                rejects.update(reason for reason in table["reject"].to_pylist() if reason)
                rows += table.num_rows
                if table.num_rows:
                    writer.write_table(table.select(schema.names).cast(schema))
        if not rows:
            raise ValueError(f"{index.folder}: none of its samples has a text to align")
        files.sync(attempt)
        os.replace(attempt, out)
        files.sync(out.parent)
    summary = {"rows": rows, "rejects": dict(rejects), "passed_over": passed_over(index, shards), "least": least}
    known = least is not None and len(wrong)
    summary["wrong_found"] = float(np.mean(wrong < least)) if known else None
    summary["own_rejected"] = float(np.mean(own < least)) if known and len(own) else None
    files.replace(folder / "summary.json", files.to_json(summary))
    return summary


def passed_over(index: Index, shards: list[str]) -> dict[str, int]:
    """How many samples of these shards have no text to align, by level."""
    table = pq.read_table(index.folder / "index.parquet", columns=["level", "shard"])
    chosen = pc.is_in(table["shard"].cast(pa.string()), pa.array(shards))
    levels = Counter(table["level"].filter(chosen).cast(pa.string()).to_pylist())
    return {level: count for level, count in sorted(levels.items()) if level not in LEVELS}
