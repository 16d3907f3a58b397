from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from scanned_forms import NAMES, matrices, scanned

from htr.forms.keypoints import apply, centred, corners, pyramid, reduced, rotation, translation
from htr.forms.registration import Forms, NoForm
from htr.forms.template import Field, Template
from htr.lines.normalise import RejectedInput
from htr.synth.draw_forms import draw


@pytest.fixture(scope="module")
def forms():
    return Forms([draw(name) for name in NAMES])


def farthest(registration, matrix, dpi):
    """The error of the field corner that is off the most, px at 200 dpi."""
    places = np.concatenate([corners(field.box) for field in registration.template.fields])
    distance = np.linalg.norm(apply(matrix, places) - apply(registration.matrix, places), axis=1)
    return distance.max() * 200 / dpi


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dpi", [100, 150, 200, 300])
def test_a_scan_is_laid_on_its_own_edition(forms, name, dpi):
    for seed in (dpi, dpi + 1):
        image, matrix = scanned(name, seed, dpi)
        registration = forms.register(image)
        assert registration.template.name == name
        assert registration.score > 0.7
        assert farthest(registration, matrix, dpi) < 3


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_scan_may_lie_on_its_head_or_its_side(forms, quarters):
    image, matrix = scanned("adult-2024", 5, severity="medium")
    turned = np.rot90(image, quarters)
    registration = forms.register(turned)
    assert registration.template.name == "adult-2024"
    assert farthest(registration, np.linalg.inv(rotation(quarters, image.shape)) @ matrix, 200) < 3


def test_a_wide_border_around_the_page_is_borne(forms):
    image, matrix = scanned("adult-2018", 6, severity="medium")
    registration = forms.register(cv2.copyMakeBorder(image, 80, 80, 110, 110, cv2.BORDER_CONSTANT, value=30))
    matrix[:2, 2] += (110, 80)
    assert farthest(registration, matrix, 200) < 3


def test_the_picture_itself_lies_on_itself(forms):
    registration = forms.register(draw("adult-2018").picture)
    assert registration.score == 1
    assert farthest(registration, np.eye(3), 200) < 0.5


def test_an_edition_that_is_not_there_is_not_taken_for_its_like():
    without = Forms([draw("adult-2018"), draw("neonatal-2018")])
    assert without.register(scanned("adult-2018", 7)[0]).template.name == "adult-2018"
    with pytest.raises(NoForm, match=r"no edition .*adult-2018"):
        without.register(scanned("adult-2024", 7)[0])


def test_two_templates_that_show_the_same_fit_alike():
    own = draw("adult-2018")
    twin = Template("twin", own.picture, own.dpi, own.fields, own.marks)
    with pytest.raises(NoForm, match=r"two editions fit alike \(adult-2018, twin\)"):
        Forms([own, twin]).register(scanned("adult-2018", 8)[0])


def test_three_editions_are_told_apart():
    own = draw("adult-2018")
    picture = own.picture.copy()
    x, y, w, h = own.marks[0]
    picture[y : y + h, x : x + w] = picture[y : y + h, x : x + w][::-1, ::-1]
    third = Template("third", picture, own.dpi, own.fields, own.marks)
    forms = Forms([draw("adult-2024"), own, third])
    for template in (own, third, draw("adult-2024")):
        assert forms.register(template.picture).template is template


def moved(picture, right, down):
    return cv2.warpAffine(picture, translation(right, down)[:2], picture.shape[::-1], borderValue=255)


@pytest.mark.parametrize(("right", "down"), [(20, 0), (0, 12), (20, -12)])
def test_editions_may_lie_apart_on_their_sheets(right, down):
    """One has a mark of its own, and all of it is printed some millimetres off: a scan is laid on its own edition,
    whichever of them was looked for first.
    """
    own = draw("adult-2018")
    x, y, w, h = own.marks[0]
    picture = own.picture.copy()
    picture[y : y + h, x : x + w] = picture[y : y + h, x : x + w][::-1, ::-1]

    def shifted(box):
        return (box[0] + right, box[1] + down, *box[2:])

    fields = tuple(Field(f.name, f.kind, shifted(f.box), f.lines, f.pitch) for f in own.fields)
    other = Template("other", moved(picture, right, down), own.dpi, fields, tuple(map(shifted, own.marks)))
    for forms in (Forms([own, other]), Forms([other, own])):
        assert len(forms.layouts) == 1  # the second one is found by way of the first
        for template in (own, other):
            registration = forms.register(moved(template.picture, 30, 25))
            assert registration.template is template
            assert farthest(registration, translation(30, 25), 200) < 0.5


