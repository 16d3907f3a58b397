"""python -m jobs tune [DATASET] --run RUN: a language model for a run's reader, and every weight of its beam search.

    python -m jobs tune --run runs/ctc --text causes.txt --lexicon terms.txt
    python -m jobs evaluate --run runs/ctc --decode beam

The language models (a general one, and one for each field with enough texts) are made of the texts that the run was
trained on and of the `--text` files, without those that share eight words in a row with another split of the data set.
`--language FOLDER` takes the language models and the lexicon of another decoding as they are: after more training of a
model only the weights of the search must be tuned again. `--keep-weights` takes these too and only measures them: a
minute in place of some 30 searches of every line. The weights are those of the least CER on dev. If no weight lowers
the CER, the language model has the weight 0. The emission delay of CTC's peaks is measured there too. All is written to
RUN/decoding, and is only for these weights of the model: tune again after more training. It holds words and pieces of
texts, as confidential as the shards. One process.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.training.adopted import run_of

MIN_FIELD_TEXTS = 300  # texts of a field that has a language model of its own
DELAY_LINES = 300  # lines that the emission delay is measured on


@dataclass
class Line:
    """A line of dev, and what the model makes of it."""

    reference: str
    field: str
    greedy: str
    log_probs: np.ndarray  # (T, labels + 1) float16: thousands of lines are held
    ink: np.ndarray | None  # (H, W) uint8, of those that the emission delay is measured on


@dataclass(frozen=True)
class Settings:
    dataset: Path | None = setting(
        None, "data set with the lines to tune on (default: the one that the run was trained on)", positional=True
    )
    run: Path | None = setting(None, "run whose model reads")
    model: Path | None = setting(
        None, "folder of a model in place of a run, for example htr/pretrained", metavar="FOLDER"
    )
    text: list[Path] = setting([], "file of further texts, one per line; repeatable", metavar="FILE")
    lexicon: list[Path] = setting([], "file of further words, one per line; repeatable", metavar="FILE")
    language: Path | None = setting(
        None, "folder of another decoding, whose language models and lexicon are taken as they are", metavar="FOLDER"
    )
    keep_weights: bool = setting(
        False, "with --language: the weights of that decoding too are taken as they are, and none is tuned"
    )
    order: int = setting(6, "order of the language model in characters, 1 to 7", least=1, most=7)
    least: int = setting(
        1, "sequences of characters that occur less often are left out: smaller models", metavar="TIMES", least=1
    )
    split: str = setting("dev", "split to tune on")
    where: list[str] = setting([], "tune on these samples only; repeatable (default: all)", metavar="COLUMN=VALUE")
    most: int = setting(2000, "largest number of lines to tune on, drawn with --seed", metavar="LINES", least=1)
    seed: int = setting(0, "seed of the lines that are drawn", least=0)
    batch: int = setting(16, "lines read at once", least=1)
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where to compute; auto takes a GPU if there is one")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "precision of the computation; auto takes bf16 where the device has it"
    )


def main(args: Settings) -> int:
    from htr.decoding.beam import ScoreWeights, Searches, SearchLimits
    from htr.decoding.decoder import files_of, with_general
    from htr.decoding.tuning import GRID, judge, tune
    from htr.reader import Reader, weights_of
    from jobs.distributed.devices import take_device
    from jobs.distributed.placement import Placement
    from jobs.distributed.precision import precision
    from jobs.evaluation.texts import config_of, dataset_of
    from jobs.training.config import parse_where
    from shards import files

    given = weights_in(args)
    args = replace(args, run=run_of(args.run, args.model))
    config = config_of(args.run)
    index = dataset_of(config, args.dataset)
    device = take_device(Placement.find(), args.device)
    reader, sha = Reader.load(args.run / "model", device), weights_of(args.run / "model")
    table = index.samples(args.split, parse_where(args.where))
    table = table.take(np.sort(np.random.default_rng(args.seed).permutation(len(table))[: args.most]))
    mixed, _ = precision(args.amp, device)

    models, lexicon, known, made = language_models(config, index, args)
    languages = with_general(models)
    log(f"tune: language models (a general one, {len(models) - 1} of fields), {len(lexicon)} words")

    # ---------------------------------------------------------------- the lines, and weights for them
    with mixed():
        lines = read_dev(index, table, config.get("text"), reader, args.batch)
    emission_delay = find_delay(lines, reader.charset, reader.geometry)
    references, fields = [line.reference for line in lines], [line.field for line in lines]
    if not any(references):
        raise ValueError(f"{index.folder}: none of the {len(lines)} lines to tune on has a text: choose other ones")
    limits, log_probs = SearchLimits(), [line.log_probs for line in lines]
    none = Searches(reader.charset, {}, (), ScoreWeights(0, 0, 0), limits)
    plain = judge(references, [none.of("").search(line)[0].text for line in log_probs], known)
    weights, trials = given, 2 * sum(map(len, GRID.values())) + 1  # at most
    if weights is None:
        with Progress("tune", trials, "trials") as progress:
            weights, cer = tune(log_probs, references, reader.charset, languages, lexicon, limits, fields,
                                lambda cer: progress.advance(1, f"CER {100 * cer:.2f} %"))  # fmt: skip
        if cer >= plain["cer"]:
            log(f"tune: the language model makes it no better (CER {100 * cer:.2f} % with it, "
                f"{100 * plain['cer']:.2f} % without): it is given no weight")  # fmt: skip
            weights = none.weights
    searches = Searches(reader.charset, languages, lexicon, weights, limits) if any(asdict(weights).values()) else none
    with mixed():
        batches_of_dev = read_batches(index, table, config.get("text"), reader, args.batch)
        weights, texts = second_opinion(batches_of_dev, reader.model, searches, lines, given is None)

    # ---------------------------------------------------------------- RUN/decoding
    greedy, tuned = judge(references, [line.greedy for line in lines], known), judge(references, texts, known)
    about = {"dataset": index.fingerprint, "split": args.split, "where": sorted(args.where), "lines": len(lines)}
    about |= made | {"fields": sorted(field for field in models if field), "kept_weights": args.keep_weights}
    about |= {"greedy": greedy, "beam_without_language": plain, "beam": tuned}
    tuned_for = {"weights": sha, "step": reader.config["step"]}
    folder = args.run / "decoding"
    folder.mkdir(exist_ok=True)
    for name, content in files_of(models, lexicon, weights, limits, emission_delay, tuned_for, about).items():
        files.replace(folder / name, content)
    log(f"tune: {folder}: {', '.join(f'{name} {value}' for name, value in asdict(weights).items())}; "
        f"the model's peaks are {emission_delay:.0f} px late")  # fmt: skip
    print_errors(args, greedy, tuned, len(lines))
    return 0


def print_errors(args: Settings, greedy: dict, tuned: dict, lines: int) -> None:
    """The error rates before and after."""
    print(f"{args.run.name} on {args.split}: CER greedy {100 * greedy['cer']:.2f} %, tuned {100 * tuned['cer']:.2f} %, "
          f"{lines} lines")  # fmt: skip
    if greedy["unseen_words"]:
        was, now = (100 * found["unseen_misread"] for found in (greedy, tuned))
        print(f"words unseen in training: {greedy['unseen_words']}, misread greedy {was:.1f} %, tuned {now:.1f} %")


def weights_in(args: Settings):
    """The weights that `--keep-weights` keeps, None without it. Raises ValueError where there are none to keep."""
    from htr.decoding.beam import ScoreWeights
    from htr.decoding.decoder import read_files

    if not args.keep_weights:
        return None
    if not args.language:
        raise ValueError("--keep-weights takes the weights of another decoding: name its folder with --language")
    return ScoreWeights.from_json(read_files(args.language)[0]["weights"])


def language_models(config: dict, index, args: Settings) -> tuple[dict, set[str], set[str], dict]:
    """-> a language model for each field ("": of all texts), the lexicon, the words of the texts that they are made of,
    and a note on how they were made. Raises ValueError for options that exclude each other.
    """
    from htr.decoding.language import train_by_field
    from htr.decoding.tuning import frequent_words, letters, with_blanks
    from htr.metrics.words import words_in

    if args.language and (args.text or args.lexicon):
        raise ValueError(
            "--language takes the texts and words of another decoding as they are: leave out --text and --lexicon"
        )
    rows, left_out = language_texts(config, index, args)
    known = words_in(text for _, text in rows)
    if args.language:
        models, lexicon, made = language_of(args.language)
        return models, lexicon, known, made
    if left_out:
        log(f"tune: {left_out} texts were left out, they share eight words in a row with held-out ones")
    models = train_by_field(with_blanks(rows), args.order, args.least, MIN_FIELD_TEXTS)
    lexicon = {word for text in read_lines(args.lexicon) for word in letters(text)}
    lexicon |= frequent_words(text for _, text in rows)
    return models, lexicon, known, {"order": args.order, "least": args.least, "texts": len(rows)}


def language_texts(config: dict, index, args: Settings) -> tuple[list[tuple[str, str]], int]:
    """-> (field, text) rows for the language models, how many were left out. Field "": none that is known."""
    from htr.certificate import clean_text
    from htr.decoding.tuning import allowed
    from htr.io.sources import OPTIONAL
    from jobs.evaluation.texts import texts_of, trained_on

    column, rows, folders = config.get("text"), [], {index.folder: index}
    adopted = not config.get("folder")  # its texts are not known: those of the data set at hand
    sets = [(index, index.samples("train", {"level": ["line", "field"]}))] if adopted else trained_on(config)
    for own, table in sets:
        names = table["field"].to_pylist() if "field" in table.column_names else [""] * len(table)
        names = ["" if name == OPTIONAL["field"] else name for name in names]
        rows += zip(names, map(clean_text, texts_of(own, table, column)), strict=True)
        folders[own.folder] = own
    rows += (("", clean_text(text)) for text in read_lines(args.text))
    held_out = []
    for folder in folders.values():
        for split in folder.lines:
            if split != config["split"] and folder.lines[split]:
                held_out += texts_of(folder, folder.samples(split), column)
    kept = allowed(rows, held_out)
    return kept, len(rows) - len(kept)


def language_of(folder: Path) -> tuple[dict, set[str], dict]:
    """-> another decoding's language models by field, its lexicon, and what they were made of."""
    from htr.decoding.decoder import read_files
    from htr.decoding.language import load_language_models

    note, contents = read_files(folder)
    made = {name: note["tuned"].get(name) for name in ("order", "least", "texts")}
    lexicon = set(contents["lexicon.txt"].decode().split())
    return load_language_models(folder / "language.safetensors"), lexicon, made


