"""How often 95 % intervals of a category's bias cover it, in simulated evaluations where the bias is known.

    python benchmarks/terms.py [--evaluations 2000] [--writers 100 200 400 1000]

An evaluation: so many writers with a number of texts each (geometric, 15 in the mean), of which a share has the
category. A text that has it is read without it, and one that has not is read with it, at rates that are each writer's
own (gamma). The truth is the bias that infinitely many writers have. Cells: misses alone, inventions alone, both set
off against each other, a rare category. A table of the shares that cover, of all evaluations, of those that are marked
as small (fewer than 25 writers with a misreading of the category) and of the others, the median widths in points, the
share of the evaluations whose p is 5 % or less, and one line of JSON: least and most coverage of all evaluations of the
cells of which less than half are marked, and of the other cells.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from htr.metrics.terms import bias

CELLS = {  # share of texts with the category, missed of these, invented of the others
    "missed 10 %": (0.10, 0.10, 0.0),
    "invented 0.5 %": (0.10, 0.0, 0.005),
    "missed 10 %, invented 1.1 %: no bias": (0.10, 0.10, 0.1 * 0.1 / 0.9),
    "missed 5 %, invented 1 %": (0.20, 0.05, 0.01),
    "rare, missed 15 %": (0.03, 0.15, 0.001),
}
SHAPE = 1.5  # of the gamma that a writer's rates are drawn from: the smaller, the more hands differ


def draw(rng: np.random.Generator, writers: int, share: float, missed: float, invented: float):
    """-> (writers,) texts that lose the category, that gain it, that have it."""
    texts = rng.geometric(1 / 15, writers)
    having = rng.binomial(texts, rates(rng, writers, share))
    lost = rng.binomial(having, rates(rng, writers, missed))
    more = rng.binomial(texts - having, rates(rng, writers, invented))
    return lost, more, having


def rates(rng: np.random.Generator, writers: int, mean: float) -> np.ndarray:
    """Hands whose rates differ by their own standard deviation of 0.8 of the mean."""
    return np.minimum(rng.gamma(SHAPE, mean / SHAPE, writers), 1.0) if mean else np.zeros(writers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=2000, help="of each cell (default: %(default)s)")
    parser.add_argument("--writers", type=int, nargs="+", default=[100, 200, 400, 1000], metavar="N")
    args = parser.parse_args()
    print(
        f"{'':38}{'writers':>8}{'bias %':>8}{'marked':>9}{'covered: all':>12}{'marked':>12}{'not, %':>12}{'width':>8}"
        f"{'p <= 0.05':>11}"
    )
    figures: dict = {"evaluations": args.evaluations, "covered": {}}
    for name, (share, missed, invented) in CELLS.items():
        truth = ((1 - share) * invented - share * missed) / share
        for writers in args.writers:
            rng = np.random.default_rng((writers, len(name)))
            hits, marked, widths, seen = [], [], [], 0
            for number in range(args.evaluations):
                found = bias(*draw(rng, writers, share, missed, invented), number)
                if found["bias"] is None:
                    continue
                low, high = found["bias_interval"]
                hits.append(low <= truth <= high)
                marked.append(found["small"])
                seen += found["p"] <= 0.05
                widths.append(high - low)
            hits, marked = np.array(hits), np.array(marked)
            parts = {"all": hits, "marked": hits[marked], "not marked": hits[~marked]}
            shown = {
                part: float(own.mean()) if len(own) >= args.evaluations / 4 else None for part, own in parts.items()
            }
            figures["covered"][f"{name}, {writers}"] = shown | {"share_marked": float(marked.mean())}
            cells = "".join(f"{'-' if v is None else f'{100 * v:.1f}':>12}" for v in shown.values())
            print(f"{name:38}{writers:8d}{100 * truth:8.1f}{marked.mean():9.2f}{cells}{100 * np.median(widths):8.1f}"
                  f"{seen / len(hits):11.3f}", flush=True)  # fmt: skip
    cells = figures["covered"].values()
    for name, rough in (("", False), ("_marked", True)):
        values = [found["all"] for found in cells if (found["share_marked"] >= 0.5) == rough]
        figures |= {f"least{name}": min(values, default=None), f"most{name}": max(values, default=None)}
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
