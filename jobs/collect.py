"""python -m jobs collect RUNS… --out table.csv: the figures of all experiments on shared storage as one table.

    python -m jobs collect runs/ /shared/colleague/runs --out experiments.parquet
    python -m jobs collect runs/ctc-* --out scaling.md            the main columns alone, for a notebook

RUNS are run folders, or folders that hold some. A row an evaluation, with what was asked of the training (setting_NAME)
and what it took; a run without one has a row too. Rates are fractions, beside the ends of their 95 % intervals and the
number of clusters these rest on. A run that is damaged, half written or not yours to read is a row with the reason.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.console import log, printable
from jobs.cli.settings import setting
from jobs.training.config import has_run
from jobs.training.run_status import clean, describe, find, number, read, settings, text
from jobs.training.run_usage import USED, usage

RATES = ("cer", "wer", "wer_unicode", "line_accuracy", "field_accuracy", "certificate_accuracy")
OF_RUN = ("run", "evaluation", "state", "reason", "model", "size")
PROGRESS = ("step", "steps", "lines_per_s", "dev_cer")
OF_EVALUATION = ("split", "where", "decode", "eval_step", "lines", "characters", "edits")
INTERVALS = tuple(f"{name}{end}" for name in RATES for end in ("", "_low", "_high"))
ORIGIN = ("clusters", "cluster_unit", "code", "dataset", "eval_dataset")
COLUMNS = (*OF_RUN, *USED, *PROGRESS, *OF_EVALUATION, *INTERVALS, *ORIGIN)
TEXTS = ("run", "evaluation", "state", "reason", "model", "size", "device", "split", "where", "decode", "cluster_unit",
         "code", "dataset", "eval_dataset")  # fmt: skip
WHOLE = ("world", "hosts", "starts", "step", "steps", "eval_step", "lines", "characters", "edits", "clusters")
MAIN = ("run", "evaluation", "model", "world", "hours", "gpu_hours", "steps", "lines_per_s", "cer", "wer", "clusters",
        "state", "reason")  # fmt: skip
NOT_SETTINGS = (
    "alphabet",
    "model",
    "size",
    "steps",
    "dataset",
    "run",
    "verb",
)  # columns of their own, or longer than a cell
KINDS = (".csv", ".parquet", ".md")


@dataclass(frozen=True)
class Settings:
    runs: list[Path] = setting(help="run folders, or folders that hold some", positional=True, metavar="RUNS")
    out: Path = setting(help="table to write; its ending says the format (.csv, .parquet or .md)", metavar="FILE")


def main(args: Settings) -> int:
    from shards import files

    if args.out.suffix not in KINDS:
        raise ValueError(f"--out {args.out}: give it a name that ends in one of {', '.join(KINDS)}")
    runs = list(found(args.runs))
    described = describe(runs, evaluated=False)
    rows = [row for (_, run), known in zip(runs, described, strict=True) for row in rows_of(run, known)]
    if not rows:
        raise ValueError(f"no run in {', '.join(map(str, args.runs))}")
    write = {".csv": to_csv, ".parquet": to_parquet, ".md": to_markdown}[args.out.suffix]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(args.out, write(rows))
    runs, broken = len({row["run"] for row in rows}), sum(row["state"] == "unreadable" for row in rows)
    log(f"collect: {len(rows)} rows of {runs} runs in {args.out}" + (f", {broken} with damage" if broken else ""))
    return 0


def found(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    """(name, run) of every run below these folders, each once. Raises ValueError for a folder that is not there."""
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder: give run folders, or folders that hold some")
        for run in find(folder, half=True):
            if run.resolve() not in seen:
                seen.add(run.resolve())
                yield printable(str(run)), run


def rows_of(run: Path, described: dict) -> list[dict]:
    """A row an evaluation, or one without any figures of one. Nothing that a run's files may hold is raised.
    `described`: its row of run_status."""
    row = dict.fromkeys(COLUMNS) | {key: described[key] for key in (*PROGRESS, *OF_RUN) if key in described}
    try:
        if described["state"] != "unreadable":
            row |= used_and_asked(run)
        paths = sorted(path for path in run.glob("evaluation/*") if path.is_dir())
    except (ValueError, TypeError, AttributeError, OSError) as error:
        return [row | {"state": "unreadable", "reason": reason(error)}]
    missing = [] if has_run(run) else ["config.yaml"]
    missing += [] if (run / "status.json").exists() or row["state"] == "adopted" else ["status.json"]
    if missing:
        row |= {"state": "unreadable", "reason": f"{' and '.join(missing)} missing"}
    return [row | evaluation(path) for path in paths] or [row]


def reason(error: Exception) -> str:
    return clean(error.strerror if isinstance(error, OSError) and error.strerror else str(error))


def used_and_asked(run: Path) -> dict:
    config = settings(run)
    asked = {name: value for name, value in config.items() if name not in NOT_SETTINGS}
    columns = {f"setting_{clean(name)}": setting(value) for name, value in asked.items()}
    used = usage(run)
    return {name: used[name] for name in (*USED, "code")} | {"dataset": text(config, "dataset")} | columns


def setting(value) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(" ".join(map(str, value)) if isinstance(value, list) else str(value))


def evaluation(folder: Path) -> dict:
    """The columns of an evaluation; `reason` says why, if it is damaged or not complete."""
    row = {"evaluation": printable(folder.name)}
    if not (folder / "metrics.json").exists():
        return row | {"reason": "the evaluation is not finished: no metrics.json"}
    try:
        metrics = read(folder / "metrics.json")
        interval = metrics.get("interval") or {}
        row |= {name: number(metrics, name) for name in ("lines", "characters", "edits", *RATES)}
        row |= {name: text(metrics, name) for name in ("split", "decode")}
        row |= {"where": setting(metrics.get("where") or None), "eval_step": number(metrics, "step")}
        row |= {"clusters": number(interval, "groups"), "cluster_unit": text(interval, "unit")}
        row |= {"eval_dataset": text(metrics, "dataset")}
        for name in RATES:
            ends = dict(zip(("low", "high"), interval.get(name) or (), strict=False))
            row |= {f"{name}_{end}": number(ends, end) for end in ends}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        damaged = {"evaluation": printable(folder.name), "state": "unreadable", "reason": reason(error)}
        return dict.fromkeys((*OF_EVALUATION, *INTERVALS)) | damaged
    return row


# ---------------------------------------------------------------------------------------------------- the table


def columns_of(rows: list[dict]) -> list[str]:
    return [*COLUMNS, *sorted({name for row in rows for name in row} - set(COLUMNS))]


def to_csv(rows: list[dict]) -> str:
    table = io.StringIO()
    out = csv.DictWriter(table, columns_of(rows), restval="")
    out.writeheader()
    out.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)
    return table.getvalue()


def to_parquet(rows: list[dict]) -> bytes:
    """Columns in TEXTS become strings, those in WHOLE integers; a setting has the type that it has in all runs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for name in columns_of(rows):
        values = [row.get(name) for row in rows]
        if name in COLUMNS:
            kind = pa.string() if name in TEXTS else pa.int64() if name in WHOLE else pa.float64()
            arrays[name] = pa.array([int(v) if v is not None and name in WHOLE else v for v in values], kind)
            continue
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1:
            values = [None if value is None else json.dumps(value) if not isinstance(value, str) else value
                      for value in values]  # fmt: skip
        arrays[name] = pa.array(values, pa.string() if not kinds else None)
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue()


def to_markdown(rows: list[dict]) -> str:
    """A table of the columns MAIN; rates in percent, with intervals."""
    lines = [MAIN, ["---:" if name not in TEXTS else "---" for name in MAIN]]
    lines += [[cell(row, name) for name in MAIN] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(row: dict, name: str) -> str:
    value = row[name]
    if value is None:
        return ""
    if name in RATES:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{100 * value:.2f} %" + (f" ({100 * low:.2f} to {100 * high:.2f})" if None not in (low, high) else "")
    if name in ("hours", "gpu_hours"):
        return f"{value:.2f}"
    shown = f"{value:,.0f}".replace(",", " ") if isinstance(value, int | float) else value
    return "".join(f"\\{letter}" if letter in "\\|<*_`[" else letter for letter in shown)  # a name is no markup
