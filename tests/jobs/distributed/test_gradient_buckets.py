"""Gradients in buckets: which go together, and that their sums are right on real ranks, whatever the compression."""

import pytest
import torch
from ranks import Ranks, open_nursery, rank, samples
from torch import nn

from jobs.distributed import gradient_buckets
from jobs.distributed.gradient_buckets import GradientBuckets, parted
from jobs.distributed.process_group import BACKENDS


def parameters(*sizes: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(size)) for size in sizes]


def test_what_backward_ends_with_is_a_small_bucket_of_its_own(monkeypatch):
    monkeypatch.setattr(gradient_buckets, "LAST_BUCKET_BYTES", 40)  # 10 numbers
    monkeypatch.setattr(gradient_buckets, "BUCKET_BYTES", 80)
    found = parameters(4, 5, 2, 17, 7, 50, 3, 9)
    found[4].requires_grad_(False)
    assert [[len(p) for p in group] for group in parted(found)] == [[4, 5], [2, 17, 50], [3, 9]]
    assert [len(group) for group in parted(parameters(11, 1, 20, 1))] == [1, 2, 1]
    assert parted([]) == [] and [len(group) for group in parted(parameters(50))] == [1]


class Alone:
    """Collectives as one rank sees them: a handle is what will be its result."""

    size, ordered = 1, True

    def __init__(self):
        self.sent: list[str] = []

    def sum_(self, tensor, name):
        self.sent.append(name)
        return tensor

    def done(self, handle):
        return True

    def wait(self, handle):
        return handle


def test_a_bucket_leaves_with_its_last_gradient_and_parts_are_accumulated(monkeypatch):
    monkeypatch.setattr(gradient_buckets, "LAST_BUCKET_BYTES", 8)
    first, second = parameters(2, 3)
    comm = Alone()
    found = GradientBuckets(comm, [first, second], "none", passes=2)
    for step in range(2):
        first.grad = second.grad = None
        (2 * first.sum() + second.sum()).backward()
        assert comm.sent == []
        (first.sum() + 5 * second.sum()).backward()
        assert sorted(comm.sent) == ["gradients.0", "gradients.1"]
        with pytest.raises(RuntimeError, match="more than 2 backward passes"):
            first.sum().backward()
        first.grad.sub_(1)  # of the pass that was refused
        found.wait()
        assert first.grad.tolist() == [3, 3] and second.grad.tolist() == [6, 6, 6], step
        comm.sent.clear()
    first.grad.zero_()  # as zero_grad(set_to_none=False) does
    second.grad = None
    first.sum().backward()
    found.wait()
    assert first.grad.tolist() == [1, 1] and second.grad.tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def nursery():
    with open_nursery() as process:
        yield process


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_are_right_whatever_the_compression(nursery, tmp_path, backend, size):
    """The third layer is used by nobody, the fourth on rank 0 alone."""
    found = Ranks(nursery, tmp_path, backend).results(*(rank(number, str(size)) for number in range(size)))[0]["halves"]
    each = [3 * samples(number).sum(0) for number in range(size)]
    used = [each, each, [], each[:1]]
    for compression, bits in {"none": 24, "fp16": 11, "bf16": 8}.items():
        for gradient, summed, rows in zip(found[compression], used, (1, 3, 1, 5), strict=True):
            wanted = sum(summed, torch.zeros(4)).expand(rows, 4)
            # each rank's part is rounded once, and so is a sum
            torch.testing.assert_close(torch.tensor(gradient), wanted, rtol=size * 2.0**-bits, atol=1e-6)
    assert found["fp16"] != found["none"] != found["bf16"] != found["fp16"]


def test_buckets_leave_in_one_order_whatever_backward_comes_to_first(monkeypatch):
    """Ranks whose graphs differ, as one without a text does, must begin the same sums side by side."""
    monkeypatch.setattr(gradient_buckets, "LAST_BUCKET_BYTES", 8)
    monkeypatch.setattr(gradient_buckets, "BUCKET_BYTES", 8)
    weights = parameters(2, 2, 2)
    comm = Alone()
    found = GradientBuckets(comm, weights, "none", passes=1)
    for first, after in ((0, []), (1, []), (2, ["gradients.2", "gradients.1", "gradients.0"])):
        weights[first].sum().backward()
        assert comm.sent == after
    found.wait()
    comm.sent.clear()
    weights[0].sum().backward()
    found.wait()
    assert comm.sent == ["gradients.2", "gradients.1", "gradients.0"]
