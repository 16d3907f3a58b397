"""Editions that differ by one digit, one word or a number's line within a large mark, and scans of the true one."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scanned_forms import NAMES, scanned, scanned_picture

from htr.forms.edition import summit
from htr.forms.mark_print import folds, long_ink, mark_tiles, part_of_tile, tiled
from htr.forms.registration import Forms, NoForm
from htr.synth import draw_forms
from htr.synth.draw_forms import draw

LARGE = ((1392, 16, 233, 84),)  # the form's number, its frame and the edition's name
DRAWERS = {"adult-2018": lambda: draw_forms.draw_adult("2018"), "adult-2024": lambda: draw_forms.draw_adult("2024"),
           "neonatal-2018": draw_forms.draw_neonatal}  # fmt: skip


def other_edition(monkeypatch, name, was, now):
    """The form's picture with one text of its head changed."""
    label, seen = draw_forms.Sheet.label, []

    def changed(sheet, x, y, text, size, *, bold=False):
        if x == 1404 and was in text:
            seen.append(text)
            text = text.replace(was, now)
        return label(sheet, x, y, text, size, bold=bold)

    with monkeypatch.context() as patch:
        patch.setattr(draw_forms.Sheet, "label", changed)
        picture = np.asarray(DRAWERS[name]().picture)
    assert len(seen) == 1
    return picture


@pytest.fixture(scope="module")
def large():
    """Each form alone, its only mark large."""
    return {name: Forms([replace(draw(name), marks=LARGE)]) for name in NAMES}


@pytest.fixture(scope="module")
def usual():
    """Each form alone, with the marks that tell it from its like."""
    return {name: Forms([draw(name)]) for name in NAMES}


@pytest.mark.parametrize(("name", "was", "now"), [
    ("adult-2018", "27*03", "27*05"), ("adult-2018", "10-27", "17-27"), ("adult-2024", "27*04", "21*04"),
    ("adult-2024", ", 2024", ", 2027"), ("neonatal-2018", "10-31", "40-31"), ("neonatal-2018", "modèle", "feuillet"),
])  # fmt: skip
@pytest.mark.parametrize("severity", ["light", "medium"])
def test_an_edition_that_differs_by_a_digit_or_a_word_is_not_taken_for_its_like(
    monkeypatch, large, name, was, now, severity
):
    picture = other_edition(monkeypatch, name, was, now)
    for seed in (1, 2):
        with pytest.raises(NoForm, match=f"in a mark of {name} it prints something else"):
            large[name].register(scanned_picture(picture, draw(name).fields, seed, severity=severity)[0])


def test_one_mark_of_several_is_enough(monkeypatch, usual):
    picture = draw("adult-2018").picture.copy()
    x, y, w, h = (1453, 73, 92, 31)  # the year of the edition; elsewhere all is the same
    picture[y : y + h, x : x + w] = draw("adult-2024").picture[y : y + h, x : x + w]
    assert (x, y, w, h) in draw("adult-2018").marks
    for seed in (1, 2):
        with pytest.raises(NoForm, match="no edition"):
            usual["adult-2018"].register(scanned_picture(picture, draw("adult-2018").fields, seed, severity="light")[0])


@pytest.mark.parametrize("name", NAMES)
def test_true_editions_on_hard_scans_are_not_rejected(large, usual, name):
    for seed in range(8):
        image, _ = scanned_picture(draw(name).picture, draw(name).fields, 500 + seed, severity="hard")
        assert large[name].register(image).template.name == name
        assert usual[name].register(image).template.name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ink", ["stamp", "stroke", "dots", "hair"])
def test_ink_on_a_mark_is_no_other_edition(large, name, ink):
    image = draw(name).picture.copy()
    x, y, w, _ = LARGE[0]
    if ink == "stamp":
        cv2.circle(image, (x + 100, y + 60), 70, 90, 4, cv2.LINE_AA)
        cv2.putText(image, "RECU LE", (x + 30, y + 50), cv2.FONT_HERSHEY_DUPLEX, 1, 90, 2, cv2.LINE_AA)
    elif ink == "stroke":
        cv2.line(image, (x - 20, y + 70), (x + w + 5, y + 20), 40, 4, cv2.LINE_AA)
    elif ink == "dots":
        for at in (30, 90, 150):
            cv2.circle(image, (x + at, y + 40), 3, 60, -1, cv2.LINE_AA)
    else:
        cv2.polylines(image, [np.array([[x + 20, y + 20], [x + 50, y + 40], [x + 90, y + 25]])], False, 80, 1)
    image = cv2.GaussianBlur(image, (0, 0), 0.7)
    assert large[name].register(image).template.name == name


