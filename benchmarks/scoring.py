"""Scoring millions of line pairs: parts that hold references and hypotheses alone, to the metrics.json of all of them.

    python benchmarks/scoring.py --pairs 5000000 [--parts 500] [--processes 2]

The pairs are simulated: French medical words, durations and dates, in lines of 1 to 8 words, six in ten with edits,
every 20th line blank; seven lines a certificate, certificates of 100 003 writers, ten years, two forms, a metadata
column of 40 values. Timed are `score` (in so many processes: read a part, count under all normalisations, write it) and
`merge` (one process: the sums, slices, intervals, drift). Making the pairs is not. Memory is the peak of a step's
processes together, each one's largest. Beside them, in the same run, the bare limit: the two calls a line of rapidfuzz
that CER and WER of one normalisation need, in one process, for the pairs of ten parts. The last line is JSON.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

WORDS = """choc septique insuffisance rénale chronique AVC ischémique décès œdème aigu du poumon IDM arrêt respiratoire
    démence Alzheimer métastases hépatiques K sein cancer colon pneumopathie inhalation HTA diabète cirrhose fracture
    col chute embolie pulmonaire hémorragie digestive cachexie état grabataire sepsis ACFA syndrome polyalgique"""
WRITERS, FIELDS = 100_003, ("Ia", "Ib", "Ic", "Id", "II", "duree", "lieu")
COMPARED = 10  # parts that the bare limit is measured on


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000_000, help="(default: %(default)s)")
    parser.add_argument("--parts", type=int, default=500, help="(default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="an empty scratch folder (default: a temporary one)")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        STEPS[args.step](args)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        args.out = args.out or Path(scratch)
        (args.out / "parts").mkdir(parents=True)
        return measure(args)


def measure(args: argparse.Namespace) -> int:
    print(f"{'step':58s} {'s':>8s} {'GiB':>8s}")
    taken = {name: run(args, name) for name in STEPS}
    seconds, gib = taken["score"][0] + taken["merge"][0], max(taken["score"][1], taken["merge"][1])
    metrics = json.loads((args.out / "metrics.json").read_text(encoding="utf-8"))
    if metrics["lines"] != args.pairs:
        raise SystemExit(f"{metrics['lines']} lines were counted of {args.pairs}")
    limit = taken["bare"][0] * args.parts / min(COMPARED, args.parts) / args.processes
    print(f"{args.pairs} pairs, {metrics['interval']['groups']} {metrics['interval']['unit']}s: {seconds:.0f} s, "
          f"{seconds / limit:.1f} times the bare distances")  # fmt: skip
    figures = {"pairs": args.pairs, "seconds": seconds, "gib": gib, "score_s": taken["score"][0]}
    figures |= {"merge_s": taken["merge"][0], "ratio_to_bare": seconds / limit, "cer": metrics["cer"]}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0


def run(args: argparse.Namespace, name: str) -> tuple[float, float]:
    """A step in processes of its own. -> its seconds as it says them, and their peak in GiB."""
    command = [sys.executable, __file__, *sys.argv[1:], "--out", str(args.out), "--step", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed")
    said = json.loads(done.stdout.splitlines()[-1])
    print(f"{STEPS[name].__doc__:58s} {said['seconds']:8.1f} {said['gib']:8.2f}", flush=True)
    return said["seconds"], said["gib"]


def tell(began: float, others: list[int] | None = None) -> None:
    """`others`: the peak memory of the step's other processes, KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + sum(others or [])
    print(json.dumps({"seconds": time.monotonic() - began, "gib": peak / 2**20}))


