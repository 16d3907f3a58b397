"""How well scans are registered on their forms, how many others are taken for one, and what it costs.

    python benchmarks/forms.py [--scans 500] [--seed 0] [--foreign PAGES]

Real: the two nearly identical editions adult-2018 and adult-2024 and neonatal-2018 in turn, handwriting in all text
fields and crosses in some boxes, scanned at severity "hard" (within 3 degrees, 5 % of scale, shift, folds, bleed,
stamps, noise, faint copies, 100 to 300 dpi, JPEG). Errors are those of every field's corners, in pixels at 200 dpi.
Foreign: the images of PAGES, whole, and pages drawn here: letters, ruled and squared paper, tables, other forms made
of this form's own pieces, blank paper, noise; as many as scans. Unknown edition: the scans of adult-2024 again, when
only the other two templates are there. The peer is the usual way: 1000 ORB features at quarter scale, RANSAC, 15 steps
of ECC, on the right template alone; it and register take turns on the scans at 200 dpi, in CPU time of one thread.
"""

import argparse
import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from htr.forms.fields import corners
from htr.forms.keypoints import apply
from htr.forms.registration import Forms, NoForm, Registration
from htr.forms.template import Template
from htr.synth.draw_forms import draw
from htr.synth.handwriting import Writer, hands
from htr.synth.scanner import SEVERITIES, scan
from htr.synth.text_generator import cause

NAMES = "adult-2018", "adult-2024", "neonatal-2018"
KINDS = "page", "letter", "ruled", "squared", "table", "pieces", "upside-down pieces", "blank", "noise"
TIMED = 60  # scans on which the peer is timed


def writing(pieces: int, seed: int) -> list[np.ndarray]:
    """Lines of handwriting as ink, uint8."""
    faces, inks = hands(None), []
    for number in range(pieces):
        rng = np.random.default_rng((seed, 1, number))
        inks.append(Writer.make((seed, 2, number), faces).write(cause(rng), 76, rng).pixels)
    return inks


def paste(ink: np.ndarray, piece: np.ndarray, x: int, y: int) -> None:
    """Ink onto ink, in place, as far as it fits."""
    room = ink[max(y, 0) :, max(x, 0) :][: piece.shape[0], : piece.shape[1]]
    np.maximum(room, piece[: room.shape[0], : room.shape[1]], out=room)


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


def peer(image: np.ndarray, template: Template) -> None:
    """The usual way, features then ECC, at quarter scale; the template's features are given, not counted."""
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    points, descriptors = ORB.detectAndCompute(small, None)
    quarter, theirs, known = peer_template(template)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(known, descriptors)
    ours = np.float32([theirs[p.queryIdx].pt for p in pairs])
    affine, _ = cv2.estimateAffinePartial2D(ours, np.float32([points[p.trainIdx].pt for p in pairs]))
    steps = (cv2.TERM_CRITERIA_COUNT, 15, 0)
    with suppress(cv2.error):  # it does not converge
        cv2.findTransformECC(quarter, small, affine.astype(np.float32), cv2.MOTION_AFFINE, steps, None, 5)


ORB, KNOWN = cv2.ORB_create(1000), {}


