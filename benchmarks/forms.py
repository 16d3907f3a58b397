"""How well scans are registered on their forms, how many others are taken for one, and what it costs.

    python benchmarks/forms.py [--scans 500] [--seed 0] [--foreign PAGES] [--kinds 200] [--remade 50]

Real: the two nearly identical editions adult-2018 and adult-2024 and neonatal-2018 in turn, handwriting in all text
fields and crosses in some boxes, scanned at severity "hard" (within 3 degrees, 5 % of scale, shift, folds, bleed,
stamps, noise, faint copies, 100 to 300 dpi, JPEG). Errors are those of every field's corners, in pixels at 200 dpi.
Foreign: the images of PAGES, whole, and pages drawn here: letters, ruled and squared paper, tables, other forms made
of this form's own pieces, blank paper, noise; as many as scans. Unknown edition: the scans of adult-2024 again, when
only the other two templates are there. The peer is the usual way: 1000 ORB features at quarter scale, RANSAC, 15 steps
of ECC, on the right template alone; it and register take turns on the scans at 200 dpi, in CPU time of one thread.
Kinds: scans of severity medium as offices make them (form_kinds.py), so many of each; where a corner of a field lies
off the scan it does not count. Of a stamped mark the editions differ in one place alone. Remade: both forms made anew
from so many filled-in scans of severity medium, fields proposed on them, hard scans registered on them.
"""

import argparse
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from form_kinds import (
    KINDS,
    NAMES,
    Worse,
    by_matrix,
    curled,
    cut_off,
    foreign,
    on_a4,
    one_mark,
    paste,
    photograph,
    resized,
    stamped,
    stored,
)

from htr.forms.blank_form import blank_of_scans
from htr.forms.fields import corners
from htr.forms.keypoints import apply
from htr.forms.registration import Forms, NoForm, Registration
from htr.forms.structure import propose_fields
from htr.forms.template import Template
from htr.synth.draw_forms import draw
from htr.synth.handwriting import Writer
from htr.synth.handwriting import hands as hands_of
from htr.synth.scanner import SEVERITIES, scan
from htr.synth.simulate import certificate
from htr.synth.text_generator import cause

WORSE = "a5_on_a4", "cut_10", "cut_15", "photograph", "curled", "stamped_mark", "negative"
TIMED = 60  # scans on which the peer is timed


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


def worse(kind: str, page, template: Template, rng: np.random.Generator) -> Worse:
    if kind == "a5_on_a4":
        return on_a4([page], rng)[1][0]
    if kind.startswith("cut"):
        return cut_off(page, *((0.01, 0.10) if kind == "cut_10" else (0.10, 0.15)), rng)
    if kind == "photograph":
        return photograph(page, rng)
    if kind == "curled":
        return curled(page, rng)
    return by_matrix(255 - page.image if kind == "negative" else page.image, page.matrix)


def kinds_of_scans(args: argparse.Namespace, inks: list[np.ndarray]) -> dict:
    """Scans as offices make them: accepted, right, near."""
    templates, figures = [draw(name) for name in NAMES], {}
    editions = [*one_mark(templates[:2], (1392, 16, 233, 84)), templates[2]]
    plain, stamps = Forms(templates), Forms(editions)
    print(f"{'kind':>20} {'scans':>6} {'accepted':>9} {'near':>7} {'wrong':>6} {'CPU ms':>7}")
    for place, kind in enumerate(WORSE):
        limit, accepted, near, wrong, spent, reasons = 4 if kind == "photograph" else 3, 0, 0, 0, [], Counter()
        for number in range(args.kinds):
            rng = np.random.default_rng((args.seed, 5, place, number))
            template = (editions if kind == "stamped_mark" else templates)[number % 3]
            picture = stamped(template, rng) if kind == "stamped_mark" else template.picture
            page = scan(picture, filled(template, inks, rng), SEVERITIES["medium"], rng)
            made = worse(kind, page, template, rng)
            forms = stamps if kind == "stamped_mark" else plain
            answer, ms = registered(forms, stored(made.image, page.quality))
            spent.append(ms)
            if isinstance(answer, NoForm):
                reasons[str(answer).partition(":")[2] or str(answer).partition(" (")[0]] += 1
                continue
            accepted += 1
            if answer.template.name != template.name:
                wrong += 1
                continue
            places = np.concatenate([corners(field.box) for field in template.fields])
            truth = made.places(places)
            on_it = ((truth >= 0) & (truth < made.image.shape[::-1])).all(axis=1)
            distance = np.linalg.norm(truth - answer.places(places), axis=1) / made.size
            near += bool(distance[on_it].max() < limit)
        share = [round(value / max(args.kinds, 1), 4) for value in (accepted, near)]
        print(f"{kind:>20} {args.kinds:6} {share[0]:9.4f} {share[1]:7.4f} {wrong:6} {np.median(spent):7.1f}")
        print(*(f"{count:27} x {reason.strip()}" for reason, count in reasons.most_common()), sep="\n", end="")
        print() if reasons else None
        figures[kind] = {"scans": args.kinds, "accepted": share[0], "near": share[1], "wrong": wrong,
                         "ms": round(float(np.median(spent)), 1)}  # fmt: skip
    return {"kinds": figures}


