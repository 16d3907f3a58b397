"""The encoder that all readers share: residual convolutions, column max-pooling, then LSTMs or convolutions along it.

Column max-pooling in place of flattening the height follows Retsinas et al. 2022, "Best Practices for a Handwritten
Text Recognition System".
"""

import math
from dataclasses import asdict, dataclass, fields
from itertools import islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.models.layers import BiLSTM, DilatedConvStack, LayerNorm2d, MaskedInstanceNorm, Residual, column_mask
from htr.types import LineGeometry

HEIGHTS = 16, 256  # px of a line image, least and most


@dataclass(frozen=True)
class EncoderConfig:
    """All hyperparameters of an encoder, as a model's config.json holds them."""

    channels: tuple[int, int, int, int]  # of the four stages
    blocks: tuple[int, int, int, int]
    hidden: int  # of each direction of the LSTM
    layers: int
    recurrent: bool = True  # LSTMs along the line; without, convolutions
    dropout: float = 0.2
    height: int = 48  # px of the line images that it is given
    # (down, across) of the stem and of the second to the fourth stage
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (2, 1), (2, 2))
    split: bool = True  # each recurrent step gives two frames, not one

    def __post_init__(self) -> None:
        """Raises ValueError for a value that no encoder can have, naming it."""
        for name in ("channels", "blocks"):
            values = getattr(self, name)
            if len(values) != 4 or not all(type(value) is int and value >= (name == "channels") for value in values):
                raise ValueError(f"{name} {values}: give four whole numbers, one a stage")
        for name in ("hidden", "layers"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: give a whole number, 1 or more")
        if type(self.height) is not int or not HEIGHTS[0] <= self.height <= HEIGHTS[1]:
            raise ValueError(f"height {self.height}: give whole px, {HEIGHTS[0]} to {HEIGHTS[1]}")
        if len(self.strides) != 4 or not all(len(s) == 2 and set(s) <= {1, 2} for s in self.strides):
            raise ValueError(f"strides {self.strides}: give four pairs (down, across), each of them 1 or 2")
        if self.split and self.step == 1:
            raise ValueError(f"strides {self.strides}: steps of one px can't be split")

    @property
    def step(self) -> int:
        """px of a recurrent step."""
        return math.prod(across for _, across in self.strides)

    @property
    def geometry(self) -> LineGeometry:
        return LineGeometry(self.height, self.step // 2 if self.split else self.step)

    def frames(self, width: int) -> int:
        """How many frames a line of so many pixels gets (see Encoder.forward)."""
        return -(-width // self.step) * (2 if self.split else 1)

    def to_json(self) -> dict:
        """What `from_json` reads: every field, and for people the frame's width that follows from them."""
        return asdict(self) | {"frame": self.geometry.frame}

    @classmethod
    def from_json(cls, values: dict) -> "EncoderConfig":
        """Raises ValueError for a key that is unknown or missing, or a value that no encoder can have."""
        if not isinstance(values, dict):
            raise ValueError("encoder: its values by name are needed")
        names = [*(field.name for field in fields(cls)), "frame"]
        if unknown := [name for name in values if name not in names]:
            raise ValueError(f"encoder: unknown key {', '.join(unknown)}; this code knows {', '.join(names)}")
        if missing := [name for name in names if name not in values]:
            raise ValueError(f"encoder: no {', '.join(missing)}")
        try:
            given = {name: values[name] for name in names[:-1]}
            given |= {name: tuple(given[name]) for name in ("channels", "blocks")}
            found = cls(**given | {"strides": tuple(map(tuple, given["strides"]))})
        except (TypeError, ValueError) as error:
            raise ValueError(f"encoder: {error}") from None
        if values["frame"] != found.geometry.frame:
            raise ValueError(f"encoder: frame {values['frame']}, its strides make frames of {found.geometry.frame} px")
        return found


SIZES = {
    "tiny": EncoderConfig(channels=(16, 32, 64, 96), blocks=(0, 1, 1, 1), hidden=96, layers=1),
    "small": EncoderConfig(channels=(16, 40, 80, 160), blocks=(0, 1, 1, 1), hidden=160, layers=2),
    "mid": EncoderConfig(channels=(16, 32, 72, 192), blocks=(0, 1, 1, 1), hidden=256, layers=2),
    "base": EncoderConfig(channels=(24, 64, 128, 256), blocks=(0, 1, 2, 3), hidden=256, layers=3),
    "large": EncoderConfig(channels=(32, 96, 192, 384), blocks=(0, 2, 3, 4), hidden=384, layers=3),
}


# strides by the px of a recurrent step. Frames have 4 px either way: finer ones cost more than they bring
RECURRENT_STRIDES = {
    8: {"strides": ((2, 2), (2, 2), (2, 1), (2, 2)), "split": True},
    4: {"strides": ((2, 2), (2, 2), (2, 1), (2, 1)), "split": False},
}


class Encoder(nn.Module):
    """Line images to a sequence of frames, config.geometry.frame px each."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        c = config.channels
        self.stem = nn.Conv2d(1, c[0], 5, stride=config.strides[0], padding=2)
        self.stem_norm = MaskedInstanceNorm(c[0])
        stages, inputs = [], c[0]
        for outputs, count, stride in zip(c, config.blocks, [None, *config.strides[1:]], strict=True):
            first = [] if stride is None else [Residual(inputs, outputs, MaskedInstanceNorm, stride)]
            stages.append(nn.ModuleList(first + [Residual(outputs, outputs, LayerNorm2d) for _ in range(count)]))
            inputs = outputs
        self.stages = nn.ModuleList(stages)
        widths = [c[3], *[2 * config.hidden] * config.layers]
        self.sequence_layers = nn.ModuleList(
            BiLSTM(inputs, config.hidden) if config.recurrent else DilatedConvStack(inputs, outputs)
            for inputs, outputs in pairwise(widths)
        )
        self.cnn_norm = MaskedInstanceNorm(c[3])
        self.dropout = nn.Dropout(config.dropout)
        self.cnn_features = c[3]
        # short dense lines need frames of 4 px: a recurrent step of 8 px gives two
        self.frames_a_step = 2 if config.split else 1
        self.outputs = config.hidden if config.split else 2 * config.hidden
        self.split = nn.Linear(2 * config.hidden, 2 * self.outputs) if config.split else None

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 1, H, W), (N,) -> frames (N, T, outputs), lengths (N,), CNN features (N, T / frames_a_step, channels).

        Lengths are where the widths were: widths on the CPU save all that asks for lengths there a wait for the GPU.
        """
        x = images.contiguous(memory_format=torch.channels_last)
        lengths, on_cpu = self.config.frames(widths), None if widths.is_cuda else -(-widths // self.config.step)
        widths = widths.to(images.device, non_blocking=True)
        across = [stride for _, stride in self.config.strides]
        widths = (widths + across[0] - 1) // across[0]
        x = self.stem(x)
        mask = column_mask(widths, x)
        x = F.relu(self.stem_norm(x, mask)) * mask
        for stage, stride in zip(self.stages, [1, *across[1:]], strict=True):
            if stride > 1:
                widths = (widths + stride - 1) // stride
            for i, block in enumerate(stage):
                if i == 0 and stride > 1:
                    mask = mask[..., ::stride]
                x = block(x, mask)
        x = self.cnn_norm(x.amax(dim=2, keepdim=True), mask) * mask
        cnn_features = self.dropout(x[:, :, 0].permute(2, 0, 1))  # (T / frames_a_step, N, C)
        y = cnn_features
        for layer in self.sequence_layers:
            y = self.dropout(layer(y, widths, on_cpu))
        if self.split is None:
            y = y.transpose(0, 1)
        else:
            y = F.relu(self.split(y)).unflatten(2, (2, self.outputs)).permute(1, 0, 2, 3).flatten(1, 2)
        return y, lengths, cnn_features.transpose(0, 1)


def concat_lines(frames: Tensor, lengths: Tensor, lines_per_text: list[int] | None) -> tuple[Tensor, Tensor]:
    """Concatenate the lines of each text, in reading order: (N, T, C), (N,) -> (M, T', C), (M,).

    `lines_per_text`: how many lines, one after the other, each of the M texts has; None: a text a line.
    """
    if lines_per_text is None or max(lines_per_text) == 1:
        return frames, lengths
    lines = iter(zip(frames, lengths.tolist(), strict=True))
    texts = [torch.cat([line[:length] for line, length in islice(lines, count)]) for count in lines_per_text]
    return nn.utils.rnn.pad_sequence(texts, batch_first=True), torch.tensor([len(text) for text in texts]).to(lengths)
