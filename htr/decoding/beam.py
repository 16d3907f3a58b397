"""CTC prefix beam search over characters, with a language model and a lexicon.

A prefix is a text, whatever the frames that wrote it: its probability is the sum over its paths, those that end in a
blank and those that end in its last character kept apart (Hannun et al. 2014, First-Pass Large Vocabulary Continuous
Speech Recognition using Bi-Directional Recurrent DNNs, algorithm 1). Plain Python: most frames of a trained reader are
a sure blank, a frame has few candidates, and both are seen to first.
"""

import heapq
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rapidfuzz.distance import Levenshtein

from htr.alphabet import Alphabet
from htr.decoding.language import KEPT, LanguageModel, Mixture
from htr.scoring.errors import Errors, compare


@dataclass(frozen=True)
class Weights:
    """What is added to the log-probability that CTC gives a text."""

    alpha: float = 0.7  # times the language model's log-probability
    beta: float = 0.7  # for every character: a language model alone favours short texts
    gamma: float = 0.0  # for every letter of the words that are in the lexicon


@dataclass(frozen=True)
class Limits:
    """What the search leaves out."""

    width: int = 16  # prefixes kept after a frame
    top: int = 12  # symbols of a frame that may prolong a prefix
    least: float = 1e-3  # the probability that such a symbol has at least
    threshold: float = 10.0  # a prefix that is so far (natural logarithm) behind the best is dropped


@dataclass(frozen=True)
class Hypothesis:
    """A text that the frames may say; score = ctc + alpha * language + beta * len(symbols) + gamma * known."""

    symbols: list[int]
    text: str
    score: float
    ctc: float  # log-probability of the text: of all its paths that the search has kept
    language: float  # log-probability of the text and its end; 0 without a model
    known: int  # letters in words of the lexicon


@dataclass(frozen=True)
class Signals:
    """How sure the n best are of the best one, each 0 to 1 and none calibrated."""

    likelihood: float  # CTC's probability of the text, its geometric mean over the characters
    posterior: float  # the text's share in the n best
    least_word: float  # the least share of the n best that have a word of the text in its place


class Prefix:
    """A node of the tree of texts."""

    __slots__ = ("children", "factors", "parent", "slot", "state", "symbol", "text")

    def __init__(self, parent: "Prefix | None", symbol: int, text: str, state: object, factors: Sequence[float]):
        self.parent, self.symbol, self.text, self.state, self.factors = parent, symbol, text, state, factors
        self.children: dict[int, Prefix] = {}
        self.slot = -1  # its place in the beam, if it has one


