"""Decisions under a promise, tables for who keys and their way back to training, the sample, pages as XML."""

import csv
import json
import sys
import types
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import jobs.cli.command_line
from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.io.image_files import decode
from htr.io.pages import read_pages
from htr.lines.normalise import Region, cut
from htr.reliability.promise import Promise
from htr.scan import cut_scan
from htr.synth.simulate import simulate
from jobs.transcription.results import decide
from jobs.transcription.sample import Sample
from shards.index import read_index
from shards.loader import Samples


@dataclass
class Promised:
    """As htr.reliability.promise: a row's probability is its likelihood, of a field or certificate the least one."""

    unit: str = "field"
    threshold: float | None = 0.5
    asked: list = field(default_factory=list)
    scores: dict = field(default_factory=dict)

    def check(self, *about: object) -> None:
        self.asked.append(about)

    def probability(self, table: pa.Table) -> np.ndarray:
        likely = table["signal_likelihood"].to_numpy()
        if self.unit == "line":
            return likely
        names = ["certificate"] if self.unit == "certificate" else ["certificate", "field"]
        groups = list(zip(*(table[name].to_pylist() for name in names), strict=True))
        least: dict = {}
        for group, value in zip(groups, likely, strict=True):
            least[group] = min(value, least.get(group, 1.0))
        return np.array([least[group] for group in groups])

    def accept(self, probability: np.ndarray, lines: np.ndarray) -> np.ndarray:
        return Promise(self.unit, "wrong", 0.02, 0.05, self.threshold, "", {}, {}).accept(probability, lines)


