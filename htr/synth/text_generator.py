"""Generator of texts of French death certificates: causes, durations and other conditions, drawn from causes.txt.

    rng = np.random.default_rng(0)
    cause(rng), duration(rng), other_conditions(rng), texts_of("circumstances", 4, rng)

The phrases combine (a disease on a ground, a sepsis and its source, a cancer, its stage and its metastases, a date), so
that most of the strings of one set of certificates are not found in another.
"""

import csv
import gzip
import re
import textwrap
import unicodedata
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from htr.certificate import single_spaced
from htr.io.sources import no_column

ALPHABET = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    "àâäçéèêëîïôöùûüœÀÂÇÉÈÊËÎÏÔÖÙÛÜŒ .,'-/()+°:%"
)  # every text of this module keeps to it

LISTS = {  # field: the section that its text is drawn from
    "II": "other", "circumstances": "circumstance",
    "child_main": "newborn", "child_other": "newborn", "mother_main": "mother", "mother_other": "mother",
}  # fmt: skip
NUMBERS = ("weight", "gestation", "age")
Terms = tuple[str, ...]

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


def listed(section: str, lines: int, rng: np.random.Generator, longest: int = 45, terms: Terms = ()) -> list[str]:
    """Entries of a section one after the other, on so many lines of at most `longest` characters, or on fewer.

    Lines break between words, wherever the field ends: joined by spaces they are the whole text.
    """
    separator = str(rng.choice([", ", " - ", " + ", ", "]))
    wanted = (lines - 1 + rng.uniform(0.1, 1)) * longest
    broken, entries = [], []
    while not broken or len(separator.join(entries)) < wanted:
        entry = (rng.random() < 0.5 and term_of(terms, longest, rng)) or draw(section, rng)
        longer = textwrap.wrap(
            separator.join([*entries, entry]), longest, break_long_words=False, break_on_hyphens=False
        )
        if len(longer) <= lines and max(map(len, longer)) <= longest and entry not in entries:
            broken, entries = longer, [*entries, entry]
        elif broken:
            break
    return [capitalised(broken[0], rng, 0.6), *broken[1:]]


def other_conditions(rng: np.random.Generator, lines: int = 2, longest: int = 45, terms: Terms = ()) -> list[str]:
    """What part II holds: a list of conditions on one line, or on up to `lines` of them."""
    return listed("other", how_many(lines, rng), rng, longest, terms)


def how_many(most: int, rng: np.random.Generator) -> int:
    """Lines that are written where there is room for `most`: rather one than many."""
    shares = np.cumsum([0.5 ** min(k, 3) for k in range(most)])
    return 1 + int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))


def texts_of(field: str, lines: int, rng: np.random.Generator, longest: int = 45, terms: Terms = ()) -> list[str]:
    """What answers the field of this name, on `lines` lines or fewer; a field that is not known holds a cause."""
    if field.endswith("_interval"):
        return [duration(rng)]
    if field in NUMBERS:
        return [draw(field, rng)]
    if field in LISTS:
        return listed(LISTS[field], lines, rng, longest, terms if field == "II" else ())
    found = term_of(terms, longest, rng) if rng.random() < 0.5 else None
    return [found or cause(rng)]


def term_of(terms: Terms, longest: int, rng: np.random.Generator) -> str | None:
    """One of the terms that fits into `longest` characters; None if there is none, or it was not met."""
    for _ in range(8 if terms else 0):
        term = terms[int(rng.integers(len(terms)))]
        if len(term) <= longest:
            return term[0].lower() + term[1:] if term[1:2].islower() and rng.random() < 0.5 else term
    return None


@cache
def load_terms(source: str) -> Terms:
    """A word list: the column `text` of a CSV (.csv or .csv.gz), or "edsnlp", the ICD-10 labels of that package.

    Terms of 3 to 60 characters, NFC, each once; those with a character outside ALPHABET are left out. ValueError:
    no such file or package, no such column, no term left.
    """
    path, columns = (labels_of_edsnlp(), ("long",)) if source == "edsnlp" else (Path(source), ("text",))
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if missing := [column for column in columns if column not in (table.fieldnames or ())]:
                raise ValueError(f"{path}: no word list, {no_column(missing, table.fieldnames or ())}")
            texts = [row[column] or "" for row in table for column in columns]
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a word list that can be read ({type(error).__name__}: {error})") from None
    clean = map(single_spaced, texts)
    terms = tuple(dict.fromkeys(text for text in clean if 3 <= len(text) <= 60 and set(text) <= set(ALPHABET)))
    if not terms:
        raise ValueError(f"{path}: no term of 3 to 60 French characters in its column {columns[0]!r}")
    return terms


def labels_of_edsnlp() -> Path:
    """The package's file is read, the package is not imported: it brings spaCy with it."""
    try:
        files = metadata.files("edsnlp") or []
    except metadata.PackageNotFoundError:
        raise ValueError("the terms of edsnlp: the package is not installed; pip install --no-deps edsnlp") from None
    found = [file for file in files if file.as_posix().endswith("resources/cim10.csv.gz")]
    if not found:
        raise ValueError("the terms of edsnlp: the installed package has no resources/cim10.csv.gz")
    return Path(found[0].locate())
