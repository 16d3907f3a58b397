"""What is counted of lists of texts: the same as line by line, as jiwer, and as is written in the module."""

import random

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr.metrics.characters import class_of
from htr.metrics.counts import KINDS, OF_TEXT, column, count, names
from htr.metrics.error_rates import compare
from htr.metrics.normalise import NORMALISATIONS, normalise
from htr.references import References

TEXT = st.text("abÉé '.3\n", max_size=10)
WORDS = """choc septique insuffisance rénale chronique AVC ischémique décès œdème aigu du poumon l'IRC à 3 j
    12/03/2019 arrêt cardio-respiratoire, démence (Alzheimer) métastases hépatiques K sein 2,5 kg Noël ça sûr dû où"""


def pairs(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """French lines and readings of them with edits, empty ones on either side among them."""
    rng, words, letters, found = random.Random(seed), WORDS.split(), "abcdeéèàùçœ'.,- 123", []
    for _ in range(number):
        reference = " ".join(rng.choices(words, k=rng.choice((0, 1, 1, 2, 3, 4, 6, 10))))
        read = []
        for character in reference if rng.random() > 0.05 else "":
            what = rng.random()
            read += [character] if what > 0.15 else [rng.choice(letters)] if what > 0.08 else []
            read += [rng.choice(letters)] if what > 0.97 else []
        hypothesis = " ".join("".join(read).split()) if rng.random() > 0.2 else reference
        found.append((reference, hypothesis or ("x" if rng.random() < 0.1 else "")))
    return found


def test_cer_and_wer_are_those_of_jiwer():
    references, hypotheses = map(list, zip(*pairs(10_000), strict=True))
    assert "" in references and "" in hypotheses
    sums = {name: int(values.sum()) for name, values in count(references, hypotheses).columns.items()}
    theirs = jiwer.process_characters(references, hypotheses)
    assert sums["edits"] / sums["characters"] == theirs.cer == jiwer.cer(references, hypotheses)
    assert [sums[name] for name in ("substitutions", "insertions", "deletions")] == [
        theirs.substitutions, theirs.insertions, theirs.deletions]  # fmt: skip
    assert sums["word_edits"] / sums["words"] == jiwer.wer(references, hypotheses)


def test_each_line_is_that_of_jiwer():
    references, hypotheses = map(list, zip(*pairs(500, 1), strict=True))
    counts = count(references, hypotheses).columns
    for line, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        if reference:
            assert counts["edits"][line] / counts["characters"][line] == jiwer.cer(reference, hypothesis)
            assert counts["word_edits"][line] / counts["words"][line] == jiwer.wer(reference, hypothesis)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=6))
def test_a_list_is_counted_as_its_lines_are(lines):
    references, hypotheses = [one for one, _ in lines], [other for _, other in lines]
    found = count(references, hypotheses)
    assert {values.shape for values in found.columns.values()} == {(len(lines),)}
    for name in NORMALISATIONS:
        for line, texts in enumerate(zip(normalise(references, name), normalise(hypotheses, name), strict=True)):
            errors = compare(*texts)
            assert [found.columns[column(what, name)][line] for what in OF_TEXT] == [
                getattr(errors, what) for what in OF_TEXT
            ]
    kinds = ("substitutions", "insertions", "deletions")
    assert (sum(found.columns[kind] for kind in kinds) == found.columns["edits"]).all()
    assert sum(found.confusions.values()) == found.columns["edits"].sum()
    assert [len(words) for words in found.word_right] == [len(text.split()) for text in hypotheses]


def test_where_the_edits_are():
    found = count(["Été 39", "décès", ""], ["Ete 3", "décèss", "a"])
    assert found.confusions == {("É", "E"): 1, ("é", "e"): 1, ("9", ""): 1, ("", "s"): 1, ("", "a"): 1}
    columns = {name: values.tolist() for name, values in found.columns.items()}
    assert columns["of_letters"] == [3, 5, 0] and columns["missed_letters"] == [2, 0, 0]
    assert columns["of_capitals"] == [1, 0, 0] and columns["missed_capitals"] == [1, 0, 0]
    assert columns["of_accents"] == [2, 2, 0] and columns["missed_accents"] == [2, 0, 0]
    assert columns["of_digits"] == [2, 0, 0] and columns["missed_digits"] == [1, 0, 0]
    assert columns["of_space"] == [1, 0, 0] and columns["missed_space"] == [0, 0, 0]
    assert found.word_right == [[False, False], [False], [False]]


def test_classes_overlap():
    bits = {letter: class_of(letter) for letter in "aÉé3, ⌫"}
    assert [bits["a"] & bits["É"], bits["é"] & bits["É"] & ~bits["a"] > 0, bits["3"] & bits["a"]] == [1, True, 0]
    assert bits[","] == bits["⌫"] and bits[" "] & bits[","] == 0


def test_values_and_blanks():
    references = ["3 j", "12/03/2019", "1 200", "choc", "", ""]
    hypotheses = ["3 jours", "12 mars 2018", "1 200", "", "x", " "]
    columns = {name: values.tolist() for name, values in count(references, hypotheses).columns.items()}
    assert [columns[f"value_{kind}"].index(1) for kind in KINDS] == [0, 1, 2]
    assert [sum(columns[f"right_{kind}"]) for kind in KINDS] == [1, 0, 1]
    assert [sum(columns[f"same_{kind}"]) for kind in KINDS] == [0, 0, 1]
    assert columns["blank"] == [0, 0, 0, 0, 1, 1] and columns["false_text"] == [0, 0, 0, 0, 1, 0]
    assert columns["written"] == [1, 1, 1, 1, 0, 0] and columns["read_blank"] == [0, 0, 0, 1, 0, 0]


def test_either_way_of_writing_an_abbreviation():
    table = References.of([("IDM", "infarctus du myocarde"), ("HTA", "hypertension artérielle")])
    references = ["IDM", "infarctus du myocarde", "IDM sur HTA", "IDM", "grippe"]
    hypotheses = ["infarctus du myocarde", "IDM", "IDM sur hypertension arterielle", "IDN", "gripe"]
    columns = {name: values.tolist() for name, values in count(references, hypotheses, table).columns.items()}
    assert columns["edits_abbreviations"] == [0, 0, 1, 1, 1] and columns["edits_lenient_abbreviations"] == [
        0,
        0,
        0,
        1,
        1,
    ]
    assert columns["characters_abbreviations"] == [21, 3, 31, 3, 6]
    assert columns["words_abbreviations"] == [3, 1, 4, 1, 1] and columns["exact_abbreviations"] == [1, 1, 0, 0, 0]
    assert columns["edits"] == count(references, hypotheses).columns["edits"].tolist()
    assert names(True)[-2:] == ["abbreviations", "lenient_abbreviations"] and names() == list(NORMALISATIONS)


def test_lists_of_different_lengths():
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        count(["a", "b"], ["a"])
    assert all(values.dtype == np.int32 for values in count([], []).columns.values())
