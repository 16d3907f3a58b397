"""Scans as offices make them, for benchmarks/forms.py: A5 on an A4 glass, alone or two, cut off, photographed, curled,
negative, on coloured paper.

Each kind takes a scan of a form, (H, W) uint8, and the matrix from its template to it, and gives the worse scan, where
the template's places lie on it (a function of points (n, 2)), and its pixels for one of the template. And pages that
are no form of ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from htr.forms.keypoints import rotation, translation
from htr.forms.template import Template
from htr.synth.draw_forms import draw
from htr.synth.handwriting import Writer
from htr.synth.handwriting import hands as hands_of
from htr.synth.scanner import SEVERITIES, Scan, scan, stamp
from htr.synth.text_generator import cause

KINDS = "page", "letter", "ruled", "squared", "table", "pieces", "upside-down pieces", "blank", "noise"
NAMES = "adult-2018", "adult-2024", "neonatal-2018"
WORSE = "a5_on_a4", "cut_10", "cut_15", "photograph", "curled", "stamped_mark", "negative", "coloured", "two_on_a4"
LIMITS = {"photograph": 4}  # px of the template that the worst corner may be off; of others 3
Places = Callable[[np.ndarray], np.ndarray]
A4 = (2338, 1654)  # rows, columns at 200 dpi


@dataclass(frozen=True, eq=False)
class Worse:
    image: np.ndarray  # (H, W) uint8
    places: Places  # of the template's points (n, 2) on the image
    size: float  # px of the image to one of the template


def worse(kind: str, pages: list[Scan], rng: np.random.Generator) -> list[Worse]:
    """Scans -> the worse scan, once for each form on it."""
    page = pages[0]
    if kind == "a5_on_a4":
        return on_a4([page], rng)[1]
    if kind == "two_on_a4":
        return on_a4(pages, rng)[1]
    if kind.startswith("cut"):
        return [cut_off(page, *((0.01, 0.10) if kind == "cut_10" else (0.10, 0.15)), rng)]
    if kind == "photograph":
        return [photograph(page, rng)]
    if kind == "curled":
        return [curled(page, rng)]
    if kind == "coloured":
        return [by_matrix(coloured(page.image, rng), page.matrix)]
    return [by_matrix(255 - page.image if kind == "negative" else page.image, page.matrix)]


def writing(pieces: int, seed: int) -> list[np.ndarray]:
    """Lines of handwriting as ink, uint8."""
    faces, inks = hands_of(None), []
    for number in range(pieces):
        rng = np.random.default_rng((seed, 1, number))
        inks.append(Writer.make((seed, 2, number), faces).write(cause(rng), 76, rng).pixels)
    return inks


def filled(template: Template, inks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Handwriting in every text field, as large as its pitch and often over its edge; crosses in some boxes."""
    ink = np.zeros_like(template.picture)
    for field in template.fields:
        x, y, w, h = field.box
        if field.kind == "tick":
            if rng.random() < 0.4:
                for start, end in (((x - 2, y), (x + w + 3, y + h)), ((x + w, y - 3), (x, y + h))):
                    cv2.line(ink, start, end, 220, 3, cv2.LINE_AA)
            continue
        for line in range(max(1, round(h / field.pitch))):
            piece = inks[rng.integers(len(inks))]
            piece = resized(piece, min(1.0, field.pitch / piece.shape[0] * rng.uniform(0.8, 1.3)))
            left, top = x + int(rng.integers(-20, 60)), y + round(line * field.pitch) + int(rng.integers(-15, 15))
            paste(ink, piece[:, : w + 60], left, top)
    return ink


def by_matrix(image: np.ndarray, matrix: np.ndarray) -> Worse:
    return Worse(image, lambda points: projected(matrix, points), float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))))


