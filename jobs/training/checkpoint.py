"""Checkpoints of a run: step-000123.pt, with last.pt and best.pt as links. Each is whole or not there."""

import io
import os
import pickle
import re
import struct
from pathlib import Path

import torch

from htr.models.legacy import current_names
from jobs.cli.console import log
from jobs.training.run_lock import RunLock
from shards import files

KEPT_CHECKPOINTS = 3  # the newest ones, beside the best
# what reading a damaged file may raise: torch's reader runs a small interpreter over it, and looks into what it made
DAMAGE = (
    *(RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError),
    *(struct.error, pickle.UnpicklingError),
)
WEIGHT_COPIES = 4  # of the weights in a checkpoint: themselves, their average, the optimizer's two at most


def assert_room(folder: Path, weights: int) -> None:
    """Raises ValueError when the file system of an existing folder has no room for a run's checkpoints of so many
    weights. A quota shows here only on file systems that tell of it.
    """
    room = os.statvfs(folder)
    wanted, free = (KEPT_CHECKPOINTS + 2) * WEIGHT_COPIES * 4 * weights / 2**20, room.f_bavail * room.f_frsize / 2**20
    if free < wanted:
        raise ValueError(f"{folder}: {free:.0f} MiB are free, the run's checkpoints take {wanted:.0f}: make room first")
    if room.f_files and room.f_favail < 100:
        raise ValueError(f"{folder}: only {room.f_favail} more files (inodes) are allowed there: make room first")


def save(folder: Path, step: int, state: dict, best: bool, lock: RunLock | None = None) -> None:
    """Write step-STEP.pt, point last.pt (and best.pt) at it, and remove what is too old. Raises OSError, and a
    ValueError when the run is no longer the `lock`'s.
    """
    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = folder / f"step-{step:06d}.pt"
    (lock or files).replace(path, buffer.getvalue())
    attempts = lock.fence if lock else folder
    point(folder / "last.pt", path.name, attempts)
    if best:
        point(folder / "best.pt", path.name, attempts)
    kept = {(folder / name).readlink().name for name in ("last.pt", "best.pt") if (folder / name).is_symlink()}
    if lock:
        lock.assert_owner()
    for old in steps(folder)[KEPT_CHECKPOINTS:]:
        if old.name not in kept:
            old.unlink()


def point(link: Path, target: str, attempts: Path) -> None:
    attempt = files.temporary(attempts / link.name)
    attempt.symlink_to(target)
    attempt.replace(link)


def steps(folder: Path) -> list[Path]:
    """The checkpoints in the folder, the newest first. A copy that somebody made there, step-000123-old.pt, is none."""
    found = (path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+", path.stem))
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """step-000123.pt -> 123."""
    return int(checkpoint.stem.removeprefix("step-"))


def load_newest(folder: Path) -> dict | None:
    """The newest checkpoint that can be read, on the CPU; None where there is none. A damaged one is named and skipped.

    Raises ValueError when there are some and all are damaged, OSError where that is the storage's fault, or the newest
    one may not be read by this user.
    """
    found, failed = steps(folder), []
    for path in found:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return state | {part: current_names(state[part]) for part in ("model", "average") if part in state}
        except PermissionError:  # the ones before would be no better
            raise
        except (*DAMAGE, OSError) as error:
            failed.append(error)
            log(f"checkpoint {path.name} is damaged ({type(error).__name__}): the one before is taken")
    if failed and all(isinstance(error, OSError) for error in failed):
        raise failed[0]  # nothing is wrong with what is stored, for all one knows
    if found:
        raise ValueError(f"{folder}: none of its {len(found)} checkpoints can be read; remove them to begin again")
    return None
