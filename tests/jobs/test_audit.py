"""Labels that readings contradict: a table for a person, and the way back into the source."""

import csv
import stat
from pathlib import Path

import cv2
import evaluated
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from htr.io.sources import read_source
from jobs.audit import AUDIT_COLUMNS, surprises
from jobs.cli.command_line import main
from shards.index import read_index

WRONG = (5, 11)  # rows of the source whose label is another line's


@pytest.fixture
def source(tmp_path: Path, draw, write_table) -> Path:
    """Twenty-four lines of six certificates below scans/, the rows of the evaluation, with a column of their own."""
    table, rows = evaluated.lines(0, 6), []
    (tmp_path / "scans" / "lines").mkdir(parents=True)
    for row in table.to_pylist():
        image = f"lines/{row['row']}.png"
        cv2.imwrite(str(tmp_path / "scans" / image), draw("grippe"))
        named = {name: row[name] for name in ("certificate", "field", "line")}
        rows.append({"image": image, "text": row["reference"], **named, "ward": "north", "split": "test"})
    for i in WRONG:
        rows[i]["text"] = "une tout autre ligne"
    return write_table(tmp_path / "scans" / "lines.csv", rows)


@pytest.fixture
def run(tmp_path: Path, source: Path) -> Path:
    table = evaluated.lines(0, 6)
    labels = read_source(source)[0]["text"].to_pylist()
    # all readings are what was written, but for one sure one that has a letter wrong
    read = [text if i not in WRONG else evaluated.CANARY for i, text in enumerate(labels)]
    read[2] = read[2][:-1] + "x"
    edits = [0] * len(labels)
    edits[5] = edits[11] = 20
    edits[2] = 1
    columns = {"reference": labels, "hypothesis": read, "edits": edits, "exact": [int(e == 0) for e in edits],
               "confidence": [0.99] * len(labels), "characters": [len(text) for text in labels]}  # fmt: skip
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    evaluated.write(tmp_path / "run" / "evaluation" / "test", table, "test")
    return tmp_path / "run"