class BeamSearch:
    """A search for one language: `BeamSearch(alphabet, language).search(log_probs)`.

    The lexicon's words are compared in lower case; a word is a run of letters. What the model has been asked for is
    kept between lines: make one search a field or a process, not one a line.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        language: LanguageModel | Mixture | None = None,
        lexicon: Iterable[str] = (),
        weights: Weights = Weights(),
        limits: Limits = Limits(),
    ):
        self.alphabet, self.language, self.weights, self.limits = alphabet, language, weights, limits
        self.lexicon = frozenset(unicodedata.normalize("NFC", word).lower() for word in lexicon if word.isalpha())
        self._order = [0] + [language.symbols.get(c, 0) for c in alphabet.characters] if language else []
        self._even = np.full(len(alphabet) + 1, math.exp(weights.beta)).tolist()  # factors without a language model
        self._parts = np.array([False] + [not c.isalpha() for c in alphabet.characters])  # what ends a word
        self._factors: dict[object, np.ndarray] = {}

    def search(self, log_probs: np.ndarray, best: int = 1) -> list[Hypothesis]:
        """(T, symbols + 1) log-probabilities with the blank at 0 -> at most `best` hypotheses, the best one first.

        Raises ValueError when the log-probabilities are of another alphabet.
        """
        if log_probs.ndim != 2 or log_probs.shape[1] != len(self.alphabet) + 1:
            raise ValueError(f"log-probabilities {log_probs.shape}, the alphabet has {len(self.alphabet)} characters")
        probs = np.exp(log_probs.astype(np.float64))
        if not (probs.sum(axis=1) > 0).all():
            raise ValueError("a frame in which no symbol has a probability")
        beam, scale = self._walk(probs)
        scored = [(math.log(a + b) + scale + self._at_end(prefix), prefix) for prefix, a, b in beam]
        return [self._hypothesis(prefix, score) for score, prefix in heapq.nlargest(best, scored, key=lambda s: s[0])]

    def search_many(
        self, log_probs: Sequence[np.ndarray], lengths: Sequence[int], best: int = 1
    ) -> list[list[Hypothesis]]:
        """(N, T, symbols + 1) and (N,) frames in use -> N lists of hypotheses."""
        return [self.search(line[: int(n)], best) for line, n in zip(log_probs, lengths, strict=True)]

    def _walk(self, probs: np.ndarray) -> tuple[list[tuple[Prefix, float, float]], float]:
        """The prefixes after the last frame, each with the probability of its paths that end in a blank and in its
        last symbol, the language's share in both; and the logarithm of what all are divided by.
        """
        width, narrowest = self.limits.width, math.exp(-self.limits.threshold)
        state = self.language.start() if self.language else None
        root = Prefix(None, 0, "", state, self._factors_of(state, ""))
        beam, scale = [(root, 1.0, 0.0)], 0.0
        for row, symbols in zip(probs.tolist(), self._candidates(probs), strict=True):
            blank = row[0]
            # every prefix stays as it is: a blank, or its last symbol once more
            stays = [(prefix, (a + b) * blank, b * row[prefix.symbol]) for prefix, a, b in beam]
            if symbols:
                for slot, (prefix, _, _) in enumerate(beam):
                    prefix.slot = slot
                ends = [stay[2] for stay in stays]
                floor = max(a + b for _, a, b in stays) * narrowest
                news = []
                for prefix, a, b in beam:
                    last, both, factors, children = prefix.symbol, a + b, prefix.factors, prefix.children
                    for symbol in symbols:
                        # after the same symbol only a blank makes a second one of it
                        gain = (a if symbol == last else both) * row[symbol] * factors[symbol]
                        child = children.get(symbol)
                        if child is not None and child.slot >= 0:
                            ends[child.slot] += gain
                        elif gain > floor:
                            news.append((gain, prefix, symbol))
                for prefix, _, _ in beam:
                    prefix.slot = -1
                stays = [(prefix, a, b) for (prefix, a, _), b in zip(stays, ends, strict=True)]
                if len(news) > width:
                    news = heapq.nlargest(width, news, key=lambda new: new[0])
                ranked = [(a + b, prefix, a, b) for prefix, a, b in stays]
                ranked += [(gain, prefix, symbol, None) for gain, prefix, symbol in news]
                ranked.sort(key=lambda item: -item[0])
                floor = ranked[0][0] * narrowest
                beam = [
                    (prefix, x, b) if b is not None else (self._prolong(prefix, x), 0.0, total)
                    for total, prefix, x, b in ranked[:width]
                    if total >= floor
                ]
            else:
                beam = stays
            most = max(a + b for _, a, b in beam)
            if not 1e-100 < most < 1e100:
                if most == 0:
                    raise ValueError("frames that no text explains: a symbol has the probability 0 where it must not")
                beam = [(prefix, a / most, b / most) for prefix, a, b in beam]
                scale += math.log(most)
        return [item for item in beam if item[1] + item[2] > 0], scale

    def _candidates(self, probs: np.ndarray) -> list[list[int]]:
        """The symbols of each frame that may prolong a prefix."""
        rows, symbols = np.nonzero(probs[:, 1:] >= self.limits.least)
        candidates: list[list[int]] = [[] for _ in probs]
        for t, symbol in zip(rows.tolist(), symbols.tolist(), strict=True):
            candidates[t].append(symbol + 1)
        for t, found in enumerate(candidates):
            if len(found) > self.limits.top:
                candidates[t] = heapq.nlargest(self.limits.top, found, key=probs[t].__getitem__)
        return candidates

    def _prolong(self, prefix: Prefix, symbol: int) -> Prefix:
        child = prefix.children.get(symbol)
        if child is None:
            character = self.alphabet.characters[symbol - 1]
            state = self.language.step(prefix.state, character) if self.language else None
            text = prefix.text + character
            child = Prefix(prefix, symbol, text, state, self._factors_of(state, text))
            prefix.children[symbol] = child
        return child

    def _factors_of(self, state: object, text: str) -> Sequence[float]:
        """What each next symbol multiplies a prefix by, its bonuses included."""
        if self.language is None:
            factors = self._even
        else:
            factors = self._factors.get(state)
            if factors is None:
                if len(self._factors) >= KEPT:
                    self._factors.clear()
                row = self.language.probs(state)[self._order] ** self.weights.alpha * math.exp(self.weights.beta)
                factors = self._factors[state] = row.data  # a memoryview gives plain floats, fast
        known = self._known_at_end(text)
        if known:
            bonus = np.where(self._parts, math.exp(self.weights.gamma * known), 1.0)
            return (np.asarray(factors) * bonus).tolist()
        return factors

    def _known_at_end(self, text: str) -> int:
        """The length of the text's last word, if it is in the lexicon."""
        if not self.lexicon or not text[-1:].isalpha():
            return 0
        start = len(text)
        while start and text[start - 1].isalpha():
            start -= 1
        return len(text) - start if text[start:].lower() in self.lexicon else 0

    def _at_end(self, prefix: Prefix) -> float:
        """What the end of the text and of its last word adds."""
        bonus = self.weights.gamma * self._known_at_end(prefix.text)
        if self.language is None:
            return bonus
        return bonus + self.weights.alpha * math.log(self.language.probs(prefix.state)[self.language.end])

    def _hypothesis(self, prefix: Prefix, score: float) -> Hypothesis:
        text, symbols, node = prefix.text, [], prefix
        while node.parent is not None:
            symbols.append(node.symbol)
            node = node.parent
        words = "".join(c if c.isalpha() else " " for c in text).split() if self.lexicon else []
        known = sum(map(self._known_at_end, words))
        language = self.language.score(text) if self.language else 0.0
        bonuses = self.weights.alpha * language + self.weights.beta * len(symbols) + self.weights.gamma * known
        return Hypothesis(symbols[::-1], text, score, score - bonuses, language, known)


