"""The CTC reader beside kraken's default network, on the same real lines and the same cores.

    python benchmarks/readers.py --handwriting FOLDER --kraken VENV --work FOLDER [--minutes 60] [--cores 2]
        [--only infer|train|ours]

What is measured, each as processes of their own that hold the first `--cores` CPUs:
train   `ketos train` with its defaults (network, AdamW 1e-3, fp32, no augmentation; batch 16) for `--minutes` from its
        start, then stopped by a SIGINT, upon which it writes its weights; its CER on dev and on copiste's val lines.
ours    `python -m jobs preprocess` and `train` on the same lines, their schedule laid out for a fifth of the minutes by
        the speed of a short run before; when its dev CER, of the lines kraken is read on too, was first at most
        kraken's, counted from the start of preprocess; the CER on the same val lines.
infer   `ketos test` of two lists, the difference of lines by that of times, and the same of our Reader.

Lines are those of FOLDER/lines.csv with empty flags: train, dev, and val of copiste. Pieces that are done are kept
in --work and not repeated; other options want another folder. Interrupted pieces begin anew.

kraken wants an environment of its own:

    python3.11 -m venv VENV && VENV/bin/pip install torch==2.13.0 torchvision==0.28.0 kraken==7.1.1

That is some gigabytes of CUDA where pip finds torch's default build. With a CPU build of torch, have the CPU build of
torchvision too (its index is https://download.pytorch.org/whl/cpu); torchvision's default build can't be imported
beside it until its own operators, which kraken's recognition does not use, are left out:

    sed -i '/^    _meta_registrations,$/d' VENV/lib/python3.11/site-packages/torchvision/__init__.py

A table, then one line of JSON; null is what was not measured, or not reached.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ketos import output, test_kraken, train_kraken

CHECKOUT = Path(__file__).parent.parent
PIECES = ("train", "ours", "infer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--handwriting", type=Path, required=True, help="a folder with lines.csv")
    add("--kraken", type=Path, help="the environment that kraken is installed in; without, ours alone is measured")
    add("--work", type=Path, required=True, help="what is done is kept here")
    add("--only", choices=PIECES, action="append", help="these pieces; repeatable (default: all)")
    add("--minutes", type=float, default=60, help="of kraken's training; ours has a fifth (default: %(default)s)")
    add("--cores", type=int, default=len(os.sched_getaffinity(0)))
    add("--size", default="small", help="of our reader (default: %(default)s)")
    add("--steps", type=int, help="of our training (default: what a fifth of the minutes has room for)")
    add("--lines", type=int, help="train on so many lines, for a try")
    add("--evaluated", type=int, help="dev and val lines that are read, for a try")
    add("--lists", type=int, nargs=2, default=(100, 400), metavar="N", help="lines of both lists of infer")
    args = parser.parse_args()
    pieces = args.only or PIECES
    if not args.kraken and set(pieces) - {"ours"}:
        parser.error("--kraken VENV is needed, or --only ours")
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    os.environ |= {"OMP_NUM_THREADS": str(args.cores), "MKL_NUM_THREADS": str(args.cores)}
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    same_options(args)
    lists = write_lists(args)
    done = {}
    if "train" in pieces:
        done |= piece(args, "train", lambda: train_kraken(args, lists))
    if "ours" in pieces:
        done |= piece(args, "ours", lambda: train_ours(args))
    if "infer" in pieces:
        done |= piece(args, "infer", lambda: read_both(args, lists))
    report(args, done)


def same_options(args: argparse.Namespace) -> None:
    """Pieces of one folder are of one benchmark."""
    names = ("handwriting", "minutes", "cores", "size", "steps", "lines", "evaluated", "lists")
    asked = {name: str(getattr(args, name)) for name in names}
    path = args.work / "options.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else asked
    differ = [name for name in names if before[name] != asked[name]]
    if differ:
        raise SystemExit(f"{args.work} was begun with another --{', --'.join(differ)}: give another --work")
    write(path, asked)


def piece(args: argparse.Namespace, name: str, measure) -> dict:
    """What this piece measured, now or before."""
    path = args.work / f"{name}.json"
    if not path.exists():
        write(path, measure())
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, content: dict) -> None:
    from shards import files

    files.replace(path, files.to_json(content))


# ---------------------------------------------------------------------------- the same lines for both


def write_lists(args: argparse.Namespace) -> dict[str, list[Path]]:
    """lines.csv of what is used, and for kraken a list of images a split, each with its text beside it."""
    with open(args.handwriting / "lines.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["flags"]]
    rows = [row for row in rows if row["split"] != "val" or row["collection"] == "copiste"]
    most = {"train": args.lines, "dev": args.evaluated, "val": args.evaluated}
    used, lists = [], {}
    for split, count in most.items():
        of_split = [row for row in rows if row["split"] == split]
        of_split = of_split[:: max(len(of_split) // count, 1)][:count] if count else of_split
        folder = args.work / "kraken" / split
        folder.mkdir(parents=True, exist_ok=True)
        lists[split] = []
        for number, row in enumerate(of_split):
            image = folder / f"{number:05d}{Path(row['image']).suffix}"
            shutil.copyfile(args.handwriting / row["image"], image)
            (folder / f"{number:05d}.gt.txt").write_text(row["text"], encoding="utf-8")
            lists[split].append(image)
            used.append(row | {"image": str(image.relative_to(args.work))})
        write_list(folder / "list.txt", lists[split])
    with open(args.work / "lines.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(used[0]))
        table.writeheader()
        table.writerows(used)
    return lists


def write_list(path: Path, images: list[Path]) -> Path:
    path.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return path


# ---------------------------------------------------------------------------- ours


def jobs(*words: object) -> None:
    command = [sys.executable, "-m", "jobs", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"python -m jobs {words[0]} failed:\n{done.stderr[-2000:]}")


def train_ours(args: argparse.Namespace) -> dict:
    """A short run for the speed, then the whole way from the table to a trained reader."""
    folder = args.work / "ours"
    shutil.rmtree(folder, ignore_errors=True)
    dataset, budget = folder / "dataset", 60 * args.minutes / 5
    began = time.time()
    jobs("preprocess", args.work / "lines.csv", "--out", dataset, "--workers", args.cores)
    prepared = time.time() - began
    steps = args.steps or steps_within(args, dataset, budget - prepared)
    began = time.time()
    metrics = training(args, dataset, folder / "run", steps, every=max(steps // 10, 1))
    dev = [(line["time"] - began + prepared, line["dev_cer"]) for line in metrics if "dev_cer" in line]
    logged = [line for line in metrics if "loss" in line]
    # the first lines of the log hold what is done once: kernels are chosen, memory is asked for
    steady = logged[len(logged) // 5 :]
    jobs("evaluate", dataset, "--run", folder / "run", "--split", "val", "--name", "val")
    val = json.loads((folder / "run" / "evaluation" / "val" / "metrics.json").read_text(encoding="utf-8"))
    return {
        "ours_prepare_s": prepared,
        "ours_s": dev[-1][0],
        "ours_steps": steps,
        "ours_dev": dev,
        "ours_val": val["cer"],
        "ours_val_lines": val["lines"],
        "ours_lines_per_s": mean(steady, "lines_per_s"),
        "padding": mean(logged, "padding"),
        "overhead": overhead(steady),
    }


def training(args: argparse.Namespace, dataset: Path, run: Path, steps: int, every: int) -> list[dict]:
    """-> the lines of its metrics.jsonl."""
    warmup, log = min(300, max(steps // 10, 1)), max(min(50, steps // 5), 1)
    jobs("train", dataset, "--run", run, "--model", "ctc", "--size", args.size, "--device", "cpu", "--steps", steps,
         "--warmup", warmup, "--evaluate-every", every, "--checkpoint-every", every, "--log-every", log)  # fmt: skip
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def steps_within(args: argparse.Namespace, dataset: Path, seconds: float) -> int:
    """Steps of a training that ends within so many seconds, eleven evaluations and its start among them."""
    steps = 40
    began = time.time()
    metrics = training(args, dataset, args.work / "ours" / "try", steps, every=steps)
    ended = time.time()
    times = [line["time"] for line in metrics if "loss" in line]
    a_step = (times[-1] - times[0]) / (steps - metrics[0]["step"])
    evaluation = next(line["time"] for line in metrics if "dev_cer" in line) - times[-1]
    start = ended - began - steps * a_step - evaluation
    return max(int(0.97 * (seconds - start - 11 * evaluation) / a_step), 10)


def mean(lines: list[dict], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


def overhead(lines: list[dict]) -> float:
    """The share of a training's time outside forward, backward and optimiser, evaluations and checkpoints left out."""
    if "compute_share" in lines[0]:
        return 1 - mean(lines, "compute_share")
    return 1 - mean(lines, "step_share") + mean(lines, "exchange_share")


