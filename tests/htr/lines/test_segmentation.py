"""Fields become lines in reading order, or blank."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.lines.rows import peaks_of, seam
from htr.lines.segmentation import MIN_INK, cut_line, find_lines, flatten_background, ink_measure

PITCH, MARGIN, WIDTH = 90, 45, 1000


def a_field(texts, *, height=180, size=1.3, left=120, off=0, ruled=True, rows=None):
    """(field, printed, box): texts one under the other, their middles at `rows` of the field proper."""
    box = (MARGIN, MARGIN, WIDTH, height)
    printed = np.zeros((height + 2 * MARGIN, WIDTH + 2 * MARGIN), np.uint8)
    if ruled:
        for row in range(MARGIN + 80, MARGIN + height, PITCH):
            cv2.line(printed, (MARGIN, row), (MARGIN + WIDTH, row), 255, 2)
        cv2.putText(printed, "a)", (MARGIN + 6, MARGIN + 50), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    field = np.where(np.roll(printed, off, axis=0) > 0, np.uint8(110), np.uint8(250))
    rows = rows or [height * (i + 0.5) / len(texts) for i in range(len(texts))]
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        at = (left + 30 * i, MARGIN + round(row + 10 * size))
        cv2.putText(field, text, at, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, size, 60, 3, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, 3, field.shape)
    return np.clip(field + noise, 0, 255).astype(np.uint8), printed, box


def find(field, printed, box, most=4):
    return find_lines(field, printed, box=box, pitch=PITCH, most=most)


@pytest.mark.parametrize("texts", [["infarctus"], ["choc septique", "due a une"], ["embolie", "ou", "pneumonie aigue"]])
@pytest.mark.parametrize("off", [-3, 0, 2])
def test_lines_in_reading_order(texts, off):
    field, printed, box = a_field(texts, height=len(texts) * PITCH, off=off)
    found = find(field, printed, box)
    assert [line.number for line in found] == list(range(1, len(texts) + 1))
    for i, line in enumerate(found):
        x, y, _, h = line.box
        assert y < MARGIN + (i + 0.5) * PITCH < y + h
        assert abs(x - (120 + 30 * i)) < 20


def test_two_lines_where_one_is_printed():
    field, printed, box = a_field(["choc septique", "pneumonie"], height=PITCH, size=0.8)
    assert len(find(field, printed, box)) == 2


def test_at_most_so_many():
    field, printed, box = a_field(["embolie massive", "ou", "pneumonie aigue"], height=3 * PITCH)
    found = find(field, printed, box, most=2)
    assert [line.number for line in found] == [1, 2]
    for row, line in zip((0.5, 2.5), found, strict=True):  # the first and the third: "ou" has the least ink
        assert line.box[1] < MARGIN + row * PITCH < line.box[1] + line.box[3]


def test_a_slope():
    field, printed, box = a_field(["choc septique sur une", "pneumonie aigue et grave"], ruled=False)
    turn = cv2.getRotationMatrix2D((WIDTH / 2, field.shape[0] / 2), 1.4, 1)
    field = cv2.warpAffine(field, turn, field.shape[::-1], borderValue=250)
    assert len(find(field, printed, box)) == 2


def test_a_line_that_slopes_is_cut_with_all_of_its_ink_and_none_of_the_other():
    texts, rows = ["choc septique sur une mort", "pneumonie aigue et grave du"], [60, 118]
    turn = cv2.getRotationMatrix2D((WIDTH / 2, (180 + 2 * MARGIN) / 2), 1.7, 1)

    def sloped(field):
        return cv2.warpAffine(field, turn, field.shape[::-1], borderValue=250)

    field, printed, box = a_field(texts, ruled=False, rows=rows, left=60)
    found = find(sloped(field), printed, box)
    assert len(found) == 2
    for i, line in enumerate(found):
        alone, _, _ = a_field(texts[i : i + 1], ruled=False, rows=rows[i : i + 1], left=60 + 30 * i)
        mine = int((sloped(alone) < 150).sum())
        assert int((cut_line(sloped(field), line, PITCH) < 150).sum()) == pytest.approx(mine, rel=0.01)


@pytest.mark.parametrize("text", ["?", "1", "-", "0", "RAS", "/"])
def test_a_short_answer_is_written(text):
    field, printed, box = a_field([text], height=PITCH, rows=[35])
    assert ink_measure(field, printed, box, PITCH) >= MIN_INK
    assert len(find(field, printed, box)) == 1


@pytest.mark.parametrize("off", [-3, -1, 0, 2, 3])
def test_a_blank_field(off):
    field, printed, box = a_field([], off=off)
    rng = np.random.default_rng(1)
    for _ in range(20):  # specks
        cv2.circle(field, (int(rng.integers(WIDTH)), int(rng.integers(200))), int(rng.integers(0, 3)), 60, -1)
    stain = np.zeros(field.shape, np.float32)
    cv2.ellipse(stain, (800, 100), (90, 30), 0, 0, 360, 0.1, -1)
    field = np.clip(field * (1 - cv2.GaussianBlur(stain, (0, 0), 6)), 0, 255).astype(np.uint8)
    back = np.full(field.shape, 255, np.uint8)  # what shines through
    cv2.putText(back, "verso", (300, 120), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 2, 230, 3, cv2.LINE_AA)
    field = np.minimum(field, back)
    assert ink_measure(field, printed, box, PITCH) < MIN_INK
    assert find(field, printed, box) == []


def test_neighbours_that_reach_in_are_no_lines():
    field, printed, box = a_field([], height=PITCH)
    for row in (8, field.shape[0] + 18):  # the middle of the line lies at the edge of the image
        cv2.putText(field, "voisin gauche", (200, row), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.3, 60, 3, cv2.LINE_AA)
    cv2.putText(field, "an", (MARGIN + WIDTH + 24, 90), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.3, 60, 3, cv2.LINE_AA)
    assert find(field, printed, box) == []


def test_writing_that_leaves_the_field_is_kept():
    field, printed, box = a_field(["gypaete"], height=PITCH, rows=[82])
    [line] = find(field, printed, box)
    _, y, _, h = line.box
    assert y + h > MARGIN + PITCH + 10  # the descenders are outside


def test_cut_line_is_as_high_as_its_ink_and_half_a_pitch_at_least():
    heights = []
    for text in ("ou", "gypaete", "HTA"):
        field, printed, box = a_field([text])
        [line] = find(field, printed, box)
        cut = cut_line(field, line, PITCH)
        heights.append(cut.shape[0])
        assert cut.dtype == np.uint8 and cut.min() < 90
        w = line.box[2]
        assert w + 0.7 * PITCH < cut.shape[1] < w + 1.1 * PITCH
    assert heights[1] > heights[0] + 4 and min(heights) >= 0.5 * PITCH - 1 and max(heights) < 1.1 * PITCH


def test_cut_line_paints_the_others_with_paper():
    field, printed, box = a_field(["embolie", "pneumonie"], ruled=False, rows=[60, 115])
    first, _ = find(field, printed, box)
    alone, _, _ = a_field(["embolie"], ruled=False, rows=[60])
    cut = cut_line(field, first, PITCH)
    mine = (alone < 150).sum()
    assert abs(int((cut < 150).sum()) - int(mine)) < 0.04 * mine  # its own ink, all of it, and no more
    assert set(np.unique(cut)) - {250} and len(np.unique(cut)) > 50  # gray, not binarised


def test_cut_line_paints_the_neighbour_of_the_field_with_paper():
    """It stands beside the box, near enough to come into the cut of a line that ends at the box's edge."""
    (width, _), _ = cv2.getTextSize("pneumonie", cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.3, 3)
    field, printed, box = a_field(["pneumonie"], height=PITCH, ruled=False, left=MARGIN + WIDTH - width - 2)
    mine = int((field < 150).sum())
    cv2.rectangle(field, (MARGIN + WIDTH + 24, 60), (MARGIN + WIDTH + 30, 110), 60, -1)
    [line] = find(field, printed, box)
    assert line.box[0] + line.box[2] + 0.4 * PITCH > MARGIN + WIDTH + 30  # within the cut
    assert int((cut_line(field, line, PITCH) < 150).sum()) == pytest.approx(mine, rel=0.03)


