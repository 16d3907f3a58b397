"""Categories of causes of death in transcriptions and readings, and the bias that reading errors cause.

A table of terms has the columns term and category: a word or phrase, without regard to case, accents, hyphens,
apostrophes and the points of an abbreviation (A.V.C.), found as whole words, with or without a plural's ending (s, x,
cérébral and cérébraux); "*" at the end of a word stands for any ending. A word that is parted at the end of a line
("insuffi- sance") is found, too. A category is in a text when one of its terms is, unless

    the term is denied     "pas de diabète", "absence d'HTA", "sans", "aucun", "ni", right before it
    a longer term has it   "infarctus cérébral" is no "infarctus" where both are terms, whatever their categories

htr/terms.csv is a French table of frequent causes. Of N texts in clusters, by category:

    recall        of the texts whose transcription has it, those whose reading has it, too
    precision     of the texts whose reading has it, those whose transcription has it, too
    bias          (readings that have it - transcriptions that have it) / transcriptions that have it: what a table made
                  of readings is off, misses and inventions set off against each other
    p, q          of a bias of 0: sign flips over clusters; false discovery over all categories (Benjamini & Hochberg)

Intervals are 95 %, over clusters (htr/metrics/intervals.py). A text may have several categories. A duration, date or
number is a category of its own, whose reading has to say the same value.
"""

import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

import htr
from htr.metrics.intervals import Interval, difference_interval, share_interval
from htr.metrics.significance import false_discovery, sign_flip
from htr.metrics.values import parse

FRENCH = Path(htr.__file__).parent / "terms.csv"
KINDS = ("duration", "date", "number")
MIN_TRUSTED_CLUSTERS = 25  # clusters that misread a category, below which its bias is said to stand on few

HYPHENS = "\u00ad\u2010\u2011-"
PARTED = re.compile(rf"(?<=\w)[{HYPHENS}]\s+(?=\w)")  # at the end of a line
POINTED = re.compile(r"(?<!\w)(?:[a-z]\.){1,5}[a-z](?:\.|(?!\w))")  # a.v.c.
SPACED = re.compile(rf"[_'\u2018\u2019\u02bc\u00b4`\u2012\u2013\u2014\u2015{HYPHENS}]")
WORD_START = re.compile(r"(?<!\w)\S")
DENIED = re.compile(
    r"(?<!\w)(?:(?:pas|absence|jamais)(?: eu)? de?|sans|aucune?|ni)"
    r"(?: (?:antecedents?|atcd|signes?|notion|argument)(?: de?| pour)?(?: une?)?)? $"
)


@dataclass(frozen=True)
class Terms:
    """`categories`: in the order of the table, each with its terms, which are plain."""

    categories: Mapping[str, Sequence[str]]

    @cached_property
    def beginning(self) -> dict[str, list[tuple[int, re.Pattern]]]:
        """By its first letter, what finds each term, and the number of its category."""
        found: dict[str, list[tuple[int, re.Pattern]]] = {}
        for number, terms in enumerate(self.categories.values()):
            for term in terms:
                found.setdefault(term[0], []).append((number, re.compile(rf"{pattern_of(term)}(?!\w)")))
        return found

    @classmethod
    def load(cls, path: str | Path) -> "Terms":
        """Raises ValueError for a file without the two columns, without a row, or with an empty cell."""
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such table of terms") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not a CSV table in UTF-8 ({error})") from None
        if not rows or not {"term", "category"} <= rows[0].keys():
            raise ValueError(f"{path}: a table of terms has the columns term and category, and a row at least")
        found: dict[str, list[str]] = {}
        for number, row in enumerate(rows, 2):
            term, category = plain(row["term"] or ""), (row["category"] or "").strip()
            if not term.strip("*") or not category:
                raise ValueError(f"{path}: row {number} lacks a term or a category")
            if term.startswith("*"):
                raise ValueError(f"{path}: row {number}: a term begins with *, which stands for an ending alone")
            found.setdefault(category, []).append(term)
        return cls(found)

    def of(self, texts: Sequence[str | None]) -> np.ndarray:
        """N texts -> (N, categories) bool."""
        known = {text: self.of_one(text or "") for text in set(texts)}
        return np.array([known[text] for text in texts], bool).reshape(len(texts), len(self.categories))

    def of_one(self, text: str) -> list[bool]:
        found = [False] * len(self.categories)
        for said in map(plain, dict.fromkeys((text, PARTED.sub("", text)))):
            found = [one or other for one, other in zip(found, self.found_in(said), strict=True)]
        return found

    def found_in(self, said: str) -> list[bool]:
        """Which categories a plain text has: terms that are neither denied nor part of a longer one."""
        found = [False] * len(self.categories)
        spans: dict[tuple[int, int], set[int]] = {}
        for start in map(re.Match.start, WORD_START.finditer(said)):
            for number, pattern in self.beginning.get(said[start], ()):
                if match := pattern.match(said, start):
                    spans.setdefault(match.span(), set()).add(number)
        for (start, end), numbers in spans.items():
            is_part = any(a <= start and end <= b and b - a > end - start for a, b in spans)
            if not is_part and not DENIED.search(said, 0, start):
                for number in numbers:
                    found[number] = True
        return found


