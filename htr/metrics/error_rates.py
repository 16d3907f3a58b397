"""Character and word error rates. CER = edits summed over reference characters summed, after NFC; WER by spaces."""

import unicodedata
from dataclasses import asdict, dataclass

from rapidfuzz.distance import Levenshtein


@dataclass
class Errors:
    """Counts that add up; divided once, at the end."""

    lines: int = 0
    characters: int = 0
    edits: int = 0
    words: int = 0
    word_edits: int = 0
    exact: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    @property
    def cer(self) -> float:
        """Micro character error rate, a fraction; it can exceed 1. NaN without reference characters."""
        return self.edits / self.characters if self.characters else float("nan")

    @property
    def wer(self) -> float:
        """Micro word error rate, a fraction; it can exceed 1. NaN without reference words."""
        return self.word_edits / self.words if self.words else float("nan")


def compare(reference: str, hypothesis: str) -> Errors:
    """The errors of one line."""
    reference, hypothesis = (unicodedata.normalize("NFC", text) for text in (reference, hypothesis))
    words = reference.split()
    return Errors(
        lines=1,
        characters=len(reference),
        edits=Levenshtein.distance(reference, hypothesis),
        words=len(words),
        word_edits=Levenshtein.distance(words, hypothesis.split()),
        exact=int(reference == hypothesis),
    )
