"""French numbers in words: "vingt-quatre", "soixante et onze", "quatre-vingts", "nonante", "mille deux cents"."""

from collections.abc import Sequence
from fractions import Fraction

UP_TO_SIXTEEN = "zero un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
SMALL = {word: value for value, word in enumerate(UP_TO_SIXTEEN.split())} | {"une": 1}
TENS = {"vingt": 20, "vingts": 20, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60, "septante": 70,
        "huitante": 80, "octante": 80, "nonante": 90}  # fmt: skip
HUNDRED, THOUSAND, MILLION = ("cent", "cents"), ("mille", "mil"), ("million", "millions")
WORDS = (*SMALL, *TENS, *HUNDRED, *THOUSAND, *MILLION)


def numeral(tokens: Sequence[str], at: int) -> tuple[Fraction, int] | None:
    """Words without accents and hyphens, from `at` on -> the longest number there and where it ends, or None."""
    total, i = 0, at
    for names, scale in ((MILLION, 1_000_000), (THOUSAND, 1000)):
        before = below_thousand(tokens, i)
        end = before[1] if before else i
        if end < len(tokens) and tokens[end] in names and (before or scale == 1000):
            total, i = total + (before[0] if before else 1) * scale, end + 1
    rest = below_thousand(tokens, i)
    if rest and (rest[0] or i == at):
        total, i = total + rest[0], rest[1]
    return (Fraction(total), i) if i > at else None


def below_thousand(tokens: Sequence[str], at: int) -> tuple[int, int] | None:
    """-> the longest number below 1000 there, where it ends; None where there is none."""
    before = below_hundred(tokens, at)
    end = before[1] if before else at
    if end < len(tokens) and tokens[end] in HUNDRED and (before is None or 1 < before[0] < 20):
        hundreds = (before[0] if before else 1) * 100
        rest = below_hundred(tokens, end + 1)
        return (hundreds + rest[0], rest[1]) if rest and rest[0] else (hundreds, end + 1)
    return before


def below_hundred(tokens: Sequence[str], at: int) -> tuple[int, int] | None:
    """-> the longest number below 100 there, where it ends; None where there is none. "soixante" and "quatre-vingt" are
    followed by 1 to 19, other tens by 1 to 9; "et" may stand before "un" and "onze"."""

    def word(i: int) -> str:
        return tokens[i] if i < len(tokens) else ""

    if word(at) == "quatre" and word(at + 1) in ("vingt", "vingts"):
        base, end, most = 80, at + 2, 19
    elif word(at) in TENS and word(at) != "vingts":
        base, end = TENS[word(at)], at + 1
        most = 19 if base == 60 else 9
    else:
        return below_twenty(tokens, at)
    joined = end + 1 if word(end) == "et" and word(end + 1) in ("un", "une", "onze") else end
    rest = below_twenty(tokens, joined)
    if rest and 0 < rest[0] <= most and word(end - 1) != "vingts":
        return base + rest[0], rest[1]
    return base, end


def below_twenty(tokens: Sequence[str], at: int) -> tuple[int, int] | None:
    """-> the number below 20 there, where it ends; None where there is none."""
    word, after = (tokens[i] if i < len(tokens) else "" for i in (at, at + 1))
    if word == "dix" and SMALL.get(after) in (7, 8, 9):
        return 10 + SMALL[after], at + 2
    return (SMALL[word], at + 1) if word in SMALL else None
