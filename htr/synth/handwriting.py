"""Simulated handwriting: French text as ink, in stroke fonts (Hershey's, with composed accents) or handwriting fonts.

    writer = Writer.make(seed=17, hands=hands())  # or hands(folder of .ttf and .otf files)
    ink = writer.write("Décompensation cardiaque", height=72, rng=np.random.default_rng(0))

Every length here is in x-heights, the height of a small x: unlike the height of a line it does not hang on the text.
"""

import logging
import unicodedata
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from importlib import import_module, metadata
from pathlib import Path

import cv2
import numpy as np
from HersheyFonts import HersheyFonts
from PIL import Image, ImageDraw, ImageFont

from htr.synth.text_generator import ALPHABET

X_HEIGHT = 0.28  # of the nominal line height: leaves room for ascenders (2 x-heights above the x's foot) and descenders
OVERSAMPLING = 2  # pens are drawn at twice the size and sampled down with the bending of the line

ACCENTS = {  # polylines around (0, 0), the middle of their lower edge, y downwards
    "\u0301": [[(-0.1, 0.0), (0.16, -0.38)]],
    "\u0300": [[(-0.16, -0.38), (0.1, 0.0)]],
    "\u0302": [[(-0.25, 0.0), (0.0, -0.3), (0.25, 0.02)]],
    "\u0308": [[(-0.2, -0.15), (-0.18, -0.1)], [(0.2, -0.15), (0.22, -0.1)]],
}
CEDILLA = [[(0.02, 0.0), (-0.05, 0.16), (0.14, 0.24), (0.1, 0.42), (-0.14, 0.44)]]
RING = np.array([(0.25 + 0.22 * np.cos(a), -1.5 - 0.22 * np.sin(a)) for a in np.linspace(1.2, 7.6, 12)])
COMMA = np.array([(0.14, -0.1), (0.16, 0.06), (0.02, 0.34)])  # Hershey's is too short for a broad pen
PAIRS = {"œ": "oe", "Œ": "OE", "æ": "ae", "Æ": "AE"}


@dataclass(frozen=True)
class Glyph:
    """A character of a stroke hand: polylines (n, 2), y downwards from the baseline, and how far the pen moves on."""

    strokes: list[np.ndarray]
    advance: float


@dataclass(frozen=True)
class Hand:
    """A way to form letters: a stroke font (`glyphs`) or a font file (`file`, at `em` font sizes to an x-height).

    `ascent` and `descent`: how far the alphabet reaches above and below the baseline. A joined hand's letters touch.
    """

    name: str
    ascent: float
    descent: float
    joined: bool = True
    glyphs: dict[str, Glyph] = field(default_factory=dict, repr=False)
    file: Path | None = None
    em: float = 0.0

    def lacks(self, text: str) -> list[str]:
        """The characters of the text that this hand cannot write, in order; empty when it can write all."""
        known = self.glyphs.__contains__ if self.file is None else partial(has_glyph, self.file)
        return [c for c in dict.fromkeys(text) if c != " " and not known(c)]


@dataclass(frozen=True)
class Ink:
    """Writing without paper: uint8 (H, W), 0 no ink, 255 full ink; `baseline` is the row on which letters stand."""

    pixels: np.ndarray
    baseline: float


def smooth(points: np.ndarray) -> np.ndarray:
    """(n, 2) -> (2n, 2): corners cut (Chaikin), ends kept; Hershey's letters are coarse polygons."""
    step = np.diff(points, axis=0) / 4
    cut = np.stack([points[:-1] + step, points[1:] - step], axis=1).reshape(-1, 2)
    return np.concatenate([points[:1], cut, points[-1:]])


