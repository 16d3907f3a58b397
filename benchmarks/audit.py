"""Of the labels that `audit` shows first, how many are wrong: real lines, some of whose labels are spoiled.

    python benchmarks/audit.py --handwriting HANDWRITING [--seeds 10] [--first-seed 10] [--spoil 0.05] [--lines N]

Lines of HANDWRITING/lines.csv without flags that the project's own reader was not trained on (dev and val), read by
htr/pretrained with its beam search. For every seed a share of the labels is spoiled, half with the next line's text,
half by a word left out; scores are fitted on the labels as they then are, cross-fitted over writers. Ranked as `audit`
does (how much better the frames fit the reading than the label, over 1 and the edits expected), by the edits against
those expected (what it does with evaluations of older versions), and by edits a character. Printed: the share of
spoiled labels among the first 50 rows and among as many as were spoiled, means over seeds; the data's own wrong labels
count as right ones. `--shown FILE`: what is not spoiled among the first 50, image, label and reading, to be looked at:
it holds texts. Seeds 0 to 5 chose the ranking. Last, one line of JSON.
"""

import argparse
import csv
import json
import random
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from htr.lines.normalise import normalise_line
from htr.reader import Prediction, Reader
from htr.reliability.calibration import cross_fitted
from htr.reliability.units import CHARACTER
from jobs.audit import surprise_of, surprises
from jobs.evaluation.label_gap import label_gaps

PRETRAINED = Path(__file__).resolve().parent.parent / "htr" / "pretrained"
BATCH, FOLDS, SHOWN = 16, 10, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handwriting", type=Path, required=True, help="a folder with lines.csv")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--spoil", type=float, default=0.05, help="share of labels spoiled (default: %(default)s)")
    parser.add_argument("--lines", type=int, help="so many lines, drawn at random, for a try")
    parser.add_argument("--shown", type=Path, help="a CSV of what is not spoiled among the first rows")
    args = parser.parse_args()
    with open(args.handwriting / "lines.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["flags"] and row["split"] in ("dev", "val")]
    if args.lines:
        rows = random.Random(0).sample(rows, args.lines)
    reader = Reader.load(PRETRAINED / "model", decoding=PRETRAINED / "decoding")
    read, frames = readings(reader, [str(args.handwriting / row["image"]) for row in rows])
    writers = np.unique([row["writer"] for row in rows], return_inverse=True)[1]
    found: dict[str, list] = {}
    kept: set[int] = set()
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        labels, planted = spoiled([row["text"] for row in rows], args.spoil, seed)
        for name, score in rankings(labels, read, frames, writers, reader).items():
            order = np.argsort(-score, kind="stable")
            hits = np.isin(order[np.isfinite(-score[order])], planted)
            found.setdefault(name, []).append((hits[:SHOWN].mean(), hits[: len(planted)].mean()))
            if name == "audit":
                kept |= {int(i) for i in order[:SHOWN] if i not in planted}
    print(f"{len(planted)} of {len(rows)} labels spoiled, {args.seeds} seeds; share of spoiled ones")
    figures: dict = {"lines": len(rows), "spoiled": len(planted), "seeds": args.seeds, "others_shown": len(kept)}
    for name, shares in found.items():
        first, many = np.mean(shares, axis=0)
        print(f"{name:32} {100 * first:5.1f} % of the first {SHOWN}, {100 * many:5.1f} % of the first {len(planted)}")
        figures |= {f"{name}_{SHOWN}": round(float(first), 4), f"{name}_all": round(float(many), 4)}
    print(f"rows that are not spoiled among the first {SHOWN}, over all seeds: {len(kept)} different ones")
    if args.shown:
        with open(args.shown, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "reading"])
            writer.writerows([rows[i]["image"], rows[i]["text"], read[i].text] for i in sorted(kept))
    print(json.dumps(figures))


def readings(reader: Reader, paths: list[str]) -> tuple[list[Prediction], list[torch.Tensor]]:
    """-> of each line what is read and its frames, (T, symbols + 1) in half precision."""
    height = reader.geometry.height
    inks = [normalise_line(cv2.imread(path, cv2.IMREAD_GRAYSCALE), height) for path in paths]
    read: dict[int, Prediction] = {}
    frames: dict[int, torch.Tensor] = {}
    for part, seen in reader.encode_lines(inks, BATCH):
        read.update(zip(part, map(reader.text, reader.decode(seen)), strict=True))
        lines = zip(seen.log_probs, seen.lengths.tolist(), strict=True)
        frames.update(zip(part, (line[:length].half() for line, length in lines), strict=True))
    return [read[i] for i in range(len(inks))], [frames[i] for i in range(len(inks))]


def spoiled(texts: list[str], share: float, seed: int) -> tuple[list[str], np.ndarray]:
    """-> the labels, and which of them were spoiled."""
    rng, labels = np.random.default_rng(seed), list(texts)
    planted = rng.permutation(len(texts))[: round(share * len(texts))]
    for number, i in enumerate(planted.tolist()):
        words = texts[i].split()
        if number % 2 or len(words) < 2:
            labels[i] = texts[(i + 1) % len(texts)]
        else:
            gone = int(rng.integers(len(words)))
            labels[i] = " ".join(words[:gone] + words[gone + 1 :])
    return labels, planted


def rankings(
    labels: list[str], read: list[Prediction], frames: list[torch.Tensor], writers: np.ndarray, reader: Reader
) -> dict[str, np.ndarray]:
    """(N,) of each ranking, -inf where the reading is the label."""
    texts = [one.text for one in read]
    edits = np.array([Levenshtein.distance(*pair) for pair in zip(labels, texts, strict=True)], float)
    characters = np.array([max(len(label), 1) for label in labels], float)
    length = np.array([max(len(a), len(b), 1) for a, b in zip(labels, texts, strict=True)], float)
    signals = {name: np.array([one.signals[name] for one in read]) for name in read[0].signals}
    share = 1 - np.minimum(edits, characters) / characters
    expected = (1 - cross_fitted(CHARACTER, signals, share, writers, characters, folds=FOLDS)) * length
    gaps = [
        label_gaps(line[None], [len(line)], [1], [label], [text], reader.charset)[0]
        for line, label, text in zip(frames, labels, texts, strict=True)
    ]
    scores = {
        "audit": surprise_of(np.array(gaps), expected),
        "edits_against_expected": surprises(edits, expected),
        "edits_a_character": edits / length,
    }
    return {name: np.where(edits > 0, score, -np.inf) for name, score in scores.items()}


if __name__ == "__main__":
    main()
