"""Best-path decoding of CTC: the most probable label of each frame, repeats merged, blanks dropped."""

from torch import Tensor

from htr.types import Hypothesis


def greedy(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """(N, T, labels + 1) log-probabilities with the blank at 0, (N,) frames in use -> N hypotheses."""
    best, labels = log_probs.detach().float().max(dim=2)
    best, labels = best.exp().cpu().numpy(), labels.cpu().numpy()
    readings = []
    for row, probs, length in zip(labels, best, lengths.tolist(), strict=True):
        text, confidences, previous = [], [], 0
        for label, prob in zip(row[:length].tolist(), probs[:length].tolist(), strict=True):
            if label and label != previous:
                text.append(label)
                confidences.append(prob)
            elif label:
                confidences[-1] = max(confidences[-1], prob)
            previous = label
        readings.append(Hypothesis(text, sum(confidences) / len(confidences) if confidences else 1.0, confidences))
    return readings
