"""The CTC reader (Graves et al. 2006): the encoder, a linear head, and an auxiliary head on the convolutions alone.

The auxiliary head ("shortcut" of Retsinas et al. 2022) is used in training only. Its weight is higher than there: the
convolutions learn much earlier for it (see EXPERIMENTS.md).
"""

import torch
from torch import Tensor, nn

from htr.decoding.greedy import greedy
from htr.models.ctc.loss import ctc_losses
from htr.models.encoder import Encoder, EncoderConfig, concat_lines
from htr.types import EncoderOutput, Hypothesis, LineGeometry

AUXILIARY_WEIGHT = 0.5


class CTCReader(nn.Module):
    def __init__(self, config: EncoderConfig, labels: int):
        super().__init__()
        self.encoder = Encoder(config)
        self.head = nn.Linear(self.encoder.outputs, labels + 1)  # 0 is the blank
        self.auxiliary = nn.Conv1d(self.encoder.cnn_features, labels + 1, 3, padding=1)

    @property
    def geometry(self) -> LineGeometry:
        return self.encoder.config.geometry

    def encode(self, images: Tensor, widths: Tensor) -> EncoderOutput:
        features, lengths, _ = self.encoder(images, widths)
        return EncoderOutput(features, lengths, self.head(features).float().log_softmax(2))

    def losses(
        self, images: Tensor, widths: Tensor, targets: list[list[list[int]]], lines_per_text: list[int] | None = None
    ) -> Tensor:
        features, lengths, cnn_features = self.encoder(images, widths)
        logits, text_lengths = concat_lines(self.head(features), lengths, lines_per_text)
        return self.ctc_loss_of(logits, text_lengths, cnn_features, lengths, targets, lines_per_text)

    def ctc_loss_of(
        self,
        logits: Tensor,
        lengths: Tensor,
        cnn_features: Tensor,
        line_lengths: Tensor,
        targets: list[list[list[int]]],
        lines_per_text: list[int] | None,
    ) -> Tensor:
        """Of the head's logits (M, T, labels + 1) of M texts and of the auxiliary head on N lines' CNN features."""
        early = self.auxiliary(cnn_features.transpose(1, 2)).transpose(1, 2)
        early = ctc_losses(*concat_lines(early, line_lengths // self.encoder.frames_a_step, lines_per_text), targets)
        # where CNN columns are wider than frames, a dense line may fit the head and not the auxiliary one
        return ctc_losses(logits, lengths, targets) + AUXILIARY_WEIGHT * torch.where(early.isfinite(), early, 0.0)

    def read(self, encoded: EncoderOutput) -> list[Hypothesis]:
        """The best path of each line."""
        return greedy(encoded.log_probs, encoded.lengths)
