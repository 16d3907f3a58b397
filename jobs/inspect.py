"""python -m jobs inspect SOURCE --certificate ID: a page of pictures (HTML) of every stage of one certificate.
python -m jobs inspect DATASET --augment: a sheet of lines and what augmentation makes of them.

The page shows the scan with the fields that were found, each field as it was cut, with its background flattened, and
divided into lines, the samples that are stored, and why a row is rejected. It holds the certificate itself, and is as
confidential as the scan.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.console import log
from jobs.cli.settings import setting

LINES_SHOWN = 12  # of a sheet


@dataclass(frozen=True)
class Settings:
    source: Path = setting(help="the same source as for preprocess; with --augment a data set", positional=True)
    certificate: str | None = setting(None, "identifier of the certificate to show, as in the source")
    augment: str | None = setting(
        None,
        "show a sheet of lines of a data set instead, as stored and as a training sees them; the level is "
        "none, light, medium or strong (default level: %(const)s)",
        const="medium",
        metavar="LEVEL",
    )
    seed: int = setting(0, "seed of the lines shown and of their distortion", least=0)
    unit: Literal["line", "field"] | None = setting(
        None, "what a row is (default: field if no row has a box, else line)"
    )
    forms: Path | None = setting(None, "folder of templates (default: those of the project)")
    quotes: Literal["auto", "csv", "none"] = setting("auto", "how quotes in a CSV are read, as for preprocess")
    rulings: Literal["keep", "remove"] = setting("keep", "keep or remove the printed lines in the stored fields")
    out: Path = setting(Path("inspect.html"), "page to write")


def main(args: Settings) -> int:
    if args.augment:
        augmented(args)
    elif args.certificate is None:
        raise ValueError("which one? give --certificate ID, or --augment for a sheet of augmented lines")
    else:
        stages(args)
    log(f"inspect: {args.out} (confidential: it shows handwriting)")
    return 0


def augmented(args: Settings) -> None:
    import numpy as np

    from jobs.html.augmentation_view import write_sheet
    from shards.index import read_index
    from shards.loader import Samples

    table = read_index(args.source).samples("train")
    samples = Samples(args.source, table)
    rows = np.random.default_rng(args.seed).permutation(len(samples))[:LINES_SHOWN]
    images = ((samples.key(int(row)), samples.read(int(row))[0][0]) for row in rows)
    write_sheet(images, args.out, seed=args.seed, level=args.augment)
    samples.close()


def stages(args: Settings) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    from htr.io.account import Account, lines_of
    from htr.io.sources import read_source
    from jobs.html.pipeline_view import describe
    from shards import files
    from shards.plan import Settings, make_plan

    account = Account()
    source, images = read_source(args.source, args.quotes, account)
    for line in lines_of(account.as_dict()):
        log(line if line.startswith(" ") else f"inspect: {line}")
    mask = pc.equal(source["certificate"].cast(pa.string()), args.certificate)
    unit = args.unit or ("line" if boxed(source) else "field")
    source = source.filter(mask)
    if not source.num_rows:
        raise ValueError(f"{args.source}: no row of this certificate")
    settings = Settings(unit=unit, rulings=args.rulings, share=("writer", "image", "certificate"))
    with tempfile.TemporaryDirectory() as folder:  # for this user alone
        plan = make_plan(Path(folder), source, settings)
        rows = [row for number in range(len(plan.shards)) for row in plan.rows(number)]
        page = describe(rows, images, settings, args.forms)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(args.out, page)
    os.chmod(args.out, 0o600)


def boxed(source) -> bool:
    """Whether the source's rows say where their lines are, or each row has an image of its own."""
    given = any(set(source[name].unique().to_pylist()) != {""} for name in ("box", "polygon"))
    return given or len(source["image"].unique()) == source.num_rows
