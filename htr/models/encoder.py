"""The encoder that both readers share: residual convolutions, column max-pooling, bidirectional LSTM.

Column max-pooling in place of flattening the height follows Retsinas et al. 2022, "Best Practices for a Handwritten
Text Recognition System". A padded batch reads like its lines alone: every convolution sees zeros right of a line's own
width, normalisation is within one line (batch statistics would leak padding and depend on the rank), and the backward
LSTM starts at each line's own end.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEIGHT = 64  # pixels of a line image that the model sees
EPSILON = 1e-3  # of LineNorm


@dataclass(frozen=True)
class Size:
    channels: tuple[int, int, int, int]  # of the four stages; the strides are 2x2, 2x2, 2x1, 2x2
    blocks: tuple[int, int, int, int]
    hidden: int  # of each direction of the LSTM
    layers: int
    dropout: float = 0.2


SIZES = {
    "tiny": Size(channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), hidden=96, layers=1),
    "small": Size(channels=(16, 40, 80, 160), blocks=(0, 1, 1, 1), hidden=160, layers=2),
    "base": Size(channels=(24, 64, 128, 256), blocks=(0, 1, 2, 3), hidden=256, layers=3),
}


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position: (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LineNorm(nn.Module):
    """Each channel normalised over the positions of its own line, padding left out: (N, C, H, W) -> the same.

    It keeps what ChannelNorm loses, how a place compares with the rest of the line: paper's noise stays noise.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return NormaliseLines.apply(x, mask, self.weight, self.bias)


class NormaliseLines(torch.autograd.Function):
    """LineNorm by matrix products over the positions: autograd's own way through sums takes half as long again."""

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n, c, h, w = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        used = mask.to(x.dtype).expand(n, 1, h, w).reshape(n, 1, h * w)
        count = used.float().sum(2, keepdim=True)
        centred = flat - (torch.bmm(used, flat).float() / count).to(x.dtype)
        rstd = torch.rsqrt(torch.bmm(used, centred * centred).float() / count + EPSILON)
        ctx.save_for_backward(centred, used, rstd, weight, count)
        y = torch.addcmul(bias.to(x.dtype), centred, (rstd * weight).to(x.dtype))
        return y.view(n, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        centred, used, rstd, weight, count = ctx.saved_tensors
        n, c, h, w = gradient.shape
        g = gradient.permute(0, 2, 3, 1).reshape(n, h * w, c)
        everywhere = torch.ones_like(used)  # the positions that are padding get no gradient: the caller masks them
        sum_g = torch.bmm(everywhere, g).float()
        sum_gx = torch.bmm(everywhere, g * centred).float()
        scale = rstd * weight
        shared = torch.addcmul(
            (scale * sum_g / count).to(g.dtype), centred, (scale * rstd * rstd * sum_gx / count).to(g.dtype)
        )
        dx = g * scale.to(g.dtype) - used.transpose(1, 2) * shared
        return dx.view(n, h, w, c).permute(0, 3, 1, 2), None, (sum_gx * rstd).sum((0, 1)), sum_g.sum((0, 1))


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


class LineLSTM(nn.Module):
    """A bidirectional LSTM over padded lines: (T, N, C) and lengths (N,) -> (T, N, 2 * hidden).

    Two one-way LSTMs, the second over each line reversed within its own length: the same result as a packed sequence,
    without the slow path that packing takes.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.forwards = nn.LSTM(inputs, hidden)
        self.backwards = nn.LSTM(inputs, hidden)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(len(x), device=x.device)[:, None]
        mirrored = torch.where(steps < lengths, lengths - 1 - steps, steps)[:, :, None]
        ahead, _ = self.forwards(x)
        back, _ = self.backwards(x.gather(0, mirrored.expand_as(x)))
        return torch.cat([ahead, back.gather(0, mirrored.expand_as(back))], dim=2)


class Encoder(nn.Module):
    """Line images to frames, one every 4 pixels."""

    def __init__(self, size: Size):
        super().__init__()
        c = size.channels
        self.stem = nn.Conv2d(1, c[0], 5, stride=2, padding=2)
        self.stem_norm = LineNorm(c[0])
        stages, inputs = [], c[0]
        for outputs, count, stride in zip(c, size.blocks, [None, (2, 2), (2, 1), (2, 2)], strict=True):
            first = [] if stride is None else [Residual(inputs, outputs, LineNorm, stride)]
            stages.append(nn.ModuleList(first + [Residual(outputs, outputs, ChannelNorm) for _ in range(count)]))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        self.lstms = nn.ModuleList(
            LineLSTM(c[3] if i == 0 else 2 * size.hidden, size.hidden) for i in range(size.layers)
        )
        self.columns_norm = LineNorm(c[3])
        self.dropout = nn.Dropout(size.dropout)
        self.columns = c[3]
        # two frames leave each recurrent step of 8 pixels: short dense lines need frames of 4
        self.outputs = size.hidden
        self.split = nn.Linear(2 * size.hidden, 2 * self.outputs)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 1, H, W), (N,) -> frames (N, T, outputs), lengths (N,), columns (N, T / 2, channels) before the LSTM."""
        x = images.contiguous(memory_format=torch.channels_last)
        widths = (widths + 1) // 2
        x = self.stem(x)
        mask = column_mask(widths, x)
        x = F.relu(self.stem_norm(x, mask)) * mask
        for stage, halved in zip(self.stages, [False, True, False, True], strict=True):
            if halved:
                widths = (widths + 1) // 2
            for i, block in enumerate(stage):
                if i == 0 and halved:
                    mask = mask[..., ::2]
                x = block(x, mask)
        x = self.columns_norm(x.amax(dim=2, keepdim=True), mask) * mask
        columns = self.dropout(x[:, :, 0].permute(2, 0, 1))  # (T / 2, N, C)
        y = columns
        for lstm in self.lstms:
            y = self.dropout(lstm(y, widths))
        y = F.relu(self.split(y)).unflatten(2, (2, self.outputs)).permute(1, 0, 2, 3).flatten(1, 2)
        return y, 2 * widths, columns.transpose(0, 1)


def column_mask(widths: Tensor, like: Tensor) -> Tensor:
    """(N,) columns in use -> (N, 1, 1, W) of ones and zeros in the type of `like`."""
    return (torch.arange(like.shape[3], device=like.device) < widths[:, None])[:, None, None, :].to(like.dtype)


def frames(width: int) -> int:
    """How many frames a line of so many pixels gets (see Encoder.forward)."""
    for _ in range(3):
        width = (width + 1) // 2
    return 2 * width
