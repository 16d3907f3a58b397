"""python -m jobs transcribe INPUT --out FILE.csv: read images of lines, pages, scans of forms, or a data set.

    python -m jobs transcribe lines/ --model runs/ctc --out lines.csv              a folder of images, each a line
    python -m jobs transcribe pages/ --out pages.jsonl                             pages with ALTO or PAGE XML
    python -m jobs transcribe table.csv --out texts.parquet                        a table: image, box or polygon …
    python -m jobs transcribe data/certificates --split val --out val.parquet      a data set
    python -m jobs transcribe scans/ --unit field --out certificates.csv           certificates, found on their forms
    sbatch --array=0-15 slurm/transcribe.sh scans/ --unit field --model runs/ctc-16 --decode beam --out texts.parquet \\
        --promise runs/ctc-16/reliability/fields-2 --review scans/review.csv --sample 300

The table has one row for every line, or with --unit field for every field of every certificate, in the order of the
input: the text, its confidence, other possible texts (of a beam search), and whether it is accepted or for a person to
review. The rules of a form (docs/forms.md) fill the column `contradicts`; a field that contradicts another one is for
review. A row that can't be read has no text and a reason in the column `reason`.

The input is cut into chunks, which depend only on the input and the settings. Tasks own chunks by number, and each
chunk becomes one part under FILE.parts, written once. The task that ends last merges the parts. A second run does only
what is missing; with another --promise, --review or --xml nothing is read again. Scans that arrived later are refused:
give a new batch a new --out. Images in a folder are known by their names: if one was replaced, remove FILE.parts first.
FILE.parts can be removed when FILE is done; it holds transcriptions, as FILE does.

--promise accepts readings under a promise of `python -m jobs calibrate` for this model. Without one, everything that
was read is to be reviewed. Blank fields and tick boxes, which no reader reads, are decided by --sure. --review writes a
table for the people who key: they fill in `text`, or empty `reject` where a field is blank. It is then a source for
`preprocess` with the same --unit, which rejects rows that are not done. --sample draws accepted rows, to be keyed too,
into a table beside it.
"""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from htr import PRETRAINED
from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.work_sharding import share_of_work
from jobs.transcription.table_writer import parts_folder

# of the parts: 3 has what a form's rules say (`contradicts`), 4 `page_size` and `turn` of lines, 5 names in
# `contradicts` lines that were left out
FORMAT = 5
CHUNK = {"fields": 64, "lines": 1024, "samples": 1024}  # items of a part: what is lost when a task dies


@dataclass(frozen=True)
class Settings:
    input: Path = setting(
        help="images, or pages with ALTO or PAGE XML (a folder, a tar or a METS), a table, or a data set",
        positional=True,
    )
    out: Path = setting(help="table to write: .csv, .parquet or .jsonl", metavar="FILE")
    model: Path | None = setting(
        None, "folder of a model, or a run (default: HTR_MODEL, else the project's own reader)"
    )
    decode: Literal["greedy", "beam"] = setting("greedy", "greedy, or beam search with RUN/decoding, which tune makes")
    unit: Literal["line", "field"] = setting(
        "line",
        "what an image, or a row of a table, is: line (a line, or a page with lines), or field (a "
        "certificate, whose fields are found on its form)",
    )
    forms: Path | None = setting(None, "with --unit field: folder of templates (default: those of the project)")
    rulings: Literal["keep", "remove"] = setting(
        "keep", "with --unit field: keep or remove printed lines, as for the data that the reader was trained on"
    )
    quotes: Literal["auto", "csv", "none"] = setting("auto", "how quotes in a CSV are read, as for preprocess")
    split: str | None = setting(None, "split of a data set to read (default: all)")
    where: list[str] = setting(
        [], "read these samples of a data set only; repeatable (default: all)", metavar="COLUMN=VALUE"
    )
    promise: Path | None = setting(
        None,
        "promise that calibrate made: accept readings under it (default: nothing is accepted)",
        metavar="RUN/reliability/NAME",
    )
    sure: float = setting(
        0.8, "smallest confidence at which blank fields and tick boxes need no review, 0 to 1", metavar="CONFIDENCE"
    )
    review: Path | None = setting(
        None,
        "table to write for the people who key, .csv or .parquet, in the folder of the scans or above it",
        metavar="TABLE",
    )
    sample: int = setting(0, "number of accepted readings to be keyed too, in a table beside --review", metavar="N")
    seed: int = setting(0, "seed of the sample", least=0)
    xml: Path | None = setting(None, "folder to write PAGE XML into, one file per image", metavar="FOLDER")
    chunk: int | None = setting(None, "scans or lines per part (default: 64 scans, 1024 lines)", metavar="N")
    batch: int | None = setting(
        None, "lines of mean width read at once, or as many pixels of others (default: 16, on a GPU 128)"
    )
    workers: int | None = setting(
        None, "number of processes of this task beside the one that holds a GPU (default: one per CPU that it may use)"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where to compute; auto takes a GPU if there is one")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto",
        "precision of the computation; auto takes bf16 where the device has it; a promise needs the one of "
        "its evaluations",
    )