def overlap(one: tuple, other: tuple) -> float:
    """Intersection over union of two boxes."""
    w, h = (max(min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1))
    return w * h / (one[2] * one[3] + other[2] * other[3] - w * h)


def remade(args: argparse.Namespace, inks: list[np.ndarray]) -> dict:
    """Both forms of the project out of filled-in scans: fields found, and hard scans registered on them."""
    right = found = false = proposed = 0
    hands, errors, rejected = hands_of(None), [], 0
    for name in (NAMES[0], NAMES[2]):
        true = draw(name)
        pages = [
            certificate(n, seed=args.seed + 9, hands=hands, form=name, severity="medium") for n in range(args.remade)
        ]
        blank = blank_of_scans([page.scan.image for page in pages], [None] * len(pages))
        way = Forms([replace(true, marks=())]).register(blank.picture)  # the drawn form to the one that was made
        boxes = []
        for field in true.fields:
            (x, y), (to_x, to_y) = way.places(np.array(corners(field.box)))[[0, 2]]
            boxes.append((x, y, to_x - x, to_y - y))
        fields = propose_fields(blank.picture, blank.dpi)
        hit = [[overlap(field.box, box) >= 0.7 and field.kind == own.kind for field in fields]
               for box, own in zip(boxes, true.fields, strict=True)]  # fmt: skip
        hits = np.array(hit)
        right, found = right + len(true.fields), found + int(hits.any(axis=1).sum())
        proposed, false = proposed + len(fields), false + int((~hits.any(axis=0)).sum())
        forms = Forms([Template(name, blank.picture, blank.dpi, tuple(fields), ())])
        for number in range(args.scans // 5):
            rng = np.random.default_rng((args.seed, 6, number))
            page = scan(true.picture, filled(true, inks, rng), SEVERITIES["hard"], rng)
            answer, _ = registered(forms, stored(page.image, page.quality))
            if isinstance(answer, NoForm):
                rejected += 1
                continue
            places = np.concatenate([corners(field.box) for field in true.fields])
            apart = apply(page.matrix, places) - answer.places(way.places(places))
            errors.extend(np.linalg.norm(apart, axis=1) * 200 / page.dpi)
    shares = {"fields_found": found / right, "fields_false": false / max(proposed, 1)}
    shares["corners_within_3px"] = float(np.mean(np.array(errors or [np.inf]) < 3))
    print(f"remade from {args.remade} scans: " + ", ".join(f"{key} {value:.4f}" for key, value in shares.items()))
    return {"remade": {key: round(value, 4) for key, value in shares.items()} | {"rejected": rejected}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="real ones, and as many foreign ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=int, default=200, help="scans of each kind of WORSE; 0: none")
    parser.add_argument("--remade", type=int, default=50, help="filled-in scans that forms are made of; 0: none")
    parser.add_argument("--foreign", type=Path, help="a folder of page images that are no forms")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    inks = writing(80, args.seed)
    figures = real_scans(args, inks) | foreign_pages(args, inks)
    figures |= kinds_of_scans(args, inks) if args.kinds else {}
    print(json.dumps(figures | (remade(args, inks) if args.remade else {})))


if __name__ == "__main__":
    main()