def compose(glyphs: dict[str, Glyph]) -> None:
    """Add to a stroke font, in place, what Hershey did not draw: accents, ligatures, degree, typographic marks."""
    for code in range(0xC0, 0x180):
        parts = unicodedata.normalize("NFD", chr(code))
        if len(parts) != 2 or parts[0] not in glyphs or not (parts[1] in ACCENTS or parts[1] == "\u0327"):
            continue
        base = glyphs[parts[0]]
        strokes = [s for s in base.strokes if parts[0] not in "ij" or s[:, 1].max() > -1.02]  # no dot under an accent
        points = np.concatenate(strokes)
        if parts[1] == "\u0327":
            marks, at = CEDILLA, (points[points[:, 1] > -0.15, 0].mean(), 0.0)
        else:  # over the upper half, so that it follows the slant and ignores the strokes that lead in and out
            top = points[:, 1].min()
            upper = points[points[:, 1] < 0.5 * top, 0]
            marks, at = ACCENTS[parts[1]], ((upper.min() + upper.max()) / 2 + 0.08, top - 0.25)
        glyphs[chr(code)] = Glyph([*strokes, *(np.array(mark) + at for mark in marks)], base.advance)
    for character, (first, second) in PAIRS.items():
        shift = glyphs[first].advance * 0.86
        strokes = [*glyphs[first].strokes, *(s + np.array([shift, 0]) for s in glyphs[second].strokes)]
        glyphs[character] = Glyph(strokes, shift + glyphs[second].advance)
    glyphs["°"] = Glyph([RING], 0.65)
    glyphs[","] = Glyph([COMMA], 0.4)
    glyphs["’"] = glyphs["'"]  # noqa: RUF001  typed by some transcribers, one pen stroke


def stroke_hand(name: str, small: str, capitals: str, capital: float, joined: bool) -> Hand:
    """A hand of two of Hershey's fonts: one for small letters, one for the rest, `capital` x-heights tall."""
    fonts = {font: HersheyFonts() for font in (small, capitals)}
    for font, loaded in fonts.items():
        loaded.load_default_font(font)
    x_height = 9 if joined else 14  # in Hershey's units: his scripts have small bodies under tall loops
    narrow = 0.8 if joined else 0.9  # his letters are wide
    glyphs: dict[str, Glyph] = {}
    for character in map(chr, range(33, 127)):
        glyph = fonts[small if character.islower() else capitals].all_glyphs[character]
        scale = 1 / x_height if character.islower() else capital / (glyph.base_line - glyph.cap_line)
        unit, origin = np.array([scale * narrow, scale]), np.array([glyph.left_offset, glyph.base_line])
        strokes = [smooth((np.array(stroke) - origin) * unit) for stroke in glyph.strokes]
        glyphs[character] = Glyph(strokes, glyph.char_width * scale * narrow)
    compose(glyphs)
    rows = np.concatenate([s[:, 1] for c in ALPHABET if c != " " for s in glyphs[c].strokes])
    return Hand(name, ascent=-float(rows.min()), descent=float(rows.max()), joined=joined, glyphs=glyphs)


