"""French dates: "12/03/2019", "1er mars 2019", "le 3 avril deux mille dix-neuf", "12.III.2019", "00/03/2019"."""

import calendar
import re

from htr.metrics.numerals import numeral

MONTHS = "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre"
MONTH = {name: number for number, name in enumerate(MONTHS.split(), 1)}
MONTH |= {"jan": 1, "janv": 1, "fev": 2, "fevr": 2, "avr": 4, "jul": 7, "juil": 7, "juill": 7, "sep": 9, "sept": 9,
          "oct": 10, "nov": 11, "dec": 12}  # fmt: skip
ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "x": 10, "xi": 11,
         "xii": 12}  # fmt: skip
SINCE = re.compile(r"^(?:depuis|en|annee)\s+(?:l'an\s+)?(\d{4})$")
WEEKDAY = re.compile(r"^(?:lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche)\s+")
FIRST = r"1 ?er|1 ?°|premier"
DAY_MONTH_YEAR = re.compile(rf"^(\d{{1,2}}|{FIRST})\s*([/.-])\s*(\d{{1,2}}|[ivx]{{1,4}})\s*[/.-]\s*(\d{{4}}|\d{{2}})$")
SPACED = re.compile(r"^(\d{2}) (\d{2}) (\d{4})$")
YEAR_FIRST = re.compile(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})$")
MONTHLY = re.compile(r"^(\d{1,2})\s*[/-]\s*(\d{4})$|^(\d{1,2})\.((?:18|19|20)\d\d)$")
NAMED = re.compile(
    rf"^(?:(\d{{1,2}}|{FIRST}|[a-z][a-z ]*?) *)??\b({'|'.join(MONTH)})(?![a-z])\.? *(\d{{4}}|\d{{2}}|[a-z][a-z ]*)$"
)
FIRST_YEAR, LAST_YEAR = 1800, 2100
CENTURY_PIVOT_YEAR = 30

Parts = tuple[int, int | None, int | None]  # year, month, day; None: not known


def date_of(text: str) -> Parts | None:
    """A plain text (htr/metrics/values.py) that is a date and nothing else; None also where there is no such day."""
    text = WEEKDAY.sub("", text)
    if found := DAY_MONTH_YEAR.match(text):
        day, month, year = day_of(found[1]), ROMAN.get(found[3]) or whole(found[3]), year_of(found[4])
    elif found := SPACED.match(text):
        day, month, year = whole(found[1]), whole(found[2]), year_of(found[3])
    elif found := YEAR_FIRST.match(text):
        year, month, day = year_of(found[1]), whole(found[2]), whole(found[3])
    elif found := MONTHLY.match(text):
        month, year = (part for part in found.groups() if part)
        day, month, year = 0, whole(month), year_of(year)
    elif found := NAMED.match(text.replace("-", " ")):
        day, month, year = day_of(found[1]) if found[1] else 0, MONTH[found[2]], year_of(found[3])
        if not day and len(found[3]) == 2:  # mars 19: a year, or a day?
            return None
    else:
        return None
    if day is None or month is None or year is None:
        return None
    if not 0 <= month <= 12 or (day and not month):
        return None
    if month and day > calendar.monthrange(year, month)[1]:
        return None
    return year, month or None, day or None  # 00: not known


def year_alone(text: str) -> Parts | None:
    """A year is a date where the text says so: "en 2019", "depuis 2019", "depuis l'an 2000"."""
    found = SINCE.match(text)
    year = year_of(found[1]) if found else None
    return (year, None, None) if year else None


def whole(text: str) -> int | None:
    """The number that a text of digits alone is; None for other texts."""
    return int(text) if text.isdecimal() else None


def day_of(text: str) -> int | None:
    """A day in digits or words, "1er" and "premier" among them; None for other texts."""
    if re.fullmatch(FIRST, text):
        return 1
    return whole(text) if text[0].isdigit() else in_words(text)


def year_of(text: str) -> int | None:
    """Two digits are of this century or the last one; None: no year of 1800 to 2100, as "0000"."""
    if len(text) == 2 and text.isdecimal():
        return int(text) + (2000 if int(text) <= CENTURY_PIVOT_YEAR else 1900)
    found = whole(text) if text.isdecimal() else in_words(text)
    return found if found and FIRST_YEAR <= found <= LAST_YEAR else None


def in_words(text: str) -> int | None:
    """A whole number in words and nothing else; None for other texts."""
    tokens = text.split()
    found = numeral(tokens, 0)
    return int(found[0]) if found and found[1] == len(tokens) else None
