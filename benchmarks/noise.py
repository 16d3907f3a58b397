"""What noise in the labels costs a reader, whether alignment finds it, and how near word edges are to the truth.

    python benchmarks/noise.py --handwriting HANDWRITING [--steps 3000] [--size small] [--out FOLDER] [--retrain]

Two tables of HANDWRITING/lines.csv (train lines without flags of `--collections`; dev and val of copiste, untouched):
one as it is; in the other 5 % of the texts are swapped with the row after them on the same certificate, and in 10 % of
the lines a word is expanded as if it were an abbreviation: by htr/abbreviations.csv where one of its abbreviations
stands in the text, else three to six letters become two words of other lines, some twice as long. Both become data
sets, on each a reader is trained with the same budget, and read val. Then `python -m jobs align --to lines` judges the
noisy data set with the reader that was trained on it. With --retrain a third reader is trained on what is left.

Word edges: simulated lines whose words are written one by one, so that their strokes' places are known, aligned with
`--reader` (default: the clean one). The last line is JSON.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from htr.decoding.align import INK_DARKNESS, align_many, measure_emission_delay, word_boxes
from htr.io.sources import read_source
from htr.lines.normalise import normalise_line
from htr.reader import Reader
from htr.references import References
from htr.synth.handwriting import X_HEIGHT, Writer, hands
from htr.synth.text_generator import other_conditions
from shards.index import merge
from shards.plan import Settings, make_plan
from shards.write import is_committed, write_shard

CHECKOUT = Path(__file__).parent.parent
SWAPPED, EXPANDED = 0.05, 0.10  # of the training rows


def read_rows(handwriting: Path, collections: Sequence[str], lines: int) -> list[dict]:
    """Rows that are safe to train and score on; at most so many of each split, whole certificates."""
    with (handwriting / "lines.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["flags"]]
    kept = [row for row in rows if row["collection"] in (collections if row["split"] == "train" else ["copiste"])]
    return [row for split in ("train", "dev", "val") for row in [r for r in kept if r["split"] == split][:lines]]


def swap(rows: list[dict], rng: np.random.Generator) -> None:
    """Exchange texts of neighbouring rows of a certificate, in place, until SWAPPED of the training rows are wrong."""
    train = [row for row in rows if row["split"] == "train"]
    wanted = round(SWAPPED * len(train))
    for place in rng.permutation(len(train) - 1).tolist():
        one, other = train[place], train[place + 1]
        if wanted < 2:
            break
        if one["certificate"] != other["certificate"] or one["text"] == other["text"]:
            continue
        if not one["swapped"] and not other["swapped"]:
            one["text"], other["text"] = other["text"], one["text"]
            one["swapped"] = other["swapped"] = "yes"
            wanted -= 2


def expand(rows: list[dict], references: References, rng: np.random.Generator) -> None:
    """Make a word longer, in place, in EXPANDED of the training rows that kept their text."""
    train = [row for row in rows if row["split"] == "train" and not row["swapped"]]
    words = [word for row in train for word in row["text"].split() if word.isalpha() and len(word) > 2]
    wanted = round(EXPANDED * len(train))
    for place in rng.permutation(len(train)).tolist():
        if not wanted:
            break
        row = train[place]
        parts = row["text"].split()
        longer = [text for text in references.variants(row["text"])[1:] if len(text) > len(row["text"])]
        short = [i for i, word in enumerate(parts) if word.isalpha() and 3 <= len(word) <= 6]
        if longer:
            row["text"] = longer[rng.integers(len(longer))]
        elif short:
            at = short[rng.integers(len(short))]
            pairs = [" ".join(words[i] for i in rng.integers(len(words), size=2)) for _ in range(40)]
            parts[at] = min(pairs, key=lambda pair: abs(len(pair) - 2 * len(parts[at])))
            row["text"] = " ".join(parts)
        else:
            continue
        row["expanded"] = "yes"
        wanted -= 1


def make_dataset(rows: list[dict], images: Path, folder: Path) -> Path:
    """The rows as a table beside the data set that is made of them; the images stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder.with_suffix(".csv")
    with source.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    plan = make_plan(folder, read_source(source)[0], Settings())
    for number, shard in enumerate(plan.shards):
        if not is_committed(folder, shard["name"]):
            write_shard(plan, number, images)
    merge(plan)
    return folder


