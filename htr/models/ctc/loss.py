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
    flat = torch.tensor([label for text in texts for label in text], dtype=torch.long)
    sizes = torch.tensor([len(text) for text in texts], dtype=torch.long)
    # CTC needs a blank between equal neighbours
    needed = torch.tensor([len(t) + sum(a == b for a, b in pairwise(t)) for t in texts])
    lengths = lengths.cpu()
    log_probs = logits.float().log_softmax(2)
    several = len(texts) > len(targets)
    if several:
        line = torch.tensor([i for i, accepted in enumerate(targets) for _ in accepted])
        log_probs, lengths = log_probs[line.to(log_probs.device, non_blocking=True)], lengths[line]
    if torch.are_deterministic_algorithms_enabled():  # the gradient on a GPU is summed in any order
        log_probs = log_probs.cpu()
    # targets on the CPU: torch's own kernel then runs, not cuDNN's, which is not deterministic and limits lengths
    losses = F.ctc_loss(log_probs.transpose(0, 1), flat, lengths, sizes, reduction="none", zero_infinity=True)
    losses = losses.to(logits.device)
    losses = torch.where((needed <= lengths).to(losses.device, non_blocking=True), losses, torch.inf)
    if several:
        by_line = losses.split([len(accepted) for accepted in targets])
        losses = torch.stack([-torch.logsumexp(-of_line, 0) for of_line in by_line])
    return losses
