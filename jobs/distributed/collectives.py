"""What the process group asks of a library of collectives: one small interface with two implementations.

jobs/distributed/horovod_backend.py is the default, jobs/distributed/torch_backend.py is torch.distributed. Each is the
only file that imports its library, and offers, beside a class with the methods of `Collectives`,

    NAME                                     as --backend has it
    check(device)                            raises a DistributedError where this library can't work here
    Server(address, ports, hosts, allowed)   on rank 0: where the ranks find each other; `port`, and `stop()`
    join(meeting, place, settings, device)   -> Collectives; all ranks have met and know of each other
"""

import pickle
from typing import Any, Protocol

import torch
from torch import Tensor

Handle = Any  # of a collective that has begun: its own library's


class CollectiveError(RuntimeError):
    """Another rank ended or stopped answering; one line, what is known of it."""


LOST = "another rank ended or stopped answering, its log says why"


class Collectives(Protocol):
    """All ranks call the same methods in the same order. Where another rank is lost: a CollectiveError.

    `ordered`: collectives that are begun side by side must begin in the same order on all ranks; where it is False the
    library finds that order by itself.
    """

    size: int
    ordered: bool

    def sum_(self, tensor: Tensor, name: str) -> Handle:
        """Begin to sum a contiguous tensor over all ranks, in place. `name`: the same on all ranks, one at a time."""

    def all_to_all(self, tensor: Tensor, name: str) -> Handle:
        """Begin to give part i of a flat tensor, of `size` parts of one length, to rank i; parts come back by rank."""

    def all_gather(self, tensor: Tensor, name: str) -> Handle:
        """Begin to collect a flat tensor of each rank, of one length, one after the other."""

    def done(self, handle: Handle) -> bool:
        """Whether `wait` would return at once."""

    def wait(self, handle: Handle) -> Tensor:
        """The result. On a GPU: what is computed from now on waits for it there."""

    def broadcast_(self, tensors: dict[str, Tensor]) -> None:
        """Give every rank the tensors of rank 0, in place; they are contiguous, and need no gradient."""

    def broadcast_object(self, obj: Any, name: str) -> Any:
        """Rank 0's object."""

    def gather_objects(self, obj: Any) -> list[Any]:
        """The objects of all ranks, in the order of the ranks."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def close(self, failed: bool) -> None:
        """Leave. `failed`: another rank may be lost, and must not be waited for."""


def to_bytes(obj: Any) -> Tensor:
    """A pickle as a uint8 tensor. The ranks of a job run the same code and trust each other."""
    return torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)


def from_bytes(data: Tensor) -> Any:
    return pickle.loads(data.numpy().tobytes())
