"""Stamps, folds, hairs and specks are told from writing."""

import cv2
import numpy as np
import pytest

from htr.lines.form_dropout import PrintedForm, factor_of
from htr.lines.segmentation import cut_line, find_lines, only_stray_ink
from htr.lines.stray_ink import MAX_OUTLINE_DENSITY, stamp_outlines, without_creases
from htr.synth.scanner import stamp

PITCH, MARGIN, WIDTH, HEIGHT = 66, 33, 900, 132
BOX = (MARGIN, MARGIN, WIDTH, HEIGHT)


def a_field(text: str = "", seed: int | None = None, at: tuple[int, int] = (500, 100), row: int = 85) -> np.ndarray:
    """A field of two lines, a stamp about `at` if a seed is given."""
    sheet = np.full((400 + HEIGHT + 2 * MARGIN, 500 + WIDTH + 2 * MARGIN), 250, np.uint8)
    if text:
        place = (200 + MARGIN + 40, 200 + row)
        cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.0, 50, 2, cv2.LINE_AA)
    if seed is not None:
        stamp(sheet, np.random.default_rng(seed), (200 + at[0], 200 + at[1]))
    field = cv2.GaussianBlur(sheet[200 : 200 + HEIGHT + 2 * MARGIN, 200 : 200 + WIDTH + 2 * MARGIN], (0, 0), 0.6)
    noise = np.random.default_rng(0).normal(0, 3, field.shape)
    return np.clip(field + noise, 0, 255).astype(np.uint8)


def is_stray(field: np.ndarray) -> bool:
    blank_form = PrintedForm.of(np.zeros_like(field), factor_of(PITCH))
    return only_stray_ink(field, blank_form, box=BOX, pitch=PITCH)


def test_stamps_are_stray_ink():
    """Whole ones, those that the field's upper or lower edge cuts, and most of those that stand at its side."""
    places = [(500, 100), (500, 20), (500, 180), (60, 100), (930, 60)]
    told = np.array([[is_stray(a_field(seed=seed, at=at)) for at in places] for seed in range(12)])
    assert told[:, :3].all() and told[:, 3:].mean() >= 0.6


@pytest.mark.parametrize("text", ["infarctus", "RAS", "3 mois", "choc septique sur une mort"])
def test_writing_is_not_nor_is_writing_beside_a_stamp(text):
    assert not is_stray(a_field(text))
    assert not any(is_stray(a_field(text, seed=seed, at=(740, 100))) for seed in range(12))


def test_folds_hairs_and_specks_are_stray_ink():
    rng = np.random.default_rng(3)
    upright, level, dirty = a_field(), a_field(), a_field()
    upright[:, 400:403] = 190
    level[90:93] = 190
    for _ in range(12):
        cv2.circle(dirty, (int(rng.integers(40, WIDTH)), int(rng.integers(40, HEIGHT))), 1, 60, -1, cv2.LINE_AA)
    hair = np.array([300, 100]) + np.cumsum(rng.normal((3, 1), 4, (9, 2)), axis=0)
    cv2.polylines(dirty, [np.rint(hair).astype(np.int32)], False, 90, 1, cv2.LINE_AA)
    assert is_stray(upright) and is_stray(level) and is_stray(dirty) and is_stray(a_field())


@pytest.mark.parametrize("seed", range(6))
def test_a_stamp_or_a_fold_beside_a_line_does_not_make_it_higher(seed):
    """The line's image would be shrunk for it, and its letters with it; of what it has in width nothing is lost."""

    def cut(field: np.ndarray) -> np.ndarray:
        found = find_lines(field, None, box=BOX, pitch=PITCH, most=2)
        return cut_line(field, min(found, key=lambda line: abs(line.core - 80)), PITCH)

    text = "pneumonie aigue"
    alone, stamped, folded = a_field(text), a_field(text, seed=seed, at=(660, 95)), a_field(text)
    folded[:, 300 + 20 * seed : 303 + 20 * seed] = 190
    height, width = cut(alone).shape
    for field in (stamped, folded):
        image = cut(field)
        assert image.shape[0] <= height + 8 and image.shape[1] >= width


