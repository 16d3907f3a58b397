"""PAGE XML of a transcription: a file for each image, its fields as regions, or the lines that were given."""

import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from htr.io.direction import TURNS
from htr.io.direction import points as points_of
from htr.io.page_xml import Line, Points, Region, box_outline, page_xml
from shards import files


def write_pages(part: pa.Table, kind: str, folder: Path) -> None:
    """Write the PAGE XML of a decided part (see jobs.transcription.results), each file whole. Images that could not be
    read get none."""
    for (image, page), rows in groupby(part.to_pylist(), key=lambda row: (row["image"], row["page"])):
        rows = [row for row in rows if row["width"]]
        if not rows:
            continue
        path = folder / name_of(image, page)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = rows[0]["width"], rows[0]["height"]
        regions = fields_of(rows) if kind == "fields" else lines_of(rows, size)
        files.replace(path, page_xml(posixpath.basename(image), size, list(regions)))


def name_of(image: str, page: str) -> str:
    """IMAGE.xml, or IMAGE.PAGE.xml for a page of several, in the image's own folder below FOLDER and never above it."""
    steps = [step for step in posixpath.normpath(image).split("/") if step not in ("", "..")]
    return "/".join(steps) + (f".{page}" if page else "") + ".xml"


def fields_of(rows: list[dict]) -> Iterator[Region]:
    """The fields of a scan as regions. A region has the field's probability, a line the reader's confidence. Fields
    that lie outside the scan are left out."""
    for row in rows:
        if not row["box"]:
            continue
        lines = [
            Line(box_outline(line["box"]), line["text"], line["confidence"], others)
            for line, others in zip(json.loads(row["lines"]), json.loads(row["line_alternatives"]), strict=True)
        ]
        outline = box_outline([int(side) for side in row["box"].split()])
        yield Region(row["field"], outline, row["text"], sure(row), json.loads(row["alternatives"]), lines)


def lines_of(rows: list[dict], size: tuple[int, int]) -> Iterator[Region]:
    """The lines of a page as regions: those of one field together, in the order of their rows."""
    whole = box_outline((0, 0, *size))
    for (name, turn), some in groupby(rows, key=lambda row: (row["field"], row["turn"])):
        lines = []
        for row in some:
            if not row["reason"]:
                others, baseline = json.loads(row["alternatives"]), points(row["baseline"])
                lines.append(Line(outline_of(row) or whole, row["text"], sure(row), others, baseline))
        text, least = "\n".join(line.text for line in lines), min((line.confidence for line in lines), default=0.0)
        yield Region(name or "page", whole, text, least, (), lines, int(turn) if turn in TURNS else 0)


def outline_of(row: dict) -> Points:
    if row["polygon"]:
        return points(row["polygon"])
    return box_outline([int(side) for side in row["box"].split()]) if row["box"] else []


def points(cell: str) -> Points:
    """Of a polygon or baseline; none of a baseline that makes no sense: its line was read without it."""
    found = points_of(cell)
    return [] if found is None else [(x, y) for x, y in found.tolist()]


def sure(row: dict) -> float:
    return row["confidence"] if row["probability"] is None else row["probability"]


def is_done(folder: Path, mark: str) -> bool:
    return (folder / f".{mark}").exists()


def marked(folder: Path, mark: Callable[[str], str], parts: Iterable[str]) -> set[str]:
    """Those of these parts whose pages are all written."""
    try:
        there = set(os.listdir(folder))
    except FileNotFoundError:
        return set()
    return {part for part in parts if f".{mark(part)}" in there}


def done(folder: Path, mark: str) -> None:
    """Note that all pages of a part are written. `mark`: the part's name, and the fingerprint of how it was decided."""
    files.replace(folder / f".{mark}", "")
