"""python -m jobs transcribe INPUT --out FILE.csv: what stands in images of lines, in pages, in scans, in a data set.

    python -m jobs transcribe lines/ --model runs/ctc --out lines.csv              a folder of images, each a line
    python -m jobs transcribe pages/ --out pages.jsonl                             pages with ALTO or PAGE XML
    python -m jobs transcribe table.csv --out texts.parquet                        a table: image, box or polygon …
    python -m jobs transcribe data/certificates --split val --out val.parquet      a data set
    python -m jobs transcribe scans/ --unit field --out certificates.csv           certificates, found on their forms

A row for every line, or with --unit field for every field of every certificate, in the order of the input. What can't
be read has no text and a reason in the column `reason`. The file is whole or not there. As a task of several, each
writes an equal share of the input, in order, to a file of its own: FILE-00000-of-00004.csv.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import htr
from jobs.show import Progress, say
from jobs.work import share_of_work

PRETRAINED = Path(htr.__file__).parent / "pretrained"  # the reader that comes with the project
CHUNK = 512  # lines that are held at once; they are sorted by width into batches
PLACE = ("image", "page", "certificate")
COLUMNS = {
    "lines": (*PLACE, "field", "line", "box", "text", "confidence", "reason"),
    "samples": ("key", "split", "certificate", "field", "line", "text", "confidence", "reason"),
    "fields": (*PLACE, "form", "field", "box", "text", "confidence", "lines", "reason"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=Path, help="a folder of images, pages with ALTO or PAGE XML, a CSV or Parquet table, a data set")
    add("--out", type=Path, required=True, metavar="FILE", help="a table to write: .csv, .parquet or .jsonl")
    add("--model", type=Path, help="a model's folder or a run (default: HTR_MODEL, or else the project's own reader)")
    add("--decode", choices=["greedy", "beam"], default="greedy", help="beam: with RUN/decoding, which tune makes")
    add("--unit", choices=["line", "field"], default="line",
        help="what an image, or a row of a table, is: a line or page with lines, or a certificate whose fields are "
             "found on its form (default: %(default)s)")  # fmt: skip
    add("--forms", type=Path, help="with --unit field: a folder of templates (default: those of the project)")
    add("--rulings", choices=["keep", "remove"], default="keep", help="with --unit field: as the reader was trained")
    add("--split", help="of a data set (default: all)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="these samples of a data set only")
    add("--batch", type=int, default=16, help="lines read at once (default: %(default)s)")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")


def main(args: argparse.Namespace) -> int:
    from htr.reader import Reader
    from jobs.inputs import open_input
    from jobs.place import Place, take_device
    from jobs.tables import Table

    task, tasks = share_of_work()
    path = args.out if tasks == 1 else args.out.with_stem(f"{args.out.stem}-{task:05d}-of-{tasks:05d}")
    source = open_input(args)
    with closing(source):
        model = model_folder(args.model)
        decoding = model.parent / "decoding" if args.decode == "beam" else None
        reader = Reader.load(model, take_device(Place.find(), args.device), decoding)
        first, last = (source.count * number // tasks for number in (task, task + 1))
        reasons, count = Counter(), 0
        with Table(path, COLUMNS[source.kind]) as table, Progress("transcribe", last - first, source.unit) as progress:
            for done, rows in read(source, first, last, reader, args):
                table.write(rows)
                count += len(rows)
                reasons.update(row["reason"].partition(" (")[0] for row in rows if row["reason"])
                progress.advance(done)
    say(f"transcribe: {count} rows of {last - first} {source.unit}, {sum(reasons.values())} not read, {path}")
    for reason, times in sorted(reasons.items()):
        say(f"    {times:6d} x {reason}")
    return 0


def model_folder(asked: Path | None) -> Path:
    """Raises ValueError when no model was named and the project comes with none."""
    folder = asked or Path(os.environ.get("HTR_MODEL") or PRETRAINED)
    if (folder / "model" / "config.json").exists():
        return folder / "model"
    if not asked and "HTR_MODEL" not in os.environ and not folder.is_dir():
        raise ValueError("no reader: name a model's folder or a run with --model, or in HTR_MODEL")
    return folder


def read(source, first: int, last: int, reader, args: argparse.Namespace) -> Iterator[tuple[int, list[dict]]]:
    """-> again and again: how many more items of the source are done, and their rows."""
    items = source.items(first, last)
    if source.kind == "fields":
        for known, images, reason in items:
            yield 1, read_certificate(known, images, reason, reader, args)
        return
    while chunk := list(islice(items, CHUNK)):
        good = [(gray, known["field"] or None) for known, images, _ in chunk for gray in images]
        texts = iter(reader.read([gray for gray, _ in good], args.batch, [field for _, field in good]))
        yield len(chunk), [row_of(known, list(islice(texts, len(images))), reason) for known, images, reason in chunk]


def row_of(known: dict, readings: list, reason: str) -> dict:
    """Of a line, or of a field of several lines."""
    text = " ".join(reading.text for reading in readings if reading.text)
    confidence = min((reading.confidence for reading in readings), default=0.0)
    return known | {"text": text, "confidence": round(confidence, 4), "reason": reason}


def read_certificate(known: dict, images: list, reason: str, reader, args: argparse.Namespace) -> list[dict]:
    """The rows of its fields in the form's order, or one with a reason."""
    from htr.images.line import BadLine
    from htr.scan import read_scan
    from jobs.preprocess import prepare_forms

    if images:
        try:
            fields = read_scan(images[0], prepare_forms(args.forms), reader, rulings=args.rulings)
            return [known | field_row(field) for field in fields]
        except BadLine as error:
            reason = str(error)
    nothing = dict.fromkeys(COLUMNS["fields"], "") | {"confidence": 0.0, "lines": []}
    return [nothing | known | {"reason": reason}]


def field_row(field) -> dict:
    lines = [{"text": line.text, "confidence": round(line.confidence, 4), "box": line.box} for line in field.lines]
    return {
        "form": field.template,
        "field": field.field,
        "box": " ".join(map(str, field.box or ())),
        "text": field.text,
        "confidence": round(field.confidence, 4),
        "lines": lines,
        "reason": field.reason,
    }