def rows_of(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def audit(*options: object) -> int:
    return main(["audit", *map(str, options)])


def test_the_most_surprising_come_first_with_all_of_the_sources_columns(run: Path, source: Path, capsys):
    assert audit("--run", run, "--evaluation", "test", "--source", source) == 0
    out = run / "audit" / "test.csv"
    rows = rows_of(out)
    assert [int(row["audit_row"]) for row in rows] == [5, 11, 2]
    assert rows[0]["text"] == rows[0]["audit_text"] == "une tout autre ligne"
    assert rows[0]["audit_reading"] == evaluated.CANARY and rows[0]["ward"] == "north" and rows[0]["reject"] == ""
    assert set(AUDIT_COLUMNS) < set(rows[0]) and float(rows[0]["audit_surprise"]) > 10 > float(
        rows[2]["audit_surprise"]
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    said = capsys.readouterr()
    assert "3 of 3 lines whose reading differs from the transcription, of 24" in said.out
    assert evaluated.CANARY not in said.out + said.err and "autre" not in said.out + said.err
    assert audit("--run", run, "--evaluation", "test", "--source", source) == 1
    assert "exists already, perhaps with corrections" in capsys.readouterr().err


def test_where_frames_say_how_well_a_label_fits_they_decide(run: Path, source: Path):
    """Of two labels with as many edits the one that the frames contradict more comes first, and ahead of a third."""
    gaps = {2: 0.5, 5: 9.0, 11: 90.0}
    for part in (run / "evaluation" / "test" / "parts").iterdir():
        table = pq.read_table(part)
        own = pa.array([gaps.get(row, 0.0) for row in table["row"].to_pylist()])
        pq.write_table(table.append_column("label_gap", own), part)
    assert audit("--run", run, "--evaluation", "test", "--source", source) == 0
    rows = rows_of(run / "audit" / "test.csv")
    assert [int(row["audit_row"]) for row in rows] == [11, 5, 2]
    expected = [float(row["audit_expected"]) for row in rows]
    assert [float(row["audit_surprise"]) for row in rows] == pytest.approx(
        [gap / (1 + mean) for gap, mean in zip((90.0, 9.0, 0.5), expected, strict=True)], abs=0.2
    )


def test_what_was_mended_goes_back_into_a_source_that_preprocess_takes(run: Path, source: Path, write_table, tmp_path):
    audit("--run", run, "--evaluation", "test", "--source", source)
    out = run / "audit" / "test.csv"
    rows = rows_of(out)
    rows[0]["text"], rows[1]["reject"] = "grippe", "another line's text"
    mended = source.with_name("mended.csv")
    assert audit("--apply", write_table(out, rows[:2]), "--source", source, "--out", mended) == 0
    after, before = rows_of(mended), rows_of(source)
    assert after[5]["text"] == "grippe" and after[11]["reject"] == "another line's text"
    assert after[11]["text"] == before[11]["text"] and after[2]["text"] == before[2]["text"]
    assert [{name: row[name] for name in before[0]} for i, row in enumerate(after) if i != 5] == [
        row for i, row in enumerate(before) if i != 5
    ]
    assert stat.S_IMODE(mended.stat().st_mode) == 0o640
    assert main(["preprocess", str(mended), "--out", str(tmp_path / "data"), "--workers", "1"]) == 0
    index = read_index(tmp_path / "data")
    assert len(index.samples("test", {})) == len(before) - 1  # all but the rejected one


def test_a_table_in_the_sources_folder_is_a_source_itself(run: Path, source: Path, tmp_path: Path):
    out = tmp_path / "audited.csv"  # above the images
    assert audit("--run", run, "--evaluation", "test", "--source", source, "--out", out, "--most", 2) == 0
    assert [row["image"] for row in rows_of(out)] == ["scans/lines/5.png", "scans/lines/11.png"]
    assert main(["preprocess", str(out), "--out", str(tmp_path / "data"), "--workers", "1"]) == 0
    assert len(read_index(tmp_path / "data").samples("test", {})) == 2


def test_without_a_source_the_images_are_the_data_sets_own(source: Path, tmp_path: Path, draw):
    """A real evaluation's rows: a data set, and a run that was trained on it."""
    data = tmp_path / "data"
    assert main(["preprocess", str(source), "--out", str(data), "--workers", "1"]) == 0
    index = read_index(data)
    table = index.samples("test", {})
    known = evaluated.lines(0, 6)
    for name in ("key", "shard", "certificate", "field", "line"):
        known = known.set_column(known.column_names.index(name), name, table[name])
    known = known.append_column("split", table["split"])
    run = tmp_path / "run"
    evaluated.write(run / "evaluation" / "test", known, "test", dataset=index.fingerprint)
    (run / "config.json").write_text(f'{{"folder": "{data}"}}')
    assert audit("--run", run, "--evaluation", "test", "--out", data / "audit.csv") == 0
    rows = rows_of(data / "audit.csv")
    assert len(rows) == known["exact"].to_pylist().count(0) > 0
    assert main(["preprocess", str(data / "audit.csv"), "--out", str(tmp_path / "again"), "--workers", "1"]) == 0
    assert len(read_index(tmp_path / "again").samples("test", {})) == len(rows)


def test_what_cannot_be_audited_or_applied(run: Path, source: Path, write_table, tmp_path: Path, capsys):
    def fails(match: str, *options: object) -> None:
        assert audit(*options) == 1
        said = capsys.readouterr().err
        assert match in said and evaluated.CANARY not in said and "autre" not in said

    fails("give --run and --evaluation", "--source", source)
    fails("give --source, the table", "--run", run, "--evaluation", "test")
    fails("no promise here", "--run", run, "--evaluation", "test", "--source", source, "--promise", "none")
    rows = rows_of(source)
    other = write_table(source.with_name("other.csv"), rows[::-1])
    fails("rows are of other certificates", "--run", run, "--evaluation", "test", "--source", other)
    short = write_table(source.with_name("short.csv"), rows[:3])
    fails("rows are of other certificates", "--run", run, "--evaluation", "test", "--source", short)
    audit("--run", run, "--evaluation", "test", "--source", source)
    table = run / "audit" / "test.csv"
    mended = source.with_name("mended.csv")
    capsys.readouterr()
    fails("a row is not one of the source's", "--apply", table, "--source", other, "--out", mended)
    fails("so that preprocess finds the images", "--apply", table, "--source", source, "--out", run / "mended.csv")
    fails("not a table that audit wrote", "--apply", source, "--source", source, "--out", mended)
    fails("give the name of a new .csv", "--apply", table, "--source", source, "--out", source)
    fails("--apply needs --source", "--apply", table)
    assert not mended.exists()


def test_surprise_is_the_poisson_tail():
    found = surprises(np.array([0.0, 1.0, 3.0, 40.0]), np.array([2.0, 0.1, 3.0, 0.5]))
    tail = 1 - np.exp(-3) * (1 + 3 + 4.5)
    assert found[:3] == pytest.approx([0.0, -np.log10(1 - np.exp(-0.1)), -np.log10(tail)], abs=1e-6)
    assert found[3] > 50 and np.isfinite(found).all()
