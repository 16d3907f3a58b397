"""Confidence of a hypothesis: signals, and one score made of some of them. Nothing here is calibrated.

Of a line, each 0 to 1 but for the last two:

    likelihood       CTC's probability of the text, of all its paths: the geometric mean over its characters
    greedy           the mean probability of the labels that greedy decoding reads
    least_word       the confidence of the text's least certain word, 1 without words (greedily: if the model says it)
    top_share        the share of the text in the n best; beam search only
    agreement        1 - edits / length: of CTC's greedy reading and the text; of a model with a decoder, of CTC's and
                     the decoder's greedy readings; not where CTC reads alone and greedily, and would agree with itself
    least_character  the probability of the text's least certain character (greedily: if the model says it)
    frames           the mean over the frames of their largest probability: the plain confidence of a CTC model
    blank            the mean over the frames of the blank's probability
    language         the language model's probability of the text: the geometric mean over its characters and its end
    known            the share of letters that stand in words of the lexicon, 1 without letters; with a lexicon alone
    width            px a character, of a line as high as the model sees it
    length           characters

Of a word: least_character, mean_character, length, known; and its confidence, the share of the n best that have it in
its place or, without a beam search, the probability of its least certain character.

A reading's confidence is made of the first five. A calibrated probability is made of all, see
htr/reliability/calibration.py.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn import functional as F

CONFIDENT = ("likelihood", "greedy", "least_word", "top_share", "agreement")


def confidence(signals: Mapping[str, float]) -> float:
    """The geometric mean of CONFIDENT: one of them near 0 makes the whole small."""
    values = [signals[name] for name in CONFIDENT if name in signals]
    return math.prod(values) ** (1 / len(values))


def of_frames(log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]], frame: int) -> list[dict[str, float]]:
    """(N, T, labels + 1) on the CPU, (N,), N texts, px of a frame -> frames, blank, width and length of each."""
    used = torch.arange(log_probs.shape[1]) < lengths[:, None]
    count = lengths.clamp(min=1)
    best, blank = (
        ((values.float().exp() * used).sum(dim=1) / count).clamp(max=1).tolist()
        for values in (log_probs.max(dim=2).values, log_probs[:, :, 0])
    )
    rows = zip(best, blank, lengths.tolist(), map(len, texts), strict=True)
    return [
        {"frames": most, "blank": none, "width": frame * frames / max(length, 1), "length": float(length)}
        for most, none, frames, length in rows
    ]


def of_words(text: str, probs: Sequence[float], lexicon: Set[str] = frozenset()) -> dict[str, list[float]]:
    """A text, a probability a character, and a lexicon in lower case if there is one -> signals of its words."""
    words = text.split()
    found = {
        "least_character": words_of(text, probs, min),
        "mean_character": words_of(text, probs, lambda inside: sum(inside) / len(inside)),
        "length": [float(len(word)) for word in words],
    }
    return found | ({"known": [known(word, lexicon) for word in words]} if lexicon else {})


def known(text: str, lexicon: Set[str]) -> float:
    """The share of letters that stand in words (runs of letters) of the lexicon, 1 without letters."""
    runs = "".join(c if c.isalpha() else " " for c in text).split()
    letters = sum(map(len, runs))
    return sum(len(run) for run in runs if run.lower() in lexicon) / letters if letters else 1.0


def likelihoods(log_probs: Tensor, lengths: Tensor, texts: Sequence[Sequence[int]]) -> list[float]:
    """(N, T, labels + 1) on the CPU, (N,), N texts -> N likelihoods; 0 for a text that needs more frames."""
    if not texts:
        return []
    flat = torch.tensor([label for text in texts for label in text], dtype=torch.long)
    sizes = torch.tensor([len(text) for text in texts])
    losses = F.ctc_loss(log_probs.float().transpose(0, 1), flat, lengths, sizes, reduction="none")
    return [min(math.exp(-loss / max(len(text), 1)), 1.0) for loss, text in zip(losses.tolist(), texts, strict=True)]


def agreement(one: Sequence[int], other: Sequence[int]) -> float:
    return Levenshtein.normalized_similarity(one, other)


def shares(scores: Sequence[float]) -> np.ndarray:
    """Logarithmic scores of the n best -> their shares, which add up to 1."""
    weights = np.exp(np.asarray(scores, np.float64) - max(scores))
    return weights / weights.sum()


def words_of(text: str, probs: Sequence[float], of: Callable[[Sequence[float]], float] = min) -> list[float]:
    """A probability a character -> that of the least certain character of each word, or what `of` makes of them."""
    words, before = [], " "
    for character, prob in zip(text, probs, strict=True):
        if not character.isspace():
            if before.isspace():
                words.append([])
            words[-1].append(prob)
        before = character
    return [of(word) for word in words]


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