def in_processes(args: argparse.Namespace, work) -> None:
    """work(number, path, first pair, pairs) of every part -> told."""
    began, peaks = time.monotonic(), {}
    edges = [args.pairs * number // args.parts for number in range(args.parts + 1)]
    jobs = [
        (n, args.out / "parts" / f"{name_of(n)}.parquet", edges[n], edges[n + 1] - edges[n]) for n in range(args.parts)
    ]
    with ProcessPoolExecutor(args.processes) as pool:
        for process, peak in pool.map(work, *zip(*jobs, strict=True), chunksize=4):
            peaks[process] = peak
    tell(began, list(peaks.values()))


def name_of(number: int) -> str:
    return f"val-{number:05d}"


def peak() -> tuple[int, int]:
    return os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# ---------------------------------------------------------------------------------------------------- steps


def make(args: argparse.Namespace) -> None:
    """the pairs are made (not counted)"""
    in_processes(args, make_part)


def make_part(number: int, path: Path, first: int, pairs: int) -> tuple[int, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, words = random.Random(number), WORDS.split()
    references, hypotheses = [], []
    for row in range(first, first + pairs):
        reference = line(rng, words, FIELDS[row % 7])
        references.append(reference)
        hypotheses.append(misread(rng, reference) if rng.random() < 0.6 else reference)
    rows = range(first, first + pairs)
    columns = {
        "key": [f"{row // 7:07d}_{FIELDS[row % 7]}_0" for row in rows],
        "certificate": [f"{row // 7:07d}" for row in rows],
        "writer": [f"w{row // 7 * 7919 % WRITERS}" for row in rows],
        "year": [str(2010 + row // 7 % 10) for row in rows],
        "form": ["adulte-2018" if row // 7 % 10 > 7 else "adulte-1997" for row in rows],
        "field": [FIELDS[row % 7] for row in rows],
        "region": [f"r{row // 7 % 40}" for row in rows],
        "shard": [name_of(number)] * pairs,
        "width": [20 * len(reference) + 30 for reference in references],
        "height": [64] * pairs,
        "reference": references,
        "hypothesis": hypotheses,
        "confidence": [rng.random() for _ in rows],
    }
    pq.write_table(pa.table(columns), path, compression="zstd")
    return peak()


def line(rng: random.Random, words: list[str], field: str) -> str:
    if rng.random() < 0.05:
        return ""
    if field == "duree":
        return rng.choice(
            (f"{rng.randint(1, 30)} j", f"depuis {rng.randint(2, 9)} ans", f"{rng.randint(1, 28)}/03/2019")
        )
    return " ".join(rng.choices(words, k=rng.randint(1, 8)))


def misread(rng: random.Random, text: str) -> str:
    """With one edit or more, as a reader has them: 7 % of the characters in the mean."""
    read = list(text)
    for _ in range(max(round(rng.expovariate(1 / (0.1 * len(text) + 0.2))), 1)):
        at, letter = rng.randrange(len(read) + 1), rng.choice("aeiourstnléè' ")
        read[at : at + rng.randint(0, 1)] = [letter] if rng.random() < 0.8 else []
    return "".join(read)


def score(args: argparse.Namespace) -> None:
    """score: read, counted under all normalisations, written"""
    in_processes(args, score_part)


def score_part(number: int, path: Path, first: int, pairs: int) -> tuple[int, int]:
    import pyarrow.parquet as pq

    from jobs.evaluation.result_files import counted, write_part

    table = pq.read_table(path)
    path.unlink()
    write_part(counted(table), path)
    return peak()


def merge_parts(args: argparse.Namespace) -> None:
    """merge: sums, slices, intervals, drift"""
    from jobs.evaluation.result_files import merge

    began = time.monotonic()
    merge(args.out, [name_of(number) for number in range(args.parts)], {"split": "val"}, None)
    tell(began)


def bare(args: argparse.Namespace) -> None:
    """bare: two distances a pair of ten parts, one process"""
    import pyarrow.parquet as pq
    from rapidfuzz.distance import Levenshtein

    tables = [
        pq.read_table(args.out / "parts" / f"{name_of(number)}.parquet", columns=["reference", "hypothesis"])
        for number in range(min(COMPARED, args.parts))
    ]
    pairs = [pair for table in tables for pair in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    began = time.monotonic()
    for reference, hypothesis in pairs:
        Levenshtein.distance(reference, hypothesis)
        Levenshtein.distance(reference.split(), hypothesis.split())
    tell(began)


STEPS = {"make": make, "score": score, "merge": merge_parts, "bare": bare}

if __name__ == "__main__":
    raise SystemExit(main())
