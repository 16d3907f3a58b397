"""How far the readings of real lines can be trusted: evaluations of one reader, cross-fitted over writers.

    for split in dev val; do for decode in greedy beam; do
        python -m jobs evaluate DATASET --run RUN --split $split --decode $decode --name $split-$decode; done; done
    python benchmarks/reliability.py RUN/evaluation/dev-beam RUN/evaluation/val-beam \
        --other RUN/evaluation/dev-greedy,RUN/evaluation/val-greedy --drift RUN/evaluation/others

Every probability is said by scores that were fitted on other writers, ten folds over the writers of all evaluations.
`--other`: readings of the same lines by another reader or decoding (of an encoder shared or not), whose agreement
becomes a signal. Printed: what each signal is worth alone and beside the CTC likelihood of the text (area: the mean
over the coverage of the CER of what is accepted); ECE of words and lines before and after; the coverage that can be
promised when the first evaluation plans and the last one chooses, or that none can; whether `--drift` evaluations, and
random halves of the writers, are told from these.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from rapidfuzz.distance import Levenshtein

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from htr.reliability.calibration import cross_fitted
from htr.reliability.covariate_shift import covariate_shift_test
from htr.reliability.diagrams import figures, resamples
from htr.reliability.risk_control import PER_CLUSTER, PER_LINE, Units, choose, coverage, numbered, plan
from htr.reliability.units import CHARACTER, fit_scores, line_signals, probabilities, word_signals
from jobs.evaluation.results import Evaluation

FOLDS = 10
PROMISES = {"cer": (0.01, 0.02, 0.03, 0.04, 0.05), "wrong line": (0.1, 0.2, 0.3, 0.4), "wrong word": (0.02, 0.05, 0.1)}


class Lines:
    """The lines of all evaluations together, and what other readers say of them."""

    def __init__(self, evaluations: list[Evaluation], others: list[list[Evaluation]]):
        self.table = pa.concat_tables([e.table for e in evaluations], promote_options="default")
        self.writers = np.concatenate([e.groups("writer") for e in evaluations])
        self.part = np.repeat(np.arange(len(evaluations)), [len(e.table) for e in evaluations])
        self.right, self.edits, self.characters = (
            self.table[name].to_numpy().astype(float) for name in ("exact", "edits", "characters")
        )
        self.words = self.table["word_right"].to_pylist()
        keys, texts = self.table["key"].to_pylist(), self.table["hypothesis"].to_pylist()
        for number, parts in enumerate(others):
            read = {}
            for part in parts:
                read |= dict(zip(part.table["key"].to_pylist(), part.table["hypothesis"].to_pylist(), strict=True))
            missing = sum(key not in read for key in keys)
            if missing:
                raise ValueError(f"--other {parts[0].folder}: {missing} of {len(keys)} lines were not read there")
            agreed = [Levenshtein.normalized_similarity(text, read[key]) for key, text in zip(keys, texts, strict=True)]
            self.table = self.table.append_column(f"signal_other_{number + 1}", pa.array(agreed))
        self.signals = line_signals(self.table)

    @property
    def share(self) -> np.ndarray:
        return 1 - np.minimum(self.edits, self.characters) / np.maximum(self.characters, 1)

    def fitted(self, names: list[str], unit: str = CHARACTER) -> np.ndarray:
        """(N,) what scores of these signals, fitted on other writers, say."""
        signals = {name: self.signals[name] for name in names}
        target, weights = (self.share, np.maximum(self.characters, 1)) if unit == CHARACTER else (self.right, None)
        return cross_fitted(unit, signals, target, self.writers, weights, folds=FOLDS)


def curve_area(score: np.ndarray, lines: Lines, group: np.ndarray, draws: np.ndarray) -> tuple[list[float], np.ndarray]:
    """-> CER of the surest tenth and half, the area; and the area of each resample of the writers."""
    order = np.argsort(-score, kind="stable")
    edits, characters, weights = lines.edits[order], lines.characters[order], draws[:, group[order]]
    rates = np.cumsum(weights * edits, axis=1) / np.maximum(np.cumsum(weights * characters, axis=1), 1)
    rate = np.cumsum(edits) / np.maximum(np.cumsum(characters), 1)
    at = [float(rate[max(round(share * len(rate)) - 1, 0)]) for share in (0.1, 0.5)]
    return [*at, float(rate.mean())], (rates * weights).sum(axis=1) / weights.sum(axis=1)


def worth(lines: Lines) -> dict:
    """What each signal is worth alone, and what it adds to the likelihood; the differences with 95 % over writers."""
    group, draws = resamples(lines.writers)
    every = sorted(lines.signals)
    scores = {"confidence, as it is": lines.table["confidence"].to_numpy()}
    scores |= {name: lines.signals[name] for name in every}
    scores |= {f"likelihood + {name}": lines.fitted(["likelihood", name]) for name in every if name != "likelihood"}
    scores["all"] = lines.fitted(every)
    scores["an oracle"] = -lines.edits / np.maximum(lines.characters, 1)
    _, base = curve_area(scores["likelihood"], lines, group, draws)
    _, mean = curve_area(scores["frames"], lines, group, draws)
    found = {}
    print(
        f"{'CER of the accepted':34}{'at 10 %':>9}{'at 50 %':>9}{'area':>8}{'less than likelihood':>26}"
        f"{'than frames':>22}"
    )
    for name, score in scores.items():
        (tenth, half, area), resampled = curve_area(score, lines, group, draws)
        gains = [np.quantile(other - resampled, (0.025, 0.975)).tolist() for other in (base, mean)]
        found[name] = {
            "cer_at_10": tenth,
            "cer_at_50": half,
            "area": area,
            "less": gains[0],
            "less_than_frames": gains[1],
        }
        shown = [f"{100 * low:+.2f} to {100 * high:+.2f}" for low, high in gains]
        print(
            f"{name:34}{100 * tenth:8.2f}%{100 * half:8.2f}%{100 * area:7.2f}%{shown[0]:>26}{shown[1]:>22}", flush=True
        )
    return found


def calibration(lines: Lines) -> dict:
    """ECE before and after, of words and of lines."""
    signals, rows = word_signals(lines.table)
    words = np.array([float(one) for of_line in lines.words for one in of_line])
    after = cross_fitted("word", signals, words, lines.writers[rows], folds=FOLDS)
    whole = lines.fitted(sorted(lines.signals), "line")
    cases = {
        "words, confidence": (signals["confidence"], words, lines.writers[rows]),
        "words, calibrated": (after, words, lines.writers[rows]),
        "lines, frames": (lines.signals["frames"], lines.right, lines.writers),
        "lines, confidence": (lines.table["confidence"].to_numpy(), lines.right, lines.writers),
        "lines, calibrated": (whole, lines.right, lines.writers),
    }
    found = {}
    print(
        f"\n{'':20}{'items':>7}{'right':>8}{'ECE':>8}{'ideal':>8}{'debiased':>26}{'Brier':>8}{'log loss':>10}"
        f"{'AURC':>8}"
    )
    for name, (p, right, groups) in cases.items():
        about = figures(p, right, groups)
        ece = about["ece"]
        found[name] = {"items": len(right), "right": float(right.mean()), "ece": ece}
        found[name] |= {metric: about[metric] for metric in ("brier", "log_loss", "aurc")}
        shown = f"{100 * ece['debiased']:.2f} ({100 * ece['low']:.2f} to {100 * ece['high']:.2f}) %"
        print(f"{name:20}{len(right):7}{100 * right.mean():7.1f}%{100 * ece['value']:7.2f}%{100 * ece['ideal']:7.2f}%"
              f"{shown:>26}{about['brier']['value']:8.4f}{about['log_loss']['value']:10.4f}"
              f"{about['aurc']['value']:8.4f}")  # fmt: skip
    return found


def limits(kind: str, by: str, count: int, writers: np.ndarray) -> tuple:
    """The clusters of units, how many of them one counts as at most, and how much a unit: see risk_control.Units."""
    if by != "writer" and kind != "cer":
        return (None,)
    most, size = PER_CLUSTER["writer" if by == "writer" else "unit"], float(PER_LINE if kind == "cer" else 1)
    return (writers if by == "writer" else np.arange(count)), most, size


def promised(lines: Lines, delta: float) -> dict:
    """The first part fits and plans, the last one chooses: coverage and rate of what can be promised."""
    first, last = lines.part == 0, lines.part == lines.part.max()
    tables = [lines.table.filter(pa.array(mask)) for mask in (first, last)]
    words = [[w for w, keep in zip(lines.words, mask, strict=True) if keep] for mask in (first, last)]
    columns = [column[first] for column in (lines.right, lines.edits, lines.characters)]
    scores, held_out = fit_scores(tables[0], *columns, lines.writers[first], words[0])
    found: dict = {}
    hands = [len(set(lines.writers[mask])) for mask in (first, last)]
    print(f"\npromised with {100 * (1 - delta):g} %: fitted and planned on {first.sum()} lines of {hands[0]} writers, "
          f"chosen on {last.sum()} of {hands[1]}")  # fmt: skip
    for kind, alphas in PROMISES.items():
        unit = {"cer": CHARACTER, "wrong line": "line", "wrong word": "word"}[kind]
        units = []
        for i, mask in enumerate((first, last)):
            p = held_out[unit] if i == 0 else probabilities(scores, tables[1], unit)
            if kind == "cer":
                errors, sizes, owners = lines.edits[mask], lines.characters[mask], lines.writers[mask]
            elif kind == "wrong line":
                errors, owners = 1 - lines.right[mask], lines.writers[mask]
                sizes = np.ones(len(errors))
            else:
                errors = 1 - np.array([float(one) for of_line in words[i] for one in of_line])
                owners, sizes = lines.writers[mask][word_signals(tables[i])[1]], np.ones(len(errors))
            units.append((p, errors, sizes, numbered(owners)))
        for by in ("writer", "line, as if alone"):
            for alpha in alphas:
                fitted, chosen = (Units(p, e, s, *limits(kind, by, len(p), g)) for p, e, s, g in units)
                threshold, steps = choose(plan(fitted, chosen.count, alpha, delta), chosen)
                share, end = coverage(chosen, threshold), steps[-1]
                found[f"{kind}, {alpha:g}, by {by}"] = share if threshold is not None else None
                shown = f"{100 * share:5.1f} % accepted" if threshold is not None else "nothing"
                seen = (
                    f"{100 * end.errors / max(end.total, 1):.2f} % of {end.total:g} in the last tested, p {end.p:.2g}"
                )
                print(f"    {kind:11} at most {100 * alpha:4.1f} %, by {by:18} {shown:18} ({seen})")
    return found


def drifts(lines: Lines, evaluations: list[Evaluation], runs: int) -> dict:
    """Random halves of the writers (false alarms), then each evaluation that is said to be otherwise."""
    names, group = np.unique(lines.writers, return_inverse=True)
    warned = 0
    for seed in range(runs):
        second = (np.random.default_rng(seed).permutation(len(names)) < len(names) // 2)[group]
        sides = [({n: c[m] for n, c in lines.signals.items()}, group[m]) for m in (~second, second)]
        warned += covariate_shift_test(*sides[0], *sides[1], permutations=199, seed=seed).warns
    found: dict = {"halves": warned / runs}
    print(f"\ndrift: warns of {warned} of {runs} random halves of these {len(names)} writers (5 % expected)")
    for evaluation in evaluations:
        known = {n: c for n, c in lines.signals.items() if not n.startswith("other")}
        about = covariate_shift_test(known, lines.writers, line_signals(evaluation.table), evaluation.groups("writer"))
        found[evaluation.name] = about.p
        moved = ", ".join(f"{name} {about.shifts[name]:+.1f}" for name, p in about.signals.items() if p <= 0.05)
        print(f"    {evaluation.name}: p {about.p:.3f}, {about.groups[1]} writers{': ' + moved if moved else ''}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", type=Path, nargs="+", help="of one reader, with no writer in common")
    parser.add_argument(
        "--other", action="append", default=[], metavar="EVALUATION[,EVALUATION]", help="of these lines"
    )
    parser.add_argument("--drift", type=Path, action="append", default=[], metavar="EVALUATION")
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=100, help="random halves for the drift check")
    args = parser.parse_args()
    others = [[Evaluation.read(Path(name)) for name in group.split(",")] for group in args.other]
    lines = Lines([Evaluation.read(path) for path in args.evaluations], others)
    for number, group in enumerate(args.other):
        print(f"other_{number + 1}: {group}")
    cer = lines.edits.sum() / lines.characters.sum()
    print(f"{len(lines.table)} lines of {len(set(lines.writers))} writers, CER {100 * cer:.2f} %, "
          f"{100 * lines.right.mean():.1f} % of lines without an error\n")  # fmt: skip
    found = {"lines": len(lines.table), "writers": len(set(lines.writers)), "cer": cer, "signals": worth(lines)}
    found |= {"calibration": calibration(lines), "promised": promised(lines, args.delta)}
    found["drift"] = drifts(lines, [Evaluation.read(path) for path in args.drift], args.runs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
