"""Completion: words that begin as what was typed, accents and case aside; only when it is asked for."""

import bisect
import unicodedata
from functools import cached_property
from pathlib import Path

MAX_SUGGESTIONS = 9  # words: one a number key


class Lexicon:
    """A file of words, a word a line, read when it is first needed. Without a file there are no words."""

    def __init__(self, path: Path | None):
        self.path = path

    @cached_property
    def words(self) -> list[tuple[str, str]]:
        """(without accents and case, the word), in order."""
        if self.path is None:
            return []
        return sorted((folded(word), word) for word in self.path.read_text(encoding="utf-8").split("\n") if word)

    def suggest(self, beginning: str) -> list[str]:
        """At most MAX_SUGGESTIONS words with this beginning, accents and case aside; those that begin exactly so come
        first, and shorter ones before longer ones."""
        plain = folded(beginning)
        if not plain:
            return []
        first = bisect.bisect_left(self.words, (plain, ""))
        last = bisect.bisect_left(self.words, (plain + "\U0010ffff", ""))
        found = [word for _, word in self.words[first : min(last, first + 5000)]]
        found.sort(key=lambda word: (not word.startswith(beginning), len(word), word))
        return found[:MAX_SUGGESTIONS]


def folded(text: str) -> str:
    """Without accents and case: grippé and Grippe become grippe."""
    plain = unicodedata.normalize("NFD", text.casefold())
    return "".join(c for c in plain if not unicodedata.combining(c))
