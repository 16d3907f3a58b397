"""The attention reader: the CTC reader with a transformer decoder on its frames, both trained together.

The hybrid loss keeps the alignment monotonic: Watanabe et al. 2017, and Michael et al. 2019 for handwriting. What takes
a decoder longest is to find the frames: guided attention (Tachibana et al. 2018, along a diagonal) adds a loss that
draws its first head to the frames of each label in CTC's own forced alignment.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from htr.decoding import align
from htr.models.attention.decoder import EOS, Decoder, Memory
from htr.models.ctc.loss import ctc_losses
from htr.models.ctc.reader import CTCReader
from htr.models.encoder import EncoderConfig, concat_lines
from htr.types import EncoderOutput, Hypothesis

CTC_WEIGHT = 0.5
GUIDE_RADIUS_FRAMES = 3  # frames on either side of the middle of a label's, which the guided head is to attend to


class AttentionReader(CTCReader):
    """`guided`: whether the guided attention loss is added (in training alone)."""

    guided = True

    def __init__(self, config: EncoderConfig, labels: int):
        super().__init__(config, labels)
        self.decoder = Decoder(self.encoder.outputs, labels, config.dropout)

    def losses(
        self, images: Tensor, widths: Tensor, targets: list[list[list[int]]], lines_per_text: list[int] | None = None
    ) -> Tensor:
        lines, line_lengths, cnn_features = self.encoder(images, widths)
        features, lengths = concat_lines(lines, line_lengths, lines_per_text)
        logits = self.head(features)
        ctc_loss_of = self.ctc_loss_of(logits, lengths, cnn_features, line_lengths, targets, lines_per_text)
        chosen = self.likeliest(logits, lengths, targets)
        log_probs = logits.detach().float().log_softmax(2)
        memory = self.decoder.encode_memory(features, lengths, log_probs)
        cross_entropy, attended = self.cross_entropy(memory, chosen)
        if self.training and self.guided:
            cross_entropy = cross_entropy + self.guided_attention_loss(attended, log_probs, lengths, chosen)
        # a line too dense for CTC can still teach the decoder
        return (1 - CTC_WEIGHT) * cross_entropy + CTC_WEIGHT * torch.where(ctc_loss_of.isfinite(), ctc_loss_of, 0.0)

    @torch.no_grad()
    def likeliest(self, logits: Tensor, lengths: Tensor, targets: list[list[list[int]]]) -> list[list[int]]:
        """Of the accepted texts of each line the one that CTC gives the highest probability."""
        chosen = [accepted[0] for accepted in targets]
        for i, accepted in enumerate(targets):
            if len(accepted) > 1:
                rows = [i] * len(accepted)
                chosen[i] = accepted[int(ctc_losses(logits[rows], lengths[rows], [[t] for t in accepted]).argmin())]
        return chosen

    def guided_attention_loss(
        self, attended: Tensor, log_probs: Tensor, lengths: Tensor, texts: list[list[int]]
    ) -> Tensor:
        """Guided attention: (N, L, T) attention weights, (N, T, labels + 1) log-probabilities -> (N,) losses.

        -log of the weight near each label's frames in CTC's forced alignment, summed over the labels; the end of a text
        is at its last frame. 0 for a text that needs more frames than there are.
        """
        found = align.align_many(log_probs.cpu().numpy(), texts, lengths.tolist())
        centres = torch.full(attended.shape[:2], -1.0)
        for row, alignment in zip(centres, found, strict=True):
            if alignment is not None:
                middles = torch.from_numpy((alignment.first + alignment.last) / 2)
                row[: len(middles)], row[len(middles)] = middles, alignment.frames - 1
        centres = centres.to(attended.device)[:, :, None]
        near = (torch.arange(attended.shape[2], device=attended.device) - centres).abs() <= GUIDE_RADIUS_FRAMES
        weight = (attended * near).sum(2)
        return torch.where(centres[..., 0] >= 0, -torch.log(weight + 1e-4), 0.0).sum(1)

    def read(self, encoded: EncoderOutput) -> list[Hypothesis]:
        """Greedy decoding: the most probable label at each step."""
        return self.decoder.greedy(self.decoder.encode_memory(*encoded))

    def score(self, encoded: EncoderOutput, candidates: list[list[list[int]]]) -> list[list[float]]:
        """The decoder's log-probability of each candidate text and its end: N lists of texts -> N lists."""
        line = [i for i, texts in enumerate(candidates) for _ in texts]
        if not line:
            return [[] for _ in candidates]
        memory = self.decoder.encode_memory(*encoded)
        texts = [text for of_line in candidates for text in of_line]
        losses, _ = self.cross_entropy(memory.of(torch.tensor(line, device=encoded.features.device)), texts)
        scores = iter((-losses).tolist())
        return [[next(scores) for _ in of_line] for of_line in candidates]

    def cross_entropy(self, memory: Memory, targets: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each target and its end, summed over its labels: -> (N,) float32; and the attention
        weights, (N, L, T).
        """
        longest = max(len(target) for target in targets) + 1
        rows = [target + [EOS] * (longest - len(target)) for target in targets]
        wanted = torch.tensor(rows, device=memory.key_padding_mask.device)
        logits, attended = self.decoder(memory, wanted)
        # EOS counts once, at the end of each target
        sizes = torch.tensor([len(target) + 1 for target in targets], device=wanted.device)
        counts = torch.arange(longest, device=wanted.device) < sizes[:, None]
        losses = F.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), reduction="none")
        return (losses.view_as(wanted) * counts).sum(1), attended
