"""Jobs through submitit, to Slurm or to this machine. The only file that imports submitit."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import submitit

from jobs.cli.code_version import CHECKOUT
from jobs.cli.console import log
from jobs.distributed.gpu_names import VISIBLE, gpus_of_ranks

SIBLING_WAIT_S = 5.0  # seconds that the other local ranks have to say what they saw, when one fails


@dataclass(frozen=True)
class Request:
    """What a job asks of the cluster. None: the default of the site or the cluster."""

    cluster: str  # slurm or local
    name: str
    logs: Path  # on shared storage
    home: Path = CHECKOUT  # whose code is run
    nodes: str = "1"  # or a range, 2-8
    gpus_per_node: int = 0
    tasks_per_node: int | None = None  # default: one a GPU, else one
    cpus_per_task: int | None = None
    array: int | None = None
    time: str | None = None  # as Slurm writes it: minutes, HH:MM:SS, D-HH:MM:SS
    signal: str | None = None  # before the time limit, NAME@SECONDS
    mem: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    dependency: str | None = None
    chain: bool = False  # one of several jobs, each goes on where the one before ended

    @property
    def ranks_per_node(self) -> int:
        return self.tasks_per_node or self.gpus_per_node or 1

    @property
    def gpu_hours(self) -> float | None:
        """An upper bound for the whole job, from its time limit; None without one."""
        if self.time is None:
            return None
        return (self.array or 1) * int(self.nodes.split("-")[-1]) * self.gpus_per_node * minutes(self.time) / 60


class Verb:
    """A verb with its command line, to be called in each task of a job. `gpus`: CUDA_VISIBLE_DEVICES of its process."""

    def __init__(self, argv: list[str], gpus: str | None = None):
        self.argv, self.gpus = argv, gpus

    def __call__(self) -> None:
        if self.gpus is not None:  # submitit knows indices alone, and forgets which GPUs the user's shell may use
            os.environ[VISIBLE] = self.gpus
        from jobs.cli.command_line import main

        # submitit would have its tasks live on after a SIGTERM
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code = main(self.argv)
        if code and os.environ.get("SUBMITIT_EXECUTOR") == "local":
            # the local executor leaves the siblings of a failed task alone; its controller passes a SIGTERM on
            time.sleep(SIBLING_WAIT_S)
            os.kill(os.getppid(), signal.SIGTERM)
        if code:
            sys.exit(code)


def submit(request: Request, argv: list[str], chain: int = 1) -> list[submitit.Job]:
    """Submit the verb, and return at once. `chain`: this many jobs, each of which waits for the end of the one before
    (which needs the dependency singleton). Raises ValueError where the cluster refuses."""
    executor = make_executor(request)
    try:
        if request.array and request.cluster == "slurm":
            return executor.map_array(lambda verb: verb(), [Verb(argv)] * request.array)
        gpus = gpus_of_ranks(request.gpus_per_node) if request.cluster == "local" else None
        return [executor.submit(Verb(argv, gpus)) for _ in range(chain)]
    except submitit.core.utils.FailedJobError as error:
        why = str(error).strip().splitlines()[-1]
        if "array" in why.lower():
            why += f" (--array {request.array}; MaxArraySize in scontrol show config): give fewer tasks, each does more"
        raise ValueError(f"Slurm refused the job: {why}") from None


def dry_run(request: Request, argv: list[str]) -> str:
    """The batch script that would be submitted. It needs no Slurm and writes nothing."""
    executor = make_executor(request, dry=True)
    text = executor._make_submission_file_text(executor._submitit_command_str, "dry")
    return text.rstrip() + f"\n# which runs, in each task: python -m jobs {shlex.join(argv)}\n"


class AnywhereExecutor(submitit.SlurmExecutor):
    """Slurm's executor on a machine without Slurm, for the text of its batch script alone."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def make_executor(request: Request, dry: bool = False):
    if not dry:
        # pickles are code: whoever writes there runs as this user
        request.logs.mkdir(parents=True, exist_ok=True)
        request.logs.chmod(0o700)
    if request.cluster == "local":
        executor = submitit.LocalExecutor(request.logs)
        executor.update_parameters(
            tasks_per_node=(request.array or 1) * request.ranks_per_node,
            gpus_per_node=request.gpus_per_node,
            visible_gpus=tuple(range(request.gpus_per_node)),
            timeout_min=minutes(request.time) if request.time else 7 * 24 * 60,
        )
        return executor
    try:
        executor = (AnywhereExecutor if dry else submitit.SlurmExecutor)(request.logs)
    except RuntimeError:
        raise ValueError("there is no srun here: submit from a login node, or with --cluster local") from None
    optional = {
        "cpus_per_task": request.cpus_per_task,
        "gpus_per_node": request.gpus_per_node or None,
        "mem": request.mem,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "exclude": request.exclude,
        "dependency": request.dependency,
        "time": request.time,
        "nodes": request.nodes,
        "signal": request.signal,
        "requeue": True,
    }
    executor.update_parameters(
        job_name=request.name,
        nodes=int(request.nodes.split("-")[0]),
        ntasks_per_node=request.ranks_per_node,
        # the ranks' CPUs are found as in slurm/run.sh, when the job knows its nodes
        setup=[
            f". {shlex.quote(str(request.home / 'slurm' / 'env.sh'))} || exit 1",
            *(["export HTR_CHAIN=1"] if request.chain else []),
            f"export SRUN_CPUS_PER_TASK=$(htr_cpus_per_rank {request.ranks_per_node})",
        ],
        srun_args=["--kill-on-bad-exit=1", "--distribution=block"],
        additional_parameters={name: value for name, value in optional.items() if value is not None},
    )
    return executor


