"""From what a model puts out to symbols: greedy, or a beam search with a language model; align: where a text stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What a model reads in one line."""

    symbols: list[int]  # 1 is the alphabet's first character
    confidence: float  # the mean over the symbols of the model's own probability of each; 1.0 for an empty reading
