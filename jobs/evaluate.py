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

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cli.console import log
from jobs.cli.settings import setting
from jobs.distributed.work_sharding import share_of_work
from jobs.training.adopted import run_of
from shards.files import in_shell

LEVELS = ("line", "field")  # that are read, unless --where says others
MAY = ("line", "field", "blank")  # be read


@dataclass(frozen=True)
class Settings:
    dataset: Path | None = setting(
        None, "data set to read (default: the one that the run was trained on)", positional=True
    )
    run: Path | None = setting(None, "run whose model reads")
    model: Path | None = setting(
        None, "folder of a model in place of a run, for example htr/pretrained", metavar="FOLDER"
    )
    split: str = setting("val", "split to read")
    where: list[str] = setting([], "read these samples only; repeatable (default: all)", metavar="COLUMN=VALUE")
    decode: Literal["greedy", "beam"] | None = setting(
        None, "greedy, or beam search with RUN/decoding, which tune makes (default: that of --against, else greedy)"
    )
    abbreviations: Path | None = setting(
        None,
        "table with the columns abbreviation and expansion: adds rates that count either as right",
        metavar="TABLE",
    )
    terms: str | None = setting(
        None,
        "table with the columns term and category, or french for the project's own: adds what errors do to a "
        "table of causes",
        metavar="TABLE",
    )
    promise: Path | None = setting(
        None, "promise to apply: adds what it accepts of these texts and what it leaves", metavar="RUN/reliability/NAME"
    )
    name: str | None = setting(
        None, "name of the evaluation (default: the split, the model's step, the decoding and --where)"
    )
    forms: Path | None = setting(
        None, "folder of templates with rules: adds the number of fields that contradict each other"
    )
    against: Path | None = setting(
        None, "folder of another evaluation of the same lines, to compare with", metavar="EVALUATION"
    )
    batch: int | None = setting(
        None, "lines of mean width read at once, or as many pixels of others (default: 16, on a GPU 128)"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where to compute; auto takes a GPU if there is one")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "precision of the computation; auto takes bf16 where the device has it"
    )


def main(args: Settings) -> int:
    from htr.metrics.terms import Terms
    from htr.reader import Reader
    from htr.references import References
    from jobs.distributed.devices import reading_batch, take_device
    from jobs.distributed.placement import Placement
    from jobs.distributed.precision import precision
    from jobs.evaluation.cause_statistics import table_of
    from jobs.evaluation.comparison import check_against
    from jobs.evaluation.contradictions import rules_of_forms, ticks_of
    from jobs.evaluation.read_shards import read_own_shards
    from jobs.evaluation.result_files import merge, speed
    from jobs.evaluation.texts import config_of, dataset_of
    from jobs.launch.part_watchdog import watch_besides, watch_reading
    from jobs.launch.shared_work import SharedWork

    other = check_against(args.against) if args.against else {}
    args = replace(args, run=run_of(args.run, args.model), decode=args.decode or other.get("decode", "greedy"))
    config = config_of(args.run)
    with watch_reading(args.run, "reading the index"):
        index = dataset_of(config, args.dataset)
    args = replace(args, dataset=index.folder)
    device = take_device(Placement.find(), args.device)
    args = replace(args, batch=reading_batch(args.batch, device))
    with watch_besides(args.run, "loading the model"):
        reader = Reader.load(args.run / "model", device, args.run / "decoding" if args.decode == "beam" else None)
    warn_of_missing_characters(reader, index, args.run)
    where, levels = chosen(args.where)
    shards = shards_of(index, args.split, where)
    mixed, amp = precision(args.amp, device)
    rules = rules_of_forms(args.forms)
    if args.terms:  # what is wrong with it is said now
        Terms.load(table_of(args.terms))
    references = References.load(args.abbreviations) if args.abbreviations else None
    asked = what_is_asked(args, index, reader, levels, amp, device, rules)
    folder = begin(args, asked)

    work = SharedWork("evaluate", "read", "shards", shards, folder, "parts/")
    read_own_shards(work, index, args, where, reader, mixed, references, config.get("text"))
    if work.is_left_to_others():  # the task that ends last merges
        return 0
    ticks = ticks_of(index, args.split, where) if rules else ()
    with watch_besides(folder, "merging the parts"):
        metrics = merge(folder, shards, asked, known_words(config), rules, ticks)
    log(f"evaluate: {folder / 'metrics.json'}; next: python -m jobs report {in_shell(args.run)}")
    report(args, metrics, speed(folder, shards), bool(rules))
    if args.terms or args.promise:
        from jobs.evaluation import cause_statistics

        with watch_reading(folder, "counting causes"):
            print("\n".join(cause_statistics.write(folder, args.terms, args.promise)))
    if args.against:
        with watch_reading(folder, "comparing"):
            compare(folder, args.against)
    return 0


