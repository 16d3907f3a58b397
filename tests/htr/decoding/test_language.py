"""The language model: probabilities that add up, a file that comes back, texts of the kind it has read are likelier."""

import math

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from htr.decoding.language import (
    InterpolatedLM,
    decontaminate,
    load_language_models,
    pack_language_models,
    train_by_field,
    train_language_model,
)

TEXTS = [
    "infarctus du myocarde",
    "arrêt cardiaque",
    "insuffisance cardiaque",
    "AVC massif",
    "arrêt cardio-respiratoire",
]


@pytest.mark.parametrize("order", range(1, 8))
def test_what_may_follow_adds_up_to_one(order):
    model = train_language_model(TEXTS, order)
    for text in ("", "arr", "cardiaque", "zzz", "AVC mas", "infarctus du my"):
        state = model.start()
        for character in text:
            state = model.step(state, character)
        probs = model.probs(state)
        assert probs.sum() == pytest.approx(1, abs=1e-5) and (probs > 0).all() and len(state) < max(order, 1)


def test_bigrams_as_computed_by_hand():
    """Kneser-Ney on "ab", "ab", "b": discounts fall back to 0.5, 1 and 1.5 since the counts of counts are few."""
    model = train_language_model(["ab", "ab", "b"], 2)
    end, a, b = model.end, model.symbols["a"], model.symbols["b"]
    # unigrams by the number of characters that precede: a 1 (start), b 2 (start, a), end 1 (b), of 4
    left = (0.5 + 1.0 + 0.5) / 4
    uniform = left / 4  # over unknown, a, b, end
    unigram = {a: 0.5 / 4 + uniform, b: 1.0 / 4 + uniform, end: 0.5 / 4 + uniform, 0: uniform}
    for symbol, p in unigram.items():
        assert model.probs("")[symbol] == pytest.approx(p)
    # after the start: a twice, b once
    after_start = model.probs(model.start())
    assert after_start[a] == pytest.approx((2 - 1) / 3 + (1 + 0.5) / 3 * unigram[a])
    assert after_start[b] == pytest.approx((1 - 0.5) / 3 + (1 + 0.5) / 3 * unigram[b])
    probs = [after_start[b], model.probs("b")[end]]
    assert model.score("b") == pytest.approx(sum(map(math.log, probs)))


def test_discounts_as_computed_by_hand():
    """Counts of counts 4 (a, b, c and the end), 3, 2 and 1 of 20 characters: Y = 4 / (4 + 2 * 3) = 0.4, so that
    1 - 2 Y 3/4 = 0.4 is taken from what occurs once, 2 - 3 Y 2/3 = 1.2 from twice, 3 - 4 Y 1/2 = 2.2 from more.
    """
    model = train_language_model(["abc" + "def" * 2 + "gh" * 3 + "i" * 4], 1)
    uniform = (4 * 0.4 + 3 * 1.2 + 3 * 2.2) / 20 / 11  # over unknown, nine characters and the end
    probs = model.probs("")
    for character, count, discount in (("a", 1, 0.4), ("d", 2, 1.2), ("g", 3, 2.2), ("i", 4, 2.2)):
        assert probs[model.symbols[character]] == pytest.approx((count - discount) / 20 + uniform)
    assert probs[model.end] == pytest.approx(0.6 / 20 + uniform) and probs[0] == pytest.approx(uniform)


def test_it_prefers_what_it_has_read():
    model = train_language_model(TEXTS, 5)
    assert model.score("arrêt cardiaque") > model.score("arrêt cardiaqve") > model.score("qqqqqqqqqqqqqqq")
    assert model.score("arre\u0302t") == model.score("arrêt")  # NFC
    assert math.isfinite(model.score("日本"))
    assert train_language_model(TEXTS * 2, 5).characters == model.characters


def test_repeated_texts_count_as_often_as_they_occur():
    often = train_language_model(["ab"] * 9 + ["ac"], 3)
    assert often.probs(often.step(often.start(), "a"))[often.symbols["b"]] > 0.7
    listed, drawn = train_language_model(["ab", "ac", "ab"], 3), train_language_model(iter(["ab", "ab", "ac"]), 3)
    assert listed.score("ab") == drawn.score("ab")


