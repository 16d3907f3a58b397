"""Predictions of a chunk, written as its part: a row a line or a field, with all that later steps need.

All lines of a chunk are read together, from narrow to wide, in batches of as many pixels that hang on the chunk alone:
they are full, and a part has the same bytes wherever it is made.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from htr.forms.field_rules import contradictions
from htr.lines.normalise import RejectedInput, normalise_line
from htr.reader import Prediction, Reader, join_lines
from htr.scan import CutField, alternatives, cut_forms
from jobs.distributed.devices import batch_fits
from jobs.distributed.heartbeat import ACTIVITY
from jobs.transcription.inputs import Chunk
from jobs.transcription.table_writer import BESIDE, COLUMNS
from shards import files
from shards.loader import by_pixels, few_widths

READ = ("text", "alternatives", "reason")
WORD = "word_confidence"
SIZE_COLUMNS = ("width", "height")  # of the page, null where it could not be read
DAMAGED = "image can't be processed"  # what OpenCV itself refuses


def part_schema(kind: str, signals: Sequence[str]) -> pa.Schema:
    """The columns of a part.

    `confidences` and signal_NAME hold a value for every line image of the row, `line_words` how many words each has;
    word_confidence and word_signal_NAME hold a value for every word, or null where the reader gives none.
    """
    strings = [(name, pa.string()) for name in (*COLUMNS[kind], *BESIDE[kind], *READ)]
    numbers = [("item", pa.int64()), *((name, pa.int32()) for name in SIZE_COLUMNS), ("confidence", pa.float64())]
    lists = [(name, pa.list_(pa.float64())) for name in ("confidences", "line_words", WORD, *signals)]
    return pa.schema([*strings, *numbers, *lists])


def write_part(path: Path, chunk: Chunk, first: int, reader: Reader, forms, rulings: str, batch: int) -> None:
    """Read the chunk, whose first item has the number `first`, and commit its part."""
    rows = read_chunk(chunk, reader, forms, rulings, batch)
    names = sorted({name for row in rows for name in row if name.startswith(("signal_", "word_signal_"))})
    schema = part_schema(chunk.kind, names)
    for row in rows:
        row["item"] += first
        if chunk.kind == "lines" and not row["line"]:
            row["line"] = str(row["item"])  # else the lines of an image would be one and the same to who keys them
    with files.first_at(path) as attempt:
        pq.write_table(pa.Table.from_pylist(rows, schema), attempt, compression="zstd")


def read_chunk(chunk: Chunk, reader: Reader, forms, rulings: str, batch: int) -> list[dict]:
    """The rows of the chunk's items, in their order. `forms`: prepared templates, for a chunk of fields."""
    found: list[tuple[dict, list[CutField] | int]] = []  # a scan's fields, or how many images a line has
    inks, fields, height = [], [], reader.geometry.height
    nothing = dict.fromkeys((*COLUMNS[chunk.kind], *BESIDE[chunk.kind]), "") | {
        "lines": "[]",
        "line_alternatives": "[]",
    }
    for number, (known, images, reason) in enumerate(chunk.items()):
        ACTIVITY.progressed()  # what the watchdog sees
        known = nothing | known | {"item": number, "reason": reason}
        try:
            if chunk.kind == "fields" and images:
                glass, lost = cut_forms(images[0], forms, rulings)
                inks += [normalise_line(image, height) for cuts in glass for field in cuts for image in field.images]
                fields += [field.field.name for cuts in glass for field in cuts for _ in field.images]
                for place, cuts in enumerate(glass, 1):  # several forms on one scan are certificates of their own
                    own = known["certificate"] if len(glass) == 1 else f"{known['certificate']}-{place}"
                    found.append((known | {"certificate": own}, [replace(field, images=()) for field in cuts]))
                for place, why in enumerate(lost, len(glass) + 1):
                    found.append((known | {"certificate": f"{known['certificate']}-{place}", "reason": why}, 0))
                continue
            inks += [normalise_line(image, height) for image in images]
            fields += [known["field"] or None] * len(images)
        except RejectedInput as error:
            known["reason"], images = str(error), []
        except cv2.error:
            known["reason"], images = DAMAGED, []
        found.append((known, len(images)))
    texts = iter(read_inks(reader, inks, fields, batch))
    rows = []
    for known, cut in found:
        if isinstance(cut, int):
            rows.append(line_row(known, [next(texts) for _ in range(cut)]))
        else:
            rows += with_contradictions(
                [field_row(known, field, [next(texts) for _ in field.boxes]) for field in cut], cut
            )
    return rows