def read_lines(paths: list[Path]) -> Iterator[str]:
    """The lines of these text files (UTF-8) that are not blank."""
    for path in paths:
        try:
            with open(path, encoding="utf-8-sig") as file:
                yield from (line.strip() for line in file if line.strip())
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file: --text and --lexicon name text files, one entry a line") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8, at byte {error.start}: convert it") from None


def read_batches(index, table, column: str | None, reader, batch: int) -> Iterator[tuple]:
    """The lines of the table -> the stream's batches, from narrow to wide, each with its encoder output."""
    from jobs.distributed.cpus import decoding_workers
    from shards.loader import Samples, batches, in_order

    samples, height = Samples(index.folder, table, column), reader.geometry.height
    plan = in_order(samples.widths(height), batch)
    try:
        with Progress("tune", len(samples), "lines") as progress:
            for piece in batches(
                samples, plan, 0, 1, height, decoding_workers(next(reader.model.parameters()).device.type)
            ):
                yield piece, reader.encode(piece.images, piece.widths)
                progress.advance(len(piece.rows))
    finally:
        samples.close()


def read_dev(index, table, column: str | None, reader, batch: int) -> list[Line]:
    """In the order of `read_batches`."""
    fields = table["field"].to_pylist() if "field" in table.column_names else [""] * len(table)
    measured = set(np.random.default_rng(0).permutation(len(table))[:DELAY_LINES].tolist())
    lines = []
    for piece, frames in read_batches(index, table, column, reader, batch):
        log_probs, lengths = frames.log_probs.cpu().numpy().astype(np.float16), frames.lengths.tolist()
        for k, (row, text) in enumerate(zip(piece.rows, map(reader.text, reader.decode(frames)), strict=True)):
            ink = piece.images[k, 0, :, : int(piece.widths[k])].numpy().copy() if row in measured else None
            lines.append(Line(piece.texts[k], fields[row], text.text, log_probs[k, : lengths[k]].copy(), ink))
    return lines


