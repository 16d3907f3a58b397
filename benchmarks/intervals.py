"""How often 95 % intervals of a character error rate cover the truth, lines of one writer being alike.

    python benchmarks/intervals.py [--evaluations 2000] [--clusters 10 20 39 200 1000] [--tails 0 0.01 0.03]

An evaluation: so many writers, each with a number of lines (geometric, 15 in the mean) and a rate (beta, 8.6 % in the
mean, most of them between 1 and 22 %), lines of 3 to 60 characters whose rates are spread around their writer's. With a
heavy tail the mean of the rates is 1.7 %, and a share of the writers can't be read at all. The truth is the ratio that
infinitely many writers have. Beside ours: the percentile and BCa bootstrap over writers, Student's t on the linearised
rate, and the bootstrap over lines that is commonly reported. By `difference_interval`, `alike`: of two readers that are
as good, one of which errs in a tenth of the lines where the other doesn't; `better`: of one that errs in a tenth of the
lines not at all, and in the others as the other does. `warned`, `of alike`, `of better`: the share of
evaluations of which the report says that the interval may cover too seldom (htr.metrics.intervals.doubts). Tables of
the shares that cover and the median widths in points, then one line of JSON: `least_unwarned`, the least coverage of
ours, of rates and of differences, in a cell that is warned of in less than 95 % of the evaluations.
"""

import argparse
import json
from statistics import NormalDist

import numpy as np

from htr.metrics.intervals import RESAMPLES, difference_interval, doubts, draws, ratio_interval, standard_error, student

ALPHA, BETA = 1.5, 16.0  # of the writers' rates
TAILED = 16.0 * 5.5  # the second parameter where some can't be read: a mean of 1.7 %
UNREADABLE = 0.98
WITHIN = 8.0  # how alike the lines of a writer are
DIFFERENCES, CHANGED = ("alike", "better"), 0.1  # of two readers, and the share of lines that one reads otherwise
Z = NormalDist().inv_cdf(0.975)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=2000, help="of each size (default: %(default)s)")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 20, 39, 200, 1000], metavar="N")
    parser.add_argument(
        "--tails", type=float, nargs="+", default=[0.0, 0.01, 0.03], help="shares of unreadable writers"
    )
    args = parser.parse_args()
    figures: dict = {"evaluations": args.evaluations}
    unwarned = [1.0]
    for tail in args.tails:
        print(f"\n{100 * tail:g} % of the writers can't be read")
        print(f"{'writers':>8s}" + "".join(f"{name:>20s}" for name in NAMES)
              + "".join(f"{name:>11s}" for name in ("warned", "of alike", "of better")))  # fmt: skip
        for clusters in args.clusters:
            hits, widths, warned = evaluations(args.evaluations, clusters, tail)
            shares = dict(zip(NAMES, hits.mean(0).tolist(), strict=True))
            shown = [
                f"{100 * share:5.1f} %, width {100 * w:4.1f}"
                for share, w in zip(shares.values(), np.median(widths, 0), strict=True)
            ]
            warnings = dict(zip(("ours", *DIFFERENCES), warned.mean(0).tolist(), strict=True))
            print(f"{clusters:8d}" + "".join(f"{cell:>20s}" for cell in shown)
                  + "".join(f"{share:11.2f}" for share in warnings.values()), flush=True)  # fmt: skip
            name = f"{clusters}" + (f"_tail_{tail:g}" if tail else "")
            figures |= {f"{method}_{name}": round(share, 4) for method, share in shares.items()}
            figures |= {f"warned_{method}_{name}": round(share, 4) for method, share in warnings.items()}
            unwarned += [shares[method] for method, share in warnings.items() if share < 0.95]
    print(json.dumps(figures | {"least_unwarned": round(min(unwarned), 4)}))
    return 0


