"""Semi-real certificates: lines of real handwriting, with their true text, as ink for the fields of a form.

writers = real_writers(Path("lines.csv"))  # a row a line image: image, text, certificate[, writer, split, flags]
written = writers[0].lines("II", slots(template, field, 2), rng)  # [(text, ink), …]
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from htr.io.sources import read_source
from htr.lines.normalise import normalise_line
from htr.synth.handwriting import Ink
from htr.synth.layout import Slot

MIN_SCALE = 0.66  # of the slot's height: a line that must be smaller to fit is too long for the field
PIECES_TRIED = 12  # pieces looked at for a slot
PAPER_RESIDUE = 22  # what is left of the real paper after it is evened out


@dataclass(frozen=True)
class Piece:
    image: Path
    text: str


@dataclass(frozen=True)
class RealWriter:
    """A person of the table; `split` is the table's, empty without one."""

    name: str
    split: str
    pieces: tuple[Piece, ...]

    def how_many(self, most: int, rng: np.random.Generator) -> int:
        """Lines where there is room for `most`."""
        return int(rng.integers(1, most + 1))

    def lines(
        self, field: str, slots: list[Slot], rng: np.random.Generator, known: Collection[str] = ()
    ) -> list[tuple[str, Ink]]:
        """A piece for each slot, of one size, none of the texts `known`; fewer where none fits. Any fits any field."""
        share = rng.uniform(0.84, 1.0)  # of the slot's height
        dark = rng.uniform(0.7, 0.97)
        order = rng.permutation(len(self.pieces))[: PIECES_TRIED * len(slots)].tolist()
        found = []
        for slot in slots:
            while order:
                piece = self.pieces[order.pop()]
                if piece.text in known:
                    continue
                if (ink := fitting(piece, slot, share * slot.height)) is not None:
                    known = {*known, piece.text}
                    found.append((piece.text, Ink(cv2.convertScaleAbs(ink.pixels, alpha=dark), ink.baseline)))
                    break
        return found


@cache
def real_writers(table: Path, where: str = "") -> tuple[RealWriter, ...]:
    """The writers of a table of line images, by name: `writer`, or else `certificate`. The table's order is kept.

    `where`: only rows that have these values, as "collection=copiste,split=val".
    Rows that carry flags, a box or a polygon, no text, or an image outside the table's folder are left out. ValueError
    for what is no such table, or when nothing is left, or a writer is in two splits.
    """
    rows, root = read_source(table)
    wanted = [part.partition("=")[::2] for part in where.split(",") if part]
    if missing := [column for column, _ in wanted if column not in rows.column_names]:
        raise ValueError(f"{table}: no column {missing[0]!r} to select by; write it as COLUMN=VALUE")
    found: dict[str, list[Piece]] = {}
    splits: dict[str, str] = {}
    for row in rows.to_pylist():
        text, path = " ".join(row["text"].split()), (root / row["image"])
        if row.get("flags") or row["box"] or row["polygon"] or not text:
            continue
        if any(row[column] != value for column, value in wanted) or not path.resolve().is_relative_to(root.resolve()):
            continue
        name = row["writer"] or row["certificate"]
        if splits.setdefault(name, row["split"]) != row["split"]:
            raise ValueError(f"{table}: a writer has lines in the splits {splits[name]!r} and {row['split']!r}")
        found.setdefault(name, []).append(Piece(path, text))
    if not found:
        raise ValueError(f"{table}: no row with a line image, a text, and neither flags, box nor polygon {where}")
    return tuple(RealWriter(name, splits[name], tuple(found[name])) for name in sorted(found))


def fitting(piece: Piece, slot: Slot, height: float) -> Ink | None:
    """The piece as ink, its paper evened out and taken away, in the slot's width and at most `height` px high.

    None if it would be small beside the slot, or its image can't be read.
    """
    gray = cv2.imread(str(piece.image), cv2.IMREAD_GRAYSCALE)
    if gray is None or min(gray.shape) < 16:
        return None
    size = int(min(height, slot.room, (slot.width - 1) * gray.shape[0] / gray.shape[1]))
    if size < max(MIN_SCALE * slot.height, 24):
        return None
    pixels = cv2.convertScaleAbs(
        cv2.subtract(normalise_line(gray, size), PAPER_RESIDUE), alpha=255 / (255 - PAPER_RESIDUE)
    )
    return Ink(pixels, foot(pixels))


def foot(pixels: np.ndarray) -> float:
    """The row on which the letters of a line stand: the lower end of the rows with much ink."""
    rows = cv2.blur(pixels.sum(axis=1, dtype=np.float32)[:, None], (1, max(3, len(pixels) // 16)))[:, 0]
    much = np.flatnonzero(rows > 0.5 * rows.max()) if rows.max() else [0.75 * len(pixels)]
    return float(much[-1])
