"""What a French text says as a value: a duration, a date, a number. "3 j", "3 jours", "depuis trois jours" are one.

    depuis 2 ans   duration of 24 months          12/03/2019   date 2019, 3, 12
    48h            duration of 2 days             mars 2019    date 2019, 3, no day
    > 1 an 1/2     None: no unit after 1/2        1 200,50     number 1200.5

Only a text that is nothing but a value has one. Durations are exact: years and months are counted in months, weeks,
days, hours and minutes in days, and the two are never equal, since a month has no fixed number of days. A qualifier
(about, more than) is part of the value: "> 3 j" is not "3 j". "s" is semaines, "m" mois. A year of two digits
is of this century up to 30, else of the last one.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

UNITS = {
    "minute": ("day", Fraction(1, 1440), ("mn", "min", "mins", "minute", "minutes")),
    "hour": ("day", Fraction(1, 24), ("h", "hr", "hrs", "heure", "heures")),
    "day": ("day", Fraction(1), ("j", "jr", "jrs", "jour", "jours")),
    "week": ("day", Fraction(7), ("s", "sem", "sems", "semaine", "semaines")),
    "month": ("month", Fraction(1), ("m", "ms", "mois")),
    "year": ("month", Fraction(12), ("a", "an", "ans", "annee", "annees")),
}
UNIT = {word: (base, size) for base, size, words in UNITS.values() for word in words}
UP_TO_TWENTY = """zero un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept
    dix-huit dix-neuf vingt"""
NUMBER = {word: Fraction(value) for value, word in enumerate(UP_TO_TWENTY.split())} | {
    "une": Fraction(1),
    "demi": Fraction(1, 2),
}
NUMBER |= {"trente": Fraction(30), "quarante": Fraction(40), "cinquante": Fraction(50), "soixante": Fraction(60)}
MONTHS = "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre"
MONTH = {name: number for number, name in enumerate(MONTHS.split(), 1)}
MONTH |= {"janv": 1, "fev": 2, "fevr": 2, "avr": 4, "juil": 7, "sept": 9, "oct": 10, "nov": 11, "dec": 12}
ABOUT = {"environ": "~", "env": "~", "~": "~", "≈": "~", ">": ">", "<": "<", "plus de": ">", "moins de": "<",
         "+ de": ">", "- de": "<"}  # fmt: skip
LEADING = re.compile(r"^(?:(?:depuis|pendant|durant|il y a|evolution|le|en|du)\b\s*)+:?\s*")
QUALIFIED = re.compile(r"^(environ|env\b\.?|~|≈|>|<|plus de|moins de|[+-] de)\s*")
DIGITS = r"\d{1,3}(?: \d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?"
PIECE = re.compile(rf"({DIGITS}|\d+/\d+|{'|'.join(sorted(NUMBER, key=len, reverse=True))})\s*"
                   rf"({'|'.join(sorted(UNIT, key=len, reverse=True))})(?![a-z])\.?\s*(?:,|et\b)?\s*")  # fmt: skip
BARE = re.compile(rf"^[+-]?(?:{DIGITS})$")
DATE = re.compile(r"^(\d{1,2})\s*[/.-]\s*(\d{1,2})\s*[/.-]\s*(\d{4}|\d{2})$")
ISO = re.compile(r"^(\d{4})-(\d{1,2})-(\d{1,2})$")
NAMED = re.compile(r"^(?:(\d{1,2}|1er)\s*)?([a-z]{3,9})\.?\s*(\d{4})$")
MONTHLY = re.compile(r"^(\d{1,2})\s*[/-]\s*(\d{4})$")
SOME = re.compile(rf"\d|½|\b(?:{'|'.join(NUMBER)})\b", re.IGNORECASE)  # most texts are told apart by this alone
MAX_VALUE_LENGTH = 60
CENTURY_PIVOT_YEAR = 30


class Value(NamedTuple):
    kind: str  # duration, date or number
    value: tuple | Fraction


@lru_cache(100_000)
def parse(text: str) -> Value | None:
    """The value that the whole text is, or None."""
    if len(text) > MAX_VALUE_LENGTH or not SOME.search(text):
        return None
    text = plain(text)
    body = LEADING.sub("", text)
    return of_date(body) or of_duration(body) or of_number(text)


def plain(text: str) -> str:
    """Small letters without accents, single spaces, no point at the end."""
    text = unicodedata.normalize("NFD", text.casefold().replace("½", " 1/2").replace("\u202f", " "))
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join(text.split()).rstrip(" .;,")


def of_number(text: str) -> Value | None:
    return Value("number", number(text)) if BARE.match(text) else None


def number(text: str) -> Fraction:
    if "/" in text:
        above, below = map(int, text.split("/"))
        return Fraction(above, below) if below else Fraction(0)
    return NUMBER[text] if text in NUMBER else Fraction(text.replace(" ", "").replace(",", "."))


def of_duration(text: str) -> Value | None:
    about = ""
    if found := QUALIFIED.match(text):
        about, text = ABOUT[found[1].rstrip(".")], text[found.end() :]
    sums: dict[str, Fraction] = {}
    at = 0
    while at < len(text):
        found = PIECE.match(text, at)
        if not found:
            return None
        base, size = UNIT[found[2]]
        sums[base] = sums.get(base, Fraction(0)) + number(found[1]) * size
        at = found.end()
    return Value("duration", (about, *sorted(sums.items()))) if sums else None


def of_date(text: str) -> Value | None:
    if found := DATE.match(text):
        day, month, year = map(int, found.groups())
    elif found := ISO.match(text):
        year, month, day = map(int, found.groups())
    elif found := MONTHLY.match(text):
        day, month, year = None, int(found[1]), int(found[2])
    elif (found := NAMED.match(text)) and found[2] in MONTH:
        day, month, year = found[1] and int(found[1].removesuffix("er")), MONTH[found[2]], int(found[3])
    else:
        return None
    if year < 100:
        year += 2000 if year <= CENTURY_PIVOT_YEAR else 1900
    if not (1 <= month <= 12 and (day is None or 1 <= day <= 31)):
        return None
    return Value("date", (year, month, day))
