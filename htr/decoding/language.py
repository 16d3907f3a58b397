"""A character n-gram language model: interpolated, modified Kneser-Ney smoothing (Chen & Goodman 1999).

N-grams are counted by numpy's sort, so that a million characters are trained in seconds; a model is one safetensors
file. Each history has a sorted row of its continuations; a beam search asks for the probabilities of all next
characters at once, a numpy row that is cached.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FORMAT = 1
LABEL_BITS = 9  # of a symbol: seven of them fit into an int64
MAX_ORDER = 7
UNKNOWN, START = "\0", "\1"  # in a state: a character that the model lacks; the beginning of a text
MAX_CACHED_ROWS = 50_000  # rows kept before all are forgotten: 40 MB with 100 characters
NEW_SPAN = (0.5, 1.0, 1.5)  # discounts where counts of counts give none, as in KenLM


@dataclass(frozen=True)
class Table:
    """The continuations of all histories of one length, with their probabilities."""

    histories: np.ndarray  # (H,) int64, sorted: packed symbols, the newest in the lowest bits
    offsets: np.ndarray  # (H + 1,) int32 (int64 in older files): where a history's continuations begin
    symbols: np.ndarray  # (K,) int16, the continuations
    probs: np.ndarray  # (K,) float32, discounted
    backoffs: np.ndarray  # (H,) float32, what is left for the shorter history


class LanguageModel:
    """An n-gram model with backoff. Its states are strings: the longest known end of the history."""

    def __init__(self, characters: str, tables: list[Table]):
        self.characters, self.tables = characters, tables
        self.symbols = {character: i for i, character in enumerate(characters, start=1)} | {UNKNOWN: 0}
        self.end = len(characters) + 1
        self.symbols[START] = self.end + 1
        self._states: dict[str, str] = {}
        self._probs: dict[str, np.ndarray] = {}

    @property
    def order(self) -> int:
        return len(self.tables)

    def start(self) -> str:
        return self._known(START)

    def step(self, state: str, character: str) -> str:
        """The state after one more character."""
        return self._known(state + (character if character in self.symbols else UNKNOWN))

    def probs(self, state: str) -> np.ndarray:
        """Probabilities of what comes next: (characters + 2,), 0 an unknown character, the last one the end.

        The row is kept: don't write into it.
        """
        row = self._probs.get(state)
        if row is None:
            if len(self._probs) >= MAX_CACHED_ROWS:
                self._probs.clear()
            shorter = self.probs(self._known(state[1:])) if state else np.full(self.end + 1, 1 / (self.end + 1))
            found = self._find(state)
            if found is None:  # only the model of no text has not even the empty history
                return shorter
            table, i = found
            row = shorter * float(table.backoffs[i])
            span = slice(table.offsets[i], table.offsets[i + 1])
            row[table.symbols[span]] += table.probs[span]
            self._probs[state] = row
        return row

    def score(self, text: str) -> float:
        """Natural log-probability of the text (after NFC) and its end."""
        state, total = self.start(), 0.0
        for character in unicodedata.normalize("NFC", text):
            total += float(np.log(self.probs(state)[self.symbols.get(character, 0)]))
            state = self.step(state, character)
        return total + float(np.log(self.probs(state)[self.end]))

    def _known(self, history: str) -> str:
        """The longest end of the history that has continuations of its own."""
        known = self._states.get(history)
        if known is None:
            known = history[-(self.order - 1) :] if self.order > 1 else ""
            while known and self._find(known) is None:
                known = known[1:]
            if len(self._states) >= 4 * MAX_CACHED_ROWS:
                self._states.clear()
            self._states[history] = known
        return known

    def _find(self, history: str) -> tuple[Table, int] | None:
        key, table, symbols = 0, self.tables[len(history)], self.symbols
        for character in history:
            key = key << LABEL_BITS | symbols[character]
        i = int(table.histories.searchsorted(key))
        return (table, i) if i < len(table.histories) and table.histories[i] == key else None


class InterpolatedLM:
    """Linear interpolation of models over the same characters: of a field's own with the general one, say."""

    def __init__(self, models: list[LanguageModel], weights: list[float]):
        if len({model.characters for model in models}) != 1 or len(models) != len(weights):
            raise ValueError("an interpolation needs models over the same characters, and a weight each")
        self.models, self.weights = models, [weight / sum(weights) for weight in weights]
        self.characters, self.symbols, self.end = models[0].characters, models[0].symbols, models[0].end
        self._steps: dict[tuple[tuple[str, ...], str], tuple[str, ...]] = {}

    def start(self) -> tuple[str, ...]:
        return tuple(model.start() for model in self.models)

    def step(self, state: tuple[str, ...], character: str) -> tuple[str, ...]:
        after = self._steps.get((state, character))
        if after is None:
            if len(self._steps) >= 4 * MAX_CACHED_ROWS:
                self._steps.clear()
            after = tuple(model.step(part, character) for model, part in zip(self.models, state, strict=True))
            self._steps[state, character] = after
        return after

    def probs(self, state: tuple[str, ...]) -> np.ndarray:
        rows = (model.probs(part) for model, part in zip(self.models, state, strict=True))
        return sum(weight * row for weight, row in zip(self.weights, rows, strict=True))

    score = LanguageModel.score


