"""python -m jobs submit VERB …: start train, preprocess, evaluate, transcribe or align through submitit.

    python -m jobs submit train --nodes 2 --gpus-per-node 4 --time 8:00:00 DATASET --run runs/ctc-8
    python -m jobs submit evaluate --array 8 DATASET --run runs/ctc-8 --split val
    python -m jobs submit train --cluster local --tasks-per-node 2 DATASET --run runs/try

Options of the cluster and of the verb may be mixed. On Slurm it returns at once; --wait follows the job to its end.
"""

import argparse
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.options import argv_of
from jobs.cli.settings import group, setting
from jobs.distributed.work_sharding import share_of_work
from jobs.launch.cluster_options import ClusterConfig, cluster_options, local_gpus

BEFORE_LIMIT_S = 120  # seconds, in which a training writes its checkpoint (also in slurm/train.sh)
SHOWN = {  # of a training's status, while it is waited for
    "loss": "loss {:.3f}".format,
    "lines_per_s": "{:.0f} lines/s".format,
    "dev_cer": lambda cer: f"CER on dev {100 * cer:.1f} %",
}
SUBMITTED = ("train", "preprocess", "evaluate", "transcribe", "align")


@dataclass(frozen=True)
class Settings:
    of: Literal["train", "preprocess", "evaluate", "transcribe", "align"] = setting(
        positional=True, metavar="VERB", help=", ".join(SUBMITTED)
    )
    nodes: str = setting("1", "number of nodes, or a range such as 2-8 (as many as Slurm has)")
    gpus_per_node: int | None = setting(
        None, "GPUs per node, one rank on each (default: none on Slurm, all of this machine locally)"
    )
    tasks_per_node: int | None = setting(None, "ranks per node, where there are no GPUs (default: 1)")
    array: int | None = setting(
        None, "number of tasks of a job array (preprocess, evaluate, transcribe, align)", metavar="N", least=1
    )
    chain: int | None = setting(
        None,
        "number of jobs of a training that start one after the other, where nodes cannot put a job back into the queue",
        metavar="N",
        least=1,
    )
    dry_run: bool = setting(False, "print the batch script and the GPU-hours, and submit nothing")
    print_folder: bool = setting(
        False, "print the folder that the job works in and keeps its logs in, and submit nothing"
    )
    on: ClusterConfig = group(ClusterConfig, "cluster", inline=True)
    rest: list[str] = setting([], argparse.SUPPRESS)  # the command line of the verb, which the dispatcher leaves over


def main(args: Settings) -> int:
    from jobs.cli.command_line import parse

    argv = [args.of, *args.rest]
    _, asked = parse(argv)  # what is wrong with it is said now, not by every rank
    if "--config" in args.rest or any(word.startswith("--config=") for word in args.rest):
        # a file may have changed by the time that the job starts, or starts again
        argv = [args.of, *argv_of(asked)]
    folder = folder_of(args.of, asked)
    if args.print_folder:
        share_of_work()  # an array with gaps is refused before anything is made
        print(folder)
        return 0
    from jobs.launch import code_snapshot
    from jobs.launch.submitit_launcher import dry_run, submit, wait

    cluster = args.on.cluster
    if cluster == "auto":
        cluster = "slurm" if shutil.which("sbatch") or args.dry_run else "local"
    check(args, cluster)
    if cluster == "slurm":
        check_name(folder)
    request = request_of(args, cluster, folder)
    if args.dry_run:
        print(dry_run(request, argv), end="")
        hours = "no --time, so no bound" if request.gpu_hours is None else f"{request.gpu_hours:g} at most"
        print(f"# GPU-hours: {hours} ({request.nodes} nodes x {request.gpus_per_node} GPUs)")
        return 0
    is_new = not folder.exists()
    try:
        if args.of == "train" and cluster == "slurm":  # the code as it is now, for a job that may wait for days
            request = replace(request, home=code_snapshot.take(folder))
        if args.chain:
            request = replace(request, dependency=",".join(filter(None, [request.dependency, "singleton"])), chain=True)
        started = submit(request, argv, args.chain or 1)
    except ValueError:  # refused
        if is_new:
            withdraw(folder)
        raise
    ids = ", ".join(job.job_id for job in started[:1]) + (f" and {len(started) - 1} more" if started[1:] else "")
    log(f"submit: job {ids} on {cluster}, logs in {request.logs}")
    if not args.on.wait and cluster == "slurm":
        return 0
    if args.of == "train":
        return watch(started, folder)
    return wait(started)


