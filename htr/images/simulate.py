"""Simulated scans of the medical part of French death certificates, for tests, benchmarks and a first run without data.

    simulate(Path("simulated"), 1000, seed=1, workers=4)  # simulated/certificates.csv, simulated/pages/sim-000000.jpg …

A certificate is an A5 page at 200 dpi: printed form, one physician's writing, then what a scanner does to both. It is a
pure function of the seed and its number (and of the installed fonts): ranges can be made anywhere, in any order.
"""

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from htr.images.causes import cause, duration, other_conditions
from htr.images.handwriting import Hand, Ink, Writer, hands

PAGE = 1165, 1654  # rows, columns: A5 landscape at 200 dpi
FORM = "simulated"
HEIGHT = 76.0  # nominal height of a written line, px
ROOM = 92  # rows of ink at most, so that a box holds ascenders, descenders and a margin
CHAIN = {"Ia": 345, "Ib": 455, "Ic": 565, "Id": 675}  # row of the ruling
FILLED = {"Ia": 1.0, "Ib": 0.78, "Ic": 0.45, "Id": 0.2}  # a cause is written only under another
OTHER = 835, 945  # rulings of part II
CAUSE_X, INTERVAL_X, OTHER_X = (170, 1240), (1300, 1590), (170, 1590)  # first and last column of the writing
WRITERS_SHARE, BLOCK = 8, 64  # certificates a writer; writers are drawn within a block of numbers: no total is needed


@dataclass(frozen=True)
class Line:
    """A row of certificates.csv; `box` is "x y w h" in pixels of the page, `image` relative to the table."""

    image: str
    text: str
    certificate: str
    year: int
    form: str
    field: str
    line: int
    box: str
    writer: str


@cache
def printed_form() -> np.ndarray:
    """The blank form as printed ink, uint8 of PAGE, 0 = paper, 255 = black; labels without accents, as cv2 has none."""
    ink = np.zeros(PAGE, np.uint8)

    def label(text: str, x: int, y: int, scale: float = 0.62, thickness: int = 1) -> None:
        cv2.putText(ink, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)

    label("CERTIFICAT DE DECES - PARTIE MEDICALE", 480, 75, 0.95, 2)
    label("A remplir et a clore par le medecin. Ne pas indiquer l'identite du defunt.", 420, 115)
    label("PARTIE I", 60, 190, 0.7, 2)
    label("Maladie(s) ou affection(s) morbide(s) ayant directement provoque le deces", 190, 190)
    label("Intervalle entre le debut", 1310, 185, 0.5)
    label("du processus et le deces", 1310, 210, 0.5)
    for row, (field, y) in enumerate(CHAIN.items()):
        label(f"{field[1]})", 110, y - 8, 0.75, 2)
        cv2.line(ink, (160, y), (1250, y), 200, 2)
        cv2.rectangle(ink, (1290, y - 84), (1600, y + 12), 200, 2)
        label("du ou consecutif a :" if row else "cause immediate :", 165, y - 86, 0.42)
    label("PARTIE II", 60, 735, 0.7, 2)
    label("Autres etats morbides ayant contribue au deces, non mentionnes en partie I", 200, 735)
    for y in OTHER:
        cv2.line(ink, (160, y), (1600, y), 200, 2)
    questions = ["Grossesse dans l'annee", "Accident du travail", "Autopsie demandee", "Deces au domicile"]
    for x, text in zip((60, 470, 850, 1220), questions, strict=True):
        label(text, x, 1035)
        for shift, answer in ((0, "oui"), (120, "non")):
            cv2.rectangle(ink, (x + shift, 1055), (x + shift + 28, 1083), 220, 2)
            label(answer, x + shift + 38, 1078)
    cv2.rectangle(ink, (30, 140), (1624, 985), 200, 3)
    return ink


