"""The page of one certificate: every stage and outcome of it, read by nobody else, with nothing in it that runs."""

import csv
import re
from pathlib import Path

import pytest

from htr.synth.simulate import simulate
from jobs.cli.command_line import main


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("scans"), 2, 5, severity="light")


def inspect(tmp_path: Path, source: Path, certificate: str, *more: str) -> str:
    out = tmp_path / "page.html"
    assert main(["inspect", str(source), "--certificate", certificate, "--out", str(out), *more]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    return out.read_text(encoding="utf-8")


def test_a_certificate_on_its_form(tmp_path, scans, capsys):
    page = inspect(tmp_path, scans, "sim-000000")
    with open(scans, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["certificate"] == "sim-000000"]
    for row in rows:
        assert re.search(rf"<h2>(Field|Tick box) {row['field']}:", page)
    assert page.count("Stored, row ") >= len(rows)
    assert "sim-000001" not in page and "form adult-2018, " in page
    assert next(row["text"] for row in rows if row["field"] == "Ia") in page
    assert next(row["text"] for row in rows if row["field"] == "Ia") not in "".join(capsys.readouterr())


def test_lines_of_a_page(tmp_path, scans):
    page = inspect(tmp_path, scans.parent / "lines.csv", "sim-000001")
    assert "Stored, row" in page and "Field" not in page


def test_what_is_rejected_says_why_and_nothing_runs(tmp_path, scans, write_table):
    attack = "<script>alert(1)</script>"
    rows = [
        {"image": "pages/none.jpg", "text": attack, "certificate": attack, "field": attack},
        {"image": "pages/sim-000000.jpg", "text": "x", "certificate": attack, "field": "nowhere"},
    ]
    page = inspect(tmp_path, write_table(scans.parent / "bad.csv", rows), attack, "--unit", "field")
    assert "image file is missing" in page and "has no such field" in page and "2 rejected" in page
    assert "<script" not in page


def test_nobody_of_that_name(tmp_path, scans, capsys):
    assert main(["inspect", str(scans), "--certificate", "zzz", "--out", str(tmp_path / "x.html")]) == 1
    assert "no row of this certificate" in capsys.readouterr().err and not (tmp_path / "x.html").exists()


def test_a_sheet_of_augmented_lines(tmp_path, dataset):
    out = tmp_path / "sheet.html"
    assert main(["inspect", str(dataset.folder), "--augment", "strong", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert page.count("<img") == 12 * 7 and out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("more", "said"), [(["--augment", "wild"], "no such augmentation"), ([], "which one")])
def test_a_sheet_of_what_is_not_there(tmp_path, dataset, capsys, more, said):
    assert main(["inspect", str(dataset.folder), *more, "--out", str(tmp_path / "x.html")]) == 1
    assert said in capsys.readouterr().err
