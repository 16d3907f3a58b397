"""CTC forced alignment (Viterbi) of a known text with its line, and boxes of characters and words from it.

The best path through the text's states (Graves et al. 2006, Connectionist Temporal Classification, section 4.1, with
max for sum), as Kürzinger et al. 2020 (CTC-Segmentation) use it to cut recordings along transcriptions and to find
transcriptions that are not what was said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import cv2
import numpy as np

from htr.lines.normalise import MAX_LINE_WIDTH_PX, MIN_LINE_WIDTH_PX
from htr.types import LineGeometry

LOG_ZERO = np.float32(-1e30)  # not -inf: the sum with another -inf stays comparable, without warnings
INK_DARKNESS = 96  # of 255: a stroke
MIN_STROKE_PX = 6  # px that make a stroke, at least
MIN_STROKE_SHARE = 0.25  # of a stroke in two words: one that has less of it leaves it to the other
MIN_LOG_PROB = -30.0  # the least log-probability counted: a posterior of exactly 0 must not make every score -inf


@dataclass(frozen=True)
class Alignment:
    """The best path of a text of L labels through T frames."""

    first: np.ndarray  # (L,) the first frame of each label
    last: np.ndarray  # (L,) its last frame, included; the frames between two labels are blank
    log_probs: np.ndarray  # (L,) the largest log-posterior of the label in its frames
    frames: int  # T
    score: float  # log-probability of the path a label (of the text or of greedy's reading, whichever is longer)
    margin: float  # the same less greedy's path: 0 when the text is what greedy reads, lower the worse it fits


@dataclass(frozen=True)
class Box:
    """A character or a word in its line: x from `left` to `right`, in px of the stored image."""

    text: str
    left: float
    right: float
    log_prob: float  # of the character; of a word, its least certain character's
    confidence: float  # 0 to 1, not calibrated: the probability of that; a beam search has a better one of a word


def frames_needed(labels: Sequence[int]) -> int:
    """A frame a label, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def align(log_probs: np.ndarray, labels: Sequence[int]) -> Alignment:
    """(T, S) log-probabilities with the blank at 0 and the text's labels -> their frames.

    Raises ValueError when the text needs more frames than there are, or has a label the model lacks.
    """
    (alignment,) = align_many([log_probs], [labels])
    if alignment is None:
        needed, frames = frames_needed(labels), len(log_probs)
        raise ValueError(f"a text of {len(labels)} characters needs {needed} frames, the line has {frames}")
    return alignment


def align_many(
    log_probs: np.ndarray | Sequence[np.ndarray], texts: Sequence[Sequence[int]], lengths: Sequence[int] | None = None
) -> list[Alignment | None]:
    """N lines at once: (N, T, S), or N arrays (T, S) -> N alignments, None where a text needs too many frames.

    lengths (N,) says how many frames are in use. Raises ValueError for a label the model lacks.
    """
    lengths = [len(line) for line in log_probs] if lengths is None else [int(length) for length in lengths]
    lines = [np.maximum(line[:n], MIN_LOG_PROB) for line, n in zip(log_probs, lengths, strict=True)]
    for line, text in zip(lines, texts, strict=True):
        if any(not 0 < label < line.shape[1] for label in text):
            raise ValueError(f"a label that the model lacks: it has 1 to {line.shape[1] - 1}")
    fits = [i for i, text in enumerate(texts) if max(frames_needed(text), 1) <= lengths[i]]
    results: list[Alignment | None] = [None] * len(lines)
    if fits:
        paths = _viterbi([lines[i] for i in fits], [texts[i] for i in fits])
        for i, path in zip(fits, paths, strict=True):
            results[i] = _alignment(lines[i], texts[i], path)
    return results