def test_cut_line_at_the_edge_of_the_image():
    field, printed, box = a_field(["choc"], left=2, height=60, rows=[5], ruled=False)
    for line in find(field, printed, box):
        cut = cut_line(field, line, PITCH)
        assert cut.shape[0] >= 1.2 * PITCH - 2 and (cut[0] > 200).all()


def test_touching_lines_are_cut_at_a_seam():
    field, printed, box = a_field(["gypaete ici", "hallebarde"], ruled=False, rows=[60, 118])
    field[90:170, 150:153] = 60  # a stroke that joins them
    assert len(find(field, printed, box)) == 2


def test_a_seam_goes_round_ink():
    between = np.zeros((9, 30), bool)
    between[4, 5:12] = True  # ink in the middle: the path passes over or under it
    path = seam(between)
    assert not between[path, np.arange(30)].any()
    assert path[0] == 4 and (np.abs(np.diff(path)) <= 1).all()


def test_peaks():
    length = np.zeros(60)
    length[8:13], length[30:35], length[14:16] = 5, 1, 0.5
    assert [8 <= row < 13 or 30 <= row < 35 for row in peaks_of(length, 10)] == [True, True]


def test_even_makes_paper_white_and_raises_no_noise():
    rng = np.random.default_rng(0)
    ramp = np.linspace(150, 230, 640)[None].repeat(120, axis=0)
    paper = np.clip(ramp + rng.normal(0, 3, ramp.shape), 0, 255).astype(np.uint8)
    result = flatten_background(paper)
    assert result.shape == paper.shape and result.dtype == np.uint8
    assert result.mean() > 247 and result.min() > 220
    paper[50:70, 100:103] = 40
    assert flatten_background(paper)[55:65, 101].max() < 90
    for shape in ((1, 1), (3, 200), (200, 3)):
        assert flatten_background(np.full(shape, 90, np.uint8)).shape == shape


