"""Best-path decoding on log-probabilities that are written down frame by frame."""

import pytest
import torch

from htr.decoding.greedy import greedy


def frames(*best: tuple[int, float], labels: int = 4) -> torch.Tensor:
    """(T, labels) log-probabilities whose best label of each frame has this probability, the others share the rest"""
    rows = []
    for label, probability in best:
        row = [(1 - probability) / (labels - 1)] * labels
        row[label] = probability
        rows.append(row)
    return torch.tensor(rows).log()


def read(*best: tuple[int, float], length: int | None = None):
    return greedy(frames(*best)[None], torch.tensor([len(best) if length is None else length]))[0]


def test_repeats_are_merged_and_blanks_dropped():
    path = [0, 1, 1, 0, 1, 2, 2, 3, 0, 0, 3]
    assert read(*((label, 0.9) for label in path)).labels == [1, 1, 2, 3, 3]


def test_a_merged_label_counts_once_by_its_best_frame():
    reading = read((1, 0.5), (1, 0.9), (1, 0.6), (0, 0.99), (2, 0.7))
    assert reading.labels == [1, 2] and reading.confidence == pytest.approx((0.9 + 0.7) / 2)


def test_blanks_alone_are_an_empty_reading_of_full_confidence():
    assert read((0, 0.4), (0, 0.5)).labels == [] and read((0, 0.4)).confidence == 1.0
    assert read((1, 0.9), length=0).labels == []


def test_frames_beyond_a_length_are_not_read():
    short = frames((1, 0.9), (0, 0.9), (2, 0.8), (2, 0.9))
    long = frames((3, 0.9), (0, 0.9), (3, 0.8), (1, 0.6))
    first, second = greedy(torch.stack([short, long]), torch.tensor([2, 4]))
    assert (first.labels, second.labels) == ([1], [3, 3, 1])
    assert first.confidence == pytest.approx(0.9) and second.confidence == pytest.approx((0.9 + 0.8 + 0.6) / 3)


def test_half_precision():
    path = frames((1, 0.9), (0, 0.9), (2, 0.8)).bfloat16()
    assert greedy(path[None], torch.tensor([3]))[0].labels == [1, 2]
