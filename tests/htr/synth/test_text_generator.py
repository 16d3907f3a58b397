"""Causes of death: bounds, alphabet, variety, and errors of the grammar that name their line."""

import gzip
import unicodedata

import numpy as np
import pytest

from htr.synth.text_generator import (
    ALPHABET,
    ELISION,
    LISTS,
    NUMBERS,
    cause,
    duration,
    load_terms,
    other_conditions,
    sections,
    texts_of,
)


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


def test_every_section_is_reached_from_those_that_are_drawn():
    reached, ahead = set(), ["cause", "duration", *LISTS.values(), *NUMBERS]
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


@pytest.mark.parametrize("field", [*LISTS, *NUMBERS, "Ia", "Ib_interval", "a field of another form"])
def test_every_field_has_its_texts(field):
    rng = np.random.default_rng(2)
    found = [texts_of(field, lines, rng, longest=50) for lines in (1, 2, 4) for _ in range(60)]
    texts = [text for lines in found for text in lines]
    assert all(1 <= len(text) <= 50 and text == text.strip() and set(text) <= set(ALPHABET) for text in texts)
    assert max(map(len, found)) == (4 if field in LISTS else 1) and len(set(texts)) > 20


def test_a_list_breaks_between_words_and_holds_nothing_twice():
    rng = np.random.default_rng(3)
    for _ in range(200):
        lines = texts_of("circumstances", 3, rng, longest=30)
        assert 1 <= len(lines) <= 3 and max(map(len, lines)) <= 30
    entries = " ".join(texts_of("mother_main", 4, rng, longest=60)).split(", ")
    assert len(set(entries)) == len(entries)


def write(path, text):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return str(path)


def test_word_lists(tmp_path):
    """Each term once, NFC, without those that no simulated hand could write."""
    table = "code,text\nA,le\u0300pre\nB,peste  noire\nB,peste noire\nC,ab\nD,\u6f22\u6f22\u6f22\nE,\n"
    for name in ("terms.csv", "terms.csv.gz"):
        terms = load_terms(write(tmp_path / name, table))
        assert terms == ("l\u00e8pre", "peste noire")
    found = {text.lower() for n in range(40) for text in texts_of("Ia", 1, np.random.default_rng(n), 40, terms)}
    assert set(terms) < found  # mixed with the grammar's


@pytest.mark.parametrize(
    "content, reason",
    [
        ("writer,form\nw,peste\n", r"no column text \(it has writer, form\)"),
        ("nom\npeste\n", r"no column text \(its first line, not shown, "),
        ("text\nab\n", "no term"),
        (b"text\n\xff\xfe\n", "can be read"),
    ],
)
def test_a_bad_word_list_is_one_clear_error(tmp_path, content, reason):
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"bad\.csv.*{reason}"):
        load_terms(str(path))
    (tmp_path / "bad.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(ValueError, match="can be read"):
        load_terms(str(tmp_path / "bad.csv.gz"))


def test_the_labels_of_edsnlp_are_found_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    load_terms.cache_clear()
    with pytest.raises(ValueError, match="not installed"):
        load_terms("edsnlp")
    info, resources = tmp_path / "edsnlp-0.0.dist-info", tmp_path / "edsnlp" / "resources"
    info.mkdir()
    resources.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edsnlp\nVersion: 0.0\n")
    (info / "RECORD").write_text("edsnlp/resources/cim10.csv.gz,,\n")
    write(resources / "cim10.csv.gz", "code,short,long\nA00,CHOLERA,Choléra\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert load_terms("edsnlp") == ("Choléra",)
    load_terms.cache_clear()