def test_rare_sequences_may_be_dropped():
    full, small = train_language_model(TEXTS, 6), train_language_model(TEXTS, 6, least=2)
    assert sum(len(table.probs) for table in small.tables) < sum(len(table.probs) for table in full.tables) / 2
    state = small.start()
    for character in "arrêt card":
        state = small.step(state, character)
        assert small.probs(state).sum() == pytest.approx(1, abs=1e-5)
    assert train_language_model(["abc"], 5, least=9).score("abc") < 0  # nothing longer than two is left


def test_a_field_has_its_own_language():
    rows = [("Ia", text) for text in TEXTS] + [("Ia duration", text) for text in ("3 j", "2 mois", "48 h", "3 ans")]
    models = train_by_field([*rows, ("II", "")], order=4)
    assert set(models) == {"", "Ia", "Ia duration"} and len({m.characters for m in models.values()}) == 1
    duration = InterpolatedLM([models["Ia duration"], models[""]], [0.8, 0.2])
    assert duration.score("2 ans") > models[""].score("2 ans") > models["Ia"].score("2 ans")
    probs = duration.probs(duration.step(duration.start(), "4"))
    assert probs.sum() == pytest.approx(1, abs=1e-5)
    assert duration.probs(duration.start())[1] == pytest.approx(
        0.8 * models["Ia duration"].probs(models["Ia duration"].start())[1]
        + 0.2 * models[""].probs(models[""].start())[1]
    )
    rows = [("Ia", text) for text in TEXTS] + [("Ib", "3 j")]
    assert set(train_by_field(rows, 3, enough=len(TEXTS))) == {"", "Ia"} and set(train_by_field(rows, 3, enough=9)) == {
        ""
    }
    assert train_language_model(["x"], 7).order == 3  # a start, a character, an end
    with pytest.raises(ValueError, match="same characters"):
        InterpolatedLM([models[""], train_language_model(["x"])], [1, 1])


def test_texts_that_share_eight_words_with_held_out_ones_are_left_out():
    held_out = ["un deux trois quatre cinq six sept huit neuf", "dix"]
    texts = ["zéro Deux trois quatre cinq six sept huit neuf", "un deux trois quatre cinq six sept", "dix", ""]
    assert list(decontaminate(texts, held_out)) == texts[1:]
    assert list(decontaminate(texts, [])) == texts and list(decontaminate(texts, held_out, words=1)) == [""]


def test_a_file_holds_the_models_of_all_fields(tmp_path):
    models = train_by_field([("Ia", text) for text in TEXTS] + [("Ib", "3 j")], order=5)
    (tmp_path / "language.safetensors").write_bytes(pack_language_models(models))
    again = load_language_models(tmp_path / "language.safetensors")
    assert set(again) == {"", "Ia", "Ib"}
    for field, model in models.items():
        assert again[field].score("arrêt du cœur") == model.score("arrêt du cœur")


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "language.safetensors"
    with pytest.raises(ValueError, match="no language model"):
        load_language_models(path)
    path.write_bytes(pack_language_models({"": train_language_model(TEXTS, 3)}))
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="not a language model"):
        load_language_models(path)
    path.write_bytes(content)
    arrays = load_file(path)
    save_file(arrays, path)  # without what it says of itself
    with pytest.raises(ValueError, match="not a language model"):
        load_language_models(path)
    for name, array in (("offsets", [0, 9999]), ("symbols", np.full(3, 9999))):
        broken = train_language_model(TEXTS, 3)
        object.__setattr__(broken.tables[1], name, np.asarray(array))
        path.write_bytes(pack_language_models({"": broken}))
        with pytest.raises(ValueError, match="not a language model"):
            load_language_models(path)


def test_what_cannot_be_trained_on_is_an_error():
    for texts, order in (([], 3), ([""], 3), (["a"], 0), (["a"], 8), (["".join(map(chr, range(300, 900)))], 2)):
        with pytest.raises(ValueError):
            train_language_model(texts, order)
