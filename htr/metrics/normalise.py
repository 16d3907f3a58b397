"""Text normalisations under which differences are no errors: case, accents, punctuation, …

    as_is         nothing but Unicode's form: NFC
    case          capitals: Unicode's case folding
    accents       accents, cedillas and ligatures: é e, ç c, œ oe
    punctuation   punctuation and how much space there is: an apostrophe, a dash or a slash becomes a space, all else of
                  Unicode's categories P goes, but for % and a point or comma between two digits
    lenient       case, accents and punctuation

`abbreviations` and `lenient_abbreviations` are the first and the last with a table of abbreviations, see count.py.

A list goes through each step as one string: a call a text would take ten times as long.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence

LIGATURES = {"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE"}
PARTING = "'\u2018\u2019\u02bc-\u2010\u2011\u2012\u2013\u2014\u2015/\\_"  # apostrophes, dashes: between two words
KEPT = "%‰"

# of the basic plane: with one character beyond it re tries a class of hundreds one by one, fifty times as long
PUNCTUATION = {c for c in map(chr, range(0x10000)) if unicodedata.category(c)[0] == "P"}
SPACE = {c for c in map(chr, range(0x3001)) if c.isspace()} - {" ", "\n"}
PARTS = re.compile(f"[{re.escape(PARTING + ''.join(sorted(SPACE)))}]")
DROPPED = re.compile(f"[{re.escape(''.join(sorted(PUNCTUATION - set(PARTING + KEPT + '.,'))))}]")
NO_DECIMAL = re.compile(r"[.,](?:(?!\d)|(?<!\d[.,]))")
MARKS = re.compile("[\u0300-\u036f]+")
SPACES = re.compile(" {2,}")


def nfc(text: str) -> str:
    """Unicode's composed form: "e" and an accent become one character."""
    return unicodedata.normalize("NFC", text)


def without_case(text: str) -> str:
    """Case folded: "É" and "é" are equal."""
    return nfc(text.casefold())


def without_accents(text: str) -> str:
    """Ligatures become two letters, accents go: "Œdème" becomes "Oedeme"."""
    for ligature, letters in LIGATURES.items():
        text = text.replace(ligature, letters)
    return nfc(MARKS.sub("", unicodedata.normalize("NFD", text)))


def without_punctuation(text: str) -> str:
    """Punctuation goes, but for the point or comma of a number; what parts words becomes a space, several spaces
    one."""
    text = SPACES.sub(" ", NO_DECIMAL.sub("", DROPPED.sub("", PARTS.sub(" ", text))))
    return nfc(text.replace("\n ", "\n").replace(" \n", "\n").strip(" "))


def lenient(text: str) -> str:
    """Without case, accents and punctuation."""
    return without_punctuation(without_accents(without_case(text)))


NORMALISATIONS: dict[str, Callable[[str], str]] = {
    "as_is": nfc,
    "case": without_case,
    "accents": without_accents,
    "punctuation": without_punctuation,
    "lenient": lenient,
}


def normalise(texts: Sequence[str], name: str) -> list[str]:
    """The texts under the normalisation of this name. Raises KeyError for an unknown one."""
    step = NORMALISATIONS[name]
    joined = "\n".join(texts)
    if joined.count("\n") != len(texts) - 1:  # one of them has more than one line
        return [step(text) for text in texts]
    return step(joined).split("\n") if texts else []
