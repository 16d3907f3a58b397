"""Inter-annotator agreement of two people who keyed the same rows blindly.

Exact: the share of rows that both keyed alike, white space aside. CER: the edits between the two over the mean of
their lengths, all rows together. Rows in which one of them found something illegible, or asked a colleague, are
counted apart, as uncertain. Intervals are 95 %, over certificates (htr/metrics/intervals.py).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from htr.certificate import single_spaced
from htr.metrics.intervals import ratio_interval, share_interval
from jobs.keying.answers import ASK, ILLEGIBLE, Answers
from jobs.keying.tables import KeyTable


@dataclass(frozen=True)
class Pair:
    """One row as two people keyed it, blindly."""

    certificate: str
    field: str
    one: str
    other: str

    @property
    def edits(self) -> int:
        return Levenshtein.distance(self.one, self.other)

    @property
    def characters(self) -> float:
        return (len(self.one) + len(self.other)) / 2


def pairs_of(table: KeyTable, answers: Answers) -> tuple[list[Pair], int]:
    """-> the rows that two people keyed, and how many of those were left out since one of them was uncertain."""
    found, uncertain = [], 0
    for row in sorted(answers.double & set(answers.standing)):
        keyed = answers.keyed(row)
        asked = any(answer.kind == ASK for answer in answers.standing[row])
        if len(keyed) < 2:
            continue
        if asked or any(answer.kind == ILLEGIBLE for answer in keyed[:2]):
            uncertain += 1
            continue
        texts = [single_spaced(answer.written) for answer in keyed[:2]]
        found.append(Pair(table.cell(row, "certificate"), table.cell(row, "field"), *texts))
    return found, uncertain


def agreement(pairs: Sequence[Pair], uncertain: int) -> dict:
    """Figures of all pairs, and `by` field."""
    fields = defaultdict(list)
    for pair in pairs:
        fields[pair.field].append(pair)
    return figures(pairs) | {"uncertain": uncertain, "by": {name: figures(own) for name, own in sorted(fields.items())}}


def figures(pairs: Sequence[Pair]) -> dict:
    if not pairs:
        return {"rows": 0, "exact": None, "exact_interval": None, "cer": None, "cer_interval": None}
    names, cluster = np.unique([pair.certificate for pair in pairs], return_inverse=True)

    def sums(values: list[float]) -> np.ndarray:
        return np.bincount(cluster, np.array(values, np.float64), len(names))

    alike, rows = sums([pair.one == pair.other for pair in pairs]), sums([1.0] * len(pairs))
    edits, characters = sums([pair.edits for pair in pairs]), sums([pair.characters for pair in pairs])
    exact = share_interval(alike, rows)
    cer = ratio_interval(edits, characters)
    return {
        "rows": len(pairs),
        "exact": float(alike.sum() / len(pairs)),
        "exact_interval": exact and list(exact.pair),
        "cer": float(edits.sum() / characters.sum()) if characters.sum() else None,
        "cer_interval": cer and list(cer.pair),
    }
