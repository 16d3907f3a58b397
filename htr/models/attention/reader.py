"""The attention reader: the shared encoder and a GRU decoder with location-aware attention, with a hybrid CTC loss.

The CTC loss, which keeps the alignment monotonic: Watanabe et al. 2017, and Michael et al. 2019 for handwriting.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from htr.decoding import Frames, Reading
from htr.models.attention.decoder import STOP, Decoder
from htr.models.ctc.loss import ctc_losses
from htr.models.ctc.reader import CTCReader
from htr.models.encoder import Size, join

CTC_WEIGHT = 0.3


class AttentionReader(nn.Module):
    def __init__(self, size: Size, symbols: int):
        super().__init__()
        # encoder and CTC head have the names that they have in the CTC reader, so its weights fit
        ctc = CTCReader(size, symbols)
        self.encoder, self.head = ctc.encoder, ctc.head
        self.decoder = Decoder(self.encoder.outputs, self.encoder.outputs, symbols)

    def losses(
        self, images: Tensor, widths: Tensor, targets: list[list[list[int]]], parts: list[int] | None = None
    ) -> Tensor:
        lines, lengths, _ = self.encoder(images, widths)
        features, lengths = join(lines, lengths, parts)
        logits = self.head(features)
        by_ctc = ctc_losses(logits, lengths, targets)
        by_attention = self.by_symbol(features, lengths, self.likeliest(logits, lengths, targets))
        # a line too dense for CTC can still teach the decoder
        return (1 - CTC_WEIGHT) * by_attention + CTC_WEIGHT * torch.where(by_ctc.isfinite(), by_ctc, 0.0)

    @torch.no_grad()
    def likeliest(self, logits: Tensor, lengths: Tensor, targets: list[list[list[int]]]) -> list[list[int]]:
        """Of the accepted texts of each line the one that CTC gives the highest probability."""
        chosen = [accepted[0] for accepted in targets]
        for i, accepted in enumerate(targets):
            if len(accepted) > 1:
                rows = [i] * len(accepted)
                chosen[i] = accepted[int(ctc_losses(logits[rows], lengths[rows], [[t] for t in accepted]).argmin())]
        return chosen

    def frames(self, images: Tensor, widths: Tensor) -> Frames:
        features, lengths, _ = self.encoder(images, widths)
        return Frames(features, lengths, self.head(features).float().log_softmax(2))

    def read(self, frames: Frames) -> list[Reading]:
        """The decoder's most probable symbol at each step."""
        return self.decoder.greedy(frames.features, frames.lengths)

    def score(self, frames: Frames, candidates: list[list[list[int]]]) -> list[list[float]]:
        """The decoder's log-probability of each candidate text and its end: N lists of texts -> N lists."""
        line = [i for i, texts in enumerate(candidates) for _ in texts]
        if not line:
            return [[] for _ in candidates]
        rows = torch.tensor(line, device=frames.features.device)
        texts = [text for of_line in candidates for text in of_line]
        scores = iter((-self.by_symbol(frames.features[rows], frames.lengths[rows], texts)).tolist())
        return [[next(scores) for _ in of_line] for of_line in candidates]

    def by_symbol(self, features: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
        """Cross-entropy of each target and its end, summed over its symbols: -> (N,) float32."""
        longest = max(len(target) for target in targets) + 1
        rows = [target + [STOP] * (longest - len(target)) for target in targets]
        wanted = torch.tensor(rows, device=features.device)
        logits = self.decoder(features, lengths, wanted)
        # STOP counts once, at the end of each target
        sizes = torch.tensor([len(target) + 1 for target in targets], device=features.device)
        counts = torch.arange(longest, device=features.device) < sizes[:, None]
        losses = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
        return (losses.view_as(wanted) * counts).sum(1)
