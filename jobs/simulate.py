"""python -m jobs simulate --out FOLDER: scans of certificates filled in by simulated hands, or with real ink.

certificates.csv has one row for each field, as from data entry; lines.csv has one row for each written line, with its
box. preprocess takes either. truth/ has the registration of every scan on its form. Handwriting comes from stroke fonts
and the handwriting fonts on PyPI, from a folder of fonts, or (--ink) from a table of line images with their texts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import Progress, log
from jobs.cli.settings import setting
from jobs.distributed.cpus import cpus_of_task
from shards.files import in_shell


@dataclass(frozen=True)
class Settings:
    out: Path = setting(help="folder to write: the scans and certificates.csv")
    certificates: int = setting(1000, "number of certificates", least=1)
    first: int = setting(
        0, "number of the first certificate; a certificate depends on its number and --seed alone", least=0
    )
    seed: int = setting(0, "seed of all random choices", least=0)
    form: str = setting(
        "adult-2018", "form to fill in: adult-2018, adult-2024 or neonatal-2018; several with commas are mixed"
    )
    severity: str = setting("light", "how bad the scans are: clean, light, medium, hard, stained or fax")
    dpi: int | None = setting(
        None, "resolution of the scans, in dots per inch (default: that of the severity)", least=1
    )
    fonts: Path | None = setting(None, "folder of .ttf or .otf handwriting fonts (default: those from PyPI)")
    hands: Literal["all", "train", "held-out"] = setting(
        "all", "which hands write: all, those for training, or those held out for tests"
    )
    ink: Path | None = setting(
        None,
        "table of line images (image, text, certificate, writer) whose ink is put on the forms (default: fonts write)",
    )
    ink_where: str = setting("", "take only these rows of --ink, for example collection=copiste,split=val")
    terms: str | None = setting(
        None, "word list to mix in: a CSV with a column text, or edsnlp (the ICD-10 labels of that package)"
    )
    workers: int | None = setting(None, "number of processes (default: one per CPU)", least=0)


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
    log(
        f"simulate: {len(numbers)} certificates, {table}; next: python -m jobs preprocess {in_shell(table)} "
        f"--unit field --out DATASET"
    )
    return 0
