"""What French durations, dates and numbers say, and what is none."""

from fractions import Fraction

import pytest

from htr.metrics.values import parse

SAME = [
    ["3 j", "3 jours", "3j", "3 Jours.", "depuis 3 jours", "trois jours", "72 h", "72 heures", "Il y a 3 jrs"],
    ["2 ans", "depuis 2 ans", "24 mois", "deux ans", "2 a", "1 an 12 mois", "un an et 12 mois", "1 année, 12 mois"],
    ["1 sem", "1 semaine", "7 j", "une semaine", "168h"],
    ["1/2 h", "½ heure", "30 min", "30 mn", "0,5 h"],
    ["environ 3 mois", "env. 3 mois", "~3 mois", "≈ 3 m"],
    ["> 3 j", "plus de 3 jours", "+ de 3 j"],
    ["12/03/2019", "12 mars 2019", "12.03.2019", "12-3-19", "2019-03-12", "le 12/03/2019", "12 MARS 2019"],
    ["1er août 2020", "01/08/2020", "1 aout 2020"],
    ["mars 2019", "03/2019", "3-2019", "en mars 2019"],
    ["12/03/87", "12 mars 1987"],
    ["1200", "1 200", "1 200,0", "1200.00", "1\u202f200"],
    ["12,5", "12.50"],
]


@pytest.mark.parametrize("texts", SAME, ids=lambda texts: texts[0])
def test_ways_of_writing_the_same(texts: list[str]):
    first = parse(texts[0])
    assert first is not None and [text for text in texts if parse(text) != first] == []


def test_no_two_of_these_are_the_same():
    values = [parse(texts[0]) for texts in SAME] + [
        parse("3 mois"),
        parse("3"),
        parse("3 ans"),
        parse("< 3 j"),
        parse("-3"),
    ]
    assert len(set(values)) == len(values) and None not in values


def test_what_a_value_is():
    assert parse("1 an et demi") is None  # no unit after the half: better none than a wrong one
    assert parse("2,5 ans") == ("duration", ("", ("month", Fraction(30))))
    assert parse("1 mois 3 j") == ("duration", ("", ("day", Fraction(3)), ("month", Fraction(1))))
    assert parse("mars 2019") == ("date", (2019, 3, None)) and parse("-1 200,5") == ("number", Fraction(-2401, 2))


@pytest.mark.parametrize(
    "text",
    ["", " ", "choc septique", "3 joues", "32/01/2019", "12/13/2019", "chute en 2019 de 3 m", "AVC 3 j", "1/0 h x", "j",
     "depuis", "un", "12 brumaire 2019", "3 j ou 4", "9" * 80],
)  # fmt: skip
def test_what_is_none(text: str):
    assert parse(text) is None