def train_language_model(
    texts: Iterable[str], order: int = 6, characters: str | None = None, least: int = 1
) -> LanguageModel:
    """Texts -> a model of up to `order` characters (1 to 7), over these characters or those of the texts.

    Sequences of three and more characters that occur less than `least` times are dropped (a smaller file). Raises
    ValueError for texts without a character, another order, or more than 509 characters.
    """
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order {order}: a language model here has 1 to {MAX_ORDER}")
    counted = Counter(unicodedata.normalize("NFC", text) for text in texts)
    if not any(counted):
        raise ValueError("no text to train a language model on")
    characters = "".join(sorted(set(characters or "".join(counted)) - {UNKNOWN, START}))
    if len(characters) + 2 >= 1 << LABEL_BITS:
        raise ValueError(f"{len(characters)} characters: a language model here has at most {(1 << LABEL_BITS) - 3}")
    symbols = {character: i for i, character in enumerate(characters, start=1)}
    end = len(characters) + 1
    # all texts in one row: start, symbols, end
    sizes = np.array([len(text) + 2 for text in counted])
    order = min(order, int(sizes.max()))
    stream = np.fromiter(
        (s for text in counted for s in (end + 1, *(symbols.get(c, 0) for c in text), end)), np.int64, sizes.sum()
    )
    position = np.arange(len(stream)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    weights = np.repeat(np.fromiter(counted.values(), np.int64, len(counted)), sizes)
    keys, grams = np.zeros_like(stream), []
    for n in range(1, order + 1):
        keys[n - 1 :] |= stream[: len(stream) - n + 1] << LABEL_BITS * (n - 1)
        valid = position >= max(n - 1, 1)  # the start is never predicted
        grams.append(_count(keys[valid], weights[valid]))
    return LanguageModel(characters, [_table(grams, n, least) for n in range(1, order + 1)])


def _count(keys: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys, sorted, and the sum of the weights of each."""
    order = np.argsort(keys, kind="stable")
    keys, firsts = np.unique(keys[order], return_index=True)
    return keys, np.add.reduceat(weights[order], firsts)


def _table(grams: list[tuple[np.ndarray, np.ndarray]], n: int, least: int) -> Table:
    """The smoothed probabilities of the sequences of n characters, from the counts of those of n and n + 1."""
    keys, raw = grams[n - 1]
    counts = raw
    if n < len(grams):
        # in how many ways a shorter sequence is preceded, not how often it occurs: Kneser-Ney smoothing
        ends, ways = np.unique(grams[n][0] & (1 << LABEL_BITS * n) - 1, return_counts=True)
        counts = raw.copy()  # at the start of a text nothing precedes: these keep how often
        counts[np.searchsorted(keys, ends)] = ways
    histories, offsets = np.unique(keys >> LABEL_BITS, return_index=True)
    totals = np.add.reduceat(counts, offsets)
    sizes = np.diff(np.append(offsets, len(keys)))
    probs = (counts - _discounts(counts)[np.minimum(counts, 3)]) / np.repeat(totals, sizes)
    if n > 2 and least > 1:
        kept = raw >= least
        keys, probs = keys[kept], probs[kept]
        histories, offsets = np.unique(keys >> LABEL_BITS, return_index=True)
    offsets = np.append(offsets, len(keys)).astype(np.int32)
    backoffs = 1 - np.add.reduceat(probs, offsets[:-1]) if len(keys) else np.zeros(0)
    symbols = keys & (1 << LABEL_BITS) - 1
    return Table(histories, offsets, symbols.astype(np.int16), probs.astype(np.float32), backoffs.astype(np.float32))


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discounts of a count of 0, 1, 2, and 3 or more (equation 26 of Chen & Goodman)."""
    n1, n2, n3, n4 = (int((counts == i).sum()) for i in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        share = n1 / (n1 + 2 * n2)
        found = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
        if all(0 < discount < i for i, discount in enumerate(found, start=1)):
            return np.array((0.0, *found))
    return np.array((0.0, *NEW_SPAN))


def train_by_field(
    rows: Iterable[tuple[str, str]], order: int = 6, least: int = 1, enough: int = 1
) -> dict[str, LanguageModel]:
    """(field, text) rows -> a model a field of `enough` texts, and "" the general one, all over the same characters."""
    texts: dict[str, list[str]] = {"": []}
    for field, text in rows:
        texts[""].append(text)
        texts.setdefault(field, []).append(text)
    general = train_language_model(texts[""], order, least=least)
    models = {"": general}
    for field, own in texts.items():
        if field and any(own) and len(own) >= enough:
            models[field] = train_language_model(own, order, general.characters, least)
    return models


def decontaminate(texts: Iterable[str], held_out: Iterable[str], words: int = 8) -> Iterator[str]:
    """The texts that share no sequence of so many words (NFC, lower case) with the held-out ones, dev's and val's."""

    def grams(text: str) -> set[tuple[str, ...]]:
        listed = unicodedata.normalize("NFC", text).lower().split()
        return {tuple(listed[i : i + words]) for i in range(len(listed) - words + 1)}

    taken = set().union(*map(grams, held_out))
    return (text for text in texts if not grams(text) & taken)


def pack_language_models(models: Mapping[str, LanguageModel]) -> bytes:
    """Models by field ("" is the general one) -> the content of one safetensors file."""
    arrays, about = {}, {"format": FORMAT, "models": {}}
    for k, (field, model) in enumerate(models.items()):
        about["models"][field] = {"characters": model.characters, "order": model.order}
        for n, table in enumerate(model.tables):
            arrays |= {f"{k}.{n}.{name}": array for name, array in vars(table).items()}
    return save(arrays, {"about": json.dumps(about, ensure_ascii=False)})


def load_language_models(path: str | Path) -> dict[str, LanguageModel]:
    """The models by field. Raises ValueError for a file that is none, damaged, or of a newer format."""
    try:
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["about"])
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, this code reads {FORMAT}")
            models = {}
            for k, (field, config) in enumerate(about["models"].items()):
                names = Table.__dataclass_fields__
                tables = [
                    Table(**{name: file.get_tensor(f"{k}.{n}.{name}") for name in names})
                    for n in range(config["order"])
                ]
                _check(tables, len(config["characters"]))
                models[field] = LanguageModel(config["characters"], tables)
            return models
    except FileNotFoundError:
        raise ValueError(f"{path}: no language model here") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a language model that can be read ({type(error).__name__}: {error})") from None


def _check(tables: list[Table], characters: int) -> None:
    for table in tables:
        spans = np.diff(table.offsets)
        if len(spans) != len(table.histories) or len(table.backoffs) != len(spans) or (spans < 0).any():
            raise ValueError("the histories do not fit their continuations")
        if len(table.probs) != len(table.symbols) or table.offsets[-1] != len(table.symbols):
            raise ValueError("the continuations do not fit their probabilities")
        if len(table.symbols) and not 0 <= table.symbols.min() <= table.symbols.max() <= characters + 1:
            raise ValueError("a symbol beyond the characters")
