"""python -m jobs retry SOURCE --out DATASET: the rejected rows once more, after a fix, in shards of their own.

SOURCE is the data set's own (its images were mended) or a mended table: rows are found by certificate, field and line.
What is committed is not touched; run it as any task of a job array, as preprocess.
"""

from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log
from jobs.cli.settings import setting
from jobs.launch.shard_workers import write_missing


@dataclass(frozen=True)
class Settings:
    source: Path = setting(help="a CSV or Parquet table, or a folder of page images with XML", positional=True)
    out: Path = setting(help="folder of the data set")
    reason: list[str] = setting(
        [], "retry only rows that were rejected for this reason; repeatable (default: all rejected rows)"
    )
    forms: Path | None = setting(
        None, "folder of the templates that the data set was made with (default: those of the project)"
    )
    workers: int | None = setting(
        None, "number of processes of this task (default: one per CPU that it may use)", least=0
    )


def main(args: Settings) -> int:
    from htr.forms.template import FORMS, digest_of_forms
    from htr.io.sources import read_source
    from shards.plan import read_plan
    from shards.retry import open_retry

    plan = read_plan(args.out)
    if plan.settings.forms and plan.settings.forms != digest_of_forms(args.forms or FORMS):
        raise ValueError(f"{args.out} was made with other templates: give their folder as --forms")
    source, images = read_source(args.source, plan.settings.quotes)
    retry = open_retry(plan, source, args.reason)
    if retry is None:
        log(f"retry: nothing in {args.out} was rejected{' for that reason' if args.reason else ''}")
        return 0
    log(f"retry: {sum(shard['rows'] for shard in retry.shards)} rows once more")
    return write_missing(retry, images, forms=args.forms, workers=args.workers)
