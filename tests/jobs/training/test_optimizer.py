"""Muon: matrices of even singular values, AdamW's own step for the rest, a state that comes back."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from htr.models.registry import MODELS
from htr.models.registry import create as create_model
from jobs.training.optimizer import Muon, create, even_out


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 24, 60), (4, 32, 32)])
def test_singular_values_come_near_one(shape):
    values = torch.linalg.svdvals(even_out(torch.randn(shape)).float())
    assert values.min() > 0.3 and values.max() < 1.3


def test_each_gate_of_an_lstm_is_a_matrix_of_its_own():
    gradient = torch.randn(4, 16, 16) * torch.tensor([1.0, 1e-3, 10.0, 0.1])[:, None, None]
    lstm = nn.Linear(16, 64, bias=False)
    before = lstm.weight.detach().clone()
    lstm.weight.grad = gradient.reshape(64, 16)
    Muon([{"params": [lstm.weight], "matrices": 4}], lr=1.0).step()
    sizes = (before - lstm.weight.detach()).reshape(4, -1).norm(dim=1)
    assert sizes.max() / sizes.min() < 1.2


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (16, 8, 3, 3), (8, 16, 5)])
def test_a_step_among_matrices_of_other_shapes_is_the_step_alone(shape):
    gradient = torch.randn(shape)
    others = [torch.randn(24, 90), torch.randn(24, 24), torch.randn(70, 24)]
    steps = []
    for more in ([], others):
        parameters = [nn.Parameter(torch.zeros_like(g)) for g in (gradient, *more)]
        for parameter, g in zip(parameters, (gradient, *more), strict=True):
            parameter.grad = g.clone()
        Muon([{"params": parameters, "matrices": 1}], lr=1.0).step()
        steps.append(parameters[0].detach().flatten(1))
    assert (steps[0] - steps[1]).norm() < 0.02 * steps[0].norm()  # bfloat16's rounding
    flat = gradient.flatten(1)
    values = torch.linalg.svdvals(-steps[0] / (0.2 * max(flat.shape) ** 0.5))
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = torch.linalg.svd(flat, full_matrices=False)
    assert ((-steps[0] * (u @ v)).sum() / (steps[0].norm() * (u @ v).norm())) > 0.95


@pytest.mark.parametrize("name", ["ctc", "conv", "attention"])
def test_a_step_takes_few_operations(name):
    """Size small; CTC's took 3 496 a step when each parameter had its own, views among them."""
    model = create_model(name, "small", 100)
    optimizer = create("muon", model, 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.found_inf = torch.zeros(())  # with the decision whether to take it
    optimizer.step()
    with Operations() as counted:
        optimizer.step()
    assert counted.count < 200, counted.count
    print(f"{name}: {counted.count} operations")  # pytest -rP shows it


class Operations(TorchDispatchMode):
    """Counts what is dispatched: kernels, and views, which launch none."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_a_state_written_by_one_parameter_at_a_time_is_gone_on_with():
    """Checkpoints made before parameters took their steps together hold the same names and kinds."""
    model = create_model("ctc", "tiny", 10)
    optimizer = create("muon", model, 1e-2)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    kinds = {tuple((name, type(value)) for name, value in state.items()) for state in optimizer.state.values()}
    tensor = torch.Tensor
    assert kinds == {(("momentum", tensor),), (("step", int), ("mean", tensor), ("square", tensor))}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_parameter_is_in_one_group(name):
    model = create_model(name, "tiny", 10)
    for kind in ("muon", "adamw"):
        groups = create(kind, model, 1e-3).param_groups
        found = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    matrices = {id(p): group["matrices"] for group in create("muon", model, 1e-3).param_groups for p in group["params"]}
    assert matrices[id(model.head.weight)] == matrices[id(model.encoder.stem.weight)] == 0
    assert matrices[id(model.encoder.split.weight)] == 1
    if name == "ctc":
        assert matrices[id(model.encoder.sequence_layers[0].forwards.weight_ih_l0)] == 4


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_hidden_layer_is_taken_for_the_last_one_whatever_the_number_of_labels(name):
    def groups(labels: int) -> dict[str, int]:
        model = create_model(name, "tiny", labels)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return {names[id(p)]: group["matrices"] for group in create("muon", model, 1e-3).param_groups
                for p in group["params"]}  # fmt: skip

    rows = {len(weight) for weight in create_model(name, "tiny", 10).encoder.parameters() if weight.dim() > 1}
    assert 96 in rows
    for labels in rows:
        assert groups(labels) == groups(10)


def test_what_is_no_matrix_takes_the_step_of_adamw():
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-8}
    optimizers = (
        Muon([{"params": list(ours.parameters()), "weight_decay": 0.1}], lr=0.01),
        torch.optim.AdamW(theirs.parameters(), **options),
    )
    for step in range(5):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_a_resumed_optimizer_goes_on_as_if_never_stopped():
    model = create_model("ctc", "tiny", 10)
    twin = copy.deepcopy(model)
    optimizer = create("muon", model, 1e-2)

    def step(model, optimizer):
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()

    step(model, optimizer)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    step(model, optimizer)
    twin.load_state_dict(saved[0])
    resumed = create("muon", twin, 1e-2)
    resumed.load_state_dict(saved[1])
    step(twin, resumed)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
