"""From srun to the end of the first training step, on a Slurm cluster: how long, and what takes it.

    eval "$(tests/slurm/cluster.sh env)"; python benchmarks/startup.py [--nodes 4] [--rounds 3] [--shards 4,400]

A round is a training of one step by one rank a node on each of two data sets of the same drawn lines, in few shards and
in many, and beside it the same ranks that import torch and Horovod and do nothing else: the limit. A phase lasts until
the slowest rank is through. A table, then one line of JSON: seconds (few shards), ratio_to_imports, and
many_shards_extra, by how much the phases after the imports last longer for the many shards.

    python benchmarks/startup.py --rows 60000000 [--work FOLDER]

Without Slurm: four ranks of this machine begin to train on a made index of so many texts (large/startup_size.py). The
last line is JSON: rows, private_gib, shared_gib, first_batch_s, open_files, planning_share.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

BEGAN = time.time()  # of a rank
ROOT = Path(__file__).resolve().parent.parent
PHASES = ("Python runs", "imports", "ranks meet, Horovod", "data set, model", "run folder, weights", "first step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--nodes", type=int, default=4, help="a rank each (default: %(default)s)")
    add("--rounds", type=int, default=3, help="(default: %(default)s)")
    add("--lines", type=int, default=800, help="of the data sets (default: %(default)s)")
    add("--shards", default="4,400", help="few and many (default: %(default)s)")
    add("--size", default="tiny", help="of the CTC reader (default: %(default)s)")
    add("--work", type=Path, help="a folder that all nodes share (default: a temporary one)")
    add("--rows", type=int, help="a made index of so many texts, four ranks of this machine")
    args = parser.parse_args()
    if args.rows:
        return of_size(args)
    if not shutil.which("srun"):
        sys.exit('error: no srun here: eval "$(tests/slurm/cluster.sh env)", or run it on a login node')
    few, many = (int(count) for count in args.shards.split(","))
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        sets = {count: data_set(Path(folder) / f"shards-{count}", args.lines, count) for count in (few, many)}
        rounds = []
        for number in range(args.rounds):
            found = {"imports": bare(args.nodes)}
            for count, (data, _) in sets.items():
                found[count] = training(args, data, Path(folder) / f"run-{number}-{count}")
            rounds.append(found)
            print(f"round {number + 1}: {sum(found[few].values()):.1f} s", file=sys.stderr, flush=True)
    report(rounds, {count: shards for count, (_, shards) in sets.items()})


def of_size(args: argparse.Namespace) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks" / "large"))
    import startup_size

    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        figures = startup_size.measure(args.work or Path(folder), args.rows, ranks=4, batch=32, steps=800)
    for name, value in figures.items():
        print(f"{name:20} {value:14,.3f}")
    print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}))


def report(rounds: list[dict], shards: dict[int, int]) -> None:
    few, many = shards
    middle = {n: {p: median(found[n][p] for found in rounds) for p in PHASES} for n in shards}
    print(f"{'s, the slowest rank':22} {shards[few]:6} shards {shards[many]:6} shards")
    for phase in PHASES:
        print(f"{phase:22} {middle[few][phase]:13.2f} {middle[many][phase]:13.2f}")
    total = {n: median(sum(found[n].values()) for found in rounds) for n in shards}
    print(f"{'together':22} {total[few]:13.2f} {total[many]:13.2f}")
    imports = median(found["imports"] for found in rounds)
    print(f"{'imports and no more':22} {imports:13.2f}")
    after = {n: sum(middle[n][phase] for phase in PHASES[2:]) for n in shards}
    figures = {"seconds": total[few], "imports_alone": imports, "ratio_to_imports": total[few] / imports}
    figures |= {"many_shards_extra": after[many] / after[few] - 1, "shards": list(shards.values())}
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}))


def data_set(folder: Path, lines: int, shards: int) -> tuple[Path, int]:
    """Drawn lines of known texts. -> (the data set, its shards)"""
    import cv2
    import numpy as np

    from htr.io.sources import read_source
    from shards.index import merge
    from shards.plan import Settings, make_plan
    from shards.write import write_shard

    folder.mkdir()
    with open(folder / "lines.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "text", "certificate"])
        for number in range(lines):
            image = np.full((48, 300), 225, np.uint8)
            cv2.putText(image, f"grippe {number}", (6, 34), cv2.FONT_HERSHEY_SIMPLEX, 1, 30, 2, cv2.LINE_AA)
            cv2.imwrite(str(folder / f"{number}.png"), image)
            table.writerow([f"{number}.png", f"grippe {number}", f"c{number}"])
    rows, images = read_source(folder / "lines.csv")
    plan = make_plan(folder / "shards", rows, Settings(rows=max(lines // shards, 1)))
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    return folder / "shards", len(merge(plan).shards)


# ---------------------------------------------------------------------------- jobs


def srun(nodes: int, *command: object) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    step = ["srun", "--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    done = subprocess.run([*step, *map(str, command)], env=environ, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: srun failed: {done.stderr.strip()[-2000:]}")


def bare(nodes: int) -> float:
    began = time.time()
    srun(nodes, sys.executable, "-c", "import torch, horovod.torch")
    return time.time() - began


def training(args: argparse.Namespace, data: Path, run: Path) -> dict[str, float]:
    """-> seconds of each phase."""
    run.mkdir()
    began = time.time()
    srun(args.nodes, sys.executable, __file__, "--rank", data, run, args.size)
    ranks = [json.loads(path.read_text(encoding="utf-8")) for path in run.glob("times-*.json")]
    ends = [began, *(max(rank[phase] for rank in ranks) for phase in PHASES)]
    return {phase: end - begin for phase, begin, end in zip(PHASES, ends, ends[1:], strict=False)}


def be_rank(data: str, run: str, size: str) -> None:
    """A training of one step, by the job's own code; what is timed is the functions that it calls."""
    times = {"Python runs": BEGAN}
    import horovod.torch  # noqa: F401

    from jobs import train
    from jobs.cli import command_line as jobs
    from jobs.distributed import process_group
    from jobs.training import trainer
    from jobs.training.train_step import TrainStep

    times["imports"] = time.time()

    def timed(owner, name: str, phase: str) -> None:
        function = getattr(owner, name)

        def call(*args, **kwargs):
            found = function(*args, **kwargs)
            times[phase] = time.time()
            return found

        setattr(owner, name, call)

    timed(process_group, "start", PHASES[2])
    timed(train, "prepare", PHASES[3])
    timed(trainer.Trainer, "__init__", PHASES[4])
    timed(TrainStep, "step", PHASES[5])
    argv = ["train", data, "--run", run, "--size", size, "--steps", "1", "--batch", "32", "--device", "cpu"]
    code = jobs.main([*argv, "--evaluate-every", "0"])
    if code:
        sys.exit(code)
    (Path(run) / f"times-{os.environ['SLURM_PROCID']}.json").write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        be_rank(*sys.argv[2:])
    else:
        main()
