"""Text segmentation: how well each word fits its frames, and the text of a field cut at the ends of its lines."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np

from htr.decoding.align import MIN_LOG_PROB, Alignment, align_many

WORD_ENDS_TRIED = 3  # word ends around the end of a line that are tried
MIN_WRONG_FOUND = 0.9  # of wrong texts that a threshold finds at least
OUTLIER_SHARE = 0.005  # of right texts that fit so badly that a gap is measured without them
REJECTED_COST = 5.0  # a right text rejected costs as much as so many wrong ones kept


def path_of(alignment: Alignment, labels: Sequence[int]) -> np.ndarray:
    """The best path itself: (T,) the label of each frame, 0 for the blank."""
    path = np.zeros(alignment.frames, np.int64)
    for first, last, label in zip(alignment.first, alignment.last, labels, strict=True):
        path[first : last + 1] = label
    return path


def fit(log_probs: np.ndarray, path: np.ndarray) -> tuple[float, float]:
    """(T, S) log-probabilities, (T,) labels -> score and margin of these frames, as those of Alignment."""
    line = np.maximum(log_probs, MIN_LOG_PROB)
    best = line.argmax(axis=1)
    total, most = (float(line[np.arange(len(line)), labels].sum()) for labels in (path, best))
    count = max(spelled(path), spelled(best), 1)
    return total / count, (total - most) / count


def spelled(path: np.ndarray) -> int:
    """How many labels a path writes."""
    return sum(label != 0 for label, _ in groupby(path.tolist()))


def word_fits(
    log_probs: np.ndarray, alignment: Alignment, text: str, labels: Sequence[int]
) -> list[tuple[float, float]]:
    """(score, margin) of each word of an aligned text with single spaces, in the order of align.word_boxes: in the
    frames from the middle of the space before it to the middle of the space after it.
    """
    path, ends = path_of(alignment, labels), [0]
    ends += [int(alignment.first[i] + alignment.last[i] + 1) // 2 for i, c in enumerate(text) if c.isspace()]
    ends.append(alignment.frames)
    return [fit(log_probs[begin:end], path[begin:end]) for begin, end in pairwise(ends)]


def cut_text(lines: Sequence[np.ndarray], words: Sequence[Sequence[int]], space: int) -> list[tuple[int, int]] | None:
    """The log-probabilities (T, S) of a field's lines in reading order, and its text as labels, a list a word ->
    for each line its words, from this one to before that one; no word is left out, a line may have none.

    The text is aligned with all lines as if they were one; each end of a line is a cut at one of the nearest word
    ends, those cuts together that make the sum of the lines' own best paths most likely. None where the text needs more
    frames than all lines have, or no cut gives every line few enough.
    """
    if not words:
        return [(0, 0)] * len(lines)
    whole = [label for word in words for label in (space, *word)][1:]
    (alignment,) = align_many([np.concatenate(lines)], [whole])
    if alignment is None:
        return None
    spaces = np.cumsum([len(word) + 1 for word in words])[:-1] - 1  # their places in the whole text
    between = (alignment.first[spaces] + alignment.last[spaces] + 1) / 2
    ends = np.concatenate([[0.0], between, [float(alignment.frames)]])  # where a cut after so many words would be
    seams = np.cumsum([len(line) for line in lines])[:-1]
    tried = [
        [0],
        *(sorted(np.argsort(np.abs(ends - seam), kind="stable")[:WORD_ENDS_TRIED].tolist()) for seam in seams),
    ]
    tried.append([len(words)])
    best: dict[int, tuple[float, list[int]]] = {0: (0.0, [0])}
    for line, before, after in zip(lines, tried[:-1], tried[1:], strict=True):
        spans = [(a, b) for a in before for b in after if a in best and a <= b]
        texts = [[label for word in words[a:b] for label in (space, *word)][1:] for a, b in spans]
        reached: dict[int, tuple[float, list[int]]] = {}
        for (a, b), text, found in zip(spans, texts, align_many([line] * len(spans), texts), strict=True):
            if found is None:
                continue
            clamped = np.maximum(line, MIN_LOG_PROB)
            total = best[a][0] + float(clamped[np.arange(len(line)), path_of(found, text)].sum())
            if b not in reached or total > reached[b][0]:
                reached[b] = (total, [*best[a][1], b])
        best = reached
    if len(words) not in best:
        return None
    cuts = best[len(words)][1]
    return list(pairwise(cuts))


def least_margin(own: np.ndarray, wrong: np.ndarray) -> float | None:
    """The threshold of margins that separates right texts from wrong ones; None without a wrong text.

    `own` (N,): margins of lines with their own texts. `wrong` (M,): with texts of other lines. At least MIN_WRONG_FOUND
    of the wrong texts lie below the threshold. Among such thresholds it has the least cost: an own text below costs
    REJECTED_COST times as much as a wrong one above. Wrong texts among the own ones do not matter: they have the
    margins of wrong texts, and the same cost at every threshold above. Where the margins have a gap there, the
    threshold lies in its middle, since a wrong text may resemble the right one.
    """
    if not len(wrong):
        return None
    own, wrong = np.sort(own), np.sort(wrong)
    tried = np.unique(np.concatenate([[np.quantile(wrong, MIN_WRONG_FOUND)], wrong, np.nextafter(wrong[-1:], np.inf)]))
    tried = tried[tried >= np.quantile(wrong, MIN_WRONG_FOUND)]
    kept = 1 - np.searchsorted(wrong, tried) / len(wrong)
    lost = np.searchsorted(own, tried) / max(len(own), 1)
    least = float(tried[(kept + REJECTED_COST * lost).argmin()])
    right = own[own >= least]
    return (least + float(np.quantile(right, OUTLIER_SHARE))) / 2 if len(right) else least
