"""How much better frames fit a reading than its label: sums over paths that can be counted by hand."""

import math

import numpy as np
import pytest
import torch

from htr.charset import Charset
from jobs.evaluation.label_gap import MAX_GAP, label_gaps

CHARSET = Charset("ab ")


def frames(*columns: dict[str, float]) -> torch.Tensor:
    """Probabilities of a frame by character, "-" the blank -> (1, T, labels + 1) logarithms."""
    rows = [[column["-"], *(column[c] for c in CHARSET.characters)] for column in columns]
    return torch.tensor(rows).log()[None]


TWO = frames({"-": 0.1, "a": 0.7, "b": 0.1, " ": 0.1}, {"-": 0.4, "a": 0.3, "b": 0.2, " ": 0.1})


def test_the_gap_is_the_ratio_of_what_all_paths_say():
    likely = {"a": 0.7 * 0.3 + 0.7 * 0.4 + 0.1 * 0.3, "b": 0.1 * 0.2 + 0.1 * 0.4 + 0.1 * 0.2, "ab": 0.7 * 0.2, "": 0.04}
    for label, share in likely.items():
        [gap] = label_gaps(TWO, [2], [1], [label], ["a"], CHARSET)
        assert gap == pytest.approx(math.log(likely["a"] / share), abs=1e-5)
    # what the model can't write says nothing, what has no path says all it can
    assert label_gaps(TWO, [2], [1], ["aé"], ["a"], CHARSET) == [0]
    assert label_gaps(TWO, [2], [1], ["aaaa"], ["a"], CHARSET) == [MAX_GAP]


def test_a_field_of_several_lines_has_their_frames_in_a_row_and_padding_is_left_out():
    rng = np.random.default_rng(0)
    made = torch.from_numpy(rng.dirichlet(np.ones(4), (3, 9))).float().log()
    lengths, texts, read = [9, 6, 4], ["ab a", "b"], ["a a", "ba"]
    both = label_gaps(made, lengths, [2, 1], texts, read, CHARSET)
    joined = torch.cat([made[0], made[1, :6]])[None]
    assert both[0] == pytest.approx(label_gaps(joined, [15], [1], texts[:1], read[:1], CHARSET)[0], abs=1e-4)
    assert both[1] == pytest.approx(label_gaps(made[2:, :4], [4], [1], texts[1:], read[1:], CHARSET)[0], abs=1e-4)


def test_a_letter_and_an_accent_that_were_read_apart():
    """Together they are a letter that the model can't write, and so are two that a third one parted in the label."""
    apart, charset = "e\u0301", Charset("e\u0301")
    made = torch.tensor([[[0.2, 0.7, 0.1], [0.2, 0.1, 0.7]]]).log()
    assert label_gaps(made, [2], [1], [apart], [apart], charset) == [0]
    assert label_gaps(made, [2], [1], ["ex\u0301"], [apart], charset) == [0]
    assert label_gaps(made, [2], [1], ["é"], [apart], charset)[0] == pytest.approx(math.log(0.49 / 0.04), abs=1e-5)


def test_nothing_read_and_nothing_there():
    assert label_gaps(TWO, [2], [1], [""], [""], CHARSET) == [0]
