"""How well lines of a field are found, blank fields told from written ones, strokes spared when rulings leave.

    python benchmarks/lines.py --handwriting HANDWRITING [--fields 2000] [--seed 0] [--split val] [--pages PAGES]

Semi-real fields: real ink (images of HANDWRITING/lines.csv without flags; collections on squared paper left out) is
evened out, scaled to a size of this field and multiplied onto drawn fields of a form at 200 dpi: 1, 2 or 4 rulings,
solid, dotted or none, boxed or not, labels, print off by up to 2 px; slopes to 1.5 degrees, line distances from
generous to touching, writing that leaves the field, neighbours that reach into it, uneven light, noise, JPEG. A field
is one writer's; one ruling bears up to two lines, two or four rulings up to four.

Truth is the box of each line's pasted ink that leaves out at most 0.3 % of its mass left and right, 1 % above and
below. What a crop has of the lines above and below it is wiped out first, as far as it is told apart. Faint crops, and
those whose words hang on a ruling of their paper, are not used. A line counts as found if the box of the same line has
IoU >= 0.5 with it; where the numbers of lines differ, the longest common subsequence is counted.
"""

import argparse
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from drawn import Composer, Drawn

from htr.lines.rulings import remove_rulings
from htr.lines.segmentation import cut_line, find_lines, flatten_background


def iou(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def in_order(truth: list, found: list) -> int:
    """How many true lines are found, in order: the longest common subsequence where equal means IoU >= 0.5."""
    best = np.zeros((len(truth) + 1, len(found) + 1), int)
    for i, a in enumerate(truth):
        for j, b in enumerate(found):
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + (iou(a, b) >= 0.5))
    return int(best[-1, -1])


def strokes_kept(drawn: Drawn, clean: np.ndarray) -> tuple[int, int]:
    """Stroke pixels within 3 px of a ruling: how many there are, and how many are still ink in the cleaned field."""
    ruling = cv2.morphologyEx(np.uint8(255) * (drawn.form < 0.8), cv2.MORPH_OPEN, np.ones((1, 200), np.uint8))
    near = cv2.dilate(ruling, np.ones((7, 1), np.uint8)) > 0
    strokes = near & (drawn.ink < 0.6)
    return int(strokes.sum()), int((strokes & (clean < 255 - 0.35 * 255 * (1 - drawn.ink))).sum())


