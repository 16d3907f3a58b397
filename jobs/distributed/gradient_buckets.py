"""Gradient buckets: a few flat buffers of gradients, each summed over all ranks while backward fills the others.

As in torch's DDP (Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training"), on any
library of collectives (jobs/distributed/collectives.py). Horovod's own optimizer sends each gradient by itself, copies
gradients that are ready together into a buffer and back, and waits in a loop without a sleep: on a rank with one core
that costs as much as the sum. Buckets are the same in every step. So there is nothing to fuse, the order of summation
is always the same, and all ranks send them in one order, which torch.distributed needs.
"""

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.distributed.collectives import Collectives

BUCKET_BYTES = 4 << 20
LAST_BUCKET_BYTES = 1 << 20  # of the bucket that is full last: no backward is left to hide its sum


def parted(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters that require gradients, in order, as groups of BUCKET_BYTES or one parameter more.

    The first group, which backward fills last, has at most LAST_BUCKET_BYTES or one parameter.
    """
    groups: list[list[nn.Parameter]] = []
    full, held = True, 0
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        size = parameter.numel() * parameter.element_size()
        if full or (len(groups) == 1 and held + size > LAST_BUCKET_BYTES):
            groups.append([])
            held = 0
        groups[-1].append(parameter)
        held += size
        full = held >= (LAST_BUCKET_BYTES if len(groups) == 1 else BUCKET_BYTES)
    return groups


class Bucket:
    """The gradients of some parameters.

    `flat` (n,): all of them; `views`: by parameter, a view of `flat` in its shape.
    """

    def __init__(self, name: str, parameters: list[nn.Parameter], over_host: bool = False) -> None:
        """`over_host`: the ranks exchange `sent`, a copy of `flat` in the host's memory."""
        self.name, self.parameters = name, parameters
        sizes, first = [parameter.numel() for parameter in parameters], parameters[0]
        self.flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        # in the parameter's own memory order, which may be channels-last: kernels over many tensors need that
        parts = zip(parameters, self.flat.split(sizes), strict=True)
        self.views = {p: part.as_strided(p.shape, p.stride()) for p, part in parts}
        self.sent = torch.empty_like(self.flat, device="cpu", pin_memory=True) if over_host else self.flat
        self.exchange: Exchange | None = None  # in progress
        self.handle: Any = None  # of the collective that it waits for
        self.taken = 0  # gradients so far

    def take(self, parameter: nn.Parameter) -> None:
        """Move the parameter's gradient into `flat`, zeros if it has none. Later passes add to it in place."""
        view = self.views[parameter]
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)
        parameter.grad = view


class GradientBuckets:
    """Sums the parameters' gradients from now on. Call `wait` after backward, before the gradients are used."""

    def __init__(
        self,
        comm: Collectives,
        parameters: Iterable[nn.Parameter],
        compression: str,
        passes: int,
        over_host: bool = False,
    ) -> None:
        """`compression`: one of EXCHANGES. `passes`: backward passes whose gradients are accumulated before the sum.
        `over_host`: gradients on a GPU are exchanged through the host's memory.
        """
        self.comm, self.begin, self.passes = comm, EXCHANGES[compression], passes
        groups = enumerate(parted(parameters))
        # in the order of backward: the first parameters last
        self.buckets = [Bucket(f"gradients.{number}", group, over_host) for number, group in groups][::-1]
        self.left = 0  # number of buckets that were sent in this step
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self.note, bucket))

    def note(self, bucket: Bucket, parameter: nn.Parameter) -> None:
        """Take a gradient that is ready. A bucket is sent when it is full and all buckets before it were sent."""
        if bucket.exchange or self.full(bucket):
            raise RuntimeError(f"more than {self.passes} backward passes before their gradients were waited for")
        bucket.take(parameter)
        bucket.taken += 1
        while self.left < len(self.buckets) and self.full(self.buckets[self.left]):
            self.send(self.buckets[self.left])
        if not self.comm.ordered:  # the next part may begin at another time on each rank
            for other in self.buckets:
                if other.exchange and other is not bucket and self.comm.done(other.handle):
                    self.go_on(other)

    def full(self, bucket: Bucket) -> bool:
        return bucket.taken == self.passes * len(bucket.parameters)

    def send(self, bucket: Bucket) -> None:
        self.left += 1
        if bucket.sent is not bucket.flat:
            bucket.sent.copy_(bucket.flat)
        bucket.exchange = self.begin(self.comm, bucket.sent, bucket.name)
        bucket.handle = next(bucket.exchange)

    def go_on(self, bucket: Bucket) -> None:
        """Wait for the current collective of the bucket, and begin the next one if there is one."""
        try:
            bucket.handle = bucket.exchange.send(self.comm.wait(bucket.handle))
        except StopIteration:
            if bucket.sent is not bucket.flat:
                bucket.flat.copy_(bucket.sent)
            bucket.exchange = bucket.handle = None

    def wait(self) -> None:
        """Wait until every gradient is the sum over all ranks, also those of parameters without a gradient
        on this rank.
        """
        for bucket in self.buckets[self.left :]:
            if not self.full(bucket):
                for parameter in bucket.parameters:
                    bucket.take(parameter)
            self.send(bucket)
        while under_way := [bucket for bucket in self.buckets if bucket.exchange]:
            for bucket in under_way:
                self.go_on(bucket)
        self.left = 0
        for bucket in self.buckets:
            bucket.taken = 0


# --- exchanges: generators that sum a buffer. Each yields the handle it waits for, and receives its result

Exchange = Generator[Any, Any, None]


def exact(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    yield comm.sum_(flat, name)


def fp16(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    flat.copy_((yield comm.sum_(flat.half(), name)))


def bf16(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    """Each rank receives one part of all buffers, sums it in float32, and sends the sum to all.

    As many bytes as in a ring allreduce, and two roundings for any number of ranks. Horovod can't sum torch's bfloat16,
    so its bits travel as float16.
    """
    size = comm.size
    each = -(-len(flat) // size)
    parts = nn.functional.pad(flat, (0, each * size - len(flat))).bfloat16().view(torch.float16)
    ours = yield comm.all_to_all(parts, f"{name}.parts")
    total = ours.view(torch.bfloat16).view(size, each).float().sum(0).bfloat16()
    whole = yield comm.all_gather(total.view(torch.float16), f"{name}.whole")
    flat.copy_(whole.view(torch.bfloat16)[: len(flat)])


EXCHANGES: dict[str, Callable[[Collectives, Tensor, str], Exchange]] = {"none": exact, "fp16": fp16, "bf16": bf16}
