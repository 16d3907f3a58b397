import cv2
import numpy as np
import pytest

from htr.forms.fields import MIN_PITCH_PX, TICK_MARGIN_RATIO, DeskewedScan, enlarged, enlarging
from htr.forms.keypoints import apply, corners, scale_matrix
from htr.forms.registration import Registration
from htr.forms.template import Field, Template
from htr.lines.normalise import RejectedInput
from htr.synth.draw_forms import draw

FORM = draw("adult-2018")


def placed(angle=0.0, scale=1.0):
    """The form's picture turned by an angle in degrees as a scan, large enough, and its registration."""
    height, width = FORM.picture.shape
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    matrix = scale_matrix(scale, scale) @ turn
    if angle % 180 == 90:  # on its side it needs another sheet
        matrix[:2, 2] += np.array([height - width, width - height]) * scale / 2
        height, width = width, height
    size = round(width * scale), round(height * scale)
    sharp = FORM.picture if scale >= 1 else cv2.GaussianBlur(FORM.picture, (0, 0), 0.4 / scale)
    return cv2.warpAffine(sharp, matrix[:2], size, borderValue=255), Registration(FORM, matrix, 1.0)


def test_an_upright_scan_gives_its_own_pixels():
    scan, registration = placed()
    for name in ("Ia", "autopsy_yes"):  # the first has a pitch above 96, the other is no line
        crop = DeskewedScan(scan, registration).cut(FORM.field(name))
        x, y = crop.to_scan[:, 2].astype(int)
        height, width = crop.image.shape
        assert np.array_equal(crop.raw, scan[y : y + height, x : x + width])
        left, top, w, h = crop.box
        assert (x + left, y + top, w, h) == FORM.field(name).box


@pytest.mark.parametrize("angle", [0, -3, 2.2, 90, 180, 178])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_crop_is_upright_and_its_print_lies_on_the_mask(angle, scale):
    field = FORM.field("Ic_interval")
    crop = DeskewedScan(*placed(angle, scale)).cut(field)
    dark, gray, mask = crop.raw < 140, crop.raw < 225, crop.printed > 0
    assert mask.any()
    assert (dark & mask).sum() > 0.97 * dark.sum()  # no print beside the mask
    near = cv2.dilate(gray.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (mask & near).sum() > 0.97 * mask.sum()  # no mask without print
    _, _, w, h = crop.box
    assert abs(w / h - field.box[2] / field.box[3]) < 0.03 * w / h


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5, 2.0])
def test_lines_are_at_least_96_pixels_and_never_made_smaller(scale):
    upright = DeskewedScan(*placed(1.0, scale))
    for name in ("Ia", "circumstances", "Ia_interval"):
        field = FORM.field(name)
        crop = upright.cut(field)
        assert crop.pitch == pytest.approx(field.pitch * scale)
        assert crop.box[3] / crop.pitch == pytest.approx(field.box[3] / field.pitch, rel=0.05)
        factor = enlarging(crop.pitch)
        assert factor * crop.pitch == pytest.approx(max(MIN_PITCH_PX, crop.pitch))
        stored = enlarged(crop.image, factor)
        assert stored.shape == pytest.approx(np.array(crop.image.shape) * factor, abs=1)


def test_the_margin_is_half_a_pitch_above_and_a_third_beside():
    scan, registration = placed()
    field = FORM.field("Ib")
    crop = DeskewedScan(scan, registration).cut(field)
    x, y, w, h = crop.box
    assert abs(x - crop.pitch / 3) <= 2 and abs(y - crop.pitch / 2) <= 2
    assert abs(crop.image.shape[1] - x - w - crop.pitch / 3) <= 2
    assert abs(crop.image.shape[0] - y - h - crop.pitch / 2) <= 2


def test_a_tick_field_keeps_its_size_and_has_a_small_margin():
    scan, registration = placed(scale=0.5)
    field = FORM.field("work_accident_no")
    crop = DeskewedScan(scan, registration).cut(field)
    assert abs(crop.box[2] - field.box[2] / 2) <= 1
    assert max(crop.image.shape) <= field.box[3] / 2 * (1 + 2 * TICK_MARGIN_RATIO) + 3


