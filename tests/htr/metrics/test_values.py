"""What French durations, dates and numbers say, and what is none: tests/values.txt, written before the code."""

from fractions import Fraction
from pathlib import Path

import pytest

from htr.metrics.numerals import numeral
from htr.metrics.values import Value, parse

LINES = [line for line in Path(__file__).with_name("values.txt").read_text("utf-8").splitlines() if line[0] != "#"]
CASES = [(about, text) for line in LINES for about, texts in [line.split(" = ", 1)] for text in texts.split(" | ")]


def value_of(about: str) -> Value | None:
    """ "duration ~ month 3", "date 2019-03", "number 25/2", "none"."""
    kind, *rest = about.split()
    if kind == "none":
        return None
    if kind == "number":
        return Value(kind, Fraction(rest[0]))
    if kind == "date":
        parts = [*map(int, rest[0].split("-")), None, None]
        return Value(kind, tuple(parts[:3]))
    sign = rest.pop(0) if rest[0] not in ("day", "month") else ""
    sizes = sorted((base, Fraction(size)) for base, size in zip(rest[::2], rest[1::2], strict=True))
    return Value(kind, (sign, *sizes))


def test_there_are_300_spellings():
    assert len(CASES) >= 300 and len({text for _, text in CASES}) == len(CASES)


@pytest.mark.parametrize(("about", "text"), CASES, ids=lambda part: part)
def test_what_a_spelling_says(about: str, text: str):
    assert parse(text) == value_of(about)


def test_no_two_values_are_the_same():
    values = [value_of(line.split(" = ", 1)[0]) for line in LINES]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("text", ["", " ", "choc septique", "1/0 h x", "9" * 80, "une" * 30, "1/" + "9" * 50])
def test_what_is_none(text: str):
    assert parse(text) is None


NAMES = "zero un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept " \
        "dix-huit dix-neuf vingt"  # fmt: skip
TENS = {20: "vingt", 30: "trente", 40: "quarante", 50: "cinquante", 60: "soixante", 80: "quatre-vingt"}


def spelled(n: int) -> str:
    """A number below 1 000 000 as French writes it."""
    if n <= 20:
        return NAMES.split()[n]
    if n < 100:
        base = n // 20 * 20 if n >= 60 else n // 10 * 10
        if n == base:
            return TENS[base] + "s" * (base == 80)
        return TENS[base] + (" et " if n - base in (1, 11) and base != 80 else "-") + spelled(n - base)
    scale, name = (1000, "mille") if n >= 1000 else (100, "cent")
    before = "" if n // scale == 1 else spelled(n // scale) + " "
    rest = spelled(n % scale) if n % scale else ""
    return f"{before}{name}{'s' * (name == 'cent' and bool(before) and not rest)} {rest}".strip()


def test_every_number_is_read_as_it_is_spelled():
    for n in [*range(2101), 9999, 71_071, 99_999, 100_000, 481_691, 999_999]:
        tokens = spelled(n).replace("-", " ").split()
        assert numeral(tokens, 0) == (n, len(tokens)), spelled(n)
