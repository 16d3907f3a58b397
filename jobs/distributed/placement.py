"""The placement of this process among the ranks of its job: rank, size, node.

A Slurm step, submitit's local executor and a single process all fill the same record, so that no other code has to know
what started the ranks. It is read from environment variables; no code of Slurm or submitit is needed.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SPECIAL_STEPS = 0xFFFFFFF0  # from here on step numbers mean a batch script, an interactive shell and the like


class DistributedError(RuntimeError):
    """The ranks can't work together. The message is one line for the user, the same on every rank that is alive."""


@dataclass(frozen=True)
class Placement:
    """One process among the ranks of its job.

    `local_rank`, `local_size`: among the ranks of its node. `cross_size`: number of nodes that have this `local_rank`
    too; `cross_rank`: how many of these come before this node. `hosts`: (host, its number of ranks) in the order of the
    nodes; None while that is not known. `key`: names this start; it is the same on every rank, and another one after a
    requeue and in another step.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    cross_rank: int
    cross_size: int
    hosts: tuple[tuple[str, int], ...] | None
    host: str
    key: str
    source: str  # slurm, local or alone

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> "Placement":
        """Read the environment. Raises a DistributedError with the variable that is missing or contradicts another."""
        # local ranks may be started in `srun --pty bash`: that step of one task is not theirs
        local = environ.get("SUBMITIT_EXECUTOR") == "local"
        if in_step(environ) and not (local and environ.get("SLURM_STEP_NUM_TASKS") == "1"):
            return _from_slurm(environ)
        if local:
            return _from_submitit(environ)
        host = socket.gethostname()
        return cls(0, 1, 0, 1, 0, 1, ((host, 1),), host, f"alone-{os.getpid()}", "alone")


def in_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether srun started this process as a task.

    A batch script and a shell of salloc have SLURM_NTASKS but no step.
    """
    step = environ.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < SPECIAL_STEPS and "SLURM_PROCID" in environ


def expand_tasks(text: str) -> list[int]:
    """The tasks of each node, from Slurm's notation: "2(x3),1" is [2, 2, 2, 1]. Raises ValueError."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ValueError(f"{part!r} is not a number of tasks")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def expand_hosts(text: str) -> list[str]:
    """The names of a Slurm node list: "gpu[01-03,7],login" is [gpu01, gpu02, gpu03, gpu7, login]."""
    names = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        match = re.fullmatch(r"([^\[]*)\[([\d,-]+)\](.*)", part)
        if not match:
            names.append(part)
            continue
        for numbers in match[2].split(","):
            first, _, last = numbers.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names += expand_hosts(
                    f"{match[1]}{number:0{len(first)}}{match[3]}"
                )  # rack[1-2]n[1-4] has more brackets
    return names


def _number(environ: Mapping[str, str], name: str, below: int | None = None, limit: str = "") -> int:
    value = environ.get(name)
    if value is None:
        raise DistributedError(
            f"{name} is not set: start the ranks with srun or with submitit, and pass its variables on"
        )
    if not value.isdigit():
        raise DistributedError(f"{name}={value!r} is not a number")
    if below is not None and int(value) >= below:
        raise DistributedError(f"{name}={value} contradicts {limit}")
    return int(value)


def _from_slurm(environ: Mapping[str, str]) -> Placement:
    if int(environ.get("SLURM_HET_SIZE") or 1) > 1:
        raise DistributedError(
            "this is a heterogeneous job, whose parts don't see each other's ranks: ask for nodes of one kind"
        )
    size = _number(environ, "SLURM_STEP_NUM_TASKS")
    layout = environ.get("SLURM_STEP_TASKS_PER_NODE")
    nodes = environ.get("SLURM_STEP_NODELIST")
    if not layout or not nodes:
        raise DistributedError(
            f"{'SLURM_STEP_NODELIST' if layout else 'SLURM_STEP_TASKS_PER_NODE'} is not set in a Slurm step"
        )
    try:
        tasks = expand_tasks(layout)
    except ValueError as error:
        raise DistributedError(f"SLURM_STEP_TASKS_PER_NODE={layout!r}: {error}") from None
    names = expand_hosts(nodes)
    if sum(tasks) != size:
        raise DistributedError(f"SLURM_STEP_NUM_TASKS={size} contradicts SLURM_STEP_TASKS_PER_NODE={layout}")
    if len(names) != len(tasks):
        raise DistributedError(f"SLURM_STEP_NODELIST={nodes} contradicts SLURM_STEP_TASKS_PER_NODE={layout}")
    if environ.get("SLURM_NTASKS", str(size)) != str(size):
        raise DistributedError(f"SLURM_NTASKS={environ['SLURM_NTASKS']} contradicts SLURM_STEP_NUM_TASKS={size}")
    rank = _number(environ, "SLURM_PROCID", size, f"SLURM_STEP_NUM_TASKS={size}")
    node = _number(environ, "SLURM_NODEID", len(tasks), f"SLURM_STEP_NODELIST={nodes}")
    limit = f"SLURM_STEP_TASKS_PER_NODE={layout} on node {node}"
    local_rank = _number(environ, "SLURM_LOCALID", tasks[node], limit)
    port = environ.get("SLURM_STEP_LAUNCHER_PORT") or environ.get("SLURM_SRUN_COMM_PORT") or "0"
    job, restart = _number(environ, "SLURM_JOB_ID"), environ.get("SLURM_RESTART_COUNT", "0")
    return Placement(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=tasks[node],
        # with uneven tasks not every node has this local rank, and Horovod aborts if the others are counted too
        cross_rank=sum(count > local_rank for count in tasks[:node]),
        cross_size=sum(count > local_rank for count in tasks),
        hosts=tuple(zip(names, tasks, strict=True)),
        host=names[node],
        key=f"slurm-{job}-{environ['SLURM_STEP_ID']}-{restart}-{port}",
        source="slurm",
    )


def _from_submitit(environ: Mapping[str, str]) -> Placement:
    size = _number(environ, "SUBMITIT_LOCAL_NTASKS")
    rank = _number(environ, "SUBMITIT_LOCAL_GLOBALID", size, f"SUBMITIT_LOCAL_NTASKS={size}")
    local_rank = _number(environ, "SUBMITIT_LOCAL_LOCALID", size, f"SUBMITIT_LOCAL_NTASKS={size}")
    if local_rank != rank:
        raise DistributedError(
            f"SUBMITIT_LOCAL_LOCALID={local_rank} contradicts SUBMITIT_LOCAL_GLOBALID={rank} on one node"
        )
    if environ.get("SUBMITIT_LOCAL_JOB_NUM_NODES", "1") != "1":
        raise DistributedError(
            f"SUBMITIT_LOCAL_JOB_NUM_NODES={environ['SUBMITIT_LOCAL_JOB_NUM_NODES']}: local means one node"
        )
    host = socket.gethostname()
    # all ranks are children of one controller; process ids are reused, hence also the tick of its start (field 22)
    parent = os.getppid()
    try:
        began = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        raise DistributedError(f"process {parent}, which started this rank, has ended") from None
    key = f"local-{re.sub(r'[^A-Za-z0-9.-]', '_', host)}-{parent}-{began}"
    return Placement(rank, size, local_rank, size, 0, 1, ((host, size),), host, key, "local")
