"""Layers of the encoder, all masked by each line's width: a padded batch gives the same as its lines alone.

Every convolution meets zeros right of a line, normalisation is within one line (batch statistics would leak padding and
depend on the rank), and the backward LSTM starts at each line's own end.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPSILON = 1e-3  # of MaskedInstanceNorm
LSTM_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # in the order of torch's kernel


class LayerNorm(nn.LayerNorm):
    """torch's; on a CPU in float32 at least: torch's kernel there sums the gradients of its weights in the
    type of its input, and bf16 then leaves a third of them wrong.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda or x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each position: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = LayerNorm(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MaskedInstanceNorm(nn.Module):
    """Each channel normalised over the positions of its own line, padding left out: (N, C, H, W) -> the same.

    Unlike LayerNorm2d it keeps how a position compares with the rest of the line: noise of the paper stays small.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return MaskedInstanceNormFunction.apply(x, mask, self.weight, self.bias)


class MaskedInstanceNormFunction(torch.autograd.Function):
    """MaskedInstanceNorm by matrix products over the positions: through sums autograd takes half as long again.

    In half precision all of it is computed in float32: a line's sum passes fp16's 65 504, and a mean rounded to eight
    bits moves every position of the line. float64 stays float64.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, c, h, w = x.shape
        exact = torch.promote_types(x.dtype, torch.float32)
        flat = x.permute(0, 2, 3, 1).reshape(n, h * w, c).to(exact)
        used = mask.to(exact).expand(n, 1, h, w).reshape(n, 1, h * w)
        count = used.sum(2, keepdim=True)
        centred = flat - over_positions(used, flat) / count
        rstd = torch.rsqrt(over_positions(used, centred * centred) / count + NORM_EPSILON)
        y = torch.addcmul(bias.to(exact), centred, rstd * weight)
        ctx.save_for_backward(centred.to(x.dtype), used.to(x.dtype), rstd, weight, count)
        return y.to(x.dtype).view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        centred, used, rstd, weight, count = ctx.saved_tensors
        n, c, h, w = gradient.shape
        centred, used = centred.to(rstd.dtype), used.to(rstd.dtype)
        g = gradient.permute(0, 2, 3, 1).reshape(n, h * w, c).to(rstd.dtype)
        everywhere = torch.ones_like(used)  # the positions that are padding get no gradient: the caller masks them
        sum_g = over_positions(everywhere, g)
        sum_gx = over_positions(everywhere, g * centred)
        scale = rstd * weight
        shared = torch.addcmul(scale * sum_g / count, centred, scale * rstd * rstd * sum_gx / count)
        dx = (g * scale - used.transpose(1, 2) * shared).to(gradient.dtype)
        dx = dx.view(n, h, w, c).permute(0, 3, 1, 2)
        return dx, None, (sum_gx * rstd).sum((0, 1)).to(weight.dtype), sum_g.sum((0, 1)).to(weight.dtype)


def over_positions(used: Tensor, values: Tensor) -> Tensor:
    """Sums of (N, P, C) over the positions in use, (N, 1, P) of ones and zeros: -> (N, 1, C).

    On a GPU not as a matrix product: TF32 would round what is summed to eleven bits.
    """
    if values.is_cuda:
        return (values * used.transpose(1, 2)).sum(1, keepdim=True)
    with torch.autocast("cpu", enabled=False):  # it would take the product in half precision
        return torch.bmm(used, values)


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, with one norm between: on CPUs it costs as much as a convolution.

    With a stride or other channels the shortcut is a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, norm: type[nn.Module], stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = norm(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        same = inputs == outputs and stride == (1, 1)
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        with torch.no_grad():
            self.second.weight.mul_(0.5)  # a block starts near its shortcut

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = F.relu(self.norm(self.first(x), mask)) * mask
        y = self.second(y)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x))) * mask


class BiLSTM(nn.Module):
    """A bidirectional LSTM over padded lines: (T, N, C) and lengths (N,) -> (T, N, 2 * hidden).

    Two one-way LSTMs, the second over each line reversed within its own length: the same result as a packed sequence,
    without the slow path that packing takes on a CPU. `packed`: on a GPU one call of cuDNN does both ways, over the
    steps that are in lines alone.
    """

    packed = False

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.forwards = nn.LSTM(inputs, hidden)
        self.backwards = nn.LSTM(inputs, hidden)

    def both_ways(self, x: Tensor, lengths: Tensor) -> Tensor:
        """By torch's kernel for packed lines; `lengths` on the CPU. Where a line has ended: zeros."""
        flat = [getattr(way, name) for way in (self.forwards, self.backwards) for name in LSTM_WEIGHTS]
        given = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        start = x.new_zeros(2, x.shape[1], self.forwards.hidden_size)
        found, _, _ = torch.lstm(
            given.data, given.batch_sizes, (start, start), flat, True, 1, 0.0, self.training, True
        )  # fmt: skip
        known = nn.utils.rnn.PackedSequence(found, given.batch_sizes, given.sorted_indices, given.unsorted_indices)
        return nn.utils.rnn.pad_packed_sequence(known, total_length=x.shape[0])[0]

    def forward(self, x: Tensor, lengths: Tensor, on_cpu: Tensor | None = None) -> Tensor:
        """`on_cpu`: the lengths there, if they are known there."""
        if self.packed and on_cpu is not None:
            return self.both_ways(x, on_cpu)
        steps = torch.arange(x.shape[0], device=x.device)[:, None]
        mirrored = torch.where(steps < lengths, lengths - 1 - steps, steps)[:, :, None]
        ahead, _ = self.forwards(x)
        back, _ = self.backwards(x.gather(0, mirrored.expand_as(x)))
        return torch.cat([ahead, back.gather(0, mirrored.expand_as(back))], dim=2)


class DilatedConvStack(nn.Module):
    """Residual convolutions along the line in the place of an LSTM: (T, N, C) and lengths (N,) -> (T, N, outputs).

    Depthwise and then pointwise; each block looks twice as far as the one before, and the circle begins again.
    """

    DILATIONS = (1, 2, 4)
    KERNEL = 7

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.enter = nn.Linear(inputs, outputs)
        self.depthwise = nn.ModuleList(
            nn.Conv1d(outputs, outputs, self.KERNEL, padding=d * (self.KERNEL // 2), dilation=d, groups=outputs)
            for d in self.DILATIONS
        )
        self.norms = nn.ModuleList(LayerNorm(outputs) for _ in self.DILATIONS)
        self.pointwise = nn.ModuleList(nn.Linear(outputs, outputs) for _ in self.DILATIONS)
        with torch.no_grad():
            for layer in self.pointwise:
                layer.weight.mul_(0.5)  # a block starts near its shortcut

    def forward(self, x: Tensor, lengths: Tensor, on_cpu: Tensor | None = None) -> Tensor:
        used = (torch.arange(x.shape[0], device=x.device)[:, None] < lengths)[:, :, None].to(x.dtype)
        x = self.enter(x) * used
        for depthwise, norm, pointwise in zip(self.depthwise, self.norms, self.pointwise, strict=True):
            y = norm(depthwise(x.permute(1, 2, 0)).permute(2, 0, 1))
            x = (x + pointwise(F.relu(y))) * used
        return x


def column_mask(widths: Tensor, like: Tensor) -> Tensor:
    """(N,) columns in use -> (N, 1, 1, W) of ones and zeros in the type of `like`."""
    return (torch.arange(like.shape[3], device=like.device) < widths[:, None])[:, None, None, :].to(like.dtype)