@pytest.mark.parametrize("at", [1410, 1440, 1470, 1500])
def test_a_fold_through_a_mark_is_no_other_edition(large, at):
    image = cv2.GaussianBlur(draw("adult-2018").picture, (0, 0), 0.7)
    x, y = np.meshgrid(np.arange(image.shape[1], dtype=np.float32), np.arange(image.shape[0], dtype=np.float32))
    away = x - at
    image = cv2.remap(image, x + 1.6 * np.sign(away) * np.exp(-np.abs(away) / 20), y, cv2.INTER_LINEAR)
    image = (image * (1 - 0.25 * np.exp(-((away / 1.5) ** 2)))).astype(np.uint8)
    assert large["adult-2018"].register(image).template.name == "adult-2018"


@pytest.mark.parametrize("mark", [(1404, 36, 8, 4), (1404, 30, 4, 60), (0, 0, 30, 30), (1620, 1150, 34, 15)])
def test_a_mark_may_be_small_or_at_the_edge(mark):
    template = replace(draw("adult-2018"), marks=(mark, LARGE[0]))
    assert Forms([template]).register(scanned("adult-2018", 3, severity="light")[0]).template is template


def test_a_mark_on_a_fine_template_may_be_a_pixel_wide_or_end_at_its_edge():
    """At the resolution of strokes the one has no width left; of the other place and size are both rounded up."""
    form, picture = draw("adult-2018"), cv2.resize(draw("adult-2018").picture, (3306, 2330))
    fine = replace(form, picture=picture, dpi=400.0, fields=(), marks=((100, 100, 1, 300), (1003, 100, 2303, 200)))
    (narrow, wide), _ = mark_tiles(fine)
    assert narrow == [] and wide
    assert all(ink.shape == tile.box[:1:-1] for tile in wide for ink in (*tile.inks, tile.shown))


def test_parts_of_a_mark():
    assert tiled((5, 6, 100, 40)) == [(5, 6, 100, 40)]
    parts = tiled((10, 20, 500, 130))
    assert len(parts) == 6
    covered = np.zeros((200, 600), int)
    for x, y, w, h in parts:
        covered[y : y + h, x : x + w] += 1
    assert covered[20:150, 10:510].min() == 1 and covered.sum() == covered[20:150, 10:510].sum()


def test_of_a_tile_the_part_on_the_scan_is_compared():
    [[tile]], _ = mark_tiles(replace(draw("neonatal-2018"), marks=((1400, 28, 150, 60),)))
    assert part_of_tile(tile, tile.box) is tile and part_of_tile(tile, None) is None
    x, y, w, h = tile.box
    part = part_of_tile(tile, (x, y + 10, w, h - 10))
    assert part.box == (x, y + 16, w, h - 16)  # the rows beside the scan's edge are left out too
    assert (part.inks[1] == tile.inks[1][16:]).all() and part.around.shape == (h - 16 + 40, w + 40)
    assert part_of_tile(tile, (x, y, w, 12)) is None


def test_a_mark_of_which_the_top_is_cut_off_still_tells_the_edition(monkeypatch, large):
    picture = other_edition(monkeypatch, "adult-2018", "27*03", "27*05")
    true, other = (cv2.GaussianBlur(image[28:], (0, 0), 0.7) for image in (draw("adult-2018").picture, picture))
    assert large["adult-2018"].register(true).template.name == "adult-2018"
    with pytest.raises(NoForm, match="it prints something else"):
        large["adult-2018"].register(other)


def test_long_ink_and_folds():
    ink = np.zeros((80, 90), bool)
    ink[10:20, 10:16] = True  # a letter
    ink[50:52, 5:70] = True  # a stroke
    near = long_ink(ink)
    assert near[51, 40] and not near[15, 12]
    apart, none = np.zeros((80, 90), np.float32), np.zeros((80, 90), np.float32)
    apart[:, 40] = 30
    assert folds(apart, none)[40] and not folds(apart, none)[5]
    apart[30:] = 0  # no longer from top to bottom
    assert not folds(apart, none).any()


def test_the_top_of_a_parabola():
    values = np.array([[0, 0.5, 0], [0.2, 1, 0.6], [0, 0.5, 0]])
    x, y = summit(values, (1, 1))
    assert 1 < x < 1.5 and y == 1
    assert summit(values, (0, 1)) == (0.0, 1.0)
