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
    out: Path = setting(help="the data set's folder, on shared storage")
    unit: Literal["line", "field"] = setting(
        "line",
        "what a row is: a line (an image of its own, or a box on a page), or a field of a certificate, which is "
        "found on its form, or by the row's box (default: %(default)s)",
    )
    forms: Path | None = setting(None, "a folder of templates, NAME.json and NAME.png (default: those of the project)")
    rulings: Literal["keep", "remove"] = setting("keep", "in the stored fields (default: %(default)s)")
    stray: Literal["reject", "blank"] = setting(
        "reject",
        "with --unit field: ink on a field without text, a stamp perhaps, rejects the row; or it is blank, where "
        "the source never leaves a text out (default: %(default)s)",
    )
    pages: bool = setting(False, "with --unit field: store each certificate's whole page too, upright")
    rows: int = setting(10_000, "rows a shard (default: %(default)s)")
    quotes: Literal["auto", "csv", "none"] = setting(
        "auto",
        "of a CSV: CSV's, so that a cell may hold several lines; none: they are text, every line a row; auto: by "
        "what is in the table, which is refused where it can't be told (default: %(default)s)",
    )
    shares: str | None = setting(None, "of the splits, as train=0.9,dev=0.02,… where the source has no split column")
    years: str = setting("", "splits by year instead, as train=-2018,dev=2019,val=2020,test=2021-")
    crossed: list[str] = setting(
        list(CROSSED_MARKS),
        f"what the texts write for crossed-out pieces, * for anything in it ({' '.join(CROSSED_MARKS)})",
        metavar="MARK",
    )
    illegible: list[str] = setting(
        list(ILLEGIBLE_MARKS), f"the same for illegible ones ({' '.join(ILLEGIBLE_MARKS)})", metavar="MARK"
    )
    may_share: list[Literal["writer", "certificate", "image"]] = setting(
        [], "do not refuse a source whose splits have this in common"
    )
    encoding: Literal["jpg", "png"] = setting("jpg", "of the stored lines")
    quality: int = setting(95, "of JPEG (default: %(default)s)")
    workers: int | None = setting(None, "processes of this task (default: one a CPU that it may use)")


def main(args: Settings) -> int:
    from htr.io.account import lines_of
    from shards.plan import open_plan, read_note

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
