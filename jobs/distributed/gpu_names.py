"""Names of GPUs in CUDA_VISIBLE_DEVICES, and the cards that MIG parts belong to."""

import os
import subprocess
from collections.abc import Mapping

from jobs.distributed.placement import DistributedError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # set by a user or Slurm: indices, GPU-… and MIG-… names


def named_gpus(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The entries of CUDA_VISIBLE_DEVICES as written; None where it is not set, [] for no GPU at all.

    CUDA stops at a wrong entry without a message. So this raises a DistributedError for one.
    """
    if VISIBLE not in environ:
        return None
    names = [name.strip() for name in environ[VISIBLE].split(",") if name.strip()]
    if names in (["-1"], ["NoDevFiles"]):  # no GPU, as users and Slurm write it
        return []
    for name in names:
        if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
            raise DistributedError(f"{VISIBLE}={environ[VISIBLE]}: '{name}' is no index and no GPU-… or MIG-… name")
    if len(set(names)) < len(names):
        raise DistributedError(f"{VISIBLE}={environ[VISIBLE]}: a GPU is named twice")
    return names


def gpus_of_ranks(count: int, environ: Mapping[str, str] = os.environ) -> str | None:
    """The value of CUDA_VISIBLE_DEVICES for `count` ranks on this machine: the first of the user's entries.

    None where it is not set. Raises ValueError where it has too few entries.
    """
    try:
        names = named_gpus(environ)
    except DistributedError as error:
        raise ValueError(str(error)) from None
    if names is None:
        return None
    if len(names) < count:
        raise ValueError(f"--gpus-per-node {count}, but {VISIBLE}={environ[VISIBLE]} names {len(names)}")
    return ",".join(names[:count])


def listed() -> str:
    """The output of `nvidia-smi -L`; "" where there is no such program."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def cards_of_parts(listing: str) -> dict[str, str]:
    """The output of `nvidia-smi -L` -> the name of the card of each MIG part, by the part's name.

    Its lines are "GPU 0: … (UUID: GPU-…)" and, below each, "MIG … (UUID: MIG-…)".
    """
    card, found = "", {}
    for line in listing.splitlines():
        name = line.rpartition("UUID: ")[2].rstrip(") ")
        if name.startswith("GPU-"):
            card = name
        elif name.startswith("MIG-"):
            found[name] = card
    return found
