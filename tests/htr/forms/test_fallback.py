"""Scans as offices make them: A5 on A4, cut off, photographed, curled, negative; and what is still no form."""

import cv2
import numpy as np
import pytest
from scanned_forms import NAMES, farthest, scanned

import htr.forms.registration as registration_module
from htr.forms.fields import DeskewedScan
from htr.forms.fitting import bend_statistic
from htr.forms.keypoints import corners
from htr.forms.registration import Forms, NoForm, SeveralForms
from htr.scan import cut_forms
from htr.synth.draw_forms import draw


@pytest.fixture(scope="module")
def forms():
    return Forms([draw(name) for name in NAMES])


def shifted(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


@pytest.mark.parametrize(("name", "at", "angle"), [("adult-2018", (0, 0), 0), ("neonatal-2018", (20, 1100), 4),
                                                   ("adult-2024", (5, 700), -5)])  # fmt: skip
@pytest.mark.parametrize("lid", [250, 30])
def test_a5_on_an_a4_glass(forms, name, at, angle, lid):
    image, matrix = scanned(name, 31, severity="medium")
    turn = np.vstack([cv2.getRotationMatrix2D((827, 582), angle, 1), [0, 0, 1]])
    way = shifted(*at) @ turn
    glass = np.full((2338, 1700), lid, np.uint8)
    sheet = cv2.warpAffine(image, way[:2], glass.shape[::-1])
    there = cv2.warpAffine(np.full_like(image, 255), way[:2], glass.shape[::-1], flags=cv2.INTER_NEAREST)
    glass[there > 0] = sheet[there > 0]
    registration = forms.register(glass)
    assert registration.template.name == name
    assert farthest(registration, way @ matrix, glass.shape) < 3


def test_several_forms_on_one_glass_are_each_found(forms):
    glass, matrices = np.full((2400, 1800), 245, np.uint8), []
    for name, at in (("neonatal-2018", (40, 20)), ("adult-2018", (60, 1215))):
        image, matrix = scanned(name, 32, severity="light")
        glass[at[1] : at[1] + image.shape[0], at[0] : at[0] + image.shape[1]] = image
        matrices.append(shifted(*at) @ matrix)
    with pytest.raises(SeveralForms, match=r"several forms on one scan \(neonatal-2018, adult-2018\)"):
        forms.register(glass)
    found, lost = forms.register_all(glass)
    assert [one.template.name for one in found] == ["neonatal-2018", "adult-2018"] and lost == []
    assert all(farthest(one, matrix, glass.shape) < 3 for one, matrix in zip(found, matrices, strict=True))
    cuts, _ = cut_forms(glass, forms)
    assert [fields[0].template.name for fields in cuts] == ["neonatal-2018", "adult-2018"]


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("name", ["adult-2018", "adult-2024"])
def test_a_scan_that_is_cut_off(forms, name, side):
    image, matrix = scanned(name, 33, severity="medium", dpi=200)
    rows, columns = (round(0.12 * side_) for side_ in image.shape)
    left, top = columns if side == "left" else 0, rows if side == "top" else 0
    cut = image[top : image.shape[0] - (rows if side == "bottom" else 0),
                left : image.shape[1] - (columns if side == "right" else 0)]  # fmt: skip
    registration = forms.register(np.ascontiguousarray(cut))
    assert registration.template.name == name
    assert farthest(registration, shifted(-left, -top) @ matrix, cut.shape) < 3


def test_half_a_form_is_said_to_be_cut_off(forms):
    image, _ = scanned("adult-2018", 34, severity="light")
    with pytest.raises(NoForm, match=r"cut off: \d\d% of adult-2018 lie on it"):
        forms.register(np.ascontiguousarray(image[:, : round(0.55 * image.shape[1])]))


@pytest.mark.parametrize(("across", "down"), [(0.13, 0.0), (-0.12, 0.06), (0.05, -0.1)])
def test_a_photograph_at_an_angle(forms, across, down):
    image, matrix = scanned("adult-2024", 35, severity="medium", dpi=200)
    height, width = image.shape
    tilt = np.array([[1, 0, 0], [0, 1, 0], [across / width, down / height, 1]])
    tilt = shifted(width / 2 + 90, height / 2 + 70) @ tilt @ shifted(-width / 2, -height / 2)
    size = (width + 220, height + 180)
    desk = np.random.default_rng(0).integers(60, 120, (size[1] // 16 + 1, size[0] // 16 + 1), dtype=np.uint8)
    desk = cv2.resize(desk, size, interpolation=cv2.INTER_CUBIC)
    photo = cv2.warpPerspective(image, tilt, size)
    there = cv2.warpPerspective(np.full_like(image, 255), tilt, size, flags=cv2.INTER_NEAREST)
    photo[there == 0] = desk[there == 0]
    registration = forms.register(photo)
    assert registration.template.name == "adult-2024"
    assert registration.warp is not None
    assert farthest(registration, tilt @ matrix, photo.shape) < 4
    # its fields are cut upright, and boxes lead back to the photograph
    upright = DeskewedScan(photo, registration)
    field = registration.template.field("place_other")
    x, y, w, h = (cut := upright.cut(field)).on_scan(cut.box)
    truth = cv2.perspectiveTransform(corners(field.box)[None], tilt @ matrix)[0]
    assert np.allclose([x, y, x + w, y + h], [*truth.min(axis=0), *truth.max(axis=0)], atol=6)
    own = upright.printed(cut.place, cut.image.shape) > 0
    assert cut.image[own].mean() < cut.image[~own].mean() - 40  # the box's frame lies where the template has it


def test_paper_that_does_not_lie_flat_is_straightened(forms):
    image, matrix = scanned("adult-2018", 36, severity="medium", dpi=200)
    height, width = image.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    bow = (9 * np.sin(np.pi * x / width)).astype(np.float32)
    bent = cv2.remap(image, x, y - bow, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    registration = forms.register(bent)
    places = np.concatenate([corners(field.box) for field in registration.template.fields])
    truth = cv2.perspectiveTransform(places[None], matrix)[0]
    truth[:, 1] += 9 * np.sin(np.pi * truth[:, 0] / width)
    distance = np.linalg.norm(truth - registration.places(places), axis=1)
    assert registration.warp is not None and registration.warp.bend is not None
    assert np.median(distance) < 1 and distance.max() < 4


def curled(image, bow, pull):
    """The scan of a sheet that bends: `bow` px down in its middle, about `pull` px aside."""
    height, width = image.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(image, x - pull * np.sin(x / width * np.pi + 0.8).astype(np.float32),
                     y - bow * np.sin(x / width * np.pi).astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("bow", "pull"), [(4, 3), (6, -4), (11, 7)])
def test_paper_that_is_curled_a_little_or_more_lies_within_3_px(forms, name, bow, pull):
    """A small bend leaves nearly all keypoints within reach of a flat fit, and the corners 3 to 6 px off."""
    image, matrix = scanned(name, 37, severity="medium", dpi=200)
    registration, width = forms.register(curled(image, bow, pull)), image.shape[1]
    places = np.concatenate([corners(field.box) for field in registration.template.fields])
    flat = cv2.perspectiveTransform(places[None], matrix)[0]
    truth = flat.copy()
    for _ in range(5):  # where a place went, by fixed-point steps
        across = truth[:, 0] / width * np.pi
        truth = flat + np.column_stack([pull * np.sin(across + 0.8), bow * np.sin(across)])
    assert registration.template.name == name and registration.warp is not None
    assert np.linalg.norm(truth - registration.places(places), axis=1).max() < 3


def test_strokes_of_marks_are_compared_on_flat_paper_alone(forms, monkeypatch):
    """Also where the paper is curled and no bend fits it better: its strokes lie beside their places all the same."""
    asked, edition = [], Forms.edition

    def noted(self, levels, first, flat=True):
        asked.append(flat)
        return edition(self, levels, first, flat)

    monkeypatch.setattr(Forms, "edition", noted)
    monkeypatch.setattr(registration_module, "fit_bent_paper", lambda *_: None)
    image, _ = scanned("adult-2018", 37, severity="medium", dpi=200)
    for scan in (image, curled(image, 6, -4)):
        assert forms.register(scan).warp is None
    assert asked == [True, False]


def test_the_statistic_of_a_bend():
    rng = np.random.default_rng(0)
    points, size = rng.uniform(0, 800, (45, 2)), (800, 800)
    noise = rng.normal(0, 0.15, (45, 2))
    bow = np.column_stack([np.zeros(45), np.sin(points[:, 0] / 800 * np.pi) - 2 / np.pi])
    assert bend_statistic(points, noise, size) < 4
    assert bend_statistic(points, noise + 2 * bow, size) > 50
    assert bend_statistic(points[:15], bow[:15], size) == 0.0  # too few to tell


def test_a_faint_form_beside_a_dark_one_is_not_missed(forms):
    glass, matrices = np.full((2400, 1700), 245, np.uint8), []
    for name, at, strength in (("adult-2024", (10, 10), 0.35), ("adult-2018", (20, 1215), 1.0)):
        image, matrix = scanned(name, 38, severity="medium", dpi=200)
        image = 255 - strength * (255 - image.astype(np.float32))
        part = glass[at[1] : at[1] + image.shape[0], at[0] : at[0] + image.shape[1]]
        part[:] = image[: part.shape[0], : part.shape[1]].astype(np.uint8)
        matrices.append(shifted(*at) @ matrix)
    found, _ = forms.register_all(glass)
    assert [one.template.name for one in found] == ["adult-2024", "adult-2018"]
    assert all(farthest(one, matrix, glass.shape) < 3 for one, matrix in zip(found, matrices, strict=True))


@pytest.mark.parametrize("quarters", [0, 2])
def test_a_negative_is_read_as_what_it_shows(forms, quarters):
    image, _ = scanned("neonatal-2018", 37, severity="medium")
    image = np.ascontiguousarray(np.rot90(image, quarters))
    plain, negative = forms.register(image), forms.register(255 - image)
    assert negative.negative and not plain.negative
    assert np.allclose(plain.matrix, negative.matrix, atol=0.5)
    assert np.abs(DeskewedScan(255 - image, negative).raw.astype(int) - DeskewedScan(image, plain).raw).mean() < 3


def test_a_form_on_dark_paper_is_registered(forms):
    image, matrix = scanned("adult-2018", 38, severity="light")
    coloured = cv2.convertScaleAbs(image, alpha=0.35)  # dark green, say, as luma
    assert farthest(forms.register(coloured), matrix, image.shape) < 3


@pytest.mark.parametrize("kind", ["blank", "faint"])
def test_what_shows_nothing_is_said_to(forms, kind):
    page = np.full((1165, 1654), 240, np.uint8)
    if kind == "faint":
        page = cv2.convertScaleAbs(draw("adult-2018").picture, alpha=0.003, beta=237)
        page = page + np.random.default_rng(0).integers(0, 9, page.shape, dtype=np.uint8)
    with pytest.raises(NoForm, match="blank, or too faint"):
        forms.register(page)


def test_marks_that_are_cut_off_are_said_to_be():
    first, second = draw("adult-2018"), draw("adult-2024")
    box = (1392, 16, 233, 84)
    other = first.picture.copy()
    other[16:100, 1392:1625] = second.picture[16:100, 1392:1625]
    editions = [first.__class__("a", first.picture, 200, first.fields, (box,)),
                first.__class__("b", other, 200, first.fields, (box,))]  # fmt: skip
    scan = np.ascontiguousarray(first.picture[110:])
    with pytest.raises(NoForm, match=r"two editions fit alike|marks of its edition are cut off"):
        Forms(editions).register(scan)
    assert Forms(editions[:1]).register(scan).template.name == "a"  # none that it could be confused with
