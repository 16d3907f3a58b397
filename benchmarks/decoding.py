"""What a beam search and a language model win, and what they cost: CER and lines/s a core beside greedy decoding.

    python benchmarks/decoding.py [--run RUN] [--dataset DATASET] [--split val] [--lines 300] [--width 16] [--order 6]

With a CTC reader's run: the lines of its data set's split, the weights tuned on `dev`, the language model trained on
the texts of `train`; lines whose texts `train` does not have are counted apart too. Without: posteriors made up of
French causes of death, about 250 frames long, peaks of one to three frames, one character in eight confused with others
or dim; language model and weights from texts and lines of their own. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from htr.charset import Charset
from htr.decoding.align import align_many
from htr.decoding.beam import BeamSearch, ScoreWeights, SearchLimits
from htr.decoding.greedy import greedy
from htr.decoding.language import train_language_model
from htr.decoding.tuning import tune
from htr.metrics.error_rates import Errors, compare
from htr.synth.text_generator import other_conditions
from jobs.evaluation.texts import config_of

Line = tuple[str, np.ndarray]  # reference, log-probabilities (T, labels + 1)


def made_up(text: str, charset: Charset, rng: np.random.Generator) -> np.ndarray:
    """Log-probabilities that a reader might have for the text: (T, labels + 1)."""
    size = len(charset) + 1
    rows = []
    for label in charset.encode(text):
        rows += [flat(size, {0: 1 - 10 ** -rng.uniform(2, 5)}, rng) for _ in range(rng.integers(2, 7))]
        others = rng.integers(1, size, 3).tolist()
        sure = rng.uniform(0.1, 0.6) if rng.random() < 0.125 else rng.uniform(0.9, 0.999)
        rest = rng.dirichlet(np.ones(4)) * (1 - sure)
        for _ in range(rng.integers(1, 4)):
            peaks = {label: sure, **{other: float(p) for other, p in zip([*others, 0], rest, strict=True)}}
            rows.append(flat(size, peaks, rng))
    return np.log(np.array([*rows, flat(size, {0: 0.99}, rng)], np.float32))


def flat(size: int, peaks: dict[int, float], rng: np.random.Generator) -> np.ndarray:
    row = rng.dirichlet(np.full(size, 0.1)) * max(1 - sum(peaks.values()), 0) + 1e-9
    for label, p in peaks.items():
        row[label] += p
    return row / row.sum()


def simulated(lines: int, seed: int) -> tuple[Charset, list[str], list[Line], list[Line]]:
    """-> alphabet, texts for the language model, lines for tuning, lines to report on."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(other_conditions(rng, lines=1, longest=72)) for _ in range(4000 + lines + 60)]
    charset = Charset("".join(texts) + "0123456789" + "".join(map(chr, range(65, 91))))
    made = [(text, made_up(text, charset, rng)) for text in texts[4000:]]
    return charset, texts[:4000], made[lines:], made[:lines]