def projected(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(np.float64(points)[None], matrix)[0]


def at_200_dpi(page: Scan) -> tuple[np.ndarray, np.ndarray]:
    zoom = 200 / page.dpi
    kind = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    image = cv2.resize(page.image, None, fx=zoom, fy=zoom, interpolation=kind)
    return image, np.diag([zoom, zoom, 1.0]) @ page.matrix


def on_a4(scans: list[Scan], rng: np.random.Generator) -> tuple[np.ndarray, list[Worse]]:
    """One or two A5 scans on an A4 glass, in any corner and quarter, up to 5 degrees askew -> glass, where each is."""
    lid = int(rng.choice([250, 235, 40]))
    glass, placed = np.full(A4, lid, np.uint8), []
    for number, one in enumerate(scans):
        image, matrix = at_200_dpi(one)
        quarters = int(rng.integers(4)) if len(scans) == 1 else int(rng.choice([0, 2]))
        matrix = np.linalg.inv(rotation(quarters, image.shape)) @ matrix
        image = np.ascontiguousarray(np.rot90(image, quarters))
        angle = np.deg2rad(rng.uniform(-5, 5) if len(scans) == 1 else rng.uniform(-1, 1))
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        height, width = image.shape
        middle = translation(-(width - 1) / 2, -(height - 1) / 2)
        reach = np.abs(turn[:2, :2]) @ (width / 2, height / 2)
        room = np.array(A4[::-1]) - 2 * reach  # may be a few px short: then the corners of the paper are lost
        corner = rng.integers(2, size=2) if len(scans) == 1 else (rng.integers(2), number)
        away = rng.beta(1, 6, 2) * ((1, 1) if len(scans) == 1 else (1, 0.03))  # two leave no more room on the glass
        at = reach + room * np.where(room > 0, np.abs(np.array(corner) - away), 0.5)
        way = translation(*at) @ turn @ middle
        sheet = cv2.warpAffine(image, way[:2], A4[::-1], borderValue=0)
        inside = cv2.warpAffine(np.full_like(image, 255), way[:2], A4[::-1], flags=cv2.INTER_NEAREST)
        glass = np.where(inside > 0, sheet, glass)
        placed.append(way @ matrix)
    return glass, [by_matrix(glass, matrix) for matrix in placed]


def coloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """On paper of a colour, as gray shows it: yellow to a dark blue or pink, print and ink upon it."""
    paper = rng.integers(120, 230)
    return cv2.LUT(image, np.clip(np.arange(256) * (paper / 255), 0, 255).astype(np.uint8))


def cut_off(page: Scan, least: float, most: float, rng: np.random.Generator) -> Worse:
    """A share of the scan between these is missing at one side."""
    height, width = page.image.shape
    share, side = rng.uniform(least, most), int(rng.integers(4))
    left, right = (round(share * width) if side == s else 0 for s in (0, 1))
    top, bottom = (round(share * height) if side == s else 0 for s in (2, 3))
    image = np.ascontiguousarray(page.image[top : height - bottom, left : width - right])
    return by_matrix(image, translation(-left, -top) @ page.matrix)


def photograph(page: Scan, rng: np.random.Generator, tilt: float = 15.0) -> Worse:
    """Taken by hand, up to `tilt` degrees from straight above, on a desk, under a lamp at one side."""
    image, matrix = at_200_dpi(page)
    height, width = image.shape
    focal = rng.uniform(1.0, 1.4) * width  # a phone's, in widths of the paper
    about, angle = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(0.3, 1) * tilt)
    roll = np.deg2rad(rng.uniform(-6, 6))
    axis = np.array([np.cos(about), np.sin(about), 0]) * angle
    spun = cv2.Rodrigues(np.array([0, 0, roll]))[0] @ cv2.Rodrigues(axis)[0]
    way = np.array([[focal, 0, 0], [0, focal, 0], [0, 0, 1.0]]) @ np.column_stack([spun[:, :2], [0, 0, focal]])
    way = way @ translation(-(width - 1) / 2, -(height - 1) / 2)
    edges = projected(way, np.array([[0, 0], [width, 0], [width, height], [0, height]]))
    room = rng.uniform(10, 120, 4)
    low, high = edges.min(axis=0) - room[:2], edges.max(axis=0) + room[2:]
    zoom = rng.uniform(0.9, 1.6)
    way = np.diag([zoom, zoom, 1.0]) @ translation(*-low) @ way
    size = np.ceil(zoom * (high - low)).astype(int)
    desk = cv2.resize(rng.uniform(30, 180, (9, 13)).astype(np.float32), size.tolist(), interpolation=cv2.INTER_CUBIC)
    photo = cv2.warpPerspective(image, way, size.tolist(), flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.full_like(image, 255), way, size.tolist(), flags=cv2.INTER_NEAREST)
    light = cv2.resize(rng.uniform(0.6, 1.0, (2, 2)).astype(np.float32), size.tolist(), interpolation=cv2.INTER_LINEAR)
    photo = np.where(inside > 0, photo, desk) * light + rng.normal(0, 3, size[::-1])
    return Worse(np.clip(photo, 0, 255).astype(np.uint8), lambda points: projected(way @ matrix, points), zoom)


