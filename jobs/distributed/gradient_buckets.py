"""Gradients in a few flat buffers, each summed over all ranks while backward still fills the others.

As in torch's DDP (Li et al. 2020, "PyTorch Distributed: Experiences on Accelerating Data Parallel Training"), on
whatever sums them (jobs/distributed/collectives.py). Horovod's own optimizer sends each gradient by itself, copies
those that are ready together into a buffer and back again, and waits in a loop that never sleeps, on a rank's only core
at the cost of the sum itself. Buckets are the same in every step, so that nothing need be fused and sums are in the
same order each time; and they leave in one order on all ranks, which torch.distributed needs.
"""

from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.distributed.collectives import Collectives

BUCKET_BYTES = 4 << 20  # bytes of a bucket
LAST_BUCKET_BYTES = 1 << 20  # of the one that is full last, since backward hides nothing of it


def parted(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those that need gradients, in order, in groups of SIZE bytes or a parameter more, the first of LAST at most.

    Backward comes to the first group last.
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
    """Some parameters; `flat` holds their gradients one after the other, `views` (by parameter) each in its shape."""

    def __init__(self, name: str, parameters: list[nn.Parameter], over_host: bool = False) -> None:
        """`over_host`: what the ranks exchange is `sent`, a copy of `flat` in the host's memory."""
        self.name, self.parameters = name, parameters
        sizes, first = [parameter.numel() for parameter in parameters], parameters[0]
        self.flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        # its numbers in the parameter's own order, which may be by channels: kernels over many tensors need that
        parts = zip(parameters, self.flat.split(sizes), strict=True)
        self.views = {p: part.as_strided(p.shape, p.stride()) for p, part in parts}
        self.sent = torch.empty_like(self.flat, device="cpu", pin_memory=True) if over_host else self.flat
        self.exchange: Exchange | None = None  # under way
        self.handle: Any = None  # what it waits for
        self.taken = 0

    def take(self, parameter: nn.Parameter) -> None:
        """Move the parameter's gradient here, zeros where it has none; further passes add to it in place."""
        view = self.views[parameter]
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)
        parameter.grad = view


class GradientBuckets:
    """From now on the parameters' gradients are summed: call `wait` after backward, before you look at them."""

    def __init__(
        self,
        comm: Collectives,
        parameters: Iterable[nn.Parameter],
        compression: str,
        passes: int,
        over_host: bool = False,
    ) -> None:
        """`compression`: one of EXCHANGES; `passes`: backward passes whose gradients are accumulated before;
        `over_host`: gradients on a GPU are exchanged through the host's memory.
        """
        self.comm, self.begin, self.passes = comm, EXCHANGES[compression], passes
        groups = enumerate(parted(parameters))
        # as backward comes to them: the first parameters last
        self.buckets = [Bucket(f"gradients.{number}", group, over_host) for number, group in groups][::-1]
        self.left = 0  # buckets that are on their way, or were in this step
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(partial(self.note, bucket))

    def note(self, bucket: Bucket, parameter: nn.Parameter) -> None:
        """A gradient is there. With the last one of its bucket, and of those before it, the exchange begins."""
        if bucket.exchange or self.full(bucket):
            raise RuntimeError(f"more than {self.passes} backward passes before their gradients were waited for")
        bucket.take(parameter)
        bucket.taken += 1
        while self.left < len(self.buckets) and self.full(self.buckets[self.left]):
            self.send(self.buckets[self.left])
        if not self.comm.ordered:  # a second part begins whenever the first has ended, on each rank at another time
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
        """To the end of a part of the exchange."""
        try:
            bucket.handle = bucket.exchange.send(self.comm.wait(bucket.handle))
        except StopIteration:
            if bucket.sent is not bucket.flat:
                bucket.flat.copy_(bucket.sent)
            bucket.exchange = bucket.handle = None

    def wait(self) -> None:
        """Until each gradient is the sum over all ranks, also of a parameter that no backward of this rank came to."""
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


# --- how a buffer is summed: each yields what it waits for, and is given what came of it

Exchange = Generator[Any, Any, None]


def exact(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    yield comm.sum_(flat, name)


def fp16(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    flat.copy_((yield comm.sum_(flat.half(), name)))


def bf16(comm: Collectives, flat: Tensor, name: str) -> Exchange:
    """Each rank gets a part of all buffers, sums it in float32, and hands it to all. As many bytes as in a ring, and
    two roundings however many ranks there are. Horovod can't sum torch's bfloat16, but carry it as what it is not.
    """
    size = comm.size
    each = -(-len(flat) // size)
    parts = nn.functional.pad(flat, (0, each * size - len(flat))).bfloat16().view(torch.float16)
    ours = yield comm.all_to_all(parts, f"{name}.parts")
    total = ours.view(torch.bfloat16).view(size, each).float().sum(0).bfloat16()
    whole = yield comm.all_gather(total.view(torch.float16), f"{name}.whole")
    flat.copy_(whole.view(torch.bfloat16)[: len(flat)])


EXCHANGES: dict[str, Callable[[Collectives, Tensor, str], Exchange]] = {"none": exact, "fp16": fp16, "bf16": bf16}
