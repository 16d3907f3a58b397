"""Rows of writing in a small upright binary image, and the row to which each piece of ink belongs."""

from itertools import pairwise

import cv2
import numpy as np

# of the densest row's edges, what rows of small letters have; of their number, rows of ascenders and of descenders
MIN_TEXT_EDGES, MAX_LETTER_REACH = 0.55, 1.5


def rows_to_lines(
    binary: np.ndarray,
    labels: np.ndarray,
    stats: np.ndarray,
    centres: np.ndarray,
    *,
    inside: tuple[float, float],
    fine: float,
) -> tuple[np.ndarray, int]:
    """The line of each pixel, (h, w) uint8 from 1 at the top and 0 for paper and strays, and how many lines there are.

    `labels, stats, centres`: the image's connected components. `inside`: first and last row of the field proper.
    `fine`: pixels of a pitch.
    """
    tall = tallness(stats[1:], fine)
    rows = rows_of_text(binary, tall)
    lines, mapped = assign(labels, stats, centres, rows, tall)
    # what is far from all rows and no speck is a row of its own
    far = (lines == 0) & (stats[:, 4] > 0.06 * tall * tall) & (stats[:, 2:4].max(axis=1) > 0.4 * tall)
    far &= (centres[:, 1] > inside[0]) & (centres[:, 1] < inside[1])
    far[0] = False
    more = len(rows)
    for row in centres[far, 1].astype(int).tolist():
        if min(abs(row - other) for other in rows) > 0.6 * tall and len(rows) < 200:
            rows = sorted([*rows, row])
    if len(rows) > more:
        lines, mapped = assign(labels, stats, centres, rows, tall)
    while (false := fragment(mapped, rows, tall)) is not None:
        rows.pop(false)
        lines, mapped = assign(labels, stats, centres, rows, tall)
    return mapped, len(rows)


def tallness(stats: np.ndarray, fine: float) -> float:
    """The usual height of a word: the median height of components by area."""
    order = np.argsort(stats[:, 3])
    mass = np.cumsum(stats[order, 4])
    middle = stats[order[np.searchsorted(mass, 0.5 * mass[-1])], 3]
    return float(np.clip(middle, 0.25 * fine, 0.85 * fine))