def read_run(run: Path, dataset: Path | None, split: str, lines: int) -> tuple[Charset, list[str], list, list]:
    """The same of a run: what its model makes of the data set."""
    from htr.reader import Reader
    from shards.index import read_index
    from shards.loader import Samples, batches, in_order

    reader = Reader.load(run / "model")
    index = read_index(dataset or Path(config_of(run)["folder"]))
    rng, height = np.random.default_rng(0), reader.geometry.height

    def outputs(name: str) -> list[Line]:
        table = index.samples(name)
        table = table.take(np.sort(rng.permutation(len(table))[:lines]))
        samples, found = Samples(index.folder, table), []
        plan = in_order(samples.columns["width"] * height // samples.columns["height"], 16)
        with torch.inference_mode():
            for batch in batches(samples, plan, 0, 1, height):
                _, lengths, log_probs = reader.model.encode(batch.images.float() / 255, batch.widths)
                outputs = zip(batch.texts, log_probs.numpy(), lengths.tolist(), strict=True)
                found += [(text, line[:length].copy()) for text, line, length in outputs]
        return found

    train = Samples(index.folder, index.samples("train"))
    return reader.charset, [train.read(row)[1] for row in range(len(train))], outputs("dev"), outputs(split)


def best_path(line: np.ndarray) -> list[int]:
    return greedy(torch.from_numpy(line)[None], torch.tensor([len(line)]))[0].labels


def measure(read: Callable[[np.ndarray], str], lines: list[Line], texts: set[str], words: set[str]) -> dict[str, float]:
    """CER, WER, CER of the texts not among these, share of the words not among these misread, lines/s of a core."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        found = [read(line) for _, line in lines]
        seconds.append(time.process_time() - start)
    errors, unseen, new, missed = Errors(), Errors(), 0, 0
    for (reference, _), text in zip(lines, found, strict=True):
        errors += compare(reference, text)
        unseen += Errors() if reference in texts else compare(reference, text)
        asked, right = reference.split(), set()
        for block in Levenshtein.opcodes(asked, text.split()):
            right |= set(range(block.src_start, block.src_end)) if block.tag == "equal" else set()
        places = [i for i, word in enumerate(asked) if word not in words]
        new, missed = new + len(places), missed + sum(i not in right for i in places)
    rates = {"cer": errors.cer, "wer": errors.wer, "unseen_cer": unseen.cer, "new_word_errors": missed / max(new, 1)}
    return {**rates, "lines_per_s": len(lines) / max(min(seconds), 1e-9)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a CTC reader's run folder (default: made-up posteriors)")
    parser.add_argument("--dataset", type=Path, help="default: the one that the run was trained on")
    parser.add_argument("--split", default="val")
    parser.add_argument("--lines", type=int, default=300, help="at most so many")
    parser.add_argument("--width", type=int, default=SearchLimits().width, help="prefixes in the beam")
    parser.add_argument("--order", type=int, default=6, help="characters of the language model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    if args.run:
        charset, texts, dev, lines = read_run(args.run, args.dataset, args.split, args.lines)
    else:
        charset, texts, dev, lines = simulated(args.lines, args.seed)
    frames = np.mean([len(line) for _, line in lines])
    sure = np.mean([(line[:, 1:].max(axis=1) < np.log(SearchLimits().least)).mean() for _, line in lines])
    print(f"{len(lines)} lines, {frames:.0f} frames, {len(charset)} characters, {100 * sure:.0f} % sure blanks")

    limits = SearchLimits(width=args.width)
    start = time.process_time()
    language = train_language_model(texts, args.order, charset.characters)
    size = sum(array.nbytes for table in language.tables for array in vars(table).values()) / 1e6
    print(f"language model: {len(texts)} texts, {time.process_time() - start:.2f} s, {size:.1f} MB")
    lexicon = {word for text in texts for word in "".join(c if c.isalpha() else " " for c in text).split()}
    tuning = [line for _, line in dev], [text for text, _ in dev], charset, language
    with_language, _ = tune(*tuning, limits=limits)
    with_lexicon, _ = tune(*tuning, lexicon, limits=limits)

    searches = {
        "beam": BeamSearch(charset, weights=ScoreWeights(0, 0, 0), limits=limits),
        "beam_lm": BeamSearch(charset, language, weights=with_language, limits=limits),
        "beam_lm_lexicon": BeamSearch(charset, language, lexicon, with_lexicon, limits),
    }
    reads = {"greedy": lambda line: charset.decode(best_path(line))}
    reads |= {name: lambda line, s=search: s.search(line)[0].text for name, search in searches.items()}
    figures = {"lines": len(lines), "frames": float(frames), "sure_blanks": float(sure)}
    words = {word for text in texts for word in text.split()}
    print("                  CER %   WER %   CER % of unseen texts   unseen words misread %   lines/s a core")
    for name, read in reads.items():
        found = measure(read, lines, set(texts), words)
        cer, wer, unseen, missed = (100 * rate for rate in list(found.values())[:4])
        print(f"{name:16} {cer:6.2f}  {wer:6.2f} {unseen:14.2f} {missed:24.1f} {found['lines_per_s']:22.0f}")
        figures |= {f"{name}_{key}": value for key, value in found.items()}
    print(f"tuned on {len(dev)} lines: {with_language}; with the lexicon: {with_lexicon}")

    # ---------------------------------------------------------------- alignment: are wrong texts told from right ones?
    targets = [charset.encode(text) for text, _ in lines]
    start = time.process_time()
    right = []
    for k in range(0, len(lines), 16):
        right += align_many([line for _, line in lines[k : k + 16]], targets[k : k + 16])
    figures["align_lines_per_s"] = len(lines) / (time.process_time() - start)
    swapped = align_many([line for _, line in lines], targets[1:] + targets[:1])
    margins = np.array([a.margin for a in right if a is not None])
    wrong = [a for a, one, other in zip(swapped, targets, targets[1:] + targets[:1], strict=True) if one != other]
    threshold = np.quantile(margins, 0.02)  # 2 % of the right ones are lost
    figures["swaps_found"] = float(np.mean([a is None or a.margin < threshold for a in wrong]))
    print(f"alignment: {figures['align_lines_per_s']:.0f} lines/s a core; of texts swapped with another line's, "
          f"{100 * figures['swaps_found']:.1f} % are below 98 % of the right ones")  # fmt: skip
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
