"""python -m jobs evaluate DATASET --run RUN --split val: CER and WER of a run, as any number of tasks.

    sbatch --array=0-7 slurm/evaluate.sh DATASET --run runs/ctc --split val

Tasks own shards by number; each shard becomes one part, a Parquet file with a row a line, written once. The task that
ends last merges the parts into metrics.json. A second run does only what is missing. Padding and batches are a
function of the shard alone, so the result does not depend on the number of tasks.
"""

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from jobs.show import Progress, say
from jobs.work import share_of_work

WITHOUT_SLICES = ("key", "certificate", "writer", "line", "image", "shard", "split")
MOST_SLICES = 100  # of one column; more is not a slice but a name


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", type=Path, nargs="?", help="default: the one that the run was trained on")
    add("--run", type=Path, required=True, help="the run whose model/ reads")
    add("--split", default="val")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="these samples only; repeatable")
    add("--name", help="of the evaluation (default: the split, the model's step, and --where)")
    add("--batch", type=int, default=16, help="lines read at once")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--amp", choices=["auto", "off", "bf16", "fp16"], default="auto")


def main(args: argparse.Namespace) -> int:
    import torch

    from htr.reader import Reader
    from jobs.experiment import read_json
    from jobs.place import Place, take_device
    from jobs.train import autocast, parse_where
    from shards import files
    from shards.index import read_index
    from shards.stream import Samples

    if args.dataset is None:
        config = read_json(args.run / "config.json")
        if config is None:
            raise ValueError(f"{args.run}: not a run folder (no config.json)")
        args.dataset = Path(config["folder"])
    index = read_index(args.dataset)
    device = take_device(Place.find(), args.device)
    reader = Reader.load(args.run / "model", device)
    missing = reader.alphabet.missing(index.alphabet.characters)
    if missing:
        from htr.alphabet import name

        raise ValueError(f"{args.dataset} has another alphabet than {args.run}, which can't write {name(missing)}")
    table = index.samples(args.split, parse_where(args.where))

    # ---------------------------------------------------------------- the evaluation's folder, the same for all tasks
    weights = (args.run / "model" / "weights.safetensors").read_bytes()
    asked = {"dataset": index.fingerprint, "split": args.split, "where": sorted(args.where), "batch": args.batch}
    asked |= {"weights": hashlib.sha256(weights).hexdigest()[:16], "step": reader.config["step"], "amp": args.amp}
    folder = args.run / "evaluation" / (args.name or default_name(args, reader.config["step"]))
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    note = files.temporary(folder / "evaluation.json")
    files.write_synced(note, files.to_json(asked))
    files.commit(note, folder / "evaluation.json")
    before = json.loads((folder / "evaluation.json").read_text())
    differ = [name for name, value in asked.items() if before.get(name) != value]
    if differ:
        raise ValueError(f"{folder} was begun with another {', '.join(differ)}: give another --name, or remove it")

    # ---------------------------------------------------------------- this task's shards
    import pyarrow.compute as pc

    shards = sorted(set(table["shard"].to_pylist()))
    task, tasks = share_of_work()
    mine = [shard for number, shard in enumerate(shards) if number % tasks == task]
    todo = [shard for shard in mine if not part(folder, shard).exists()]
    say(f"evaluate: task {task + 1} of {tasks}, {len(todo)} of its {len(mine)} shards to read")
    mixed, _ = autocast(args, device)
    with Progress("evaluate", len(todo), "shards") as progress, torch.no_grad(), mixed():
        for shard in todo:
            rows = table.filter(pc.equal(table["shard"], shard))
            read_shard(Samples(index.folder, rows), rows, reader, args.batch, part(folder, shard))
            progress.advance()

    # ---------------------------------------------------------------- the last one merges
    left = [shard for shard in shards if not part(folder, shard).exists()]
    if left:
        say(f"evaluate: this task is done; {len(left)} of {len(shards)} shards are others'")
        return 0
    metrics = merge(folder, shards, asked)
    say(f"evaluate: {folder / 'metrics.json'}")
    print(f"{args.run.name} on {args.split}: CER {100 * metrics['cer']:.2f} %, WER {100 * metrics['wer']:.2f} %, "
          f"{metrics['lines']} lines")  # fmt: skip
    return 0


def default_name(args: argparse.Namespace, step: int) -> str:
    where = "".join(f"-{pair}" for pair in sorted(args.where))
    return f"{args.split}-{step:06d}{where}".replace("/", "~")


def part(folder: Path, shard: str) -> Path:
    return folder / "parts" / f"{shard}.parquet"


def read_shard(samples, rows, reader, batch: int, path: Path) -> None:
    """Read the shard's lines and commit its part: a row a line, in the order of the shard."""
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    from htr.models.encoder import HEIGHT
    from htr.scoring.errors import compare
    from shards import files
    from shards.stream import batches, in_order

    results: dict[int, dict] = {}
    plan = in_order(samples.columns["width"] * HEIGHT // samples.columns["height"], batch)
    threads = len(os.sched_getaffinity(0))
    for piece in batches(samples, plan, 0, 1, HEIGHT, threads):
        readings = reader.read_batch(piece.images, piece.widths)
        for row, text, reading in zip(piece.rows, piece.texts, readings, strict=True):
            counted = asdict(compare(text, reading.text))
            counted.pop("lines")
            results[row] = {"reference": text, "hypothesis": reading.text, "confidence": reading.confidence, **counted}
    samples.close()
    table = rows.drop_columns(["offset", "size", "text_size"])
    for name in ("reference", "hypothesis", "confidence", "characters", "edits", "words", "word_edits", "exact"):
        table = table.append_column(name, pa.array([results[row][name] for row in range(len(samples))]))
    attempt = files.temporary(path)
    try:
        pq.write_table(table, attempt, compression="zstd")
        with open(attempt, "rb") as file:
            os.fsync(file.fileno())
        files.commit(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)


def merge(folder: Path, shards: list[str], asked: dict) -> dict:
    """metrics.json from all parts; written by any task that finds them whole, always the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shards import files

    table = pa.concat_tables([pq.read_table(part(folder, shard)) for shard in shards])
    keys = table["key"].to_pylist()
    if len(set(keys)) != len(keys):
        raise ValueError(f"{folder}: {len(keys) - len(set(keys))} lines were read twice: remove the folder")
    counted = ("characters", "edits", "words", "word_edits", "exact")
    slices = {}
    for name in table.column_names:
        if name in WITHOUT_SLICES or table.schema.field(name).type != pa.string():
            continue
        groups = table.group_by(name).aggregate([(column, "sum") for column in counted] + [("key", "count")])
        if name not in ("reference", "hypothesis") and 1 < groups.num_rows <= MOST_SLICES:
            rows = sorted(groups.to_pylist(), key=lambda row: row[name])
            slices[name] = {row[name]: rates({c: row[f"{c}_sum"] for c in counted}, row["key_count"]) for row in rows}
    sums = {column: sum(table[column].to_pylist()) for column in counted}
    metrics = {**asked, **rates(sums, len(keys)), "by": slices}
    files.replace(folder / "metrics.json", files.to_json(metrics))
    return metrics


def rates(sums: dict[str, int], lines: int) -> dict:
    return {
        "lines": lines,
        **sums,
        "cer": sums["edits"] / sums["characters"],
        "wer": sums["word_edits"] / max(sums["words"], 1),
        "line_accuracy": sums["exact"] / lines,
    }
