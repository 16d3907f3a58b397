"""The process group: the ranks of a job start together, sum, broadcast and agree, by Horovod or torch.distributed.

    with process_group.start(run_folder) as world:
        world.broadcast_parameters(model)
        wait = world.sum_gradients(model.parameters())
        ...
        loss.backward()
        wait()      # now the gradients are summed over all ranks: unscale, clip
        optimizer.step()

A world of one rank needs neither library. Every failure is a DistributedError with one line for the user.
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
    """Join the other ranks of this job.

    `folder`: on storage that all nodes share; the ranks find each other by a file there. `device`: cpu, cuda, or auto
    (cuda where torch sees a GPU). `deterministic`: gradients are summed in the same order each time. `backend`: one of
    BACKENDS. Raises a DistributedError, the same one on every rank.
    """
    place = Placement.find()
    if place.size == 1:
        return ProcessGroup(place, take_device(place, device))
    settings, library = Settings.find(), importlib.import_module(f"jobs.distributed.{backend}_backend")
    chosen, about = _about(place, device, library, settings.shared_gpu)
    meeting = rendezvous_of_ranks(place, Path(folder), settings, about, library.Server)
    place = replace(place, hosts=meeting.hosts)
    try:
        if deterministic:  # which tensors Horovod fuses depends on the order in which ranks are ready
            os.environ |= {"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_AUTOTUNE": "0"}
        group = ProcessGroup(place, chosen, library.join(meeting, place, settings, chosen), settings.shared_gpu)
        try:
            group.barrier()  # from here on no rank needs the rendezvous
        except DistributedError:
            group.close(failed=True)
            raise
    finally:
        meeting.close()
    return group


# --- what this rank tells the others


def _about(place: Placement, device: str, library: ModuleType, shared: bool = False) -> tuple[torch.device, About]:
    """This rank's device, and what it tells the others. An error on this rank is part of that, so that all report it.

    `shared`: ranks may share a GPU. NCCL does not allow that, so they work without it and name no GPU.
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
    """The versions of torch and Horovod and a digest of this project's code, which must be the same on every rank."""
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
    """The ranks of a job. Every rank must call the same methods in the same order."""

    def __init__(
        self, place: Placement, device: torch.device, comm: Collectives | None = None, over_host: bool = False
    ) -> None:
        """`over_host`: tensors on a GPU are summed and broadcast through the host's memory, by Gloo."""
        self.place, self.device, self._comm = place, device, comm
        self.over_host = over_host and device.type == "cuda"
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank

    @contextmanager
    def guard(self, doing: str, waits: bool = True) -> Iterator[None]:
        """Turn a CollectiveError (another rank is lost) into a DistributedError; also around `loss.backward()`.

        `doing`: what this rank does, for the message; `waits`: for the others, while it does.
        """
        ACTIVITY.collective = doing if waits else ""  # for the watchdog
        try:
            yield
            ACTIVITY.met += waits
        except CollectiveError as error:
            raise DistributedError(f"{doing}: {error}") from error
        finally:
            ACTIVITY.collective = ""

    def broadcast_parameters(self, module: torch.nn.Module) -> None:
        """Copy the parameters and buffers of rank 0 to every rank, in place."""
        if self._comm is not None:
            state = module.state_dict()
            # contiguous copies: weights may be channels-last, or on a GPU that ranks do not send from
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
        """-> the object of rank 0; that of any other rank is ignored."""
        if self._comm is None:
            return obj
        with self.guard(f"broadcast of {name}"):
            return self._comm.broadcast_object(obj if self.rank == 0 else None, name)

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """-> each value summed over the ranks, in float64. The names must be the same on every rank."""
        return self.ask(values)()

    def ask(self, values: dict[str, float]) -> Callable[[], dict[str, float]]:
        """Begin `sum`, and return a function that waits for the sums and returns them."""
        if self._comm is None:
            return lambda: {name: float(value) for name, value in values.items()}
        names = sorted(values)
        ours = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
        with self.guard("sum", waits=False):
            handle = self._comm.sum_(ours, " ".join(["sum", *names]))

        def answer() -> dict[str, float]:
            with self.guard("sum"):
                total = dict(zip(names, self._comm.wait(handle).tolist(), strict=True))
            return {name: total[name] for name in values}

        return answer

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank: so the ranks agree to skip a step, or to stop."""
        return self.sum({"flag": float(flag)})["flag"] > 0

    def sum_gradients(
        self, parameters: Iterable[torch.nn.Parameter], compression: str = "none", passes: int = 1
    ) -> "GradientSum":
        """Sum (not average) the gradients of these parameters over all ranks in every step, while backward runs.

        Call the result after backward: it waits for the sums. `compression`: none, or the type in which gradients are
        sent, fp16 or bf16. `passes`: backward passes whose gradients are accumulated before.
        """
        if self._comm is None:
            return GradientSum(self, None)
        return GradientSum(self, GradientBuckets(self._comm, parameters, compression, passes, self.over_host))

    def on_root(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call `fn` on rank 0 alone -> its result, on every rank. If it raises, every rank raises the same."""
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
        """Wait until all ranks have received the error: a rank that ends before would count as lost."""
        with contextlib.suppress(DistributedError):
            self.barrier()

    def gather(self, obj: Any) -> list[Any]:
        """-> the objects of all ranks, by rank."""
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
        """Leave the group. `failed`: before the end of the work, so that other ranks may be lost."""
        if self._comm is not None:
            self._comm.close(failed)

    def __enter__(self) -> "ProcessGroup":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(failed=kind is not None)


class GradientSum:
    """The sum of gradients that is in progress. Call it after the backward passes of a step, to wait for the sums."""

    def __init__(self, group: ProcessGroup, buckets: GradientBuckets | None) -> None:
        self.group, self.buckets = group, buckets

    def __call__(self) -> None:
        if self.buckets:
            with self.group.guard("sum of gradients"):
                self.buckets.wait()

    def accumulate(self, passes: int) -> None:
        """From now on a step has this number of backward passes."""
        if self.buckets:
            self.buckets.passes = passes


def _portable(error: Exception) -> bytes:
    """A pickle of the exception, or of a DistributedError with its message where it can't be pickled."""
    try:
        data = pickle.dumps((False, error))
        pickle.loads(data)
        return data
    except Exception:
        return pickle.dumps((False, DistributedError(f"{type(error).__name__} on rank 0: {error}")))
