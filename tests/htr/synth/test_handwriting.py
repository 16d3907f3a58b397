"""Simulated hands: every character has ink, accents are where accents are, and a writer writes the same twice."""

import dataclasses
import shutil

import numpy as np
import pytest

from htr.synth.handwriting import X_HEIGHT, Writer, font_hand, hands, has_glyph
from htr.synth.text_generator import ALPHABET

HANDS = hands()
HEIGHT = 80.0


def calm(hand, **changes) -> Writer:
    """A writer of this hand without any habit, so that two writings differ by their text alone."""
    writer = Writer.make(3, [hand])
    still = {"slant": 0.0, "size": 1.0, "width": 1.0, "climb": 0.0, "wobble": 0.0, "shake": 0.0, "pressure": 0.0}
    return dataclasses.replace(writer, **still | {"pen": 0.12, "bleed": 0.5, "darkness": 0.9} | changes)


def ink_from(writer: Writer, text: str, row: float) -> float:
    """Ink higher than `row` pixels above the baseline, in pixels of full ink."""
    ink = writer.write(text, HEIGHT, np.random.default_rng(0))
    return float(ink.pixels[: max(0, int(ink.baseline - row))].sum()) / 255


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name)
def test_every_character_of_the_alphabet_gives_ink(hand):
    writer = calm(hand)
    for character in ALPHABET.replace(" ", ""):
        ink = writer.write(character, HEIGHT, np.random.default_rng(0))
        assert ink.pixels.max() > 100 and (ink.pixels > 60).sum() >= 4, character


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name)
def test_accents_are_drawn_above_the_small_letters(hand):
    writer = calm(hand)
    for plain, accented in zip("eeeeaaaoouuu", "éèêëàâäôöùûü", strict=True):
        letter = writer.write(plain, HEIGHT, np.random.default_rng(0))
        assert 0.7 < letter.baseline / (X_HEIGHT * HEIGHT) < 1.5  # the letter itself ends there
        assert ink_from(writer, accented, letter.baseline) > 3, accented
        assert ink_from(writer, plain, letter.baseline) == 0, plain
    pictures = {c: writer.write(c, HEIGHT, np.random.default_rng(0)).pixels for c in "eéèêëiîï"}
    assert len({picture.tobytes() for picture in pictures.values()}) == 8


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name)
def test_a_cedilla_hangs_below_the_line(hand):
    writer = calm(hand)
    below = {}
    for character in "cç":
        ink = writer.write(character, HEIGHT, np.random.default_rng(0))
        below[character] = ink.pixels[int(ink.baseline + 0.15 * X_HEIGHT * HEIGHT) :].sum() / 255
    assert below["ç"] > below["c"] + 3


def test_the_baseline_and_the_size_do_not_hang_on_the_text():
    for hand in HANDS[:4]:
        small = calm(hand).write("nnn", HEIGHT, np.random.default_rng(0))
        tall = calm(hand).write("Éppnnn", HEIGHT, np.random.default_rng(0))
        assert abs(small.baseline - X_HEIGHT * HEIGHT) < 6  # an n is an x-height and a pen high
        assert tall.baseline > small.baseline + 8  # the capital stands on the same line, which is lower in the image
        assert tall.pixels.shape[0] - tall.baseline > small.pixels.shape[0] - small.baseline + 3
        double = calm(hand).write("nnn", 2 * HEIGHT, np.random.default_rng(0))
        assert 1.7 < double.baseline / small.baseline < 2.3


def test_the_seeds_decide():
    text = "Œdème cérébral"
    writer, same, other = (Writer.make(seed, HANDS) for seed in (5, 5, 6))
    assert writer == same != other
    first = writer.write(text, HEIGHT, np.random.default_rng(1))
    again = same.write(text, HEIGHT, np.random.default_rng(1))
    assert first.pixels.tobytes() == again.pixels.tobytes() and first.baseline == again.baseline
    assert first.pixels.tobytes() != writer.write(text, HEIGHT, np.random.default_rng(2)).pixels.tobytes()
    assert first.pixels.tobytes() != other.write(text, HEIGHT, np.random.default_rng(1)).pixels.tobytes()
    assert len({Writer.make(seed, HANDS).hand.name for seed in range(200)}) == len(HANDS)


def test_ink_is_cropped_but_never_cut():
    """No ink on the edge of the image: nothing of the swashes, accents and slants was lost."""
    for seed in range(60):
        ink = Writer.make(seed, HANDS).write("Époque fj, À Ôg (Çfj) 12/03/2021", HEIGHT, np.random.default_rng(seed))
        assert ink.pixels.dtype == np.uint8 and 0 < ink.baseline < ink.pixels.shape[0]
        edge = np.concatenate([ink.pixels[0], ink.pixels[-1], ink.pixels[:, 0], ink.pixels[:, -1]])
        assert edge.max() < 40
        assert ink.pixels[:6].any() and ink.pixels[-6:].any() and ink.pixels[:, :6].any() and ink.pixels[:, -6:].any()


def test_text_that_cannot_be_written_is_refused():
    for hand in (HANDS[0], HANDS[-1]):
        with pytest.raises(ValueError, match="漢"):
            calm(hand).write("choc 漢", HEIGHT, np.random.default_rng(0))
        with pytest.raises(ValueError, match="blank"):
            calm(hand).write("  ", HEIGHT, np.random.default_rng(0))


def test_decomposed_text_is_written_as_composed():
    writer = calm(HANDS[0])
    composed, decomposed = (writer.write(t, HEIGHT, np.random.default_rng(0)).pixels for t in ("\u00e9", "e\u0301"))
    assert np.array_equal(composed, decomposed)


def test_a_folder_of_fonts_takes_the_place_of_the_installed_ones(tmp_path):
    file = HANDS[-1].file
    shutil.copy(file, tmp_path / "b.ttf")
    shutil.copy(file, tmp_path / "a.TTF")
    (tmp_path / "notes.txt").write_text("no font")
    found = hands(tmp_path)
    assert [hand.name for hand in found[-2:]] == ["a", "b"] and len(found) == 4 + 2


def test_a_folder_without_usable_fonts_is_one_clear_error(tmp_path, caplog):
    with pytest.raises(ValueError, match=rf"{tmp_path}.*put handwriting fonts"):
        hands(tmp_path)
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    with pytest.raises(ValueError, match="none of its 1"):
        hands(tmp_path)
    assert "broken.ttf left out" in caplog.text


def test_a_font_without_french_is_left_out(monkeypatch, caplog):
    file = HANDS[-1].file
    assert has_glyph(file, "é") and not has_glyph(file, "漢")
    monkeypatch.setattr("htr.synth.handwriting.ALPHABET", ALPHABET + "漢")
    assert font_hand(file) is None
    assert "no glyph for 漢" in caplog.text