def test_odd_fields():
    for shape in ((8, 8), (40, 40), (300, 20)):
        for value in (0, 128, 255):
            field = np.full(shape, value, np.uint8)
            assert len(find_lines(field, None, box=(0, 0, shape[1], shape[0]), pitch=30, most=4)) <= 4
    noise = np.random.default_rng(0).integers(0, 256, (150, 400)).astype(np.uint8)
    assert len(find_lines(noise, noise, box=(10, 10, 380, 130), pitch=60, most=3)) <= 3


@pytest.mark.parametrize(
    ("field", "printed", "pitch"),
    [
        (np.zeros((40, 40, 3), np.uint8), None, 30),
        (np.zeros((40, 40), np.float32), None, 30),
        (np.zeros((40, 40), np.uint8), np.zeros((41, 40), np.uint8), 30),
        (np.zeros((40, 40), np.uint8), None, 0),
        (np.zeros((40, 40), np.uint8), None, float("nan")),
    ],
)
def test_what_is_no_field(field, printed, pitch):
    with pytest.raises(ValueError, match=r"field|pitch"):
        find_lines(field, printed, box=(0, 0, 40, 40), pitch=pitch, most=4)


@pytest.mark.skipif("HTR_SHARED" not in os.environ, reason="HTR_SHARED names no folder of real handwriting")
def test_real_ink():
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    from drawn import Composer
    from lines import measure_fields

    figures = measure_fields(Composer(Path(os.environ["HTR_SHARED"]) / "handwriting", "dev", 0), 80)
    assert figures["lines_found"] >= 0.95
    assert figures["blank_called_written"] <= 0.03 and figures["written_called_blank"] == 0
    assert figures["stroke_survival"] >= 0.97