def peer_template(template: Template) -> tuple:
    if template.name not in KNOWN:
        quarter = cv2.resize(template.picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        KNOWN[template.name] = quarter, *ORB.detectAndCompute(quarter, None)
    return KNOWN[template.name]


def registered(forms: Forms, image: np.ndarray) -> tuple[Registration | NoForm, float]:
    """What register says, and its milliseconds of CPU."""
    start = time.process_time()
    try:
        answer = forms.register(image)
    except NoForm as error:
        answer = error
    return answer, 1e3 * (time.process_time() - start)


def real_scans(args: argparse.Namespace, inks: list[np.ndarray]) -> dict:
    """Every scan registered, in numbers."""
    templates = [draw(name) for name in NAMES]
    forms, fewer = Forms(templates), Forms([templates[0], templates[2]])
    resolutions = SEVERITIES["hard"].dpi
    errors, spent, rejected = {d: [] for d in resolutions}, {d: [] for d in resolutions}, Counter()
    scores, ratios, wrong, unknown, reasons = [], [], 0, [0, 0], []
    for number in range(args.scans):
        rng = np.random.default_rng((args.seed, 3, number))
        template, dpi = templates[number % 3], resolutions[number // 3 % len(resolutions)]
        page = scan(template.picture, filled(template, inks, rng), SEVERITIES["hard"], rng, dpi)
        image = stored(page.image, page.quality)
        answer, ms = registered(forms, image)
        spent[dpi].append(ms)
        if dpi == 200 and len(ratios) < TIMED:
            start = time.process_time()
            peer(image, template)
            ratios.append(registered(forms, image)[1] / (1e3 * (time.process_time() - start)))
        if template.name == "adult-2024":
            unknown[1] += 1
            unknown[0] += isinstance(registered(fewer, image)[0], Registration)
        if isinstance(answer, NoForm):
            rejected[dpi] += 1
            reasons.append(f"{dpi} dpi, {template.name}: {answer}")
            continue
        wrong += answer.template.name != template.name
        scores.append(answer.score)
        places = np.concatenate([corners(field.box) for field in template.fields])
        distance = np.linalg.norm(apply(page.matrix, places) - apply(answer.matrix, places), axis=1)
        errors[dpi].extend(distance * 200 / dpi)
    print(f"{'dpi':>5} {'scans':>6} {'rejected':>9} {'within 3 px':>12} {'median':>7} {'largest':>8} {'CPU ms':>7}")
    for dpi in resolutions:
        e = np.array(errors[dpi] or [np.nan])
        row = f"{np.mean(e < 3):12.4f} {np.median(e):7.2f} {e.max():8.2f} {np.median(spent[dpi]):7.1f}"
        print(f"{dpi:5} {len(spent[dpi]):6} {rejected[dpi]:9} {row}")
    print(f"scores of the accepted: least {min(scores):.2f}, 1 % {np.percentile(scores, 1):.2f}")
    print(*reasons, sep="\n")
    together = np.concatenate([np.array(e) for e in errors.values()])
    return {
        "corners_within_3px": round(float(np.mean(together < 3)), 5),
        "wrong_edition": wrong,
        "rejected_real": sum(rejected.values()),
        "unknown_edition_accepted": f"{unknown[0]} of {unknown[1]}",
        "register_ms": round(float(np.median(spent[200])), 2),
        "ratio_to_orb_ecc": round(float(np.median(ratios)), 3),
    }


def foreign_pages(args: argparse.Namespace, inks: list[np.ndarray]) -> dict:
    forms = Forms([draw(name) for name in NAMES])
    pages = sorted(p for p in args.foreign.iterdir() if p.suffix in (".jpg", ".png", ".tif")) if args.foreign else []
    accepted, seen, spent = Counter(), Counter(), []
    for number in range(args.scans):
        rng = np.random.default_rng((args.seed, 4, number))
        kind = KINDS[number % len(KINDS)] if number >= len(pages) else "page"
        if kind == "page" and number < len(pages):
            image = resized(cv2.imread(str(pages[number]), cv2.IMREAD_GRAYSCALE), rng.uniform(0.35, 0.8))
        else:
            image = foreign(kind, pages, inks, rng)
        answer, ms = registered(forms, image)
        seen[kind] += 1
        spent.append(ms)
        accepted[kind] += isinstance(answer, Registration)
    print(f"{'foreign':>20} {'pages':>6} {'accepted':>9}")
    for kind in seen:
        print(f"{kind:>20} {seen[kind]:6} {accepted[kind]:9}")
    return {"foreign_accepted": sum(accepted.values()), "foreign_ms": round(float(np.median(spent)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="real ones, and as many foreign ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--foreign", type=Path, help="a folder of page images that are no forms")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    inks = writing(80, args.seed)
    print(json.dumps(real_scans(args, inks) | foreign_pages(args, inks)))


if __name__ == "__main__":
    main()
