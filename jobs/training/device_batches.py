"""Batches on their way to the GPU: pinned where they are made, copied on a stream of their own one batch ahead.

On the CPU nothing of it happens: batches are used where they lie.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from shards.loader import Batch, Team


def team_of(workers: int, device: torch.device) -> Team:
    """Whose batches a device can copy by itself."""
    return Team(workers, pin if device.type == "cuda" else None)


def pin(memory: np.ndarray) -> None:
    """Page-locked for CUDA as it is: no copy into pinned memory is needed. Raises RuntimeError where it is refused."""
    torch.cuda.check_error(torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0))


class CudaCopies:
    """Copies on a stream of their own: while they are under way, the device computes the batch before."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def begin(self, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """-> the same on the device, not there yet, and what tells when it is."""
        with torch.cuda.stream(self.stream):
            copied, event = images.to(self.device, non_blocking=True), torch.cuda.Event()
            event.record(self.stream)
        return copied, event

    def use(self, copied: torch.Tensor, event: Any) -> None:
        """Whatever is asked of the device from now on comes after the copy; the host does not wait."""
        now = torch.cuda.current_stream(self.device)
        now.wait_event(event)
        copied.record_stream(now)

    def wait(self, event: Any) -> None:
        event.synchronize()


def on_device(batches: Iterable[Batch], device: torch.device, copies: Any = None) -> Iterator[Batch]:
    """The batches with their images on the device; `copies`: who copies (tests count with a stand-in)."""
    if device.type != "cuda" and copies is None:
        with contextlib.closing(batches):
            yield from batches
        return
    copies = copies or CudaCopies(device)
    before = coming = None  # a batch whose memory is given back once its copy is done; one that is being copied
    with contextlib.closing(batches):
        for batch in batches:
            following = begin(batch, copies)
            if coming:
                yield use(coming, copies)
                if before and before[2] is not None:
                    copies.wait(before[2])
                before = coming
            coming = following
        if coming:
            yield use(coming, copies)
            if coming[2] is not None:
                copies.wait(coming[2])


def begin(batch: Batch, copies: Any) -> tuple[Batch, torch.Tensor, Any]:
    images = batch.images
    if not images.numel():
        return batch, images, None
    # all that there is room for: one piece of memory, where the lines alone would be copied together on the host first
    whole = images.as_strided((*images.shape[:3], images.stride(2)), images.stride())
    copied, event = copies.begin(whole)
    return batch, copied[..., : images.shape[3]], event


def use(coming: tuple[Batch, torch.Tensor, Any], copies: Any) -> Batch:
    batch, copied, event = coming
    if event is not None:
        copies.use(copied, event)
    return replace(batch, images=copied)
