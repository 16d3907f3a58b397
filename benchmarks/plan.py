"""Planning a table of millions of rows, and merging the index of hundreds of shards: seconds and memory.

    python benchmarks/plan.py --rows 5000000 --format csv

Every step is a process of its own, whose time is that of the whole process and whose memory is its peak; the table was
just written and lies in the page cache. Beside them, in the same run, the bare limit: reading the table with pyarrow.
The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIELDS = ("Ia", "Ib", "Ic", "Id", "II", "duree", "lieu")  # of each certificate
CAUSES = ("choc septique", "insuffisance rénale chronique", "AVC", "cancer du sein métastatique", "démence", "grippe")
PIECE = 250_000  # rows made at once


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the table (default: %(default)s)")
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv", help="of the table")
    parser.add_argument("--shards", type=int, default=500, help="to merge (default: %(default)s)")
    parser.add_argument("--shard-rows", type=int, default=10_000, help="rows of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="an empty scratch folder (default: a temporary one)")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        STEPS[args.step](args)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        args.out = args.out or Path(scratch)
        args.out.mkdir(parents=True, exist_ok=True)
        return measure(parser, args)


def measure(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if left := [name for name in ("plan", "index") if (args.out / name).exists()]:
        parser.error(f"{args.out} holds {' and '.join(left)} of an earlier run: give an empty folder")
    print(f"{'step':36s} {'s':>8s} {'CPU s':>8s} {'GiB':>8s}")
    taken = {name: run(name, step, args.out) for name, step in STEPS.items()}
    ratio = taken["plan"][0] / taken["bare"][0]
    print(f"planning takes {ratio:.1f} times as long as reading the table")
    figures = {"rows": args.rows, "plan_s": taken["plan"][0], "plan_gib": taken["plan"][1], "read_s": taken["bare"][0]}
    figures |= {"ratio_to_read": ratio, "index_s": taken["index"][0], "index_gib": taken["index"][1]}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


def run(name: str, step, out: Path) -> tuple[float, float]:
    """A step in a process of its own. -> its seconds, its peak in GiB."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--out", str(out), "--step", name])
    _, status, used = os.wait4(process.pid, 0)
    seconds, memory = time.monotonic() - began, used.ru_maxrss / 2**20
    if status:
        raise SystemExit(f"{name} failed")
    print(f"{step.__doc__:36s} {seconds:8.1f} {used.ru_utime + used.ru_stime:8.1f} {memory:8.2f}", flush=True)
    return seconds, memory


def table_of(args: argparse.Namespace) -> Path:
    return args.out / f"table.{args.format}"


def make_table(args: argparse.Namespace) -> None:
    """the table is written"""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    rng, writer = np.random.default_rng(0), None
    for start in range(0, args.rows, PIECE):
        rows = np.arange(start, min(start + PIECE, args.rows))
        certificates = rows // len(FIELDS)
        causes = rng.integers(0, len(CAUSES), len(rows))
        years = 2010 + certificates * 10 // max(args.rows // len(FIELDS), 1)
        columns = {
            "image": [f"scans/{year}/{number:07d}.tif" for year, number in zip(years, certificates, strict=True)],
            "text": [f"{CAUSES[cause]}, {number} jours" for cause, number in zip(causes, rows % 9973, strict=True)],
            "certificate": [f"{year}-{number:07d}" for year, number in zip(years, certificates, strict=True)],
            "field": [FIELDS[number] for number in rows % len(FIELDS)],
            "year": [str(year) for year in years],
            "form": ["adulte-2018" if year >= 2018 else "adulte-1997" for year in years],
            "writer": [f"w{number}" if number % 3 else "" for number in certificates % 100_003],
        }
        table = pa.table(columns)
        if writer is None:
            kind = pq.ParquetWriter if args.format == "parquet" else pa.csv.CSVWriter
            writer = kind(table_of(args), table.schema)
        writer.write_table(table)
    writer.close()


def read_bare(args: argparse.Namespace) -> None:
    """read with pyarrow, nothing else"""
    import pyarrow.csv
    import pyarrow.parquet as pq

    if args.format == "parquet":
        pq.read_table(table_of(args))
    else:
        pyarrow.csv.read_csv(table_of(args))


def plan_table(args: argparse.Namespace) -> None:
    """read and planned"""
    from shards.plan import Settings, open_plan

    plan, _ = open_plan(args.out / "plan", table_of(args), Settings(unit="field"))
    if sum(shard["rows"] for shard in plan.shards) != args.rows:
        raise SystemExit("rows are missing")


def open_again(args: argparse.Namespace) -> None:
    """the same plan, opened by another task"""
    plan_table(args)


def make_shards(args: argparse.Namespace) -> None:
    """shards' tables and notes are written"""
    from dataclasses import asdict

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from htr.io.sources import OURS
    from shards import files
    from shards.plan import Settings
    from shards.sample import NOT_META
    from shards.write import Outcomes

    folder = args.out / "index"
    folder.mkdir()
    rng, size = np.random.default_rng(0), args.shard_rows
    columns = [name for name in OURS if name not in NOT_META]
    schema = Outcomes(columns).table().schema
    names = [f"train-{number:05d}" for number in range(args.shards)]
    for number, name in enumerate(names):
        rows = np.arange(number * size, (number + 1) * size)
        certificates = [f"20{row % 20:02d}-{row // len(FIELDS):07d}" for row in rows]
        fields = [FIELDS[row % len(FIELDS)] for row in rows]
        lost = rng.random(size) < 0.02
        columns = {
            "row": pa.array(rows),
            "key": pa.array([f"{c}_{f}_0" for c, f in zip(certificates, fields, strict=True)]),
            "certificate": pa.array(certificates),
            "field": pa.array(fields),
            "split": pa.repeat("train", size),
            "writer": pa.array([f"w{row % 100_003}" for row in rows]),
            "level": pa.array(np.where(lost, None, "field").tolist(), pa.string()),
            "outcome": pa.array(np.where(lost, "rejected", "sample")),
            "reason": pa.array(np.where(lost, "scan fits no template", None).tolist(), pa.string()),
            "ink": pa.array(rng.random(size), pa.float32()),
        }
        for entry in schema:
            if entry.name not in columns:
                numbers = pa.types.is_integer(entry.type)
                columns[entry.name] = pa.array(rng.integers(0, 1 << 20, size)) if numbers else pa.repeat("x", size)
        pq.write_table(pa.table([columns[entry.name] for entry in schema], schema), folder / f"{name}.parquet")
        count = int(size - lost.sum())
        note = {"shard": name, "split": "train", "rows": size, "count": count, "bytes": size, "sha256": name}
        note |= {
            "levels": {"line": count},
            "rejects": {"scan fits no template": size - count},
            "characters": {"é": count, "e": count},
        }
        (folder / f"{name}.json").write_text(files.to_json(note), encoding="utf-8")
    shards = [{"name": name, "split": "train", "rows": size} for name in names]
    plan = {"settings": asdict(Settings(rows=size)), "fingerprint": "none", "shards": shards}
    (folder / "plan.json").write_text(files.to_json(plan), encoding="utf-8")


def merge_index(args: argparse.Namespace) -> None:
    """their index is merged"""
    from shards.index import merge
    from shards.plan import read_plan

    merge(read_plan(args.out / "index"))


STEPS = {
    "table": make_table,
    "bare": read_bare,
    "plan": plan_table,
    "again": open_again,
    "shards": make_shards,
    "index": merge_index,
}

if __name__ == "__main__":
    raise SystemExit(main())