def main(args: Settings) -> int:
    from htr.io.account import lines_of
    from htr.reader import Reader
    from jobs.distributed.devices import reading_batch, take_device
    from jobs.distributed.placement import Placement
    from jobs.launch.part_watchdog import watch_besides, watch_reading
    from jobs.launch.shared_work import SharedWork
    from jobs.transcription.chunks import ChunkWorkers
    from jobs.transcription.inputs import open_input
    from jobs.transcription.results import merge, read_summary, report
    from shards.claim import take_turns

    model, decoding = model_folder(args.model), None
    if args.decode == "beam":
        decoding = model.parent / "decoding"
    device = take_device(Placement.find(), args.device)
    args = replace(args, batch=reading_batch(args.batch, device))
    folder = parts_folder(args.out)
    with watch_besides(folder, "loading the model"):
        Reader.load(model, decoding=decoding)  # what is wrong with it is said now
    with watch_reading(folder, "reading the input"):
        source = open_input(args.input, args.unit, args.split, args.where, args.quotes)
    made = made_under(args, model, decoding, device)
    asked = what_is_asked(args, source, made)

    # ---------------------------------------------------------------- the parts' folder, the same for all tasks
    settings = settings_of(args, source, made)
    begin(folder, settings, source.unit)
    chunks = {f"{number:06d}": span for number, span in enumerate(source.chunks(settings["chunk"]))}
    note = asked.note(args.promise)
    workers = ChunkWorkers(
        args, folder, model, decoding, str(device), made["amp"], fingerprint(settings, note["promise"])
    )

    # ---------------------------------------------------------------- this task's chunks
    for line in lines_of(source.account) if share_of_work()[0] == 0 else ():
        log(line if line.startswith(" ") else f"transcribe: {line}")
    work = SharedWork(
        "transcribe", "read", "chunks", list(chunks), folder, done=lambda: workers.all_done(chunks), about=args.out
    )
    sizes = {name: last - first for name, (first, last) in chunks.items()}
    with Progress("transcribe", sum(sizes[name] for name in work.todo), source.unit) as progress:
        for name in work.each(lambda some: workers.each(some, source, chunks)):
            progress.advance(sizes[name])

    # ---------------------------------------------------------------- the last one merges
    if work.is_left_to_others():
        return 0
    parts = [workers.part(name) for name in chunks]

    def is_merged() -> bool:
        return read_summary(folder).get("asked") == note and all(path.exists() for path in asked.written)

    def merge_parts() -> None:
        with watch_besides(folder, "merging the parts"):
            merge(folder, parts, source.kind, source.images, asked, note, source.account)

    take_turns(folder / ".merge.claim", is_merged, merge_parts)
    for line in report(read_summary(folder), source.count, source.unit, asked):
        log(f"transcribe: {line}" if not line.startswith(" ") else line)
    return 0


def model_folder(asked: Path | None) -> Path:
    """Raises ValueError when no model was named and the project comes with none."""
    from jobs.training.adopted import model_in

    folder = asked or Path(os.environ.get("HTR_MODEL") or PRETRAINED)
    if not asked and "HTR_MODEL" not in os.environ and not folder.is_dir():
        raise ValueError("no reader: name a model's folder or a run with --model, or in HTR_MODEL")
    return model_in(folder)


