"""Options that a GPU may gain from change how a model computes, never what; tried here on a CPU."""

import copy
import os

import pytest
import torch

from htr.models.layers import BiLSTM
from htr.models.registry import MODELS, create
from jobs.training import gpu_options
from jobs.training import optimizer as optimizers
from jobs.training.config import RuntimeConfig

CPU = torch.device("cpu")


def losses_and_gradients(model) -> list[torch.Tensor]:
    torch.manual_seed(2)
    widths = torch.tensor([640, 300, 90])
    images = torch.rand(3, 1, 48, 640) * (torch.arange(640) < widths[:, None])[:, None, None]
    model.zero_grad()
    losses = model.losses(images, widths, [[[1, 2, 3]], [[4, 5]], [[6]]])
    losses.sum().backward()
    return [losses.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("option", ["channels_last", "packed_lstm"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_same_losses_gradients_steps_and_checkpoint(name: str, option: str):
    torch.manual_seed(1)
    plain = create(name, "tiny", 12, dropout=0.0)
    if name == "attention":
        plain.decoder.noise = 0.0
    changed = copy.deepcopy(plain)
    gpu_options.apply(changed, CPU, RuntimeConfig(**{option: True}))
    (losses, *gradients), (others, *found) = map(losses_and_gradients, (plain, changed))
    torch.testing.assert_close(others, losses, rtol=1e-5, atol=0)
    whole, other = (torch.cat([g.flatten() for g in each]) for each in (gradients, found))
    assert (whole - other).norm() < 1e-3 * whole.norm()  # a ReLU at zero may flip
    for one, same in zip(plain.parameters(), changed.parameters(), strict=True):
        same.grad = one.grad.clone()
    for model in (plain, changed):
        optimizers.create("muon", model, 1e-3).step()
    for one, same in zip(plain.parameters(), changed.parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-6)
    plain.load_state_dict(changed.state_dict())


def test_a_packed_lstm_reads_no_padding():
    torch.manual_seed(4)
    layer, lengths = BiLSTM(6, 5), torch.tensor([9, 4, 1])
    layer.packed = True
    x = torch.randn(9, 3, 6)
    wanted, got = layer(x, lengths), layer(x, lengths, lengths)
    used = torch.arange(9)[:, None] < lengths
    torch.testing.assert_close(got[used], wanted[used])
    assert not got[~used].any()


@pytest.mark.parametrize(("before", "after"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_what_is_asked_to_be_the_same_each_time_tells_cublas_and_torch(monkeypatch, before, after):
    """cuBLAS's sums have an order of their own choice in as much room as it likes."""
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *how, **more: asked.append((how, more)))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # as it was before is what it will be
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    gpu_options.apply(torch.nn.Linear(2, 2), CPU, RuntimeConfig())
    assert not asked and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    if before:  # the user's own choice stands
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", before)
    gpu_options.apply(torch.nn.Linear(2, 2), CPU, RuntimeConfig(deterministic=True))
    assert asked == [((True,), {"warn_only": True})] and os.environ["CUBLAS_WORKSPACE_CONFIG"] == after
