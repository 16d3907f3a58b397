"""Values of French texts: durations, dates, numbers. "3 j", "3 jours" and "depuis trois jours" are one.

    depuis 2 ans    duration of 24 months         12/03/2019   date 2019, 3, 12
    48h             duration of 2 days            mars 2019    date 2019, 3, no day; 00/03/2019 too
    plus d'un an    more than 12 months           1 200,50     number 1200.5
    1h30            an hour and a half            31/02/2019   None: no such day

Only a text that is nothing but a value has one; a range ("2 à 3 jours") has none. Durations are exact: years and months
are counted in months, weeks, days, hours and minutes in days, and the two are never equal, since a month has no fixed
number of days. A qualifier (about, more than, at least) is part of the value: "> 3 j" is not "3 j", "une dizaine de
jours" is about ten. "s" is semaines, "m" mois. A year of two digits is of this century up to 30, else of the last one.
tests/htr/metrics/values.txt has more than 400 spellings with their values.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from htr.metrics.dates import date_of, year_alone
from htr.metrics.numerals import WORDS, numeral

UNITS = {
    "second": ("day", Fraction(1, 86400), ("sec", "secs", "seconde", "secondes")),
    "minute": ("day", Fraction(1, 1440), ("mn", "min", "mins", "minute", "minutes")),
    "hour": ("day", Fraction(1, 24), ("h", "hr", "hrs", "heure", "heures")),
    "day": ("day", Fraction(1), ("j", "jr", "jrs", "jour", "jours", "journee", "journees")),
    "week": ("day", Fraction(7), ("s", "sem", "sems", "semaine", "semaines")),
    "month": ("month", Fraction(1), ("m", "ms", "mois")),
    "quarter": ("month", Fraction(3), ("trimestre", "trimestres")),
    "half-year": ("month", Fraction(6), ("semestre", "semestres")),
    "year": ("month", Fraction(12), ("a", "an", "ans", "annee", "annees")),
    "decade": ("month", Fraction(120), ("decennie", "decennies")),
    "century": ("month", Fraction(1200), ("siecle", "siecles")),
}
UNIT = {word: (base, size) for base, size, words in UNITS.values() for word in words}
RANK = {word: rank for rank, (_, _, words) in enumerate(UNITS.values()) for word in words}
HOUR, MINUTE = UNITS["hour"][2], UNITS["minute"][2]
ABOUT_SO_MANY = {"huitaine": 8, "dizaine": 10, "douzaine": 12, "quinzaine": 15, "vingtaine": 20, "trentaine": 30,
                 "quarantaine": 40, "cinquantaine": 50, "soixantaine": 60, "centaine": 100}  # fmt: skip
PARTS = {"demi": Fraction(1, 2), "demie": Fraction(1, 2), "quart": Fraction(1, 4), "quarts": Fraction(1, 4),
         "tiers": Fraction(1, 3)}  # fmt: skip
# "à" is "@" in a plain text: it is no "a" of année
QUALIFIERS = {
    "~": ("environ", "env", "~", "≈", "±", "+/-", "@ peu pres", "approximativement", "autour de", "vers", "presque",
          "pres de", "pres d'"),
    ">": (">", "> @", "plus de", "plus d'", "+ de", "+ d'", "+", "superieur @", "superieure @", "sup @", "sup. @",
          "au dela de", "au-dela de", "au dela d'", "au-dela d'"),
    "<": ("<", "< @", "moins de", "moins d'", "- de", "- d'", "inferieur @", "inferieure @", "inf @", "inf. @"),
    ">=": ("≥", ">=", "au moins"),
    "<=": ("≤", "<=", "au plus"),
}  # fmt: skip
QUALIFIER = {word: sign for sign, words in QUALIFIERS.items() for word in words}
BEFORE = re.compile(
    "^(" + "|".join(map(re.escape, sorted(QUALIFIER, key=len, reverse=True))) + r")(?:(?<=')|(?![a-z])\.?\s*)"
)
AFTER = re.compile(r"\s*(?:\s(environ|env)|(\+|\s(?:et|ou) (?:plus|\+)))$")
LEADING = re.compile(
    r"^(?:(?:depuis|dep|dps|pendant|durant|il y a|evolution|annee|le|en|du|nee? le|agee? de|age)\b\.?\s*)+:?\s*"
)
DIGITS = r"\d{1,3}(?: \d{3})+(?![\d])(?:[.,]\d+)?|[1-9]\d{0,2}(?:\.\d{3})+(?![\d.])(?:,\d+)?|\d+(?:[.,]\d+)?"
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?")
TOKEN = re.compile(rf"\s*(?:(\d+/\d+)|({DIGITS})|([a-z]+)\.?|(,|'|\+))")
SECONDS_SIGN, MINUTES_SIGN = re.compile(r"(?<=\d)\s*(?:''|\"|\u2033)"), re.compile(r"(?<=\d)\s*['\u2032](?=\s|\d|$)")
# "2/3 j" and "24/48 h" are ranges as a rule, so that only these are fractions of a unit; before one of more than an
# hour ("3/4 jours": three or four) half is the only one, and that of one alone ("1/2 jours" may be one or two)
FRACTIONS = {"1/2": Fraction(1, 2), "1/3": Fraction(1, 3), "1/4": Fraction(1, 4), "3/4": Fraction(3, 4)}
HALF, SINGULAR_S = "1/2", ("mois", "ms", "s")
BARE = re.compile(rf"^[+-]?(?:{DIGITS})$")
# most texts are told apart by this alone
SOME = re.compile(rf"\d|[½¼¾]|\b(?:{'|'.join((*WORDS, *PARTS, *ABOUT_SO_MANY))})\b|premier|z\xe9ro", re.IGNORECASE)
NO_NUMBER = ("un", "une", "neuf")  # words that are rarely meant as a number where they stand alone
MAX_VALUE_LENGTH = 60


class Value(NamedTuple):
    """A duration, date or number that a text states."""

    kind: str  # duration, date or number
    value: tuple | Fraction


@lru_cache(100_000)
def parse(text: str) -> Value | None:
    """The value that the whole text is, or None."""
    if len(text) > MAX_VALUE_LENGTH or not SOME.search(text):
        return None
    text = plain(text)
    body = LEADING.sub("", text)
    if date := year_alone(text) or date_of(body):
        return Value("date", date)
    return of_duration(body) or of_number(text)


def plain(text: str) -> str:
    """Small letters without accents, single spaces, no point at the end, fractions as digits."""
    for sign, digits in (("½", " 1/2"), ("¼", " 1/4"), ("¾", " 3/4"), ("\u202f", " "), ("\u2019", "'")):
        text = text.replace(sign, digits)
    text = re.sub(r"\bà\b", "@", unicodedata.normalize("NFC", text.casefold()))  # "2 à 3": no "a" for année
    text = unicodedata.normalize("NFD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = MINUTES_SIGN.sub(" min ", SECONDS_SIGN.sub(" sec ", text))
    text = " ".join(text.split()).rstrip(" .;,")
    return text[1:-1].strip() if text.startswith("(") and text.endswith(")") else text


# ---------------------------------------------------------------------------------------------------- numbers


def of_number(text: str) -> Value | None:
    """The value of a plain text that is a number and nothing else."""
    if BARE.match(text):
        return Value("number", digits(text))
    tokens = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text).split(" ")
    found = numeral(tokens, 0)
    if found and found[1] == len(tokens) and text not in NO_NUMBER:
        return Value("number", found[0])
    return None


def digits(text: str) -> Fraction:
    """A point before three digits parts thousands, as a space does; before others, and any comma, decimals."""
    text = text.replace(".", "") if THOUSANDS.fullmatch(text) else text
    return Fraction(text.replace(" ", "").replace(",", "."))


# ---------------------------------------------------------------------------------------------------- durations


def of_duration(text: str) -> Value | None:
    """The value of a plain text that is a duration and nothing else: "3 j", "2 ans 1/2", "depuis trois jours"."""
    about = ""
    if found := BEFORE.match(text):
        about, text = QUALIFIER[found[1]], text[found.end() :]
    elif found := AFTER.search(text):
        about, text = ("~" if found[1] else ">="), text[: found.start()]
    tokens = tokens_of(text)
    if not tokens:
        return None
    sums: dict[str, Fraction] = {}
    at, rank, word = 0, len(UNITS), ""
    while at < len(tokens):
        if sums and tokens[at] in (",", "et", "+"):
            at += 1
        found = quantity(tokens, at)
        if not found or found[1] >= len(tokens) or tokens[found[1]] not in UNIT:
            return None
        size, at, is_about = found
        if is_about:
            about = about or "~"
        if word == "a" and len(tokens[at]) > 2:  # "2 a 3 mois": an "à" as a rule, no année
            return None
        word = "sec" if tokens[at] == "s" and rank <= RANK["h"] else tokens[at]  # "1 min 30 s"
        if RANK[word] >= rank:  # from large to small, each unit once
            return None
        rank, (base, one) = RANK[word], UNIT[word]
        more, at = part_after(tokens, at + 1)
        if word in (*HOUR, *MINUTE) and not more:
            sixtieths, at = sixtieths_after(tokens, at)
            if sixtieths is None:
                return None
            more = Fraction(sixtieths, 60)
        sums[base] = sums.get(base, Fraction(0)) + (size + more) * one
    return Value("duration", (about, *sorted(sums.items())))


def tokens_of(text: str) -> list[str] | None:
    """Numbers, fractions and words, or None where there is anything else."""
    text, found, at = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text), [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            return None
        found.append(match[match.lastindex])
        at = match.end()
    return found


def quantity(tokens: list[str], at: int) -> tuple[Fraction, int, bool] | None:
    """-> how many, where it ends, and whether it is about so many ("une dizaine de")."""
    is_about = False
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    if tokens[at : at + 1] in (["une"], ["1"]) and after in (*ABOUT_SO_MANY, "demi", "demie"):
        at += 1  # une dizaine de jours, une demi-heure
    if at >= len(tokens):
        return None
    word = tokens[at]
    if word in ABOUT_SO_MANY:
        size, at, is_about = Fraction(ABOUT_SO_MANY[word]), at + 1, True
    elif word in ("demi", "demie"):
        size, at = PARTS[word], at + 1
    elif "/" in word:
        size, at = fraction_of(word, tokens[at + 1 : at + 2]), at + 1
    elif word[0].isdigit():
        size, at = digits(word), at + 1
        if at < len(tokens) and "/" in tokens[at]:  # 2 1/2 ans
            more = FRACTIONS.get(tokens[at])
            size, at = (None if size is None or more is None else size + more), at + 1
    else:
        found = numeral(tokens, at)
        if not found:
            return None
        size, at = found
        if at < len(tokens) and tokens[at] in ("quart", "quarts", "tiers"):
            size, at = size * PARTS[tokens[at]], at + 1
    if size is None:
        return None
    if tokens[at : at + 1] == ["de"]:
        at += 1
    elif tokens[at : at + 2] == ["d", "'"]:
        at += 2
    return size, at, is_about


def fraction_of(word: str, after: list[str]) -> Fraction | None:
    """ "3/4" of what comes after it; None for one by nothing, and for what may be a range: "2/3 j", "3/4 jours"."""
    unit = after[0] if after else ""
    if unit in ("d", "de"):
        return {**FRACTIONS, "2/3": Fraction(2, 3)}.get(word)
    is_plural = unit.endswith("s") and unit not in SINGULAR_S
    return None if is_plural or (word != HALF and unit not in HOUR) else FRACTIONS.get(word)


def part_after(tokens: list[str], at: int) -> tuple[Fraction, int]:
    """What follows a unit as a part of it: "1 an et demi", "1 an 1/2", "une heure et quart"."""
    if tokens[at : at + 1] == ["et"] and tokens[at + 1 : at + 2] and tokens[at + 1] in PARTS:
        return PARTS[tokens[at + 1]], at + 2
    i = at + (tokens[at : at + 1] == ["et"])
    if i < len(tokens) and "/" in tokens[i] and (i + 1 == len(tokens) or tokens[i + 1] not in UNIT):
        size = FRACTIONS.get(tokens[i])
        if size is not None:
            return size, i + 1
    return Fraction(0), at


def sixtieths_after(tokens: list[str], at: int) -> tuple[int | None, int]:
    """ "1h30", "une heure trente", "1 min 30": minutes, or seconds, without their unit; None for 60 and more."""
    if at >= len(tokens):
        return 0, at
    found = (Fraction(int(tokens[at])), at + 1) if re.fullmatch(r"\d{2}", tokens[at]) else numeral(tokens, at)
    if not found or (found[1] < len(tokens) and tokens[found[1]] in UNIT):
        return 0, at
    return (int(found[0]) if found[0] < 60 else None), found[1]