def jobs(*words: object) -> None:
    environ = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-m", "jobs", *map(str, words)], env=environ, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"python -m jobs {words[0]} failed")


def train(dataset: Path, run: Path, options: Sequence[str]) -> float:
    """A reader of the data set -> its CER on val, whose labels no noise touched."""
    jobs("train", dataset, "--run", run, "--model", "ctc", *options)
    jobs("evaluate", dataset, "--run", run, "--split", "val", "--name", "val", "--device", "cpu")
    return json.loads((run / "evaluation" / "val" / "metrics.json").read_text(encoding="utf-8"))["cer"]


# ---------------------------------------------------------------------------------------------------- word edges


def written_apart(writer: Writer, words: list[str], rng: np.random.Generator) -> tuple[np.ndarray, list, float]:
    """Words written one by one on a baseline -> gray (H, W) uint8, left and right of each one's strokes, x-height."""
    height = 80
    x_height = height * X_HEIGHT * writer.size
    inks = [writer.write(word, height, rng) for word in words]
    above = int(max(ink.baseline for ink in inks)) + 4
    below = int(max(ink.pixels.shape[0] - ink.baseline for ink in inks)) + 4
    page, at, spans = np.zeros((above + below, 0), np.uint8), 6, []
    for ink in inks:
        top, (h, w) = above - int(ink.baseline), ink.pixels.shape
        page = np.pad(page, ((0, 0), (0, at + w + 6 - page.shape[1])))
        np.maximum(page[top : top + h, at : at + w], ink.pixels, out=page[top : top + h, at : at + w])
        columns = np.flatnonzero((ink.pixels > INK_DARKNESS).any(axis=0))
        spans.append((at + columns[0], at + columns[-1] + 1))
        at += w + round(writer.space * x_height)
    paper = rng.normal(225, 3, page.shape)
    return (paper * (1 - page / 280.0)).clip(0, 255).astype(np.uint8), spans, x_height


def word_edges(reader: Reader, lines: int, fonts: Path | None, seed: int) -> float:
    """The share of word edges within half an x-height of the truth."""
    rng = np.random.default_rng(seed)
    known, aligned = hands(fonts), []
    while len(aligned) < lines:
        words = other_conditions(rng, lines=1, longest=50)[0].split()
        writer = Writer.make((seed, len(aligned)), known)
        if reader.charset.missing(" ".join(words)) or writer.hand.lacks("".join(words)):
            continue
        gray, spans, x_height = written_apart(writer, words, rng)
        ink, text = normalise_line(gray, reader.geometry.height), " ".join(words)
        frames = reader.encode(torch.from_numpy(ink)[None, None], torch.tensor([ink.shape[1]]))
        log_probs = frames.log_probs[0, : frames.lengths[0]].float().numpy()
        (alignment,) = align_many([log_probs], [reader.charset.encode(text)])
        aligned.append((alignment, text, ink, gray.shape, spans, x_height))
    fitting = [line for line in aligned if line[0] is not None]
    emission_delay = measure_emission_delay(*([line[i] for line in fitting] for i in range(3)), reader.geometry)
    near = total = 0
    for alignment, text, ink, shape, spans, x_height in aligned:
        total += 2 * len(spans)
        if alignment is not None:
            boxes = word_boxes(alignment, text, shape, reader.geometry, ink, emission_delay)
            edges = [(box.left, box.right) for box in boxes]
            near += int((np.abs(np.array(edges) - np.array(spans)) <= x_height / 2).sum())
    print(
        f"word edges: {total} of {len(aligned)} lines, delay {emission_delay:.0f} px, "
        f"{100 * near / total:.1f} % near the truth"
    )
    return near / total