def with_contradictions(rows: list[dict], fields: Sequence[CutField]) -> list[dict]:
    """The rows of one form with the column `contradicts`: what each contradicts by the rules of its template, and what
    it says there already; or ""."""
    found = contradictions(fields[0].template.rules, {row["field"]: row["text"] for row in rows}) if fields else {}
    said = ([row.get("contradicts"), *found.get(row["field"], ())] for row in rows)
    return [row | {"contradicts": "; ".join(filter(None, of_row))} for row, of_row in zip(rows, said, strict=True)]


def read_inks(reader: Reader, inks: Sequence[np.ndarray], fields: Sequence[str | None], batch: int) -> list[Prediction]:
    """(H, W) uint8 each, with the field of each -> their texts; padded as an evaluation pads them.

    H is the height of the reader's geometry.
    """
    texts: dict[int, Prediction] = {}
    height = reader.geometry.height
    widths = np.array([ink.shape[1] for ink in inks])
    for some in by_pixels(widths, batch):
        padded = np.zeros((len(some), 1, height, few_widths(int(widths[some].max()))), np.uint8)
        for row, i in zip(padded, some, strict=True):
            row[0, :, : widths[i]] = inks[i]
        given = torch.from_numpy(padded), torch.from_numpy(widths[some]), [fields[i] for i in some]
        with batch_fits(padded):
            read = reader.read_batch(*given)
        ACTIVITY.progressed()
        texts.update(zip(some.tolist(), read, strict=True))
    return [texts[i] for i in range(len(inks))]


def line_row(known: dict, texts: list[Prediction]) -> dict:
    """The row of a line, or of a field of several lines."""
    text = join_lines([reading.text for reading in texts])
    confidence = min((reading.confidence for reading in texts), default=0.0)
    read = {"text": text, "alternatives": to_json(alternatives(texts)), "confidence": round(confidence, 4)}
    return known | read | of_lines(texts)


def field_row(known: dict, cut: CutField, texts: list[Prediction]) -> dict:
    """The row of a form's field. A line that was read and counts as a stamp's, beside others that do not, is named in
    `contradicts`: nothing else would say that the text may lack it."""
    field, read, texts = cut.as_text(texts), texts, cut.believed(texts)
    left_out = [one.text.strip() for one, kept in zip(read, texts, strict=True) if one.text.strip() and not kept.text]
    lines = [{"text": line.text, "confidence": round(line.confidence, 4), "box": line.box} for line in field.lines]
    return known | of_lines(texts) | {
        "form": field.template,
        "field": field.field,
        "box": " ".join(map(str, field.box or ())),
        "text": field.text,
        "confidence": round(field.confidence, 4),
        "alternatives": to_json(field.alternatives),
        "lines": to_json(lines),
        "line_alternatives": to_json([line.alternatives for line in field.lines]),
        "reason": field.reason,
        "contradicts": f"left out as a stamp's: {' | '.join(left_out)}" if left_out and field.text else "",
    }  # fmt: skip


def of_lines(texts: list[Prediction]) -> dict:
    """The confidence and the signals of each line image, also of one where nothing was read."""
    names = sorted({name for reading in texts for name in reading.signals})
    signals = {f"signal_{name}": [reading.signals[name] for reading in texts] for name in names}
    found = {"confidences": [reading.confidence for reading in texts]} | signals
    if any(reading.word_confidences is None for reading in texts):
        return found
    found |= {"line_words": [float(len(reading.word_confidences)) for reading in texts]}
    found |= {WORD: [value for reading in texts for value in reading.word_confidences]}
    words = sorted({name for reading in texts for name in reading.word_signals})
    return found | {
        f"word_signal_{name}": [value for reading in texts for value in reading.word_signals[name]] for name in words
    }


def to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