def test_the_margin_ends_with_the_form():
    picture = np.full((400, 600), 255, np.uint8)
    field = Field("edge", "text", (0, 0, 600, 100), 1, 100)
    template = Template("edge", picture, 200, (field,), ())
    crop = DeskewedScan(picture, Registration(template, np.eye(3), 1.0)).cut(field)
    assert crop.image.shape == (150, 600)
    assert crop.box == (0, 0, 600, 100)


@pytest.mark.parametrize("angle", [0, 2.5, 180])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_boxes_find_their_way_back_to_the_scan(angle, scale):
    scan, registration = placed(angle, scale)
    field = FORM.field("II")
    crop = DeskewedScan(scan, registration).cut(field)
    x, y, w, h = crop.on_scan(crop.box)
    outline = apply(registration.matrix, corners(field.box))
    expected = [*outline.min(axis=0), *np.ptp(outline, axis=0)]
    assert np.allclose([x, y, w, h], expected, atol=3)
    whole = crop.on_scan((-1000, -1000, 99999, 99999))
    assert whole == [0, 0, scan.shape[1], scan.shape[0]]


def test_a_box_of_an_upright_crop_comes_back_to_the_pixel():
    scan, registration = placed()
    crop = DeskewedScan(scan, registration).cut(FORM.field("Ia"))
    x, y = crop.to_scan[:, 2].astype(int)
    assert crop.on_scan((3, 5, 20, 10)) == [x + 3, y + 5, 20, 10]


def test_a_field_off_the_scan_is_rejected():
    scan, _ = placed()
    gone = Registration(FORM, np.array([[1, 0, -1500], [0, 1, 0], [0, 0, 1.0]]), 0.9)
    with pytest.raises(RejectedInput, match="outside the scan"):
        DeskewedScan(scan, gone).cut(FORM.field("Ia"))
    partly = Registration(FORM, np.array([[1, 0, -300], [0, 1, 0], [0, 0, 1.0]]), 0.9)
    assert DeskewedScan(scan, partly).cut(FORM.field("Ia")).image.shape[1] > 1000


def test_a_scan_longer_than_opencv_warps_is_cut():
    scan = np.full((34_000, 1_000), 255, np.uint8)
    scan[33_010:33_090, 100:900] = 0
    field = Field("a", "text", (100, 10, 800, 80), 1, 100)
    template = Template("long", np.full((1000, 1000), 255, np.uint8), 200, (field,), ())
    crop = DeskewedScan(scan, Registration(template, np.array([[1, 0, 0], [0, 1, 33_000], [0, 0, 1.0]]), 1.0)).cut(
        field
    )
    x, y, w, h = crop.box
    assert (crop.raw[y : y + h, x : x + w] == 0).all()
    assert crop.on_scan(crop.box) == [100, 33010, 800, 80]


def test_a_bare_field_is_told_from_one_with_a_stroke():
    """Print a pixel off its place is no stroke; a thin dash on paper is."""
    scan, registration = placed(0.6)
    off = Registration(
        FORM, registration.matrix @ scale_matrix(1, 1) + np.array([[0, 0, 1], [0, 0, -1], [0, 0, 0]]), 1.0
    )
    texts = [field for field in FORM.fields if field.kind == "text"]
    for where in (registration, off):
        upright = DeskewedScan(scan, where)
        assert all(upright.is_bare(field) for field in texts)
    for field in texts:
        marked, (x, y, w, h) = scan.copy(), field.box
        corner = registration.matrix @ (x + w / 2, y + h / 3, 1)
        left, top = int(corner[0]), int(corner[1])
        cv2.line(marked, (left, top), (left + 24, top), 90, 2)
        upright = DeskewedScan(marked, registration)
        assert [other.name for other in texts if not upright.is_bare(other)] == [field.name]
