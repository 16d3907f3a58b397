"""Augmentation of a line as a model sees it, at named strengths. Keyed by (seed, epoch, sample), so never stored.

    ink = augment(normalise_line(gray, 64), random_for(seed, epoch, sample), LEVELS["strong"])

In the order in which a page comes by them: the line is cut out and written otherwise (one warp), its pen and ink, what
else is on the form, its paper, the scanner, and at last spans that are masked for the reader's own good.
"""

from dataclasses import dataclass, fields

import numpy as np

from htr.lines import distort
from htr.lines.normalise import MIN_LINE_WIDTH_PX

RANGE_OFF = (0.0, 0.0)
GEOMETRY = ("slant", "stretch", "loose", "tight", "margin", "turn", "drift", "elastic")
# what would leave nothing to read, or make letters of stains; the first of each is kept
NEVER_WITH = {"bilevel": ("faint", "uneven", "texture"), "faint": ("uneven",)}


@dataclass(frozen=True)
class Strength:
    """How strong each distortion is: its probability for a line, and its greatest amount; the amount of each line is
    drawn evenly up to that.

    Lengths are in pixels of a line that is 64 high, tones in gray levels of 255. What is not given is off.
    """

    slant: tuple[float, float] = RANGE_OFF  # tangent, either way; in place of deslanting
    stretch: tuple[float, float] = RANGE_OFF  # of the width, either way: batches are made of lines of like width
    loose: tuple[float, float] = (
        RANGE_OFF  # px that the line was cut too high, above and below: its letters get smaller
    )
    tight: tuple[float, float] = RANGE_OFF  # px of it that were cut off above or below
    margin: tuple[float, float] = RANGE_OFF  # px of paper to the left and right
    turn: tuple[float, float] = RANGE_OFF  # degrees, either way
    drift: tuple[float, float] = (
        RANGE_OFF  # px that the baseline wanders either way; letters get wider and narrower with it
    )
    elastic: tuple[float, float] = RANGE_OFF  # px, either way; a letter is never folded (at most 4)
    thickness: tuple[float, float] = RANGE_OFF  # of a pixel on each side of a stroke, more or less (at most 1)
    uneven: tuple[float, float] = RANGE_OFF  # share of the ink that is missing in places
    contrast: tuple[float, float] = RANGE_OFF  # logarithm of the gamma, either way
    faint: tuple[float, float] = RANGE_OFF  # share of the ink that is missing everywhere
    neighbours: tuple[float, float] = RANGE_OFF  # px that descenders and ascenders of other lines reach in
    rulings: tuple[float, float] = RANGE_OFF  # tone of rulings, box edges and squares, solid or dotted
    bleed: tuple[float, float] = RANGE_OFF  # share of the ink that shines through from the back
    texture: tuple[float, float] = RANGE_OFF  # tone of stains and shadows
    grain: tuple[float, float] = RANGE_OFF  # tone of noise
    blur: tuple[float, float] = RANGE_OFF  # sigma, px
    bilevel: tuple[float, float] = RANGE_OFF  # times a pixel: how coarse a scan in black and white is (at least 1)
    jpeg: tuple[float, float] = RANGE_OFF  # 100 less the quality
    masked: tuple[float, float] = RANGE_OFF  # share of the width (SpecAugment, Park et al. 2019; in time alone)


LEVELS = {
    "none": Strength(),
    "light": Strength(
        slant=(0.7, 0.15), stretch=(0.7, 0.06), loose=(0.3, 5), tight=(0.2, 2), margin=(0.4, 10), turn=(0.5, 0.4),
        drift=(0.3, 1.5), elastic=(0.2, 1.2), thickness=(0.4, 0.5), contrast=(0.4, 0.3), faint=(0.2, 0.3),
        grain=(0.2, 20), blur=(0.1, 0.8), masked=(0.2, 0.04),
    ),
    "medium": Strength(
        slant=(0.8, 0.32), stretch=(0.8, 0.1), loose=(0.4, 10), tight=(0.25, 4), margin=(0.5, 24), turn=(0.7, 0.8),
        drift=(0.5, 3), elastic=(0.4, 2), thickness=(0.5, 0.8), uneven=(0.2, 0.5), contrast=(0.4, 0.5),
        faint=(0.3, 0.5), neighbours=(0.25, 12), rulings=(0.2, 200), bleed=(0.1, 0.2), texture=(0.15, 40),
        grain=(0.3, 40), blur=(0.15, 1.1), bilevel=(0.12, 1.25), jpeg=(0.12, 80), masked=(0.35, 0.06),
    ),
    "strong": Strength(
        slant=(0.9, 0.45), stretch=(0.9, 0.1), loose=(0.5, 14), tight=(0.35, 6), margin=(0.5, 32), turn=(0.8, 1.2),
        drift=(0.7, 4), elastic=(0.6, 2.8), thickness=(0.7, 1), uneven=(0.35, 0.6), contrast=(0.5, 0.6),
        faint=(0.45, 0.5), neighbours=(0.4, 16), rulings=(0.35, 230), bleed=(0.2, 0.3), texture=(0.3, 60),
        grain=(0.4, 60), blur=(0.25, 1.3), bilevel=(0.2, 1.5), jpeg=(0.2, 88), masked=(0.5, 0.08),
    ),
}  # fmt: skip


def random_for(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone, such as (seed, epoch, sample)."""
    numbers = [part if isinstance(part, int) else int.from_bytes(part.encode(), "big") for part in key]
    return np.random.default_rng(numbers)


def augment(ink: np.ndarray, rng: np.random.Generator, strength: Strength = LEVELS["medium"]) -> np.ndarray:
    """(H, W) uint8, 0 paper to 255 ink -> a new line of the same height, at least 16 wide.

    At most `masked` of the width is hidden; a blank line gets noise, rulings and neighbours' strokes, but no text.
    Raises ValueError for an image that is not such a line.
    """
    if ink.ndim != 2 or ink.dtype != np.uint8 or not ink.size:
        raise ValueError(f"a line to augment is (H, W) uint8, not {ink.shape} {ink.dtype}")
    drawn = {}
    for field, chosen in zip(fields(strength), rng.random(len(fields(strength))), strict=True):
        chance, most = getattr(strength, field.name)
        if chosen < chance:
            drawn[field.name] = most
    for name, others in NEVER_WITH.items():
        if name in drawn:
            drawn = {other: most for other, most in drawn.items() if other not in others}
    geometry = {name: drawn.pop(name) for name in GEOMETRY if name in drawn}
    out = distort.warp(ink, rng, **geometry) if geometry or ink.shape[1] < MIN_LINE_WIDTH_PX else ink.copy()
    for name, most in drawn.items():
        out = getattr(distort, name)(out, rng, most)
    return out
