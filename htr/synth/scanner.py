"""Simulated scanning: paper, folds, stamps, light and scanner effects, at named severities.

    scan = scan(template.picture, ink, SEVERITIES["medium"], rng)  # .image, .matrix from the form to the image, .dpi

Every level is fixed: figures measured at a level can be compared from one version to the next.
"""

from dataclasses import dataclass

import cv2
import numpy as np

DPI = 200  # of the forms, and of all lengths below
MAX_LOST_EDGE_PX = 25  # px of the paper's edge that a turned or shifted page may lose
FOLD_REACH_PX = 70  # px on either side of a fold where the paper bulges
STAMPS = ("CENTRE HOSPITALIER", "ETAT CIVIL", "ARCHIVES", "COPIE CONFORME", "SERVICE DES URGENCES", "MAIRIE", "RECU LE")


@dataclass(frozen=True)
class Severity:
    """Ranges (least, most), bounds either way of 0, or shares of the pages, of what is done to a page."""

    turn: float  # degrees, either way
    scale: float  # of the size, either way
    shift: float  # px, either way
    dpi: tuple[int, ...]  # drawn from these
    paper: tuple[float, float]  # gray
    light: float  # unevenness of the light, gray
    printed: tuple[float, float]  # darkness of the printed form, 1 black
    faint: tuple[float, float, float]  # share of faint copies, contrast left to them
    blur: tuple[float, float]  # sigma, px of the scan
    grain: tuple[float, float]  # noise, of the range of gray
    bleed: tuple[float, float]  # darkness of what shines through from the back
    folds: int  # at most
    stamps: int  # at most
    dirt: int  # specks at most
    dark_lid: float  # share of the scans with a dark border around the paper
    crossed: float  # share of the lines with a crossed-out word, for whoever writes on the form
    quality: tuple[int, int]  # JPEG
    bilevel: bool = False


