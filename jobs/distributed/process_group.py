"""The process group of a job on Horovod: start, sum, broadcast, gather. The only file that imports it.

    with process_group.start(run_folder) as world:
        world.broadcast_parameters(model)
        wait = world.sum_gradients(model.parameters())
        ...
        loss.backward()
        wait()      # gradients of all ranks are summed now: unscale, clip
        optimizer.step()

In a world of one everything works without Horovod. What goes wrong is a DistributedError with one line for the user.
"""

import hashlib
import os
import pickle
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch

from jobs.distributed.gradient_buckets import GradientBuckets
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.placement import DistributedError, Placement, Settings, bind, take_device, visible_gpus
from jobs.distributed.rendezvous import About, Rendezvous, rendezvous_of_ranks


def start(folder: Path, device: str = "auto", deterministic: bool = False) -> "ProcessGroup":
    """Join the other ranks of this job; `folder`, on storage that all nodes share, is where they find each other.

    `deterministic`: gradients are summed in the same order each time. `device` is cpu, cuda, or auto (cuda where torch
    sees a GPU). Raises a DistributedError, the same one on every rank.
    """
    place = Placement.find()
    if place.size == 1:
        return ProcessGroup(place, take_device(place, device))
    settings = Settings.find()
    chosen, about = _about(place, device, settings.shared_gpu)
    meeting = rendezvous_of_ranks(place, Path(folder), settings, about, _serve)
    place = replace(place, hosts=meeting.hosts)
    try:
        _tell_horovod(place, meeting, settings, chosen)
        if deterministic:  # what would be fused with what hangs on who comes first
            os.environ |= {"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_AUTOTUNE": "0"}
        hvd = _horovod()
        hvd.init()  # what can fail has been checked: in here a failure would be an abort
        if (hvd.rank(), hvd.size()) != (place.rank, place.size):
            raise DistributedError(
                f"Horovod says rank {hvd.rank()} of {hvd.size()}, {place.source} says rank {place.rank} of {place.size}"
            )
        group = ProcessGroup(place, chosen, hvd, settings.shared_gpu)
        group.barrier()  # from here on nobody needs the rendezvous, and nothing more listens for strangers
    finally:
        meeting.close()
    return group


# --- what this rank tells the others


def _about(place: Placement, device: str, shared: bool = False) -> tuple[torch.device, About]:
    """This rank's device, and what it tells the others; what is wrong here becomes an error that all hear of.

    `shared`: NCCL refuses two ranks on one GPU, so they work without it, and the meeting hears of no GPU.
    """
    chosen, gpu, errors = torch.device("cpu"), "", []
    try:
        hvd = _horovod()
        chosen = take_device(place, device)
        if chosen.type == "cuda":
            gpu = "" if shared else visible_gpus()[chosen.index]
            if not shared and not hvd.nccl_built():
                raise DistributedError(
                    "this Horovod was built without NCCL: run HOROVOD_GPU_OPERATIONS=NCCL slurm/setup.sh"
                )
            torch.cuda.set_device(chosen)
    except DistributedError as error:
        errors.append(str(error))
    return chosen, About(chosen.type, gpu, versions(), "; ".join(errors))


