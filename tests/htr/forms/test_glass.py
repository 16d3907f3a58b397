"""Several forms on one glass: each is found, or said to be lost with the reason."""

import cv2
import numpy as np
import pytest
from other_forms import questionnaire
from scanned_forms import NAMES, farthest, scanned

from htr.forms.feature_matching import Features, homography, matches, similarity
from htr.forms.glass import BESIDE, holds_print
from htr.forms.registration import Forms, NoForm, SeveralForms, are_several
from htr.synth.draw_forms import draw

A3, A3_ACROSS = (3307, 2338), (2338, 3307)


@pytest.fixture(scope="module")
def forms():
    return Forms([draw(name) for name in NAMES])


def laid(glass, image, matrix, at, angle):
    """Onto the glass, in place, with its middle at a place -> its matrix to the glass."""
    height, width = image.shape
    way = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1), [0, 0, 1]])
    way[:2, 2] += np.array(at) - ((width - 1) / 2, (height - 1) / 2)
    sheet = cv2.warpAffine(image, way[:2], glass.shape[::-1])
    there = cv2.warpAffine(np.full_like(image, 255), way[:2], glass.shape[::-1], flags=cv2.INTER_NEAREST)
    glass[there > 0] = sheet[there > 0]
    return way @ matrix


def glass_of(shape, pieces, severity="medium", seed=40):
    glass, matrices = np.full(shape, 245, np.uint8), []
    for number, (name, at, angle) in enumerate(pieces):
        image, matrix = scanned(name, seed + number, dpi=200, severity=severity)
        matrices.append((name, laid(glass, image, matrix, at, angle)))
    return glass, matrices


TURNED = [("adult-2018", (850, 620), 91), ("neonatal-2018", (1700, 1700), 181)]
TOUCHING = [("adult-2024", (830, 582), 180), ("adult-2024", (830, 1746), 0)]
OVERLAPPING = [("adult-2018", (850, 590), 1), ("neonatal-2018", (880, 1600), -1)]
THREE = [("adult-2018", (850, 600), 2), ("neonatal-2018", (1000, 1650), -8), ("adult-2024", (1200, 2700), 30)]
ASKEW = [("adult-2018", (850, 620), 3), ("adult-2024", (880, 1790), -4)]


@pytest.mark.parametrize(("shape", "pieces", "severity", "seed"), [
    ((2400, 2400), TURNED, "medium", 40), ((2330, 1670), TOUCHING, "medium", 40),
    ((2200, 1750), OVERLAPPING, "medium", 40), (A3, THREE, "medium", 60), ((2450, 1750), ASKEW, "hard", 40),
])  # fmt: skip
def test_each_form_is_found(forms, shape, pieces, severity, seed):
    glass, matrices = glass_of(shape, pieces, severity, seed)
    found, lost = forms.register_all(glass)
    assert lost == [] and len(found) == len(pieces)
    for name, matrix in matrices:
        assert min(farthest(one, matrix, glass.shape) for one in found if one.template.name == name) < 3


@pytest.mark.parametrize(("seed", "may_be_rejected"), [(40, False), (70, True), (80, False)])
def test_of_four_forms_on_a_large_glass_none_is_lost_unsaid(forms, seed, may_be_rejected):
    places = [(830, 590), (2480, 590), (830, 1750), (2480, 1750)]
    pieces = [(name, at, angle) for name, at, angle in zip((*NAMES, NAMES[0]), places, (1, -1, 180, 2), strict=True)]
    glass, matrices = glass_of(A3_ACROSS, pieces, seed=seed)
    try:
        found, lost = forms.register_all(glass)
    except NoForm:  # the whole scan is said to be of no form
        assert may_be_rejected
        return
    assert len(found) == 4 or lost
    for one in found:
        assert min(farthest(one, matrix, glass.shape) for name, matrix in matrices if name == one.template.name) < 3


def test_an_edition_that_is_not_known_is_said_beside_one_that_is():
    glass, _ = glass_of((2400, 1750), [("adult-2024", (850, 620), 0), ("neonatal-2018", (880, 1780), -1)])
    forms = Forms([draw(NAMES[0]), draw(NAMES[2])])
    [one], [why] = forms.register_all(glass)
    assert one.template.name == "neonatal-2018" and "no edition" in why
    with pytest.raises(SeveralForms, match=r"several forms on one scan \(neonatal-2018; fits no edition"):
        forms.register(glass)


def test_half_a_form_beside_a_whole_one_is_said(forms):
    glass, _ = glass_of((1800, 1700), [("adult-2018", (850, 590), 0), ("neonatal-2018", (850, 1770), 0)])
    [one], [why] = forms.register_all(glass)
    assert one.template.name == "adult-2018" and "cut off" in why


def test_a_foreign_form_beside_ours_is_said():
    forms = Forms([draw(NAMES[0])])
    glass, _ = glass_of((1700, 2950), [("adult-2018", (850, 620), 0)])
    laid(glass, cv2.resize(questionnaire()[0], (1165, 1654), interpolation=cv2.INTER_AREA), np.eye(3), (2300, 850), 1)
    [one], lost = forms.register_all(glass)
    assert one.template.name == "adult-2018" and len(lost) == 1


def test_bare_glass_and_a_table_beside_a_form_say_nothing(forms):
    glass, _ = glass_of((2400, 1750), [("adult-2018", (850, 620), 3)])
    assert forms.register_all(glass)[1] == []
    table = np.random.default_rng(0).normal(90, 12, glass.shape)
    table = cv2.GaussianBlur(table, (0, 0), 9).astype(np.uint8)
    glass[glass == 245] = table[glass == 245]
    assert forms.register(glass).template.name == "adult-2018"


def test_print_beside_a_form_is_told_by_its_room_and_its_density():
    outline = np.array([[0, 0], [1000, 0], [1000, 500], [0, 500]], np.float64)
    assert holds_print((1000, 1000), [outline], 700, 400)
    assert not holds_print((1000, 1000), [outline], 700, 10)  # hardly a feature
    assert not holds_print((600, 1000), [outline], 700, 400)  # no room
    assert not holds_print((9000, 9000), [outline], 9000, 100)  # much too sparse


def test_print_of_no_form_beside_one_makes_no_second_form():
    one = object()
    assert not are_several([one], []) and not are_several([one], [BESIDE])
    assert are_several([one, one], []) and are_several([one], ["the form is cut off", BESIDE])


def test_features_of_two_forms_leave_a_similarity_where_a_homography_is_bent():
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 1000, (60, 2))
    target = 0.8 * source + (40, 30)
    target[:30] = rng.uniform(0, 1000, (30, 2))  # another form's
    matrix, agree = similarity(source, target, 3.0)
    assert agree >= 30 and np.allclose(matrix, [[0.8, 0, 40], [0, 0.8, 30], [0, 0, 1]], atol=0.05)
    assert similarity(source[:5], target[:5], 3.0) == (None, 5) and homography(source[:5], target[:5], 3.0) == (None, 5)
    assert similarity(source[:20], rng.uniform(0, 1000, (20, 2)), 0.5)[0] is None
    none = Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    assert len(matches(none, none)[0]) == 0
