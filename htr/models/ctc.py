"""The CTC reader (Graves et al. 2006): the encoder, a linear head, and an auxiliary head on the convolutions alone.

The auxiliary head ("shortcut" of Retsinas et al. 2022) is used in training only. Its weight is higher than there: the
convolutions learn much earlier for it (see EXPERIMENTS.md).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.decoding import Reading
from htr.decoding.greedy import greedy
from htr.models.encoder import Encoder, Size

AUXILIARY_WEIGHT = 0.5


class CTCReader(nn.Module):
    def __init__(self, size: Size, symbols: int):
        super().__init__()
        self.encoder = Encoder(size)
        self.head = nn.Linear(self.encoder.outputs, symbols + 1)  # 0 is the blank
        self.auxiliary = nn.Conv1d(self.encoder.columns, symbols + 1, 3, padding=1)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """-> log-probabilities (N, T, symbols + 1) in float32, lengths (N,)."""
        features, lengths, _ = self.encoder(images, widths)
        return self.head(features).float().log_softmax(2), lengths

    def losses(self, images: Tensor, widths: Tensor, targets: list[list[int]]) -> Tensor:
        features, lengths, columns = self.encoder(images, widths)
        main = ctc_losses(self.head(features), lengths, targets)
        early = self.auxiliary(columns.transpose(1, 2)).transpose(1, 2)
        early = ctc_losses(early, lengths // 2, targets)
        # the columns are twice as wide as the frames: a dense line may fit the head and not the auxiliary one
        return main + AUXILIARY_WEIGHT * torch.where(early.isfinite(), early, 0.0)

    @torch.no_grad()
    def read(self, images: Tensor, widths: Tensor) -> list[Reading]:
        logits, lengths = self(images, widths)
        return greedy(logits, lengths)


def ctc_losses(logits: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """Negative log-likelihood of each target: (N, T, C) raw logits -> (N,); infinite where the target can't fit.

    A line that can't fit gives no gradient, so the caller may leave it out of the sum.
    """
    flat = torch.tensor([symbol for target in targets for symbol in target], dtype=torch.long)
    sizes = torch.tensor([len(target) for target in targets], dtype=torch.long)
    # a blank must part each pair of equal neighbours
    needed = torch.tensor([len(t) + sum(a == b for a, b in pairwise(t)) for t in targets], device=lengths.device)
    log_probs = logits.float().log_softmax(2).transpose(0, 1)
    # targets on the CPU: torch's own kernel then runs, not cuDNN's, which is not deterministic and limits lengths
    losses = F.ctc_loss(log_probs, flat, lengths.cpu(), sizes, reduction="none", zero_infinity=True)
    return torch.where(needed <= lengths, losses, torch.inf)