def draw_strokes(writer: "Writer", text: str, x_height: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Polylines under a round pen, each letter a little turned, scaled, shifted -> raster, baseline row."""
    strokes, x, lift = [], 0.0, 0.0
    for character in text:
        if character == " ":
            x += writer.space * rng.uniform(0.85, 1.2)
            continue
        glyph = writer.hand.glyphs[character]
        turn, grow, wide, step = rng.normal(0, [0.035, 0.04, 0.04, 0.03]) * writer.wobble
        lift = 0.6 * lift + step  # the baseline wanders; it does not jump
        affine = np.array([[1 + grow + wide, turn], [-turn, 1 + grow]])
        strokes += [stroke @ affine + (x, lift) for stroke in glyph.strokes]
        x += glyph.advance * (1 + grow + wide) + writer.gap
    left, top = x_height, x_height * (writer.hand.ascent * 1.15 + 0.5)
    rows, columns = top + x_height * (writer.hand.descent * 1.15 + 0.5), x * x_height + 2 * left
    raster = np.zeros((int(rows), int(columns) + 1), np.uint8)
    pens = (writer.pen * x_height * rng.uniform(0.85, 1.15, len(strokes)) + 0.5).astype(int).clip(1)
    for stroke, thickness in zip(strokes, pens.tolist(), strict=True):
        points = np.rint((stroke * x_height + (left, top)) * 16).astype(np.int32)  # 4 bits of subpixel shift
        cv2.polylines(raster, [points], False, 255, thickness, cv2.LINE_AA, 4)
    return raster, int(top)


@lru_cache(maxsize=64)
def font_at(file: Path, size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels. Basic layout: the same pixels with and without the raqm library."""
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def has_glyph(file: Path, character: str) -> bool:
    """Whether the font draws the character, and not the box or the blank that stands for a missing one."""
    font = font_at(file, 64)
    mask, missing = font.getmask(character), font.getmask("\ufffe")
    return mask.getbbox() is not None and (mask.size, bytes(mask)) != (missing.size, bytes(missing))


def font_hand(file: Path) -> Hand | None:
    """A font file as a hand; None, and a warning that says why, if it lacks a character of the alphabet or any ink."""
    try:
        font = font_at(file, 256)
        missing = "".join(c for c in ALPHABET if c != " " and not has_glyph(file, c))
        problem = f"no glyph for {missing}" if missing else ""
    except OSError as error:
        problem = str(error)
    if problem:
        logging.getLogger(__name__).warning("%s left out: %s", file, problem)
        return None
    boxes = {c: font.getbbox(c, anchor="ls") for c in ALPHABET if c != " "}
    small, tall = (float(np.median([-boxes[c][1] for c in some])) for some in ("acemnorsuvxz", "bdhklt"))
    unit = max(small, tall / 2.4)  # faces with tiny bodies under long loops are measured by their loops
    above, below = -min(box[1] for box in boxes.values()), max(box[3] for box in boxes.values())
    return Hand(file.stem, ascent=above / unit, descent=below / unit, file=file, em=256 / unit)


def draw_font(writer: "Writer", text: str, x_height: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Words in a font, each a little shifted; the bending of the line does the rest -> raster, baseline row."""
    hand, words = writer.hand, text.split(" ")
    font = font_at(hand.file, max(8, round(hand.em * x_height)))
    gaps = writer.space * x_height * rng.uniform(0.85, 1.2, len(words))
    lifts = x_height * writer.wobble * rng.normal(0, 0.04, len(words))
    widths = [font.getlength(word) for word in words]
    left, top = 2 * x_height, x_height * (hand.ascent + 0.7)  # swashes reach over the ends
    size = (int(sum(widths) + sum(gaps) + 2 * left), int(top + x_height * (hand.descent + 0.7)))
    raster, x = Image.new("L", size), left
    pen = ImageDraw.Draw(raster)
    for word, gap, lift, width in zip(words, gaps, lifts, widths, strict=True):
        pen.text((x, top + lift), word, fill=255, font=font, anchor="ls")
        x += width + gap
    return np.asarray(raster), int(top)


@lru_cache(maxsize=8)
def hands(folder: Path | None = None) -> list[Hand]:
    """All hands in a fixed order: four stroke hands, then the fonts of the folder, or the installed packages'.

    A font that lacks a French character is left out with a warning. ValueError for a folder without a usable font.
    """
    drawn = [
        stroke_hand("cursive", "cursive", "cursive", 1.9, joined=True),
        stroke_hand("cursive, plain capitals", "cursive", "futural", 1.75, joined=True),
        stroke_hand("print", "futural", "futural", 1.5, joined=False),
        stroke_hand("broad script", "scriptc", "futuram", 1.75, joined=True),
    ]
    files = [f for f in folder.glob("*") if f.suffix.lower() in (".ttf", ".otf")] if folder else []
    if folder is None:  # the fontpkg-* packages, each with its files under ROOT/files
        roots = [import_module(entry.value).ROOT for entry in metadata.entry_points(group="fontpkg.family")]
        files = [file for root in roots for file in (root / "files").glob("*.[to]tf")]
    fonts = [hand for hand in map(font_hand, sorted(files, key=lambda f: f.name)) if hand is not None]
    if folder is not None and not fonts:
        advice = "put handwriting fonts with every French accent there, or name no folder to use the installed ones"
        raise ValueError(f"{folder}: none of its {len(files)} .ttf and .otf files can write French; {advice}")
    return drawn + fonts


@dataclass(frozen=True)
class Writer:
    """A person: a hand and its habits. Lengths in x-heights, slants as tangents."""

    hand: Hand
    slant: float  # added to the hand's own, forwards
    size: float  # of the nominal height
    width: float  # of the letters, 1 as in the font
    gap: float  # added between the letters of a stroke hand
    space: float  # between words
    climb: float  # of the baseline, a tangent, upwards
    pen: float  # thickness of a stroke hand's line
    wobble: float  # of letters and baseline, 1 ordinary
    shake: float  # amplitude of the elastic bending
    bleed: float  # 0 a hard pen on hard paper, thin lines; 1 a wet one
    pressure: float  # how far thickness and darkness vary along the line
    darkness: float  # of the ink, 1 black

    @classmethod
    def make(cls, seed: int | tuple[int, ...], hands: list[Hand]) -> "Writer":
        """The writer of this seed; the same for the same seed and hands."""
        rng = np.random.default_rng(seed)
        hand, between = hands[rng.integers(len(hands))], rng.uniform
        return cls(
            hand=hand,
            slant=between(-0.22, 0.3),
            size=between(0.82, 1.18),
            width=between(0.78, 1.15),
            gap=0.0 if hand.joined else between(-0.12, 0.12),
            space=between(0.55, 1.1),
            climb=between(-0.012, 0.012),
            pen=between(0.08, 0.17),
            wobble=between(0.5, 1.5),
            shake=between(0.025, 0.09),
            bleed=between(0.1, 0.9),
            pressure=between(0.3, 1.0),
            darkness=between(0.62, 0.95),
        )

    def write(self, text: str, height: float, rng: np.random.Generator) -> Ink:
        """One line of text as ink, cropped with a margin of 2 px; `height`: nominal, px, X_HEIGHT of it a small x.

        ValueError for a blank text, or one with characters that the hand lacks.
        """
        if not (text := unicodedata.normalize("NFC", text).strip()):
            raise ValueError("cannot write a text without ink: it is empty or blank; leave the field out")
        if missing := self.hand.lacks(text):
            raise ValueError(f"cannot write {text!r}: the hand {self.hand.name!r} has no {missing}; leave them out")
        x_height = height * X_HEIGHT * self.size
        raster, baseline = (draw_font if self.hand.file else draw_strokes)(self, text, x_height * OVERSAMPLING, rng)
        return self._press(self._bend(raster, baseline / OVERSAMPLING, x_height, rng), x_height, rng)

    def _bend(self, raster: np.ndarray, foot: float, x_height: float, rng: np.random.Generator) -> Ink:
        """Slant, climb, width and elastic noise in one resampling; `foot`: the baseline of the raster, final size."""
        rows, columns = (side / OVERSAMPLING for side in raster.shape)
        lean = abs(self.slant) * max(foot, rows - foot)
        drop = abs(self.climb) * columns * self.width + 0.2 * x_height
        shape = (int(rows + 2 * drop), int(columns * self.width + 2 * lean))
        x = np.arange(shape[1], dtype=np.float32)[None, :] - lean
        y = np.arange(shape[0], dtype=np.float32)[:, None] - drop - foot
        coarse = (int(shape[0] / x_height / 1.5) + 3, int(shape[1] / x_height / 1.1) + 3, 2)
        noise = rng.normal(0, self.shake * x_height, coarse).astype(np.float32)
        noise = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
        slow = rng.normal(0, 0.05 * self.wobble, (1, int(columns / x_height / 8) + 3)).astype(np.float32)
        slow = cv2.resize(slow, (shape[1], 1), interpolation=cv2.INTER_CUBIC)
        tall = y * (1 + slow) + self.climb * x + slow[:, ::-1] * x_height
        map_x = (x + self.slant * y + noise[..., 0]) / self.width * OVERSAMPLING
        map_y = (tall + foot + noise[..., 1]) * OVERSAMPLING
        return Ink(cv2.remap(raster, map_x, map_y, cv2.INTER_LINEAR), foot + drop)

    def _press(self, bent: Ink, x_height: float, rng: np.random.Generator) -> Ink:
        """The pen's pressure: a blur and a soft threshold that varies make it thicker, thinner, paler; then cropped."""
        x, y, w, h = cv2.boundingRect(bent.pixels)
        image = cv2.copyMakeBorder(bent.pixels[y : y + h, x : x + w], 3, 3, 3, 3, cv2.BORDER_CONSTANT)
        image = cv2.GaussianBlur(image, (0, 0), 0.5 + 0.02 * x_height).astype(np.float32) / 255
        press = rng.normal(0, self.pressure, (2, int(w / x_height / 2) + 3)).clip(-2, 2).astype(np.float32)
        press = cv2.resize(press, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
        edge = 0.30 - 0.22 * self.bleed - 0.04 * press
        ink = np.clip((image - edge) / 0.45, 0, 1) * np.clip(self.darkness * (1 + 0.08 * press), 0.3, 1)
        return Ink((ink * 255).astype(np.uint8)[1:-1, 1:-1], bent.baseline - y + 2)
