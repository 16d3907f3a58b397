"""python -m jobs scale DATASET --gpus 1,2,4,8: the same training at each size, and a table and plot of its speed.

    python -m jobs scale DATASET --gpus 1,2,4,8,16 --gpus-per-node 4 --time 0:20:00 --out scaling/ctc    on Slurm
    python -m jobs scale DATASET --gpus 1,2,4,8,16 --gpus-per-node 4 --time 0:20:00 --out scaling/ctc    later: collects
    python -m jobs scale DATASET --gpus 1,2 --size tiny --steps 30                      CPU ranks of this machine
    python -m jobs scale --predict --from runs/ctc-1 --figure across=20e9               a model of 8 to 512 GPUs

Each size is a run of its own, OUT/ranks-N, of --steps steps, trained once: the same command again submits only what is
not there or failed, says what still waits, and writes OUT/scaling.csv, .md and .png of what is done. Weak scaling: the
batch of a rank stays. On this machine one size after the other, each on its share of the CPUs, so that a rank has as
many of them at every size. Other options are train's. The data set's dev is read once at the end of each run, after
the log lines that count.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.options import argv_of
from jobs.cli.settings import group, setting
from jobs.launch.cluster_options import ClusterConfig, cluster_options, local_gpus
from jobs.scaling.trainings import Training, differs, is_strong, states_of, submitted, wait_for
from jobs.training.config import TrainConfig
from jobs.training.run_lock import read_json
from shards import files

# settings of train that the experiment sets itself; the others are passed on
OURS = ("run", "data.batch", "data.batch_per_rank", "schedule.steps", "schedule.warmup", "runtime.log_every",
        "runtime.checkpoint_every", "runtime.evaluate_every", "runtime.requeues")  # fmt: skip


def sizes(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdigit() and int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"'{text}': write numbers of ranks as 1,2,4,8")
    return sorted({int(number) for number in numbers})


@dataclass(frozen=True)
class Settings:
    gpus: list[int] = setting(
        [1, 2, 4, 8], "numbers of ranks to measure, with commas (default: 1,2,4,8)", metavar="N,N,…", parse=sizes
    )
    gpus_per_node: int | None = setting(None, "ranks per node, one on each GPU")
    tasks_per_node: int | None = setting(None, "ranks per node, where there are no GPUs")
    batch_per_rank: int = setting(32, "lines of one step per rank", least=1)
    strong: bool = setting(False, "keep the global batch: each size has that of the smallest one")
    steps: int = setting(60, "steps of each training; the first third is not counted")
    out: Path = setting(Path("scaling"), "folder of the trainings and tables, on shared storage")
    one_by_one: bool = setting(False, "on Slurm: start a size when the one before it has ended")
    collect: bool = setting(False, "submit nothing, only write the tables of what is done in --out")
    on: ClusterConfig = group(ClusterConfig, "cluster", inline=True)
    predict: bool = setting(False, "train nothing; print a model of the cost at 8 to 512 GPUs")
    measured: Path | None = setting(
        None, "with --predict: training to take figures from, best one of one rank", flag="from", metavar="RUN"
    )
    texts: int | None = setting(None, "with --from: number of lines of the data set to assume, of the same widths")
    figure: list[str] = setting(
        [],
        "with --predict: value of a figure of the model; repeatable (default: the model's own)",
        metavar="NAME=VALUE",
    )
    train: TrainConfig = group(TrainConfig, "passed on to train", inline=True, without=OURS)


def main(args: Settings) -> int:
    if args.predict:
        return predict(args)
    if args.measured or args.figure or args.texts:
        raise ValueError("--from, --texts and --figure are of the model: add --predict")
    if args.steps < 3 or args.batch_per_rank < 1:
        raise ValueError(f"--steps {args.steps}, --batch-per-rank {args.batch_per_rank}: at least 3 and 1 are needed")
    cluster = args.on.cluster
    if cluster == "auto":
        cluster = "slurm" if shutil.which("sbatch") else "local"
    known = read_json(args.out / "scale.json") or {}
    if args.collect:
        return collect(args, submitted(args.out, known), known)
    trainings = plan(args, cluster)
    for training in trainings:
        before = known.get(str(training.ranks))
        if before and before["argv"] != training.argv:
            raise ValueError(
                f"{training.run} was trained with other options ({differs(before['argv'], training.argv)}): "
                f"give another --out, or the same options"
            )
    code = start(args, cluster, trainings, known)
    if args.on.wait and cluster == "slurm":
        wait_for(trainings, known)
    return collect(args, trainings, known) or code


# --- what is trained


def plan(args: Settings, cluster: str) -> list[Training]:
    """Raises ValueError for sizes that do not fill their nodes, and where it is not said what a node holds."""
    if args.gpus_per_node and args.tasks_per_node:
        raise ValueError("--gpus-per-node or --tasks-per-node: a rank takes one GPU, or there are none")
    per_node, gpus = args.gpus_per_node or args.tasks_per_node, bool(args.gpus_per_node)
    if cluster == "local":
        here = 0 if args.tasks_per_node else local_gpus()
        gpus, per_node = here > 0, here or args.tasks_per_node or args.gpus[-1]
        if args.gpus[-1] > per_node:
            raise ValueError(f"{args.gpus[-1]} ranks, {per_node} here: choose other --gpus, or say --tasks-per-node")
    if not per_node:
        raise ValueError("say how many ranks a node holds: --gpus-per-node, or without GPUs --tasks-per-node")
    found = []
    for ranks in args.gpus:
        if ranks > per_node and ranks % per_node:
            raise ValueError(f"{ranks} ranks do not fill whole nodes of {per_node}: choose other --gpus")
        batch = args.batch_per_rank * (args.gpus[0] if args.strong else ranks)
        if batch < ranks:
            raise ValueError(f"--strong: a global batch of {batch} for {ranks} ranks: give more --batch-per-rank")
        nodes = -(-ranks // per_node)
        argv = train_argv(args, batch)
        found.append(Training(ranks, nodes, min(ranks, per_node), gpus, args.out / f"ranks-{ranks}", argv))
    return found


def train_argv(args: Settings, batch: int) -> list[str]:
    """The command line of train but for its run: nothing is saved or read on the way, widths come as they come."""
    argv = argv_of(args.train, without=OURS)
    never = args.steps + 1
    set_here = {"batch": batch, "steps": args.steps, "warmup": 0, "log-every": max(args.steps // 12, 1)}
    set_here |= {"checkpoint-every": never, "evaluate-every": 0, "requeues": 0}
    return [*argv, *(word for name, value in set_here.items() for word in (f"--{name}", str(value)))]


# --- submitting it


def start(args: Settings, cluster: str, trainings: list[Training], known: dict) -> int:
    """Submit what is not there or failed; on this machine, wait for each. scale.json has what was submitted."""
    from jobs.launch import code_snapshot
    from jobs.launch.submitit_launcher import CHECKOUT, Request, submit, wait

    options = cluster_options(args.on, args.gpus_per_node, cluster)
    args.out.mkdir(parents=True, exist_ok=True)
    code = 0
    states = states_of(trainings, known)
    for training in trainings:
        state = states[training.ranks]
        if state in ("done", "running", "queued"):
            continue
        if state != "not submitted":
            log(f"scale: {training.ranks} ranks are trained anew: {state}")
        request = Request(
            cluster=cluster,
            name=f"htr-scale-{training.ranks}",
            logs=training.run.absolute() / "logs",
            home=code_snapshot.take(training.run) if cluster == "slurm" else CHECKOUT,
            nodes=str(training.nodes),
            gpus_per_node=training.ranks_per_node if training.gpus else 0,
            tasks_per_node=training.ranks_per_node,
            **options,
        )
        with cpus_for(training.ranks, args.gpus[-1], cluster):
            [job] = submit(request, ["train", *training.argv, "--run", str(training.run)])
        known[str(training.ranks)] = {
            "argv": training.argv, "job": job.job_id, "cluster": cluster, "nodes": training.nodes, "at": time.time(),
        }  # fmt: skip
        files.replace(args.out / "scale.json", files.to_json(known))
        log(f"scale: ranks {training.ranks}, nodes {training.nodes}: job {job.job_id} on {cluster}")
        if cluster == "local":
            code = wait([job], errors_only=True) or code
        if code == 130:  # Ctrl-C
            break
        if args.one_by_one:
            options["dependency"] = f"afterany:{job.job_id}"
    return code


@contextmanager
def cpus_for(ranks: int, most: int, cluster: str) -> Iterator[None]:
    """What starts in this block has a part of this process's CPUs: as many a rank as at the largest size."""
    before = os.sched_getaffinity(0)
    each = len(before) // most
    if cluster == "local" and each:
        os.sched_setaffinity(0, sorted(before)[: each * ranks])
    elif cluster == "local" and ranks > 1:
        log(f"scale: {ranks} ranks share {len(before)} CPUs: their efficiency says nothing of a cluster")
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- the table