@pytest.fixture
def promise(monkeypatch, tmp_path) -> tuple[Path, Promised]:
    """A folder to be named with --promise, and what it holds."""
    promised, folder = Promised(), tmp_path / "promise"
    folder.mkdir()
    for name in ("score", "promise"):
        (folder / f"{name}.json").write_text("{}")
    module = types.ModuleType("htr.reliability.promise")
    module.Promise = types.SimpleNamespace(load=lambda path: promised)
    monkeypatch.setitem(sys.modules, "htr.reliability.promise", module)
    return folder, promised


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Five certificates and a page that is none; -> the table of their fields."""
    table = simulate(tmp_path_factory.mktemp("scans"), 5, 5, severity="light")
    cv2.imwrite(str(table.parent / "pages" / "other.png"), np.full((900, 1300), 230, np.uint8))
    return table


def run(*argv: object) -> None:
    assert jobs.cli.command_line.main([*map(str, argv)]) == 0


def transcribe(source: Path, model: Path, out: Path, *options: object) -> list[dict]:
    """In this process, where the promise is."""
    run("transcribe", source, "--model", model, "--out", out, "--device", "cpu", "--workers", 1, *options)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def read_table(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rejects_of(index) -> dict[str, int]:
    return json.loads((index.folder / "index.json").read_text(encoding="utf-8"))["rejects"]


def row(**cells: object) -> dict:
    """Of a part: a line that was read, unless its cells say otherwise."""
    usual = {"certificate": "c", "field": "Ia", "text": "grippe", "reason": "", "confidence": 0.95}
    usual |= {"confidences": [0.95], "signal_likelihood": [0.9]}
    return usual | cells


BLANK = {"text": "", "confidences": [], "signal_likelihood": []}


def decided(rows: list[dict], promise: Promised | None, sure: float = 0.9) -> list[tuple]:
    table = decide(pa.Table.from_pylist(rows), promise, sure)
    return list(
        zip(*(table[name].to_pylist() for name in ("probability", "decision", "signal_likelihood")), strict=True)
    )


def test_what_is_accepted():
    rows = [
        row(),
        row(field="Ib", confidences=[0.9, 0.8], signal_likelihood=[0.7, 0.3]),  # the least sure line decides
        row(field="Ic", signal_likelihood=[0.5]),
        row(field="Id", text="", signal_likelihood=[0.99]),  # ink that was read as nothing
        row(field="II", **BLANK),
        row(field="autopsy_yes", **BLANK, confidence=0.6),
        row(field="place_home", **BLANK, reason="field lies outside the scan", confidence=1.0),
    ]
    found = decided(rows, Promised())
    assert [decision for _, decision, _ in found] == ["accept", "review", "accept", "review", "", "review", "review"]
    assert [p for p, _, _ in found] == [0.9, 0.3, 0.5, 0.99, None, None, None]
    assert [signal for _, _, signal in found] == [0.9, 0.3, 0.5, 0.99, None, None, None]
    assert decided(rows, Promised(), sure=0.5)[5][1] == ""
    # a certificate is accepted as a whole, and with nothing promised nothing is
    assert {decision for _, decision, _ in decided(rows, Promised("certificate"))} == {"review", ""}
    assert decided(rows[:3], Promised("certificate", 0.3))[1][:2] == (0.3, "accept")
    for nothing in (None, Promised(threshold=None)):
        assert [decision for _, decision, _ in decided(rows, nothing)] == ["review"] * 4 + ["", "review", "review"]
    assert [p for p, _, _ in decided(rows, None)] == [None] * 7
    assert decided([row(**BLANK)], Promised()) == [(None, "", None)]


def test_a_field_of_several_lines_is_no_line():
    """A promise of lines was chosen on lines alone: of three accepted ones three may be wrong in a field."""
    rows = [row(), row(field="Ib", confidences=[0.9, 0.9], signal_likelihood=[0.9, 0.9])]
    assert [decision for _, decision, _ in decided(rows, Promised("line"))] == ["accept", "review"]
    assert [decision for _, decision, _ in decided(rows, Promised("field"))] == ["accept", "accept"]


def test_the_least_probable_line_decides_not_the_least_confident():
    assert decided([row(confidences=[0.8, 0.9], signal_likelihood=[0.7, 0.3])], Promised("line"))[0][::2] == (0.3, 0.3)
    # of lines of one probability, as those of a field are, the signals are those of the least confident
    lines = row(confidences=[0.9, 0.8], signal_likelihood=[0.3, 0.7])
    assert decided([lines], Promised("field"))[0] == (0.3, "review", 0.7)


def test_reasons_are_counted_without_what_they_say_of_one_image(tmp_path, capsys):
    """A thousand scans that fit no form, each by its own numbers, are one line of the report."""
    for number, shape in enumerate(((60, 500), (50, 400))):
        (tmp_path / "scans").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "scans" / f"{number}.png"), np.full(shape, 230, np.uint8))
    options = ["--unit", "field", "--chunk", 1, "--workers", 1, "--device", "cpu"]
    run("transcribe", tmp_path / "scans", "--out", tmp_path / "o.jsonl", *options)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["reason"] for row in rows}) == 2 and "2 x fits no form\n" in capsys.readouterr().err
    assert json.loads((tmp_path / "o.jsonl.parts" / "summary.json").read_text(encoding="utf-8"))["reasons"] == {
        "fits no form": 2
    }


@dataclass
class OfWords(Promised):
    """A promise that knows words: the probability of a word is its confidence, halved."""

    scores: dict = field(default_factory=lambda: {"word": None})

    def probability(self, table, unit: str = "") -> np.ndarray | list[np.ndarray]:
        if unit != "word":
            return super().probability(table)
        assert {"signal_likelihood", "word_signal_length"} <= set(table)
        return [np.asarray(own) / 2 for own in table["word_confidence"]]


def test_words_have_a_calibrated_probability_each():
    """Of a field of two lines, too; where numbers don't fit its text, or none were given, nothing is made up."""

    def read(text: str, lines: list[list[float]]) -> dict:
        words = [value for own in lines for value in own]
        count = {"confidences": [0.9] * len(lines), "signal_likelihood": [0.9] * len(lines)}
        return row(text=text, **count, line_words=[float(len(own)) for own in lines], word_confidence=words,
                   word_signal_length=[1.0] * len(words))  # fmt: skip

    rows = [
        read("choc septique", [[0.8, 0.4]]),
        read("un deux trois", [[1.0, 0.2], [0.6]]),
        read("", []),
        read("a b", [[0.5]]),
    ]
    table = pa.Table.from_pylist(rows)
    assert decide(table, OfWords(), 0.8)["words"].to_pylist() == ["[0.4, 0.2]", "[0.5, 0.1, 0.3]", "[]", "[]"]
    for promise in (None, Promised()):
        assert decide(table, promise, 0.8)["words"].to_pylist() == ["[]"] * 4
    assert decide(pa.Table.from_pylist([row()]), OfWords(), 0.8)["words"].to_pylist() == ["[]"]


