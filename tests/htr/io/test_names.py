"""Names that are nearly those of files: found where one file alone is meant, else the nearest name is said."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs.transcription.inputs import open_input
from shards.index import merge
from shards.plan import Settings, open_plan
from shards.scans import Scans
from shards.write import write_shard

GRAY = cv2.putText(np.full((60, 240), 220, np.uint8), "mort", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 30, 2)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("Acte 1.PNG", "acte 1.png"),
        ("acte 1.png", "acte%201.png"),
        ("a/acte.png", r"a\acte.png"),
        ("a/acte.png", "file:a/acte.png"),
        ("a/acte.png", "./a/acte.png"),
        ("de\u0301ce\u0300s.png", "d\u00e9c\u00e8s.png"),
        ("d\u00e9c\u00e8s.png", "de\u0301ce\u0300s.png"),
        ("100%.png", "100%.png"),
    ],
)
def test_an_image_of_a_table_is_found_by_a_name_that_means_it(tmp_path, there, named):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / there), GRAY)
    assert np.array_equal(Scans(tmp_path).read(named), GRAY)


@pytest.mark.parametrize(
    "named", ["ACTE.png", "../acte.png", "/elsewhere/acte.png", "%2e%2e/acte.png", "acte.png\0", ""]
)
def test_nothing_is_guessed(tmp_path, named):
    (tmp_path / "in").mkdir()
    for name in ("in/acte.png", "in/Acte.png", "acte.png"):
        cv2.imwrite(str(tmp_path / name), GRAY)
    with pytest.raises(ValueError, match=r"missing|outside|no image"):
        Scans(tmp_path / "in").read(named)


def lost(folder: Path) -> Path:
    """A table of three rows: two name images that are not there, one of them nearly."""
    cv2.imwrite(str(folder / "Scan_0001.png"), GRAY)
    with open(folder / "t.csv", "w", encoding="utf-8", newline="") as file:
        rows = [["image", "text", "certificate"], ["qqq.jpg", "mort", "a"], ["scan-0001.png", "mort", "b"]]
        csv.writer(file).writerows([*rows, ["Scan_0001.png", "mort", "c"]])
    return folder / "t.csv"


def test_the_nearest_name_of_a_table_is_said(tmp_path, capsys):
    from jobs.launch.shard_workers import report

    plan, images = open_plan(tmp_path / "set", lost(tmp_path), Settings(shares={"train": 1.0}))
    assert write_shard(plan, 0, images)["rejects"] == {"image file is missing": 2}
    merge(plan)
    assert json.loads((tmp_path / "set" / "index.json").read_text(encoding="utf-8"))["rejects"] == {
        "image file is missing": 2
    }
    report(tmp_path / "set")
    assert "scan-0001.png, the nearest name there is: Scan_0001.png" in capsys.readouterr().err


def test_the_nearest_name_stands_in_a_transcriptions_row(tmp_path):
    source = open_input(lost(tmp_path), "line")
    assert [reason for _, _, reason in source.chunk(0, 3).items()] == [
        "image file is missing", "image file is missing (the nearest name there is: Scan_0001.png)", "",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"no such table, image or folder; the nearest name there is: t\.csv"):
        open_input(tmp_path / "T.cvs", "line")
