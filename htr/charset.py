"""The characters that a model can write, fixed with the data. Label 0: the blank of CTC, EOS of attention."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

CROSSED = "\u232b"  # ⌫, what is written for a piece that is crossed out
ILLEGIBLE = "\ufffd"  # �, for a piece that nobody could read: such a field goes to a person

# what transcribers write for them, unless a source says otherwise
CROSSED_MARKS = ("[raturé]", "[rature]", "[biffé]")
ILLEGIBLE_MARKS = ("[illisible]", "[ill.]")


class Charset:
    def __init__(self, characters: Iterable[str]):
        frozen = "".join(sorted(set(characters)))
        if isinstance(characters, str) and characters != frozen:  # a text: a letter and its accent are one character
            frozen = "".join(sorted(set(unicodedata.normalize("NFC", characters))))
        self.characters = frozen
        if not self.characters:
            raise ValueError("a charset without characters: the data set has no text to learn from")
        self.labels = {character: i for i, character in enumerate(self.characters, start=1)}

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Charset) and self.characters == other.characters

    def encode(self, text: str) -> list[int]:
        """Labels of the text after NFC. Raises ValueError, naming the characters alone, if it can't be written."""
        text = unicodedata.normalize("NFC", text)
        missing = self.missing(text)
        if missing:
            raise ValueError(f"characters that the charset lacks: {name(missing)}")
        return [self.labels[character] for character in text]

    def decode(self, labels: Iterable[int]) -> str:
        return "".join(self.characters[label - 1] for label in labels)

    def missing(self, text: Iterable[str]) -> str:
        if isinstance(text, str):
            text = unicodedata.normalize("NFC", text)
        return "".join(sorted(set(text) - set(self.characters)))


def with_tokens(text: str, crossed: Sequence[str], illegible: Sequence[str]) -> str:
    """The text with what its typists wrote for crossed-out and illegible pieces, as one token each.

    In a mark * stands for anything: "[raturé: *]". Without marks the text stays as it is.
    """
    for marks, token in ((crossed, CROSSED), (illegible, ILLEGIBLE)):
        if marks:
            either = "|".join(re.escape(mark).replace(r"\*", ".*?") for mark in marks)
            text = re.sub(either, token, text)
    return text


def name(characters: str) -> str:
    """Characters for a message: "'é' (U+00E9)", at most eight of them."""
    shown = ", ".join(f"'{c}' (U+{ord(c):04X})" for c in characters[:8])
    return shown + (f" and {len(characters) - 8} more" if len(characters) > 8 else "")
