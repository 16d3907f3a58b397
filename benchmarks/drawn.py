"""Semi-real fields for benchmarks/lines.py: real ink on drawn fields of a form, and the truth of every line."""

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from htr.lines.segmentation import flatten_background

SQUARED = ("peraire", "celestine")  # squares of the paper would count as ink
WIDTH, MARGIN = 1400, 0.5  # of a field in pixels; around it, in pitches


@dataclass
class Drawn:
    """A composed field: what find_lines takes, and the truth."""

    gray: np.ndarray  # (H, W) uint8, as scanned
    printed: np.ndarray  # (H, W) uint8, where the template prints
    box: tuple[int, int, int, int]
    pitch: float
    lines: list[tuple[int, int, int, int]]  # x, y, w, h of each line's ink
    ink: np.ndarray  # (H, W) float32, what the writing lets through: 1 paper, 0 black
    form: np.ndarray  # (H, W) float32, the same of the print as it lies on the scan


def load_ink(path: Path, *, masked: bool) -> np.ndarray | None:
    """A crop of a line -> (h, w) float32, 1 paper to 0 ink, without what reaches in from other lines; None if faint.

    `masked`: the crop follows the line's polygon, others' ink is white already.
    """
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if gray is None or gray.shape[1] < 24:
        return None
    ratio = flatten_background(gray).astype(np.float32) / 255
    paper, dark = np.percentile(ratio, [60, 3])
    if paper - dark < 0.15:
        return None
    ratio = np.clip((ratio - dark) / (0.93 * paper - dark), 0, 1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((ratio < 0.75).astype(np.uint8), connectivity=8)
    height, width = gray.shape
    x, y, w, h, area = stats.T
    if masked:
        rim = (h < 0.14 * height) & ((y <= 1) | (y + h >= height - 1))
    else:
        rim = (h < 0.3 * height) & (np.abs(y + h / 2 - height / 2) > 0.3 * height)
    rim |= ((x <= 1) | (x + w >= width - 1)) & (w < 0.35 * height) & (h > 0.5 * height)  # the rule of a table
    foreign = rim | (area < 8)
    if ((w[1:] > 6 * h[1:]) & (w[1:] > 2 * height)).any():  # words that hang on a ruling of the paper
        return None
    foreign[0] = False
    kept = (labels > 0) & ~foreign[labels]
    if kept.any(axis=0).mean() < 0.35:  # faint: most of it was lost as paper
        return None
    ratio[cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0] = 1
    columns, rows = kept.any(axis=0).nonzero()[0], kept.any(axis=1).nonzero()[0]
    return ratio[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]


def first_words(ink: np.ndarray, words: int) -> np.ndarray:
    """The start of a line, up to a gap as wide as between words."""
    empty = (ink > 0.8).all(axis=0).astype(np.uint8)
    gap = max(ink.shape[0] // 4, 3)
    gaps = cv2.erode(empty[None], np.ones((1, gap), np.uint8), borderValue=1)[0]
    starts = np.flatnonzero(np.diff(gaps.astype(int)) == 1)
    starts = starts[starts > 8]
    return ink if len(starts) < words else ink[:, : starts[words - 1]]


class Composer:
    """Draws fields with the ink of some rows; every choice from one seed."""

    def __init__(self, folder: Path, split: str, seed: int) -> None:
        with (folder / "lines.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if not row["flags"] and row["collection"] not in SQUARED]
        wanted = split.split(",")
        self.folder, self.hands = folder, {}
        self.rows = [row for row in rows if row["split"] in wanted]
        for row in self.rows:
            self.hands.setdefault(row["writer"] or row["certificate"], []).append(row)
        self.random = np.random.default_rng(seed)

    def hand(self) -> list[dict[str, str]]:
        """The lines of one writer: a field is written by one hand."""
        row = self.rows[self.random.integers(len(self.rows))]
        return self.hands[row["writer"] or row["certificate"]]

    def ink(self, hand: list, *, height: float, widest: float, words: int = 0) -> np.ndarray:
        """A piece of one of the hand's lines, (h, w) float32; of another hand's where these are too faint."""
        for attempt in itertools.count():
            row = (hand if attempt < 8 else self.rows)[self.random.integers(len(hand if attempt < 8 else self.rows))]
            ink = load_ink(self.folder / row["image"], masked=row["collection"] == "copiste")
            if ink is None or ink.shape[0] < 20:
                continue
            if words:
                ink = first_words(ink, words)
            scale = height / 64  # crops are 64 or 72 high: a hand keeps its own size within the line
            ink = cv2.resize(ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else 1)
            if ink.shape[1] > widest:
                columns = (ink[:, : int(widest)] > 0.8).all(axis=0)
                end = columns.nonzero()[0]
                ink = ink[:, : end[-1] + 1 if len(end) and end[-1] > 0.3 * widest else int(widest)]
            dark = ink < 0.6
            tall, wide = dark.any(axis=1).sum(), dark.any(axis=0).sum()
            if min(tall, wide) > 0.25 * height and wide > 0.35 * ink.shape[1] and dark.mean() > 0.02:
                return ink

    def form(self, box: tuple[int, int, int, int], pitch: float, rulings: int, shape: tuple[int, int]) -> np.ndarray:
        """What the blank form prints, (H, W) float32."""
        x, y, w, h = box
        form = np.full(shape, 255, np.uint8)
        self.label = x
        shade, thick = int(self.random.integers(40, 190)), int(self.random.integers(1, 4))
        style = self.random.choice(["solid", "dotted", "none"], p=[0.5, 0.3, 0.2])
        for number in range(1, rulings + 1):
            row = round(y + number * pitch - 0.12 * pitch)
            if style == "solid":
                cv2.line(form, (x, row), (x + w, row), shade, thick)
            elif style == "dotted":
                for column in range(x, x + w, 4 + 2 * thick):
                    cv2.circle(form, (column, row), max(thick // 2, 1), shade, -1)
        if self.random.random() < 0.4:
            cv2.rectangle(form, (x, y), (x + w, y + h), shade, thick)
        if self.random.random() < 0.5:
            word = str(self.random.choice(["a)", "b) due a", "II", "Cause initiale :", "Autres"]))
            cv2.putText(form, word, (x + 8, y + round(0.6 * pitch)), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 60, 2, cv2.LINE_AA)
            self.label = x + 18 * len(word) + 16
        return form

    def field(self, count: int) -> Drawn:
        """A field with `count` lines; 0: a blank one."""
        random = self.random
        pitch = float(random.uniform(80, 110))
        rulings = int(random.choice([1, 2, 4], p=[0.4, 0.35, 0.25])) if count < 3 else int(random.choice([2, 4]))
        margin = round(MARGIN * pitch)
        box = (margin, margin, WIDTH, round(rulings * pitch))
        shape = (box[3] + 2 * margin, WIDTH + 2 * margin)
        form = self.form(box, pitch, rulings, shape)
        printed = np.uint8(255) * (form < 200)
        shift = np.float32([[1, random.uniform(-1e-3, 1e-3), random.uniform(-2, 2)], [0, 1, random.uniform(-1.6, 1.6)]])
        shift[1, 0] = random.uniform(-0.4, 0.4) / WIDTH  # a little turned
        form = cv2.warpAffine(form, shift, shape[::-1], borderValue=255, flags=cv2.INTER_LINEAR)
        ink, lines = self.write(count, box, pitch, rulings, shape) if count else (np.ones(shape, np.float32), [])
        others = self.neighbours(box, pitch, shape)
        for _ in range(random.integers(0, 12)):  # specks
            at = tuple(int(random.integers(0, limit)) for limit in shape[::-1])
            cv2.circle(others, at, int(random.integers(0, 3)), float(random.uniform(0.2, 0.7)), -1)
        print_ratio = form.astype(np.float32) / 255
        scan = self.paper(shape, pitch) * np.minimum(ink, others) * print_ratio
        scan = cv2.GaussianBlur(scan, (0, 0), random.uniform(0.4, 0.8)) + random.normal(0, random.uniform(1, 6), shape)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(55, 92))]
        encoded = cv2.imencode(".jpg", np.clip(scan, 0, 255).astype(np.uint8), quality)[1]
        return Drawn(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), printed, box, pitch, lines, ink, print_ratio)

    def write(self, count, box, pitch, rulings, shape) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
        """Real ink in `count` lines, and the box of each."""
        random = self.random
        x, y, w, h = box
        distance = pitch * random.uniform(0.85, 1.1) if count <= rulings else h / count * random.uniform(1.0, 1.25)
        distance = min(distance, 1.15 * h / max(count - 0.5, 0.9))
        size = distance * random.uniform(0.75, 1.2)  # of a crop of 64: beyond 0.9 descenders meet ascenders
        tone = random.uniform(0.4, 1.0)  # pencil to black ink
        slope = float(np.clip(random.normal(0, 0.6), -1.5, 1.5))
        free = max(h - (count - 1) * distance, 0.5 * distance)
        first = y + free * random.uniform(0.35, 0.65)  # the middle of the first line
        ink, lines, hand = np.ones(shape, np.float32), [], self.hand()
        for number in range(count):
            short = random.random() < 0.3
            words = int(random.integers(1, 3)) if short else 0
            left = self.label + (random.uniform(0, 0.8) if short else random.exponential(0.08)) * w * 0.7
            beyond = shape[1] - 2 if random.random() < 0.1 else x + w - 4
            piece = self.ink(hand, height=size, widest=max(beyond - left, 0.12 * w), words=words)
            piece = 1 - tone * (1 - piece)
            middle = first + number * distance + random.normal(0, 0.05) * distance
            turn = slope + random.normal(0, 0.15)
            layer = paste(piece, shape, left=left, middle=middle, slope=turn)
            ink *= layer
            lines.append(ink_box(layer))
        return ink, [line for line in lines if line is not None]

    def neighbours(self, box, pitch, shape) -> np.ndarray:
        """Descenders of the field above, ascenders of the one below, a word of the next column."""
        random = self.random
        layer = np.ones(shape, np.float32)
        for middle in (box[1] - pitch * random.uniform(0.5, 0.7), box[1] + box[3] + pitch * random.uniform(0.5, 0.7)):
            if random.random() < 0.5:
                piece = self.ink(self.hand(), height=pitch * random.uniform(0.7, 1.0), widest=0.9 * box[2])
                left = box[0] + random.uniform(0, 0.5) * box[2]
                layer *= paste(piece, shape, left=left, middle=middle, slope=random.normal(0, 0.4))
        if random.random() < 0.2:
            piece = self.ink(self.hand(), height=pitch * 0.8, widest=0.5 * box[2])
            left = box[0] + box[2] + random.uniform(0.05, 0.3) * pitch
            layer *= paste(piece, shape, left=left, middle=box[1] + 0.5 * pitch, slope=0)
        return layer

    def paper(self, shape: tuple[int, int], pitch: float) -> np.ndarray:
        """Uneven light, a stain, writing that shines through from the back."""
        random = self.random
        ramp = np.linspace(0, random.uniform(-30, 30), shape[1], dtype=np.float32)
        paper = np.full(shape, random.uniform(205, 248), np.float32) + ramp
        if random.random() < 0.2:
            stain = np.zeros(shape, np.float32)
            at = (int(random.integers(shape[1])), int(random.integers(shape[0])))
            cv2.ellipse(stain, at, (int(random.integers(20, 200)), int(random.integers(10, 60))), 0, 0, 360, 1, -1)
            paper -= random.uniform(5, 30) * cv2.GaussianBlur(stain, (0, 0), random.uniform(4, 15))
        if random.random() < 0.2:
            back = self.ink(self.hand(), height=pitch, widest=0.8 * WIDTH)[:, ::-1]
            left, middle = random.uniform(0, 0.5) * WIDTH, random.uniform(0.2, 0.8) * shape[0]
            back = paste(back, shape, left=left, middle=middle, slope=0)
            paper *= 1 - random.uniform(0.03, 0.12) * (1 - cv2.GaussianBlur(back, (0, 0), 2))
        return paper


def paste(piece: np.ndarray, shape: tuple[int, int], *, left: float, middle: float, slope: float) -> np.ndarray:
    """The piece turned by `slope` degrees about its left end, with its middle there, on paper of `shape`."""
    sine, cosine = np.sin(np.radians(slope)), np.cos(np.radians(slope))
    half = piece.shape[0] / 2
    matrix = np.float32([[cosine, -sine, left + sine * half], [sine, cosine, middle - cosine * half]])
    matrix[1, 2] -= sine * piece.shape[1] / 2  # its middle, not its left end, stays at the height asked for
    return cv2.warpAffine(piece, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=1)


def ink_box(layer: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box that leaves at most 0.3 % of the ink on each side, or 1 % above and below."""
    sides = []
    for axis, share in ((0, 0.003), (1, 0.01)):
        mass = np.cumsum((1 - np.minimum(layer + 0.1, 1)).sum(axis=axis, dtype=np.float64))
        if mass[-1] <= 0:
            return None
        sides.append(np.searchsorted(mass, [share * mass[-1], (1 - share) * mass[-1]]))
    (left, right), (top, bottom) = sides
    return int(left), int(top), int(right - left + 1), int(bottom - top + 1)