def curled(page: Scan, rng: np.random.Generator) -> Worse:
    """Paper that does not lie flat: its columns are pulled together and its rows bowed, smoothly, by up to 12 px."""
    image, matrix = at_200_dpi(page)
    height, width = image.shape
    bow, pull, phase = rng.uniform(4, 12), rng.uniform(2, 8), rng.uniform(0, np.pi)

    def moved(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0] / width * np.pi, points[:, 1] / height * np.pi
        return points + np.column_stack([pull * np.sin(x + phase), bow * np.sin(x) * (0.6 + 0.4 * np.cos(y))])

    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(np.float64)
    source = grid.copy()
    for _ in range(4):  # the way back, by fixed-point steps
        source = grid - (moved(source) - source)
    maps = source.reshape(height, width, 2).astype(np.float32)
    bent = cv2.remap(image, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Worse(bent, lambda points: moved(projected(matrix, points)), 1.0)


def stamped(template: Template, rng: np.random.Generator) -> np.ndarray:
    """The template's picture with a stamp across one of its marks, unevenly inked."""
    sheet = template.picture.copy()
    x, y, w, h = template.marks[int(rng.integers(len(template.marks)))]
    stamp(sheet, rng, (round(x + w / 2 + rng.normal(0, 0.15 * w)), round(y + h / 2 + rng.normal(0, 12))))
    return sheet


def one_mark(editions: list[Template], box: tuple[int, int, int, int]) -> list[Template]:
    """Editions that differ in this box alone, their only mark: elsewhere all show what the first does."""
    x, y, w, h = box
    made = []
    for edition in editions:
        picture = editions[0].picture.copy()
        picture[y : y + h, x : x + w] = edition.picture[y : y + h, x : x + w]
        made.append(Template(edition.name, picture, edition.dpi, editions[0].fields, (box,)))
    return made


def paste(ink: np.ndarray, piece: np.ndarray, x: int, y: int) -> None:
    """Ink onto ink, in place, as far as it fits."""
    room = ink[max(y, 0) :, max(x, 0) :][: piece.shape[0], : piece.shape[1]]
    np.maximum(room, piece[: room.shape[0], : room.shape[1]], out=room)


def resized(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def stored(image: np.ndarray, quality: int) -> np.ndarray:
    """As it comes back from its JPEG."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def foreign(kind: str, pages: list[Path], inks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A page that is no form of ours, uint8."""
    if kind == "page" and pages:
        page = cv2.imread(str(pages[rng.integers(len(pages))]), cv2.IMREAD_GRAYSCALE)
        return resized(page, rng.uniform(0.35, 0.8))
    height, width = (1165, 1654) if rng.random() < 0.7 else (1654, 1165)
    printed, ink = np.full((height, width), 255, np.uint8), np.zeros((height, width), np.uint8)
    step = int(rng.integers(60, 110))
    if kind == "noise":
        small = rng.integers(0, 256, (height // 8, width // 8), dtype=np.uint8)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    if kind in ("ruled", "squared", "table"):
        for y in range(step, height, step):
            cv2.line(printed, (30, y), (width - 30, y), 90, 2)
        columns = range(60, width, step // 2) if kind == "squared" else rng.integers(40, width - 40, 5).tolist()
        for x in columns if kind != "ruled" else [120]:
            cv2.line(printed, (int(x), 30), (int(x), height - 30), 90, 2)
    if kind in ("letter", "table"):
        words = ["certificat", "de", "deces", "cause", "maladie", "partie", "medecin", "date", "lieu", "commune", "nom"]
        for y in range(60, height - 40, 34):
            text = " ".join(rng.choice(words, 12))
            cv2.putText(printed, text, (60, y), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 40, 1, cv2.LINE_AA)
    if "pieces" in kind:  # the same print in other places
        picture = draw(NAMES[rng.integers(3)]).picture
        tiles = [row for band in np.array_split(picture, 4) for row in np.array_split(band, 4, axis=1)]
        order = rng.permutation(16)
        printed = np.full_like(picture, 255)
        for place, tile in enumerate(order):
            y, x = place // 4 * (picture.shape[0] // 4), place % 4 * (picture.shape[1] // 4)
            paste(invert := 255 - printed, 255 - tiles[tile], x, y)
            printed = 255 - invert
        printed = np.ascontiguousarray(printed[::-1, ::-1]) if kind.startswith("upside") else printed
        ink = np.zeros_like(printed)
    if kind != "blank":
        for y in range(80, ink.shape[0] - 100, step):
            paste(ink, inks[rng.integers(len(inks))], int(rng.integers(60, 400)), y)
    result = scan(printed, ink, SEVERITIES["hard"], rng)
    return stored(result.image, result.quality)
