"""What French physicians write on a death certificate: causes, durations and other conditions, drawn from causes.txt.

    rng = np.random.default_rng(0)
    cause(rng), duration(rng), other_conditions(rng)

The phrases combine (a disease on a ground, a sepsis and its source, a cancer, its stage and its metastases, a date), so
that most of the strings of one set of certificates are not found in another.
"""

import re
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np

ALPHABET = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    "àâäçéèêëîïôöùûüœÀÂÇÉÈÊËÎÏÔÖÙÛÜŒ .,'-/()+°:%"
)  # every text of this module keeps to it

GRAMMAR = Path(__file__).with_name("causes.txt")
SLOT = re.compile(r"\{(\w+)(?::(\d+)-(\d+))?\}")
ELISION = re.compile(r"\b([dD])e (?=[aeiouyàâéèêëîïôöûœAEIOUYÉÈÊŒ]|h[éuy]|hom)")  # not "de hanche": its h is aspirated


@cache
def sections(file: Path = GRAMMAR) -> dict[str, tuple[list[str], np.ndarray]]:
    """Section -> its entries and their cumulated shares (the last one is 1).

    ValueError names the file, the line and the entry for a slot without its section, or text outside ALPHABET.
    """
    entries: dict[str, list[tuple[float, str, int]]] = {}
    current: list[tuple[float, str, int]] = []
    for number, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = unicodedata.normalize("NFC", raw).strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            current = entries.setdefault(line.strip("[]"), [])
        else:
            for entry in line.split(" | "):
                weight, star, rest = entry.partition("* ")
                current.append((float(weight), rest, number) if star else (1.0, entry, number))
    for _, text, number in (entry for section in entries.values() for entry in section):
        unknown = [slot[1] for slot in SLOT.finditer(text) if slot[1] != "number" and slot[1] not in entries]
        if unknown:
            raise ValueError(f"{file}, line {number}, {text!r}: no section {unknown}; add it or mend the name")
        strange = sorted(set(SLOT.sub("", text)) - set(ALPHABET))
        if strange:
            raise ValueError(f"{file}, line {number}, {text!r}: {strange} outside ALPHABET; write it otherwise")
    table = {}
    for name, section in entries.items():
        shares = np.cumsum([weight for weight, _, _ in section])
        table[name] = [text for _, text, _ in section], shares / shares[-1]
    return table


def draw(section: str, rng: np.random.Generator) -> str:
    """One entry of a section with its slots filled; "de" elided before a vowel."""
    entries, shares = sections()[section]
    entry = entries[int(np.searchsorted(shares, rng.random(), side="right"))]

    def fill(slot: re.Match) -> str:
        if slot[1] == "number":
            return str(rng.integers(int(slot[2]), int(slot[3]) + 1))
        return draw(slot[1], rng)

    return ELISION.sub(r"\1'", SLOT.sub(fill, entry))


def capitalised(text: str, rng: np.random.Generator, share: float) -> str:
    """The text with a capital first letter, in this share of the cases: both ways are common on certificates."""
    return text[0].upper() + text[1:] if rng.random() < share else text


def cause(rng: np.random.Generator) -> str:
    """A cause of death of 4 to 38 characters, NFC."""
    while True:  # nearly all drawings are within the bounds
        text = draw("cause", rng)
        if 4 <= len(text) <= 38:
            return capitalised(text, rng, 0.6)


def duration(rng: np.random.Generator) -> str:
    """The interval between onset and death of 2 to 24 characters, NFC: "3 j", "48h", "qq heures", "mars 2020"."""
    return capitalised(draw("duration", rng), rng, 0.1)


def other_conditions(rng: np.random.Generator) -> list[str]:
    """What part II holds: 1 or 2 lines of 2 to 45 characters, NFC, each a list of conditions."""
    lines = []
    separator = rng.choice([", ", " - ", " + ", ", "])
    for _ in range(1 + int(rng.random() < 0.35)):
        terms: list[str] = []
        wanted = rng.integers(1, 5)
        while len(terms) < wanted:
            term = draw("other", rng)
            if len(separator.join([*terms, term])) <= 45:
                terms.append(term)
            else:
                wanted = min(
                    wanted, max(1, len(terms))
                )  # the line is full; a first term that is too long is drawn anew
        lines.append(capitalised(separator.join(terms), rng, 0.6))
    return lines
