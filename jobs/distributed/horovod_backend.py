"""Horovod as the library of the process group: the default (--backend horovod). The only file that imports it."""

import os
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from jobs.distributed.collectives import LOST, CollectiveError
from jobs.distributed.network import Settings, bind, family, tell_nccl
from jobs.distributed.placement import DistributedError, Placement
from jobs.distributed.rendezvous import Rendezvous

NAME = "horovod"
POLL_INTERVAL_S = 1e-4  # between two polls of a sum: Horovod's own wait takes a whole core


def check(device: torch.device) -> None:
    """Raises a DistributedError where Horovod can't be imported, or can't sum on this device."""
    hvd = _horovod()
    if device.type == "cuda" and not hvd.nccl_built():
        raise DistributedError(
            f"this Horovod was built without NCCL{built()}: run HOROVOD_GPU_OPERATIONS=NCCL slurm/setup.sh, or train "
            f"with --backend torch"
        )


def built(prefix: Path = Path(sys.prefix)) -> str:
    """How Horovod was built, " (cpu on login1, 2026-11-26)", from the stamp of slurm/setup.sh; "" without a stamp."""
    try:
        line = (prefix / ".htr-setup").read_text(encoding="utf-8").splitlines()[1]
    except (OSError, IndexError):
        return ""
    return f" ({line})"


def _horovod() -> ModuleType:
    try:
        import horovod.torch as hvd
    except Exception as error:  # one that was built for another torch can raise anything
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise DistributedError(f"Horovod cannot be imported ({line}): run slurm/setup.sh") from None
    if not hasattr(hvd, "init"):  # without its compiled library it only prints a message
        raise DistributedError("Horovod is installed without its torch library: run slurm/setup.sh")
    return hvd


def join(meeting: Rendezvous, place: Placement, settings: Settings, device: torch.device) -> "Horovod":
    """Start Horovod. Raises a DistributedError where its rank or size are not those of the rendezvous."""
    for link in meeting.links.values():  # Horovod notices lost ranks by itself
        link.close()
    _tell(place, meeting, settings, device)
    hvd = _horovod()
    hvd.init()  # a failure in here would abort the process, so everything was checked before
    if (hvd.rank(), hvd.size()) != (place.rank, place.size):
        raise DistributedError(
            f"Horovod says rank {hvd.rank()} of {hvd.size()}, {place.source} says rank {place.rank} of {place.size}"
        )
    return Horovod(hvd)


def _tell(place: Placement, meeting: Rendezvous, settings: Settings, device: torch.device) -> None:
    """Set the variables that hvd.init() reads. Without them it starts as a world of one without a message."""
    for name in ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size"):
        os.environ[f"HOROVOD_{name.upper()}"] = str(getattr(place, name))
    os.environ["HOROVOD_HOSTNAME"] = place.host
    os.environ["HOROVOD_CONTROLLER"] = os.environ["HOROVOD_CPU_OPERATIONS"] = "gloo"
    os.environ["HOROVOD_GLOO_IFACE"] = meeting.interface
    os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = meeting.address
    os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"] = str(meeting.port)
    # after this time without an answer a rank counts as lost
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", f"{settings.peer_timeout:.0f}")
    # no fusion: buckets have the right size already (jobs/distributed/gradient_buckets.py)
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    if device.type == "cpu":  # each cycle costs a message to every rank, on the core that computes
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")
    let_the_gpu_wait(device, settings.shared_gpu)
    os.environ.setdefault("HOROVOD_LOG_LEVEL", "fatal")  # the DistributedError has it in one line
    tell_nccl(meeting.interface, meeting.address)


