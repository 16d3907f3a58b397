"""Real ink on forms: pieces keep their text, their writer and their split, stand in fields, leave no paper."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.synth.draw_forms import draw as draw_form
from htr.synth.layout import slots
from htr.synth.semireal import MIN_SCALE, Piece, fitting, foot, real_writers
from htr.synth.simulate import certificate, simulate

FORM = draw_form("adult-2018")
FIELD = FORM.field("II")
REAL = Path(os.environ["HTR_SHARED"]) / "handwriting" / "lines.csv" if "HTR_SHARED" in os.environ else None


@pytest.fixture(scope="module")
def table(tmp_path_factory, draw, write_table) -> Path:
    """Three writers with six lines each, on uneven gray paper, 64 px high; one line is flagged, one too long."""
    folder, rows = tmp_path_factory.mktemp("ink"), []
    for writer in range(3):
        for line in range(6):
            text = f"ligne {writer} {line}" if line < 5 else "une ligne bien trop longue " * 4
            image = draw(text, 64)
            shade = np.linspace(0.75, 1.0, image.shape[1])
            cv2.imwrite(str(folder / f"{writer}-{line}.png"), (image * shade).astype(np.uint8))
            rows.append({"image": f"{writer}-{line}.png", "text": text, "certificate": f"p{writer}", "split": "val",
                         "writer": f"w{writer}", "flags": "crossed" if line == 4 else ""})  # fmt: skip
    return write_table(folder / "lines.csv", rows)


def test_writers_come_with_their_usable_lines(table):
    writers = real_writers(table)
    assert [(writer.name, writer.split, len(writer.pieces)) for writer in writers] == [
        (f"w{n}", "val", 5) for n in range(3)
    ]
    assert [piece.text for piece in writers[1].pieces[:2]] == ["ligne 1 0", "ligne 1 1"]


def test_a_piece_becomes_ink_without_paper_standing_on_its_baseline(table):
    piece = real_writers(table)[0].pieces[0]
    [slot] = slots(FORM, FIELD, 1)
    ink = fitting(piece, slot, 70)
    assert ink.pixels.shape[0] == 70 and ink.pixels.dtype == np.uint8
    assert ink.pixels.max() > 200 and np.median(ink.pixels) == 0  # strokes, and none of the shade
    assert abs(ink.baseline - 0.7 * 70) < 5  # where putText stood


def test_lines_fit_their_slots_or_are_not_written(table):
    writer = real_writers(table)[2]
    for lines in (1, 2, 3, 4):
        room = slots(FORM, FIELD, lines)
        found = writer.lines("II", room, np.random.default_rng(lines))
        assert len(found) == lines and len({text for text, _ in found}) == lines
        for text, ink in found:
            assert text.startswith("ligne 2") and ink.pixels.shape[1] <= room[0].width
            assert MIN_SCALE * room[0].height - 1 <= ink.pixels.shape[0] <= room[0].room
    interval = slots(FORM, FORM.field("Ia_interval"), 1)
    assert writer.lines("Ia_interval", interval, np.random.default_rng(0), ["ligne 2 0", "ligne 2 1"])[0][0][-1] in "23"
    assert fitting(writer.pieces[4], room[0], 40) is None  # too long
    assert fitting(Piece(table.with_name("none.png"), "x"), room[0], 40) is None


def test_the_foot_of_letters():
    pixels = np.zeros((80, 400), np.uint8)
    pixels[30:52, 10:390:3] = 255
    pixels[5:52, 100:110] = pixels[52:75, 200:205] = 255  # an ascender, a descender
    assert abs(foot(pixels) - 51) <= 3
    assert 40 <= foot(np.zeros((80, 50), np.uint8)) <= 80


def test_certificates_carry_the_writers_and_splits_of_the_table(table, tmp_path):
    simulate(tmp_path, 6, seed=1, ink=table)
    with open(tmp_path / "certificates.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"val"} and {row["writer"] for row in rows} <= {"w0", "w1", "w2"}
    by_page = {row["certificate"]: row["writer"] for row in rows}
    assert len(by_page) == 6 and all(by_page[row["certificate"]] == row["writer"] for row in rows)
    with open(tmp_path / "lines.csv", encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert all(line["text"].split()[1] == line["writer"][1] for line in lines) and len(lines) > 6
    for row in rows:
        parts = [
            line["text"] for line in lines if (line["certificate"], line["field"]) == (row["certificate"], row["field"])
        ]
        if not row["field"].endswith(("yes", "no", "unknown")) and not row["field"].startswith("place"):
            assert row["text"] == " ".join(parts)


def test_some_rows_of_the_table_alone(table):
    assert [writer.name for writer in real_writers(table, "writer=w1,split=val")] == ["w1"]
    for where, reason in (("writer=w9", "no row"), ("colour=red", "no column 'colour'"), ("writer", "no row")):
        with pytest.raises(ValueError, match=reason):
            real_writers(table, where)


def test_what_is_no_table_of_line_images_is_refused(tmp_path, write_table):
    flagged = write_table(tmp_path / "a.csv", [{"image": "a", "text": "b", "certificate": "c", "flags": "id"}])
    with pytest.raises(ValueError, match="no row with a line image"):
        real_writers(flagged)
    away = write_table(tmp_path / "b.csv", [{"image": "../a.png", "text": "b", "certificate": "c"}])
    with pytest.raises(ValueError, match="no row with a line image"):
        real_writers(away)
    rows = [
        {"image": "a", "text": "b", "certificate": str(n), "writer": "w", "split": s}
        for n, s in enumerate(("val", "dev"))
    ]
    with pytest.raises(ValueError, match="splits"):
        real_writers(write_table(tmp_path / "c.csv", rows))
    with pytest.raises(ValueError):
        simulate(tmp_path / "out", 1, ink=tmp_path / "none.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(REAL is None, reason="HTR_SHARED names no folder of real handwriting")
def test_real_handwriting_fills_forms():
    filled = [certificate(n, seed=1, hands=[], ink=REAL) for n in range(8)]
    assert sum(len(made.lines) for made in filled) >= 16
    assert len({made.typed[0]["writer"] for made in filled}) >= 5
    for made in filled:
        blank = certificate(made.page["number"], seed=1, hands=[], ink=REAL, written=False).scan.image
        for line in made.lines:
            x, y, w, h = map(int, line["box"].split())
            assert blank[y : y + h, x : x + w].mean() - made.scan.image[y : y + h, x : x + w].mean() > 2
