"""Does a promised threshold keep its promise, and is it worth having? Simulated calibrations, where the truth is known.

    python benchmarks/guarantee.py                    # 1 000 calibrations of each kind, some minutes on one core
    python benchmarks/guarantee.py --calibrations 50

Each calibration draws a part that plans the sequence of thresholds and another that chooses; the population is known.
`held`: the share of calibrations whose promise is true of the population (nothing promised is no lie); it has to be
1 - delta at least. `of oracle`: coverage beside that of the threshold that the population itself would give, nothing
promised counts as 0. The plain rule, that takes the loosest threshold whose rate was at most alpha, stands beside it.
`of fixed`: coverage beside what the best single threshold would bring on average, the same test passed, picked by
somebody who knows the population: what so many fields can show at all (where units are independent).

    fields       right or wrong independently, scores that order them imperfectly: binomial
    lines, CER   writers of very different hands, 12 lines each: betting over writers
    correlated   the same writers, lines right or wrong: betting over writers; `items`: binomial, as if lines were alone
    misled       scores that say nothing, a rate just above alpha, a fitting part that was far better: the worst case,
                 in which whatever is promised is false

Then the monitor of batches (alarms within 100 batches of 150 keyed ones, rates as multiples of alpha), and the check
for drift (warnings at a level of 5 %, by how far hands or years have moved, in standard deviations of writers' means).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from htr.reliability.covariate_shift import covariate_shift_test
from htr.reliability.monitor import false_alarms
from htr.reliability.risk_control import Units, allowed, binomial, choose, needed, plan

POPULATION = 2_000_000  # units, about


# ---------------------------------------------------------------------------------------------------- what is drawn


def fields(rng: np.random.Generator, count: int) -> Units:
    """Fields, whose probability of being right is known but for some noise; 28 % can be accepted at 2 %."""
    hard = rng.normal(1.0, 3.0, count)
    wrong = rng.random(count) >= 1 / (1 + np.exp(-hard))
    return Units(1 / (1 + np.exp(-(hard + rng.normal(0.0, 0.5, count)))), wrong.astype(float), np.ones(count))


def useless(rng: np.random.Generator, count: int, rate: float) -> Units:
    return Units(rng.random(count), (rng.random(count) < rate).astype(float), np.ones(count))


def useless_lines(rng: np.random.Generator, writers: int, rate: float) -> Units:
    group = np.repeat(np.arange(writers), 12)
    characters = rng.integers(15, 60, len(group))
    hands = rate * np.minimum(rng.gamma(1.5, 1 / 1.5, writers), 10.0)  # their mean is the rate
    edits = rng.binomial(characters, hands[group]).astype(float)
    return Units(rng.random(len(group)), edits, characters.astype(float), group)


def lines(rng: np.random.Generator, writers: int, kind: str = "cer") -> Units:
    """A writer's hand makes all the lines of it easy or hard, beyond what the score knows."""
    hand, own = rng.gamma(1.5, 0.7, writers), rng.lognormal(0.0, 0.3, writers)
    group = np.repeat(np.arange(writers), rng.poisson(11.0, writers) + 1)
    hard = hand[group] * rng.gamma(0.6, 1.7, len(group))
    error = 1 - np.exp(-0.06 * hard)
    characters = rng.integers(15, 60, len(group)).astype(float)
    edits = rng.binomial(characters.astype(int), 1 - (1 - error) ** own[group]).astype(float)
    known = hard * rng.lognormal(0.0, 0.3, len(group))
    if kind == "cer":
        return Units(np.exp(-0.06 * known), edits, characters, group)
    return Units(np.exp(-0.06 * known * characters / 30), (edits > 0).astype(float), np.ones(len(group)), group)


# ---------------------------------------------------------------------------------------------------- how it does


class Population:
    """What a threshold means: coverage and rate, of units that are as good as all there are."""

    def __init__(self, units: Units):
        order = np.argsort(-units.probability)
        self.sorted = -units.probability[order]
        self.rates = np.cumsum(units.errors[order]) / np.maximum(np.cumsum(units.sizes[order]), 1)

    def of(self, threshold: float) -> tuple[float, float]:
        count = int(np.searchsorted(self.sorted, -threshold, side="right"))
        return count / len(self.sorted), float(self.rates[count - 1]) if count else 0.0

    def oracle(self, alpha: float) -> float:
        good = np.flatnonzero(self.rates <= alpha)
        return (int(good[-1]) + 1) / len(self.sorted) if len(good) else 0.0

    def fixed(self, count: int, alpha: float, delta: float) -> float:
        """The mean coverage of the best threshold, tested on so many units, 0 where it fails."""
        best = 0.0
        for share in np.arange(1, 500) / 500:
            accepted, rate = round(count * share), self.rates[int(share * len(self.rates)) - 1]
            best = max(best, share * binomial(allowed(accepted, alpha, delta), accepted, float(rate)))
        return best


def plain(units: Units, alpha: float) -> float | None:
    """The loosest threshold at which the rate seen is at most alpha."""
    order = np.argsort(-units.probability)
    good = np.flatnonzero(np.cumsum(units.errors[order]) <= alpha * np.cumsum(units.sizes[order]))
    return float(units.probability[order[good[-1]]]) if len(good) else None


