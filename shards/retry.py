"""Rejected rows once more, after a fix, in shards of their own: what is committed is never touched.

retry-01.parquet holds the rows, retry-01.json, written last, the shards they go to: train-retry01-00000 … The outcome
of a row in the last retry is the one that counts.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from htr.certificate import SPLITS
from shards import files
from shards.arrange import number_lines
from shards.index import missing_shards, read_retries
from shards.plan import Plan, read_plan

KEY_COLUMNS = ("certificate", "field", "line")


def open_retry(plan: Plan, source: pa.Table, reasons: list[str]) -> Plan | None:
    """A plan of the rows that were rejected for good, so that they are tried again; an unfinished retry is taken up
    instead. None if nothing is rejected.

    `source`: the plan's own, or a mended one; rows are found by certificate, field and line, and keep their split.
    `reasons`: only rows that were rejected for one of these (empty: all). Raises ValueError where the data set is not
    complete, or no rejected row is in the source.
    """
    folder = plan.folder
    retries = read_retries(folder)
    if missing_shards(plan) or not (folder / "rejects.parquet").exists():
        raise ValueError(f"{folder}: the data set is not whole: finish it first, with python -m jobs preprocess")
    if retries and not merged(retries[-1]):
        return retries[-1]
    rejects = pq.read_table(folder / "rejects.parquet")
    if reasons:
        rejects = rejects.filter(pc.is_in(rejects["reason"], pa.array(reasons, pa.string())))
    if not rejects.num_rows:
        return None
    table = rows_again(plan, rejects, numbered(plan, source))
    if not table.num_rows:
        raise ValueError(f"{folder}: none of its {rejects.num_rows} rejected rows is in this source")
    if plan.settings.unit == "field":
        table = table.append_column("page_known", pages_known(plan, retries, table))
    name = f"retry-{len(retries) + 1:02d}"
    shards, groups = [], []
    for split in SPLITS:
        rows = table.filter(pc.equal(table["split"], split))
        for number, group in enumerate(slices(rows, plan.settings.rows)):
            groups.append(group)
            label = f"{split}-{name.replace('-', '')}-{number:05d}"
            shards.append({"name": label, "split": split, "rows": groups[-1].num_rows})
    write_retry(folder, name, plan.fingerprint, shards, groups)
    return read_plan(folder, name)


def numbered(plan: Plan, source: pa.Table) -> pa.Table:
    """The source with the plan's numbers of lines, where the plan gave them numbers (see arrange.number_lines).

    Raises ValueError where rows were added or removed since: the numbers would then name other lines.
    """
    table = number_lines(source, plan.settings.unit)
    planned = sum(shard["rows"] for shard in plan.shards)
    if table is not source and source.num_rows != planned:
        raise ValueError(
            f"this source has {source.num_rows} rows, {plan.folder} was made from {planned}, and its lines have no "
            f"numbers: keep all rows, or add a column line with the numbers that rejects.parquet has"
        )
    return table


def merged(plan: Plan) -> bool:
    """Whether the data set's index has this retry's shards; until then rejects.parquet is that of before the retry."""
    try:
        index = files.read_json(plan.folder / "index.json")
    except FileNotFoundError:
        return False
    return {shard["name"] for shard in plan.shards} <= {shard["shard"] for shard in index["shards"]}


def rows_again(plan: Plan, rejects: pa.Table, source: pa.Table) -> pa.Table:
    """The rejected rows in the plan's columns. Their texts and regions are the source's of today, row number and split
    the plan's."""
    wanted = rejects["row"].combine_chunks()
    old = pa.concat_tables(plan.rows_with("row", wanted))
    new = {}
    names = set(zip(*(old[name].to_pylist() for name in KEY_COLUMNS), strict=True))
    # only the rows that are named again become Python objects
    mask = pc.is_in(source["certificate"], old["certificate"].combine_chunks().unique())
    for row in source.filter(mask).to_pylist():
        if (name := tuple(row[column] for column in KEY_COLUMNS)) in names:
            new.setdefault(name, row)
    again = []
    for row in old.to_pylist():
        found = new.get(tuple(row[column] for column in KEY_COLUMNS))
        if found and not row["fault"]:  # a duplicate stays one
            mended = {column: value for column, value in found.items() if column in row and column != "split"}
            again.append(row | mended)
    return pa.Table.from_pylist(again, old.schema)


def pages_known(plan: Plan, retries: list[Plan], again: pa.Table) -> pa.Array:
    """For each row that is tried again, JSON of what else is known of its page: {rows: [{row, field, text, fault,
    reject}], there: [[field, line]]}.

    `rows`: the page's other rows, as planned or as a later retry has them; `there`: the samples of its certificate.
    """
    images = again["image"].combine_chunks().unique()
    tried, latest = set(again["row"].to_pylist()), {}
    for earlier in (plan, *retries):
        for rows in earlier.rows_with("image", images):
            latest |= {row["row"]: row for row in rows.to_pylist()}
    others, there = defaultdict(list), defaultdict(list)
    for number, row in sorted(latest.items()):
        if number not in tried:
            said = {name: row[name] for name in ("row", "field", "text", "fault", "reject") if name in row}
            others[row["image"], row["page"]].append(said)
    names = pa.array(again["certificate"].combine_chunks().unique())
    of_these = pc.field("certificate").isin(names)
    index = pq.read_table(plan.folder / "index.parquet", columns=["certificate", "field", "line"], filters=of_these)
    for row in index.to_pylist():
        there[row["certificate"]].append([row["field"], row["line"]])
    known = (
        {"rows": others[row["image"], row["page"]], "there": there[row["certificate"]]}
        for row in again.select(["image", "page", "certificate"]).to_pylist()
    )
    return pa.array(json.dumps(page, ensure_ascii=False) for page in known)


def slices(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    """Tables of about `most` rows; the rows of one page are in one table."""
    pages, start = list(zip(rows["image"].to_pylist(), rows["page"].to_pylist(), strict=True)), 0
    for place in range(1, len(pages) + 1):
        if place == len(pages) or (place - start >= most and pages[place] != pages[place - 1]):
            yield rows.slice(start, place - start)
            start = place


def write_retry(folder: Path, name: str, fingerprint: str, shards: list[dict], groups: list[pa.Table]) -> None:
    """Write and commit a retry's rows and note. Several tasks may do so at once: they write the same, and the first
    counts."""
    rows, note = files.temporary(folder / f"{name}.parquet"), files.temporary(folder / f"{name}.json")
    try:
        with (
            files.named(folder / f"{name}.parquet"),
            pq.ParquetWriter(rows, groups[0].schema, compression="zstd") as writer,
        ):
            for group in groups:
                writer.write_table(group, row_group_size=group.num_rows)
        files.sync(rows)
        if (folder / f"{name}.json").exists():
            return  # another task was first
        rows.replace(folder / f"{name}.parquet")
        with files.named(folder / f"{name}.json"):
            files.write_synced(note, files.to_json({"fingerprint": fingerprint, "shards": shards}))
        files.commit(note, folder / f"{name}.json")
    finally:
        rows.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