def measure_fields(composer: Composer, fields: int) -> dict[str, float]:
    """Written and blank fields by turns, drawn, searched and counted."""
    counts: dict[int, list[int]] = {}  # number of lines -> lines, lines found, fields, fields right
    called_written = called_blank = strokes = kept = ruled = gone = 0
    written_ms, blank_ms, cut_ms = [], [], []
    for number in range(fields):
        drawn = composer.field(0 if number % 2 else number // 2 % 4 + 1)
        field = flatten_background(drawn.gray)
        start = time.process_time()
        found = find_lines(field, drawn.printed, box=drawn.box, pitch=drawn.pitch, most=4)
        middle = time.process_time()
        for line in found:
            cut_line(field, line, drawn.pitch)
        (written_ms if drawn.lines else blank_ms).append(1e3 * (middle - start))
        if not drawn.lines:
            called_written += bool(found)
            continue
        cut_ms.append(1e3 * (time.process_time() - middle))
        called_blank += not found
        right = in_order(drawn.lines, [line.box for line in found])
        count = counts.setdefault(len(drawn.lines), [0, 0, 0, 0])
        for i, value in enumerate((len(drawn.lines), right, 1, right == len(drawn.lines) == len(found))):
            count[i] += value
        clean = remove_rulings(field, drawn.printed, pitch=drawn.pitch)
        there, still = strokes_kept(drawn, clean)
        strokes, kept = strokes + there, kept + still
        bare = (drawn.form < 0.7) & (drawn.ink > 0.98) & (drawn.printed > 0) & (field < 180)
        ruled, gone = ruled + int(bare.sum()), gone + int((bare & (clean > 215)).sum())
    for name in sorted(counts):
        lines, right, total, entirely = counts[name]
        print(f"{name} lines a field: {right / lines:7.2%} of {lines} lines, {entirely / total:7.2%} of fields right")
    lines, right, total, entirely = np.sum(list(counts.values()), axis=0).tolist()
    print(f"all: {right / lines:.2%} of {lines} lines found in order, {entirely / total:.2%} of {total} fields right")
    blanks = len(blank_ms)
    print(f"blank called written: {called_written} of {blanks}; written called blank: {called_blank} of {total}")
    print(f"rulings removed: {kept / max(strokes, 1):.2%} of {strokes} stroke pixels within 3 px are kept,")
    print(f"    {gone / max(ruled, 1):.1%} of the bare print is gone (dots and labels are not meant to go)")
    finding, blank, cutting = (float(np.median(times)) for times in (written_ms, blank_ms, cut_ms))
    print(f"ms a field (median): find_lines {finding:.2f} written, {blank:.2f} blank; cut_line {cutting:.2f}")
    return {
        "lines_found": right / lines,
        "fields_right": entirely / total,
        "blank_called_written": called_written / max(blanks, 1),
        "written_called_blank": called_blank / total,
        "stroke_survival": kept / max(strokes, 1),
        "ms_per_field": finding,
        "ms_per_blank_field": blank,
        "ms_cut": cutting,
    }


def measure_pages(folder: Path, limit: int) -> dict[str, float]:
    """Whole scans as one field each, against the boxes of ALTO's lines; no template, the pitch from the page."""
    true = found = right = 0
    for path in sorted(folder.glob("*.xml"))[:limit]:
        lines = []
        for line in ElementTree.parse(path).iter():
            if line.tag.endswith("}TextLine"):
                lines.append(tuple(round(float(line.get(key))) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")))
        page = cv2.imread(str(path.with_suffix(".jpg")), cv2.IMREAD_GRAYSCALE)
        if page is None or not lines:
            continue
        page = flatten_background(page)
        pitch = page_pitch(page)
        boxes = [line.box for line in find_lines(page, None, box=(0, 0, *page.shape[::-1]), pitch=pitch, most=60)]
        true, found = true + len(lines), found + len(boxes)
        overlaps = np.array([[iou(a, b) >= 0.5 for b in boxes] for a in lines]).reshape(len(lines), len(boxes))
        right += int(min(overlaps.any(axis=1).sum(), overlaps.any(axis=0).sum())) if boxes else 0
    print(f"pages: {right} of {true} lines found with IoU >= 0.5, in any order; {found} boxes given")
    return {"pages_recall": right / max(true, 1), "pages_precision": right / max(found, 1)}


def page_pitch(page: np.ndarray) -> float:
    """The distance of lines: where the rows' ink repeats itself first."""
    rows = cv2.reduce(255 - page, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
    rows = np.convolve(rows, np.ones(15) / 15, "same")
    rows = rows - np.convolve(rows, np.ones(301) / 301, "same")
    alike = np.array([float(rows[lag:] @ rows[: len(rows) - lag]) for lag in range(50, 260)])
    return 50.0 + int(alike.argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--handwriting", type=Path, required=True, help="folder with lines.csv and its images")
    parser.add_argument("--fields", type=int, default=2000, help="half of them blank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="val", help="rows of lines.csv to take ink from; tune on train,dev")
    parser.add_argument("--pages", type=Path, help="folder of whole scans with ALTO beside them")
    parser.add_argument("--most-pages", type=int, default=64)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    figures = measure_fields(Composer(options.handwriting, options.split, options.seed), options.fields)
    if options.pages:
        figures |= measure_pages(options.pages, options.most_pages)
    print(json.dumps({name: round(value, 5) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