def _viterbi(lines: list[np.ndarray], texts: list[Sequence[int]]) -> list[np.ndarray]:
    """N lines (T, S) -> the best path of each: (T,) states of blank, label 1, blank, label 2, ..., blank."""
    frames, states = max(map(len, lines)), 2 * max(map(len, texts)) + 1
    emissions = np.full((frames, len(lines), states), LOG_ZERO, np.float32)
    skips = np.full((len(lines), states), LOG_ZERO, np.float32)  # 0 where a label may follow another without a blank
    for i, (line, text) in enumerate(zip(lines, texts, strict=True)):
        row = np.zeros(2 * len(text) + 1, np.int64)
        row[1::2] = text
        emissions[: len(line), i, : len(row)] = line[:, row]
        skips[i, 3 : len(row) : 2] = np.where(row[3::2] != row[1:-2:2], 0, LOG_ZERO)
    best = np.full((len(lines), states + 2), LOG_ZERO, np.float32)  # two states that are never reached in front
    best[:, 2:4] = emissions[0, :, :2]
    came = np.zeros((frames, len(lines), states), np.uint8)  # how many states back the best way came from
    ends = np.zeros((frames, len(lines), 2), np.float32)  # the score of the last label and of the last blank
    tops = np.array([2 * len(text) + 2 for text in texts])
    rows = np.arange(len(lines))
    for t in range(frames):
        if t:
            stay, step, skip = best[:, 2:], best[:, 1:-1], best[:, :-2] + skips
            longest = np.maximum(stay, step)
            came[t] = np.where(skip > longest, 2, step > stay)
            best[:, 2:] = np.maximum(np.maximum(longest, skip) + emissions[t], LOG_ZERO)
        ends[t] = np.stack((best[rows, tops - 1], best[rows, tops]), axis=1)
    paths = []
    for i, line in enumerate(lines):
        path = np.empty(len(line), np.int64)
        end = ends[len(line) - 1, i]
        state = tops[i] - 2 - int(end[0] > end[1])
        for t in range(len(line) - 1, -1, -1):
            path[t] = state
            state -= came[t, i, state]
        paths.append(path)
    return paths


