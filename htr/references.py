"""Abbreviations: further reference texts, as right as the one that was typed, for training and for scoring.

A physician writes "IDM", data entry types "infarctus du myocarde", or the other way round. The table is a CSV with the
columns abbreviation and expansion, a row a pair; an abbreviation may have several expansions, and an expansion several
abbreviations. `References.load()` takes the project's own table of French clinical abbreviations.

A match is whole words, whatever their case: an abbreviation that is also a common word ("les", "ma", "min") does more
harm than good in a table.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path

from htr.certificate import clean_text
from htr.charset import Charset

TABLE = Path(__file__).parent / "abbreviations.csv"
MAX_TEXTS = 16  # texts for one


@dataclass(frozen=True)
class References:
    others: dict[str, tuple[str, ...]]  # of a phrase, casefolded: what may stand in its place
    short: frozenset[str]  # the phrases among them that are abbreviations
    pattern: re.Pattern  # finds them, the longest first

    @classmethod
    def load(cls, path: Path = TABLE) -> "References":
        """Raises ValueError: not a CSV in UTF-8, a column missing, an empty cell, a table without rows."""
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                missing = {"abbreviation", "expansion"} - set(table.fieldnames or ())
                if missing:
                    raise ValueError(f"{path}: no column {', '.join(sorted(missing))}")
                pairs = [
                    (table.line_num, clean_text(row["abbreviation"]), clean_text(row["expansion"])) for row in table
                ]
        except (UnicodeDecodeError, csv.Error):
            raise ValueError(f"{path}: not a CSV file in UTF-8") from None
        empty = [line for line, abbreviation, expansion in pairs if not abbreviation or not expansion]
        if empty:
            raise ValueError(f"{path}: an empty abbreviation or expansion in line {empty[0]}: fill it, or drop the row")
        if not pairs:
            raise ValueError(f"{path}: a table without rows")
        return cls.of([(abbreviation, expansion) for _, abbreviation, expansion in pairs])

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> "References":
        """From pairs of an abbreviation and an expansion."""
        others: dict[str, dict[str, None]] = {}
        for abbreviation, expansion in pairs:
            others.setdefault(abbreviation.casefold(), {})[expansion] = None
            others.setdefault(expansion.casefold(), {})[abbreviation] = None
        longest = sorted(others, key=lambda phrase: (-len(phrase), phrase))
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)
        short = frozenset(abbreviation.casefold() for abbreviation, _ in pairs)
        return cls({phrase: tuple(known) for phrase, known in others.items()}, short, pattern)

    def variants(self, text: str, most: int = MAX_TEXTS) -> list[str]:
        """The text itself, then texts with one abbreviation expanded or one expansion abbreviated, then with two, …

        At most `most` of them, always the same; all after NFC and with single spaces. Where an expansion begins the
        text it comes with a capital too; in a text of capitals it is in capitals.
        """
        text = clean_text(text)
        found = [(match.start(), match.end(), self.in_place(text, match)) for match in self.pattern.finditer(text)]
        return list(islice(dict.fromkeys(islice(replaced(text, found), 4 * most)), most))

    def targets(self, text: str, charset: Charset, most: int = MAX_TEXTS) -> list[list[int]]:
        """The text and its variants as labels, for a loss that takes any of them; the text's own first.

        Variants with a character that the charset lacks are left out. Raises ValueError where the text itself has one.
        """
        own, *others = self.variants(text, most)
        return [charset.encode(own), *(charset.encode(other) for other in others if not charset.missing(other))]

    def in_place(self, text: str, match: re.Match) -> list[str]:
        phrase = match[0].casefold()
        known = self.others.get(phrase, ())
        around = text[: match.start()] + text[match.end() :]
        # "IDM" alone says nothing of how the rest would be written
        if around.isupper() or (match[0].isupper() and phrase not in self.short):
            return [other.upper() for other in known]
        if match.start() == 0:
            return [form for other in known for form in dict.fromkeys((other, other[0].upper() + other[1:]))]
        return list(known)


def replaced(text: str, found: list[tuple[int, int, list[str]]]) -> Iterator[str]:
    """The text with none, one, two, … of the pieces (start, end, what may stand there) replaced, in every way."""
    for count in range(len(found) + 1):
        for chosen in combinations(found, count):
            for words in product(*(others for _, _, others in chosen)):
                parts, at = [], 0
                for (start, end, _), word in zip(chosen, words, strict=True):
                    parts += [text[at:start], word]
                    at = end
                yield "".join([*parts, text[at:]])
