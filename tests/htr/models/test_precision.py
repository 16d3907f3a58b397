"""Every layer and every model in fp32, bf16 and fp16 beside fp64, on lines up to 4 000 px wide.

Bounds are twice to four times what was measured on a CPU (pytest -rP prints it). What a GPU does is measured by
benchmarks/gpu/gpu_check.py, by the same inputs. No CPU has an LSTM in fp16: there its inputs, weights and outputs are
rounded to fp16, and between them it computes in fp32, as cuDNN sums.
"""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from htr.models import layers
from htr.models.layers import BiLSTM, DilatedConvStack, LayerNorm2d, MaskedInstanceNorm, Residual
from htr.models.registry import MODELS, create
from htr.reader import Reader

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WIDTHS = (4000, 1700, 90)  # px of the lines of a batch
LAYERS = {
    "MaskedInstanceNorm": lambda: MaskedInstanceNorm(16),
    "LayerNorm2d": lambda: LayerNorm2d(16),
    "Residual": lambda: Residual(16, 24, MaskedInstanceNorm, (2, 2)),
    "BiLSTM": lambda: BiLSTM(16, 24),
    "DilatedConvStack": lambda: DilatedConvStack(16, 24),
}
# relative distance (of norms) of the output, and the largest of the gradients of input and weights; where a ReLU is
# between, some flip
LAYER_BOUNDS = {"fp32": (1e-5, 3e-5), "bf16": (0.02, 0.02), "fp16": (0.003, 0.003)}
WITH_RELU = {"fp32": (1e-6, 3e-5), "bf16": (0.01, 0.3), "fp16": (0.0015, 0.15)}


@contextmanager
def computing_in(dtype: torch.dtype):
    """As `train --amp` computes. In fp16 an LSTM is the one that is described above."""
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        if dtype == torch.float16:
            patch.setattr(nn.LSTM, "forward", lambda lstm, x: rounded_lstm(lstm, x))
        yield


def rounded_lstm(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, None]:
    with torch.autocast("cpu", enabled=False):
        weights = {name: weight.half().float() for name, weight in lstm.named_parameters()}
        flat = [weights[name] for name in layers.LSTM_WEIGHTS]
        zeros = torch.zeros(1, x.shape[1], lstm.hidden_size)
        y, _, _ = torch.lstm(x.half().float(), (zeros, zeros), flat, True, 1, 0.0, False, False, False)
    return y.half(), None


