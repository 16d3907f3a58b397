"""python -m jobs simulate --out FOLDER: scans of certificates filled in by simulated hands, or with real ink.

certificates.csv has a row a field, as data entry leaves it; lines.csv a row a written line with its box: preprocess
takes either. truth/ says of every scan how it lies on its form. Handwriting comes from stroke fonts and the handwriting
fonts that PyPI has, from a folder of fonts, or (--ink) from a table of line images with their texts.
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
    add("--form", default="adult-2018", help="adult-2018, adult-2024, neonatal-2018, or a mix: several with commas")
    add("--severity", default="light", help="clean, light, medium, hard or fax (default: %(default)s)")
    add("--dpi", type=int, help="of the scans, in place of the severity's resolutions")
    add("--fonts", type=Path, help="a folder of .ttf or .otf handwriting fonts in place of those from PyPI")
    add("--hands", choices=["all", "train", "held-out"], default="all", help="held-out: the fonts kept for testing")
    add("--ink", type=Path, help="a table of line images (image, text, certificate, writer): their ink on the forms")
    add("--ink-where", default="", help="only these rows of it, as collection=copiste,split=val")
    add("--terms", help="a word list to mix in: a CSV with a column text, or edsnlp, that package's ICD-10 labels")
    add("--workers", type=int, help="processes (default: one a CPU)")


def main(args: argparse.Namespace) -> int:
    from htr.images.simulate import simulate

    numbers = range(args.first, args.first + args.certificates)
    options = {
        name: getattr(args, name) for name in ("form", "severity", "dpi", "fonts", "hands", "ink", "ink_where", "terms")
    }
    workers = args.workers or len(os.sched_getaffinity(0))
    with Progress("simulate", len(numbers), "certificates") as progress:
        table = simulate(
            args.out, numbers, args.seed, workers=workers, progress=lambda n: progress.advance(n), **options
        )
    say(f"simulate: {len(numbers)} certificates, {table}")
    return 0
