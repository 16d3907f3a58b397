"""Names that are nearly those of files: found where one file alone is meant, else the nearest name is said."""

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.io.account import Account
from htr.io.sources import read_source
from htr.lines.normalise import Region
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
        ("Lot 1/Scans/Acte.PNG", "lot 1/SCANS/acte.png"),
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
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
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


# ---------------------------------------------------------------- pages with XML

LINE = '<TextLine><Coords points="20, 10 200, 10 200, 55"/><TextEquiv><Unicode>mort</Unicode></TextEquiv></TextLine>'


def read(folder: Path, files: dict[str, str | None]) -> tuple[list[dict], Account]:
    """`files`: of an XML the image that it names; None: an image."""
    for name, image in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if image is None:
            cv2.imwrite(str(folder / name), GRAY)
        else:
            page = f'<PcGts><Page imageFilename="{image}" imageWidth="240" imageHeight="60">{LINE}</Page></PcGts>'
            (folder / name).write_text(page, encoding="utf-8")
    account = Account()
    return read_source(folder, account=account)[0].to_pylist(), account


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("img/p.png", "p.png"),
        ("img/P.PNG", "p.png"),
        ("img/p.png", "../img/p.png"),
        ("p.png", "https://iiif.example.org/lot/p.png?size=full"),
        ("img/p.png", r"D:\lot\img\p.png"),
    ],
)
def test_images_and_xml_in_folders_of_their_own(tmp_path, there, named):
    [row], account = read(tmp_path, {"xml/p.xml": named, there: None})
    assert row["image"] == there and row["text"] == "mort" and account.kinds == {"XML": 1, "images": 1}
    assert Region.parse(row["box"], row["polygon"]).w == 181


def test_two_images_of_one_name_are_not_guessed_but_said(tmp_path):
    _, account = read(tmp_path, {"xml/p.xml": "p.png", "img/p.png": None, "bin/p.png": None})
    assert account.kinds == {"XML": 1} and account.passed_over == {"images that no XML names": 2}
    assert "2 in other folders have this name: bin/p.png, img/p.png" in account.notes[0]


def test_an_image_of_two_xml_is_said(tmp_path):
    rows, account = read(tmp_path, {"p.png": None, "alto/p.xml": "p.png", "page/p.xml": "p.png"})
    assert len(rows) == 2 and any("1 pages have more than one XML" in note for note in account.notes)


def test_a_name_that_is_not_utf_8(tmp_path):
    read(tmp_path, {"p.png": None, "p.xml": "p.png"})
    os.rename(tmp_path / "p.xml", os.fsencode(tmp_path) + b"/d\xe9c.xml")
    with pytest.raises(ValueError, match="not UTF-8, please rename it"):
        read_source(tmp_path)
