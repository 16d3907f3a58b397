"""Simulated scans of the medical part of French death certificates, for tests, benchmarks and a first run without data.

    simulate(Path("simulated"), 1000, seed=1, workers=4)
      certificates.csv    a row a field with what data entry typed (no box, no line feeds), ticks as 1 or 0: a source
      lines.csv           a row a written line with its box on the scan: a source, and the truth
      truth/pages.csv     a row a scan: form, resolution, severity, and the matrix that takes the form to the scan
      truth/lines.csv     as lines.csv
      pages/sim-000000.jpg …

A certificate is a printed form, one person's writing, then what a scanner does to both. It is a pure function of the
seed, its number and the options (and of the installed fonts): ranges can be made anywhere, in any order.
"""

import csv
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from htr.forms.template import Template
from htr.synth import handwriting
from htr.synth.draw_forms import draw
from htr.synth.handwriting import Hand, Ink, Writer
from htr.synth.layout import LINE_HEIGHT_PX, Slot, box_of, fitted, put, slots, tick, with_mistake
from htr.synth.scanner import SEVERITIES, Scan, scan
from htr.synth.semireal import real_writers
from htr.synth.text_generator import Terms, how_many, load_terms, texts_of
from htr.synth.text_generator import draw as draw_text
from htr.whole_files import attempt_at
from htr.worker_pool import each_in_order

FORM, SEVERITY = "adult-2018", "light"
HELD_OUT = (  # fonts kept for testing: no writer of --hands train has one of them
    "Satisfy", "Zeyada", "Cedarville Cursive", "Homemade Apple", "La Belle Aurore", "Mansalva", "Marck Script",
    "Reenie Beanie", "Rock Salt", "Schoolbell",
)  # fmt: skip
HANDS = ("all", "train", "held-out")
FILLED = {"Ia": 1.0, "Ib": 0.78, "Ic": 0.45, "Id": 0.2}  # a cause is written only under another
OTHERS = {"II": 0.4, "II_interval": 0.12, "circumstances": 0.15}  # shares of the certificates
LINES = ("image", "text", "certificate", "year", "form", "field", "line", "box", "writer", "split")
TABLES = {  # columns; the last table appears last
    "lines.csv": LINES,
    "truth/lines.csv": LINES,
    "truth/pages.csv": ("certificate", "image", "form", "dpi", "matrix", "severity", "seed", "number"),
    "certificates.csv": ("image", "certificate", "year", "form", "field", "text", "writer", "split"),
}
WRITERS_SHARE, BLOCK = 8, 64  # certificates a writer; writers are drawn within a block of numbers: no total is needed


@dataclass(frozen=True, eq=False)
class Certificate:
    """A scan, and the truth: the rows that it has in the tables, as dictionaries of their columns."""

    scan: Scan
    typed: list[dict]
    lines: list[dict]
    page: dict


@dataclass(frozen=True)
class SimulatedWriter:
    """Who writes what: a hand with its habits, its vocabulary, and how often it crosses a word out."""

    name: str
    writer: Writer
    terms: Terms = ()
    crossed: float = 0.0
    split: str = ""

    how_many = staticmethod(how_many)

    def lines(
        self, field: str, slots: list[Slot], rng: np.random.Generator, known: Collection[str] = ()
    ) -> list[tuple[str, Ink]]:
        """An answer for the field on all the slots or fewer; `known`, what stands on the form, may come again."""
        longest = int(slots[0].width / (0.31 * slots[0].height))
        found = []
        for slot, text in zip(slots, texts_of(field, len(slots), rng, longest, self.terms), strict=False):
            write = partial(self.writer.write, text, rng=rng)
            if rng.random() < self.crossed and not field.endswith("_interval"):
                write = partial(with_mistake, self.writer, text, draw_text("short", rng), rng=rng)
            found.append((text, fitted(write, slot)))
        return found


def chosen_hands(fonts: Path | None, share: str) -> list[Hand]:
    """The hands of a folder of fonts, or the installed ones: all, those to train on, or those held out for testing."""
    if share not in HANDS:
        raise ValueError(f"hands {share!r}: choose one of {', '.join(HANDS)}")
    held_out = tuple(plain(name) for name in HELD_OUT)
    hands = handwriting.hands(fonts)
    wanted = [hand for hand in hands if share == "all" or (share == "train") != plain(hand.name).startswith(held_out)]
    if not wanted:
        raise ValueError(f"hands {share!r}: none of the fonts of {fonts} is held out; they are {', '.join(HELD_OUT)}")
    return wanted


