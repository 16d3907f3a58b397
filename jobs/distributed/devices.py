"""Which device this rank computes on: its own GPU, or the CPU."""

import os

import torch

from jobs.distributed.placement import DistributedError, Placement

# what says that a task has GPUs, with the values that say it has none: two are lists of indices, one is a count
GPU_VARIABLES = {"SLURM_STEP_GPUS": [""], "SLURM_JOB_GPUS": [""], "SLURM_GPUS_ON_NODE": ["", "0"]}


def visible_gpus() -> list[str]:
    """A unique name for each GPU that torch can use here."""
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def take_device(place: Placement, device: str = "auto") -> torch.device:
    """The device of this rank; a DistributedError where GPUs and tasks do not match: it would waste or share GPUs."""
    if device not in ("auto", "cpu", "cuda"):
        raise DistributedError(f"device {device!r} is not one of auto, cpu, cuda")
    if device == "cpu":
        return torch.device("cpu")
    count = len(visible_gpus())
    if count == 0:
        # on a login node, in the shell of salloc, the variables speak of GPUs that are elsewhere
        here = "SLURMD_NODENAME" in os.environ
        given = [name for name, none in GPU_VARIABLES.items() if here and os.environ.get(name, "") not in none]
        if given or device == "cuda":
            gave = f"Slurm gave GPUs ({given[0]}={os.environ[given[0]]}) but " if given else ""
            raise DistributedError(
                f"{gave}torch {torch.__version__} sees none: mend its CUDA, or work with --device cpu"
            )
        return torch.device("cpu")
    if place.source == "alone" or count == place.local_size:
        return torch.device("cuda", place.local_rank)
    if count == 1:
        return torch.device("cuda", 0)  # each task is bound to a GPU of its own; the meeting checks that it is one
    raise DistributedError(
        f"{count} GPUs but {place.local_size} task{'s' * (place.local_size > 1)} on {place.host}:"
        f" start as many tasks a node as GPUs (--ntasks-per-node={count}), or work with --device cpu"
    )
