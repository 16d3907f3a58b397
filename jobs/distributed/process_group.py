"""The ranks at work together: start, sum, broadcast, agree. By Horovod or by torch.distributed, the same to all others.

    with process_group.start(run_folder) as world:
        world.broadcast_parameters(model)
        wait = world.sum_gradients(model.parameters())
        ...
        loss.backward()
        wait()      # gradients of all ranks are summed now: unscale, clip
        optimizer.step()

A world of one needs neither library. What goes wrong is a DistributedError with one line for the user.
"""

import contextlib
import hashlib
import importlib
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch

from jobs.distributed.collectives import CollectiveError, Collectives
from jobs.distributed.devices import take_device, visible_gpus
from jobs.distributed.gradient_buckets import GradientBuckets
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.network import Settings
from jobs.distributed.placement import DistributedError, Placement
from jobs.distributed.rendezvous import About, rendezvous_of_ranks

BACKENDS = ("horovod", "torch")  # jobs/distributed/NAME_backend.py


def start(folder: Path, device: str = "auto", deterministic: bool = False, backend: str = "horovod") -> "ProcessGroup":
    """Join the other ranks of this job; `folder`, on storage that all nodes share, is where they find each other.

    `deterministic`: gradients are summed in the same order each time. `device` is cpu, cuda, or auto (cuda where torch
    sees a GPU). `backend`: what sums, one of BACKENDS. Raises a DistributedError, the same one on every rank.
    """
    place = Placement.find()
    if place.size == 1:
        return ProcessGroup(place, take_device(place, device))
    settings, library = Settings.find(), importlib.import_module(f"jobs.distributed.{backend}_backend")
    chosen, about = _about(place, device, library, settings.shared_gpu)
    meeting = rendezvous_of_ranks(place, Path(folder), settings, about, library.Server)
    place = replace(place, hosts=meeting.hosts)
    try:
        if deterministic:  # what would be fused with what hangs on who comes first
            os.environ |= {"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_AUTOTUNE": "0"}
        group = ProcessGroup(place, chosen, library.join(meeting, place, settings, chosen), settings.shared_gpu)
        try:
            group.barrier()  # from here on nobody needs the rendezvous
        except DistributedError:
            group.close(failed=True)
            raise
    finally:
        meeting.close()
    return group


# --- what this rank tells the others


def _about(place: Placement, device: str, library: ModuleType, shared: bool = False) -> tuple[torch.device, About]:
    """This rank's device, and what it tells the others; what is wrong here becomes an error that all hear of.

    `shared`: NCCL refuses two ranks on one GPU, so they work without it, and the meeting hears of no GPU.
    """
    chosen, gpu, errors = torch.device("cpu"), "", []
    try:
        chosen = take_device(place, device)
        if chosen.type == "cuda" and not shared:
            gpu = visible_gpus()[chosen.index]
        library.check(torch.device("cpu") if shared else chosen)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    except DistributedError as error:
        errors.append(str(error))
    same = {name: value for name, value in versions().items() if name in ("code", "torch", library.NAME)}
    return chosen, About(chosen.type, gpu, same | {"backend": library.NAME}, "; ".join(errors))


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