def _alignment(line: np.ndarray, text: Sequence[int], path: np.ndarray) -> Alignment:
    order = np.arange(1, 2 * len(text), 2)
    first, last = np.searchsorted(path, order, "left"), np.searchsorted(path, order, "right") - 1
    emitted = np.where(path % 2, np.array([*text, 0])[path // 2], 0)
    log_probs = [line[a : b + 1, label].max() for a, b, label in zip(first, last, text, strict=True)]
    best = line.argmax(axis=1) if len(line) else np.zeros(0, np.int64)
    read = sum(label != 0 for label, _ in groupby(best.tolist()))
    total, most = (float(line[np.arange(len(line)), labels].sum()) for labels in (emitted, best))
    count = max(len(text), read, 1)
    probs = np.array(log_probs, np.float32)
    return Alignment(first, last, probs, len(line), score=total / count, margin=(total - most) / count)


def character_boxes(
    alignment: Alignment, text: str, shape: tuple[int, int], geometry: LineGeometry, emission_delay: float = 0.0
) -> list[Box]:
    """A box a character of the aligned text, in px of the stored image of this shape (H, W).

    `geometry`: of the model whose frames were aligned.

    CTC's peaks are narrower than the characters: two neighbours meet in the middle of the blanks between them, and the
    outermost ones reach as far beyond their peak as the half of a usual step.
    """
    if len(text) != len(alignment.first):
        raise ValueError(f"a text of {len(text)} characters, an alignment of {len(alignment.first)}")
    if not text:
        return []
    first, last = alignment.first.astype(float), alignment.last + 1.0
    centres = (first + last) / 2
    step = np.median(np.diff(centres)) / 2 if len(text) > 1 else 2.0
    middle = (last[:-1] + first[1:]) / 2
    cuts = np.concatenate(([min(first[0], centres[0] - step)], middle, [max(last[-1], centres[-1] + step)]))
    cuts = np.clip((cuts * geometry.frame - emission_delay) * _scale(shape, geometry.height), 0, shape[1])
    return [
        Box(character, float(left), float(right), float(log_prob), math.exp(log_prob))
        for character, left, right, log_prob in zip(text, cuts[:-1], cuts[1:], alignment.log_probs, strict=True)
    ]


def word_boxes(
    alignment: Alignment,
    text: str,
    shape: tuple[int, int],
    geometry: LineGeometry,
    ink: np.ndarray | None = None,
    emission_delay: float = 0.0,
) -> list[Box]:
    """A box a word (what stands between spaces), in px of the stored image of this shape (H, W).

    With `ink` (what `normalise_line` makes of the image) a word's box is that of its strokes: a stroke belongs to the
    word that has most of it, one that two words have much of is cut between them.
    """
    characters = character_boxes(alignment, text, shape, geometry, emission_delay)
    spans = [list(group) for space, group in groupby(range(len(text)), lambda i: text[i].isspace()) if not space]
    edges = [(characters[span[0]].left, characters[span[-1]].right) for span in spans]
    if ink is not None and edges:
        scale = _scale(shape, geometry.height)
        gaps = [(a[1] / scale, b[0] / scale) for a, b in pairwise(edges)]
        centres = [sum(characters[span[k]].right + characters[span[k]].left for k in (0, -1)) / 4 for span in spans]
        cuts = _lowest_ink(ink, gaps, [centre / scale for centre in centres], geometry.frame)
        found = _strokes(ink, cuts)
        edges = [(a * scale, b * scale) if b > a else edge for (a, b), edge in zip(found, edges, strict=True)]
    least = [min(characters[i].log_prob for i in span) for span in spans]
    return [
        Box(text[span[0] : span[-1] + 1], left, right, log_prob, math.exp(log_prob))
        for span, (left, right), log_prob in zip(spans, edges, least, strict=True)
    ]


def measure_emission_delay(
    alignments: Sequence[Alignment],
    texts: Sequence[str],
    inks: Sequence[np.ndarray],
    geometry: LineGeometry,
    reach: int = 32,
) -> float:
    """The emission delay of CTC's peaks: how far right of the writing they are, in px of what the model sees.

    CTC does not say where within reach of its context a label is emitted, and each model has a delay of its own
    (negative: to the left). Where the aligned spaces should be, there is the least ink (columns of `normalise_line`'s
    images): some hundred lines show it. 0 without any space.
    """
    total, count = np.zeros(2 * reach + 1), 0
    for alignment, text, ink in zip(alignments, texts, inks, strict=True):
        profile = np.pad(ink.mean(axis=0), reach, mode="edge")
        for i, character in enumerate(text):
            if character.isspace() and 0 < i < len(text) - 1:
                centre = int((alignment.first[i] + alignment.last[i] + 1) * geometry.frame / 2)
                around = profile[centre : centre + 2 * reach + 1]
                if len(around) == len(total):
                    total += around / max(float(profile.mean()), 1e-6)
                    count += 1
    if not count:
        return 0.0
    smooth = np.convolve(np.pad(total, 7, mode="edge"), np.bartlett(15), "valid")
    return float(reach - np.flatnonzero(smooth <= smooth.min() * (1 + 1e-6)).mean())  # of an even gap, its middle


def _scale(shape: tuple[int, int], seen: int) -> float:
    """px of the stored image a px of what the model sees, at the height `seen`."""
    height, width = shape
    return width / min(max(round(width * seen / height), MIN_LINE_WIDTH_PX), MAX_LINE_WIDTH_PX)


def _lowest_ink(ink: np.ndarray, gaps: list[tuple[float, float]], centres: list[float], least: float) -> np.ndarray:
    """The column between two words with the least ink around it, rather in the middle of the gap; (words - 1,).

    `least`: px that are looked at on each side of the middle.
    """
    profile = np.convolve(ink.mean(axis=0), np.ones(7) / 7, "same") / max(float(ink.mean()), 1e-6)
    cuts = []
    for (left, right), before, after in zip(gaps, centres[:-1], centres[1:], strict=True):
        middle, half = (left + right) / 2, max((right - left) / 2, least)
        low = max(int(max(before, middle - 2 * half)), 0)
        columns = np.arange(low, max(min(int(min(after, middle + 2 * half)), ink.shape[1] - 1), low) + 1)
        cost = profile[np.minimum(columns, ink.shape[1] - 1)] + 0.5 * np.abs(columns - middle) / half
        cuts.append(columns[cost.argmin()])
    return np.array(cuts)


def _strokes(ink: np.ndarray, cuts: np.ndarray) -> list[tuple[float, float]]:
    """The leftmost and rightmost column, its right edge, of the strokes of each word; (0, 0) without a stroke."""
    words = len(cuts) + 1
    count, labels, stats, _ = cv2.connectedComponentsWithStats((ink > INK_DARKNESS).astype(np.uint8))
    labels[(stats[:, cv2.CC_STAT_AREA] < MIN_STROKE_PX)[labels]] = 0
    y, x = np.nonzero(labels)
    word, stroke = np.searchsorted(cuts, x, side="right"), labels[y, x]
    share = np.bincount(stroke * words + word, minlength=count * words).reshape(count, words)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1)
    much = np.where((share > 0).sum(axis=1) > 2, 0, MIN_STROKE_SHARE)  # a ruling through many words is no word's own
    word = np.where(share[stroke, word] < much[stroke], share.argmax(axis=1)[stroke], word)
    columns = [x[word == k] for k in range(words)]
    return [(float(c.min()), float(c.max() + 1)) if len(c) else (0.0, 0.0) for c in columns]
