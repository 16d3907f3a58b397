"""python -m jobs submit VERB …: start train, preprocess, evaluate, transcribe or align through submitit.

    python -m jobs submit train --nodes 2 --gpus-per-node 4 --time 8:00:00 DATASET --run runs/ctc-8
    python -m jobs submit evaluate --array 8 DATASET --run runs/ctc-8 --split val
    python -m jobs submit train --cluster local --tasks-per-node 2 DATASET --run runs/try

Options of the cluster and of the verb may be mixed. On Slurm it returns at once; --wait follows the job to its end.
"""

import argparse
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jobs.show import Progress, say

SUBMITTED = ("train", "preprocess", "evaluate", "transcribe", "align")
PLACES = ("partition", "account", "qos", "constraint", "exclude", "dependency")


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("of", metavar="VERB", choices=SUBMITTED, help=", ".join(SUBMITTED))
    add("--nodes", default="1", help="or a range, 2-8: as many as Slurm has (default: %(default)s)")
    add("--gpus-per-node", type=int, help="one rank each (default: none on Slurm, those of this machine locally)")
    add("--tasks-per-node", type=int, help="ranks a node, where there are no GPUs (default: 1)")
    add("--array", type=int, metavar="N", help="a job array of N tasks (preprocess, evaluate, transcribe, align)")
    more = "of a training: N jobs one after the other, where nodes can't put a job back into the queue"
    add("--chain", type=int, metavar="N", help=more)
    cluster_arguments(add)
    add("--dry-run", action="store_true", help="print the batch script and the GPU-hours, submit nothing")


def cluster_arguments(add: Callable) -> None:
    """What every verb that submits asks of the cluster."""
    add("--cluster", choices=["auto", "slurm", "local"], default="auto", help="auto: slurm where there is sbatch")
    add("--cpus-per-task", type=int, help="CPUs a rank, on Slurm; decoding wants at least two")
    add("--time", help="limit of a job, as Slurm writes it: 8:00:00")
    add("--mem", help="a node, as Slurm writes it: 64G")
    for name in PLACES:
        add(f"--{name}", help="as sbatch's")
    add("--wait", action="store_true", help="follow the jobs to their end (local ones always are)")


def cluster_options(args: argparse.Namespace, cluster: str) -> dict:
    """Of a `Request`, what was asked by these arguments; what was not, from the site's settings."""
    from jobs.cluster import site_settings

    site = site_settings() if cluster == "slurm" else {}
    cpus = args.cpus_per_task or (int(site.get("cpus_per_gpu", 0)) if args.gpus_per_node else None) or None
    options = {name: getattr(args, name) or site.get(name) for name in PLACES}
    return options | {"cpus_per_task": cpus, "time": args.time or site.get("timelimit"), "mem": args.mem}


def main(args: argparse.Namespace) -> int:
    from jobs import snapshot
    from jobs.__main__ import parse
    from jobs.cluster import Request, dry_run, submit, wait

    argv = [args.of, *args.rest]
    asked = parse(argv)  # what is wrong with it is said now, not by every rank
    cluster = args.cluster
    if cluster == "auto":
        cluster = "slurm" if shutil.which("sbatch") or args.dry_run else "local"
    if args.array and args.of == "train":
        raise ValueError("a training is one job of many ranks: use --nodes, --gpus-per-node or --tasks-per-node")
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?", args.nodes):
        raise ValueError(f"--nodes {args.nodes}: give a number or a range, 2-8")
    if args.chain and (args.of != "train" or cluster == "local"):
        raise ValueError("--chain is for trainings on Slurm")
    folder = folder_of(args.of, asked)
    request = Request(
        cluster=cluster,
        # Slurm's dependency singleton is of jobs of one name
        name=f"htr-train-{folder.name}" if args.of == "train" else f"htr-{args.of}",
        # absolute: Slurm's daemons work elsewhere
        logs=folder.absolute() / "logs",
        nodes=args.nodes,
        gpus_per_node=local_gpus() if args.gpus_per_node is None and cluster == "local" else args.gpus_per_node or 0,
        tasks_per_node=args.tasks_per_node,
        array=args.array,
        signal="USR1@120" if args.of == "train" else None,  # as in slurm/train.sh
        **cluster_options(args, cluster),
    )
    if request.gpus_per_node and args.tasks_per_node and args.tasks_per_node != request.gpus_per_node:
        raise ValueError(f"{request.gpus_per_node} GPUs and {args.tasks_per_node} tasks a node: a rank takes one GPU")
    if cluster == "local" and args.nodes != "1":
        raise ValueError(f"this machine is one node, not {args.nodes}: leave out --nodes, or use --cluster slurm")
    if args.dry_run:
        print(dry_run(request, argv), end="")
        hours = "no --time, so no bound" if request.gpu_hours is None else f"{request.gpu_hours:g} at most"
        print(f"# GPU-hours: {hours} ({request.nodes} nodes x {request.gpus_per_node} GPUs)")
        return 0
    if args.of == "train" and cluster == "slurm":  # the code as it is now, for a job that may wait for days
        request = replace(request, home=snapshot.take(folder))
    if args.chain:
        request = replace(request, dependency=",".join(filter(None, [request.dependency, "singleton"])))
        argv += ["--requeues", "0"]
    started = submit(request, argv, args.chain or 1)
    ids = ", ".join(job.job_id for job in started[:1]) + (f" and {len(started) - 1} more" if started[1:] else "")
    say(f"submit: job {ids} on {cluster}, logs in {request.logs}")
    if not args.wait and cluster == "slurm":
        return 0
    if args.of == "train":
        return watch(started, folder)
    return wait(started)


def folder_of(verb: str, asked: argparse.Namespace) -> Path:
    """Where the job works, and its logs lie."""
    from jobs.train import run_folder
    from jobs.transcribe import parts_folder

    if verb == "transcribe":
        return parts_folder(asked.out)
    return asked.out if verb == "preprocess" else run_folder(asked)


def watch(started: list, run: Path) -> int:
    """Wait for a training, with the progress that its run folder tells of."""
    from jobs.cluster import wait
    from jobs.experiment import read_json

    before = read_json(run / "status.json")
    with Progress(f"train {run.name}", 1, "steps") as progress:

        def poll() -> None:
            status = read_json(run / "status.json")
            if status is None or status == before or "steps" not in status:
                return
            dev = f", CER on dev {100 * status['dev_cer']:.1f} %" if "dev_cer" in status else ""
            note = f"loss {status['loss']:.3f}, {status['lines_per_s']:.0f} lines/s{dev}"
            progress.show(status["step"], status["steps"], note)

        return wait(started, poll, errors_only=True)


def local_gpus() -> int:
    """GPUs of this machine; without them one rank on its CPUs."""
    import torch

    return torch.cuda.device_count()