def plain(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def filled(template: Template, rng: np.random.Generator) -> Iterator[str]:
    """The names of the text fields that are filled in: a chain without gaps, and each other field by chance."""
    deep = rng.random()
    for field in template.fields:
        if field.kind == "text":
            cause = field.name.removesuffix("_interval")
            if cause in FILLED:
                share = 1.0 if deep < np.prod([FILLED[name] for name in FILLED if name <= cause]) else 0.0
                share *= 0.75 if field.name != cause else 1.0
            else:
                share = OTHERS.get(field.name, 0.8)
            if rng.random() < share:
                yield field.name


def ticked(template: Template, rng: np.random.Generator) -> list[str]:
    """The names of the boxes that are ticked: one of a question's, rather no than yes, or none."""
    questions: dict[str, list[str]] = {}
    for field in template.fields:
        if field.kind == "tick":
            questions.setdefault(field.name.rpartition("_")[0], []).append(field.name)
    found = []
    for names in questions.values():
        weights = np.cumsum([3.0 if name.endswith("_no") else 1.0 for name in names])
        answer = names[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
        if rng.random() < 0.8:
            found.append(answer)
    return found


def certificate(
    number: int,
    *,
    seed: int,
    hands: list[Hand],
    form: str = FORM,
    severity: str = SEVERITY,
    dpi: int | None = None,
    ink: Path | None = None,
    ink_where: str = "",
    terms: Terms = (),
    written: bool = True,
) -> Certificate:
    """One certificate, a pure function of its arguments. Options as for `simulate`.

    With `written=False` the same without the handwriting: same paper, print, ticks, grain, and the same truth.
    """
    rng = np.random.default_rng((seed, 1, number))
    names = form.split(",")
    template = draw(names[int(rng.integers(len(names)))])
    level = SEVERITIES[severity]
    if ink is not None:
        writers = real_writers(ink, ink_where)
        writer = writers[int(rng.integers(len(writers)))]
    else:
        person = number // BLOCK * (BLOCK // WRITERS_SHARE) + int(rng.integers(BLOCK // WRITERS_SHARE))
        made = Writer.make((seed, 2, person), hands)
        writer = SimulatedWriter(f"writer-{person:04d}", made, terms, level.crossed)
    name, year = f"sim-{number:06d}", int(rng.integers(2012, 2024))
    known = {"image": f"pages/{name}.jpg", "certificate": name, "year": year, "form": template.name,
             "writer": writer.name, "split": writer.split}  # fmt: skip
    page = np.zeros(template.picture.shape, np.uint8)
    ticks = ticked(template, rng)
    answers = {field.name: "1" if field.name in ticks else "0" for field in template.fields if field.kind == "tick"}
    for box in ticks:
        tick(page, template.field(box), rng)
    placed = []
    for field in [template.field(field) for field in filled(template, rng)]:
        room = slots(template, field, writer.how_many(field.lines, rng))
        written_lines = writer.lines(field.name, room, rng, [text for _, _, text, *_ in placed])
        answers[field.name] = " ".join(text for text, _ in written_lines)
        for line, (slot, (text, pen)) in enumerate(zip(room, written_lines, strict=False)):
            x, y = put(page if written else None, pen, slot, rng)
            placed.append((field.name, line, text, pen.pixels, x, y, 1.22 * min(slot.height, LINE_HEIGHT_PX)))
    margins = np.random.default_rng((seed, 3, number))  # of their own: boxes change nothing else
    scanned = scan(template.picture, page, level, rng, dpi)
    lines = [
        known | {"field": field, "line": line, "text": text, "box": box_of(pixels, x, y, scanned, height, margins)}
        for field, line, text, pixels, x, y, height in placed
    ]
    typed = [known | {"field": field.name, "text": answers.get(field.name, "")} for field in template.fields]
    matrix = " ".join(f"{value:.6f}" for value in scanned.matrix[:2].ravel())
    truth = known | {"dpi": scanned.dpi, "matrix": matrix, "severity": severity, "seed": seed, "number": number}
    return Certificate(scanned, typed, lines, truth)


def write_certificate(number: int, *, folder: Path, fonts: Path | None, hands: str, terms: str | None, **options):
    """Make one certificate and put its page under its final name at once -> its rows for each table of TABLES."""
    words = load_terms(terms) if terms else ()
    made = certificate(number, hands=chosen_hands(fonts, hands), terms=words, **options)
    done, jpeg = cv2.imencode(".jpg", made.scan.image, [cv2.IMWRITE_JPEG_QUALITY, made.scan.quality])
    assert done, "OpenCV without its JPEG encoder"
    with attempt_at(folder / made.page["image"]) as temporary:
        temporary.write_bytes(jpeg.tobytes())
        os.replace(temporary, folder / made.page["image"])
    return made.lines, made.lines, [made.page], made.typed


def simulate(
    folder: Path,
    certificates: int | range,
    seed: int = 0,
    *,
    fonts: Path | None = None,
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
    form: str = FORM,
    severity: str = SEVERITY,
    hands: str = "all",
    ink: Path | None = None,
    ink_where: str = "",
    terms: str | None = None,
    dpi: int | None = None,
) -> Path:
    """Make certificates, numbers 0 to n - 1 or those of a range, in `folder` -> the path of its certificates.csv.

    `form`: one of draw.NAMES, or several with commas between them, a mix. `severity`: one of scanner.SEVERITIES, whose
    resolutions `dpi` replaces. `hands`: one of HANDS, of `fonts`, a folder of handwriting fonts, or of the installed
    ones. `ink`: a table of line images, real handwriting in place of the simulated, `ink_where` its rows as for
    `real_writers`. `terms`: as for `load_terms`, mixed with the phrases of causes.txt. `progress` is called with 1
    after every certificate.

    certificates.csv appears last: a folder with it is whole. ValueError for an option that can't be met.
    """
    numbers = range(certificates) if isinstance(certificates, int) else certificates
    if not numbers or min(numbers) < 0:
        raise ValueError(f"certificates={certificates}: nothing to make; give a positive number or a range from 0 on")
    check_options(form, severity, dpi, fonts, hands, terms, ink, ink_where)
    options = {"seed": seed, "form": form, "severity": severity, "dpi": dpi, "ink": ink, "ink_where": ink_where}
    make = partial(write_certificate, folder=folder, fonts=fonts, hands=hands, terms=terms, **options)
    for inner in ("pages", "truth"):
        (folder / inner).mkdir(parents=True, exist_ok=True)
    chunk = max(1, min(16, len(numbers) // (4 * max(workers, 1))))
    made = each_in_order(make, numbers, workers, partial(cv2.setNumThreads, 1), chunk)
    return write_tables(folder, made, ink is not None, progress)


def check_options(form, severity, dpi, fonts, hands, terms, ink, ink_where) -> None:
    """Raises ValueError for options of `simulate` that can't be met: here, once, not in every worker."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r}: choose one of {', '.join(SEVERITIES)}")
    if dpi is not None and not 72 <= dpi <= 600:
        raise ValueError(f"dpi {dpi} is not between 72 and 600")
    for name in form.split(","):
        draw(name)
    chosen_hands(fonts, hands)
    if terms:
        load_terms(terms)
    if ink is not None:
        real_writers(ink, ink_where)


def write_tables(folder: Path, certificates: Iterator[tuple], has_splits: bool, progress) -> Path:
    """The tables of TABLES, whole or not there, from the rows of each certificate -> the path of the last one."""
    paths = [folder / name for name in TABLES]
    for path in paths:
        path.unlink(missing_ok=True)  # an older one does not describe the pages that come now
    with ExitStack() as stack:
        temporary = [stack.enter_context(attempt_at(path)) for path in paths]
        files = [stack.enter_context(open(path, "w", encoding="utf-8", newline="")) for path in temporary]
        columns = [[c for c in columns if c != "split" or has_splits] for columns in TABLES.values()]
        tables = [
            csv.DictWriter(file, names, extrasaction="ignore") for file, names in zip(files, columns, strict=True)
        ]
        for table in tables:
            table.writeheader()
        for made in certificates:
            for name, table, rows in zip(TABLES, tables, made, strict=True):
                up = "../" * name.count("/")  # an image is relative to its table
                table.writerows(row | {"image": up + row["image"]} for row in rows)
            if progress:
                progress(1)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        for written, path in zip(temporary, paths, strict=True):
            os.replace(written, path)
    return paths[-1]