# ---------------------------------------------------------------------------- reading


def read_both(args: argparse.Namespace, lists: dict[str, list[Path]]) -> dict:
    """Lines a second of both, each by the difference of two lists, so that its start falls out."""
    few, many = sorted(args.lists)
    lines = (lists["val"] + lists["dev"] + lists["train"])[:many]
    if len(lines) < many:
        raise SystemExit(f"--lists {few} {many}: there are {len(lines)} lines")
    paths = {count: write_list(args.work / "kraken" / f"infer-{count}.txt", lines[:count]) for count in (few, many)}
    model = args.work / "ours" / "run" / "model"
    seconds = {}
    for count, path in paths.items():
        seconds["kraken", count] = test_kraken(args, path)["seconds"]
        command = [sys.executable, Path(__file__), "--read", path, model, args.size]
        began = time.monotonic()
        output(command)
        seconds["ours", count] = time.monotonic() - began
    return {f"{who}_infer_lines_per_s": (many - few) / (seconds[who, many] - seconds[who, few])
            for who in ("kraken", "ours")}  # fmt: skip


def read_ours(images: Path, model: Path, size: str) -> None:
    """A process that reads a list of images as ketos test does, with their errors counted; weights at random where no
    model was trained, which are as fast."""
    import cv2
    import torch

    from htr.charset import Charset
    from htr.metrics.error_rates import Errors, compare
    from htr.models.registry import create
    from htr.reader import Reader

    if model.exists():
        reader = Reader.load(model)
    else:
        charset = Charset(map(chr, range(32, 130)))
        reader = Reader(create("ctc", size, len(charset)).eval(), charset, {})
    paths = [Path(line) for line in images.read_text(encoding="utf-8").split("\n") if line]
    errors = Errors()
    # in the precision of `python -m jobs evaluate`
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        for start in range(0, len(paths), 256):
            part = paths[start : start + 256]
            readings = reader.read([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in part])
            for path, reading in zip(part, readings, strict=True):
                errors += compare(path.with_suffix("").with_suffix(".gt.txt").read_text(encoding="utf-8"), reading.text)
    print(f"CER {errors.cer:.4f}")


