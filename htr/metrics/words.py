"""Words: by spaces or by Unicode's rules, which are right, and out-of-vocabulary words."""

import re
import unicodedata
from collections.abc import Iterable, Set

from rapidfuzz.distance import Levenshtein

LETTER, MARK = r"[^\W\d_]", "\u0300-\u036f"
# an apostrophe, a point or a colon joins letters, a point, a comma, a semicolon or an apostrophe digits
UNICODE_WORD = re.compile(
    rf"[\w{MARK}]+(?:(?:(?<={LETTER})['\u2019.:·](?={LETTER})|(?<=\d)['\u2019.,;](?=\d))[\w{MARK}]+)*"
)  # fmt: skip


def words_in(texts: Iterable[str]) -> set[str]:
    """All words, by spaces and after NFC, as the word error rate counts them."""
    return {word for text in texts for word in unicodedata.normalize("NFC", text).split()}


def unicode_words(text: str) -> list[str]:
    """The words of a text after NFC by the rules of Unicode's annex 29 (WB5 to WB13) for scripts with letters, without
    the pieces that hold no letter or digit: "l'IRC, 3,5 kg" -> l'IRC 3,5 kg. Tailored to no language.
    """
    return UNICODE_WORD.findall(text)


def right_words(reference: str, hypothesis: str) -> list[bool]:
    """Of each word of the hypothesis, by spaces: whether it stands in the reference, in an alignment of the words with
    the fewest edits.
    """
    read = hypothesis.split()
    right = [False] * len(read)
    for block in Levenshtein.opcodes(reference.split(), read).as_list():
        if block[0] == "equal":
            right[block[3] : block[4]] = [True] * (block[4] - block[3])
    return right


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
