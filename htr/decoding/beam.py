"""CTC prefix beam search over characters, with a language model and a lexicon.

A prefix is a text, whatever the frames that wrote it: its probability is the sum over its paths, those that end in a
blank and those that end in its last character kept apart (Hannun et al. 2014, First-Pass Large Vocabulary Continuous
Speech Recognition using Bi-Directional Recurrent DNNs, algorithm 1). Plain Python: most frames of a trained reader are
almost surely blank and the others have few candidates, and both cases are handled first.
"""

import gc
import heapq
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import add, itemgetter

import numpy as np

from htr.charset import Charset
from htr.decoding.language import MAX_CACHED_ROWS, InterpolatedLM, LanguageModel

UNEXPLAINED = "frames that no text explains: a label has the probability 0 where it must not"
OLD_NAMES = {"alpha": "lm_weight", "beta": "length_bonus", "gamma": "lexicon_bonus", "delta": "rescore_weight"}


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of what is added to CTC's log-probability of a text (log-linear combination)."""

    lm_weight: float = 0.7  # times the language model's log-probability
    length_bonus: float = 0.7  # a character: a language model alone favours short texts
    lexicon_bonus: float = 0.0  # a letter of the words that are in the lexicon
    rescore_weight: float = 0.0  # times the attention decoder's log-probability, for the n best (decoder.py)

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> "ScoreWeights":
        """From weights.json, whose format 1 has the names alpha, beta, gamma and delta. Raises TypeError: others."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in values.items()})


@dataclass(frozen=True)
class SearchLimits:
    """Pruning of the search."""

    width: int = 32  # prefixes kept after a frame
    top: int = 12  # labels of a frame that may extend a prefix
    least: float = 1e-3  # the least probability of such a label
    threshold: float = 6.5  # a prefix that is so far (natural logarithm) behind the best is dropped

    def __post_init__(self) -> None:
        if not (self.width >= 1 and self.top >= 1 and 0 <= self.least < 1 and self.threshold > 0):
            raise ValueError(f"no search has these limits: {self}")


@dataclass(frozen=True)
class BeamHypothesis:
    """A text and its score = ctc + lm_weight * language + length_bonus * len(labels) + lexicon_bonus * known."""

    labels: list[int]
    text: str
    score: float
    ctc: float  # log-probability of the text: of all its paths that the search has kept
    language: float  # log-probability of the text and its end; 0 without a model
    known: int  # letters in words of the lexicon


class Prefix:
    """A node of the prefix tree."""

    __slots__ = ("children", "factors", "known", "label", "parent", "slot", "state", "text", "word")

    def __init__(self, parent: "Prefix | None", label: int, text: str, state: object):
        self.parent, self.label, self.text, self.state = parent, label, text, state
        self.word = ""  # the letters that its text ends with
        self.known = 0  # how many they are, if they are a word of the lexicon
        self.factors: Sequence[float] = ()  # see BeamSearch._factors_of
        self.children: dict[int, Prefix] = {}
        self.slot = -1  # its place in the beam, if it has one


class BeamSearch:
    """A search for one language: `BeamSearch(charset, language).search(log_probs)`.

    The lexicon's words are compared in lower case; a word is a run of letters. The language model's probabilities are
    cached between lines: make one search a field or a process, not one a line.
    """

    def __init__(
        self,
        charset: Charset,
        language: LanguageModel | InterpolatedLM | None = None,
        lexicon: Iterable[str] = (),
        weights: ScoreWeights = ScoreWeights(),
        limits: SearchLimits = SearchLimits(),
    ):
        self.charset, self.language, self.weights, self.limits = charset, language, weights, limits
        self.lexicon = frozenset(unicodedata.normalize("NFC", word).lower() for word in lexicon if word.isalpha())
        self._order = [0] + [language.symbols.get(c, 0) for c in charset.characters] if language else []
        self._ends_word = np.array([False] + [not c.isalpha() for c in charset.characters])
        self._factors: dict[tuple[object, int], Sequence[float]] = {}

    def search(self, log_probs: np.ndarray, best: int = 1) -> list[BeamHypothesis]:
        """(T, labels + 1) log-probabilities with the blank at 0 -> at most `best` hypotheses, the best one first.

        Raises ValueError when the log-probabilities are of another charset.
        """
        if log_probs.ndim != 2 or log_probs.shape[1] != len(self.charset) + 1:
            raise ValueError(f"log-probabilities {log_probs.shape}, the charset has {len(self.charset)} characters")
        probs = np.exp(log_probs.astype(np.float64))
        if not (probs.sum(axis=1) > 0).all():
            raise ValueError("a frame in which no label has a probability")
        root = Prefix(None, 0, "", self.language.start() if self.language else None)
        root.factors = self._factors_of(root)
        with paused_gc():
            beam, scale = self._walk(root, probs)
            scored = [(math.log(a + b) + scale + self._at_end(prefix), prefix) for prefix, a, b in beam]
            likely = heapq.nlargest(best, scored, key=lambda s: s[0])
            found = [self._hypothesis(prefix, score) for score, prefix in likely]
            forget(root)
        return found

    def _walk(self, root: Prefix, probs: np.ndarray) -> tuple[list[tuple[Prefix, float, float]], float]:
        """The prefixes after the last frame, each with the probability of its paths that end in a blank and in its
        last label, the language model's factor in both; and the logarithm of what all are divided by.
        """
        width, narrowest = self.limits.width, math.exp(-self.limits.threshold)
        beam, scale = [(root, 1.0, 0.0)], 0.0
        candidates = self._candidates(probs)
        # only labels that extend a prefix somewhere are ever asked for: of their columns alone lists are made
        column = [0] * probs.shape[1]
        used = sorted({0}.union(*([label for label, _ in labels] for labels in candidates)))
        for place, label in enumerate(used):
            column[label] = place
        for row, labels in zip(probs[:, used].tolist(), candidates, strict=True):
            blank = row[0]
            # every prefix stays as it is: a blank, or its last label once more
            if not labels:
                beam = [(prefix, (a + b) * blank, b * row[column[prefix.label]]) for prefix, a, b in beam]
                if beam[0][1] < 1e-100:  # so many labels that none of them, nor the blank, is likely
                    beam, scale = scaled_up(beam, scale)
                continue
            stays, ends = [], []
            for slot, (prefix, a, b) in enumerate(beam):
                stays.append((a + b) * blank)
                ends.append(b * row[column[prefix.label]])
                prefix.slot = slot
            floor = max(map(add, stays, ends)) * narrowest
            news = []
            for prefix, a, b in beam:
                last, both, factors, children = prefix.label, a + b, prefix.factors, prefix.children
                for label, prob in labels:
                    # a label is repeated only after a blank
                    gain = (a if label == last else both) * prob * factors[label]
                    child = children.get(label) if children else None
                    if child is not None and child.slot >= 0:
                        ends[child.slot] += gain
                    elif gain > floor:
                        news.append((gain, prefix, label, -1.0))
            ranked = []
            for (prefix, _, _), a, b in zip(beam, stays, ends, strict=True):
                prefix.slot = -1
                ranked.append((a + b, prefix, a, b))
            ranked += news
            ranked.sort(key=itemgetter(0), reverse=True)
            most = ranked[0][0]
            if most == 0:
                raise ValueError(UNEXPLAINED)
            floor, beam = most * narrowest, []
            for total, prefix, x, b in ranked[:width]:
                if total < floor:
                    break
                beam.append((prefix, x, b) if b >= 0 else (self._extend(prefix, x), 0.0, total))
            if not 1e-100 < most < 1e100:
                beam, scale = scaled_up(beam, scale)
        return [item for item in beam if item[1] + item[2] > 0], scale

    def _candidates(self, probs: np.ndarray) -> list[list[tuple[int, float]]]:
        """The labels of each frame that may extend a prefix, with their probabilities."""
        rows, labels = np.nonzero(probs[:, 1:] >= self.limits.least)
        likely = probs[rows, labels + 1].tolist()
        candidates: list[list[tuple[int, float]]] = [[] for _ in probs]
        for t, label, prob in zip(rows.tolist(), (labels + 1).tolist(), likely, strict=True):
            candidates[t].append((label, prob))
        for t, found in enumerate(candidates):
            if len(found) > self.limits.top:
                candidates[t] = heapq.nlargest(self.limits.top, found, key=itemgetter(1))
        return candidates

    def _extend(self, prefix: Prefix, label: int) -> Prefix:
        child = prefix.children.get(label)
        if child is None:
            character = self.charset.characters[label - 1]
            state = self.language.step(prefix.state, character) if self.language else None
            child = prefix.children[label] = Prefix(prefix, label, prefix.text + character, state)
            if self.lexicon and character.isalpha():
                child.word = prefix.word + character
                child.known = len(child.word) if child.word.lower() in self.lexicon else 0
            child.factors = self._factors_of(child)
        return child

    def _factors_of(self, prefix: Prefix) -> Sequence[float]:
        """The factor of each next label: language model and bonuses."""
        state, known = key = prefix.state, prefix.known
        factors = self._factors.get(key)
        if factors is None:
            if len(self._factors) >= MAX_CACHED_ROWS:
                self._factors.clear()
            row = np.full(len(self.charset) + 1, math.exp(self.weights.length_bonus))
            if self.language is not None:
                row *= self.language.probs(state)[self._order] ** self.weights.lm_weight
            if known:
                row[self._ends_word] *= math.exp(self.weights.lexicon_bonus * known)
            factors = self._factors[key] = row.data  # a memoryview gives plain floats, fast
        return factors

    def _at_end(self, prefix: Prefix) -> float:
        """What the end of the text and of its last word adds."""
        bonus = self.weights.lexicon_bonus * prefix.known
        if self.language is None:
            return bonus
        return bonus + self.weights.lm_weight * math.log(self.language.probs(prefix.state)[self.language.end])

    def _hypothesis(self, prefix: Prefix, score: float) -> BeamHypothesis:
        labels, known, bonuses, node, next_word = [], 0, self._at_end(prefix), prefix, ""
        while node.parent is not None:
            labels.append(node.label)
            bonuses += math.log(node.parent.factors[node.label])
            if not next_word:  # a word ends here
                known += node.known
            node, next_word = node.parent, node.word
        weights, language = self.weights, 0.0
        if self.language and weights.lm_weight:  # scoring the text once more would take a sixth of the search's time
            language = bonuses - weights.length_bonus * len(labels) - weights.lexicon_bonus * known
            language /= weights.lm_weight
        elif self.language:
            language = self.language.score(prefix.text)
        return BeamHypothesis(labels[::-1], prefix.text, score, score - bonuses, language, known)


def scaled_up(beam: list[tuple[Prefix, float, float]], scale: float) -> tuple[list[tuple[Prefix, float, float]], float]:
    """The same prefixes with probabilities that don't underflow, and the logarithm of what all are divided by. Raises
    ValueError where they have: for a frame without a likely label."""
    most = max(a + b for _, a, b in beam)
    if most == 0:
        raise ValueError(UNEXPLAINED)
    return [(prefix, a / most, b / most) for prefix, a, b in beam], scale + math.log(most)


@contextmanager
def paused_gc() -> Iterator[None]:
    """Without the collector of cycles: a search makes thousands of objects a line, and looking for cycles among them
    took a fifth of its time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def forget(root: Prefix) -> None:
    """Take a tree apart, so that its memory is free without the collector: parents and children hold each other."""
    waiting = [root]
    while waiting:
        prefix = waiting.pop()
        waiting += prefix.children.values()
        prefix.children = {}


class Searches:
    """A search a field, made when it is first asked for: `Searches(charset, models by field).of("Ia")`.

    "" is the general model, for every field without one of its own; no models at all: no language model.
    """

    def __init__(
        self,
        charset: Charset,
        languages: Mapping[str, LanguageModel | InterpolatedLM],
        lexicon: Iterable[str] = (),
        weights: ScoreWeights = ScoreWeights(),
        limits: SearchLimits = SearchLimits(),
    ):
        self.charset, self.languages, self.weights, self.limits = charset, languages, weights, limits
        self.lexicon = frozenset(lexicon)
        self._made: dict[str, BeamSearch] = {}

    def of(self, field: str | None) -> BeamSearch:
        name = field if field in self.languages else ""
        if name not in self._made:
            parts = self.charset, self.languages.get(name), self.lexicon, self.weights, self.limits
            self._made[name] = BeamSearch(*parts)
        return self._made[name]
