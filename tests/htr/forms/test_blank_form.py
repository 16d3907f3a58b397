from dataclasses import replace

import numpy as np
import pytest

from htr.forms.blank_form import blank_of_scans, guess_dpi
from htr.forms.keypoints import corners
from htr.forms.registration import Forms
from htr.forms.structure import propose_fields
from htr.synth.draw_forms import draw
from htr.synth.simulate import certificate, chosen_hands


def scans(count, form="adult-2018", seed=7):
    hands = chosen_hands(None, "all")
    return [certificate(n, seed=seed, hands=hands, form=form, severity="medium").scan for n in range(count)]


def test_a_blank_form_is_found_in_filled_in_scans():
    made = [*scans(12), *scans(2, "neonatal-2018")]
    made[3] = replace(made[3], image=np.ascontiguousarray(made[3].image[::-1, ::-1]))  # on its head
    blank = blank_of_scans([scan.image for scan in made], [None] * len(made))
    assert blank.dpi == 200 and set(blank.left_out) >= {12, 13} and 3 in blank.used
    true = draw("adult-2018")
    assert blank.picture.shape == pytest.approx(true.picture.shape, abs=25)
    way = Forms([replace(true, marks=())]).register(blank.picture)
    assert way.score > 0.9
    # the fields' paper is white again: handwriting has gone
    for field in true.fields:
        if field.kind == "text":
            (x, y), _, (to_x, to_y), _ = np.rint(way.places(corners(field.box))).astype(int).tolist()
            inside = blank.picture[y + 14 : to_y - 22, x + 8 : to_x - 8]
            rulings = (inside < 128).mean(axis=1) > 0.5  # a field of two rulings has one in it
            assert (inside[~rulings] < 128).mean() < 0.02, field.name
    found = propose_fields(blank.picture, blank.dpi)
    assert abs(len(found) - len(true.fields)) <= 3


def test_what_can_not_be_a_form_is_refused():
    with pytest.raises(ValueError, match="from 8 on"):
        blank_of_scans([np.zeros((300, 400), np.uint8)] * 3, [200] * 3)
    noise = [np.random.default_rng(n).integers(0, 256, (1165, 1654), dtype=np.uint8) for n in range(8)]
    with pytest.raises(ValueError, match="show the same print"):
        blank_of_scans(noise, [None] * 8)
    with pytest.raises(ValueError, match="--dpi"):
        blank_of_scans([np.zeros((320, 399), np.uint8)] * 8, [None] * 8)


@pytest.mark.parametrize(
    ("shape", "dpi"),
    [((1165, 1654), 200), ((1754, 2480), 300), ((2339, 1654), 200), ((827, 583), 100), ((900, 777), None)],
)
def test_a_usual_paper_tells_the_resolution(shape, dpi):
    assert guess_dpi(shape) == dpi
