"""How much better a line's frames fit what was read there than what its transcription says.

The gap is the difference of two CTC losses (Graves et al. 2006), all paths of either text through the same frames, in
nats: near 0 where both are as likely, as of one doubtful letter, some five a character where the label has a word that
is not there or lacks one that is. `audit` ranks labels by it. A text of several lines has the frames of its lines one
after the other.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from htr.charset import Charset

MAX_GAP = 1000.0  # of a label that needs more frames than the line has: no path leads through it
MIN_LOG_PROB = -30.0  # of a label in a frame, so that one that is all but impossible does not decide alone


def label_gaps(
    log_probs: torch.Tensor,
    lengths: Sequence[int],
    counts: Sequence[int],
    references: Sequence[str],
    hypotheses: Sequence[str],
    charset: Charset,
) -> list[float]:
    """For each of N texts, how much better (CTC loss) its frames fit what was read than what the transcription says.

    `log_probs` (L, T, labels + 1) and `lengths` (L,) of the lines; `counts` (N,): how many lines each text has.
    Characters that the model can't write are left out of the transcription, since no frame says anything of them.
    """
    lines = [line[:length].float() for line, length in zip(log_probs.cpu(), lengths, strict=True)]
    frames, at = [], 0
    for count in counts:
        frames.append(torch.cat(lines[at : at + count]).clamp(min=MIN_LOG_PROB))
        at += count
    losses = []
    for texts in (references, hypotheses):
        # label by label: a letter and an accent that were read one after the other are no composed letter
        labels = [[charset.labels[c] for c in text if c in charset.labels] for text in texts]
        losses.append(ctc_losses(frames, labels))
    return [min(label - reading, MAX_GAP) if reading < MAX_GAP else 0.0 for label, reading in zip(*losses, strict=True)]


def ctc_losses(frames: list[torch.Tensor], labels: list[Sequence[int]]) -> list[float]:
    """N times (T, labels + 1), N texts -> N losses; infinite for a text that needs more frames."""
    padded = torch.nn.utils.rnn.pad_sequence(frames)
    flat = torch.tensor([label for text in labels for label in text], dtype=torch.long)
    sizes, lengths = (torch.tensor([len(part) for part in parts]) for parts in (labels, frames))
    return F.ctc_loss(padded, flat, lengths, sizes, reduction="none").tolist()
