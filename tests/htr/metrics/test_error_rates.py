"""CER and WER as errors.py defines them: after NFC, edits summed over reference length summed."""

import math
import unicodedata
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr.metrics.error_rates import Errors, compare

TEXT = st.text("ab é", max_size=12)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "edits", "word_edits"),
    [
        ("grippe", "grippe", 0, 0),
        ("grippe", "gripe", 1, 1),
        ("grippe", "", 6, 1),
        ("", "abc", 3, 1),
        ("choc septique", "chocseptique", 1, 2),
        ("a b c", "a c", 2, 1),
        ("a  b", "a b", 1, 0),  # words are parted by any run of spaces
        ("a b", " a  b", 2, 0),
        ("l'IRC.", "l'IRC", 1, 1),  # punctuation belongs to its word
        ("abcd", "badc", 3, 1),  # no transpositions
    ],
)
def test_known_distances(reference, hypothesis, edits, word_edits):
    errors = compare(reference, hypothesis)
    assert (errors.edits, errors.word_edits) == (edits, word_edits)
    assert (errors.lines, errors.characters, errors.words) == (1, len(reference), len(reference.split()))
    assert errors.exact == (edits == 0)


@given(TEXT, TEXT)
def test_the_form_of_unicode_does_not_count(reference, hypothesis):
    decomposed = compare(unicodedata.normalize("NFD", reference), unicodedata.normalize("NFD", hypothesis))
    assert decomposed == compare(reference, hypothesis)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_sums_are_divided_once(lines):
    parts = [compare(*line) for line in lines]
    total = reduce(add, parts)
    assert total.lines == len(lines) and total.exact == sum(part.exact for part in parts)
    if total.characters:
        assert total.cer == sum(part.edits for part in parts) / sum(len(reference) for reference, _ in lines)
    if total.words:
        assert total.wer == sum(part.word_edits for part in parts) / sum(part.words for part in parts)
    assert reduce(add, reversed(parts), Errors()) == total


def test_a_micro_rate_is_no_mean_of_rates():
    total = compare("a", "b") + compare("abcdefghi", "abcdefghi")
    assert total.cer == 0.1 and total.wer == 0.5


def test_rates_without_a_reference_are_nan_and_rates_can_exceed_one():
    assert math.isnan(Errors().cer) and math.isnan(compare("", "x").cer) and math.isnan(compare(" ", "x").wer)
    assert compare("a", "bcd").cer == 3
