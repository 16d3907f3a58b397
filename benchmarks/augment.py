"""What augmentation costs: milliseconds a line on one core, by level and by distortion, beside decoding the same line.

    python benchmarks/augment.py [--handwriting HANDWRITING] [--lines 300] [--repeat 5] [--seed 0]

Lines are images of HANDWRITING/lines.csv (rows of its train split without flags); without it, drawn ones 700 wide.
Decoding is what a training reads: the JPEG in memory to the line that a model sees, 64 high. All in CPU time of this
process, the best of the repeats, each with other random numbers; OpenCV on one thread.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np

from htr.lines.augment import LEVELS, RANGE_OFF, Strength, augment, random_for
from htr.lines.normalise import decode, normalise_line

HEIGHT = 64


def drawn(rng: np.random.Generator) -> bytes:
    """A JPEG of a line 96 x 1050: strokes as dense as writing."""
    image = np.full((96, 1050), 225, np.uint8)
    for x in range(10, 1030, 18):
        points = np.array([x, 30]) + np.cumsum(rng.normal(0, 8, (6, 2)), axis=0)
        cv2.polylines(image, [np.rint(points).astype(np.int32)], False, 40, 3, cv2.LINE_AA)
    return cv2.imencode(".jpg", image)[1].tobytes()


def load(handwriting: Path | None, count: int, rng: np.random.Generator) -> list[bytes]:
    if handwriting is None:
        return [drawn(rng) for _ in range(count)]
    with open(handwriting / "lines.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train" and not row["flags"]]
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return [(handwriting / rows[i]["image"]).read_bytes() for i in chosen]


def measure(work: Callable[[int, int], object], count: int, repeat: int) -> float:
    """CPU milliseconds of work(turn, line): the mean of the lines in the best turn."""
    turns = []
    for turn in range(repeat):
        began = time.process_time()
        for i in range(count):
            work(turn, i)
        turns.append(time.process_time() - began)
    return 1000 * min(turns) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handwriting", type=Path, help="folder with lines.csv and its images")
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    stored = load(options.handwriting, options.lines, np.random.default_rng(options.seed))
    inks = [normalise_line(decode(content), HEIGHT) for content in stored]
    widths = [ink.shape[1] for ink in inks]

    def cost(strength: Strength) -> float:
        def one(turn: int, i: int) -> np.ndarray:
            return augment(inks[i], random_for(options.seed, turn, str(i)), strength)

        return measure(one, len(inks), options.repeat)

    decoding = measure(lambda turn, i: normalise_line(decode(stored[i]), HEIGHT), len(inks), options.repeat)
    levels = {name: cost(strength) for name, strength in LEVELS.items()}
    print(
        f"{len(inks)} lines of {HEIGHT} x {np.mean(widths):.0f} px on average; "
        f"decoding and normalise_line {decoding:.3f} ms"
    )
    for name, spent in levels.items():
        print(f"{name:12} {spent:6.3f} ms a line, {spent / decoding:5.2f} times decoding")
    print("\neach distortion of `strong` alone, on every line, the random numbers of `none` left out:")
    for field in fields(Strength):
        most = getattr(LEVELS["strong"], field.name)[1]
        spent = cost(replace(LEVELS["none"], **{field.name: (1.0, most) if most else RANGE_OFF}))
        print(f"{field.name:12} {max(spent - levels['none'], 0.0):6.3f} ms a line")
    medium = levels["medium"]
    print(json.dumps({"ms_per_line": round(medium, 4), "ratio_to_decode": round(medium / decoding, 4)}))


if __name__ == "__main__":
    main()
