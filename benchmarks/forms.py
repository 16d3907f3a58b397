"""How well scans are registered on their forms, how many others are taken for one, and what it costs.

    python benchmarks/forms.py [--scans 500] [--seed 0] [--foreign PAGES] [--kinds 200] [--remade 50]
                               [--records FILE] [--workers 1] [--parts real foreign kinds remade]

Real: the two nearly identical editions adult-2018 and adult-2024 and neonatal-2018 in turn, handwriting in all text
fields and crosses in some boxes, scanned at severity "hard" (within 3 degrees, 5 % of scale, shift, folds, bleed,
stamps, noise, faint copies, 100 to 300 dpi, JPEG). Errors are those of every field's corners, in pixels at 200 dpi.
Foreign: the images of PAGES, whole, and pages drawn here: letters, ruled and squared paper, tables, other forms made
of this form's own pieces, blank paper, noise; as many as scans. Unknown edition: the scans of adult-2024 again, when
only the other two templates are there. The peer is the usual way: 1000 ORB features at quarter scale, RANSAC, 15 steps
of ECC, on the right template alone; it and register take turns on the scans at 200 dpi, in CPU time of one thread.
Kinds: scans of severity medium as offices make them (support/form_kinds.py), so many of each; where a corner of a
field lies off the scan it does not count. Of a stamped mark the editions differ in one place alone. Remade: both forms
made anew from so many filled-in scans of severity medium, fields proposed on them, hard scans registered on them.
With --records each measurement is kept in FILE: the same command goes on where it was stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
from support.form_kinds import KINDS, NAMES, WORSE, filled, foreign, one_mark, resized, stamped, stored, worse, writing
from support.form_sums import HARD, sum_foreign, sum_kinds, sum_real, sum_remade
from support.records import Job, Records, digest_of

from htr.forms.blank_form import blank_of_scans
from htr.forms.keypoints import apply, corners
from htr.forms.registration import Forms, NoForm, Registration
from htr.forms.structure import propose_fields
from htr.forms.template import Template
from htr.synth.draw_forms import draw
from htr.synth.handwriting import hands as hands_of
from htr.synth.scanner import SEVERITIES, scan
from htr.synth.simulate import certificate

TIMED = 60  # scans on which the peer is timed
REGISTERING = ("support.form_kinds", "htr.forms.registration", "htr.forms.fallback", "htr.forms.edition",
               "htr.forms.fitting", "htr.forms.glass", "htr.forms.keypoints", "htr.forms.feature_matching",
               "htr.forms.mark_print", "htr.forms.warp")  # fmt: skip
PROPOSING = "htr.forms.structure", "htr.forms.printed_boxes", "htr.forms.blank_form"
PARTS = "kinds", "remade", "real", "foreign"


@cache
def inks_of(seed: int) -> list[np.ndarray]:
    return writing(80, seed)


@cache
def forms_of(kind: str) -> tuple[list[Template], Forms]:
    """all; fewer: without adult-2024; stamped_mark: adult editions that differ in one mark alone."""
    templates = [draw(name) for name in NAMES]
    if kind == "fewer":
        templates = [templates[0], templates[2]]
    if kind == "stamped_mark":
        templates = [*one_mark(templates[:2], (1392, 16, 233, 84)), templates[2]]
    return templates, Forms(templates)


@cache
def peer_template(name: str) -> tuple:
    quarter = cv2.resize(draw(name).picture, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return quarter, *cv2.ORB_create(1000).detectAndCompute(quarter, None)


def peer(image: np.ndarray, name: str) -> None:
    """The usual way, features then ECC, at quarter scale; the template's features are given, not counted."""
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    points, descriptors = cv2.ORB_create(1000).detectAndCompute(small, None)
    quarter, theirs, known = peer_template(name)
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(known, descriptors)
    ours = np.float32([theirs[p.queryIdx].pt for p in pairs])
    affine, _ = cv2.estimateAffinePartial2D(ours, np.float32([points[p.trainIdx].pt for p in pairs]))
    steps = (cv2.TERM_CRITERIA_COUNT, 15, 0)
    with suppress(cv2.error):  # it does not converge
        cv2.findTransformECC(quarter, small, affine.astype(np.float32), cv2.MOTION_AFFINE, steps, None, 5)


