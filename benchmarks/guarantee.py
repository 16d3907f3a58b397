"""Does a promised threshold keep its promise, and is it worth having? Simulated calibrations, where the truth is known.

    python benchmarks/guarantee.py                    # 1 000 calibrations of each cell, half an hour on one core
    python benchmarks/guarantee.py --calibrations 50

Each calibration draws a part that plans the sequence of thresholds and another that chooses; the population is known
(simulated/populations.py). `held`: the share of calibrations whose promise is true of the population (nothing promised
is no lie); it has to be 1 - delta at least. `of oracle`: coverage beside that of the threshold that the population
itself would give, nothing promised counts as 0. `plain rule`: takes the loosest threshold whose rate was at most alpha.
`before`, over writers: the test with an estimated bound (simulated/estimated_bound.py), how often its promise held for
all accepted lines together and what it covered beside ours.

    mild     fields, independent: binomial; lines of very different hands, 12 each: CER or right and wrong, over writers
    heavy    1 or 3 % of the writers can't be read at all, at a true rate just over alpha if scores say nothing; one
             writer with a third of all lines; errors that come in bursts
    misled   scores that say nothing, a rate just above alpha, a fitting part that was far better: the worst case, in
             which whatever is promised is false

Then the monitor of batches (alarms within 100 batches of 150 keyed ones, rates as multiples of alpha; how often its
bound of a batch's CER holds), and the check for drift (warnings at a level of 5 %, by how far hands or years have
moved, in standard deviations of writers' means).
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.simulated.estimated_bound import threshold_of
from benchmarks.simulated.populations import (
    bursts,
    fields,
    lines,
    one_writes_a_third,
    unreadable,
    useless,
    useless_lines,
)
from htr.reliability.covariate_shift import covariate_shift_test
from htr.reliability.monitor import false_alarms, most_cer
from htr.reliability.risk_control import PER_LINE, Units, choose, needed, needed_clusters, plan

POPULATION = 1_000_000  # units, about
TRIFLE = 0.01  # of coverage: an oracle that has no more has nothing to be compared with
TOLERANCE = 1.645  # standard errors of a share, one-sided 95 %


@dataclass(frozen=True)
class Cell:
    """`draw(rng, n)` -> units; `count` fields or writers choose, `fit` plan; `fitting`: the part that plans is another
    population, and a rate that is over alpha everywhere makes every promise a false one.
    """

    draw: object
    fit: int
    count: int
    alpha: float
    units: int  # of a writer, in the mean; 1: independent fields
    fitting: object = None


CELLS = {
    "mild: fields, 3 000, 2 %": Cell(fields, 2000, 3000, 0.02, 1),
    "mild: fields, 10 000, 2 %": Cell(fields, 2000, 10_000, 0.02, 1),
    "mild: fields, 3 000, 5 %": Cell(fields, 2000, 3000, 0.05, 1),
    "mild: CER 3 %, 100 writers": Cell(lines, 100, 100, 0.03, 12),
    "mild: CER 3 %, 400 writers": Cell(lines, 100, 400, 0.03, 12),
    "mild: CER 3 %, 800 writers": Cell(lines, 200, 800, 0.03, 12),
    "mild: CER 5 %, 400 writers": Cell(lines, 100, 400, 0.05, 12),
    "mild: wrong 10 %, 400 writers": Cell(partial(lines, kind="wrong"), 100, 400, 0.1, 12),
    "heavy: 1 % unreadable, 60 of 100": Cell(partial(unreadable, share=0.01), 60, 60, 0.02, 100),
    "heavy: 1 % unreadable, 200 of 100": Cell(partial(unreadable, share=0.01), 60, 200, 0.02, 100),
    "heavy: 1 % unreadable, 1 500 of 12": Cell(partial(unreadable, share=0.01, each=12), 300, 1500, 0.02, 12),
    "heavy: 3 % unreadable, 400 of 20": Cell(partial(unreadable, share=0.03, rate=0.015, each=20), 100, 400, 0.04, 20),
    "heavy: 3 %, known to scores, 400": Cell(partial(unreadable, share=0.03, each=20, knows=2.0), 100, 400, 0.03, 20),
    "heavy: 1 %, known to scores, 800": Cell(partial(unreadable, share=0.01, each=20, knows=2.0), 200, 800, 0.02, 20),
    "heavy: one has a third, 400": Cell(one_writes_a_third, 100, 400, 0.03, 18),
    "heavy: bursts, 1 000 writers": Cell(bursts, 250, 1000, 0.02, 25),
    "misled: fields, 3 000, 2 %": Cell(
        partial(useless, rate=0.0201), 2000, 3000, 0.02, 1, partial(useless, rate=0.002)
    ),
    "misled: CER 3 %, 400 writers": Cell(
        partial(useless_lines, rate=0.0301), 100, 400, 0.03, 12, partial(useless_lines, rate=0.003)
    ),
    "misled: CER 3 %, 800 writers": Cell(
        partial(useless_lines, rate=0.0301), 200, 800, 0.03, 12, partial(useless_lines, rate=0.003)
    ),
}


# ---------------------------------------------------------------------------------------------------- how it does


class Population:
    """What a threshold means: coverage and rate, of units that are as good as all there are. `counted`: as the promise
    counts them; else all accepted units together.
    """

    def __init__(self, units: Units, counted: bool = True):
        order = np.argsort(-units.probability)
        self.sorted = -units.probability[order]
        weights = units.weights[order] if counted else np.ones(len(order))
        errors, sizes = (np.cumsum(weights * column[order]) for column in (units.errors, units.sizes))
        self.rates = errors / np.maximum(sizes, 1e-9)

    def of(self, threshold: float | None) -> tuple[float, float]:
        """-> coverage, rate."""
        if threshold is None:
            return 0.0, 0.0
        count = int(np.searchsorted(self.sorted, -threshold, side="right"))
        return count / len(self.sorted), float(self.rates[count - 1]) if count else 0.0

    def oracle(self, alpha: float) -> float:
        good = np.flatnonzero(self.rates <= alpha)
        return (int(good[-1]) + 1) / len(self.sorted) if len(good) else 0.0


def plain(units: Units, alpha: float) -> float | None:
    """The loosest threshold at which the rate seen is at most alpha."""
    order = np.argsort(-units.probability)
    good = np.flatnonzero(np.cumsum(units.errors[order]) <= alpha * np.cumsum(units.sizes[order]))
    return float(units.probability[order[good[-1]]]) if len(good) else None


def promises(cell: Cell, delta: float, calibrations: int, seed: int, size: int = POPULATION) -> dict:
    """`size`: units of the population, about."""
    drawn = cell.draw(np.random.default_rng((seed, 0)), max(size // cell.units, 1))
    population, together = Population(drawn), Population(drawn, counted=False)
    oracle = 0.0 if cell.fitting else population.oracle(cell.alpha)
    names = ("held", "coverage", "nothing", "plain", "before_held", "before_coverage")
    found = dict.fromkeys(names, 0.0)

    def holds(threshold: float | None, of: Population) -> bool:
        return threshold is None or (of.of(threshold)[1] <= cell.alpha and not cell.fitting)

    for number in range(calibrations):
        rng = np.random.default_rng((seed, number + 1))
        fitted, units = (cell.fitting or cell.draw)(rng, cell.fit), cell.draw(rng, cell.count)
        threshold, _ = choose(plan(fitted, units.count, cell.alpha, delta), units)
        found["held"] += holds(threshold, population)
        found["coverage"] += population.of(threshold)[0]
        found["nothing"] += threshold is None
        found["plain"] += holds(plain(units, cell.alpha), together)
        if units.groups is not None:
            before = threshold_of(fitted, units, cell.alpha, delta)
            found["before_held"] += holds(before, together)
            found["before_coverage"] += population.of(before)[0]
    found = {name: value / calibrations for name, value in found.items()}
    if cell.units == 1:
        found |= {"before_held": None, "before_coverage": None}
    return found | {"oracle": oracle, "of_oracle": found["coverage"] / oracle if oracle > TRIFLE else None}


def drifts(shift: float, groups: int, runs: int, seed: int) -> float:
    """The share of warnings: ten signals, half of them moved, groups of ten lines that have more in common than not."""
    warned = 0
    for number in range(runs):
        rng = np.random.default_rng((seed, number))
        parts = []
        for moved in (0.0, shift):
            group = np.repeat(np.arange(groups), 10)
            hand = rng.normal(0, 1, (groups, 10)) + moved * (np.arange(10) % 2)
            values = hand[group] + rng.normal(0, 1, (len(group), 10))
            parts += [{f"signal {i}": values[:, i] for i in range(10)}, group]
        warned += covariate_shift_test(*parts, permutations=199, seed=number).warns
    return warned / runs


def batches(rate: float, bad: float, sample: int, runs: int, seed: int) -> dict[str, float]:
    """Batches of 5 000 accepted lines, some of them unreadable: how often the bound of their CER holds."""
    held, bounds = 0, []
    for number in range(runs):
        rng = np.random.default_rng((seed, number))
        characters = rng.integers(5, 60, 5000)
        edits = rng.binomial(characters, np.minimum(rng.gamma(0.3, rate / 0.3, 5000), 1.0))
        edits = np.where(rng.random(5000) < bad, characters, edits)
        counted = PER_LINE / np.maximum(characters, PER_LINE)
        keyed = rng.permutation(5000)[:sample]
        bounds.append(most_cer(edits[keyed], characters[keyed], 5000, 0.05))
        held += bounds[-1] >= (edits * counted).sum() / (characters * counted).sum()
    return {"held": held / runs, "bound": float(np.median(bounds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrations", type=int, default=1000)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--population", type=int, default=POPULATION)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    least = 1 - args.delta - TOLERANCE * np.sqrt(args.delta * (1 - args.delta) / args.calibrations)
    print(
        f"{args.calibrations} calibrations, delta {args.delta:g}: held is to be {least:.3f} at least (with tolerance)"
    )
    print(
        f"alpha 2 %, delta 5 %: {needed(0.02, 0.05)} fields, {needed_clusters(0.02, 0.05)} writers without an error\n"
    )
    names = ("held", 7), ("plain rule", 12), ("coverage", 10), ("oracle", 8), ("of oracle", 11), ("nothing", 9)
    names = (*names, ("before held", 13), ("covered", 9))
    print(" " * 36 + "".join(f"{name:>{wide}}" for name, wide in names))
    figures: dict = {"calibrations": args.calibrations, "least": least, "promises": {}}
    for name, cell in CELLS.items():
        found = promises(cell, args.delta, args.calibrations, args.seed, args.population)
        figures["promises"][name] = found
        share = "" if found["of_oracle"] is None else f"{found['of_oracle']:.2f}"
        before = ["" if found[key] is None else f"{found[key]:.3f}" for key in ("before_held", "before_coverage")]
        print(f"{name:36}{found['held']:7.3f}{found['plain']:12.3f}{found['coverage']:10.3f}{found['oracle']:8.3f}"
              f"{share:>11}{found['nothing']:9.3f}{before[0]:>13}{before[1]:>9}", flush=True)  # fmt: skip
    figures |= {"cells": len(CELLS), "kept_least": min(found["held"] for found in figures["promises"].values())}
    runs = max(args.calibrations // 2, 10)
    print(f"\nmonitor, {runs} runs of 100 batches, alpha 2 %: bet (false: 5 % at most), detector (200 batches apart)")
    figures["monitor"] = {}
    for times in (0.5, 1.0, 1.5, 2.0, 3.0):
        found = false_alarms([150] * 100, 0.02, 0.02 * times, runs, args.seed)
        figures["monitor"][str(times)] = found
        print(f"    rate {times:3.1f} times alpha{found['bet']:10.3f}{found['detector']:10.3f}", flush=True)
    print(f"\nthe bound of a batch's CER, {runs} batches of 5 000 lines: held, median")
    figures["batches"] = {}
    for bad, sample in ((0.0, 150), (0.0, 600), (0.01, 150), (0.01, 600)):
        found = batches(0.01, bad, sample, runs, args.seed)
        figures["batches"][f"{bad:g}, {sample}"] = found
        print(
            f"    CER 1 %, {100 * bad:g} % unreadable, {sample} keyed{found['held']:8.3f}{100 * found['bound']:8.2f} %"
        )
    runs = max(args.calibrations // 5, 10)
    print(f"\ndrift, {runs} runs: warnings with 50 and 200 groups in either part")
    figures["drift"] = {}
    for shift in (0.0, 0.1, 0.3, 0.5, 1.0):
        found = {str(groups): drifts(shift, groups, runs, args.seed) for groups in (50, 200)}
        figures["drift"][str(shift)] = found
        print(f"    moved by {shift:3.1f}{found['50']:10.3f}{found['200']:10.3f}", flush=True)
    figures["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
