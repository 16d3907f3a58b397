"""What a day of keying buys: which lines to key first, by the CER of a reader that is fine-tuned on them.

    python benchmarks/keying_order.py --handwriting HANDWRITING [--keyed 200] [--steps 100] [--seeds 3]

Lines of HANDWRITING/lines.csv without flags that the project's own reader (htr/pretrained) was not trained on: dev and
val. For every seed the writers are halved: one half is the pool that is to be keyed, the other is read after. The
pretrained reader reads the pool, greedily; of it `--keyed` lines are taken at random, the least sure first, the most
useful first (jobs/keying/order.py, by the reader's confidence), and the reader is fine-tuned on each choice: the same
steps, rate, batches of 16 and augmentation, its alphabet kept. All three orders of a seed are read on the same lines.

A table, then one line of JSON; CER in %.
"""

import argparse
import copy
import csv
import json
import random
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from htr.lines.augment import LEVELS, augment, random_for
from htr.lines.normalise import normalise_line
from htr.metrics.error_rates import Errors, compare
from htr.reader import Reader
from jobs.keying.order import useful

CHECKOUT = Path(__file__).parent.parent
ORDERS = ("random", "unsure", "useful")
BATCH, RATE, WARMUP = 16, 3e-4, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--handwriting", type=Path, required=True, help="a folder with lines.csv")
    add("--keyed", type=int, default=200)
    add("--steps", type=int, default=100)
    add("--seeds", type=int, default=3)
    add("--first", type=int, default=0, help="of the seeds, to measure them one by one (default: %(default)s)")
    add("--evaluated", type=int, default=300, help="lines of the other writers that are read (default: %(default)s)")
    add("--pool", type=int, help="of all lines so many, drawn at random, for a try")
    args = parser.parse_args()
    rows = lines(args.handwriting)
    if args.pool:
        rows = random.Random(0).sample(rows, args.pool)
    reader = Reader.load(CHECKOUT / "htr" / "pretrained" / "model")
    images = [cv2.imread(str(args.handwriting / row["image"]), cv2.IMREAD_GRAYSCALE) for row in rows]
    began = time.monotonic()
    read = reader.read(images)
    found: dict[str, list[float]] = {name: [] for name in ("before", *ORDERS)}
    for seed in range(args.first, args.first + args.seeds):
        writers = sorted({row["writer"] for row in rows})
        random.Random(seed).shuffle(writers)
        keyers = set(writers[::2])
        pool = [i for i, row in enumerate(rows) if row["writer"] in keyers]
        test = [i for i, row in enumerate(rows) if row["writer"] not in keyers]
        test = sorted(random.Random(seed).sample(test, min(args.evaluated, len(test))))
        found["before"].append(100 * errors([rows[i] for i in test], [read[i].text for i in test]).cer)
        for order in ORDERS:
            chosen = choose(order, [read[i] for i in pool], args.keyed, seed)
            tuned = fine_tuned(reader, [(images[pool[i]], rows[pool[i]]["text"]) for i in chosen], args.steps, seed)
            texts = tuned.read([images[i] for i in test])
            cer = 100 * errors([rows[i] for i in test], [text.text for text in texts]).cer
            found[order].append(cer)
            keyed = sum(len(rows[pool[i]]["text"]) for i in chosen)
            print(f"seed {seed} {order:8} {args.keyed} of {len(pool)} lines, {keyed} characters: CER {cer:.2f} % on "
                  f"{len(test)} lines ({time.monotonic() - began:.0f} s)", flush=True)  # fmt: skip
    figures = {}
    for name, values in found.items():
        figures |= {f"cer_{name}": float(np.mean(values)), f"cers_{name}": [round(value, 3) for value in values]}
        gain = np.array(values) - np.array(found["random"])
        against = f"{gain.mean():+.2f} points ({gain.round(2).tolist()})"
        print(f"{name:8} CER {np.mean(values):.2f} %, against random {against}")
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps(rounded | {"seeds": args.seeds, "keyed": args.keyed, "steps": args.steps}))


def lines(handwriting: Path) -> list[dict]:
    with open(handwriting / "lines.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if not row["flags"] and row["split"] in ("dev", "val")]


def choose(order: str, read: list, count: int, seed: int) -> list[int]:
    unsure = np.array([1 - text.confidence for text in read])
    if order == "random":
        return random.Random(seed).sample(range(len(read)), count)
    if order == "unsure":
        return np.argsort(-unsure, kind="stable")[:count].tolist()
    return useful([text.text for text in read], unsure)[:count].tolist()


def fine_tuned(reader: Reader, keyed: list[tuple[np.ndarray, str]], steps: int, seed: int) -> Reader:
    """The reader after so many steps on the keyed lines alone; characters that it can't write are left out."""
    torch.manual_seed(seed)
    model = copy.deepcopy(reader.model).train()
    known = set(reader.charset.characters)
    targets = [reader.charset.encode("".join(c for c in text if c in known)) for _, text in keyed]
    height = reader.geometry.height
    inks = [normalise_line(image, height) for image, _ in keyed]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    rng = random.Random(seed)
    order: list[int] = []
    for step in range(steps):
        if len(order) < BATCH:
            order += [i for _ in range(-(-BATCH // len(keyed))) for i in rng.sample(range(len(keyed)), len(keyed))]
        some, order = order[:BATCH], order[BATCH:]
        seen = [augment(inks[i], random_for(seed, step, str(i), 0), LEVELS["medium"]) for i in some]
        padded = np.zeros((BATCH, 1, height, max(ink.shape[1] for ink in seen)), np.float32)
        for row, ink in zip(padded, seen, strict=True):
            row[0, :, : ink.shape[1]] = ink / 255
        rate = RATE * min((step + 1) / WARMUP, 1.0) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        widths = torch.tensor([ink.shape[1] for ink in seen])
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            losses = model.losses(torch.from_numpy(padded), widths, [[targets[i]] for i in some])
        finite = losses[losses.isfinite()]
        loss = finite.sum() / max(sum(len(targets[i]) for i in some), 1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return Reader(model.eval(), reader.charset, reader.config)


def errors(rows: list[dict], texts: list[str]) -> Errors:
    total = Errors()
    for row, text in zip(rows, texts, strict=True):
        total += compare(row["text"], text)
    return total


if __name__ == "__main__":
    main()
