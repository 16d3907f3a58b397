"""How often 95 % intervals of a character error rate cover the truth, lines of one writer being alike.

    python benchmarks/intervals.py [--evaluations 2000] [--clusters 10 20 39 200]

An evaluation: so many writers, each with a number of lines (geometric, 15 in the mean) and a rate (beta, 8.6 % in the
mean, most of them between 1 and 22 %), lines of 3 to 60 characters whose rates are spread around their writer's. The
truth is the ratio that infinitely many writers have. Beside ours: the percentile and BCa bootstrap
over writers, Student's t on the linearised rate, and the bootstrap over lines that is commonly reported. A table of the
shares that cover and the median widths in points, then one line of JSON.
"""

import argparse
import json
from statistics import NormalDist

import numpy as np

from htr.metrics.intervals import RESAMPLES, draws, ratio_interval, standard_error, student

ALPHA, BETA = 1.5, 16.0  # of the writers' rates
TRUTH = ALPHA / (ALPHA + BETA)
WITHIN = 8.0  # how alike the lines of a writer are
Z = NormalDist().inv_cdf(0.975)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=2000, help="of each size (default: %(default)s)")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 20, 39, 200], metavar="N")
    args = parser.parse_args()
    print(f"{'writers':>8s}" + "".join(f"{name:>20s}" for name in METHODS))
    figures: dict = {"evaluations": args.evaluations}
    for clusters in args.clusters:
        rng = np.random.default_rng(clusters)
        hits, widths = (np.zeros((args.evaluations, len(METHODS))) for _ in range(2))
        for number in range(args.evaluations):
            lines = simulate(rng, clusters)
            for column, method in enumerate(METHODS.values()):
                low, high = method(*lines, number)
                hits[number, column], widths[number, column] = low <= TRUTH <= high, high - low
        shares = hits.mean(0)
        cells = [
            f"{100 * share:5.1f} %, width {100 * w:4.1f}" for share, w in zip(shares, np.median(widths, 0), strict=True)
        ]
        print(f"{clusters:8d}" + "".join(f"{cell:>20s}" for cell in cells), flush=True)
        figures |= {f"{name}_{clusters}": round(share, 4) for name, share in zip(METHODS, shares, strict=True)}
    print(json.dumps(figures))
    return 0


def simulate(rng: np.random.Generator, writers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> edits, characters and writer of each line; at least one edit."""
    while True:
        writer = np.repeat(np.arange(writers), rng.geometric(1 / 15, writers))
        rate = np.maximum(rng.beta(ALPHA, BETA, writers), 1e-4)[writer]
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

if __name__ == "__main__":
    raise SystemExit(main())
