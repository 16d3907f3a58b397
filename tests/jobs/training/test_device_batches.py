"""Batches copied one ahead: with a stand-in for the GPU, that notes what it is asked for and in what order. What a real
one does is measured by benchmarks/gpu."""

import numpy as np
import torch

from jobs.training.device_batches import on_device
from shards.loader import Batch, Team, batches
from shards.reading import Samples


class StandIn:
    """No GPU: copies are clones, and a copy counts as done when it is waited for."""

    def __init__(self):
        self.said: list[tuple[str, int]] = []
        self.given: list[torch.Tensor] = []

    def begin(self, images):
        assert images.is_contiguous()  # else the host would copy it first
        self.said.append(("begin", len(self.given)))
        self.given.append(images)
        return images.clone(), len(self.given) - 1

    def use(self, copied, event):
        self.said.append(("use", event))

    def wait(self, event):
        self.said.append(("wait", event))


def plan(samples: Samples) -> list[np.ndarray]:
    return np.array_split(np.arange(len(samples)), 6)


def test_a_batch_is_copied_while_the_one_before_is_computed(samples):
    copies, found = StandIn(), []
    expected = list(batches(samples, plan(samples), 0, 1, 48, key=(1, 1), strength="strong"))
    stream = batches(samples, plan(samples), 0, 1, 48, key=(1, 1), strength="strong")
    for batch in on_device(stream, torch.device("cuda"), copies):
        copies.said.append(("computed", len(found)))
        found.append(batch)
    assert all(torch.equal(a.images, b.images) and a.keys == b.keys for a, b in zip(found, expected, strict=True))
    order = {said: place for place, said in enumerate(copies.said)}
    for number in range(5):
        assert order["begin", number + 1] < order["use", number] < order["computed", number]
    # never more than one begun that is not used: what is held stays small
    assert all(order["use", n] < order["begin", n + 2] for n in range(4))
    assert {order["wait", number] > order["computed", number] for number in range(6) if ("wait", number) in order} == {
        True
    }


def test_a_rank_without_a_line_copies_nothing(samples):
    copies = StandIn()
    stream = batches(samples, [np.array([2])], 2, 4, 48)
    [batch] = on_device(stream, torch.device("cuda"), copies)
    assert batch.images.shape[0] == 0 and not copies.said


def test_on_the_cpu_batches_stay_where_they_are(samples):
    given = []

    def noted(stream):
        for batch in stream:
            given.append(batch)
            yield batch

    found = list(on_device(noted(batches(samples, plan(samples), 0, 1, 48)), torch.device("cpu")))
    assert len(found) == 6 and all(a is b for a, b in zip(found, given, strict=True))
    assert isinstance(found[0], Batch)


def test_every_piece_of_memory_is_pinned_once(samples, monkeypatch):
    monkeypatch.setattr("shards.team.PIECE_BYTES", 1 << 18)
    pinned = []
    with Team(0, lambda memory: pinned.append((memory.ctypes.data, memory.nbytes))) as team:
        for _ in range(3):
            for batch in batches(samples, plan(samples), 0, 1, 48, team):
                start = batch.images.data_ptr()
                assert any(first <= start < first + size for first, size in pinned)
    assert len(pinned) == len(set(pinned)) > 1