def registered(forms: Forms, image: np.ndarray) -> tuple[list[Registration] | NoForm, list[str], float]:
    """The forms that register_all finds, why others on the scan are none, and its milliseconds of CPU."""
    start, lost = time.process_time(), []
    try:
        answer, lost = forms.register_all(image)
    except NoForm as error:
        answer = error
    return answer, lost, 1e3 * (time.process_time() - start)


def reason_of(error: NoForm) -> str:
    return str(error).partition(":")[2].strip() or str(error)


def places_of(template: Template) -> np.ndarray:
    return np.concatenate([corners(field.box) for field in template.fields])


# ---------------------------------------------------------------------------------------------------- measured


def measure(job: Job, seed: int, pages: Sequence[Path]) -> dict:
    """One scan, or one form made anew, in numbers."""
    cv2.setNumThreads(1)
    part, *rest = job
    if part == "real":
        return real(seed, *rest)
    if part == "foreign":
        return foreign_page(seed, *rest, pages)
    return of_kind(seed, *rest) if part == "kinds" else remade(seed, *rest)


def real(seed: int, number: int) -> dict:
    rng = np.random.default_rng((seed, 3, number))
    templates, forms = forms_of("all")
    template, dpi = templates[number % 3], HARD[number // 3 % len(HARD)]
    page = scan(template.picture, filled(template, inks_of(seed), rng), SEVERITIES["hard"], rng, dpi)
    image = stored(page.image, page.quality)
    answer, _, ms = registered(forms, image)
    found = {"dpi": dpi, "form": template.name, "ms": ms}
    if dpi == 200 and number < TIMED * len(HARD):
        peer(image, template.name)  # its template's features are not counted
        start = time.process_time()
        peer(image, template.name)
        found["ratio"] = registered(forms, image)[2] / (1e3 * (time.process_time() - start))
    if template.name == "adult-2024":
        found["unknown"] = not isinstance(registered(forms_of("fewer")[1], image)[0], NoForm)
    if isinstance(answer, NoForm):
        return found | {"reason": str(answer)}
    [one] = answer
    places = places_of(template)
    apart = np.linalg.norm(apply(page.matrix, places) - one.places(places), axis=1) * 200 / dpi
    return found | {"named": one.template.name, "score": float(one.score), "corners": len(apart),
                    "within": int((apart < 3).sum()), "middle": float(np.median(apart)),
                    "largest": float(apart.max())}  # fmt: skip


def foreign_page(seed: int, number: int, pages: Sequence[Path]) -> dict:
    rng = np.random.default_rng((seed, 4, number))
    kind = KINDS[number % len(KINDS)] if number >= len(pages) else "page"
    if number < len(pages):
        image = resized(cv2.imread(str(pages[number]), cv2.IMREAD_GRAYSCALE), rng.uniform(0.35, 0.8))
    else:
        image = foreign(kind, pages, inks_of(seed), rng)
    answer, _, ms = registered(forms_of("all")[1], image)
    return {"kind": kind, "ms": ms, "accepted": not isinstance(answer, NoForm)}


def of_kind(seed: int, kind: str, number: int) -> dict:
    rng = np.random.default_rng((seed, 5, WORSE.index(kind), number))
    templates, forms = forms_of("stamped_mark" if kind == "stamped_mark" else "all")
    chosen = [templates[number % 3]] + ([templates[int(rng.integers(3))]] if kind == "two_on_a4" else [])
    scans = []
    for template in chosen:
        picture = stamped(template, rng) if kind == "stamped_mark" else template.picture
        scans.append(scan(picture, filled(template, inks_of(seed), rng), SEVERITIES["medium"], rng))
    made = worse(kind, scans, rng)
    answer, lost, ms = registered(forms, stored(made[0].image, scans[0].quality))
    if isinstance(answer, NoForm):
        return {"ms": ms, "reason": reason_of(answer)}
    named = [one.template.name for one in answer]
    if named != [template.name for template in chosen]:
        unsaid = len(named) + len(lost) < len(chosen)
        return {"ms": ms, "named": named, "wrong": len(named) == len(chosen), "apart": None, "unsaid": unsaid}
    apart = []
    for one, template, truth in zip(answer, chosen, made, strict=True):
        places = places_of(template)
        there = truth.places(places)
        on_it = ((there >= 0) & (there < truth.image.shape[::-1])).all(axis=1)
        apart.extend(np.linalg.norm(there - one.places(places), axis=1)[on_it] / truth.size)
    return {"ms": ms, "named": named, "wrong": False, "apart": float(max(apart))}


def overlap(one: tuple, other: tuple) -> float:
    """Intersection over union of two boxes."""
    w, h = (max(min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1))
    return w * h / (one[2] * one[3] + other[2] * other[3] - w * h)


def remade(seed: int, name: str, pieces: int, scans: int) -> dict:
    """A form of the project out of filled-in scans: fields found, and hard scans registered on it."""
    true, hands = draw(name), hands_of(None)
    pages = [certificate(n, seed=seed + 9, hands=hands, form=name, severity="medium") for n in range(pieces)]
    blank = blank_of_scans([page.scan.image for page in pages], [None] * len(pages))
    way = Forms([replace(true, marks=())]).register(blank.picture)  # the drawn form to the one that was made
    boxes = []
    for field in true.fields:
        (x, y), (to_x, to_y) = way.places(np.array(corners(field.box)))[[0, 2]]
        boxes.append((x, y, to_x - x, to_y - y))
    fields = propose_fields(blank.picture, blank.dpi)
    hits = np.array([[overlap(field.box, box) >= 0.7 and field.kind == own.kind for field in fields]
                     for box, own in zip(boxes, true.fields, strict=True)])  # fmt: skip
    forms = Forms([Template(name, blank.picture, blank.dpi, tuple(fields), ())])
    within, number_of_corners, rejected, places = 0, 0, 0, places_of(true)
    for number in range(scans):
        rng = np.random.default_rng((seed, 6, number))
        page = scan(true.picture, filled(true, inks_of(seed), rng), SEVERITIES["hard"], rng)
        answer, _, _ = registered(forms, stored(page.image, page.quality))
        if isinstance(answer, NoForm):
            rejected += 1
            continue
        apart = apply(page.matrix, places) - answer[0].places(way.places(places))
        within += int((np.linalg.norm(apart, axis=1) * 200 / page.dpi < 3).sum())
        number_of_corners += len(places)
    missed = [field.name for field, hit in zip(true.fields, hits.any(axis=1), strict=True) if not hit]
    spare = [field.box for field, hit in zip(fields, hits.any(axis=0), strict=True) if not hit]
    return {"fields": len(true.fields), "missed": missed, "proposed": len(fields), "false": spare, "within": within,
            "corners": number_of_corners, "scans": scans, "rejected": rejected,
            "left_out": len(blank.left_out)}  # fmt: skip


def code_of(part: str) -> str:
    """A digest of the files that make its scans, register them, and of a form made anew propose fields."""
    used = REGISTERING + PROPOSING * (part == "remade")
    loaded = [sys.modules[name] for name in sorted(sys.modules) if name.startswith("htr.synth.") or name in used]
    return digest_of([Path(module.__file__) for module in loaded])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=500, help="real ones, and as many foreign ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=int, default=200, help="scans of each kind")
    parser.add_argument("--remade", type=int, default=50, help="filled-in scans that forms are made of")
    parser.add_argument("--foreign", type=Path, help="a folder of page images that are no forms")
    parser.add_argument("--records", type=Path, metavar="FILE", help="where measurements are kept, to go on from")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    pages = sorted(p for p in args.foreign.iterdir() if p.suffix in (".jpg", ".png", ".tif")) if args.foreign else []
    jobs = {
        "kinds": [("kinds", kind, number) for number in range(args.kinds) for kind in WORSE],
        "remade": [("remade", name, args.remade, args.scans // 5) for name in (NAMES[0], NAMES[2])],
        "real": [("real", number) for number in range(args.scans)],
        "foreign": [("foreign", number) for number in range(args.scans)],
    }
    figures = {}
    for part in args.parts:
        records = Records(args.records, f"{code_of(part)}-{args.seed}")
        rows = list(records.of(jobs[part], partial(measure, seed=args.seed, pages=pages), args.workers))
        sums = {"kinds": sum_kinds, "remade": sum_remade, "real": sum_real, "foreign": sum_foreign}
        figures |= sums[part](rows)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