def judge(rows: list[dict]) -> dict[str, float]:
    """What the alignment said of the training rows, beside what was done to them."""
    train = [row for row in rows if row["split"] == "train"]
    swapped = [row for row in train if row["swapped"]]
    good = [row for row in train if not row["swapped"] and not row["expanded"]]
    dev = [row for row in rows if row["split"] == "dev"]
    lost = [row for row in train if row["reject"]]
    share = {"swaps_found": swapped, "good_rejected": good, "dev_rejected": dev}
    share["expanded_rejected"] = [row for row in train if row["expanded"]]
    found = {name: sum(bool(row["reject"]) for row in some) / max(len(some), 1) for name, some in share.items()}
    wrong = sum(bool(row["swapped"] or row["expanded"]) for row in lost)
    return found | {"precision": wrong / max(len(lost), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--handwriting", type=Path, required=True, help="folder with lines.csv and its images")
    add("--out", type=Path, default=Path("noise"), help="data sets and runs, resumed (default: %(default)s)")
    add("--collections", default="copiste,poilus", help="to train on (default: %(default)s)")
    add("--lines", type=int, default=1_000_000, help="at most so many of each split")
    add("--steps", type=int, default=3000)
    add("--size", default="small")
    add("--train", default="", help="further options of train, in one word: '--batch=16 --lr=2e-3'")
    add("--retrain", action="store_true", help="train on what the alignment leaves, too")
    add("--reader", type=Path, metavar="RUN", help="whose word edges are measured (default: the clean one)")
    add("--edges", type=int, default=300, help="simulated lines for word edges; 0: none")
    add("--fonts", type=Path, help="a folder of handwriting fonts in place of those from PyPI")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    # ---------------------------------------------------------------- the two tables
    clean = [row | {"swapped": "", "expanded": ""} for row in read_rows(
        args.handwriting, args.collections.split(","), args.lines)]  # fmt: skip
    noisy, rng = [dict(row) for row in clean], np.random.default_rng(args.seed)
    swap(noisy, rng)
    expand(noisy, References.load(), rng)
    options = ["--size", args.size, "--steps", args.steps, "--device", "cpu", *args.train.split()]
    sets, runs = (
        {name: args.out / f"{kind}-{name}" for name in ("clean", "noisy", "left")} for kind in ("data", "run")
    )
    make_dataset(clean, args.handwriting, sets["clean"])
    make_dataset(noisy, args.handwriting, sets["noisy"])

    # ---------------------------------------------------------------- two readers, and what one says of its labels
    figures = {f"cer_{name}": train(sets[name], runs[name], options) for name in ("clean", "noisy")}
    figures["lost_points"] = 100 * (figures["cer_noisy"] - figures["cer_clean"])
    jobs("align", sets["noisy"], "--run", runs["noisy"], "--to", "lines", "--device", "cpu")
    table = sets["noisy"] / "aligned-lines.parquet"
    rows = pq.read_table(table).to_pylist()
    figures |= judge(rows)
    if args.retrain:
        jobs("preprocess", table, "--out", sets["left"], "--encoding", "png")
        figures["cer_left"] = train(sets["left"], runs["left"], options)
    if args.edges:
        reader = Reader.load((args.reader or runs["clean"]) / "model")
        figures["word_edges"] = word_edges(reader, args.edges, args.fonts, args.seed)

    noise = {name: sum(bool(row[name]) for row in noisy) for name in ("swapped", "expanded")}
    print(f"{len(noisy)} rows, {noise['swapped']} of them with a neighbour's text, {noise['expanded']} expanded")
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}" if name == "lost_points" else f"{name:20} {100 * value:8.2f} %")
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
