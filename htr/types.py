"""Types that models, decoders and readers exchange. A leaf: it imports nothing of the project."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class LineGeometry:
    """Size of a model's input and of its frames, in px of the line image that it is given."""

    height: int  # of a line image
    frame: int  # width of a frame: how far apart the positions are that a model gives probabilities for


class EncoderOutput(NamedTuple):
    """Features and log-probabilities of N lines, padded to T frames (see LineGeometry.frame)."""

    features: Tensor  # (N, T, C)
    lengths: Tensor  # (N,) int64, frames in use
    log_probs: Tensor  # (N, T, labels + 1) float32, the blank at 0


@dataclass(frozen=True)
class Hypothesis:
    """The reading of one line. A model fills in the first three, a decoder (htr/decoding/decoder.py) all of them."""

    labels: list[int]  # 1 is the charset's first character
    confidence: float  # 0 to 1; a model's: the mean of its probability of each label, 1.0 for an empty text
    probs: list[float] | None = None  # the model's probability of each label, where it gives them
    signals: dict[str, float] = field(default_factory=dict)  # what the confidence is made of, see decoding/signals.py
    words: list[float] | None = None  # the confidence of each word
    word_signals: dict[str, list[float]] = field(default_factory=dict)  # of each word, see decoding/signals.py
    alternatives: list[tuple[str, float]] = field(default_factory=list)  # other texts of the n best, with their shares