def promises(
    draw, fit: int, count: int, alpha: float, delta: float, calibrations: int, seed: int, size: int, fitting=None
) -> dict:
    """`draw(rng, n)` -> units; n of the fitting part (drawn by `fitting`), of the part that chooses, of the population.

    A rate that is over alpha everywhere makes every promise a false one, whatever the drawn population shows.
    """
    population = Population(draw(np.random.default_rng((seed, 0)), size))
    oracle, found = population.oracle(alpha), {"held": 0, "coverage": 0.0, "nothing": 0, "plain": 0, "over_items": 0}
    for number in range(calibrations):
        rng = np.random.default_rng((seed, number + 1))
        fitted, units = (fitting or draw)(rng, fit), draw(rng, count)
        threshold, _ = choose(plan(fitted, units.count, alpha, delta), units)
        share, rate = population.of(threshold) if threshold is not None else (0.0, 0.0)
        found["held"] += threshold is None or (rate <= alpha and fitting is None)
        found["coverage"] += share
        found["nothing"] += threshold is None
        loosest = plain(units, alpha)
        found["plain"] += loosest is None or (population.of(loosest)[1] <= alpha and fitting is None)
        if units.groups is not None and (units.sizes == 1).all():  # as if no two lines were of one hand
            alone = [Units(u.probability, u.errors, u.sizes) for u in (fitted, units)]
            threshold, _ = choose(plan(alone[0], len(alone[1].errors), alpha, delta), alone[1])
            found["over_items"] += threshold is None or population.of(threshold)[1] <= alpha
    found = {name: value / calibrations for name, value in found.items()}
    oracle = 0.0 if fitting else oracle
    found |= {"oracle": oracle, "of_oracle": found["coverage"] / oracle if oracle else None}
    fixed = population.fixed(count, alpha, delta) if oracle and units.groups is None else 0.0
    return found | {"of_fixed": found["coverage"] / fixed if fixed else None}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrations", type=int, default=1000)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--population", type=int, default=POPULATION)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    tolerance = 1.645 * np.sqrt(args.delta * (1 - args.delta) / args.calibrations)
    least = 1 - args.delta - tolerance

    def wrong(rng, count):
        return lines(rng, count, "wrong")

    writers = args.population // 12
    cases = {
        "fields, 3 000, 2 %": (fields, 2000, 3000, 0.02, args.population),
        "fields, 10 000, 2 %": (fields, 2000, 10_000, 0.02, args.population),
        "fields, 3 000, 5 %": (fields, 2000, 3000, 0.05, args.population),
        "lines, CER 3 %, 100 writers": (lines, 100, 100, 0.03, writers),
        "lines, CER 3 %, 400 writers": (lines, 100, 400, 0.03, writers),
        "correlated, 10 %, 400 writers": (wrong, 100, 400, 0.1, writers),
        "misled, 3 000, 2 %": (
            lambda r, n: useless(r, n, 0.0201), 2000, 3000, 0.02, 1000, lambda r, n: useless(r, n, 0.002)
        ),
        "misled, CER 3 %, 400 writers": (
            lambda r, n: useless_lines(r, n, 0.0301), 100, 400, 0.03, 1000, lambda r, n: useless_lines(r, n, 0.003)
        ),
    }  # fmt: skip
    print(
        f"{args.calibrations} calibrations, delta {args.delta:g}: held is to be {least:.3f} at least (with tolerance)"
    )
    print(f"alpha 2 %, delta 5 %: {needed(0.02, 0.05)} accepted without an error at least\n")
    names = ("held", 7), ("plain rule", 12), ("coverage", 10), ("oracle", 8), ("of oracle", 11), ("of fixed", 10)
    print(" " * 32 + "".join(f"{name:>{wide}}" for name, wide in (*names, ("nothing", 9), ("items", 8))))
    figures: dict = {"calibrations": args.calibrations, "least": least, "promises": {}}
    for name, (draw, fit, count, alpha, size, *fitting) in cases.items():
        found = promises(draw, fit, count, alpha, args.delta, args.calibrations, args.seed, size, *fitting)
        figures["promises"][name] = found
        share, fixed = ("" if found[of] is None else f"{found[of]:.2f}" for of in ("of_oracle", "of_fixed"))
        over = f"{found['over_items']:.3f}" if name.startswith("correlated") else ""
        print(f"{name:32}{found['held']:7.3f}{found['plain']:12.3f}{found['coverage']:10.3f}{found['oracle']:8.3f}"
              f"{share:>11}{fixed:>10}{found['nothing']:9.3f}{over:>8}", flush=True)  # fmt: skip
    runs = max(args.calibrations // 2, 10)
    print(f"\nmonitor, {runs} runs of 100 batches, alpha 2 %: bet (false: 5 % at most), detector (200 batches apart)")
    figures["monitor"] = {}
    for times in (0.5, 1.0, 1.5, 2.0, 3.0):
        found = false_alarms([150] * 100, 0.02, 0.02 * times, runs, args.seed)
        figures["monitor"][str(times)] = found
        print(f"    rate {times:3.1f} times alpha{found['bet']:10.3f}{found['detector']:10.3f}", flush=True)
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
