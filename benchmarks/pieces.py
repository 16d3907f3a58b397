"""Pieces of real lines for benchmarks/certificates.py: 5 to 30 characters, cut at gaps between words."""

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from htr.decoding.align import Alignment, align_many, measure_emission_delay, word_boxes
from htr.lines.normalise import normalise_line
from htr.reader import Reader
from htr.synth.semireal import RealWriter, real_writers

SHORTEST, LONGEST = 5, 30  # characters
GAP = 0.06  # of a line's height: paper between two words, at least
WORST = 0.05  # share of the lines, those whose text fits worst, that are left out
BATCH = 16


@dataclass(frozen=True, eq=False)
class Line:
    """A real line with its text and where that stands."""

    writer: str
    text: str
    gray: np.ndarray  # (H, W) uint8
    ink: np.ndarray  # (H', W') uint8, as the model sees it
    alignment: Alignment


def aligned(writers: tuple[RealWriter, ...], reader: Reader) -> list[Line]:
    """Every line that the reader's alphabet can write and that has frames enough for its text."""
    rows, seen = [], reader.geometry.height
    for writer in writers:
        for piece in writer.pieces:
            gray = cv2.imread(str(piece.image), cv2.IMREAD_GRAYSCALE)
            if gray is not None and not reader.charset.missing(piece.text):
                rows.append((writer.name, piece.text, gray, normalise_line(gray, seen)))
    found: dict[int, Line] = {}
    for part, frames in reader.encode_lines([ink for *_, ink in rows], BATCH):
        labels = [reader.charset.encode(rows[row][1]) for row in part]
        alignments = align_many(frames.log_probs.float().cpu().numpy(), labels, frames.lengths.tolist())
        found |= {row: Line(*rows[row], a) for row, a in zip(part, alignments, strict=True) if a is not None}
    return [found[row] for row in sorted(found)]


def pieces_of(
    line: Line, reader: Reader, emission_delay: float, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """-> texts and their pixels, one after the other, none twice."""
    boxes = word_boxes(line.alignment, line.text, line.gray.shape, reader.geometry, line.ink, emission_delay)
    height, width = line.gray.shape
    cuts: list[int | None] = [0]  # the column before each word, and the line's end; None where words touch
    for before, after in pairwise(boxes):
        wide = after.left - before.right >= GAP * height
        cuts.append(round((before.right + after.left) / 2) if wide else None)
    cuts.append(width)
    found, start = [], 0
    while start < len(boxes):
        texts = {end: " ".join(box.text for box in boxes[start:end]) for end in range(start + 1, len(boxes) + 1)}
        ends = [end for end, text in texts.items() if SHORTEST <= len(text) <= LONGEST and cuts[end] is not None]
        if cuts[start] is None or not ends:
            start += 1
            continue
        end = ends[int(rng.integers(len(ends)))]
        found.append((texts[end], line.gray[:, cuts[start] : cuts[end]]))
        start = end
    return found


def write_pieces(table: Path, where: str, reader: Reader, folder: Path, seed: int) -> tuple[Path, dict[str, int]]:
    """Cut the lines of a table of real handwriting -> the table of their pieces in `folder`, and counts of it."""
    writers = real_writers(table, where)
    lines = aligned(writers, reader)
    if not lines:
        raise ValueError(f"{table}: no line {where} that the reader's alphabet can write")
    alignments, texts, inks = [li.alignment for li in lines], [li.text for li in lines], [li.ink for li in lines]
    emission_delay = measure_emission_delay(alignments, texts, inks, reader.geometry)
    least = np.quantile([alignment.margin for alignment in alignments], WORST)
    rng, rows, known = np.random.default_rng(seed), [], set()
    for line in lines:
        if line.alignment.margin < least:
            continue
        for text, gray in pieces_of(line, reader, emission_delay, rng):
            # a text stands for its piece: none twice in a hand
            if (line.writer, text) not in known and gray.shape[1] >= 16:
                known.add((line.writer, text))
                name = f"{len(rows):05d}.png"
                cv2.imwrite(str(folder / name), gray)
                rows.append({"image": name, "text": text, "certificate": line.writer, "writer": line.writer})
    path = folder / "pieces.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["image", "text", "certificate", "writer"])
        writer.writeheader()
        writer.writerows(rows)
    whole = sum(len(writer.pieces) for writer in writers)
    return path, {"lines": whole, "aligned": len(lines), "pieces": len(rows), "writers": len(writers)}
