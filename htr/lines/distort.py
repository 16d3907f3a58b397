"""Distortions for augmentation of a line of ink (H, W) uint8: each a function of (ink, rng, most) -> new ink.

`most` is explained at its namesake in htr.lines.augment.Strength. Lengths scale with the line's height.
"""

import cv2
import numpy as np

from htr.lines.normalise import MIN_LINE_WIDTH_PX

REFERENCE_HEIGHT_PX = 64  # of a line for which lengths are given
GRID_STEP_PX = 8  # px between the nodes at which a warp is computed; linear between them
LETTER_SPACING_PX, DRIFT_SPACING_PX = 24, 112  # px between independent displacements: of a letter's parts, along a line
MAX_RISE_PX = 6  # px that a turned line may rise or fall at its ends
MIN_ROW_INK = 6  # mean ink of a row that letters reach
MIN_BILEVEL_SCALE = 0.6  # pixels of a scan in black and white, in those that are seen
MIN_BLACK_TONE = 80  # tone that such a scan shows: an empty line's noise stays white
CROSS_KERNEL = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
PENS = (np.ones((1, 3), np.uint8), np.ones((3, 1), np.uint8), CROSS_KERNEL, CROSS_KERNEL)


def warp(
    ink: np.ndarray,
    rng: np.random.Generator,
    slant: float = 0,
    stretch: float = 0,
    loose: float = 0,
    tight: float = 0,
    margin: float = 0,
    turn: float = 0,
    drift: float = 0,
    elastic: float = 0,
) -> np.ndarray:
    """All of a line's geometry in one interpolation; the canvas grows so that no letter leaves it sideways."""
    height, width = ink.shape
    unit = height / REFERENCE_HEIGHT_PX
    slant = rng.uniform(-slant, slant)
    stretch = 1 + rng.uniform(-stretch, stretch)
    lean = abs(slant) * height / 2
    left, right = lean + rng.uniform(0, margin * unit, 2)
    top, bottom = (edge(rng, loose, tight) * unit for _ in range(2))
    wide = max(int(np.ceil(left + stretch * width + right)), MIN_LINE_WIDTH_PX)
    # where each node of the result comes from; one cell more on each side, so that resize interpolates everywhere
    columns, rows = -(-wide // GRID_STEP_PX) + 2, -(-height // GRID_STEP_PX) + 2
    u = np.arange(-1, columns - 1, dtype=np.float32) * GRID_STEP_PX + (GRID_STEP_PX - 1) / 2
    v = np.arange(-1, rows - 1, dtype=np.float32)[:, None] * GRID_STEP_PX + (GRID_STEP_PX - 1) / 2
    source = np.empty((rows, columns, 2), np.float32)
    source[..., 0] = (u - left - slant * (height / 2 - v)) / stretch
    source[..., 1] = v * ((height + top + bottom) / height) - top
    if turn:
        rise = np.tan(np.deg2rad(rng.uniform(-turn, turn))) * width / 2
        source[..., 1] += np.clip(rise, -MAX_RISE_PX * unit, MAX_RISE_PX * unit) * np.linspace(-1, 1, columns)
    if drift:
        source += wander(rng, (1, columns), DRIFT_SPACING_PX * unit, (2 * drift * unit, drift * unit))
    if elastic:
        source += wander(rng, (rows, columns), LETTER_SPACING_PX * unit, (elastic * unit, elastic * unit))
    maps = cv2.resize(source, (columns * GRID_STEP_PX, rows * GRID_STEP_PX), interpolation=cv2.INTER_LINEAR)
    maps = maps[GRID_STEP_PX : GRID_STEP_PX + height, GRID_STEP_PX : GRID_STEP_PX + wide]
    paper = float(np.median(ink[::8, ::8]))
    return cv2.remap(ink, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=paper)


def edge(rng: np.random.Generator, loose: float, tight: float) -> float:
    """How far an edge of the cut lies outside the line (positive) or inside it (negative), in pixels of a line 64
    high."""
    if loose and (not tight or rng.random() < 0.7):
        return rng.uniform(0, loose)
    return -rng.uniform(0, tight)


def wander(rng: np.random.Generator, nodes: tuple[int, int], spacing: float, most: tuple[float, float]) -> np.ndarray:
    """Smooth displacements (rows, columns, 2) of x and y, independent of each other at a distance of `spacing`; none of
    x at the line's ends."""
    rows, columns = (max(round(n * GRID_STEP_PX / spacing), 1) + (n > 1) for n in nodes)
    loosely = rng.uniform(-1, 1, (rows, columns, 2)).astype(np.float32) * np.float32(most)
    loosely[:, [0, -1], 0] = 0  # the first and the last letter stay on the canvas
    return cv2.resize(loosely, nodes[::-1], interpolation=cv2.INTER_CUBIC).reshape(*nodes, 2)


def thickness(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Strokes get thicker or thinner by parts of a pixel, perhaps in one direction more. Thin strokes get fainter, but
    stay."""
    amount = rng.uniform(-most, most)
    pen = PENS[rng.integers(len(PENS))]
    other = cv2.dilate(ink, pen) if amount > 0 else cv2.erode(ink, pen)
    share = amount if amount > 0 else -0.7 * amount
    return cv2.addWeighted(ink, 1 - share, other, share, 0)


def uneven(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Ink of uneven darkness along the line; `most`: the share of it that may go."""
    return cv2.multiply(ink, 255 - field(ink.shape, rng, 255 * most, 20), scale=1 / 255)


def field(shape: tuple[int, int], rng: np.random.Generator, most: float, spacing: float) -> np.ndarray:
    """(H, W) uint8, a smooth random surface from 0 to `most`, whose values are independent at a distance of
    `spacing`."""
    height, width = shape
    spacing *= height / REFERENCE_HEIGHT_PX
    nodes = (int(height / spacing) + 2, int(width / spacing) + 2)
    loosely = rng.integers(0, int(most) + 1, nodes, dtype=np.uint8)
    return cv2.resize(loosely, (width, height), interpolation=cv2.INTER_LINEAR)


def contrast(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """A gamma curve of the tones; `most`: of the logarithm of its exponent, either way."""
    gamma = np.exp(rng.uniform(-most, most))
    return cv2.LUT(ink, np.rint(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8))


def faint(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """All ink lighter; `most`: the share of it that may go."""
    return cv2.convertScaleAbs(ink, alpha=1 - rng.uniform(0, most))


def neighbours(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Other lines' strokes at the top, at the bottom, or both: this line's own from elsewhere in it, or drawn ones."""
    out = ink.copy()
    which = rng.integers(3)
    written = np.flatnonzero(cv2.reduce(ink, 1, cv2.REDUCE_AVG)[:, 0] > MIN_ROW_INK)
    for below in (False, True):
        if which == int(below):
            continue
        depth = int(np.ceil(rng.uniform(0.25, 1) * most * len(ink) / REFERENCE_HEIGHT_PX))
        if len(written) > depth and rng.random() < 0.7:
            first = written[0] if below else written[-1] + 1 - depth
            strip = np.roll(ink[first : first + depth], int(rng.integers(ink.shape[1])), axis=1)
        else:
            strip = strokes((depth, ink.shape[1]), rng)
            strip = strip[::-1] if below else strip
        rim = out[len(out) - depth :] if below else out[:depth]
        np.maximum(rim, strip[: len(rim)], out=rim)
    return out


def strokes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ends of strokes and loops that hang from the upper edge."""
    depth, width = shape
    layer = np.zeros(shape, np.uint8)
    lean, tone = rng.uniform(-0.5, 0.5), int(rng.uniform(120, 255))
    for x, length in zip(rng.uniform(0, width, 1 + width // 160), rng.uniform(0.4, 1, 1 + width // 160), strict=True):
        tip = round(length * depth)
        if rng.random() < 0.5:
            start, end = (round(x), -2), (round(x - lean * tip), tip)
            cv2.line(layer, start, end, tone, int(rng.integers(1, 4)), cv2.LINE_AA)
        else:
            cv2.ellipse(layer, (round(x), -1), (2 + depth // 4, tip), 15 * lean, 0, 360, tone, 2, cv2.LINE_AA)
    return layer


def rulings(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """A ruling or two, edges of a box, or squares; solid or dotted."""
    height, width = ink.shape
    layer = np.zeros_like(ink)
    tone, kind = rng.uniform(0.25, 1) * most, rng.random()
    thick, rise = 1 + int(rng.random() < 0.3), rng.uniform(-0.03, 0.03) * height
    across, upright = [], []
    if kind < 0.5:
        across = [rng.uniform(0.55, 0.97) * height]
        across += [across[0] - rng.uniform(0.5, 0.9) * height] if rng.random() < 0.4 else []
    elif kind < 0.85:
        sides = rng.random(4) < 0.55
        near = rng.uniform(0, 0.12, 4) * height
        across = [y for y, there in zip((near[0], height - 1 - near[1]), sides[:2], strict=True) if there]
        upright = [x for x, there in zip((near[2], width - 1 - near[3]), sides[2:], strict=True) if there]
    else:
        tone, thick, pitch = 0.5 * tone, 1, rng.uniform(0.25, 0.6) * height
        first = rng.uniform(0, pitch, 2)
        across, upright = np.arange(first[0], height, pitch), np.arange(first[1], width, pitch)
    for y in across:
        ends = (0, round(16 * (y - rise))), (16 * width, round(16 * (y + rise)))
        cv2.line(layer, *ends, tone, thick, cv2.LINE_AA, 4)
    for x in upright:
        ends = (round(16 * (x + rise)), 0), (round(16 * (x - rise)), 16 * height)
        cv2.line(layer, *ends, tone, thick, cv2.LINE_AA, 4)
    if rng.random() < 0.35:
        period = int(rng.integers(3, 12))
        layer[:, np.arange(width) % period > period // 2] = 0
    return cv2.max(ink, layer)


def bleed(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Writing of the sheet's other side that shines through: this line mirrored, moved and blurred stands for it."""
    back = cv2.blur(cv2.flip(ink, 1), (3, 3))
    back = np.roll(back, tuple(rng.integers(ink.shape)), axis=(0, 1))
    return cv2.max(ink, cv2.convertScaleAbs(back, alpha=rng.uniform(0, most)))


def texture(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Stains and clouds of the paper, up to `most` gray levels."""
    stains = field(ink.shape, rng, 1.5 * rng.uniform(0.4 * most, most), 28)
    return cv2.add(ink, cv2.subtract(stains, most / 3))


def grain(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Noise of the sensor or, coarser, of the paper, up to `most` gray levels."""
    noise = rng.integers(0, 256, ink.shape, dtype=np.uint8)
    strength = rng.uniform(0, most) / 128
    if rng.random() < 0.5:  # paper's grain is coarser than the sensor's
        noise, strength = cv2.blur(noise, (3, 3)), 2 * strength
    return cv2.addWeighted(ink, 1, noise, strength, -127.5 * strength)


def blur(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Gaussian; `most`: its sigma in pixels of this line."""
    return cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.3, max(most, 0.3)))


def bilevel(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """A black-and-white scan: finer than the line (its edges become gray), or coarser (a fax, whose rows and columns
    differ)."""
    height, width = ink.shape
    coarse = rng.uniform(MIN_BILEVEL_SCALE, most, 2)
    size = (max(round(width / coarse[0]), 1), max(round(height / coarse[1]), 1))
    scan = cv2.resize(ink, size, interpolation=cv2.INTER_LINEAR)
    middle = cv2.threshold(scan, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]  # Otsu 1979
    level = max(rng.uniform(0.7, 1.05) * middle, MIN_BLACK_TONE)
    scan = cv2.threshold(scan, level, 255, cv2.THRESH_BINARY)[1]
    return cv2.resize(scan, (width, height), interpolation=cv2.INTER_LINEAR)


def jpeg(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Compressed once more; `most`: the quality that may be lost, of 100."""
    quality = round(100 - rng.uniform(0.5, 1) * most)
    return cv2.imdecode(cv2.imencode(".jpg", ink, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def masked(ink: np.ndarray, rng: np.random.Generator, most: float) -> np.ndarray:
    """Parts of the line are hidden, each up to a third of its height wide, by paper or the line's mean shade; `most`:
    the share of its width in all."""
    height, width = ink.shape
    out, left = ink.copy(), int(most * width)
    shade = 0 if rng.random() < 0.7 else int(cv2.mean(ink)[0])
    for _ in range(1 + int(rng.integers(1 + width // (4 * height)))):
        span = min(int(rng.uniform(0.05, 0.33) * height), left)
        start = int(rng.integers(width - span + 1))
        out[:, start : start + span] = shade
        left -= span
    return out
