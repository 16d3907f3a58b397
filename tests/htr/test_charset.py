"""The alphabet: what goes in comes out, and what cannot be written is named without the text around it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htr.charset import CROSSED, ILLEGIBLE, Charset, name, with_tokens


@given(st.text("abc éàç'", max_size=30))
def test_what_is_encoded_is_decoded(text):
    charset = Charset("abc éàç'")
    labels = charset.encode(text)
    assert charset.decode(labels) == text
    assert all(1 <= label <= len(charset) for label in labels)  # 0 is the blank's
    assert charset.encode(unicodedata.normalize("NFD", text)) == labels


def test_the_order_of_the_data_does_not_matter():
    assert Charset("cabba") == Charset(["b", "c", "a"])
    assert Charset("cab").encode("abc") == [1, 2, 3]
    assert Charset("ab") != Charset("abc")


def test_what_cannot_be_written_is_named_alone():
    with pytest.raises(ValueError, match=r"lacks: 'x' \(U\+0078\), 'ß' \(U\+00DF\)$") as error:
        Charset("secrt").encode("secret ßx".replace(" ", ""))
    assert "secret" not in str(error.value)
    assert Charset("ab").missing("cabz") == "cz"


def test_a_message_names_eight_characters_at_most():
    assert name("a") == "'a' (U+0061)"
    assert name("abcdefghij").count("U+") == 8 and name("abcdefghij").endswith("and 2 more")


def test_no_characters():
    with pytest.raises(ValueError, match="no text to learn from"):
        Charset("")


def test_crossed_out_and_illegible_pieces_are_one_character_each():
    marks = ("[raturé]", "[raturé: *]"), ("[ill.]", "???")
    text = with_tokens("AVC [raturé: choc (sept)] ischémique [ill.] ??? [raturé]", *marks)
    assert text == f"AVC {CROSSED} ischémique {ILLEGIBLE} {ILLEGIBLE} {CROSSED}"
    assert with_tokens("AVC [ill]", *marks) == "AVC [ill]" and with_tokens("a [x]", (), ()) == "a [x]"
    assert len(CROSSED) == len(ILLEGIBLE) == 1 and CROSSED.isprintable() and ILLEGIBLE.isprintable()