def plain(text: str) -> str:
    """Small letters without accents, hyphens and apostrophes as spaces, ligatures apart, abbreviations without their
    points, single spaces, nothing that can't be seen.
    """
    text = unicodedata.normalize("NFKD", text.casefold().replace("œ", "oe").replace("æ", "ae"))
    text = SPACED.sub(" ", text.replace("\u00ad", ""))
    text = "".join(c for c in text if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return " ".join(POINTED.sub(lambda found: found[0].replace(".", ""), text).split())


def pattern_of(term: str) -> str:
    """A plain term -> a regular expression of whole words."""
    words = term.split()
    return r"\.?\s+".join(pattern_of_word(word, alone=len(words) == 1) for word in words)


def pattern_of_word(word: str, alone: bool) -> str:
    if word.endswith("*"):
        return rf"{re.escape(word[:-1])}\w*"
    if len(word) < 4:
        return re.escape(word) + "s?" * alone  # an abbreviation: des AVCs
    return rf"{re.escape(word[:-2])}(?:als?|aux)" if word.endswith("al") else f"{re.escape(word)}[sx]?"


@dataclass(frozen=True)
class Found:
    """(N, categories) bool: in the transcription, in the reading, and in both alike."""

    names: list[str]
    reference: np.ndarray
    hypothesis: np.ndarray
    both: np.ndarray


def find(terms: Terms, references: Sequence[str | None], hypotheses: Sequence[str | None]) -> Found:
    """The categories of the table, then one of each kind of value."""
    one, two = terms.of(references), terms.of(hypotheses)
    values = [[parse(text or "") for text in texts] for texts in (references, hypotheses)]
    kinds = [
        np.array([[v is not None and v.kind == kind for kind in KINDS] for v in side], bool).reshape(-1, len(KINDS))
        for side in values
    ]
    alike = np.array([a is not None and a == b for a, b in zip(*values, strict=True)], bool).reshape(-1, 1)
    names = [*terms.categories, *(f"value: {kind}" for kind in KINDS)]
    both = np.concatenate([one & two, kinds[0] & alike], axis=1)
    return Found(names, np.concatenate([one, kinds[0]], axis=1), np.concatenate([two, kinds[1]], axis=1), both)


def statistics(found: Found, clusters: np.ndarray, seed: int = 0) -> dict[str, dict]:
    """(N,) the number of the cluster of each text -> by category its figures, those that are nowhere left out."""
    result: dict[str, dict] = {}
    for column, name in enumerate(found.names):
        one, two, both = (part[:, column] for part in (found.reference, found.hypothesis, found.both))
        missed, invented = by_cluster(one & ~both, clusters), by_cluster(two & ~both, clusters)
        reference, hypothesis, both = (by_cluster(part, clusters) for part in (one, two, both))
        if not (reference.any() or hypothesis.any()):
            continue
        result[name] = {
            "texts": int(reference.sum()), "read": int(hypothesis.sum()), "both": int(both.sum()),
            "recall": share(both, reference, seed), "precision": share(both, hypothesis, seed),
            **bias(missed, invented, reference, seed), "clusters": int(np.count_nonzero(reference + hypothesis)),
        }  # fmt: skip
    with_q(result)
    return result


def by_cluster(column: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(N,) bool -> (G,) how many texts of each cluster."""
    return np.bincount(clusters, column, int(clusters.max(initial=-1)) + 1)


def bias(missed: np.ndarray, invented: np.ndarray, reference: np.ndarray, seed: int = 0) -> dict:
    """(G,) texts that lose the category, that gain it, and that have it in the transcription -> bias, its interval, p;
    null without any. `small`: fewer than 25 clusters have lost or gained it; the interval is rough then
    (benchmarks/terms.py). All clusters count: one without the category is a witness of how rare it is. Where no cluster
    has lost or gained it, the interval reaches as far as the exact one of as many without an error, on both sides.
    """
    total, differences = reference.sum(), invented - missed
    within = difference_interval(differences, reference) if total else None
    if within and not (missed.any() or invented.any()):
        unseen = share_interval(reference[reference > 0], reference[reference > 0])
        within = unseen and Interval(unseen.low - 1, 1 - unseen.low, "exact")
    return {
        "bias": float(differences.sum() / total) if total else None,
        "bias_interval": pair(within),
        "p": sign_flip(differences, seed),
        "small": bool(np.count_nonzero(missed + invented) < MIN_TRUSTED_CLUSTERS),
    }


def share(part: np.ndarray, of: np.ndarray, seed: int = 0) -> dict:
    """(G,) twice -> {value, interval} of the clusters that have any."""
    some = of > 0
    within = share_interval(part[some], of[some], seed)
    return {"value": float(part.sum() / of.sum()) if some.any() else None, "interval": pair(within)}


def pair(found: Interval | None) -> list[float] | None:
    return [found.low, found.high] if found else None


def with_q(result: dict[str, dict]) -> None:
    """Add q values (false discovery rate) over all categories, in place."""
    for row, q in zip(result.values(), false_discovery([row["p"] for row in result.values()]), strict=True):
        row["q"] = q


# ---------------------------------------------------------------------------------------------------- acceptance


def of_acceptance(found: Found, accepted: np.ndarray, clusters: np.ndarray, seed: int = 0) -> dict[str, dict]:
    """(N,) whether a text is accepted -> by category: the share of its texts that is (`coverage`), and the bias of a
    table made of accepted readings and, for the rest, transcriptions.
    """
    result: dict[str, dict] = {}
    for column, name in enumerate(found.names):
        reference, taken = found.reference[:, column], found.hypothesis[:, column] & accepted
        of = by_cluster(reference, clusters)
        if not of.any():
            continue
        missed = by_cluster(reference & accepted & ~found.both[:, column], clusters)
        invented = by_cluster(taken & ~found.both[:, column], clusters)
        covered = share(by_cluster(reference & accepted, clusters), of, seed)
        result[name] = {"texts": int(of.sum()), "coverage": covered, **bias(missed, invented, of, seed)}
    with_q(result)
    return result
