"""Simulated certificates: the same for the same seed whoever makes them, and boxes that hold their ink."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.images import simulate as module
from htr.images.causes import ALPHABET
from htr.images.handwriting import hands
from htr.images.simulate import PAGE, certificate, simulate

HANDS = hands()
COLUMNS = ["image", "text", "certificate", "year", "form", "field", "line", "box", "writer"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "certificates.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    simulate(path, 12, seed=3)
    return path


def test_one_and_two_workers_make_the_same_bytes(folder, tmp_path):
    seen = []
    table = simulate(tmp_path, 12, seed=3, workers=2, progress=seen.append)
    assert table == tmp_path / "certificates.csv" and seen == [1] * 12
    assert contents(tmp_path) == contents(folder)
    assert len(contents(folder)) == 12 + 1  # and no temporary file is left


def test_a_range_makes_the_same_certificates_as_the_whole(folder, tmp_path):
    simulate(tmp_path, range(5, 8), seed=3)
    assert rows(tmp_path) == [row for row in rows(folder) if 5 <= int(row["certificate"][4:]) < 8]
    pages = {name: content for name, content in contents(tmp_path).items() if name.endswith(".jpg")}
    assert len(pages) == 3 and pages.items() <= contents(folder).items()


def test_the_seed_changes_text_and_page(folder, tmp_path):
    simulate(tmp_path, 2, seed=4)
    assert [row["text"] for row in rows(tmp_path)] != [row["text"] for row in rows(folder)][: len(rows(tmp_path))]
    assert contents(tmp_path)["pages/sim-000000.jpg"] != contents(folder)["pages/sim-000000.jpg"]


def test_the_table_says_what_design_asks(folder):
    table = rows(folder)
    assert list(table[0]) == COLUMNS
    for row in table:
        assert row["image"] == f"pages/{row['certificate']}.jpg" and (folder / row["image"]).exists()
        assert row["field"].removesuffix("_interval") in ("Ia", "Ib", "Ic", "Id", "II")
        assert row["writer"].startswith("writer-") and 2012 <= int(row["year"]) <= 2023 and row["form"]
        assert row["text"] and set(row["text"]) <= set(ALPHABET)
    keys = [(row["certificate"], row["field"], row["line"]) for row in table]
    assert len(keys) == len(set(keys))
    assert {row["certificate"] for row in table if row["field"] == "Ia"} == {f"sim-{n:06d}" for n in range(12)}
    pages = {row["certificate"]: row["writer"] for row in table}
    assert all(pages[row["certificate"]] == row["writer"] for row in table)  # one physician a certificate
    assert 2 <= len(set(pages.values())) <= 8


def test_pages_are_gray_a5_scans(folder):
    for page in sorted((folder / "pages").iterdir()):
        image = cv2.imread(str(page), cv2.IMREAD_UNCHANGED)
        assert image.shape == PAGE == (1165, 1654) and image.dtype == np.uint8
        assert 205 < np.median(image) < 252  # paper
        assert image.min() < 120  # ink


def test_boxes_hold_their_ink_and_all_of_it():
    """The same page with and without the handwriting differs by the ink alone: it must be in the boxes."""
    for number in range(8):
        page, lines = certificate(number, seed=9, hands=HANDS)
        blank, same = certificate(number, seed=9, hands=HANDS, written=False)
        assert lines == same
        ink = blank.astype(int) - page > 25
        boxed = np.zeros(PAGE, bool)
        for line in lines:
            x, y, w, h = map(int, line.box.split())
            assert x >= 0 and y >= 0 and x + w <= PAGE[1] and y + h <= PAGE[0]
            assert w >= 100 and 96 <= h <= 114
            boxed[y : y + h, x : x + w] = True
            inside = ink[y : y + h, x : x + w]
            assert inside.sum() > 12 * len(line.text)
            assert page[y : y + h, x : x + w].mean() < blank[y : y + h, x : x + w].mean()
            across = np.flatnonzero(inside.any(axis=0))
            assert across[0] >= 4 and across[-1] <= w - 5  # a margin on both sides, blurred edges taken off
            if w > 102:  # not widened to the least width
                assert across[-1] - across[0] >= w - 48  # and no more than a margin
        assert ink.any() and not (ink & ~boxed).any()


def test_fewer_causes_further_down():
    counts = dict.fromkeys(("Ia", "Ib", "Ic", "Id"), 0)
    intervals = 0
    for number in range(400):
        found = [field for field, *_ in module.fields_of(np.random.default_rng(number))]
        causes = [field for field in found if field in counts]
        assert causes == list(counts)[: len(causes)] and causes  # a chain without gaps
        intervals += sum(field.endswith("_interval") for field in found)
        for field in causes:
            counts[field] += 1
    assert 400 == counts["Ia"] > counts["Ib"] > counts["Ic"] > counts["Id"] > 0
    assert 0.6 < intervals / sum(counts.values()) < 0.9


def test_wide_text_is_written_smaller_instead_of_leaving_the_field():
    for seed in range(10):
        writer = module.Writer.make(seed, HANDS)
        ink = module.fitted(writer, "depuis septembre 2019", 290, np.random.default_rng(seed))
        assert 150 < ink.pixels.shape[1] <= 290 and ink.pixels.shape[0] <= module.ROOM


def test_an_interrupted_run_leaves_no_table(tmp_path):
    simulate(tmp_path, 1, seed=1)

    def unplugged(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, 2, seed=2, progress=unplugged)
    assert not (tmp_path / "certificates.csv").exists()


def test_pages_appear_under_their_name_only_when_whole(tmp_path, monkeypatch):
    (tmp_path / "pages").mkdir()

    def unplugged(source: Path, target: Path) -> None:
        assert cv2.imread(str(source), cv2.IMREAD_UNCHANGED) is not None or source.stat().st_size > 10_000
        raise OSError("unplugged")

    monkeypatch.setattr(os, "replace", unplugged)
    with pytest.raises(OSError, match="unplugged"):
        module.write_certificate(0, folder=tmp_path, seed=1, fonts=None)
    assert not list((tmp_path / "pages").glob("*.jpg"))


def test_what_cannot_be_made_is_refused(tmp_path):
    for wrong in (0, range(0), range(-3, 2)):
        with pytest.raises(ValueError, match="nothing to make"):
            simulate(tmp_path / "out", wrong, seed=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path / 'empty'}.*fonts"):
        simulate(tmp_path / "out", 1, seed=1, fonts=tmp_path / "empty")
    assert not (tmp_path / "out").exists()
