"""The encoder that all readers share: residual convolutions, column max-pooling, then LSTMs or convolutions along it.

Column max-pooling in place of flattening the height follows Retsinas et al. 2022, "Best Practices for a Handwritten
Text Recognition System".
"""

from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.models.layers import ChannelNorm, LineConv, LineLSTM, LineNorm, Residual, column_mask

HEIGHT = 48  # pixels of a line image that the model sees


@dataclass(frozen=True)
class Size:
    channels: tuple[int, int, int, int]  # of the four stages; the strides are 2x2, 2x2, 2x1, 2x2
    blocks: tuple[int, int, int, int]
    hidden: int  # of each direction of the LSTM
    layers: int
    recurrent: bool = True  # LSTMs along the line; without, convolutions
    dropout: float = 0.2


SIZES = {
    "tiny": Size(channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), hidden=96, layers=1),
    "small": Size(channels=(16, 40, 80, 160), blocks=(0, 1, 1, 1), hidden=160, layers=2),
    "base": Size(channels=(24, 64, 128, 256), blocks=(0, 1, 2, 3), hidden=256, layers=3),
    "large": Size(channels=(32, 96, 192, 384), blocks=(0, 2, 3, 4), hidden=384, layers=3),
}


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
        widths = [c[3], *[2 * size.hidden] * size.layers]
        self.along = nn.ModuleList(
            LineLSTM(inputs, size.hidden) if size.recurrent else LineConv(inputs, outputs)
            for inputs, outputs in pairwise(widths)
        )
        self.columns_norm = LineNorm(c[3])
        self.dropout = nn.Dropout(size.dropout)
        self.columns = c[3]
        # two frames leave each recurrent step of 8 pixels: short dense lines need frames of 4
        self.outputs = size.hidden
        self.split = nn.Linear(2 * size.hidden, 2 * self.outputs)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 1, H, W), (N,) -> frames (N, T, outputs), lengths (N,), columns (N, T / 2, channels)."""
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
        for layer in self.along:
            y = self.dropout(layer(y, widths))
        y = F.relu(self.split(y)).unflatten(2, (2, self.outputs)).permute(1, 0, 2, 3).flatten(1, 2)
        return y, 2 * widths, columns.transpose(0, 1)


def frames(width: int) -> int:
    """How many frames a line of so many pixels gets (see Encoder.forward)."""
    for _ in range(3):
        width = (width + 1) // 2
    return 2 * width


def join(frames: Tensor, lengths: Tensor, parts: list[int] | None) -> tuple[Tensor, Tensor]:
    """Lines of one text after each other, in reading order: (N, T, C), (N,) -> (M, T', C), (M,).

    `parts`: how many lines, one after the other, each of the M texts has; None: a text a line.
    """
    if parts is None or max(parts) == 1:
        return frames, lengths
    lines = iter(zip(frames, lengths.tolist(), strict=True))
    texts = [torch.cat([line[:length] for line, length in islice(lines, count)]) for count in parts]
    return nn.utils.rnn.pad_sequence(texts, batch_first=True), torch.tensor([len(text) for text in texts]).to(lengths)