def test_a_stamp_may_hide_one_of_the_marks_but_not_two():
    own = draw("adult-2018")
    forms, scan = Forms([own]), own.picture.copy()
    assert len(own.marks) > 2
    for hidden, (x, y, w, h) in enumerate(own.marks[:2], start=1):
        scan[y : y + h, x : x + w] = 90
        if hidden == 1:
            assert forms.register(scan).template is own
    with pytest.raises(NoForm, match=r"fits no edition of its form \(marks 0\.\d\d"):
        forms.register(scan)


def page_of(kind):
    rng = np.random.default_rng(9)
    page = np.full((1165, 1654), 235, np.uint8)
    if kind == "noise":
        page = rng.integers(0, 256, page.shape, dtype=np.uint8)
    elif kind == "ruled":
        page[60::92] = 80
        page[:, 100:103] = 80
    elif kind == "letter":
        for y in range(60, 1100, 40):
            cv2.putText(page, "certificat de deces " * 4, (60, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 40, 2)
    elif kind == "shuffled":  # the form's print, all in other places
        page = np.concatenate(np.array_split(draw("adult-2018").picture, 5)[::-1])
    return page


@pytest.mark.parametrize("kind", ["blank", "noise", "ruled", "letter", "shuffled"])
def test_a_foreign_page_is_rejected_with_its_score(forms, kind):
    with pytest.raises(NoForm, match=r"fits no form \(best 0\.\d\d"):
        forms.register(page_of(kind))


@pytest.mark.parametrize(
    "shape", [(1, 1), (0, 0), (3, 5000), (149, 900), (160, 160), (6000, 400), (400, 1600), (40000, 200)]
)
def test_odd_shapes_are_no_forms(forms, shape):
    with pytest.raises(RejectedInput, match="fits no form"):
        forms.register(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_a_large_scan_is_registered(forms):
    image, matrix = scanned("neonatal-2018", 10, 600, severity="medium")
    assert farthest(forms.register(image), matrix, 600) < 3


@pytest.mark.parametrize("image", [np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400), np.float32)])
def test_only_gray_pixels_are_taken(forms, image):
    with pytest.raises(ValueError, match="uint8"):
        forms.register(image)


def test_a_scan_has_one_matrix_in_any_process_and_order(forms):
    seeds = [20, 21, 22]
    here = matrices(seeds)
    cv2.setRNGSeed(12345)
    backwards = matrices(seeds[::-1])[::-1]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = pool.submit(matrices, seeds).result()
    for a, b, c in zip(here, backwards, there, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_a_template_without_enough_print_is_refused():
    empty = Template("empty", np.full((600, 800), 255, np.uint8), 200, (Field("a", "text", (9, 9, 90, 90)),), ())
    with pytest.raises(ValueError, match="empty: too little print"):
        Forms([empty])
    with pytest.raises(ValueError, match="no template"):
        Forms([])
    with pytest.raises(ValueError, match="one name"):
        Forms([draw("adult-2018"), draw("adult-2018")])


def test_a_mark_may_be_bare_paper():
    own = draw("adult-2018")
    bare = [(x, 1120, 30, 10) for x in (1100, 1200, 1300)]
    template = Template("bare", own.picture, own.dpi, own.fields, (*own.marks, *bare))
    assert Forms([template]).register(scanned("adult-2018", 11)[0]).template is template


def test_images_are_halved_and_centred_where_their_matrices_say():
    image = np.zeros((1001, 1403), np.uint8)
    image[400:432, 800:832] = 255
    levels = pyramid(image)
    small, to_image = reduced(levels, 300)
    assert max(small.shape) == 300
    framed, to_small = centred(small, (400, 200))
    assert framed.shape == (400, 200)
    rows, columns = np.nonzero(framed == 255)
    inside = (rows > 100) & (rows < 300)  # of the image, not of the paper around it
    middle = np.array([[columns[inside].mean(), rows[inside].mean()]])
    assert np.allclose(apply(to_image @ to_small, middle), (815.5, 415.5), atol=3)