# ---------------------------------------------------------------------------- what came out


def report(args: argparse.Namespace, done: dict) -> None:
    def share(over: str, under: str) -> float | None:
        return done[over] / done[under] if over in done and done.get(under) else None

    reached = None
    if "kraken_dev" in done and "ours_dev" in done:
        times = [seconds for seconds, cer in done["ours_dev"] if cer <= done["kraken_dev"]]
        reached = times[0] / done["kraken_s"] if times else None
        print(f"kraken: dev CER {done['kraken_dev']:.4f} after {done['kraken_s']:.0f} s")
    for seconds, cer in done.get("ours_dev", ()):
        print(f"ours:   dev CER {cer:.4f} after {seconds:.0f} s")
    for name, value in done.items():
        if name != "ours_dev":
            print(f"{name:28} {value:10.4g}")
    figures = {
        "train_lines_per_s": done.get("ours_lines_per_s"),
        "infer_lines_per_s": done.get("ours_infer_lines_per_s"),
        "ratio_time_kraken": reached,
        "ratio_infer_kraken": share("ours_infer_lines_per_s", "kraken_infer_lines_per_s"),
        "ratio_train_kraken": share("ours_lines_per_s", "kraken_lines_per_s"),
        "padding": done.get("padding"),
        "step_overhead": done.get("overhead"),
        "cer_kraken": done.get("kraken_val"),
        "cer_ours": done.get("ours_val"),
        "cores": args.cores,
    }
    print(json.dumps({name: value and round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read_ours(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        main()