def withdraw(folder: Path) -> None:
    """Remove the folder that a refused submission has made; not where another one has come to it meanwhile."""
    if not any(folder.glob("logs/*_submitted.pkl")) and {path.name for path in folder.glob("*")} <= {"code", "logs"}:
        shutil.rmtree(folder, ignore_errors=True)


def check(args: Settings, cluster: str) -> None:
    """Raises ValueError for options that contradict each other or the verb."""
    if args.array and args.of == "train":
        raise ValueError("a training is one job of many ranks: use --nodes, --gpus-per-node or --tasks-per-node")
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?", args.nodes):
        raise ValueError(f"--nodes {args.nodes}: give a number or a range, 2-8")
    if args.chain and (args.of != "train" or cluster == "local"):
        raise ValueError("--chain is for trainings on Slurm")
    if cluster == "local" and args.nodes != "1":
        raise ValueError(f"this machine is one node, not {args.nodes}: leave out --nodes, or use --cluster slurm")


def check_name(folder: Path) -> None:
    """Raises ValueError for a folder that can't have the logs of a job: Slurm reads their names as patterns."""
    if found := sorted(set(str(folder.absolute())) & set("%\\\n\r")):
        what = f"Slurm reads {found[0]!r} in the name of a log as something else: give a folder without it"
        raise ValueError(f"{str(folder.absolute())!r}: {what}")


def request_of(args: Settings, cluster: str, folder: Path):
    """The launcher's Request. Raises ValueError where GPUs, tasks or the time don't do."""
    from jobs.launch.submitit_launcher import Request, minutes

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
        signal=f"USR1@{BEFORE_LIMIT_S}" if args.of == "train" else None,  # as in slurm/train.sh
        **cluster_options(args.on, args.gpus_per_node, cluster),
    )
    if args.of == "train" and cluster == "slurm" and request.time and minutes(request.time) <= BEFORE_LIMIT_S / 60:
        raise ValueError(
            f"--time {request.time}: a training writes its checkpoint {BEFORE_LIMIT_S} s before the limit, "
            f"and would do so at once: give more time, for example one hour"
        )
    if request.gpus_per_node and args.tasks_per_node and args.tasks_per_node != request.gpus_per_node:
        raise ValueError(f"{request.gpus_per_node} GPUs and {args.tasks_per_node} tasks a node: a rank takes one GPU")
    return request


def folder_of(verb: str, asked) -> Path:
    """The folder that the job works in, which has its logs. `asked`: the verb's settings. Raises ValueError where no
    reader is named."""
    if verb == "train":
        return asked.run_folder
    if verb == "transcribe":
        from jobs.transcription.table_writer import parts_folder

        return parts_folder(asked.out)
    if verb == "evaluate":
        from jobs.training.adopted import folder_of_run

        return folder_of_run(asked.run, asked.model)
    return asked.out if verb == "preprocess" else asked.run


def watch(started: list, run: Path) -> int:
    """Wait for a training, with a bar of the progress that its run folder shows."""
    from jobs.launch.submitit_launcher import wait
    from jobs.training.run_lock import read_json

    before = read_json(run / "status.json")
    with Progress(f"train {run.name}", 1, "steps") as progress:

        def poll() -> None:
            status = read_json(run / "status.json")
            if status is None or status == before or not {"step", "steps"} <= status.keys():
                return
            notes = [say(status[name]) for name, say in SHOWN.items() if name in status]  # one resumed has no loss yet
            progress.show(status["step"], status["steps"], ", ".join(notes))

        return wait(started, poll, errors_only=True)
