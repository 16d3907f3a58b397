"""The interface between the process group and a library of collectives. It has two implementations.

jobs/distributed/horovod_backend.py is the default, jobs/distributed/torch_backend.py is torch.distributed. Each is the
only file that imports its library. Besides a class with the methods of `Collectives` each has

    NAME                                     the value of --backend
    check(device)                            raises a DistributedError where the library can't work on this device
    Server(address, ports, hosts, allowed)   on rank 0: the library's own rendezvous server; `port`, and `stop()`
    join(meeting, place, settings, device)   -> Collectives, after the rendezvous of all ranks
"""

import pickle
from typing import Any, Protocol

import torch
from torch import Tensor

Handle = Any  # of a collective that has begun, as its library has it


class CollectiveError(RuntimeError):
    """Another rank has ended, or does not answer. The message is one line with what is known of it."""


LOST = "another rank ended or stopped answering, its log says why"


class Collectives(Protocol):
    """All ranks call the same methods in the same order. A method raises CollectiveError where another rank is lost.

    `size`: number of ranks. `ordered`: collectives that are in progress at the same time must have begun in the same
    order on all ranks; if it is False the library agrees on an order by itself.
    """

    size: int
    ordered: bool

    def sum_(self, tensor: Tensor, name: str) -> Handle:
        """Begin the sum of a contiguous tensor over all ranks, in place.

        `name`: the same on all ranks, unique meanwhile.
        """

    def all_to_all(self, tensor: Tensor, name: str) -> Handle:
        """Begin to send part i of a flat tensor, which has `size` equal parts, to rank i -> the parts
        received, by rank.
        """

    def all_gather(self, tensor: Tensor, name: str) -> Handle:
        """Begin to collect a flat tensor of equal length from each rank -> all of them in one, by rank."""

    def done(self, handle: Handle) -> bool:
        """Whether the collective has ended, so that `wait` returns at once."""

    def wait(self, handle: Handle) -> Tensor:
        """Wait for the result. On a GPU only the kernels that are launched from now on wait for it."""

    def broadcast_(self, tensors: dict[str, Tensor]) -> None:
        """Copy the tensors of rank 0 to every rank, in place. They are contiguous and require no gradient."""

    def broadcast_object(self, obj: Any, name: str) -> Any:
        """-> the object of rank 0."""

    def gather_objects(self, obj: Any) -> list[Any]:
        """-> the objects of all ranks, by rank."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def close(self, failed: bool) -> None:
        """Leave the group. `failed`: another rank may be lost, so do not wait for any."""


def to_bytes(obj: Any) -> Tensor:
    """A pickle as a uint8 tensor. The ranks of a job run the same code and trust each other."""
    return torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)


def from_bytes(data: Tensor) -> Any:
    return pickle.loads(data.numpy().tobytes())
