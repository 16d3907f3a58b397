"""Folders of random mixtures, through every verb that reads: read + rejected + passed over = there."""

import csv
import json
import os
import re
import tarfile
import traceback
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_accounts import KINDS, put, there

from jobs.cli.command_line import main
from jobs.transcription.table_writer import parts_folder
from shards.plan import Settings, open_plan
from shards.write import write_shard

ENTRIES = st.lists(
    st.tuples(st.sampled_from(["", "a", "a/b", "A B", "été"]), st.sampled_from(list(KINDS))), min_size=2, max_size=14
)


def made(folder: Path, entries: list[tuple[str, str]]) -> int:
    """-> how many entries are in it. One page with its XML is always there."""
    for number, (below, kind) in enumerate([("", "image"), ("", "xml"), *entries]):
        (folder / below).mkdir(parents=True, exist_ok=True)
        put(folder / below, number, kind)
    return there(folder)


def balanced(account: dict, count: int) -> dict:
    assert account["there"] == count == sum(account["kinds"].values()) + sum(account["passed_over"].values())
    return account


def preprocessed(source: Path, out: Path, count: int) -> tuple[int, int]:
    """-> rows, samples."""
    assert main(["preprocess", str(source), "--out", str(out), "--workers", "1", "--shares", "train=1"]) == 0
    account = balanced(json.loads((out / "plan.json").read_text(encoding="utf-8"))["account"], count)
    index = json.loads((out / "index.json").read_text(encoding="utf-8"))
    samples, rejected = sum(index["totals"].values()), sum(index["rejects"].values())
    assert samples + rejected == index["rows"] == account["kinds"]["XML"]  # every XML made here has one line
    return index["rows"], samples


def transcribed(source: Path, out: Path, model: Path, count: int, *more: str) -> list[dict]:
    options = ["--out", str(out), "--model", str(model), "--device", "cpu", "--workers", "1", *more]
    assert main(["transcribe", str(source), *options]) == 0
    summary = json.loads((parts_folder(out) / "summary.json").read_text(encoding="utf-8"))
    balanced(summary["account"], count)
    with open(out, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert summary["rows"] == len(rows) == sum(summary["decisions"].values())
    assert sum(summary["reasons"].values()) == sum(bool(row["reason"]) for row in rows)
    return rows


def inspected(source: Path, out: Path, count: int, capsys) -> None:
    capsys.readouterr()
    assert main(["inspect", str(source), "--certificate", "e1", "--out", str(out)]) == 0
    told = re.search(r"(\d+) entries: (\d+) read .*, (\d+) passed over", capsys.readouterr().err)
    assert int(told[1]) == count == int(told[2]) + int(told[3])


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES)
def test_every_verb_accounts_for_every_entry(tmp_path_factory, untrained, capsys, entries):
    folder, work = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("work")
    count = made(folder, entries)
    rows, samples = preprocessed(folder, work / "set", count)
    assert len(transcribed(folder, work / "lines.csv", untrained, count)) == rows
    fields = transcribed(folder, work / "fields.csv", untrained, count, "--unit", "field")
    images = json.loads((parts_folder(work / "fields.csv") / "summary.json").read_text(encoding="utf-8"))["account"]
    assert len({(row["image"], row["page"]) for row in fields}) >= images["kinds"]["images"]
    inspected(folder, work / "page.html", count, capsys)
    if samples:  # what align makes of a data set: a row a sample, or passed over
        assert main(["align", str(work / "set"), "--run", str(untrained), "--to", "lines", "--device", "cpu"]) == 0
        aligned = pq.read_table(work / "set" / "aligned-lines.parquet")
        index = json.loads((work / "set" / "index.json").read_text(encoding="utf-8"))
        with_text = sum(index["levels"].get(level, 0) for level in ("line", "field"))
        assert len({*zip(*(aligned[name].to_pylist() for name in ("certificate", "field")), strict=True)}) == with_text


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES)
def test_the_same_in_a_tar(tmp_path_factory, untrained, capsys, entries):
    folder, work = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("work")
    made(folder, [entry for entry in entries if entry[1] != "pipe"])
    archive = work / "mixed.tar"
    with tarfile.open(archive, "w") as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, str(file.relative_to(folder)), recursive=False)
    with tarfile.open(archive) as tar:
        count = sum(not member.isdir() for member in tar)
    rows, _ = preprocessed(archive, work / "set", count)
    assert len(transcribed(archive, work / "lines.csv", untrained, count)) == rows
    inspected(archive, work / "page.html", count, capsys)


@pytest.mark.parametrize("locked", ["folder", "image", "xml"])
def test_as_another_user_who_may_not_read_everything(tmp_path, capfd, locked):
    """In a process that is nobody's: root may read anything."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    count = made(source, [("a", "image"), ("a", "xml")])
    for path in (source, *source.rglob("*")):
        path.chmod(0o755)
    locked_path = {"folder": source / "a", "image": source / "a" / "e2.png", "xml": source / "a" / "e3.xml"}[locked]
    locked_path.chmod(0)
    child = os.fork()
    if not child:
        status = 9
        try:
            if os.geteuid() == 0:
                for parent in (tmp_path, *list(tmp_path.parents)[:2]):
                    parent.chmod(0o755)
                os.setuid(65534)
            if locked == "image":
                plan, images = open_plan(out / "set", source, Settings())
                notes = [write_shard(plan, number, images) for number in range(len(plan.shards))]
                balanced(json.loads((out / "set" / "plan.json").read_text(encoding="utf-8"))["account"], count)
                rejects = [note["rejects"] for note in notes if note["rejects"]]
                status = 0 if rejects == [{"image file may not be read": 1}] else 1
            else:
                refused = main(["preprocess", str(source), "--out", str(out / "set"), "--workers", "1"])
                status = 0 if refused and not (out / "set" / "plan.json").exists() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    locked_path.chmod(0o755)
    told = capfd.readouterr().err
    wanted = {"folder": "a: this folder may not be entered", "image": "",
              "xml": "e3.xml: can't be read (PermissionError)"}[locked]  # fmt: skip
    assert code == 0 and wanted in told, told
