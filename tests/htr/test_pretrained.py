"""The reader that comes with the project: small, whole, and used where none is named."""

import csv
from pathlib import Path

import cv2

import htr
from htr.reader import Reader
from jobs.cli.command_line import main

FOLDER = Path(htr.__file__).parent / "pretrained"


def test_it_is_small_and_has_a_card():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert "licences" in (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_it_writes_french_and_its_decoding_belongs_to_it(draw):
    reader = Reader.load(FOLDER / "model", decoding=FOLDER / "decoding")
    assert set("abcdefghijklmnopqrstuvwxyzàâçèéêëîïôùûœ'-,.()0123456789 ") <= set(reader.charset.characters)
    assert reader.config["writes"] == "as written"
    first, second = reader.read([draw("la grippe", 60), draw("une chute", 60)], boxes=True)
    assert first.text and second.text and first.text != second.text and 0 < first.confidence <= 1
    assert [word.text for word in first.words] == first.text.split()


def test_transcribe_takes_it(draw, tmp_path, monkeypatch):
    monkeypatch.delenv("HTR_MODEL", raising=False)
    (tmp_path / "lines").mkdir()
    cv2.imwrite(str(tmp_path / "lines" / "a.png"), draw("la grippe", 60))
    assert main(["transcribe", str(tmp_path / "lines"), "--out", str(tmp_path / "out.csv"), "--decode", "beam"]) == 0
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["image"] == "a.png" and row["text"] and not row["reason"]