def rows_of_text(binary: np.ndarray, tall: float) -> list[int]:
    """Rows about which there is a length of text: edges as dense as usual in this image."""
    height, width = binary.shape
    step = max(round(tall / 4), 3)
    edges = 255 * cv2.bitwise_xor(binary[:, 1:], binary[:, :-1])
    columns = max((width - 1) // step, 1)
    coarse = cv2.resize(edges[:, : columns * step], (columns, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    density = cv2.GaussianBlur(coarse, (0, 0), sigmaX=2, sigmaY=max(0.12 * tall, 0.8), borderType=cv2.BORDER_CONSTANT)
    peaks = density.max(axis=0)
    peaks = np.sort(peaks[peaks >= 0.1 * peaks.max()])
    usual = max(float(peaks[int(0.7 * (len(peaks) - 1))]), 1e-6)
    length = np.clip((density / usual - 0.3) / 0.4, 0, 1).sum(axis=1) * step / tall
    return peaks_of(length, tall)


def rows_of_letters(mine: np.ndarray) -> tuple[int, int]:
    """The ink (h, w) uint8 of one line, 255 and 0, in which something taller than writing stands -> the first row of
    the writing and the one after the last.

    Small letters are where the strokes follow each other densely along x, whatever a stamp or a fold, which cover a
    part of the columns, have above and below.
    """
    edges = cv2.reduce(cv2.bitwise_xor(mine[:, 1:], mine[:, :-1]), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32F)
    edges = cv2.blur(edges, (1, 3)).ravel()
    peak = int(edges.argmax())
    sparse = np.flatnonzero(edges < MIN_TEXT_EDGES * edges[peak])
    first = int(sparse[sparse < peak].max(initial=-1)) + 1
    last = int(sparse[sparse > peak].min(initial=len(edges))) - 1
    reach = round(MAX_LETTER_REACH * (last - first + 1))
    _, top, _, height = cv2.boundingRect(mine)
    return max(top, first - reach), min(top + height, last + reach + 1)


def peaks_of(length: np.ndarray, tall: float) -> list[int]:
    """Peaks that are a letter long at least and parted by valleys, so far from each other as lines are."""
    rising = np.r_[True, length[1:] > length[:-1]] & np.r_[length[:-1] >= length[1:], True]
    rows = np.flatnonzero(rising & (length > 0.3)).tolist() or [int(length.argmax())]
    while len(rows) > 1:
        doubt = []
        for a, b in pairwise(rows):
            low, distance = min(length[a], length[b]), (b - a) / tall
            near = distance < 0.6 or (low < 0.8 and distance < 1.2)
            doubt.append(max(length[a : b + 1].min() / low / 0.65, 1.01 if near else 0))
        worst = int(np.argmax(doubt))
        if doubt[worst] < 1:
            break
        a, b = rows[worst], rows[worst + 1]
        rows.remove(a if length[a] < length[b] else b)
    return rows


def assign(
    labels: np.ndarray, stats: np.ndarray, centres: np.ndarray, rows: list[int], tall: float
) -> tuple[np.ndarray, np.ndarray]:
    """The line of each component, 0 for none, and of each pixel: components on several rows are cut."""
    at = np.asarray(rows, float)
    x, y, w, h, area = stats.T
    top, bottom = y.astype(float), y + h - 1.0
    away = np.maximum(np.maximum(top[:, None] - at, at - bottom[:, None]), 0)
    covers = away == 0
    covers[0] = False
    large = area > 0.1 * tall * tall
    solid = (away < 0.2 * tall) & ((covers.sum(axis=1) <= 1) & large)[:, None]
    solid[0] = False
    anchor = solid & (w > 0.8 * tall)[:, None]
    cost = away + 0.01 * np.abs(centres[:, 1:2] - at)
    for line in range(len(rows)):  # accents and loops belong where there is a word beside them
        words = solid[:, line].nonzero()[0]
        if len(words):
            gap = np.maximum(x[words] - (x + w)[:, None], x[:, None] - (x + w)[words])
            gap[words, np.arange(len(words))] = 10**6
            gap = gap.min(axis=1) % 10**6 if len(words) == 1 else gap.min(axis=1)
            gap[anchor[:, line]] = 0
            cost[:, line] += 0.4 * np.clip(gap - 0.5 * tall, 0, 1.5 * tall)
    lines = cost.argmin(axis=1) + 1
    stray = (cost.min(axis=1) > 0.75 * tall) & ~solid.any(axis=1) & ~large
    lines[stray | (away.min(axis=1) > tall)] = 0
    lines[0] = 0
    mapped = lines.astype(np.uint8)[labels]
    for c in np.flatnonzero(covers.sum(axis=1) > 1):
        left, first, wide, high = stats[c, :4]
        window = np.s_[first : first + high, left : left + wide]
        share_out(mapped[window], labels[window] == c, at - first, tall)
    return lines, mapped


def share_out(mapped: np.ndarray, mine: np.ndarray, rows: np.ndarray, tall: float) -> None:
    """Give a component's pixels `mine` to the lines on whose rows it lies; if there are several, it is cut between them
    along a seam. In place, in `mapped`."""
    profile = np.r_[0, np.cumsum(mine.sum(axis=1))]
    reach = np.clip(np.stack([rows - 0.2 * tall, rows + 0.2 * tall + 1]), 0, len(mine)).astype(int)
    near = profile[reach[1]] - profile[reach[0]]
    lines = np.flatnonzero(near >= 0.3 * near.max())
    if len(lines) == 1:  # an ascender or a descender that reaches into another line
        mapped[mine] = lines[0] + 1
        return
    owner = np.full(mine.shape, lines[0] + 1, np.uint8)
    for upper, lower in pairwise(lines):
        start, end = (int(np.clip(rows[line], 0, len(mine) - 1)) for line in (upper, lower))
        cut = seam(mine[start : end + 1]) + start
        owner[np.arange(len(mine))[:, None] > cut] = lower + 1
    mapped[mine] = owner[mine]


def seam(between: np.ndarray) -> np.ndarray:
    """(columns,) the row at each column of a path from left to right that crosses as little ink as possible, and runs
    in the middle where nothing is written."""
    height, width = between.shape
    off_middle = np.abs(np.arange(height) - (height - 1) / 2) / max(height, 1)
    cost = between.T.astype(np.float32) * 2 + off_middle.astype(np.float32)
    total = cost.copy()
    for column in range(1, width):
        before = total[column - 1]
        best = before.copy()
        np.minimum(best[1:], before[:-1], out=best[1:])
        np.minimum(best[:-1], before[1:], out=best[:-1])
        total[column] += best
    path = np.empty(width, int)
    path[-1] = total[-1].argmin()
    for column in range(width - 1, 0, -1):
        low = max(path[column] - 1, 0)
        path[column - 1] = low + total[column - 1, low : path[column] + 2].argmin()
    return path


def fragment(mapped: np.ndarray, rows: list[int], tall: float) -> int | None:
    """A row that is no line but accents, loops or halves of letters of the row beside it; None if there is none."""
    if len(rows) < 2:
        return None
    for i, row in enumerate(rows):
        mine = np.where(mapped == i + 1, np.uint8(1), np.uint8(0))
        mass = cv2.countNonZero(mine)
        if mass < 0.15 * tall * tall:
            return i
        first, _, width, _ = cv2.boundingRect(mine)
        for j in (i - 1, i + 1):
            if not 0 <= j < len(rows) or abs(rows[j] - row) >= 1.9 * tall:
                continue
            distance = abs(rows[j] - row) / tall
            other = int(np.count_nonzero(mapped[:, first : first + width] == j + 1))
            narrow = width <= tall and other and (distance < 0.9 or (distance < 1 and mass < 0.4 * tall * tall))
            if mass < np.interp(distance, [0.9, 1.3, 1.9], [0.65, 0.45, 0.3]) * other or narrow:
                return i
    return None