def collect(args: Settings, trainings: list[Training], known: dict) -> int:
    """Write and print the table of the finished trainings, and say what is missing. -> 1 if one has failed."""
    from jobs.scaling.results import rows_of, write

    states = states_of(trainings, known)
    done = {t.ranks: (t.run, t.nodes) for t in trainings if states[t.ranks] == "done"}
    missing = [ranks for ranks in states if ranks not in done]
    for ranks in missing:
        log(f"scale: {ranks} ranks: {states[ranks]}")
    if done:
        print(write(args.out, rows_of(done), is_strong(trainings), missing), end="")
        log(f"scale: written to {args.out}/scaling.csv, .md and .png")
    return int(any("failed" in state for state in states.values()))


# --- the model


def predict(args: Settings) -> int:
    from jobs.scaling import cost_model

    if args.texts is not None and (args.texts < 1 or not args.measured):
        raise ValueError(f"--texts {args.texts}: give a number of lines, together with --from")
    values, wider, notes = cost_model.measured(args.measured, args.texts) if args.measured else ({}, {}, [])
    if args.train.runtime.backend == "torch":
        values["agreements"] = 0
    values |= cost_model.given(args.figure)
    if args.gpus_per_node:
        values["ranks_per_node"] = args.gpus_per_node
    missing = [name for name in ("compute", "gradients") if name not in values]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be known: give --from RUN, or --figure {missing[0]}=NUMBER")
    for note in notes:
        log(f"scale: {note}")
    print(cost_model.report(cost_model.Figures(**values), values, wider), end="")
    return 0