SEVERITIES = {
    "clean": Severity(0, 0, 0, (200,), (250, 250), 0, (0.9, 0.9), (0, 1, 1), (0.4, 0.4), (0.01, 0.01), (0, 0),
                      0, 0, 0, 0, 0, (95, 95)),
    "light": Severity(0.5, 0.005, 6, (200,), (222, 248), 2.5, (0.55, 0.9), (0, 1, 1), (0.4, 0.8), (0.02, 0.07), (0, 0),
                      0, 0, 0, 0, 0, (90, 90)),
    "medium": Severity(1.5, 0.02, 15, (150, 200, 200, 300), (205, 248), 4, (0.5, 0.9), (0.08, 0.5, 0.8), (0.4, 0.9),
                       (0.02, 0.09), (0, 0.08), 1, 1, 12, 0.1, 0.03, (75, 92)),
    "hard": Severity(3, 0.05, 40, (100, 150, 200, 240, 300), (185, 250), 8, (0.45, 0.95), (0.2, 0.45, 0.8), (0.4, 1.2),
                     (0.02, 0.14), (0, 0.16), 3, 2, 40, 0.3, 0.08, (55, 90)),
    # for training: stamps and hairs wherever there is room for them, so that readers learn what is no writing
    "stained": Severity(1.5, 0.02, 15, (150, 200, 200, 300), (205, 248), 4, (0.5, 0.9), (0.08, 0.5, 0.8), (0.4, 0.9),
                        (0.02, 0.09), (0, 0.12), 2, 9, 160, 0.1, 0.03, (75, 92)),
    "fax": Severity(1.5, 0.02, 15, (150, 200), (235, 250), 3, (0.6, 0.95), (0, 1, 1), (0.3, 0.6), (0.04, 0.12), (0, 0),
                    0, 1, 25, 0.1, 0.03, (90, 90), bilevel=True),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scan:
    image: np.ndarray  # (H, W) uint8
    matrix: np.ndarray  # (3, 3), pixels of the form to pixels of the image; near a fold 2 px off at most
    dpi: int
    quality: int  # of the JPEG it is meant to be stored with


def scan(
    printed: np.ndarray, written: np.ndarray, severity: Severity, rng: np.random.Generator, dpi: int | None = None
) -> Scan:
    """The form (H, W) uint8, paper white, with ink (H, W) uint8, 0 none to 255, as the scanner gives it.

    `dpi` takes the place of the severity's resolutions.
    """
    between = rng.uniform
    resolution = dpi or int(rng.choice(severity.dpi))
    ink = cv2.convertScaleAbs(255 - printed, alpha=between(*severity.printed))
    # inks darken the paper one after the other: what is under the pen stays visible through it
    sheet = cv2.multiply(255 - ink, 255 - written, scale=1 / 255)
    for _ in range(int(rng.integers(severity.stamps + 1))):
        stamp(sheet, rng)
    share, least, most = severity.faint
    if rng.random() < share:
        left = between(least, most)
        sheet = cv2.convertScaleAbs(sheet, alpha=left, beta=255 * (1 - left))
    sheet = cv2.multiply(sheet, paper(written, severity, rng), scale=1 / 255)
    for _ in range(int(rng.integers(severity.folds + 1))):
        fold(sheet, rng)
    # before the scanner's grid: a coarser one must not alias
    sheet = cv2.GaussianBlur(sheet, (0, 0), between(*severity.blur) * max(1.0, DPI / resolution))
    matrix, size = placed(sheet.shape, severity, resolution, rng)
    lid = int(between(15, 70)) if rng.random() < severity.dark_lid else 250
    image = cv2.warpAffine(sheet, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=lid)
    specks(image, severity.dirt, rng)
    noise = rng.integers(0, 256, image.shape, dtype=np.uint8)
    strength = between(*severity.grain)
    image = cv2.addWeighted(image, 1.0, noise, strength, -127.5 * strength)
    quality = int(rng.integers(severity.quality[0], severity.quality[1] + 1))
    if severity.bilevel:
        image = cv2.threshold(image, between(140, 190), 255, cv2.THRESH_BINARY)[1]
    return Scan(image, matrix, resolution, quality)


def placed(
    shape: tuple[int, int], severity: Severity, dpi: int, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the paper lies on the glass -> (3, 3) form to image, (width, height) of the image.

    The glass is as large as the paper, or as it must be to hold all but the paper's outermost MAX_LOST_EDGE_PX.
    """
    height, width = shape
    angle = np.deg2rad(rng.uniform(-1, 1) * severity.turn)
    grow = 1 + rng.uniform(-1, 1) * severity.scale
    skew = rng.uniform(-1, 1, 2) * severity.scale / 15  # rollers pull the paper a little longer one way
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = grow * turn @ np.array([[1 + skew[0], skew[1]], [0, 1 - skew[0]]])
    shift = rng.uniform(-1, 1, 2) * severity.shift
    half = np.array([width, height]) / 2 - MAX_LOST_EDGE_PX
    reach = 2 * (np.abs(linear) @ half + np.abs(shift))
    glass = np.maximum([width, height], np.ceil(reach))
    zoom = dpi / DPI
    size = np.rint(glass * zoom).astype(int)
    middle = (np.array([width, height]) - 1) / 2  # of pixels, whose centres have whole numbers
    matrix = np.eye(3)
    matrix[:2, :2] = zoom * linear
    matrix[:2, 2] = (size - 1) / 2 + zoom * shift - zoom * linear @ middle
    return matrix, (int(size[0]), int(size[1]))


def paper(written: np.ndarray, severity: Severity, rng: np.random.Generator) -> np.ndarray:
    """The blank sheet under uneven light, with what shines through from its back -> uint8, as large as `written`."""
    height, width = written.shape
    half = (width // 2, height // 2)
    tone = rng.uniform(*severity.paper) + rng.normal(0, severity.light, (4, 5))
    sheet = cv2.resize(tone.clip(0, 255).astype(np.float32), half, interpolation=cv2.INTER_CUBIC)
    through = rng.uniform(*severity.bleed)
    if through > 0.005:  # the back holds other writing: this page's, mirrored and moved down, will do
        back = cv2.flip(cv2.resize(written, half, interpolation=cv2.INTER_AREA), 1)
        back = cv2.blur(np.roll(back, int(rng.integers(half[1])), axis=0), (3, 3))
        sheet *= 1 - through / 255 * back
    return cv2.resize(cv2.convertScaleAbs(sheet), (width, height), interpolation=cv2.INTER_LINEAR)


def fold(sheet: np.ndarray, rng: np.random.Generator) -> None:
    """A fold across the sheet, in place: print is pulled into it by up to 2 px, a dark line, and a shade beside it."""
    across = rng.random() < 0.5  # from left to right
    view = sheet.T if across else sheet
    at = rng.normal(rng.choice([1 / 3, 1 / 2, 2 / 3]), 0.03) * view.shape[1]
    first = int(np.clip(at - FOLD_REACH_PX, 0, view.shape[1] - 2 * FOLD_REACH_PX))
    band = np.ascontiguousarray(view[:, first : first + 2 * FOLD_REACH_PX])
    away = np.arange(2 * FOLD_REACH_PX, dtype=np.float32) + first - np.float32(at)
    pull = rng.uniform(0.3, 2.0) * np.exp(-np.abs(away) / 20) * (1 - np.abs(away) / (3 * FOLD_REACH_PX)).clip(0)
    map_x = np.broadcast_to(np.arange(2 * FOLD_REACH_PX) + np.sign(away) * pull, band.shape).astype(np.float32)
    map_y = np.broadcast_to(np.arange(len(band), dtype=np.float32)[:, None], band.shape)
    band = cv2.remap(band, map_x, np.ascontiguousarray(map_y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    line = rng.uniform(0.08, 0.3) * np.exp(-((away / rng.uniform(0.8, 2.0)) ** 2))
    shade = rng.uniform(0, 0.07) * np.exp(-np.abs(away) / 25) * (away > 0)
    view[:, first : first + 2 * FOLD_REACH_PX] = band * (1 - line - shade)


def stamp(sheet: np.ndarray, rng: np.random.Generator, middle: tuple[int, int] | None = None) -> None:
    """A round or rectangular stamp, unevenly inked, in place: about `middle` (x, y), or anywhere on the sheet."""
    tile = np.zeros((300, 420), np.uint8)
    words, date = (
        str(rng.choice(STAMPS)),
        f"{rng.integers(1, 29):02d} {rng.integers(1, 13):02d} {rng.integers(2012, 2024)}",
    )
    if rng.random() < 0.5:
        cv2.circle(tile, (210, 150), 125, 255, 4, cv2.LINE_AA)
        cv2.circle(tile, (210, 150), 108, 255, 2, cv2.LINE_AA)
        room = 190
    else:
        cv2.rectangle(tile, (20, 85), (400, 215), 255, 4, cv2.LINE_AA)
        room = 350
    for text, y in ((words, 145), (date, 190)):
        scale = min(1.0, room / cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 1.0, 2)[0][0])
        left = 210 - cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 2)[0][0] // 2
        cv2.putText(tile, text, (left, y), cv2.FONT_HERSHEY_DUPLEX, scale, 255, 2, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((210, 150), rng.uniform(-25, 25), rng.uniform(0.6, 0.95))
    pressed = cv2.resize(rng.uniform(0.1, 0.7, (5, 6)).astype(np.float32), (420, 300), interpolation=cv2.INTER_LINEAR)
    ink = cv2.warpAffine(tile, turn, (420, 300)) * pressed * rng.uniform(0.6, 1.0)
    y, x = rng.integers(sheet.shape[0] - 300), rng.integers(sheet.shape[1] - 420)
    if middle is not None:
        x, y = (int(np.clip(at - half, 0, size - 2 * half)) for at, half, size in
                zip(middle, (210, 150), sheet.shape[::-1], strict=True))  # fmt: skip
    sheet[y : y + 300, x : x + 420] = sheet[y : y + 300, x : x + 420] * (1 - ink / 255)


def specks(image: np.ndarray, most: int, rng: np.random.Generator) -> None:
    """Dirt on the glass and hairs, in place."""
    height, width = image.shape
    for _ in range(int(rng.integers(most + 1))):
        x, y, tone = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(40, 170))
        if rng.random() < 0.9:
            cv2.circle(image, (x, y), int(rng.integers(1, 3)), tone, -1, cv2.LINE_AA)
        else:
            steps = np.array([x, y]) + np.cumsum(rng.normal(0, 5, (9, 2)) + rng.normal(0, 4, 2), axis=0)
            cv2.polylines(image, [np.rint(steps * 16).astype(np.int32)], False, tone, 1, cv2.LINE_AA, 4)