def find_delay(lines: list[Line], charset, geometry) -> float:
    from htr.decoding.align import align_many, measure_emission_delay

    # a text with a character that the model lacks has no alignment
    fit = [line for line in lines if line.ink is not None and not charset.missing(line.reference)]
    log_probs = [line.log_probs.astype(np.float32) for line in fit]
    found = align_many(log_probs, [charset.encode(line.reference) for line in fit])
    pairs = [(alignment, line) for alignment, line in zip(found, fit, strict=True) if alignment is not None]
    alignments, texts, inks = ([part(pair) for pair in pairs] for part in (
        lambda pair: pair[0], lambda pair: pair[1].reference, lambda pair: pair[1].ink))  # fmt: skip
    return measure_emission_delay(alignments, texts, inks, geometry)


def second_opinion(pieces, model, searches, lines: list[Line], tuned: bool):
    """-> the weights with that of the model's own decoder, if it has one and is to be `tuned`; the texts, in the order
    of the lines. `pieces`: read_batches of them, asked for only if it has one.
    """
    import torch

    from htr.decoding.decoder import N_BEST, rescore
    from htr.decoding.tuning import tune_rescore_weight

    if not hasattr(model, "score"):
        return searches.weights, [searches.of(line.field).search(line.log_probs)[0].text for line in lines]
    found, scores = [], []
    for piece, frames in pieces:
        part = lines[len(found) : len(found) + len(piece.rows)]
        found += [searches.of(line.field).search(line.log_probs, N_BEST) for line in part]
        with torch.no_grad():
            candidates = [[h.labels for h in n_best] for n_best in found[-len(part) :]]
            scores += model.score(frames, candidates)
    weight = searches.weights.rescore_weight
    if tuned:
        weight, _ = tune_rescore_weight(found, scores, [line.reference for line in lines])
    texts = [rescore(n_best, own, weight)[0].text for n_best, own in zip(found, scores, strict=True)]
    return replace(searches.weights, rescore_weight=weight), texts