def made_under(args: Settings, model: Path, decoding: Path | None, device) -> dict:
    """The conditions of these readings, of which a promise knows whether they are its own. Raises ValueError."""
    from htr.code_digest import cutting_code
    from htr.decoding.decoder import digest_of
    from htr.forms.template import FORMS, digest_of_forms
    from htr.reader import digest_of_model
    from htr.reliability.conditions import conditions
    from jobs.distributed.precision import precision

    _, amp = precision(args.amp, device)
    made = conditions(digest_of_model(model), args.decode, digest_of(decoding), amp, args.batch, device.type)
    if args.unit == "field":
        made |= {"forms": digest_of_forms(args.forms or FORMS), "rulings": args.rulings, "cutting": cutting_code()}
    return made


def what_is_asked(args: Settings, source, made: dict):
    """Everything that can be wrong with the results is said before the first image is read. Raises ValueError."""
    from jobs.transcription.results import Asked, prefix_of
    from jobs.transcription.table_writer import check_name

    check_name(args.out)
    promise = None
    if args.promise:
        from htr.reliability.promise import Promise

        promise = Promise.load(args.promise)
        promise.check(made)
        if promise.unit != "line" and source.scattered:
            raise ValueError(f"{args.input}: the promise is of a {promise.unit}, but rows of one certificate are far "
                             "from each other: sort the table by certificate")  # fmt: skip
    asked = Asked(args.out, promise, args.sure, args.review, args.sample, args.seed)
    if (args.review or args.sample) and source.kind == "samples":
        raise ValueError("--review and --sample are for images without a text; the samples of a data set have one")
    if args.sample and not (args.review and args.promise):
        raise ValueError("--sample needs --promise (to accept) and --review (its table is written beside that one)")
    if args.sample < 0 or not 0 <= args.sure <= 1:
        raise ValueError("--sample is a number of rows, --sure is between 0 and 1")
    if args.review:
        check_name(args.review, (".csv", ".parquet"))  # as preprocess takes them
        prefix_of(source.images, args.review)
    if args.xml:
        if source.kind == "samples":
            raise ValueError("--xml is for pages; a data set holds lines")
        if args.input.is_dir() and args.xml.resolve().is_relative_to(args.input.resolve()):
            raise ValueError(f"--xml {args.xml}: XML in {args.input} would be read as part of the input: name a folder "
                             "elsewhere")  # fmt: skip
        args.xml.mkdir(parents=True, exist_ok=True)
    if len({path.absolute() for path in asked.written}) < len(asked.written):
        raise ValueError("--out and --review are the same file")
    return asked


def settings_of(args: Settings, source, made: dict) -> dict:
    """What a part is a function of."""
    from htr.forms.template import FORMS, digest_of_forms

    if args.chunk is not None and args.chunk < 1:
        raise ValueError("--chunk is 1 or more")
    settings = {"format": FORMAT, "unit": args.unit, "input": source.digest, "count": source.count} | made
    settings |= {"chunk": args.chunk or CHUNK[source.kind]}
    if args.quotes != "auto":
        settings["quotes"] = args.quotes
    if source.kind == "fields":
        settings |= {"forms": digest_of_forms(args.forms or FORMS, rules=True), "rulings": args.rulings}
    return settings


def fingerprint(*notes: object) -> str:
    return hashlib.sha256(json.dumps(notes, sort_keys=True).encode()).hexdigest()[:16]


def begin(folder: Path, settings: dict, unit: str) -> None:
    """Say what the parts in this folder are; the first task's word counts. Raises ValueError where they are others."""
    from jobs.launch.shared_work import agreed_note

    (folder / "logs").mkdir(parents=True, exist_ok=True)
    before = agreed_note(folder / "transcription.json", lambda: settings)
    differ = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if not differ:
        return
    again = "give another --out, or remove that folder to read all of it again"
    if set(differ) <= {"input", "count"}:
        now = f"{before['count']} {unit} then, {settings['count']} now"
        raise ValueError(f"{folder} is of another input ({now}): what arrived since is a new batch, {again}")
    raise ValueError(f"{folder} was begun with another {', '.join(sorted(differ))}: {again}")
