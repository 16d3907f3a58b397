"""Causes of death: bounds, alphabet, variety, and errors of the grammar that name their line."""

import unicodedata

import numpy as np
import pytest

from htr.images.causes import ALPHABET, ELISION, cause, duration, other_conditions, sections


def drawn(make, seed: int, count: int) -> list:
    rng = np.random.default_rng(seed)
    return [make(rng) for _ in range(count)]


def test_texts_keep_to_their_lengths_alphabet_and_normal_form():
    causes, durations, others = (drawn(make, 1, 3000) for make in (cause, duration, other_conditions))
    assert min(map(len, causes)) >= 4 and max(map(len, causes)) <= 38
    assert min(map(len, durations)) >= 2 and max(map(len, durations)) <= 24
    assert {len(lines) for lines in others} == {1, 2}
    assert max(len(line) for lines in others for line in lines) <= 45
    texts = [*causes, *durations, *(line for lines in others for line in lines)]
    assert set("".join(texts)) <= set(ALPHABET)
    assert all(text == text.strip() and "  " not in text and "{" not in text for text in texts)
    assert all(text == unicodedata.normalize("NFC", text) for text in texts)
    assert set("éèêâûôïœÉ(),'/+-%") <= set("".join(texts))


def test_the_seed_decides():
    for make in (cause, duration, other_conditions):
        assert drawn(make, 7, 50) == drawn(make, 7, 50)
        assert drawn(make, 7, 50) != drawn(make, 8, 50)


def test_most_held_out_causes_are_new():
    known = set(drawn(cause, 1, 3000))
    held_out = drawn(cause, 2, 1000)
    assert sum(text not in known for text in held_out) > 0.6 * len(held_out)


def test_every_section_is_reached_from_the_three_that_are_drawn():
    reached, ahead = set(), ["cause", "duration", "other"]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += [other for other in sections() for entry in sections()[name][0] if f"{{{other}}}" in entry]
    assert reached == set(sections())
    assert sum(len(entries) for entries, _ in sections().values()) > 300


@pytest.mark.parametrize(
    "telegraphic, french",
    [("rupture de aorte", "rupture d'aorte"), ("atcd de AVC", "atcd d'AVC"), ("fracture de hanche", None)],
)
def test_elision(telegraphic, french):
    assert ELISION.sub(r"\1'", telegraphic) == (french or telegraphic)


@pytest.mark.parametrize("entry, reason", [("{illness} aigu", "illness"), ("choc ß", "ß")])
def test_a_bad_entry_is_named_with_its_line(tmp_path, entry, reason):
    file = tmp_path / "grammar.txt"
    file.write_text(f"[cause]\nchoc\n{entry}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"grammar\.txt, line 3.*{reason}"):
        sections(file)


def test_weights_are_shares(tmp_path):
    file = tmp_path / "grammar.txt"
    file.write_text("# a comment\n[cause]\n3* choc | sepsis\n", encoding="utf-8")
    entries, shares = sections(file)["cause"]
    assert entries == ["choc", "sepsis"] and shares.tolist() == [0.75, 1.0]
