"""The whole way: scans are transcribed, what is to review is keyed at the page, and becomes training rows."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from keyed import ask, identity, post, rows_of, serving

from htr.synth.simulate import simulate
from jobs.cli.command_line import main
from jobs.keying.pictures import CROP, Pictures
from shards.index import read_index


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """-> the table of the fields of two simulated certificates."""
    return simulate(tmp_path_factory.mktemp("scans"), 2, 5, severity="light")


@pytest.mark.parametrize("opened", ["review.csv", "texts.parquet"])
def test_from_scans_to_training_rows(scans: Path, untrained: Path, tmp_path: Path, opened: str):
    pages = tmp_path / "pages"
    pages.symlink_to(scans.parent / "pages")
    truth = {(Path(row["image"]).stem, row["field"]): row["text"] for row in rows_of(scans)}
    words = [
        "--unit",
        "field",
        "--model",
        untrained,
        "--out",
        tmp_path / "texts.parquet",
        "--review",
        pages / "review.csv",
    ]
    assert main(list(map(str, ["transcribe", scans.parent / "pages", *words, "--device", "cpu"]))) == 0
    table = pages / opened if opened == "review.csv" else tmp_path / opened
    more = [] if opened == "review.csv" else ["--images", pages, "--out", pages / "review-keyed.csv"]
    try:
        with serving(table, *more, log=tmp_path / "log") as running:
            tab = post(running, "begin", name="Anne")["tab"]
            known = rows_of(pages / "review.csv")  # in the table's order, as the rows are given out
            rows = post(running, "next", tab=tab, count=8)["rows"]
            sizes = []
            for number, row in enumerate(known):
                if not rows:
                    rows = post(running, "next", tab=tab, count=8)["rows"]
                shown = rows.pop(0)
                assert (shown["field"], shown["start"]) == (row["field"], row["reading"])
                status, _, content = ask(running, f"image/{shown['row']}/crop")
                assert status == 200
                sizes.append(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE).shape)
                if number == 0:
                    first = json.dumps(shown)
                text = truth.get((row["certificate"], row["field"]), "")
                kind = "text" if text else "blank"
                body = {"tab": tab, "id": identity(), "row": shown["row"], "kind": kind, "text": text}
                assert "refused" not in post(running, "answer", **body)
            assert not rows and "sim-" not in first  # nothing that says which certificate it is
            assert all(height < 500 for height, _ in sizes)
            assert running.stop() == 0
        keyed = pages / "review-keyed.csv"
        assert [row["text"] for row in rows_of(keyed)] == [truth.get((r["certificate"], r["field"]), "") for r in known]
        assert list(rows_of(keyed)[0]) == list(known[0])
        asked = ["preprocess", keyed, "--unit", "field", "--out", tmp_path / "data", "--workers", 1, "--stray", "blank"]
        assert main(list(map(str, asked))) == 0
        index = read_index(tmp_path / "data")
        assert sum(count for count in index.totals.values()) > len(known) / 2
        rejects = json.loads((tmp_path / "data" / "index.json").read_text(encoding="utf-8"))["rejects"]
        assert "not yet transcribed" not in rejects
    finally:
        for made in (*pages.glob("review*.csv"), *pages.glob("review*.keying/*")):
            made.unlink()


def test_a_field_without_a_box_is_found_on_its_form(scans: Path):
    row = dict.fromkeys(("page", "box", "polygon", "baseline", "place", "reject"), "")
    source = next(row for row in rows_of(scans) if row["field"] == "Ia")
    row |= {name: source[name] for name in ("image", "form", "field")}
    pictures = Pictures()
    content, kind = pictures.make(scans.parent, row, CROP, of_fields=True)
    height, width = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE).shape
    page = pictures.page(scans.parent, row["image"], "")
    assert kind == "image/png" and height < page.shape[0] / 4 and width > 5 * height
    # a form that has no such field: the whole scan
    whole = pictures.make(scans.parent, row | {"field": "none"}, CROP, of_fields=True)[0]
    assert cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_GRAYSCALE).shape == page.shape