def test_a_sample_is_the_same_in_whatever_order_and_uniform():
    table = pa.table({"item": list(range(1000)), "field": ["Ia"] * 1000, "certificate": [f"c{n}" for n in range(1000)]})

    def drawn(seed: int, *pieces: pa.Table) -> list[int]:
        draw = Sample(20, seed)
        for piece in pieces:
            draw.take(piece, "field")
        assert draw.seen == sum(map(len, pieces))
        return [item for rows in draw.chosen() for item in rows["item"].to_pylist()]

    once = drawn(3, table)
    assert len(once) == len(set(once)) == 20 and once == sorted(once)
    assert drawn(3, *(table.slice(n, 10) for n in reversed(range(0, 1000, 10)))) == once
    assert drawn(4, table) != once and drawn(3, table.slice(0, 7)) == list(range(7))
    counts = Counter(item // 100 for seed in range(50) for item in drawn(seed, table))
    assert all(abs(count - 100) < 5 * 9.5 for count in counts.values()), counts  # five standard deviations
    # lines at the same places of another batch are other lines
    places = []
    for batch in "ab":
        draw = Sample(20, 0)
        draw.take(table.set_column(2, "certificate", pa.array([f"{batch}{n}" for n in range(1000)])), "line")
        places.append({item for rows in draw.chosen() for item in rows["item"].to_pylist()})
    assert len(places[0]) == 20 and len(places[0] & places[1]) < 5
    # of a certificate all rows, or none
    pairs = pa.table({"item": [n // 2 for n in range(100)], "field": ["Ia", "Ib"] * 50,
                      "certificate": [f"c{n // 2}" for n in range(100)]})  # fmt: skip
    draw = Sample(7, 1)
    draw.take(pairs, "certificate")
    whole = [rows["item"].to_pylist() for rows in draw.chosen()]
    assert draw.seen == 50 and len(whole) == 7 and all(len(rows) == 2 and len(set(rows)) == 1 for rows in whole)


def test_fields_under_a_promise(scans, untrained, promise, tmp_path):
    folder, promised = promise
    everything = transcribe(scans.parent / "pages", untrained, tmp_path / "all.jsonl", "--unit", "field")
    assert {row["decision"] for row in everything} == {"review", ""}
    likely = pq.read_table(next((tmp_path / "all.jsonl.parts").glob("*.parquet")))["signal_likelihood"].to_pylist()
    promised.threshold = float(np.median([min(values) for values in likely if values]))
    review = scans.parent / "review.csv"
    options = ["--unit", "field", "--chunk", 2, "--promise", folder, "--review", review, "--sample", 4]
    rows = transcribe(scans.parent / "pages", untrained, tmp_path / "some.jsonl", *options)
    made = promised.asked[0][0]
    assert (made["decode"], made["decoding"], made["batch"], made["device"]) == ("greedy", None, 16, "cpu")
    counts = Counter(row["decision"] for row in rows)
    assert counts["accept"] > 4 and counts["review"] > 4 and counts[""] > 50
    for row in rows:
        if row["decision"] == "accept":
            assert row["text"] and row["probability"] >= round(promised.threshold, 4) and row["signal_likelihood"] > 0
        assert (row["probability"] is None) == (not row["lines"] and row["text"] in ("", "0", "1"))
    names = [(row["certificate"], row["field"]) for row in rows if row["decision"] == "review"]
    keyed = read_table(review)
    assert [(row["certificate"], row["field"]) for row in keyed] == names and ("other", "") in names
    # the sample: of the accepted alone, without what the reader says of them
    sample = read_table(scans.parent / "review-sample.csv")
    accepted = {(row["certificate"], row["field"]) for row in rows if row["decision"] == "accept"}
    assert len(sample) == 4 and {(row["certificate"], row["field"]) for row in sample} <= accepted
    assert set(sample[0]) == {"image", "page", "certificate", "form", "field", "place", "text", "reject"}
    summary = json.loads((tmp_path / "some.jsonl.parts" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["accepted"], summary["sampled"]) == (len(accepted), 4)
    for path in (review, scans.parent / "review-sample.csv"):
        path.unlink()


def test_corrections_become_training_rows(scans, untrained, tmp_path):
    """Scans, readings, a table that a person fills in, samples: with the text typed and the image that was read."""
    review, truth = scans.parent / "review.csv", {}
    for row in read_table(scans):
        truth[row["certificate"], row["field"]] = row["text"]
    transcribe(scans.parent / "pages", untrained, tmp_path / "o.jsonl", "--unit", "field", "--review", review)
    rows = read_table(review)
    assert {row["text"] for row in rows} == {""} and {row["image"].split("/")[0] for row in rows} == {"pages"}
    todo, done, blank = [], {}, []
    for number, row in enumerate(rows):
        name = (row["certificate"], row["field"])
        if not row["field"]:  # a page that fits no form
            assert row["reject"].startswith("fits no form")
        elif not row["reading"]:  # read as nothing: a person says that it is blank, which it is not
            row["reject"] = ""
            blank.append(name)
        elif number % 3 == 0:
            assert row["reject"] == "not yet transcribed"
            todo.append(name)
        else:
            row["text"] = done[name] = truth[name]
    assert len(done) > 10 and len(todo) > 5
    with open(review, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)

    shares = ["--shares", "train=1", "--encoding", "png"]
    run("preprocess", review, "--unit", "field", "--out", tmp_path / "data", *shares)
    index = read_index(tmp_path / "data")
    rejects = rejects_of(index)
    assert rejects.pop("not yet transcribed") == len(todo)
    assert rejects.pop("no text but the field is written on", 0) == len(blank)
    [(reason, count)] = rejects.items()
    assert reason.startswith("fits no form") and count == 1
    table = index.samples("train", {"level": ["line", "field", "part", "tick"]})
    samples, found, images = Samples(index.folder, table), {}, {}
    for number in range(len(samples)):
        at = int(samples.text_row[number])
        name = table["certificate"][at].as_py(), table["field"][at].as_py()
        images[name], found[name] = samples.read(number)
    samples.close()
    assert found == done
    # fields that nobody was asked about, and not those still to be done, are blank
    blanks = index.samples("train", {"level": ["blank"]})
    names = set(zip(blanks["certificate"].to_pylist(), blanks["field"].to_pylist(), strict=True))
    assert names and not names & {*todo, *done}
    forms = Forms(load_templates())
    for certificate in {certificate for certificate, _ in done}:
        gray = cv2.imread(str(scans.parent / "pages" / f"{certificate}.jpg"), cv2.IMREAD_GRAYSCALE)
        for one in cut_scan(gray, forms):
            if one.field.kind == "text" and (certificate, one.field.name) in done:
                stored = images[certificate, one.field.name]
                assert len(stored) == len(one.images)
                assert all(np.array_equal(a, b) for a, b in zip(stored, one.images, strict=True))
    review.unlink()


def test_lines_come_back_with_their_regions(untrained, draw, tmp_path, write_table):
    page = np.vstack([cv2.resize(draw(text), (400, 50)) for text in ("grippe", "choc septique", "AVC")])
    cv2.imwrite(str(tmp_path / "page.png"), page)
    rows = [{"image": "page.png", "certificate": "c1", "box": f"0 {50 * n} 400 50"} for n in range(2)]
    rows.append({"image": "page.png", "certificate": "c1", "polygon": "0,100 399,100 399,149 0,149"})
    source, review = write_table(tmp_path / "t.csv", rows), tmp_path / "review.parquet"
    transcribe(source, untrained, tmp_path / "o.jsonl", "--review", review)
    table = pq.read_table(review)
    assert table["line"].to_pylist() == ["0", "1", "2"]
    texts = pa.array(["grippe", "", "AVC"])
    pq.write_table(table.set_column(table.column_names.index("text"), "text", texts), review)
    run("preprocess", review, "--out", tmp_path / "data", "--shares", "train=1", "--encoding", "png")
    index = read_index(tmp_path / "data")
    assert rejects_of(index) == {"not yet transcribed": 1}
    samples = Samples(index.folder, index.samples("train"))
    stored = [samples.read(number) for number in range(2)]
    assert [text for _, text in stored] == ["grippe", "AVC"]
    assert np.array_equal(stored[0][0][0], page[:50]) and np.array_equal(stored[1][0][0], page[100:])


def test_a_table_that_people_work_in_is_not_replaced(scans, untrained, promise, tmp_path, capsys):
    review = scans.parent / "kept.csv"
    options = ["--unit", "field", "--review", review]
    transcribe(scans.parent / "pages", untrained, tmp_path / "o.jsonl", *options)
    as_written = review.read_bytes()
    corrected = as_written.replace(b"not yet transcribed", b"", 1)
    review.write_bytes(corrected)
    transcribe(scans.parent / "pages", untrained, tmp_path / "o.jsonl", *options)  # all is there: nothing is written
    assert review.read_bytes() == corrected
    again = [
        "transcribe",
        scans.parent / "pages",
        "--model",
        untrained,
        "--out",
        tmp_path / "o.jsonl",
        "--device",
        "cpu",
    ]
    again = [*map(str, [*again, *options, "--promise", promise[0]])]
    assert jobs.cli.command_line.main(again) == 1
    assert (
        "was changed since it was written, perhaps by hand" in capsys.readouterr().err
        and review.read_bytes() == corrected
    )
    review.write_bytes(as_written)
    assert jobs.cli.command_line.main(again) == 0 and review.read_bytes() != as_written
    review.unlink()


def test_alternatives_go_with_the_reading(tmp_path, draw, scans):
    """Of the beam search, with the reader that comes with the project."""
    source = scans.parent / "pages"
    options = ["--unit", "field", "--decode", "beam", "--device", "cpu", "--xml", tmp_path / "xml"]
    run("transcribe", source, "--out", tmp_path / "o.jsonl", *options)
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    several = [row for row in rows if row["alternatives"]]
    assert several
    for row in several:
        texts = [text for text, _ in row["alternatives"]]
        shares = [share for _, share in row["alternatives"]]
        assert len(texts) == len(set(texts)) <= 5 and row["text"] not in texts
        assert shares == sorted(shares, reverse=True) and sum(shares) < 1
    part = pq.read_table(next((tmp_path / "o.jsonl.parts").glob("*.parquet")))
    for row, margins in zip(rows, part["signal_top_share"].to_pylist(), strict=True):
        if len(row["lines"]) == 1:
            assert margins[0] + sum(share for _, share in row["alternatives"]) < 1 + 1e-3
    assert not pc.any(
        pc.list_value_length(part["signal_top_share"]).cast(pa.bool_()).filter(pc.equal(part["text"], "0"))
    ).as_py()


def test_pages_are_read_back_by_the_project(scans, untrained, tmp_path):
    """Certificates to PAGE XML, beside their images: the same lines, texts and boxes are found in it."""
    pages = tmp_path / "xml"
    rows = transcribe(scans.parent / "pages", untrained, tmp_path / "o.jsonl", "--unit", "field", "--xml", pages)
    for name in {row["image"] for row in rows}:
        (pages / name).write_bytes((scans.parent / "pages" / name).read_bytes())
    lines = [(row["image"], line) for row in rows for line in row["lines"]]
    found = list(read_pages(pages))
    assert [(row["image"], row["text"]) for row in found] == [(image, line["text"]) for image, line in lines]
    for back, (_, line) in zip(found, lines, strict=True):
        region = Region.parse(back["box"], back["polygon"], back["baseline"])
        assert [region.x, region.y, region.w, region.h] == line["box"]
        gray = decode((pages / back["image"]).read_bytes())
        x, y, w, h = line["box"]
        assert np.array_equal(cut(gray, region), gray[y : y + h, x : x + w])
    # as lines, with polygons and baselines, and back again
    again = transcribe(pages, untrained, tmp_path / "lines.jsonl", "--xml", tmp_path / "again")
    assert len(again) == len(lines)
    known = [{name: row[name] for name in ("polygon", "baseline")} for row in found]
    assert [{name: row[name] for name in ("polygon", "baseline")} for row in read_pages(tmp_path / "again")] == known
