"""What the further ways to register a scan cost those that need none: ordinary scans, the whole against the first way.

    python benchmarks/forms_speed.py [--scans 60] [--rounds 5] [--before CHECKOUT] [--checked 200]

Scans of the project's forms at severity hard and 200 dpi, each registered by `register` and by the first way alone
(anchors, then the edition), in turns, in CPU time of one thread; the middle of each scan's rounds, then of all scans.
--before: another checkout of the project, of any layout; it and this one take turns, in processes of their own.
--checked: so many scans for `template check`, by the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np

NAMES = "adult-2018", "adult-2024", "neonatal-2018"
LAYOUTS = ("htr.forms.registration", "htr.synth.draw_forms"), ("htr.images.form", "htr.images.draw")
HERE = Path(__file__).parent.parent


def child(path: Path) -> None:
    """In a checkout: the CPU ms of `register` on each image, and of the first way alone where there is one."""
    cv2.setNumThreads(1)
    for registration, drawing in LAYOUTS:
        try:
            form, draw = import_module(registration), import_module(drawing).draw
            break
        except ModuleNotFoundError:
            continue
    forms = form.Forms([draw(name) for name in NAMES])
    spent: dict[str, list[float]] = {"whole": [], "first": []}
    for image in np.load(path):
        start = time.process_time()
        forms.register(image)
        spent["whole"].append(1e3 * (time.process_time() - start))
        if hasattr(forms, "first_way"):
            start = time.process_time()
            levels = form.pyramid(image)
            forms.edition(levels, forms.first_way(levels))
            spent["first"].append(1e3 * (time.process_time() - start))
    print(json.dumps(spent))


def scans(count: int) -> np.ndarray:
    sys.path.insert(0, str(HERE / "benchmarks"))
    from support.form_kinds import filled, stored, writing

    from htr.synth.draw_forms import draw
    from htr.synth.scanner import SEVERITIES, scan

    inks, made = writing(40, 0), []
    for number in range(count):
        template, rng = draw(NAMES[number % 3]), np.random.default_rng((0, 7, number))
        page = scan(template.picture, filled(template, inks, rng), SEVERITIES["hard"], rng, 200)
        made.append(stored(page.image, page.quality))
    shape = tuple(min(sides) for sides in zip(*(image.shape for image in made), strict=True))
    return np.stack([image[: shape[0], : shape[1]] for image in made])


def check_seconds(count: int) -> float:
    """Wall time of `template check` as a user starts it: three forms, two of them nearly identical editions, marks to
    be chosen; filled-in scans of severity medium, two in a hundred cut off by more than can be registered."""
    sys.path.insert(0, str(HERE / "benchmarks"))
    from support.form_kinds import filled, writing

    from htr.forms.template import write_template
    from htr.synth.draw_forms import draw
    from htr.synth.scanner import SEVERITIES, scan

    with tempfile.TemporaryDirectory() as name:
        folder, inks = Path(name), writing(40, 0)
        (folder / "scans").mkdir()
        for form in NAMES:
            write_template(replace(draw(form), marks=()), folder / "forms")
        for number in range(count):
            template, rng = draw(NAMES[number % 3]), np.random.default_rng((0, 8, number))
            page = scan(template.picture, filled(template, inks, rng), SEVERITIES["medium"], rng)
            image = page.image[:, : page.image.shape[1] // 2] if number % 50 == 49 else page.image
            cv2.imwrite(str(folder / "scans" / f"{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, page.quality])
        command = [sys.executable, "-m", "jobs", "template", "check", "forms", "--scans", "scans"]
        start = time.monotonic()
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
    print(f"{done.stdout}{count} scans checked: {seconds:.1f} s on {len(os.sched_getaffinity(0))} cores")
    return round(seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--checked", type=int, default=200, help="scans for `template check`; 0: none")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    whole, first, before = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scans.npy"
        np.save(path, scans(args.scans))
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(path)]
        for _ in range(args.rounds):
            for checkout in (HERE, args.before) if args.before else (HERE,):
                environ = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, env=environ, cwd=checkout, stdout=subprocess.PIPE, check=True)
                spent = json.loads(done.stdout)
                if checkout == HERE:
                    whole.append(spent["whole"])
                    first.append(spent["first"])
                else:
                    before.append(spent["whole"])
    found = {"register_ms": whole, "first_way_ms": first} | ({"before_ms": before} if before else {})
    figures = {name: round(float(np.median(np.median(rounds, axis=0))), 3) for name, rounds in found.items()}
    for name, value in figures.items():
        print(f"{name:>14} {value:7.2f}")
    figures["ratio_to_first_way"] = round(figures["register_ms"] / figures["first_way_ms"], 3)
    if before:
        figures["ratio_to_before"] = round(figures["register_ms"] / figures["before_ms"], 3)
    if args.checked:
        figures["check_s"] = check_seconds(args.checked)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