@cache
def versions() -> dict[str, str]:
    """Versions that must be the same on every rank: torch, Horovod, and a digest of this project's code."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for package in ("htr", "jobs", "shards"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    try:
        horovod = version("horovod")
    except PackageNotFoundError:
        horovod = "not installed"
    return {"code": digest.hexdigest()[:12], "horovod": horovod, "torch": torch.__version__}


# --- Horovod, old and only here


def _horovod() -> ModuleType:
    try:
        import horovod.torch as hvd
    except Exception as error:  # a library that does not fit torch can raise anything
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise DistributedError(f"Horovod cannot be imported ({line}): run slurm/setup.sh") from None
    if not hasattr(hvd, "init"):  # it only prints where its library is missing
        raise DistributedError("Horovod is installed without its torch library: run slurm/setup.sh")
    return hvd


def _tell_horovod(place: Placement, meeting: Rendezvous, settings: Settings, device: torch.device) -> None:
    """Set the variables that hvd.init() reads; without them it starts as a world of one and says nothing."""
    for name in ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size"):
        os.environ[f"HOROVOD_{name.upper()}"] = str(getattr(place, name))
    os.environ["HOROVOD_HOSTNAME"] = place.host
    os.environ["HOROVOD_CONTROLLER"] = os.environ["HOROVOD_CPU_OPERATIONS"] = "gloo"
    os.environ["HOROVOD_GLOO_IFACE"] = meeting.interface
    os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"] = meeting.address
    os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"] = str(meeting.port)
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", "60")  # also how a rank that hangs is noticed
    os.environ.setdefault(
        "HOROVOD_FUSION_THRESHOLD", "0"
    )  # buckets are as large as they should be (jobs/distributed/gradient_buckets.py)
    if device.type == "cpu":  # each cycle costs a message to every rank, on the core that computes
        os.environ.setdefault("HOROVOD_CYCLE_TIME", "5")
    os.environ.setdefault("HOROVOD_LOG_LEVEL", "fatal")  # the DistributedError says it in one line
    # the interface that the ranks have met on: of several networks NCCL might take one that leads nowhere
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={meeting.interface}")


def _serve(
    address: str, ports: range | None, hosts: list[tuple[str, int]], allowed: set[str]
) -> tuple[int, Callable[[], None]]:
    """Start Horovod's rendezvous server; its port, and how to stop it.

    Horovod's own start() listens on every interface at any port and answers everybody: this one is bound to one
    address and the site's ports, and hears the nodes of the job only.
    """
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:
            socketserver.TCPServer.server_bind(self)  # HTTPServer's asks DNS for a name, which can take long
            self.server_name, self.server_port = self.server_address[:2]

        def verify_request(self, request: Any, client_address: tuple[str, int]) -> bool:
            return client_address[0] in allowed

        def handle_error(self, request: Any, client_address: tuple[str, int]) -> None:
            pass  # a rank that dies shows elsewhere, a stranger nowhere

    server = bind(address, ports, lambda where: Server(where, RendezvousHandler, 0))
    plan = parse_hosts(",".join(f"{host}:{count}" for host, count in hosts))
    server.init(get_host_assignments(plan, sum(count for _, count in hosts)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return server.server_port, stop


class ProcessGroup:
    """The ranks of a job at work together. Every rank must call the same methods in the same order."""

    def __init__(
        self, place: Placement, device: torch.device, hvd: ModuleType | None = None, over_host: bool = False
    ) -> None:
        """`over_host`: what is on a GPU is summed and broadcast through the host's memory, by Gloo."""
        self.place, self.device, self._hvd = place, device, hvd
        self.over_host = over_host and device.type == "cuda"
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Turn Horovod's error when another rank dies or hangs into a DistributedError; for `loss.backward()` too."""
        ACTIVITY.collective = doing if doing != "backward" else ""  # what the watchdog sees
        try:
            yield
        except Exception as error:
            if self._hvd is None or not isinstance(error, self._hvd.HorovodInternalError):
                raise
            said = (str(error).splitlines() or ["no reason given"])[0]
            if "has been shut down" in said:  # three sentences that come to this
                said = "another rank ended or stopped answering, its log says why"
            raise DistributedError(f"{doing}: {said}") from error
        finally:
            ACTIVITY.collective = ""

    def broadcast_parameters(self, module: torch.nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0, in place."""
        if self._hvd is not None:
            state = module.state_dict()
            sent = {name: tensor.cpu() for name, tensor in state.items()} if self.over_host else state
            with self.guard("broadcast of parameters"):
                self._hvd.broadcast_parameters(sent, root_rank=0)
            if self.over_host:
                module.load_state_dict(sent)

    def broadcast_object(self, obj: Any, name: str) -> Any:
        """Rank 0's object; that of the other ranks is not looked at."""
        if self._hvd is None:
            return obj
        with self.guard(f"broadcast of {name}"):
            return self._hvd.broadcast_object(obj if self.rank == 0 else None, root_rank=0, name=name)

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Each value summed over the ranks, in float64; the names must be the same on every rank."""
        return self.ask(values)()

    def ask(self, values: dict[str, float]) -> Callable[[], dict[str, float]]:
        """`sum`, but it returns at once: call what it returns for the sums, when other work is done."""
        if self._hvd is None:
            return lambda: {name: float(value) for name, value in values.items()}
        names = sorted(values)
        ours = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        with self.guard("sum"):
            handle = self._hvd.allreduce_async(ours, op=self._hvd.Sum, name=" ".join(["sum", *names]))

        def answer() -> dict[str, float]:
            with self.guard("sum"):
                total = dict(zip(names, self._hvd.synchronize(handle).tolist(), strict=True))
            return {name: total[name] for name in values}

        return answer

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank: how the ranks agree to skip a step or to stop."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def sum_gradients(
        self, parameters: Iterable[torch.nn.Parameter], compression: str = "none", passes: int = 1
    ) -> Callable[[], None]:
        """Sum (never average) these parameters' gradients over all ranks, while backward still runs.

        Call what it returns after backward, and they are summed. `compression`: none, or fp16 or bf16 on the way;
        `passes`: backward passes whose gradients are accumulated before.
        """
        if self._hvd is None:
            return lambda: None
        buckets = GradientBuckets(self._hvd, parameters, compression, passes, self.over_host)

        def wait() -> None:
            with self.guard("sum of gradients"):
                buckets.wait()

        return wait

    def on_root(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Let rank 0 alone do something: its result is everyone's, and if it raises, every rank raises the same."""
        with ACTIVITY.during("rank 0's files"):
            return self._on_root(fn, *args)

    def _on_root(self, fn: Callable[..., Any], *args: Any) -> Any:
        if self._hvd is None:
            return fn(*args)
        answer = b""
        if self.rank == 0:
            try:
                answer = pickle.dumps((True, fn(*args)))
            except Exception as error:
                self.broadcast_object(_portable(error), "on_root")
                raise
        good, value = pickle.loads(self.broadcast_object(answer, "on_root"))
        if not good:
            raise value
        return value

    def gather(self, obj: Any) -> list[Any]:
        """The objects of all ranks, in the order of the ranks."""
        if self._hvd is None:
            return [obj]
        with self.guard("gather"):
            return self._hvd.allgather_object(obj, name="gather")

    def barrier(self) -> None:
        """Wait for every rank."""
        if self._hvd is not None:
            with self.guard("barrier"):
                self._hvd.barrier()

    def close(self) -> None:
        """Leave the process group; the others notice if they still want something of this rank."""
        if self._hvd is not None:
            self._hvd.shutdown()

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _portable(error: Exception) -> bytes:
    """A pickle of the exception, or of a DistributedError with its message where that cannot travel."""
    try:
        data = pickle.dumps((False, error))
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps((False, DistributedError(f"{type(error).__name__} on rank 0: {error}")))
