"""torch.distributed as the library of the process group (--backend torch): Gloo on CPUs, NCCL on GPUs.

The only file that imports it. Unlike Horovod it needs no build. Unlike Horovod it needs collectives in the same order
on all ranks, and it waits for a lost rank until its time-out. So every wait on a CPU also asks the lifeline
(jobs/distributed/lifeline.py), which knows of a lost rank much earlier.
"""

import ctypes
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from jobs.distributed.collectives import LOST, CollectiveError, from_bytes, to_bytes
from jobs.distributed.lifeline import Lifeline
from jobs.distributed.network import Settings, bind, listen, tell_nccl
from jobs.distributed.placement import DistributedError, Placement
from jobs.distributed.rendezvous import Rendezvous

NAME = "torch"
POLL_INTERVAL_S = 1e-4  # between two polls of a sum
# time-out of a collective, the last resort: rank 0 may write files for long, and lifeline and watchdog act much earlier
LONGEST = timedelta(hours=6)
FILES = 4096  # limit of open files: with 512 ranks, rank 0 has three connections to each

T = TypeVar("T")


def check(device: torch.device) -> None:
    """Raises a DistributedError where this torch can't sum on this device."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise DistributedError(f"torch {torch.__version__} was built without Gloo: train with --backend horovod")
    if device.type == "cuda" and not dist.is_nccl_available():
        raise DistributedError(f"torch {torch.__version__} was built without NCCL: train with --backend horovod")


class Server:
    """torch's store, by which Gloo and NCCL find the other ranks, at one address and one of the site's ports.

    It stays open until the end, since NCCL's own monitor uses it. It holds addresses, and nothing of the data.
    """

    def __init__(self, address: str, ports: range | None, hosts: list[tuple[str, int]], allowed: set[str]) -> None:
        import torch.distributed as dist

        listener = bind(address, ports, listen)
        self.port = listener.getsockname()[1]
        size = sum(count for _, count in hosts)
        self.store = dist.TCPStore(
            address, self.port, size, True, wait_for_workers=False, master_listen_fd=listener.detach()
        )

    def stop(self) -> None:
        pass


def join(meeting: Rendezvous, place: Placement, settings: Settings, device: torch.device) -> "TorchDistributed":
    """Start torch.distributed.

    Raises a DistributedError where ranks can't connect, with the lost rank if one is known.
    """
    import torch.distributed as dist

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most >= 0:  # there is a limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, FILES), most))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", meeting.interface)
    tell_nccl(meeting.interface, meeting.address)
    hosts = [host for host, count in meeting.hosts for _ in range(count)]
    lifeline = Lifeline(place.rank, hosts, meeting.links, settings.peer_timeout)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and not settings.shared_gpu else "gloo"
    try:
        if place.rank == 0:
            store = meeting.server.store
        else:
            wait = timedelta(seconds=settings.timeout)
            store = dist.TCPStore(meeting.address, meeting.port, place.size, False, wait, wait_for_workers=False)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=LONGEST)
    except (RuntimeError, ValueError) as error:
        said = lifeline.blame() or f"torch.distributed: {(str(error).splitlines() or ['no reason given'])[0]}"
        lifeline.close(failed=True)
        raise DistributedError(said) from error
    return TorchDistributed(place.size, lifeline)


@dataclass
class Begun:
    """A collective in progress: torch's handle, the result, and the source tensor, which must live until its end."""

    work: Any
    result: Tensor
    source: Tensor


class TorchDistributed:
    """Collectives by torch.distributed, see jobs.distributed.collectives."""

    ordered = True

    def __init__(self, size: int, lifeline: Lifeline) -> None:
        import torch.distributed as dist

        self.dist, self.size, self.lifeline = dist, size, lifeline
        # all_gather_into_tensor is called all_gather_single since torch 2.13
        self.gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        self.last: Begun | None = None

    def begin(self, start: Callable[[], Any], result: Tensor, source: Tensor) -> Begun:
        self.last = Begun(self.translated(start), result, source)
        return self.last

    def translated(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as error:  # Gloo and NCCL raise this class for a lost peer
            raise CollectiveError(self.lifeline.blame() or LOST) from error

    def sum_(self, tensor: Tensor, name: str) -> Begun:
        return self.begin(lambda: self.dist.all_reduce(tensor, async_op=True), tensor, tensor)

    def all_to_all(self, tensor: Tensor, name: str) -> Begun:
        found = torch.empty_like(tensor)
        return self.begin(lambda: self.dist.all_to_all_single(found, tensor, async_op=True), found, tensor)

    def all_gather(self, tensor: Tensor, name: str) -> Begun:
        found = tensor.new_empty(self.size * len(tensor))
        return self.begin(lambda: self.gather(found, tensor, async_op=True), found, tensor)

    def done(self, handle: Begun) -> bool:
        return handle.result.is_cuda or handle.work.is_completed()

    def wait(self, handle: Begun) -> Tensor:
        while not self.done(handle):
            if self.lifeline.known.is_set():
                raise CollectiveError(self.lifeline.blame())
            time.sleep(POLL_INTERVAL_S)
        self.translated(handle.work.wait)
        return handle.result

    def broadcast_(self, tensors: dict[str, Tensor]) -> None:
        for sent in tensors.values():
            self.wait(self.begin(lambda sent=sent: self.dist.broadcast(sent, 0, async_op=True), sent, sent))

    def broadcast_object(self, obj: Any, name: str) -> Any:
        data = to_bytes(obj)
        size = torch.tensor([len(data)])
        self.broadcast_({"size": size})
        if self.dist.get_rank():
            data = torch.empty(int(size), dtype=torch.uint8)
        self.broadcast_({name: data})
        return from_bytes(data)

    def gather_objects(self, obj: Any) -> list[Any]:
        data = to_bytes(obj)
        sizes = self.wait(self.all_gather(torch.tensor([len(data)]), "sizes")).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        found = self.wait(self.all_gather(padded, "objects")).split(max(sizes))
        return [from_bytes(each[:size]) for each, size in zip(found, sizes, strict=True)]

    def barrier(self) -> None:
        self.wait(self.sum_(torch.zeros(1), "barrier"))

    def close(self, failed: bool) -> None:
        self.lifeline.close(failed or self.lifeline.known.is_set())
        if failed or self.lifeline.known.is_set():
            # its destructor waits for what is under way with a rank that answers no more: it must not run
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.dist.group.WORLD))
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.last))
        else:
            self.dist.destroy_process_group()
