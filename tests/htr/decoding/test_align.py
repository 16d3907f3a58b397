"""Forced alignment against brute force, and boxes whose place is known."""

import itertools
import math

import numpy as np
import pytest

from htr.decoding.align import align, align_many, character_boxes, frames_needed, measure_emission_delay, word_boxes
from htr.types import LineGeometry

HEIGHT = 48
SEEN = LineGeometry(HEIGHT, 4)


def random_lines(frames: int, labels: int, seed: int) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(labels), frames)).astype(np.float32)


def peaks(path: list[int], labels: int = 6, sure: float = 0.95) -> np.ndarray:
    """(T, labels) log-probabilities whose best path this is."""
    probs = np.full((len(path), labels), (1 - sure) / (labels - 1))
    probs[range(len(path)), path] = sure
    return np.log(probs)


def best_by_brute_force(log_probs: np.ndarray, text: list[int]) -> float:
    frames, labels = log_probs.shape
    return max(
        sum(float(log_probs[t, label]) for t, label in enumerate(path))
        for path in itertools.product(range(labels), repeat=frames)
        if [label for label, _ in itertools.groupby(path) if label] == text
    )


@pytest.mark.parametrize("text", [[], [1], [2, 1], [1, 1], [1, 2, 2], [1, 1, 1], [2, 1, 2, 1, 2, 1]])
def test_the_best_path_is_the_best_of_all(text):
    for seed in range(3):
        log_probs = random_lines(6, 3, seed)
        alignment = align(log_probs, text)
        best = log_probs.max(axis=1).sum()
        read = sum(label != 0 for label, _ in itertools.groupby(log_probs.argmax(axis=1).tolist()))
        truth, count = best_by_brute_force(log_probs, text), max(len(text), read, 1)
        assert alignment.score == pytest.approx(truth / count, abs=1e-5)
        assert alignment.margin == pytest.approx((truth - best) / count, abs=1e-5)


def test_frames_of_the_characters():
    alignment = align(peaks([0, 1, 1, 0, 2, 0, 2, 3, 3, 3, 0]), [1, 2, 2, 3])
    assert alignment.first.tolist() == [1, 4, 6, 7] and alignment.last.tolist() == [2, 4, 6, 9]
    assert np.exp(alignment.log_probs) == pytest.approx(np.full(4, 0.95))
    assert alignment.margin == pytest.approx(0, abs=1e-6) and alignment.frames == 11


def test_a_batch_aligns_as_its_lines_alone():
    lines = [random_lines(frames, 5, frames) for frames in (3, 17, 40)]
    texts = [[1, 2], [4, 4, 1, 3, 2], [2] * 12]
    padded = np.zeros((3, 40, 5), np.float32)  # padding that would be the best of all
    for row, line in zip(padded, lines, strict=True):
        row[: len(line)] = line
    for one, other in zip(align_many(padded, texts, [3, 17, 40]), map(align, lines, texts), strict=True):
        assert one.score == pytest.approx(other.score) and one.margin == pytest.approx(other.margin)
        assert one.first.tolist() == other.first.tolist() and one.last.tolist() == other.last.tolist()


def test_a_text_that_does_not_fit_is_an_error():
    assert frames_needed([1, 1, 2]) == 4 and frames_needed([]) == 0
    with pytest.raises(ValueError, match="needs 4 frames, the line has 3"):
        align(random_lines(3, 4, 0), [1, 1, 2])
    with pytest.raises(ValueError, match="has 1 to 3"):
        align(random_lines(9, 4, 0), [4])
    many = align_many([random_lines(3, 4, 0), random_lines(4, 4, 0), np.zeros((0, 4))], [[1, 1, 2], [1, 1, 2], []])
    assert many[0] is None and many[1] is not None and many[2] is None
    assert align_many([], []) == []


