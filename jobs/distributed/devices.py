"""The device of this rank: its own GPU, or the CPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from jobs.distributed.gpu_names import VISIBLE, cards_of_parts, listed, named_gpus
from jobs.distributed.placement import DistributedError, Placement

# variables of a task that has GPUs, with their values where it has none: two are lists of indices, one is a count
GPU_VARIABLES = {"SLURM_STEP_GPUS": [""], "SLURM_JOB_GPUS": [""], "SLURM_GPUS_ON_NODE": ["", "0"]}
READ_AT_ONCE = {"cpu": 16, "cuda": 128}  # default lines of a batch in reading; a GPU needs many to be busy


def visible_gpus() -> list[str]:
    """A unique name of each GPU that torch sees; CARD/NAME for a part of a card (MIG)."""
    if not torch.cuda.is_available():
        return []
    found = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    parts = [name for name in named_gpus() or [] if name.startswith("MIG-")]
    if not parts:
        return found
    cards = cards_of_parts(listed())
    return [f"{cards.get(name, 'a card')}/{name}" for name in parts[: len(found)]]


def take_device(place: Placement, device: str = "auto") -> torch.device:
    """The device of this rank. `device`: auto, cpu or cuda.

    Raises a DistributedError where the numbers of GPUs and tasks do not match: GPUs would be shared, or left unused.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise DistributedError(f"device {device!r} is not one of auto, cpu, cuda")
    if device == "cpu":
        return torch.device("cpu")
    count = len(visible_gpus())
    if count == 0:
        # in the shell of salloc, on a login node, the variables are those of GPUs elsewhere
        here = "SLURMD_NODENAME" in os.environ
        given = [name for name, none in GPU_VARIABLES.items() if here and os.environ.get(name, "") not in none]
        if given or device == "cuda":
            gave = f"Slurm gave GPUs ({given[0]}={os.environ[given[0]]}) but " if given else ""
            raise DistributedError(
                f"{gave}torch {torch.__version__} sees none: mend its CUDA, or work with --device cpu"
            )
        return torch.device("cpu")
    names = named_gpus()
    if names and len(names) > count and len({name.startswith("MIG-") for name in names}) == 1:
        # CUDA uses only the first of several MIG names, and skips other names that it does not know
        mine = names[place.local_rank] if place.local_rank < len(names) else names[0]
        if not mine.startswith("MIG-"):
            raise DistributedError(
                f"{VISIBLE}={','.join(names)} on {place.host} names {len(names)} GPUs, torch sees {count}: mend it"
            )
        raise DistributedError(
            f"{VISIBLE} on {place.host} names {len(names)} parts of cards (MIG), of which a process can use one: give "
            f"each task its own ({VISIBLE}={mine}), or whole GPUs"
        )
    if place.source == "alone" or count == place.local_size:
        return torch.device("cuda", place.local_rank)
    if count == 1:
        return torch.device("cuda", 0)  # each task is bound to one GPU; the rendezvous checks that no two share one
    raise DistributedError(
        f"{count} GPUs but {place.local_size} task{'s' * (place.local_size > 1)} on {place.host}:"
        f" start as many tasks a node as GPUs (--ntasks-per-node={count}), or work with --device cpu"
    )


def reading_batch(asked: int | None, device: torch.device) -> int:
    """The batch size of verbs that read lines: --batch, or the default of the device. Raises ValueError under 1."""
    if asked is not None and asked < 1:
        raise ValueError("--batch is 1 or more")
    return READ_AT_ONCE[device.type] if asked is None else asked


@contextmanager
def batch_fits(images: Any) -> Iterator[None]:
    """Around the reading of a batch (N, 1, H, W): raises a DistributedError where the GPU's memory is too small."""
    try:
        yield
    except torch.OutOfMemoryError:
        count, _, height, width = images.shape
        raise DistributedError(
            f"the GPU's memory is too small for {count} lines of {width} x {height} px at once: set a smaller --batch"
        ) from None