class ProcessGroup:
    """The ranks of a job at work together. Every rank must call the same methods in the same order."""

    def __init__(
        self, place: Placement, device: torch.device, comm: Collectives | None = None, over_host: bool = False
    ) -> None:
        """`over_host`: what is on a GPU is summed and broadcast through the host's memory, by Gloo."""
        self.place, self.device, self._comm = place, device, comm
        self.over_host = over_host and device.type == "cuda"
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Turn the error that another rank died or hangs into a DistributedError; for `loss.backward()` too."""
        ACTIVITY.collective = doing if doing != "backward" else ""  # what the watchdog sees
        try:
            yield
        except CollectiveError as error:
            raise DistributedError(f"{doing}: {error}") from error
        finally:
            ACTIVITY.collective = ""

    def broadcast_parameters(self, module: torch.nn.Module) -> None:
        """Give every rank the parameters and buffers of rank 0, in place."""
        if self._comm is not None:
            state = module.state_dict()
            # what is summed lies in one piece: weights may lie by channels, or on a GPU that nothing is sent from
            sent = {
                name: (tensor.cpu() if self.over_host else tensor).detach().contiguous()
                for name, tensor in state.items()
            }
            with self.guard("broadcast of parameters"):
                self._comm.broadcast_(sent)
            for name, tensor in state.items():
                if sent[name].data_ptr() != tensor.data_ptr():
                    tensor.copy_(sent[name])

    def broadcast_object(self, obj: Any, name: str) -> Any:
        """Rank 0's object; that of the other ranks is not looked at."""
        if self._comm is None:
            return obj
        with self.guard(f"broadcast of {name}"):
            return self._comm.broadcast_object(obj if self.rank == 0 else None, name)

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Each value summed over the ranks, in float64; the names must be the same on every rank."""
        return self.ask(values)()

    def ask(self, values: dict[str, float]) -> Callable[[], dict[str, float]]:
        """`sum`, but it returns at once: call what it returns for the sums, when other work is done."""
        if self._comm is None:
            return lambda: {name: float(value) for name, value in values.items()}
        names = sorted(values)
        ours = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        with self.guard("sum"):
            handle = self._comm.sum_(ours, " ".join(["sum", *names]))

        def answer() -> dict[str, float]:
            with self.guard("sum"):
                total = dict(zip(names, self._comm.wait(handle).tolist(), strict=True))
            return {name: total[name] for name in values}

        return answer

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank: how the ranks agree to skip a step or to stop."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def sum_gradients(
        self, parameters: Iterable[torch.nn.Parameter], compression: str = "none", passes: int = 1
    ) -> "GradientSum":
        """Sum (never average) these parameters' gradients over all ranks, while backward still runs.

        Call what it returns after backward, and they are summed. `compression`: none, or fp16 or bf16 on the way;
        `passes`: backward passes whose gradients are accumulated before.
        """
        if self._comm is None:
            return GradientSum(self, None)
        return GradientSum(self, GradientBuckets(self._comm, parameters, compression, passes, self.over_host))

    def on_root(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Let rank 0 alone do something: its result is everyone's, and if it raises, every rank raises the same."""
        with ACTIVITY.during("rank 0's files"):
            return self._on_root(fn, *args)

    def _on_root(self, fn: Callable[..., Any], *args: Any) -> Any:
        if self._comm is None:
            return fn(*args)
        answer = b""
        if self.rank == 0:
            try:
                answer = pickle.dumps((True, fn(*args)))
            except Exception as error:
                self.broadcast_object(_portable(error), "on_root")
                self._all_know()
                raise
        good, value = pickle.loads(self.broadcast_object(answer, "on_root"))
        if not good:
            self._all_know()
            raise value
        return value

    def _all_know(self) -> None:
        """A rank that ends with the error at once must not look lost to those that have yet to hear of it."""
        with contextlib.suppress(DistributedError):
            self.barrier()

    def gather(self, obj: Any) -> list[Any]:
        """The objects of all ranks, in the order of the ranks."""
        if self._comm is None:
            return [obj]
        with self.guard("gather"):
            return self._comm.gather_objects(obj)

    def barrier(self) -> None:
        """Wait for every rank."""
        if self._comm is not None:
            with self.guard("barrier"):
                self._comm.barrier()

    def close(self, failed: bool = False) -> None:
        """Leave; the others notice if they still want something of this rank. `failed`: not at the work's end."""
        if self._comm is not None:
            self._comm.close(failed)

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(failed=kind is not None)


class GradientSum:
    """Gradients on their way; to be called after the backward passes of a step."""

    def __init__(self, group: ProcessGroup, buckets: GradientBuckets | None) -> None:
        self.group, self.buckets = group, buckets

    def __call__(self) -> None:
        if self.buckets:
            with self.group.guard("sum of gradients"):
                self.buckets.wait()

    def accumulate(self, passes: int) -> None:
        """So many backward passes a step from now on."""
        if self.buckets:
            self.buckets.passes = passes


def _portable(error: Exception) -> bytes:
    """A pickle of the exception, or of a DistributedError with its message where that cannot travel."""
    try:
        data = pickle.dumps((False, error))
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps((False, DistributedError(f"{type(error).__name__} on rank 0: {error}")))