def test_a_stamp_or_a_fold_across_a_line_leaves_its_letters_their_size():
    """It is one component with the writing. What it has above and below the letters is cut off; with every fold, and
    with most stamps: where it has the most ink, both together look like its outline."""
    text = "pneumonie aigue et coma"

    def height(field: np.ndarray) -> int:
        found = find_lines(field, None, box=BOX, pitch=PITCH, most=2)
        return cut_line(field, max(found, key=lambda line: line.box[2]), PITCH).shape[0]

    alone, heights = height(a_field(text)), []
    for seed in range(12):
        folded, at = a_field(text), 150 + 20 * seed
        cv2.line(folded, (at, 0), (at + seed % 3, len(folded)), 190, 3)  # level or leaning
        assert height(folded) <= alone + 8
        heights.append(height(a_field(text, seed=seed, at=(330 + 20 * seed, 90))))
    assert sum(high <= 1.2 * alone for high in heights) >= 10


@pytest.mark.parametrize("seed", range(6))
def test_a_fold_does_not_join_the_lines_that_it_crosses(seed):
    rows = [38 + MARGIN - 10, 71 + MARGIN - 10, 104 + MARGIN - 10, 137 + MARGIN - 10]
    field = np.full((HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN), 250, np.uint8)
    for row, text in zip(
        rows, ["sepsis severe", "sur une mucoviscidose", "ancienne connue", "par ses parents"], strict=True
    ):
        cv2.putText(field, text, (MARGIN + 20, row), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 0.6, 50, 1, cv2.LINE_AA)
    assert len(find_lines(field, None, box=BOX, pitch=PITCH, most=4)) == 4
    at = MARGIN + 60 + 11 * seed
    field[:, at : at + 3] = np.minimum(field[:, at : at + 3], 170)
    assert len(find_lines(field, None, box=BOX, pitch=PITCH, most=4)) == 4


def test_upright_folds_alone_are_taken_out():
    """From edge to edge of the image: no stroke of writing, nor a bar wider than a fold, nor strokes of an image so
    low that they fill it."""
    writing = np.zeros((70, 400), np.uint8)
    cv2.putText(writing, "llfltt hkpplj Illl", (20, 45), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.0, 200, 2, cv2.LINE_AA)
    assert (without_creases(writing, 25, 30) == writing).all()
    low = np.ascontiguousarray(writing[24:40])
    assert (low.min(axis=0) > 25).any() and (without_creases(low, 25, 30) == low).all()
    for width in (1, 2, 3):
        fold = np.zeros_like(writing)
        fold[:35, 200 : 200 + width] = fold[35:, 201 : 201 + width] = 60  # leans by a degree
        assert not without_creases(fold, 25, 30).any()
        both = np.maximum(writing, fold)
        assert 0 < (without_creases(both, 25, 30) != both).any(axis=0).sum() <= width + 4
    bar = np.zeros_like(writing)
    bar[:, 200:206] = 60
    assert (without_creases(bar, 25, 30) == bar).all()


def test_a_stamp_alone_is_cut_with_its_outline():
    """A reader tells a stamp by it, and reads nothing."""
    field = a_field(seed=1)
    image = cut_line(field, find_lines(field, None, box=BOX, pitch=PITCH, most=2)[0], PITCH)
    assert image.shape[0] > 1.5 * PITCH


def test_a_stamp_that_writing_crosses_is_no_outline():
    """One component of both: none of the writing counts as the stamp's."""
    field = np.full((300, 500), 0, np.uint8)
    cv2.rectangle(field, (100, 60), (400, 200), 255, 3)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(field)
    assert list(stamp_outlines(labels, stats, np.array([False, True]), 60)) == [1]
    cv2.putText(field, "hemorragie cerebrale", (60, 150), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 1.5, 255, 14)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(field)
    assert stats[1, cv2.CC_STAT_AREA] > MAX_OUTLINE_DENSITY * 300 * 140
    assert not stamp_outlines(labels, stats, np.arange(len(stats)) > 0, 60)