def wait(jobs: list[submitit.Job], poll=lambda: None, errors_only: bool = False) -> int:
    """Wait for the jobs, with the first task's messages on this terminal. -> exit code. Ctrl-C cancels them, SIGTERM
    ends local ones."""
    shown: dict[Path, int] = {}
    try:
        # of Slurm's jobs a result is seen at once, and its accounting, which all share, asked once a minute at the end
        while not all(job.done(force_check=isinstance(job, submitit.LocalJob)) for job in jobs):
            follow(jobs, shown, errors_only)
            poll()
            time.sleep(0.25)
        follow(jobs, shown, errors_only)
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel()
        return 130
    except SystemExit:  # SIGTERM
        end_local(jobs, shown, errors_only)
        raise
    failed = [job for job in jobs if not succeeded(job)]
    for job in failed:
        log(f"job {job.job_id} failed; its logs are {job.paths.folder}/{job.job_id}_*")
    return 1 if failed else 0


def end_local(jobs: list[submitit.Job], shown: dict[Path, int], errors_only: bool) -> None:
    """End what runs on this machine for a submit that was told to end, and wait for it: a training writes its
    checkpoint. Jobs of Slurm go on."""
    local = [job for job in jobs if isinstance(job, submitit.LocalJob)]
    for job in jobs:
        if job not in local:
            log(f"submit: job {job.job_id} goes on; scancel {job.job_id} ends it")
        elif not job.done(force_check=True):
            # to its controller, which passes it on; `cancel` kills within a second
            os.kill(int(job.job_id), signal.SIGTERM)
    while not all(job.done(force_check=True) for job in local):
        time.sleep(0.25)
    follow(local, shown, errors_only)


def succeeded(job: submitit.Job) -> bool:
    """Whether every task of the job left a result."""
    folder = job.paths.folder
    results = [folder / f"{job.job_id}_{task}_result.pkl" for task in range(job.num_tasks)]
    # of the shared file system's caches; what ran on this machine is seen at once
    deadline = time.monotonic() + (0 if isinstance(job, submitit.LocalJob) else 5)
    while not (there := all(path.exists() for path in results)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return there


def follow(jobs: list[submitit.Job], shown: dict[Path, int], errors_only: bool) -> None:
    """Print what the first task of each job has written since the last call. `shown`: how many bytes were printed of
    each file."""
    for job in jobs:
        for path in (job.paths.stdout, job.paths.stderr):
            if not path.exists():
                continue
            with open(path, "rb") as file:
                file.seek(shown.get(path, 0))
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            shown[path] = shown.get(path, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                if not line.startswith("submitit ") and (line.startswith("error: ") or not errors_only):
                    log(line)


def minutes(text: str) -> float:
    """Minutes of a time limit as Slurm writes it: MINUTES, MINUTES:SECONDS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS.
    Raises ValueError."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match:
        raise ValueError(f"--time {text}: write minutes, HH:MM:SS or D-HH:MM:SS")
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        return days * 1440 + first * 60 + (second or 0) + (third or 0) / 60
    if third is not None:
        return first * 60 + second + third / 60
    return first + (second or 0) / 60


def site_settings() -> dict[str, str]:
    """What slurm/env.sh exports for sbatch (partition, account, …) from the site file, by the names of `Request`."""
    script = '. slurm/env.sh >/dev/null; env | grep "^SBATCH_" || true'
    done = subprocess.run(["bash", "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name.removeprefix("SBATCH_").lower(): value for name, _, value in pairs}
