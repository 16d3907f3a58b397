"""python -m jobs evaluate DATASET --run RUN --split val: CER and WER of a run, as any number of tasks.

    sbatch --array=0-7 slurm/evaluate.sh DATASET --run runs/ctc --split val

Lines are read, and fields of several lines with one text: their lines one by one, joined by spaces, as transcribe does.
`--where level=line` (`field`, `blank`) chooses. Tasks own shards by number; each shard becomes one part, a Parquet file
with a row a text, written once. The task that ends last merges the parts into metrics.json. A second run does only what
is missing. Padding and batches are a function of the shard alone, so the result does not depend on the number of tasks.

`--decode beam` reads with what `python -m jobs tune` left in RUN/decoding. jobs/evaluation/result_files.py says
what metrics.json and the parts hold; timing.json says how fast it was. `--terms` counts causes of death in
transcriptions and readings, `--promise` says what acceptance selects (jobs/evaluation/cause_statistics.py).
`--against` compares two evaluations of the same lines.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.work_sharding import share_of_work
from jobs.training.adopted import run_of

QUEUED_BATCHES = 2  # batches that wait to be decoded
LEVELS = ("line", "field")  # that are read, unless --where says others
MAY = ("line", "field", "blank")  # be read
SHARDS_PER_READ = 100  # shards whose rows of the index are held together


@dataclass(frozen=True)
class Settings:
    dataset: Path | None = setting(
        None, "data set to read (default: the one that the run was trained on)", positional=True
    )
    run: Path | None = setting(None, "the run whose model/ reads")
    model: Path | None = setting(None, "a model's folder in place of a run: htr/pretrained, say", metavar="FOLDER")
    split: str = setting("val")
    where: list[str] = setting([], "these samples only; repeatable", metavar="COLUMN=VALUE")
    decode: Literal["greedy", "beam"] | None = setting(
        None, "beam: with RUN/decoding, which tune makes (default: as --against was, else greedy)"
    )
    abbreviations: Path | None = setting(
        None, "abbreviation,expansion: rates by which either is right", metavar="TABLE"
    )
    terms: str | None = setting(
        None, "term,category: what errors do to a table of causes; french: the project's own", metavar="TABLE"
    )
    promise: Path | None = setting(None, "what it accepts of these texts, and leaves", metavar="RUN/reliability/NAME")
    name: str | None = setting(
        None, "of the evaluation (default: the split, the model's step, the decoding, and --where)"
    )
    forms: Path | None = setting(None, "a folder of templates with rules: contradicting fields are counted")
    against: Path | None = setting(None, "compare with another evaluation's folder, line by line", metavar="EVALUATION")
    batch: int = setting(16, "lines read at once")
    device: Literal["auto", "cpu", "cuda"] = setting("auto")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting("auto")


def main(args: Settings) -> int:
    import torch

    from htr.decoding.decoder import digest_of
    from htr.metrics.terms import Terms
    from htr.reader import Reader, weights_of
    from htr.references import References
    from htr.reliability.conditions import conditions
    from jobs.distributed.placement import Placement, take_device
    from jobs.distributed.precision import precision
    from jobs.evaluation.cause_statistics import table_of
    from jobs.evaluation.comparison import check_against, paired
    from jobs.evaluation.result_files import FORMAT, merge, part, speed
    from jobs.evaluation.texts import config_of, dataset_of
    from jobs.launch.under_way import ended, note_work, others, under_way
    from jobs.training.config import parse_where
    from shards import files
    from shards.loader import Samples

    other = check_against(args.against) if args.against else {}
    args = replace(args, run=run_of(args.run, args.model), decode=args.decode or other.get("decode", "greedy"))
    config = config_of(args.run)
    index = dataset_of(config, args.dataset)
    args = replace(args, dataset=index.folder)
    device = take_device(Placement.find(), args.device)
    decoding = args.run / "decoding" if args.decode == "beam" else None
    reader = Reader.load(args.run / "model", device, decoding)
    missing = reader.charset.missing(index.charset.characters)
    if missing:
        from htr.charset import name

        log(f"evaluate: {args.run} can't write {name(missing)}: each one in a text is an error")
    where = parse_where(args.where)
    levels = sorted(where.get("level", LEVELS))
    if set(levels) - set(MAY):
        raise ValueError(f"--where level: evaluate reads {', '.join(MAY)}")
    where["level"] = [*levels, "part"] if "field" in levels else levels
    shards = shards_of(index, args.split, where)

    # ---------------------------------------------------------------- the evaluation's folder, the same for all tasks
    mixed, amp = precision(args.amp, device)
    asked = {"dataset": index.fingerprint, "split": args.split, "where": sorted(args.where), "levels": levels}
    asked |= conditions(
        weights_of(args.run / "model"), args.decode, digest_of(decoding), amp, args.batch, device.type
    ) | {"step": reader.config["step"], "format": FORMAT}
    if args.abbreviations:
        asked |= {"abbreviations": files.sha256(args.abbreviations)[:16]}
    rules = rules_of_forms(args.forms)
    if rules:
        asked |= {"rules": {name: [rule.note() for rule in own] for name, own in rules.items()}}
    if args.terms:  # what is wrong with it is said now
        Terms.load(table_of(args.terms))
    references = References.load(args.abbreviations) if args.abbreviations else None
    folder = args.run / "evaluation" / (args.name or default_name(args, reader.config["step"]))
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    note = files.temporary(folder / "evaluation.json")
    files.write_synced(note, files.to_json(asked))
    files.commit(note, folder / "evaluation.json")
    before = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    differ = [name for name, value in asked.items() if before.get(name) != value]
    if differ:
        raise ValueError(f"{folder} was begun with another {', '.join(differ)}: give another --name, or remove it")

    # ---------------------------------------------------------------- this task's shards
    import pyarrow.compute as pc

    task, tasks = share_of_work()
    mine = [shard for number, shard in enumerate(shards) if number % tasks == task]
    todo = [shard for shard in mine if not part(folder, shard).exists()]
    note_work(folder, "evaluate", "shards", shards, "parts/")
    log(f"evaluate: task {task + 1} of {tasks}, {len(todo)} of its {len(mine)} shards to read")
    with Progress("evaluate", len(todo), "shards") as progress, torch.no_grad(), mixed():
        for start in range(0, len(todo), SHARDS_PER_READ):
            some = todo[start : start + SHARDS_PER_READ]
            table = index.samples(args.split, {**where, "shard": [s for s in some if s in where.get("shard", some)]})
            for shard in some:
                with under_way(folder, shard) as ours:
                    if ours and not part(folder, shard).exists():
                        rows = table.filter(pc.equal(table["shard"], shard))
                        samples = Samples(index.folder, rows, config.get("text"))
                        rows = rows.take(samples.text_row)
                        read_shard(samples, rows, reader, mixed, references, args.batch, folder, shard)
                progress.advance()

    # ---------------------------------------------------------------- the last one merges
    left = [shard for shard in shards if not part(folder, shard).exists()]
    if left:
        log(f"evaluate: {others(len(left), len(shards), 'shards', folder)}")
        return 0
    ended(folder)
    metrics, timing = merge(folder, shards, asked, known_words(config), rules), speed(folder, shards)
    log(f"evaluate: {folder / 'metrics.json'}")
    if timing:
        cores = " or ".join(map(str, timing["cores"]))
        log(f"evaluate: {timing['lines_per_s']:.1f} lines/s a task of {cores} cores, "
            f"{timing['decoding_lines_per_s']:.0f} of the decoding alone")  # fmt: skip
    known, about = metrics["interval"], ""
    if known["cer"]:
        low, high = (f"{100 * bound:.2f}" for bound in known["cer"])
        about = f" ({low} to {high}, {known['groups']} {known['unit']}s)"
    cer, wer = ("-" if metrics[name] is None else f"{100 * metrics[name]:.2f} %" for name in ("cer", "wer"))
    print(f"{args.run.name} on {args.split}, {args.decode}: CER {cer}{about}, WER {wer}, {metrics['lines']} lines")
    if metrics["unseen"] and metrics["unseen"]["words"]:
        words, rate = metrics["unseen"]["words"], metrics["unseen"]["rate"]
        print(f"words unseen in training: {words}, misread {100 * rate:.1f} %")
    if rules:
        apart = metrics["contradictions"]
        print(f"contradicting fields: {apart['hypothesis']['certificates']} of {apart['certificates']} certificates as "
              f"read, {apart['reference']['certificates']} as typed")  # fmt: skip
    if known["warning"]:
        log(f"evaluate: {known['warning']}")
    if args.terms or args.promise:
        from jobs.evaluation import cause_statistics

        print("\n".join(cause_statistics.write(folder, args.terms, args.promise)))
    if args.against:
        found = paired(folder, args.against)
        path = folder / f"against-{args.against.resolve().parents[1].name}-{args.against.resolve().name}.json"
        files.replace(path, files.to_json(found | {"against": str(args.against)}))
        low, high = ("?" if bound is None else f"{100 * bound:+.2f}" for bound in (found["low"], found["high"]))
        print(f"CER less that of {args.against}: {100 * found['difference']:+.2f} points ({low} to {high}), "
              f"p {found['p']:.2g}, {found['lines']} lines of {found['groups']} {found['unit']}s")  # fmt: skip
        if found["warning"]:
            log(f"evaluate: of this difference: {found['warning']}")
    return 0


def rules_of_forms(folder: Path | None) -> dict[str, tuple]:
    """The rules of each template of a folder that has any. Raises ValueError: none has."""
    if folder is None:
        return {}
    from htr.forms.template import load_templates

    rules = {template.name: template.rules for template in load_templates(folder) if template.rules}
    if not rules:
        raise ValueError(f"--forms {folder}: no template there has rules (see docs/forms.md)")
    return rules


def shards_of(index, split: str, where: dict[str, list[str]]) -> list[str]:
    """The shards with texts to read. A field whose lines have texts of their own has no parts, and is read by these."""
    import pyarrow.compute as pc

    table = index.samples(split, where, ["shard", "level"])
    shards = pc.unique(table.filter(pc.not_equal(table["level"], "field"))["shard"]).to_pylist()
    if not shards:
        raise ValueError(f"{index.folder}: the fields of split '{split}' have a text for each line: --where level=line")
    return sorted(shards)


def default_name(args: Settings, step: int) -> str:
    where = "".join(f"-{pair}" for pair in sorted(args.where))
    beam = "-beam" if args.decode == "beam" else ""
    return f"{args.split}-{step:06d}{beam}{where}".replace("/", "~")


def known_words(config: dict) -> set[str] | None:
    """The words of the texts that the run was trained on; None where that data set has gone."""
    from htr.metrics.words import words_in
    from jobs.evaluation.texts import texts_of, trained_on

    try:
        sets = trained_on(config)
    except ValueError as error:
        log(f"evaluate: no rate of words unseen in training ({error})")
        return None
    return words_in(text for index, table in sets for text in texts_of(index, table, config.get("text")))


def read_shard(samples, rows, reader, mixed, references, batch: int, folder: Path, shard: str) -> None:
    """Read the shard's texts and commit its part: a row a text, in the order of the shard; `rows`: of the texts.

    A thread of its own decodes what the model has made of a batch while the model reads the next one.
    """
    import time
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    import numpy as np
    import pyarrow as pa

    from jobs.distributed.cpus import cpus_of_task
    from jobs.evaluation.label_gap import label_gaps
    from jobs.evaluation.result_files import counted, part, write_part
    from shards import files
    from shards.loader import batches, in_order

    began, decoding = time.monotonic(), 0.0
    results: dict[int, dict] = {}
    height = reader.geometry.height
    plan = in_order(samples.widths(height), batch)
    cores = cpus_of_task()
    fields = rows["field"].to_pylist() if "field" in rows.column_names else None

    def decode(piece, frames) -> None:
        nonlocal decoding
        waited = time.monotonic()
        counts = piece.parts or [1] * len(piece.rows)
        of_lines = [fields[row] for row in np.repeat(piece.rows, counts)] if fields else None
        with mixed():  # each thread has its own
            texts = map(reader.text, reader.decode(frames, of_lines))
        found = [result(list(islice(texts, count))) for count in counts]
        read = [own["hypothesis"] for own in found]
        gaps = label_gaps(frames.log_probs, frames.lengths.tolist(), counts, piece.texts, read, reader.charset)
        for row, reference, own, gap in zip(piece.rows, piece.texts, found, gaps, strict=True):
            results[row] = {"reference": reference, "label_gap": gap} | own
        decoding += time.monotonic() - waited

    with ThreadPoolExecutor(1, "decode") as pool:
        waiting = []
        for piece in batches(samples, plan, 0, 1, height, cores):
            waiting.append(pool.submit(decode, piece, reader.encode(piece.images, piece.widths)))
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


def result(lines: list) -> dict:
    """htr.reader.Text of each line of a text -> what its part says of the reading (see htr/reliability/units.py)."""
    import numpy as np

    from htr.reader import join_lines
    from htr.reliability.units import LINE_PREFIX, LINE_WORDS, PREFIX, WORD_PREFIX

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
