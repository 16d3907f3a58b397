"""python -m jobs align DATASET --run RUN --to words|lines: where each text stands in its image, by forced alignment.

    sbatch --array=0-7 slurm/align.sh DATASET --run runs/ctc --to words
    python -m jobs preprocess DATASET/aligned-words.parquet --out WORDS --encoding png

The result is a table that preprocess takes as a source. Its images are members of the data set's shards, so it lies in
the data set's folder or above it. --to words: one row for each word, with its box. --to lines: one row for each line;
the text of a field of several lines is cut where its lines end. `score` is the text's log-probability per character.
`margin` is that score less the score of the reader's own text: 0 where they agree, lower the worse the label fits. A
text that can't be aligned or fits badly (below --least) has the reason in the column `reject`; preprocess then rejects
and counts it. Blank fields, tick boxes and whole pages are not in the table.

Tasks own shards by number; each shard becomes one part, a Parquet file under RUN/alignment/NAME, and the task that ends
last merges them. Another --least or --split needs no second alignment: the parts are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting

HIGH_REJECTED_SHARE = 0.2  # of the lines rejected: more than labels are wrong
DELAY_TEXTS = 256  # by which the delay of the reader's peaks is measured


@dataclass(frozen=True)
class Settings:
    dataset: Path = setting(help="folder of a data set", positional=True)
    run: Path = setting(help="run whose model aligns")
    to: Literal["words", "lines"] = setting(
        help="what to find: words with their boxes, or lines with their parts of the text"
    )
    out: Path | None = setting(
        None,
        "table to write (default: aligned-words.parquet or aligned-lines.parquet in the data set)",
        metavar="TABLE.parquet",
    )
    split: list[str] = setting([], "split to align; repeatable (default: all)", metavar="NAME")
    least: float | None = setting(
        None,
        "smallest margin per character; below it a label is rejected (default: found from how texts of other "
        "lines fit)",
        metavar="SCORE",
    )
    text: str | None = setting(
        None,
        "column of the source to align in place of the text as written (default: what the reader writes)",
        metavar="COLUMN",
    )
    name: str | None = setting(None, "name of the alignment (default: by --to, the model's step and the data set)")
    batch: int = setting(16, "texts read at once", least=1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where to compute; auto takes a GPU if there is one")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "precision of the computation; auto takes bf16 where the device has it"
    )


def main(args: Settings) -> int:
    import torch

    from htr.reader import Reader, weights_of
    from jobs.distributed.devices import take_device
    from jobs.distributed.placement import Placement
    from jobs.distributed.precision import precision
    from jobs.evaluation.alignments import merge, part, texts_of_shard, write_part
    from jobs.launch.part_watchdog import watch_besides, watch_reading
    from jobs.launch.shared_work import SharedWork, agreed_note, check_same
    from jobs.launch.under_way import under_way
    from shards.index import read_index

    with watch_reading(args.run, "reading the index"):
        index = read_index(args.dataset)
    out = args.out or index.folder / f"aligned-{args.to}.parquet"
    check_out(out, index.folder)
    wrong = [name for name in args.split if not index.totals.get(name)]
    if wrong:
        have = ", ".join(name for name, count in index.totals.items() if count)
        raise ValueError(f"{args.dataset}: no sample in split {', '.join(wrong)} (there are: {have})")
    device = take_device(Placement.find(), args.device)
    with watch_besides(args.run, "loading the model"):
        reader = Reader.load(args.run / "model", device)
    mixed, _ = precision(args.amp, device)

    # ---------------------------------------------------------------- the alignment's folder, the same for all tasks
    asked = {"dataset": index.fingerprint, "to": args.to, "weights": weights_of(args.run / "model")}
    asked |= {"step": reader.config["step"], "batch": args.batch, "amp": args.amp, "text": args.text}
    asked |= {"index": index.digest}
    name = args.name or f"{args.to}-{reader.config['step']:06d}-{index.fingerprint[:8]}"
    folder = args.run / "alignment" / name
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), mixed():
        before = agreed_note(
            folder / "alignment.json",
            lambda: asked | {"delay": measured_delay(index, reader, args) if args.to == "words" else 0.0},
        )
        check_same(folder, before, asked)
        reader.emission_delay = before["delay"]

        # ------------------------------------------------------------ this task's shards
        shards = [shard["shard"] for shard in index.shards if not args.split or shard["split"] in args.split]
        work = SharedWork("align", "align", "shards", shards, folder, "parts/")

        def align(some: Sequence[str]) -> Iterator[str]:
            for shard in some:
                with under_way(folder, shard) as ours:
                    if ours and not part(folder, shard).exists():
                        write_part(folder, shard, texts_of_shard(index.folder, shard), index, reader, args)
                yield shard

        with Progress("align", len(work.todo), "shards") as progress:
            for _ in work.each(align):
                progress.advance()

    # ---------------------------------------------------------------- the last one merges
    if work.is_left_to_others():
        return 0
    with watch_besides(folder, "merging the parts"):
        summary = merge(folder, shards, index, out, args.least)
    report(summary, out)
    return 0


def check_out(out: Path, dataset: Path) -> None:
    """Raises ValueError for a table in a folder from which it can't name its images, or one that would replace a file
    of the data set."""
    if out.suffix != ".parquet":
        raise ValueError(f"--out {out}: a Parquet table is written, give it a name that ends in .parquet")
    if not dataset.resolve().is_relative_to(out.parent.resolve()):
        raise ValueError(
            f"--out {out}: the table names its images by their place below its own folder: put it into {dataset} or "
            f"a folder above it"
        )
    if out.with_suffix(".json").exists() or out.name in ("index.parquet", "rejects.parquet"):
        raise ValueError(f"--out {out}: a file of the data set itself has this name, give another")


def measured_delay(index, reader, args: Settings) -> float:
    """By how many pixels the model's peaks lie right of the writing (see align.measure_emission_delay), from the first
    texts of the data set."""
    from htr.decoding.align import measure_emission_delay
    from jobs.evaluation.alignments import lines_of, texts_of_shard
    from jobs.launch.part_watchdog import watch_besides

    lines = []
    with watch_besides(args.run, "measuring the delay of the model's peaks"):
        for shard in index.shards:
            table = texts_of_shard(index.folder, shard["shard"])
            for found in lines_of(index.folder, table, reader, args.batch, args.text):
                lines += [line for line in found if line.alignment is not None]
                if len(lines) >= DELAY_TEXTS:
                    break
            if len(lines) >= DELAY_TEXTS:
                break
    alignments, texts = [line.alignment for line in lines], [line.text for line in lines]
    return measure_emission_delay(alignments, texts, [line.ink for line in lines], reader.geometry)


def report(summary: dict, out: Path) -> None:
    least = summary["least"]
    log(f"align: {summary['rows']} rows in {out}, {sum(summary['rejects'].values())} of them to be rejected"
        f"{'' if least is None else f' (least margin {least:.2f})'}")  # fmt: skip
    for reason, count in sorted(summary["rejects"].items()):
        log(f"    {count:6d} x {reason}")
    if passed := summary["passed_over"]:
        kinds = ", ".join(f"{count} x {level}" for level, count in passed.items())
        log(f"align: {sum(passed.values())} samples have no text to align ({kinds})")
    found, lost = summary["wrong_found"], summary["own_rejected"]
    if found is not None:
        log(f"align: of texts of other lines {100 * found:.1f} % lie below it, of the lines' own {100 * lost:.1f} %")
        if lost > HIGH_REJECTED_SHARE:
            log("align: this reader hardly tells right texts from wrong ones: train it longer, or give --least")
