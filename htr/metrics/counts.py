"""Error counts of each line: numbers that add up over lines, parts, writers and slices.

`count` takes whole lists, since a call of rapidfuzz a list (cpdist) costs a tenth of a call a pair. Its columns:

    characters edits words word_edits exact     as is; the same with _NAME under each other normalisation (normalise.py)
    substitutions insertions deletions          of the edits, in the alignment that rapidfuzz gives
    words_unicode word_edits_unicode            words by Unicode's rules (words.py)
    of_CLASS missed_CLASS                       the reference's characters of a class (characters.py); those misread
    value_duration value_date value_number      1 where the reference is such a value (values.py), right_KIND and
                                                same_KIND where the reading is that value, that text
    blank false_text written read_blank         empty references, those read as something; the others, read as nothing

With a table of abbreviations the normalisations `abbreviations` and `lenient_abbreviations` count against the accepted
text of the fewest edits (references.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist

from htr.metrics import characters
from htr.metrics.normalise import NORMALISATIONS, normalise
from htr.metrics.values import parse
from htr.metrics.words import right_words, unicode_words
from htr.references import References

OF_TEXT = ("characters", "edits", "words", "word_edits", "exact")
OTHERS = ("substitutions", "insertions", "deletions", "words_unicode", "word_edits_unicode")
KINDS = ("duration", "date", "number")
WITH_TABLE = {"abbreviations": "as_is", "lenient_abbreviations": "lenient"}


@dataclass
class Counts:
    """What is counted of N lines; sums of it over any lines are the counts of these."""

    columns: dict[str, np.ndarray]  # (lines,) int32 each
    word_right: list[list[bool]]  # of each hypothesis' words by spaces, in their order
    confusions: dict[tuple[str, str], int]  # of a reference's character and the hypothesis', "" where there is none


def count(references: Sequence[str], hypotheses: Sequence[str], table: References | None = None) -> Counts:
    """Count N references against N hypotheses (recognised texts), each list in the same order.

    `table`: spellings that are accepted as well; it adds the columns of WITH_TABLE.
    """
    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses: give a pair a line")
    columns: dict[str, np.ndarray] = {}
    as_is = normalise(references, "as_is"), normalise(hypotheses, "as_is")
    differ = np.array([one != other for one, other in zip(*as_is, strict=True)], bool)
    for name in NORMALISATIONS:
        columns |= suffixed(name, texts_counted(*both(*as_is, name), differ))
    if table:
        columns |= with_table(*as_is, differ, table, columns)
    words = [list(map(unicode_words, texts)) for texts in as_is]
    columns["words_unicode"], columns["word_edits_unicode"] = sizes(words[0]), distances(*words, differ)
    edits, confusions = characters.counted(*as_is, differ)
    columns |= edits | values_counted(*as_is) | blanks_counted(*as_is)
    right = [
        right_words(one, other) if wrong else [True] * len(other.split())
        for one, other, wrong in zip(*as_is, differ, strict=True)
    ]
    return Counts({name: column.astype(np.int32) for name, column in columns.items()}, right, confusions)


def names(table: bool = False) -> list[str]:
    """The normalisations under which errors are counted, in the order in which they are shown; `table`: with those of
    accepted spellings."""
    return [*NORMALISATIONS, *(WITH_TABLE if table else ())]


def column(name: str, normalisation: str) -> str:
    """The name of a count under a normalisation: edits, edits_case, …"""
    return name if normalisation == "as_is" else f"{name}_{normalisation}"


def suffixed(normalisation: str, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {column(name, normalisation): values for name, values in columns.items()}


# ---------------------------------------------------------------------------------------------------- edits


def both(references: list[str], hypotheses: list[str], name: str) -> tuple[list[str], list[str]]:
    """References and hypotheses under the normalisation of this name."""
    return (references, hypotheses) if name == "as_is" else (normalise(references, name), normalise(hypotheses, name))


def texts_counted(references: list[str], hypotheses: list[str], differ: np.ndarray) -> dict[str, np.ndarray]:
    """The counts OF_TEXT of normalised texts. `differ` (N,): which pairs are unequal before normalisation; the others
    have no edit and are not compared."""
    words = [text.split() for text in references]
    edits = distances(references, hypotheses, differ)
    return {
        "characters": sizes(references),
        "edits": edits,
        "words": sizes(words),
        "word_edits": distances(words, [text.split() for text in hypotheses], differ),
        "exact": edits == 0,
    }


def sizes(texts: Sequence[Sequence]) -> np.ndarray:
    """(N,) int32, the length of each."""
    return np.fromiter(map(len, texts), np.int32, len(texts))


def distances(references: list, hypotheses: list, differ: np.ndarray) -> np.ndarray:
    """Texts, or lists of words, -> Levenshtein distances of those that differ, 0 for the others."""
    found, wrong = np.zeros(len(references), np.int32), np.flatnonzero(differ).tolist()
    if wrong:
        ones, others = ([texts[i] for i in wrong] for texts in (references, hypotheses))
        found[wrong] = cpdist(ones, others, scorer=Levenshtein.distance, dtype=np.int32)
    return found


def with_table(
    references: list[str], hypotheses: list[str], differ: np.ndarray, table: References, columns: dict
) -> dict[str, np.ndarray]:
    """The columns of WITH_TABLE: those of the normalisation itself, but for lines that another text fits better."""
    found = {
        column(name, kind): columns[column(name, base)].copy() for kind, base in WITH_TABLE.items() for name in OF_TEXT
    }
    for i in np.flatnonzero(differ).tolist():
        variants = table.variants(references[i])
        if len(variants) < 2:
            continue
        for kind, base in WITH_TABLE.items():
            step = NORMALISATIONS[base]
            hypothesis, texts = step(hypotheses[i]), list(map(step, variants))
            edits = [Levenshtein.distance(text, hypothesis) for text in texts]
            best = min(range(len(texts)), key=edits.__getitem__)
            if edits[best] >= found[column("edits", kind)][i]:
                continue
            words = texts[best].split()
            values = (len(texts[best]), edits[best], len(words), Levenshtein.distance(words, hypothesis.split()))
            for name, value in zip(OF_TEXT, (*values, edits[best] == 0), strict=True):
                found[column(name, kind)][i] = value
    return found


# ---------------------------------------------------------------------------------------------------- values, blanks


def values_counted(references: list[str], hypotheses: list[str]) -> dict[str, np.ndarray]:
    """For each kind of value (N,) whether the reference is one, whether the hypothesis has the same value, and whether
    it is the same text."""
    columns = {
        f"{what}_{kind}": np.zeros(len(references), np.int32) for kind in KINDS for what in ("value", "right", "same")
    }
    for line, text in enumerate(references):
        value = parse(text)
        if value is not None:
            columns[f"value_{value.kind}"][line] = 1
            columns[f"same_{value.kind}"][line] = hypotheses[line] == text
            columns[f"right_{value.kind}"][line] = hypotheses[line] == text or parse(hypotheses[line]) == value
    return columns


def blanks_counted(references: list[str], hypotheses: list[str]) -> dict[str, np.ndarray]:
    """(N,) bool of each line: its reference is empty, something was read there all the same; it is written, nothing was
    read."""
    blank, nothing = (np.array([not text.strip() for text in texts], bool) for texts in (references, hypotheses))
    return {
        "blank": blank,
        "false_text": blank & ~nothing,
        "written": ~blank,
        "read_blank": ~blank & nothing,
    }
