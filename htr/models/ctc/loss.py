"""The CTC loss of lines that may have several accepted texts."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def ctc_losses(logits: Tensor, lengths: Tensor, targets: list[list[list[int]]]) -> Tensor:
    """Negative log-likelihood of the accepted texts of each line together: (N, T, C) raw logits -> (N,).

    Infinite where no text fits; such a line gives no gradient, so the caller may leave it out of the sum.
    """
    texts = [text for accepted in targets for text in accepted]
    flat = torch.tensor([symbol for text in texts for symbol in text], dtype=torch.long)
    sizes = torch.tensor([len(text) for text in texts], dtype=torch.long)
    # a blank must part each pair of equal neighbours
    needed = torch.tensor([len(t) + sum(a == b for a, b in pairwise(t)) for t in texts], device=lengths.device)
    log_probs = logits.float().log_softmax(2)
    several = len(texts) > len(targets)
    if several:
        line = torch.tensor([i for i, accepted in enumerate(targets) for _ in accepted], device=lengths.device)
        log_probs, lengths = log_probs[line], lengths[line]
    # targets on the CPU: torch's own kernel then runs, not cuDNN's, which is not deterministic and limits lengths
    losses = F.ctc_loss(log_probs.transpose(0, 1), flat, lengths.cpu(), sizes, reduction="none", zero_infinity=True)
    losses = torch.where(needed <= lengths, losses, torch.inf)
    if several:
        by_line = losses.split([len(accepted) for accepted in targets])
        losses = torch.stack([-torch.logsumexp(-of_line, 0) for of_line in by_line])
    return losses