def apart(got: Tensor, wanted: Tensor) -> float:
    assert got.isfinite().all()
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_gradients(name: str, kind: str):
    torch.manual_seed(3)
    layer = LAYERS[name]()
    along_line = name in ("BiLSTM", "DilatedConvStack")
    if along_line:  # at 8 px a step
        widths = torch.tensor([-(-width // 8) for width in WIDTHS])
        x, given, out = torch.randn(int(widths.max()), len(WIDTHS), 16, dtype=torch.float64), widths, None
    else:  # behind the stem, at 2 px a column; as large as a trained reader's become: a line's sums pass fp16's 65 504
        widths = torch.tensor([width // 2 for width in WIDTHS])
        used = (torch.arange(int(widths.max())) < widths[:, None])[:, None, None].double()
        x = (torch.randn(len(WIDTHS), 16, 24, int(widths.max()), dtype=torch.float64) + 4) * 8 * used
        assert x.sum((2, 3)).max() > 65_504
        given, out = used, used[..., ::2] if name == "Residual" else used
    wanted = outcome(layer.double(), x, given, out, torch.float64)
    got = outcome(layer.float(), x, given, out, KINDS[kind])
    distances = [apart(a, b) for a, b in zip(got, wanted, strict=True)]
    print(f"{name} {kind}: output {distances[0]:.2e}, gradients {max(distances[1:]):.2e}")
    bounds = (WITH_RELU if name in ("Residual", "DilatedConvStack") else LAYER_BOUNDS)[kind]
    assert distances[0] < bounds[0] and max(distances[1:]) < bounds[1]


def outcome(layer: nn.Module, x: Tensor, given: Tensor, out: Tensor | None, dtype: torch.dtype) -> list[Tensor]:
    """Output, gradient of the input, gradients of the weights, for one sum of the output."""
    layer.zero_grad()
    exact = dtype == torch.float64
    x = x.detach().clone().to(torch.float64 if exact else torch.float32).requires_grad_()
    mask = given if out is None else out.to(x.dtype)
    with computing_in(torch.float32 if exact else dtype):
        # as the encoder gives it: what comes out of a convolution
        y = layer(x if exact or out is None else x.to(dtype), mask)
    if out is not None:
        y = y * mask.to(y.dtype)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (y.double() * weights).sum().mul(1e-2).backward()
    return [y.detach(), x.grad, *(weight.grad.clone() for weight in layer.parameters())]


# relative distance of the losses, and of all gradients as one vector
MODEL_BOUNDS = {"fp32": (1e-6, 2e-3), "bf16": (2e-4, 0.4), "fp16": (5e-5, 0.15)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(MODELS))
def test_losses_and_gradients_of_a_model(name: str, kind: str):
    found = []
    for dtype in (torch.float64, KINDS[kind]):
        torch.manual_seed(7)
        model = create(name, "tiny", 60, dropout=0.0).train()
        if name == "attention":
            model.decoder.noise, model.guided = 0.0, False
        exact = dtype == torch.float64
        model = model.double() if exact else model
        images, widths = noise(dtype=torch.float64 if exact else torch.float32)
        targets = [[[1 + i % 59 for i in range(width // 24)]] for width in WIDTHS]
        with computing_in(torch.float32 if exact else dtype):
            losses = model.losses(images, widths, targets)
        (losses.sum() / sum(len(target[0]) for target in targets)).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((losses.detach(), gradient))
    (wanted, gradients), (got, half) = found
    distances = ((got.double() / wanted - 1).abs().max().item(), apart(half, gradients))
    print(f"{name} {kind}: losses {distances[0]:.2e}, gradients {distances[1]:.2e}")
    assert distances[0] < MODEL_BOUNDS[kind][0] and distances[1] < MODEL_BOUNDS[kind][1]


def noise(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Lines of grained paper with strokes, zero right of each."""
    rng = torch.Generator().manual_seed(11)
    images = torch.rand(len(WIDTHS), 1, 48, max(WIDTHS), generator=rng, dtype=torch.float64)
    widths = torch.tensor(WIDTHS)
    images = images * (torch.arange(max(WIDTHS)) < widths[:, None])[:, None, None]
    return images.to(dtype), widths


# by how much a log-probability of the shipped reader may differ, in nats, where fp64 gives it at least 1 %
READER_BOUNDS = {"fp32": 1e-3, "bf16": 1.5, "fp16": 0.2}


@pytest.fixture(scope="module")
def exact():
    """The shipped reader's log-probabilities of long lines in fp64."""
    return frames_of(torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_reader_in_a_lower_precision(exact: Tensor, kind: str):
    """Trained weights: sums over a line that fp16 can't hold came of these."""
    got = frames_of(KINDS[kind])
    likely = exact > -4.6
    far = (got.double() - exact)[likely].abs().max().item()
    same = (got.argmax(2) == exact.argmax(2)).double().mean().item()
    print(f"reader {kind}: {far:.2e} nats, the best symbol is the same in {same:.4f} of the frames")
    assert far < READER_BOUNDS[kind] and same > 0.99


@torch.no_grad()
def frames_of(dtype: torch.dtype) -> Tensor:
    model = Reader.load(Path(layers.__file__).parents[1] / "pretrained" / "model").model.eval()
    exact = dtype == torch.float64
    images, widths = noise(torch.float64 if exact else torch.float32)
    model = model.double() if exact else model
    with computing_in(torch.float32 if exact else dtype):
        found = model.encode(images[:, :, : model.geometry.height], widths)
    lines = [probs[:length] for probs, length in zip(found.log_probs, found.lengths.tolist(), strict=True)]
    return torch.cat(lines)[:, None].double()
