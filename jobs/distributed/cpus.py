"""The number of CPUs that this process may use. All verbs take their numbers of threads and workers from it.

There are two sources, and neither is enough. Slurm's variables have what the task was given; the affinity mask has what
the system allows. With task/affinity or cgroups the mask is that of the task. Without them every task of a node sees
all CPUs, also those of other jobs. So the answer is the task's share by Slurm, but at most the CPUs of the mask.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from jobs.distributed.placement import Placement, in_step

TOPOLOGY = Path("/sys/devices/system/cpu")


def cpus_of_task(
    environ: Mapping[str, str] = os.environ, mask: set[int] | None = None, topology: Path = TOPOLOGY
) -> int:
    """The CPUs of this process, at least 1; with `--hint=nomultithread` its cores.

    `mask`: numbers of the CPUs that it may run on (default: of this process). Raises a DistributedError where Slurm's
    variables contradict each other.
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
    elif on_node and "SLURMD_NODENAME" in environ:  # in the shell of salloc it is that of another node
        share = on_node // threads // local_size  # it also counts the threads that may not be used
    else:
        share = limit // local_size
    return max(min(share, limit), 1)


def decoding_workers(device: str) -> int:
    """The number of processes that decode images while this one computes. `device`: its type, cpu or cuda.

    With a GPU all CPUs but one. On a CPU 0: a thread of this process is enough.
    """
    return 0 if device == "cpu" else max(cpus_of_task() - 1, 1)


def siblings(cpu: int, topology: Path = TOPOLOGY) -> tuple[int, ...]:
    """The numbers of the hardware threads of the core of this CPU."""
    try:
        listed = (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="utf-8").strip()
    except OSError:
        return (cpu,)
    ranges = [part.partition("-") for part in listed.split(",")]
    return tuple(number for first, _, last in ranges for number in range(int(first), int(last or first) + 1))


def count(environ: Mapping[str, str], name: str) -> int:
    """A whole number in the environment; 0 where the variable is missing or is no number."""
    value = environ.get(name, "")
    return int(value) if value.isdigit() else 0


def limit_threads(cpus: int) -> None:
    """Set the number of threads of torch, Arrow and OpenCV, for this process and those that it starts.

    To be called before they are imported.
    """
    # a value of the user is kept; a value that the parent process chose was for the parent alone
    chosen = os.environ.get("HTR_CHOSE_THREADS", "").split()
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):  # torch and Arrow follow the first
        if name not in os.environ or name in chosen:
            os.environ[name] = str(cpus)
            chosen = sorted({*chosen, name})
    os.environ["HTR_CHOSE_THREADS"] = " ".join(chosen)