def let_the_gpu_wait(device: torch.device, shared: bool) -> None:
    """Over NCCL a sum counts as done once it is launched, and on the GPU what comes after waits for it.

    Otherwise the host would wait for the GPU in every step. To be called before hvd.init(). A value that the user has
    set is kept: 0 turns it off. Horovod makes the device's default stream wait (`hvd_event` in its mpi_ops_v2.cc),
    on which the steps run. `shared`: ranks share a GPU and sum in the host's memory, where there is nothing to set.
    """
    if device.type == "cuda" and not shared:
        os.environ.setdefault("HOROVOD_ENABLE_ASYNC_COMPLETION", "1")


class Server:
    """Horovod's rendezvous server, from the rendezvous of the ranks until Horovod has started.

    The one that Horovod starts by itself listens on every interface at any port and answers everybody. This one is
    bound to one address and the site's ports, and answers only the nodes of the job.
    """

    def __init__(self, address: str, ports: range | None, hosts: list[tuple[str, int]], allowed: set[str]) -> None:
        if family(address) == socket.AF_INET6:
            raise DistributedError(
                f"the ranks meet at {address}, and Horovod knows IPv4 alone: train with --backend torch, or set "
                f"HTR_IFACE to an interface that has an IPv4 address"
            )
        from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
        from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

        class Bound(RendezvousHTTPServer):
            daemon_threads = True

            def server_bind(self) -> None:
                socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks DNS for a name, which can take long
                self.server_name, self.server_port = self.server_address[:2]

            def verify_request(self, request: Any, client_address: tuple[str, int]) -> bool:
                return client_address[0] in allowed

            def handle_error(self, request: Any, client_address: tuple[str, int]) -> None:
                pass  # a lost rank is reported elsewhere

        self.server = bind(address, ports, lambda where: Bound(where, RendezvousHandler, 0))
        plan = parse_hosts(",".join(f"{host}:{count}" for host, count in hosts))
        self.server.init(get_host_assignments(plan, sum(count for _, count in hosts)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_port

    def stop(self) -> None:
        """Close the port."""
        self.server.shutdown()
        self.server.server_close()


class Horovod:
    """Collectives by Horovod, see jobs.distributed.collectives. Its ranks agree on the order of what is begun."""

    ordered = False

    def __init__(self, hvd: ModuleType) -> None:
        self.hvd, self.size = hvd, hvd.size()

    @contextmanager
    def translated(self) -> Iterator[None]:
        try:
            yield
        except self.hvd.HorovodInternalError as error:
            said = (str(error).splitlines() or ["no reason given"])[0]
            # its message of three sentences means that
            raise CollectiveError(LOST if "has been shut down" in said else said) from error

    def sum_(self, tensor: Tensor, name: str) -> int:
        with self.translated():
            return self.hvd.allreduce_async_(tensor, op=self.hvd.Sum, name=name)

    def all_to_all(self, tensor: Tensor, name: str) -> int:
        with self.translated():
            return self.hvd.alltoall_async(tensor, name=name)

    def all_gather(self, tensor: Tensor, name: str) -> int:
        with self.translated():
            return self.hvd.allgather_async(tensor, name=name)

    def done(self, handle: int) -> bool:
        return self.hvd.poll(handle)

    def wait(self, handle: int) -> Tensor:
        with self.translated():
            while not self.hvd.poll(handle):
                time.sleep(POLL_INTERVAL_S)
            found = self.hvd.synchronize(handle)
        return found[0] if isinstance(found, tuple) else found  # alltoall also returns the lengths of the parts

    def broadcast_(self, tensors: dict[str, Tensor]) -> None:
        with self.translated():
            self.hvd.broadcast_parameters(tensors, root_rank=0)

    def broadcast_object(self, obj: Any, name: str) -> Any:
        with self.translated():
            return self.hvd.broadcast_object(obj, root_rank=0, name=name)

    def gather_objects(self, obj: Any) -> list[Any]:
        with self.translated():
            return self.hvd.allgather_object(obj, name="gather")

    def barrier(self) -> None:
        with self.translated():
            self.hvd.barrier()

    def close(self, failed: bool) -> None:
        self.hvd.shutdown()