def warn_of_missing_characters(reader, index, run: Path) -> None:
    missing = reader.charset.missing(index.charset.characters)
    if missing and share_of_work()[0] == 0:
        from htr.charset import name

        log(f"evaluate: {run} can't write {name(missing)}: each one in a text is an error")


def chosen(pairs: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """-> the samples that --where chooses, and the levels among them that have a text to compare with."""
    from jobs.training.config import parse_where

    where = parse_where(pairs)
    levels = sorted(where.get("level", LEVELS))
    if set(levels) - set(MAY):
        raise ValueError(f"--where level: evaluate reads {', '.join(MAY)}")
    where["level"] = [*levels, "part"] if "field" in levels else levels
    return where, levels


def what_is_asked(args: Settings, index, reader, levels: list[str], amp: str, device, rules: dict) -> dict:
    """evaluation.json: all that the parts are a function of."""
    from htr.decoding.decoder import digest_of
    from htr.reader import digest_of_model
    from htr.reliability.conditions import OF_FORMS, conditions
    from jobs.evaluation.result_files import FORMAT
    from shards import files
    from shards.plan import read_note

    decoding = digest_of(args.run / "decoding" if args.decode == "beam" else None)
    asked = {"dataset": index.fingerprint, "split": args.split, "where": sorted(args.where), "levels": levels}
    asked |= conditions(digest_of_model(args.run / "model"), args.decode, decoding, amp, args.batch, device.type)
    plan = read_note(index.folder)
    if plan["settings"].get("forms"):
        known = plan["settings"] | plan  # a data set of an older version does not know what code has cut it
        asked |= {name: known[name] for name in OF_FORMS if name in known}
    asked |= {"step": reader.config["step"], "format": FORMAT, "index": index.digest}
    if args.abbreviations:
        asked |= {"abbreviations": files.sha256(args.abbreviations)[:16]}
    if rules:
        asked |= {"rules": {name: [rule.note() for rule in own] for name, own in rules.items()}}
    return asked


def begin(args: Settings, asked: dict) -> Path:
    """The evaluation's folder, the same for all tasks: the first one's evaluation.json counts. Raises ValueError where
    it was begun in another way.
    """
    from jobs.launch.shared_work import agreed_note, check_same

    folder = args.run / "evaluation" / (args.name or default_name(args, asked["step"]))
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    check_same(folder, agreed_note(folder / "evaluation.json", lambda: asked), asked)
    return folder


def report(args: Settings, metrics: dict, timing: dict | None, has_rules: bool) -> None:
    """The figures of metrics.json for people."""
    if timing:
        cores = " or ".join(map(str, timing["cores"]))
        log(f"evaluate: {timing['lines_per_s']:.1f} lines/s per task, on {cores} core(s); the decoding alone "
            f"{timing['decoding_lines_per_s']:.0f} lines/s")  # fmt: skip
    known, about = metrics["interval"], ""
    if known["cer"]:
        low, high = (f"{100 * bound:.2f}" for bound in known["cer"])
        about = f" ({low} to {high}, {known['groups']} {known['unit']}s)"
    cer, wer = ("-" if metrics[name] is None else f"{100 * metrics[name]:.2f} %" for name in ("cer", "wer"))
    print(f"{args.run.name} on {args.split}, {args.decode}: CER {cer}{about}, WER {wer}, {metrics['lines']} lines")
    if metrics["unseen"] and metrics["unseen"]["words"]:
        words, rate = metrics["unseen"]["words"], metrics["unseen"]["rate"]
        print(f"words unseen in training: {words}, misread {100 * rate:.1f} %")
    if has_rules:
        apart = metrics["contradictions"]
        print(f"contradicting fields: {apart['hypothesis']['certificates']} of {apart['certificates']} certificates as "
              f"read, {apart['reference']['certificates']} as typed")  # fmt: skip
    if known["warning"]:
        log(f"evaluate: {known['warning']}")


def compare(folder: Path, against: Path) -> None:
    """Compare this evaluation with another, line by line: print the result, and write it into this evaluation's
    folder."""
    from jobs.evaluation.comparison import paired
    from shards import files

    found = paired(folder, against)
    path = folder / f"against-{against.resolve().parents[1].name}-{against.resolve().name}.json"
    files.replace(path, files.to_json(found | {"against": str(against)}))
    bounds = (found["low"], found["high"])
    between = "no interval" if None in bounds else " to ".join(f"{100 * bound:+.2f}" for bound in bounds)
    print(f"CER minus that of {against}: {100 * found['difference']:+.2f} points ({between}), "
          f"p {found['p']:.2g}, {found['lines']} lines of {found['groups']} {found['unit']}s")  # fmt: skip
    if found["warning"]:
        log(f"evaluate: of this difference: {found['warning']}")


def shards_of(index, split: str, where: dict[str, list[str]]) -> list[str]:
    """The names of the shards with texts to read. A field whose lines have texts of their own has no parts: it is read
    as these lines."""
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
