"""Reading the shards of an evaluation: each becomes one part, with a row a text."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from htr.reader import Prediction, Reader, join_lines
from htr.reliability.units import LINE_PREFIX, LINE_WORDS, PREFIX, WORD_PREFIX
from jobs.cli.console import Progress
from jobs.distributed.cpus import cpus_of_task, decoding_workers
from jobs.distributed.devices import batch_fits
from jobs.distributed.heartbeat import ACTIVITY
from jobs.evaluation.label_gap import label_gaps
from jobs.evaluation.result_files import counted, part, write_part
from jobs.launch.shared_work import SharedWork
from jobs.launch.under_way import under_way
from shards import files
from shards.index import Index
from shards.loader import Samples, Team, batches, by_pixels

QUEUED_BATCHES = 2  # batches that wait to be decoded
SHARDS_PER_READ = 100  # shards whose rows of the index are held together


def read_own_shards(
    work: SharedWork, index: Index, args, where: dict, reader: Reader, mixed, references, column: str | None
) -> None:
    """Read this task's shards that have no part yet, and write their parts. `args`: split and batch of the verb;
    `column`: of the texts that the reader writes, None for the text as written."""
    team = Team(decoding_workers(next(reader.model.parameters()).device.type) if work.todo else 0)

    def read(some: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(some), SHARDS_PER_READ):
            now = some[start : start + SHARDS_PER_READ]
            table = index.samples(args.split, {**where, "shard": [s for s in now if s in where.get("shard", now)]})
            for shard in now:
                with under_way(work.folder, shard) as ours:
                    if ours and not part(work.folder, shard).exists():
                        rows = table.filter(pc.equal(table["shard"], shard))
                        samples = Samples(index.folder, rows, column)
                        rows = rows.take(samples.text_row)
                        read_shard(samples, rows, reader, mixed, references, args.batch, work.folder, shard, team)
                yield shard

    with Progress("evaluate", len(work.todo), "shards") as progress, torch.no_grad(), mixed(), team:
        for _ in work.each(read):
            progress.advance()


def read_shard(samples, rows, reader, mixed, references, batch: int, folder: Path, shard: str, team=0) -> None:
    """Read the shard's texts and commit its part, a row a text, in the order of the shard.

    `rows`: the texts' rows of the index; `team`: who decodes the images (see shards.loader). One thread decodes what
    the model made of a batch, while the next batch is encoded.
    """
    began, decoding = time.monotonic(), 0.0
    results: dict[int, dict] = {}
    height = reader.geometry.height
    plan = by_pixels(samples.widths(height), batch, samples.count)
    cores = cpus_of_task()
    fields = rows["field"].to_pylist() if "field" in rows.column_names else None

    def decode(piece, encoded) -> None:
        nonlocal decoding
        waited = time.monotonic()
        counts = piece.parts or [1] * len(piece.rows)
        of_lines = [fields[row] for row in np.repeat(piece.rows, counts)] if fields else None
        with mixed():  # each thread has its own
            texts = map(reader.text, reader.decode(encoded, of_lines))
        found = [result(list(islice(texts, count))) for count in counts]
        read = [own["hypothesis"] for own in found]
        gaps = label_gaps(encoded.log_probs, encoded.lengths.tolist(), counts, piece.texts, read, reader.charset)
        for row, reference, own, gap in zip(piece.rows, piece.texts, found, gaps, strict=True):
            results[row] = {"reference": reference, "label_gap": gap} | own
        decoding += time.monotonic() - waited
        ACTIVITY.progressed()

    with ThreadPoolExecutor(1, "decode") as pool:
        waiting = []
        for piece in batches(samples, plan, 0, 1, height, team):
            with batch_fits(piece.images):
                encoded = reader.encode(piece.images, piece.widths)
            ACTIVITY.progressed()  # what the watchdog sees
            waiting.append(pool.submit(decode, piece, encoded))
            if len(waiting) > QUEUED_BATCHES:
                waiting.pop(0).result()
        for last in waiting:
            last.result()
    samples.close()
    names = dict.fromkeys(name for row in range(len(samples)) for name in results[row])
    found = {name: [results[row].get(name) for row in range(len(samples))] for name in names}
    table = rows.drop_columns(["offset", "size", "text_size", *(name for name in found if name in rows.column_names)])
    for name, values in found.items():
        table = table.append_column(name, pa.array(values))
    table = counted(table, references)
    note = {"lines": len(samples), "seconds": time.monotonic() - began, "decoding": decoding, "cores": cores}
    (folder / "timing").mkdir(exist_ok=True)
    files.replace(folder / "timing" / f"{shard}.json", files.to_json(note))
    write_part(table, part(folder, shard))


def result(lines: list[Prediction]) -> dict:
    """The predictions of a text's lines -> the columns of its row in the part (see htr/reliability/units.py)."""
    least = min(lines, key=lambda line: line.confidence)
    found = {"hypothesis": join_lines([line.text for line in lines]), "confidence": least.confidence}
    found |= {PREFIX + name: value for name, value in least.signals.items()}
    lists = {}
    if least.word_confidences is not None:
        lists["word_confidence"] = [value for line in lines for value in line.word_confidences]
        lists |= {WORD_PREFIX + n: [v for line in lines for v in line.word_signals[n]] for n in least.word_signals}
    lists = {name: np.asarray(values, np.float32) for name, values in lists.items()}
    if len(lines) > 1:
        lists |= {LINE_PREFIX + name: np.array([line.signals[name] for line in lines]) for name in least.signals}
        lists[LINE_WORDS] = np.array([len(line.text.split()) for line in lines])
    return found | lists