def fields_of(rng: np.random.Generator) -> Iterator[tuple[str, int, str, int, tuple[int, int]]]:
    """The filled fields of a certificate: (field, line, text, row of the ruling, columns to write in)."""
    for field, y in CHAIN.items():
        if rng.random() >= FILLED[field]:
            break
        yield field, 0, cause(rng), y, CAUSE_X
        if rng.random() < 0.75:
            yield f"{field}_interval", 0, duration(rng), y, INTERVAL_X
    if rng.random() < 0.4:
        for line, (text, y) in enumerate(zip(other_conditions(rng), OTHER, strict=False)):
            yield "II", line, text, y, OTHER_X


def fitted(writer: Writer, text: str, room: int, rng: np.random.Generator) -> Ink:
    """The text written as large as the field allows: who has little room writes smaller."""
    height = HEIGHT
    while True:  # ends: every round is smaller, and the fields hold more than the smallest writing of 45 characters
        ink = writer.write(text, height, rng)
        rows, columns = ink.pixels.shape
        if columns <= room and rows <= ROOM:
            return ink
        height *= 0.97 * min(1, room / columns, ROOM / rows)


def tick(page: np.ndarray, rng: np.random.Generator) -> None:
    """A cross or a check in some of the boxes at the foot of the form, in place."""
    for x in (60, 470, 850, 1220):
        if rng.random() < 0.7:
            corner = np.array([x + 120 * int(rng.random() < 0.8), 1055])
            strokes = (
                [[(2, 3), (27, 26)], [(26, 2), (3, 27)]] if rng.random() < 0.6 else [[(3, 14), (11, 27), (33, -4)]]
            )
            for stroke in strokes:
                points = np.rint((corner + stroke + rng.normal(0, 2, (len(stroke), 2))) * 16).astype(np.int32)
                cv2.polylines(page, [points], False, 190, 3, cv2.LINE_AA, 4)


