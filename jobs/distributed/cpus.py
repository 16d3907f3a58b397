"""How many CPUs this process may use. Every verb asks here: its threads and worker processes follow the answer.

Two things say it, and neither alone is right. Slurm's variables say what the task was given, the affinity mask what the
system allows. With task/affinity or cgroups the mask is the task's own; without them every task of a node sees all CPUs
of it, those of other jobs too. So the answer is the task's share by Slurm, and never more than the mask.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.distributed.placement import Placement, in_step

TOPOLOGY = Path("/sys/devices/system/cpu")


def cpus_of_task(
    environ: Mapping[str, str] = os.environ, mask: set[int] | None = None, topology: Path = TOPOLOGY
) -> int:
    """CPUs of this process, at least 1. `mask`: the CPU numbers that it may run on (default: this process's own).

    With `--hint=nomultithread` that is cores. Raises a DistributedError where Slurm's variables contradict each other.
    """
    allowed = os.sched_getaffinity(0) if mask is None else mask
    local_size = Placement.find(environ).local_size
    limit, threads = len(allowed), 1
    if environ.get("SLURM_HINT") == "nomultithread" or environ.get("SLURM_THREADS_PER_CORE") == "1":
        cores = {siblings(cpu, topology) for cpu in allowed}
        limit, threads = len(cores), max(map(len, cores))
    given, on_node = (count(environ, f"SLURM_CPUS_{name}") for name in ("PER_TASK", "ON_NODE"))
    if given and in_step(environ):
        share = given
    elif on_node and "SLURMD_NODENAME" in environ:  # in the shell of salloc it speaks of another node
        share = on_node // threads // local_size  # it counts the threads that nobody may use, too
    else:
        share = limit // local_size
    return max(min(share, limit), 1)


def decoding_workers(device: str) -> int:
    """Processes that decode images while this one computes: on a GPU (`device` is its type) all CPUs but one; none
    where the CPUs compute, a thread of this process is enough."""
    return 0 if device == "cpu" else max(cpus_of_task() - 1, 1)


def siblings(cpu: int, topology: Path = TOPOLOGY) -> tuple[int, ...]:
    """The hardware threads of the core that this one belongs to."""
    try:
        listed = (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="utf-8").strip()
    except OSError:
        return (cpu,)
    ranges = [part.partition("-") for part in listed.split(",")]
    return tuple(number for first, _, last in ranges for number in range(int(first), int(last or first) + 1))


def count(environ: Mapping[str, str], name: str) -> int:
    """A number in the environment; 0 where there is none."""
    value = environ.get(name, "")
    return int(value) if value.isdigit() else 0


def limit_threads(cpus: int) -> None:
    """Threads of torch, Arrow and OpenCV in this process and those that it starts. Before they are imported."""
    # what the user set stands; what the process that started this one chose was for itself
    chosen = os.environ.get("HTR_CHOSE_THREADS", "").split()
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):  # torch and Arrow follow the first
        if name not in os.environ or name in chosen:
            os.environ[name] = str(cpus)
            chosen = sorted({*chosen, name})
    os.environ["HTR_CHOSE_THREADS"] = " ".join(chosen)
