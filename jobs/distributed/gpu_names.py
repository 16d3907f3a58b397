"""GPUs by the names that a user gives them in CUDA_VISIBLE_DEVICES, and the cards that parts by MIG belong to."""

import os
import subprocess
from collections.abc import Mapping

from jobs.distributed.placement import DistributedError

VISIBLE = "CUDA_VISIBLE_DEVICES"  # as a user or Slurm sets it: indices, GPU-… and MIG-… names


def named_gpus(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists, as it is written; None where it is not set.

    CUDA stops at what it does not know, without a word. Raises a DistributedError for what it can't know.
    """
    if VISIBLE not in environ:
        return None
    names = [name.strip() for name in environ[VISIBLE].split(",") if name.strip()]
    if names in (["-1"], ["NoDevFiles"]):  # none at all, as users and Slurm write it
        return []
    for name in names:
        if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
            raise DistributedError(f"{VISIBLE}={environ[VISIBLE]}: '{name}' is no index and no GPU-… or MIG-… name")
    if len(set(names)) < len(names):
        raise DistributedError(f"{VISIBLE}={environ[VISIBLE]}: a GPU is named twice")
    return names


def gpus_of_ranks(count: int, environ: Mapping[str, str] = os.environ) -> str | None:
    """What CUDA_VISIBLE_DEVICES shall be for so many ranks on this machine: the first of those that the user named;
    None where that is not set. Raises ValueError where too few are named.
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
    """What `nvidia-smi -L` says; empty where it is not there."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def cards_of_parts(listing: str) -> dict[str, str]:
    """MIG name -> the name of its card, from lines "GPU 0: … (UUID: GPU-…)", below them "MIG … (UUID: MIG-…)"."""
    card, found = "", {}
    for line in listing.splitlines():
        name = line.rpartition("UUID: ")[2].rstrip(") ")
        if name.startswith("GPU-"):
            card = name
        elif name.startswith("MIG-"):
            found[name] = card
    return found