def signals(hypotheses: Sequence[Hypothesis]) -> Signals:
    """The n best of a line, n of 5 or more -> signals for a confidence. Raises ValueError for none."""
    if not hypotheses:
        raise ValueError("no hypotheses to take signals from")
    best = hypotheses[0]
    shares = np.exp([h.score - best.score for h in hypotheses])
    shares /= shares.sum()
    words = best.text.split()
    agreed = np.zeros(len(words))
    for share, hypothesis in zip(shares, hypotheses, strict=True):
        for block in Levenshtein.opcodes(words, hypothesis.text.split()):
            if block.tag == "equal":
                agreed[block.src_start : block.src_end] += share
    likelihood = math.exp(min(best.ctc, 0.0) / max(len(best.symbols), 1))
    return Signals(likelihood, float(shares[0]), min(float(agreed.min(initial=1.0)), 1.0))


GRID = {
    "alpha": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3),
    "beta": (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    "gamma": (0.0, 0.1, 0.2, 0.4),
}


def tune(
    lines: Sequence[np.ndarray],
    references: Sequence[str],
    alphabet: Alphabet,
    language: LanguageModel | Mixture | None,
    lexicon: Iterable[str] = (),
    limits: Limits = Limits(),
) -> tuple[Weights, float]:
    """The weights of the least CER on lines (T, symbols + 1) that no model was trained on, and that CER.

    One weight after the other, twice over: some 30 searches of every line.
    """
    lexicon = tuple(lexicon)
    tried: dict[Weights, float] = {}

    def cer(weights: Weights) -> float:
        if weights not in tried:
            search = BeamSearch(alphabet, language, lexicon, weights, limits)
            counts = (compare(t, search.search(line)[0].text) for t, line in zip(references, lines, strict=True))
            tried[weights] = sum(counts, Errors()).cer
        return tried[weights]

    best = Weights(0.6 if language else 0.0, 0.5 if language else 0.0, 0.0)
    for _ in range(2):
        for name in [*(["alpha"] if language else []), "beta", *(["gamma"] if lexicon else [])]:
            best = min((best, *(replace(best, **{name: value}) for value in GRID[name])), key=cer)
    return best, cer(best)