def scan(printed: np.ndarray, written: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Printed and written ink (uint8, PAGE) on paper, turned by the affine (2, 3), as the scanner sees it -> uint8."""
    paper = rng.uniform(222, 248)
    light = cv2.resize(rng.normal(0, 2.5, (4, 5)).astype(np.float32), PAGE[::-1], interpolation=cv2.INTER_CUBIC) + paper
    # inks darken the paper one after the other: what is under the pen stays visible through it
    clear = cv2.multiply(255 - cv2.convertScaleAbs(printed, alpha=rng.uniform(0.55, 0.9)), 255 - written, scale=1 / 255)
    clear = cv2.warpAffine(clear, turn, PAGE[::-1], flags=cv2.INTER_LINEAR, borderValue=255)
    clear = cv2.GaussianBlur(clear, (0, 0), rng.uniform(0.4, 0.8))
    image = cv2.multiply(clear, light, scale=1 / 255, dtype=cv2.CV_32F)
    grain = rng.integers(0, 256, PAGE, dtype=np.uint8)
    return cv2.addWeighted(image, 1.0, grain, (strength := rng.uniform(0.02, 0.07)), -127.5 * strength, dtype=cv2.CV_8U)


def certificate(number: int, *, seed: int, hands: list[Hand], written: bool = True) -> tuple[np.ndarray, list[Line]]:
    """One scanned page (uint8, PAGE) and its lines, a pure function of seed, number and hands.

    With `written=False` the same page without the handwriting: same paper, print, ticks, grain, and list of lines.
    """
    rng = np.random.default_rng((seed, 1, number))
    person = number // BLOCK * (BLOCK // WRITERS_SHARE) + int(rng.integers(BLOCK // WRITERS_SHARE))
    writer = Writer.make((seed, 2, person), hands)
    year, name = int(rng.integers(2012, 2024)), f"sim-{number:06d}"
    turn = cv2.getRotationMatrix2D((PAGE[1] / 2, PAGE[0] / 2), rng.uniform(-0.5, 0.5), 1.0)
    ink = np.zeros(PAGE, np.uint8)
    tick(ink, rng)
    lines = []
    for field, line, text, ruling, (first, last) in fields_of(rng):
        pen = fitted(writer, text, last - first, rng)
        rows, columns = pen.pixels.shape
        x = first + int((last - first - columns) * rng.beta(1.2, 4) * 0.6)
        y = round(ruling - 8 + rng.normal(0, 3) - pen.baseline)
        if written:
            np.maximum(ink[y : y + rows, x : x + columns], pen.pixels, out=ink[y : y + rows, x : x + columns])
        box = box_of(pen.pixels, x, y, turn, rng)
        lines.append(Line(f"pages/{name}.jpg", text, name, year, FORM, field, line, box, f"writer-{person:04d}"))
    return scan(printed_form(), ink, turn, rng), lines


def box_of(pixels: np.ndarray, x: int, y: int, turn: np.ndarray, rng: np.random.Generator) -> str:
    """The field-like box "x y w h" around ink written at (x, y) before the page was turned, inside the page."""
    ys, xs = np.nonzero(pixels > 20)
    points = np.stack([xs + x, ys + y, np.ones_like(xs)]) if len(xs) else np.array([[x], [y], [1]])
    (left, top), (right, bottom) = (turn @ points).min(axis=1), (turn @ points).max(axis=1) + 1
    before, after = rng.integers(8, 21, 2)
    wide = max(100 - (right - left), before + after)  # a short duration still has a box of 100 px
    left, right = left - wide * before / (before + after), right + wide * after / (before + after)
    spare = max(6, rng.integers(96, 111) - (bottom - top))
    share = rng.uniform(0.3, 0.7)
    top, bottom = top - spare * share, bottom + spare * (1 - share)
    x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    return f"{x0} {y0} {min(PAGE[1], int(np.ceil(right))) - x0} {min(PAGE[0], int(np.ceil(bottom))) - y0}"


def write_certificate(number: int, *, folder: Path, seed: int, fonts: Path | None) -> list[Line]:
    """Make one certificate and put its page under its final name at once -> its lines."""
    page, lines = certificate(number, seed=seed, hands=hands(fonts))
    done, jpeg = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done, "OpenCV without its JPEG encoder"
    path = folder / lines[0].image
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(jpeg.tobytes())
    os.replace(temporary, path)
    return lines


def simulate(
    folder: Path,
    certificates: int | range,
    seed: int = 0,
    *,
    fonts: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Make certificates, numbers 0 to n - 1 or those of a range, in `folder` -> the path of its certificates.csv.

    `fonts`: a folder of handwriting fonts in place of the installed ones. `progress` is called with 1 after every
    certificate. The table appears last: a folder with a table is whole. ValueError for a folder without usable fonts,
    or without a certificate to make.
    """
    numbers = range(certificates) if isinstance(certificates, int) else certificates
    if not numbers or min(numbers) < 0:
        raise ValueError(f"certificates={certificates}: nothing to make; give a positive number or a range from 0 on")
    hands(fonts)  # a folder without fonts is said here, once, not by every worker
    (folder / "pages").mkdir(parents=True, exist_ok=True)
    make = partial(write_certificate, folder=folder, seed=seed, fonts=fonts)
    table = folder / "certificates.csv"
    table.unlink(missing_ok=True)  # an older one does not describe the pages that come now
    temporary = table.with_name(f".{table.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in fields(Line)])
        for lines in each(make, numbers, workers):
            writer.writerows(map(astuple, lines))
            if progress:
                progress(1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, table)
    return table


def each(make: Callable[[int], list[Line]], numbers: range, workers: int) -> Iterator[list[Line]]:
    """make(number) for every number, in order, in this process or in `workers` others with one thread each."""
    if workers <= 1:
        yield from map(make, numbers)
        return
    # spawn: a fork of a process that has threads (torch, OpenCV) can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield from pool.map(make, numbers, chunksize=max(1, min(16, len(numbers) // (4 * workers))))
