"""From what a model puts out to symbols: greedy, or a beam search with a language model; align: where a text stands.

decoder.py is what a reader uses of them, signals.py says how sure a reading is.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class Frames(NamedTuple):
    """What an encoder and its CTC head make of N lines, padded to T frames of 4 px."""

    features: Tensor  # (N, T, C)
    lengths: Tensor  # (N,) int64, frames in use
    log_probs: Tensor  # (N, T, symbols + 1) float32, the blank at 0


@dataclass(frozen=True)
class Reading:
    """What is read in one line: by a model alone the first three, by a decoder (decoder.py) all of it."""

    symbols: list[int]  # 1 is the alphabet's first character
    confidence: float  # 0 to 1; a model's: the mean of its own probability of each symbol, 1.0 for an empty reading
    probs: list[float] | None = None  # the model's own probability of each symbol, where it gives them
    signals: dict[str, float] = field(default_factory=dict)  # what the confidence is made of, see signals.py
    words: list[float] | None = None  # the confidence of each word
    word_signals: dict[str, list[float]] = field(default_factory=dict)  # of each word, see signals.py
    alternatives: list[tuple[str, float]] = field(default_factory=list)  # other texts of the n best, with their shares
