"""Tuning of a decoding: texts of its language models, words of its lexicon, weights of the search and of rescoring."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from htr.charset import Charset
from htr.decoding.beam import BeamHypothesis, ScoreWeights, Searches, SearchLimits
from htr.decoding.decoder import DEFAULT_LIMITS, rescore
from htr.decoding.language import InterpolatedLM, LanguageModel, decontaminate
from htr.metrics.error_rates import Errors, compare
from htr.metrics.words import unseen

TEXTS_PER_BLANK = 10  # one empty text is added for so many: else the language model would invent words on blank lines
MIN_WORD_TEXTS = 2  # texts that have a word of the lexicon: one alone may be a slip of the pen
GRID = {
    "lm_weight": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3),
    "length_bonus": (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    "lexicon_bonus": (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0),
}
RESCORE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)


def allowed(rows: Iterable[tuple[str, str]], held_out: Iterable[str]) -> list[tuple[str, str]]:
    """(field, text) rows without those that share eight words in a row with the held-out texts."""
    rows = list(rows)
    clean = set(decontaminate({text for _, text in rows}, held_out))
    return [(field, text) for field, text in rows if text in clean]


def with_blanks(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The rows and, of each field, empty ones."""
    counts = Counter(field for field, _ in rows)
    return [*rows, *((field, "") for field, count in counts.items() for _ in range(-(-count // TEXTS_PER_BLANK)))]


def letters(text: str) -> list[str]:
    """The runs of letters of a text, in lower case: what a lexicon knows as words."""
    text = unicodedata.normalize("NFC", text).lower()
    return "".join(c if c.isalpha() else " " for c in text).split()


def frequent_words(texts: Iterable[str]) -> set[str]:
    """The words of two letters and more that several of the texts have."""
    counts = Counter(word for text in texts for word in set(letters(text)) if len(word) > 1)
    return {word for word, count in counts.items() if count >= MIN_WORD_TEXTS}


def tune_rescore_weight(
    found: Sequence[list[BeamHypothesis]], scores: Sequence[list[float]], references: Sequence[str]
) -> tuple[float, float]:
    """The n best of each line and a second model's log-probabilities of them -> the best weight, and its CER."""

    def cer(weight: float) -> float:
        texts = (rescore(n_best, own, weight)[0].text for n_best, own in zip(found, scores, strict=True))
        return sum(map(compare, references, texts), Errors()).cer

    tried = {weight: cer(weight) for weight in RESCORE_WEIGHTS}
    best = min(tried, key=tried.__getitem__)
    return best, tried[best]


def judge(references: Sequence[str], texts: Sequence[str], known: Set[str]) -> dict[str, float | int | None]:
    """CER, WER, and of the words that are not among the known ones how many there are and which share is misread."""
    errors = sum(map(compare, references, texts), Errors())
    counts = [unseen(reference, text, known) for reference, text in zip(references, texts, strict=True)]
    words, missed = (sum(count[i] for count in counts) for i in (0, 1))
    share = missed / words if words else None
    return {"cer": errors.cer, "wer": errors.wer, "unseen_words": words, "unseen_misread": share}


def tune(
    lines: Sequence[np.ndarray],
    references: Sequence[str],
    charset: Charset,
    language: LanguageModel | InterpolatedLM | Mapping[str, LanguageModel | InterpolatedLM] | None,
    lexicon: Iterable[str] = (),
    limits: SearchLimits = DEFAULT_LIMITS,
    fields: Sequence[str | None] | None = None,
    after: Callable[[float], None] = lambda cer: None,
) -> tuple[ScoreWeights, float]:
    """The weights with the lowest CER on lines (T, labels + 1) that no model was trained on, and that CER.

    One weight after the other, twice over: some 30 searches of every line, `after` each of them. With language models
    by field, `fields` says which line is of which.
    """
    lexicon = frozenset(lexicon)
    languages = language if isinstance(language, Mapping) else {"": language} if language else {}
    fields = fields or [None] * len(lines)
    tried: dict[ScoreWeights, float] = {}

    def cer(weights: ScoreWeights) -> float:
        if weights not in tried:
            searches = Searches(charset, languages, lexicon, weights, limits)
            found = (searches.of(field).search(line)[0].text for field, line in zip(fields, lines, strict=True))
            tried[weights] = sum(map(compare, references, found), Errors()).cer
            after(tried[weights])
        return tried[weights]

    best = ScoreWeights(0.6 if languages else 0.0, 0.5 if languages else 0.0, 0.0)
    for _ in range(2):
        for name in [*(["lm_weight"] if languages else []), "length_bonus", *(["lexicon_bonus"] if lexicon else [])]:
            best = min((best, *(replace(best, **{name: value}) for value in GRID[name])), key=cer)
    return best, cer(best)