def test_a_wrong_text_has_a_lower_margin():
    path = [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    right, wrong, short = align_many([peaks(path)] * 3, [[1, 2, 3, 4, 5], [5, 1, 2, 4, 3], [1]])
    assert right.margin > -0.01 and wrong.margin < -1 and short.margin < -1
    certain = np.full((11, 6), -np.inf)
    certain[range(11), path] = 0
    assert math.isfinite(align(certain, [1, 2, 3, 5, 4]).score)


def test_boxes_are_in_pixels_of_the_stored_image():
    # at the height of the model a frame is 4 px; the stored image is twice as large
    alignment = align(peaks([0, 1, 0, 0, 2, 2, 0, 0, 3, 0, 4, 0]), [1, 2, 3, 4])
    boxes = character_boxes(alignment, "ab c", (2 * HEIGHT, 96), SEEN)
    assert [box.text for box in boxes] == ["a", "b", " ", "c"]
    assert [box.right for box in boxes[:-1]] == [box.left for box in boxes[1:]] == [24.0, 56.0, 76.0]
    assert boxes[0].left == 0 and 88 < boxes[-1].right <= 96
    words = word_boxes(alignment, "ab c", (2 * HEIGHT, 96), SEEN)
    assert [(word.text, word.left, word.right) for word in words] == [("ab", 0.0, 56.0), ("c", 76.0, boxes[-1].right)]
    assert math.exp(words[0].log_prob) == pytest.approx(0.95)


def test_word_edges_move_to_the_ink():
    alignment = align(peaks([0, 1, 0, 0, 2, 2, 0, 0, 3, 0, 4, 0]), [1, 2, 3, 4])
    ink = np.zeros((HEIGHT, 48), np.uint8)
    ink[30, 3:27] = ink[40, 36:45] = 200
    words = word_boxes(alignment, "ab c", (2 * HEIGHT, 96), SEEN, ink)
    assert [(word.left, word.right) for word in words] == [(6, 54), (72, 90)]
    assert word_boxes(alignment, "ab c", (2 * HEIGHT, 96), SEEN, ink * 0) == word_boxes(
        alignment, "ab c", (2 * HEIGHT, 96), SEEN
    )


def test_strokes_belong_to_the_word_that_has_most_of_them():
    alignment = align(peaks([0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0]), [1, 2, 3])  # the space's peak is at 22 px
    ink = np.zeros((HEIGHT, 48), np.uint8)
    ink[10:20, 4:16] = ink[40:50, 30:44] = 255
    ink[45, 19:30] = 255  # the second word begins with a long tail
    assert [(w.left, w.right) for w in word_boxes(alignment, "a b", (HEIGHT, 48), SEEN, ink)] == [(4, 16), (19, 44)]
    ink[45, 4:30] = 255
    ink[20:46, 4:8] = 255  # and now is joined to the first one
    (_, right), (left, end) = [(w.left, w.right) for w in word_boxes(alignment, "a b", (HEIGHT, 48), SEEN, ink)]
    assert 16 < right <= left < 30 and end == 44
    ruled = np.zeros((HEIGHT, 48), np.uint8)
    ruled[HEIGHT - 4] = 255
    (first, right), (left, end) = [(w.left, w.right) for w in word_boxes(alignment, "a b", (HEIGHT, 48), SEEN, ruled)]
    assert (first, end) == (0, 48) and right == left


def test_a_ruling_through_many_words_widens_none_of_them():
    """It has most of its pixels in one word or another: whole, it would be that word's from side to side."""
    path = [label for k in range(1, 10) for label in (k, 0, 0, 0)]
    alignment, width = align(peaks(path, labels=12), list(range(1, 10))), 4 * len(path)
    ink = np.zeros((HEIGHT, width), np.uint8)
    ink[HEIGHT - 4] = 255
    ink[10:20, :10] = ink[10:20, 32:42] = ink[10:20, 64:74] = ink[10:20, 96:106] = ink[10:20, 128:138] = 255
    words = word_boxes(alignment, "a b c d e", (HEIGHT, width), SEEN, ink)
    assert [word.text for word in words] == list("abcde")
    for word, after in itertools.pairwise(words):
        assert word.right <= after.left
    for k, word in enumerate(words):
        assert word.left <= 32 * k and 32 * k + 10 <= word.right <= word.left + 40


def test_a_model_that_is_late_is_found_out():
    rng = np.random.default_rng(0)
    alignments, texts, inks = [], [], []
    for _ in range(20):
        path, ink = [0] * 60, np.full((HEIGHT, 240), 90, np.uint8)
        for k, at in enumerate(sorted(rng.choice(np.arange(2, 18), 3, replace=False) * 3)):
            path[at + 3] = k + 1  # three frames, 12 px, late
            if k == 1:
                ink[:, at * 4 - 3 : at * 4 + 7] = 0
        alignments.append(align(peaks(path), [1, 2, 3]))
        texts.append("a b")
        inks.append(ink)
    emission_delay = measure_emission_delay(alignments, texts, inks, SEEN)
    assert abs(emission_delay - 12) <= 2
    late, plain = (character_boxes(alignments[0], "a b", (2 * HEIGHT, 480), SEEN, d) for d in (emission_delay, 0.0))
    assert late[1].left == plain[1].left - 2 * emission_delay
    assert (
        measure_emission_delay(alignments, ["abc"] * 20, inks, SEEN) == measure_emission_delay([], [], [], SEEN) == 0.0
    )


def test_texts_without_words():
    blank = align(peaks([0, 0, 0]), [])
    assert character_boxes(blank, "", (HEIGHT, 12), SEEN) == word_boxes(blank, "", (HEIGHT, 12), SEEN) == []
    assert word_boxes(align(peaks([0, 1, 0]), [1]), " ", (HEIGHT, 12), SEEN) == []
    with pytest.raises(ValueError, match="a text of 2"):
        character_boxes(blank, "ab", (HEIGHT, 12), SEEN)
