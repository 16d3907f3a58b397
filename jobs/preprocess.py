"""python -m jobs preprocess SOURCE --out DATASET: a table, or pages with ALTO or PAGE XML, to WebDataset shards.

Runs alone, as any task of a job array, or as any rank of a job step: tasks own shards by number, skip what is
committed, and the last to finish merges the index. A second run does only what is missing. How far it is, from any
terminal: python -m jobs status DATASET.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from htr.charset import CROSSED_MARKS, ILLEGIBLE_MARKS
from jobs.cli.console import log
from jobs.cli.settings import setting
from jobs.distributed.work_sharding import share_of_work
from jobs.launch.shard_workers import write_missing


@dataclass(frozen=True)
class Settings:
    source: Path = setting(
        help="a CSV or Parquet table, or page images with ALTO or PAGE XML: a folder, a tar, a METS (mets.xml#GROUP)",
        positional=True,
    )
    out: Path = setting(help="folder of the data set to write, on shared storage")
    unit: Literal["line", "field"] = setting(
        "line",
        "what a row is: line (an image of its own, or a box on a page), or field (a field of a certificate, "
        "found on its form or by the row's box)",
    )
    forms: Path | None = setting(None, "folder of templates, NAME.json and NAME.png (default: those of the project)")
    rulings: Literal["keep", "remove"] = setting("keep", "keep or remove the printed lines in the stored fields")
    stray: Literal["reject", "blank"] = setting(
        "reject",
        "with --unit field, what ink on a field without text does: reject the row (unless it looks like stamps, folds, "
        "hairs and specks alone), or store the field as blank (for sources that never leave a text out)",
    )
    pages: bool = setting(False, "with --unit field: also store the whole page of each certificate, upright")
    rows: int = setting(10_000, "rows per shard", least=1)
    quotes: Literal["auto", "csv", "none"] = setting(
        "auto",
        "how quotes in a CSV are read: csv (a cell may hold several lines), none (quotes are text, each line "
        "is a row), or auto (the table decides; if it does not, it is refused)",
    )
    shares: str | None = setting(
        None,
        "share of each split, for sources without a column split "
        "(default: train=0.9,dev=0.02,val=0.04,calibration=0.02,test=0.02)",
    )
    years: str = setting(
        "", "splits by year, for example train=-2018,dev=2019,val=2020,test=2021- (default: by --shares)"
    )
    crossed: list[str] = setting(
        list(CROSSED_MARKS),
        f"what the texts write for crossed-out pieces, * for anything in it ({' '.join(CROSSED_MARKS)})",
        metavar="MARK",
    )
    illegible: list[str] = setting(
        list(ILLEGIBLE_MARKS), f"the same for illegible ones ({' '.join(ILLEGIBLE_MARKS)})", metavar="MARK"
    )
    may_share: list[Literal["writer", "certificate", "image"]] = setting(
        [], "allow that splits share this; repeatable (default: a source whose splits share anything is refused)"
    )
    encoding: Literal["jpg", "png"] = setting("jpg", "format of the stored images")
    quality: int = setting(95, "JPEG quality, 1 to 100", least=1, most=100)
    workers: int | None = setting(
        None, "number of processes of this task (default: one per CPU that it may use)", least=0
    )


def main(args: Settings) -> int:
    from htr.io.account import lines_of
    from jobs.launch.part_watchdog import watch_reading
    from shards.plan import open_plan, read_note

    with watch_reading(args.out, "reading the source"):
        plan, images = open_plan(args.out, args.source, settings_of(args))
    if share_of_work()[0] == 0:
        account = read_note(plan.folder).get("account", {})
        for line in lines_of(account):
            log(line if line.startswith(" ") else f"preprocess: {line}")
    return write_missing(plan, images, forms=args.forms, workers=args.workers)


def settings_of(args: Settings):
    from htr.forms.template import FORMS, digest_of_forms
    from shards.plan import SHARES, Settings

    shares = SHARES
    if args.shares:
        try:
            shares = {name: float(value) for name, value in (part.split("=") for part in args.shares.split(","))}
        except ValueError:
            raise ValueError(f"--shares {args.shares}: write it as train=0.9,dev=0.1") from None
    return Settings(
        rows=args.rows,
        shares=shares,
        years=args.years,
        crossed=tuple(args.crossed),
        illegible=tuple(args.illegible),
        share=sorted(args.may_share),
        encoding=args.encoding,
        quality=args.quality,
        unit=args.unit,
        quotes=args.quotes,
        rulings=args.rulings,
        stray=args.stray,
        pages=args.pages,
        forms=digest_of_forms(args.forms or FORMS) if args.unit == "field" else "",
    )
