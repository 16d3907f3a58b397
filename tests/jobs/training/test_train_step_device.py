"""What a step asks of the device, and what it leaves to it: operations, waits, skipped steps, memory that is full."""

from contextlib import nullcontext

import pytest
import torch
from stepped import Alone, Model, batch, train_step
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from htr.models.registry import MODELS, create
from jobs.training import optimizer as optimizers
from jobs.training.metrics import MetricsLogger
from jobs.training.train_step import TrainStep


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_skipped_step_leaves_weights_and_the_optimizers_state_as_if_it_had_never_been(kind):
    """Matrices, filters, LSTMs, biases: the same bits with a step of no finite gradient in between, and without."""
    found = []
    for steps in ((0, 1, 2), (0, None, 1, None, None, 2)):
        torch.manual_seed(1)
        model = create("attention", "tiny", 9)
        optimizer = optimizers.create(kind, model, 1e-2)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        step = TrainStep(model, optimizer, scaler, nullcontext, lambda text: [[1]], Alone(), 1.0, MetricsLogger())
        step.compute = lambda batch, number, model=model: fill_gradients(model, number)
        for number in steps:
            step.step(None, number)
        step.settle()
        assert step.logger.skipped == steps.count(None)
        found.append((model.state_dict(), optimizer.state_dict()["state"]))
    (one, ours), (other, theirs) = found
    assert all(torch.equal(one[name], other[name]) for name in one)
    for place, state in ours.items():
        assert all(torch.equal(*map(torch.as_tensor, (value, theirs[place][name]))) for name, value in state.items())


def fill_gradients(model: nn.Module, number: int | None) -> bool:
    """Random ones; None: some that are not finite among them."""
    torch.manual_seed(number or 0)
    for place, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn_like(parameter)
        if number is None and place % 3 == 1:
            parameter.grad.view(-1)[-1] = float("nan") if place % 2 else float("inf")
    return False


WAITS = ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__")  # for the device to come to a number


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_step_waits_for_what_the_device_did_a_step_before_alone(name, monkeypatch):
    """What is asked of tensors that a GPU holds; it was nine for CTC. Guided attention aligns on the CPU: twice."""
    torch.use_deterministic_algorithms(False)  # whatever a test before this one asked for: CTC goes to the CPU by it
    model = create(name, "tiny", 9)
    optimizer = optimizers.create("muon", model, 1e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    logger = MetricsLogger()
    step = TrainStep(model, optimizer, scaler, nullcontext, lambda text: [[1, 2, 3]], Alone(), 1.0, logger)
    found = batch(["a", "b", "c"], 160)
    step.step(found, 0)
    waits, flags = [], []

    def noted(method, name):
        def call(tensor, *args, **options):
            # sizes and lengths are made on the CPU; what is computed there, or on the device, has a floating point
            if any(tensor is known for known in flags):
                waits.append("of the step before")
            elif tensor.is_floating_point() or tensor.dtype == torch.bool:
                waits.append(name)
            return method(tensor, *args, **options)

        return call

    for method in WAITS:
        monkeypatch.setattr(torch.Tensor, method, noted(getattr(torch.Tensor, method), method))
    for number in (1, 2):
        before = step.before
        flags.append(before.flags)
        step.step(found, number)
        assert step.before is not before
    # cpu and numpy of one tensor are one wait
    assert waits.count("of the step before") == 2 and len(waits) == (2 if name != "attention" else 6), waits


@pytest.mark.parametrize("name", sorted(MODELS))
def test_operations_of_a_step_beside_forward_and_backward(name):
    """Size small: clipping, the optimizer and the decision of a step; 1 956 when each parameter took its own."""
    model = create(name, "small", 100)
    optimizer = optimizers.create("muon", model, 1e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    step = TrainStep(model, optimizer, scaler, nullcontext, lambda text: [[1]], Alone(), 1.0, MetricsLogger())
    counted = Operations()
    for number in range(3):
        gradients = {parameter: torch.randn_like(parameter) for parameter in model.parameters()}

        def filled(batch, number, gradients=gradients):
            for parameter, gradient in gradients.items():
                parameter.grad = gradient
            return False

        step.compute = filled
        counted.names.clear()
        with counted:
            step.step(None, number)
    waits = [name for name in counted.names if name == "aten._local_scalar_dense.default"]
    assert 100 < len(counted.names) < 200 and len(waits) <= 2, (len(counted.names), waits)
    print(f"{name}: {len(counted.names)} operations")  # pytest -rP shows it


class Operations(TorchDispatchMode):
    """Notes what a device is asked to compute: no views and no marks for a profiler, which launch nothing."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "aten" and not function.is_view:
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_gpu_out_of_memory_is_one_line_that_says_what_to_set():
    class Full(Model):
        def losses(self, images, widths, targets, parts):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    with pytest.raises(ValueError, match=r"step 7: 6 lines of 64 px at once .* --micro-batch 3 ") as error:
        train_step(Full()).step(batch(list("abcdef"), 64), 7)
    assert "\n" not in str(error.value)


class Small(Model):
    """Memory for so many lines at once, as a GPU has it; the model itself is the real one."""

    def __init__(self, most: int):
        super().__init__()
        self.most, self.seen = most, []
        torch.manual_seed(3)
        self.reader = create("ctc", "tiny", 9)

    def losses(self, images, widths, targets, parts):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        self.seen.append(len(images))
        return self.reader.losses(images, widths, targets, parts)


def test_parts_that_are_too_large_for_the_memory_are_halved_and_the_step_is_taken_again(capsys):
    """Bit for bit the training by the parts that it ends with, dropout among them; nothing is counted twice."""
    weights, meters = [], []
    for lines, passes in ((7, 1), (None, 4)):
        model = Small(2)
        optimizer = optimizers.create("muon", model.reader, 1e-2)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        step = TrainStep(model, optimizer, scaler, nullcontext, lambda text: [[1, 2]], Alone(), 1.0, MetricsLogger(),
                         passes, lines=lines)  # fmt: skip
        for number in range(3):
            step.step(batch(list("abcdefg"), 160), number, seed=number)
        weights.append(model.reader.state_dict())
        meters.append((float(step.logger.loss), step.logger.sums, step.passes))
        assert model.seen[-4:] == [1, 2, 2, 2]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert meters[0] == meters[1]
    said = capsys.readouterr().err
    assert said.count("memory is full") == 2 and "2 lines a rank at once (--micro-batch)" in said


def test_a_single_line_that_is_too_large_is_one_line_of_an_error():
    step = train_step(Small(0))
    step.lines = 2
    with pytest.raises(ValueError, match=r"step 3: 1 lines of 160 px at once are too many"):
        step.step(batch(["a", "b"], 160), 3)
