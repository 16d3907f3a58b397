"""How sure a reading is: signals, each 0 to 1, and one confidence made of them. Nothing here is calibrated.

    likelihood    CTC's probability of the text, of all its paths: the geometric mean over its characters
    greedy        the mean probability of the symbols that greedy decoding reads
    least_word    the confidence of the text's least certain word, 1 without words (greedily: if the model says it)
    margin        the share of the text in the n best; beam search only
    agreement     1 - edits / length: of CTC's greedy reading and the text; of a model with a decoder, of CTC's and the
                  decoder's greedy readings; not where CTC reads alone and greedily, and would agree with itself

A word's confidence is the share of the n best that have it in its place or, without a beam search, the probability of
its least certain character.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional as F


def confidence(signals: Mapping[str, float]) -> float:
    """The geometric mean of the signals: any of them that is near 0 is reason enough to look at the line."""
    return math.prod(signals.values()) ** (1 / len(signals))


def likelihoods(log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
    """(N, T, symbols + 1) on the CPU, (N,), N texts -> N likelihoods; 0 for a text that needs more frames."""
    if not texts:
        return []
    flat = torch.tensor([symbol for text in texts for symbol in text], dtype=torch.long)
    sizes = torch.tensor([len(text) for text in texts])
    losses = F.ctc_loss(log_probs.float().transpose(0, 1), flat, lengths, sizes, reduction="none")
    return [min(math.exp(-loss / max(len(text), 1)), 1.0) for loss, text in zip(losses.tolist(), texts, strict=True)]


def agreement(one: Sequence[int], other: Sequence[int]) -> float:
    return Levenshtein.normalized_similarity(one, other)


def shares(scores: Sequence[float]) -> np.ndarray:
    """Logarithmic scores of the n best -> their shares, which add up to 1."""
    weights = np.exp(np.asarray(scores, np.float64) - max(scores))
    return weights / weights.sum()


def words_of(text: str, probs: Sequence[float]) -> list[float]:
    """A probability a character -> that of the least certain character of each word."""
    words, inside = [], False
    for character, prob in zip(text, probs, strict=True):
        if character.isspace():
            inside = False
        elif inside:
            words[-1] = min(words[-1], prob)
        else:
            words.append(prob)
            inside = True
    return words


def word_shares(texts: Sequence[str], shares: np.ndarray) -> list[float]:
    """The n best texts, the best one first, and their shares -> of each word of the best one, the share that has it
    in its place. Raises ValueError without a text.
    """
    if not texts:
        raise ValueError("no texts to take the words' shares from")
    words = texts[0].split()
    agreed = np.zeros(len(words))
    for text, share in zip(texts, shares, strict=True):
        for block in Levenshtein.opcodes(words, text.split()):
            if block.tag == "equal":
                agreed[block.src_start : block.src_end] += share
    return np.minimum(agreed, 1.0).tolist()
