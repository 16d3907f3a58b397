"""Named normalisations: what each forgives and what none does."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr.metrics.normalise import NORMALISATIONS, normalise

EQUAL = {
    "as_is": [("e\u0301tat", "état")],
    "case": [("AVC", "avc"), ("Œdème", "œdème"), ("ÉTAT", "état")],
    "accents": [("état", "etat"), ("cœur", "coeur"), ("ça", "ca"), ("aiguë", "aigue")],
    "punctuation": [("l'IRC, aiguë.", "l\u2019IRC aiguë"), ("A.V.C.", "AVC"), (" a  b ", "a b"), ("(chute)", "chute"),
                    ("cardio-respiratoire", "cardio respiratoire"), ("12/03", "12 03")],
    "lenient": [("Œdème aigu du poumon.", "oedeme aigu du poumon"), ("L'I.R.C.", "l irc")],
}  # fmt: skip
DIFFERENT = {
    "as_is": [("AVC", "avc"), ("a b", "a  b")],
    "case": [("état", "etat"), ("a.", "a")],
    "accents": [("État", "etat"), ("a.", "a")],
    "punctuation": [("AVC", "avc"), ("3,5", "35"), ("30 %", "30"), ("> 3 j", "3 j"), ("l'IRC", "lIRC")],
    "lenient": [("IDM", "infarctus du myocarde"), ("3.5", "35"), ("gripe", "grippe"), ("⌫", "")],
}


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_what_is_forgiven_and_what_is_not(name: str):
    for one, other in EQUAL[name]:
        assert normalise([one], name) == normalise([other], name), (one, other)
    for one, other in DIFFERENT[name]:
        assert normalise([one], name) != normalise([other], name), (one, other)


@given(
    st.lists(st.text("aÉœ'.,3- \n\u0301\u00a0\u2019B", max_size=9), max_size=6), st.sampled_from(sorted(NORMALISATIONS))
)
def test_a_list_is_normalised_as_its_texts_are(texts: list[str], name: str):
    alone = [NORMALISATIONS[name](text) for text in texts]
    assert normalise(texts, name) == alone == normalise(alone, name)  # and once is enough
    assert all(unicodedata.is_normalized("NFC", text) for text in alone)
