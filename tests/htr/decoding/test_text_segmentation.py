"""How words fit their part of a line, a field's text cut where its lines end, and the threshold of a bad fit."""

from itertools import groupby

import numpy as np
import pytest

from htr.decoding.align import align
from htr.decoding.text_segmentation import cut_text, fit, least_margin, path_of, spelled, word_fits

SPACE, LABELS = 1, 9


def line_of(labels: list[int], sure: float = 0.9) -> np.ndarray:
    """(T, LABELS) log-probabilities of a reader that reads these, three frames each and a blank after each."""
    path = [frame for label in labels for frame in (label, label, 0)] or [0, 0, 0]
    probs = np.full((len(path), LABELS), (1 - sure) / (LABELS - 1))
    probs[range(len(path)), path] = sure
    return np.log(probs).astype(np.float32)


def spaced(words: list[list[int]]) -> list[int]:
    return [label for word in words for label in (SPACE, *word)][1:]


def test_the_path_and_its_fit_are_those_of_the_alignment():
    rng = np.random.default_rng(0)
    for _ in range(20):
        log_probs = np.log(rng.dirichlet(np.ones(LABELS), 30)).astype(np.float32)
        text = rng.integers(1, LABELS, 6).tolist()
        found = align(log_probs, text)
        path = path_of(found, text)
        assert [label for label, _ in groupby(path.tolist()) if label] == [s for s, _ in groupby(text)] or spelled(
            path
        ) == len(text)
        assert fit(log_probs, path) == pytest.approx((found.score, found.margin), abs=1e-4)


def test_only_the_wrong_word_fits_badly():
    words = [[2, 3], [4, 5, 6], [7, 8]]
    log_probs = line_of(spaced(words))
    text = "ab cde fg"
    right = word_fits(log_probs, align(log_probs, spaced(words)), text, spaced(words))
    assert [margin for _, margin in right] == pytest.approx([0, 0, 0], abs=1e-5)
    other = spaced([[2, 3], [8, 8, 2], [7, 8]])
    fits = [margin for _, margin in word_fits(log_probs, align(log_probs, other), text, other)]
    assert fits[0] > -0.01 and fits[1] < -1 and fits[2] > -0.01


def test_a_field_is_cut_where_its_lines_end():
    rng = np.random.default_rng(1)
    for _ in range(30):
        lines = []
        for _ in range(rng.integers(2, 5)):
            count = rng.integers(1, 5)
            lines.append([rng.integers(2, LABELS, rng.integers(1, 7)).tolist() for _ in range(count)])
        words = [word for line in lines for word in line]
        cuts = cut_text([line_of(spaced(line)) for line in lines], words, SPACE)
        assert [words[a:b] for a, b in cuts] == lines


def test_a_line_without_a_word_gets_none():
    words = [[2, 3], [4, 5]]
    assert cut_text([line_of(spaced(words)), line_of([])], words, SPACE) == [(0, 2), (2, 2)]
    assert cut_text([line_of([]), line_of(spaced(words))], words, SPACE) == [(0, 0), (0, 2)]
    assert cut_text([line_of([2]), line_of([3])], [], SPACE) == [(0, 0), (0, 0)]


def test_a_text_too_long_for_its_lines():
    assert cut_text([line_of([2]), line_of([3])], [[2, 2, 2, 2, 2, 2]], SPACE) is None


def test_wrong_texts_are_found_and_right_ones_spared():
    rng = np.random.default_rng(2)
    own, wrong = rng.normal(-0.3, 0.2, 1000), rng.normal(-4, 0.5, 1000)
    least = least_margin(own, wrong)
    assert (wrong < least).mean() > 0.99 and (own < least).mean() < 0.005
    # one in ten of one's own is wrong: the threshold stays in the gap
    mixed = np.concatenate([own, rng.normal(-4, 0.5, 100)])
    assert (own < least_margin(mixed, wrong)).mean() < 0.005 and (wrong < least_margin(mixed, wrong)).mean() > 0.99


def test_a_reader_that_can_t_tell_still_finds_nine_in_ten():
    rng = np.random.default_rng(3)
    own, wrong = rng.normal(-2, 1, 1000), rng.normal(-3, 1, 1000)
    assert 0.9 <= (wrong < least_margin(own, wrong)).mean() < 0.95
    assert least_margin(own, np.zeros(0)) is None
