"""python -m jobs simulate --out FOLDER: scans of certificates filled in by simulated hands, or with real ink.

certificates.csv has a row a field, as data entry leaves it; lines.csv a row a written line with its box: preprocess
takes either. truth/ says of every scan how it lies on its form. Handwriting comes from stroke fonts and the handwriting
fonts that PyPI has, from a folder of fonts, or (--ink) from a table of line images with their texts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.cpus import cpus_of_task


@dataclass(frozen=True)
class Settings:
    out: Path = setting(help="folder of the scans and certificates.csv")
    certificates: int = setting(1000, "how many")
    first: int = setting(0, "number of the first certificate; a certificate depends on its number and --seed alone")
    seed: int = setting(0, "of everything random")
    form: str = setting("adult-2018", "adult-2018, adult-2024, neonatal-2018, or a mix: several with commas")
    severity: str = setting("light", "clean, light, medium, hard, stained or fax (default: %(default)s)")
    dpi: int | None = setting(None, "resolution of the scans (default: those of the severity)")
    fonts: Path | None = setting(None, "a folder of .ttf or .otf handwriting fonts in place of those from PyPI")
    hands: Literal["all", "train", "held-out"] = setting("all", "held-out: the fonts kept for testing")
    ink: Path | None = setting(
        None, "a table of line images (image, text, certificate, writer): their ink on the forms"
    )
    ink_where: str = setting("", "only these rows of it, as collection=copiste,split=val")
    terms: str | None = setting(
        None, "a word list to mix in: a CSV with a column text, or edsnlp, that package's ICD-10 labels"
    )
    workers: int | None = setting(None, "processes (default: one a CPU)")


def main(args: Settings) -> int:
    from htr.synth.simulate import simulate

    numbers = range(args.first, args.first + args.certificates)
    options = {
        name: getattr(args, name) for name in ("form", "severity", "dpi", "fonts", "hands", "ink", "ink_where", "terms")
    }
    workers = args.workers or cpus_of_task()
    with Progress("simulate", len(numbers), "certificates") as progress:
        table = simulate(
            args.out, numbers, args.seed, workers=workers, progress=lambda n: progress.advance(n), **options
        )
    log(f"simulate: {len(numbers)} certificates, {table}")
    return 0
