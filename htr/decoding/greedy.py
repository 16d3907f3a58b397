"""Best-path decoding of CTC: the most probable symbol of each frame, repeats merged, blanks dropped."""

from torch import Tensor

from htr.types import Hypothesis


def greedy(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """(N, T, symbols + 1) log-probabilities with the blank at 0, (N,) frames in use -> N readings."""
    best, symbols = log_probs.detach().float().max(dim=2)
    best, symbols = best.exp().cpu().numpy(), symbols.cpu().numpy()
    readings = []
    for row, probs, length in zip(symbols, best, lengths.tolist(), strict=True):
        text, confidences, previous = [], [], 0
        for symbol, prob in zip(row[:length].tolist(), probs[:length].tolist(), strict=True):
            if symbol and symbol != previous:
                text.append(symbol)
                confidences.append(prob)
            elif symbol:
                confidences[-1] = max(confidences[-1], prob)
            previous = symbol
        readings.append(Hypothesis(text, sum(confidences) / len(confidences) if confidences else 1.0, confidences))
    return readings