def evaluations(number: int, clusters: int, tail: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (evaluations, NAMES) whether each covers and how wide it is; (evaluations, 3) which of the rate and of the
    differences is warned of.
    """
    rng = np.random.default_rng((clusters, round(1000 * tail)))
    hits, widths = (np.zeros((number, len(NAMES))) for _ in range(2))
    truth, warned = truth_of(tail), np.zeros((number, 3))
    for i in range(number):
        lines = simulate(rng, clusters, tail)
        for column, method in enumerate(METHODS.values()):
            low, high = method(*lines, i)
            hits[i, column], widths[i, column] = low <= truth <= high, high - low
        e, t = by_writer(*lines)
        warned[i, 0] = bool(doubts(e, t))
        changed = np.where(rng.random(len(lines[0])) < CHANGED, lines[0], 0)
        gained = np.bincount(lines[2], changed, len(t))
        # of a reader that is as good each of its writers may have gained or lost, where it errs otherwise
        for column, (d, mean) in enumerate(((gained * rng.choice([-1, 1], len(t)), 0), (-gained, -CHANGED * truth)), 1):
            low, high = difference_interval(d, t).pair
            place = len(METHODS) + column - 1
            hits[i, place], widths[i, place] = low <= mean <= high, high - low
            warned[i, column] = bool(doubts(d, t, difference=True))
    return hits, widths, warned


def truth_of(tail: float) -> float:
    return tail * UNREADABLE + (1 - tail) * ALPHA / (ALPHA + (TAILED if tail else BETA))


def simulate(rng: np.random.Generator, writers: int, tail: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> edits, characters and writer of each line; at least one edit."""
    while True:
        writer = np.repeat(np.arange(writers), rng.geometric(1 / 15, writers))
        rates = np.maximum(rng.beta(ALPHA, TAILED if tail else BETA, writers), 1e-4)
        rate = np.where(rng.random(writers) < tail, UNREADABLE, rates)[writer]
        characters = rng.integers(3, 61, len(writer))
        edits = rng.binomial(characters, rng.beta(WITHIN * rate, WITHIN * (1 - rate)))
        if edits.any():
            return edits, characters, writer


def by_writer(edits: np.ndarray, characters: np.ndarray, writer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(writer, edits), np.bincount(writer, characters)


# ---------------------------------------------------------------------------------------------------- intervals


def ours(edits, characters, writer, seed):
    return ratio_interval(*by_writer(edits, characters, writer), seed=seed).pair


def percentile(edits, characters, writer, seed):
    return tuple(np.quantile(resampled(*by_writer(edits, characters, writer), seed), [0.025, 0.975]))


def accelerated(edits, characters, writer, seed):
    """BCa: Efron & Tibshirani 1993, 14.3."""
    e, t = by_writer(edits, characters, writer)
    rates, rate = resampled(e, t, seed), e.sum() / t.sum()
    left = (e.sum() - e) / (t.sum() - t)
    off = left.mean() - left
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max((rates < rate).mean(), 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    ends = [normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z))) for z in (-Z, Z)]
    return tuple(np.quantile(rates, ends))


def students(edits, characters, writer, seed):
    e, t = by_writer(edits, characters, writer)
    half = student(len(e) - 1) * standard_error(e, t)
    return e.sum() / t.sum() - half, e.sum() / t.sum() + half


def over_lines(edits, characters, writer, seed):
    drawn = np.random.default_rng(seed).integers(0, len(edits), (RESAMPLES, len(edits)), dtype=np.int32)
    return tuple(np.quantile(edits[drawn].sum(1) / characters[drawn].sum(1), [0.025, 0.975]))


def resampled(e: np.ndarray, t: np.ndarray, seed: int) -> np.ndarray:
    times = draws(len(e), seed)
    return (times @ e) / (times @ t)


METHODS = {"ours": ours, "percentile": percentile, "bca": accelerated, "t": students, "lines": over_lines}
NAMES = (*METHODS, *DIFFERENCES)

if __name__ == "__main__":
    raise SystemExit(main())
