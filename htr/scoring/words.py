"""Words that the training texts do not have: how many of them are misread, beside a language model's other gains."""

import unicodedata
from collections.abc import Iterable, Set

from rapidfuzz.distance import Levenshtein


def words_in(texts: Iterable[str]) -> set[str]:
    """All words, by spaces and after NFC, as the word error rate counts them."""
    return {word for text in texts for word in unicodedata.normalize("NFC", text).split()}


def unseen(reference: str, hypothesis: str, known: Set[str]) -> tuple[int, int]:
    """-> the reference's words that are not among the known ones, and how many of them are misread: not matched in an
    alignment of the words with the fewest edits.
    """
    asked = unicodedata.normalize("NFC", reference).split()
    places = [i for i, word in enumerate(asked) if word not in known]
    if not places:
        return 0, 0
    right: set[int] = set()
    for block in Levenshtein.opcodes(asked, unicodedata.normalize("NFC", hypothesis).split()):
        if block.tag == "equal":
            right.update(range(block.src_start, block.src_end))
    return len(places), sum(i not in right for i in places)
