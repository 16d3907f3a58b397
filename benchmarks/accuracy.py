"""How well a reader reads lines that it was neither trained nor tuned on, and how fast on one core with one thread.

    python benchmarks/accuracy.py --handwriting FOLDER --work WORK [--reader htr/pretrained]
        [--where collection=copiste] [--split val] [--turns 3] [--core 0]

The rows of FOLDER/lines.csv without flags that `--where` chooses become a data set under --work, the others of the
split train a second one, of which the known words are. `python -m jobs evaluate` then reads the split greedily and
with beam search, `--turns` times each in turns, every one a process on one core with one thread; lines a second are
those of its timing.json, the fastest turn's (what else runs on the machine only ever takes), and the load at that
time is said. CER and WER do not depend on the turn. A table, then one line of JSON.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--handwriting", type=Path, required=True, help="a folder with lines.csv")
    add("--work", type=Path, required=True, help="data sets and evaluations are kept here")
    add("--reader", type=Path, default=CHECKOUT / "htr" / "pretrained", help="a folder with model/ and decoding/")
    add("--where", default="collection=copiste", metavar="COLUMN=VALUE", help="the rows that are read")
    add("--split", default="val")
    add("--turns", type=int, default=3)
    add("--core", type=int, default=min(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    read, others = data_sets(args)
    run = args.work / "run"
    shutil.rmtree(run, ignore_errors=True)
    for part in ("model", "decoding"):
        shutil.copytree(args.reader / part, run / part)
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    note = {"folder": str(read), "split": "train", "where": [], "mix": [f"{others}=1"], "text": None}
    (run / "config.json").write_text(
        json.dumps(note | {name: config[name] for name in ("model", "size", "alphabet")}), encoding="utf-8"
    )
    found, speeds, loads = {}, {"greedy": [], "beam": []}, []
    for turn in range(args.turns):
        for decode, before in speeds.items():
            name = f"{args.split}-{decode}-{turn}"
            jobs("evaluate", "--run", run, "--split", args.split, "--decode", decode, "--name", name)
            folder = run / "evaluation" / name
            found[decode] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            before.append(json.loads((folder / "timing.json").read_text(encoding="utf-8"))["lines_per_s"])
            loads.append(os.getloadavg()[0])
    report(args.split, found, speeds, loads)


def data_sets(args: argparse.Namespace) -> list[Path]:
    """What is read, and what else the reader knows the words of."""
    with open(args.handwriting / "lines.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["flags"]]
    column, _, value = args.where.partition("=")
    chosen = [row for row in rows if row[column] == value]
    others = [row for row in rows if row[column] != value and row["split"] == "train"]
    folders = []
    for name, some in (("read", chosen), ("others", others)):
        folders.append(args.work / name)
        if (folders[-1] / "index.parquet").exists():
            continue
        source = args.work / f"{name}-source"
        for row in some:
            (source / row["image"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(args.handwriting / row["image"], source / row["image"])
        with open(source / "lines.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(some)
        jobs("preprocess", source / "lines.csv", "--out", folders[-1], "--workers", 1)
    return folders


def jobs(*words: object) -> None:
    done = subprocess.run([sys.executable, "-m", "jobs", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m jobs {words[0]} failed:\n{done.stderr[-2000:]}")


def report(split: str, found: dict, speeds: dict[str, list[float]], loads: list[float]) -> None:
    result = {"lines": found["greedy"]["lines"], "load": round(max(loads), 1)}
    print(f"{'decoding':10s} {'CER % (95 %, by group)':26s} {'WER %':>6s} {'unseen misread %':>17s} {'lines/s':>8s}")
    for decode, metrics in found.items():
        cer, wer, bounds = metrics["cer"], metrics["wer"], metrics["interval"]["cer"]
        unseen, speed = (metrics["unseen"] or {}).get("rate"), max(speeds[decode])
        shown = f"{100 * cer:.2f}" + (f" ({100 * bounds[0]:.2f} to {100 * bounds[1]:.2f})" if bounds else "")
        missed = "-" if unseen is None else f"{100 * unseen:.1f}"
        print(f"{decode:10s} {shown:26s} {100 * wer:6.1f} {missed:>17s} {speed:8.1f}")
        name = f"{split}_{decode}"
        result |= {name: round(cer, 5), f"{name}_interval": bounds, f"{name}_wer": round(wer, 5)}
        result |= {f"{name}_unseen_misread": unseen, f"lines_per_s_{decode}": round(speed, 1)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
