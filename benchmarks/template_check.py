"""How long `template check` takes for the scans of a folder, as a user starts it.

    python benchmarks/template_check.py [--scans 200]

Three forms of the project, two of them nearly identical editions, marks to be chosen; scans of severity medium,
filled in, two in a hundred cut off by more than can be registered. Wall time of the whole command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from support.form_kinds import NAMES, filled, writing

from htr.forms.template import write_template
from htr.synth.draw_forms import draw
from htr.synth.scanner import SEVERITIES, scan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=200)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, inks = Path(name), writing(40, 0)
        (folder / "scans").mkdir()
        for form in NAMES:
            write_template(replace(draw(form), marks=()), folder / "forms")
        for number in range(args.scans):
            template, rng = draw(NAMES[number % 3]), np.random.default_rng((0, 8, number))
            page = scan(template.picture, filled(template, inks, rng), SEVERITIES["medium"], rng)
            image = page.image[:, : page.image.shape[1] // 2] if number % 50 == 49 else page.image
            cv2.imwrite(str(folder / "scans" / f"{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, page.quality])
        command = [sys.executable, "-m", "jobs", "template", "check", "forms", "--scans", "scans"]
        start = time.monotonic()
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
    print(done.stdout)
    print(f"{args.scans} scans: {seconds:.1f} s on {len(os.sched_getaffinity(0))} cores")
    print(json.dumps({"check_s": round(seconds, 1), "scans": args.scans, "first_line": done.stdout.splitlines()[0]}))


if __name__ == "__main__":
    main()
