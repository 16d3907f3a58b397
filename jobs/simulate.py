"""python -m jobs simulate --out FOLDER: certificates with simulated handwriting, and a table of their lines.

The table has the form that preprocess takes; the texts in it are the truth. Handwriting comes from stroke fonts and the
handwriting fonts that PyPI has, or from a folder of fonts.
"""

import argparse
import os
from pathlib import Path

from jobs.show import Progress, say


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True)
    add("--certificates", type=int, default=1000)
    add("--first", type=int, default=0, help="number of the first one; a certificate depends on its number alone")
    add("--seed", type=int, default=0)
    add("--fonts", type=Path, help="a folder of .ttf or .otf handwriting fonts in place of those from PyPI")
    add("--workers", type=int, help="processes (default: one a CPU)")


def main(args: argparse.Namespace) -> int:
    from htr.images.simulate import simulate

    numbers = range(args.first, args.first + args.certificates)
    workers = args.workers or len(os.sched_getaffinity(0))
    with Progress("simulate", len(numbers), "certificates") as progress:
        table = simulate(
            args.out, numbers, args.seed, fonts=args.fonts, workers=workers, progress=lambda n: progress.advance(n)
        )
    say(f"simulate: {len(numbers)} certificates, {table}")
    return 0
