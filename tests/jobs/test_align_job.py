"""The align job: rows of words and lines, labels that fit badly, any number of tasks, and its table as a source."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from htr.charset import Charset
from htr.io.sources import read_source
from htr.reader import Reader
from htr.types import EncoderOutput, LineGeometry
from jobs.cli.command_line import parse
from shards import write
from shards.index import Index, merge
from shards.plan import Settings, make_plan
from shards.sample import pack
from shards.write import write_shard

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALPHABET = Charset(f" {LETTERS}")
HEIGHT = 48  # px of a line of the test's script
BAR = HEIGHT // 5  # px from one bar to the next
SYMBOL, GAP, SPACE = 8, 8, 12  # px of a letter of the test's script, of the gap after it, added between words
SETTINGS = Settings(rows=6, shares={"train": 1.0}, encoding="png")
WORDS = ("grippe", "cancer", "du", "sein", "choc", "septique", "chute", "embolie", "et", "coma", "hepatique", "virale")


def written(text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A line (HEIGHT, W) in a script that CodeReader reads, a letter the bits of its number as bars; and where its
    words are, left and right."""
    gray, at, spans, begin = np.full((HEIGHT, 24 + 3 * (SYMBOL + GAP) * len(text)), 255, np.uint8), 8, [], None
    for character in text:
        if character == " ":
            spans.append((begin, at - GAP))
            at, begin = at + SPACE, None
            continue
        begin = at if begin is None else begin
        for bit in range(5):
            if (LETTERS.index(character) + 1) >> bit & 1:
                gray[BAR * bit + 1 : BAR * bit + BAR - 1, at : at + SYMBOL] = 0
        at += SYMBOL + GAP
    spans.append((begin, at - GAP))
    return gray[:, : at + 8], spans


class CodeReader(nn.Module):
    """Reads the script: 0.97 for the letter where its bars are, for the space in the middle of a wide gap."""

    geometry = LineGeometry(HEIGHT, 4)

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def encode(self, images: torch.Tensor, widths: torch.Tensor) -> EncoderOutput:
        frames = images.shape[3] // 4
        bars = images[:, 0, :, : 4 * frames].unflatten(2, (frames, 4)).mean(3)
        codes = sum((bars[:, BAR * bit + BAR // 2] > 0.5).long() << bit for bit in range(5))
        labels = torch.zeros_like(codes)
        for line, width, row in zip(codes, widths, labels, strict=True):
            used = int(width) // 4
            inked = [t for t in range(used) if line[t] > 0]
            for before, t in zip([None, *inked], inked, strict=False):
                row[t] = ALPHABET.labels[LETTERS[min(int(line[t]), 26) - 1]]
                if before is not None and t - before > 5:
                    row[(before + t) // 2] = ALPHABET.labels[" "]
        probs = torch.full((*labels.shape, len(ALPHABET) + 1), 0.03 / len(ALPHABET))
        probs.scatter_(2, labels[..., None], 0.97)
        return EncoderOutput(probs, widths // 4, probs.log())


def texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 5))) for _ in range(count)]


def data_set(folder: Path, rows: list[dict], images: Path, write_table) -> Index:
    plan = make_plan(folder, read_source(write_table(images / "source.csv", rows))[0], SETTINGS)
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    return merge(plan)


@pytest.fixture(scope="module")
def lines(tmp_path_factory, write_table) -> Index:
    """29 lines: two neighbours twice have each other's text, and one text has a letter that the reader lacks."""
    folder = tmp_path_factory.mktemp("coded")
    true = [*texts(28), "aidé"]
    rows = []
    for number, text in enumerate(true):
        cv2.imwrite(str(folder / f"{number}.png"), written(text.replace("é", "e"))[0])
        rows.append({"image": f"{number}.png", "text": text, "certificate": f"c{number}", "writer": "w", "kind": "x"})
    for one in (3, 13):
        rows[one]["text"], rows[one + 1]["text"] = true[one + 1], true[one]
    return data_set(folder / "data", rows, folder, write_table)


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A run whose model is CodeReader."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "weights.safetensors").write_bytes(b"weights")
    load = classmethod(lambda cls, folder, device="cpu": Reader(CodeReader(), ALPHABET, {"step": 7}))
    monkeypatch.setattr(Reader, "load", load)
    return tmp_path / "run"


def job(dataset: Path, run: Path, *options: object) -> list[dict]:
    argv = ["align", dataset, "--run", run, "--device", "cpu", "--amp", "off", "--batch", 4, *options]
    run_verb, args = parse(list(map(str, argv)))
    assert run_verb(args) == 0
    out = args.out or dataset / f"aligned-{args.to}.parquet"
    return pq.read_table(out).to_pylist() if out.exists() else []


def test_lines_and_labels_that_fit_badly(lines, run, capsys, build, tmp_path):
    rows = job(lines.folder, run, "--to", "lines", "--least", -1)
    assert len(rows) == 29
    swapped = {"c3", "c4", "c13", "c14"}
    assert {row["certificate"] for row in rows if row["reject"] == "label fits badly"} == swapped
    for row in rows:
        if row["certificate"] == "c28":
            assert row["reject"] == "text has characters that the reader lacks" and row["margin"] is None
        else:
            assert row["margin"] <= 0 and (row["margin"] < -1) == (row["certificate"] in swapped)
    said = capsys.readouterr()
    assert "4 x label fits badly" in said.err and not any(row["text"] in said.out + said.err for row in rows)
    # as a source: the same lines, and every rejected one with its reason
    index = build(tmp_path / "again", lines.folder / "aligned-lines.parquet", SETTINGS)
    rejects = pq.read_table(index.folder / "rejects.parquet").to_pylist()
    assert sorted(row["certificate"] for row in rejects) == ["c13", "c14", "c28", "c3", "c4"]
    assert {row["reason"] for row in rejects} == {row["reject"] for row in rows if row["reject"]}
    samples = index.samples("train", columns=["certificate", "kind", "margin", "writer"]).to_pylist()
    assert len(samples) == 24 and {(row["kind"], row["writer"]) for row in samples} == {("x", "w")}
    assert all(float(row["margin"]) > -1 for row in samples)


def test_words_stand_in_their_boxes(lines, run, build, tmp_path):
    rows = job(lines.folder, run, "--to", "words", "--least", -1)
    by_line = {}
    for row in rows:
        by_line.setdefault(row["certificate"], []).append(row)
    for number, text in enumerate(texts(28)):
        found, (gray, spans) = by_line[f"c{number}"], written(text)
        if number in (3, 4, 13, 14):
            assert {row["reject"] for row in found} <= {"label fits badly", "no stroke where the word should be",
                                                        "text is longer than its image can carry",
                                                        "place is far wider than the word"}  # fmt: skip
            assert "label fits badly" in {row["reject"] for row in found}
            continue
        assert [row["text"] for row in found] == text.split()
        assert [row["line"] for row in found] == [f"0-{k}" for k in range(len(found))]
        for row, (left, right) in zip(found, spans, strict=True):
            x, y, w, h = map(int, row["box"].split())
            assert (y, h) == (0, HEIGHT) and not row["reject"]
            # 4 px around the strokes, and not into the next word
            assert abs(x - (left - 4)) <= 2 and abs(x + w - (right + 4)) <= 2 and x + w <= gray.shape[1]
    index = build(tmp_path / "words", lines.folder / "aligned-words.parquet", SETTINGS)
    assert sum(index.lines.values()) == sum(not row["reject"] for row in rows) > 40


def test_one_word_that_is_not_written(tmp_path, run, write_table):
    cv2.imwrite(str(tmp_path / "x.png"), written("choc septique et embolie pulmonaire avec coma")[0])
    rows = [{"image": "x.png", "text": "choc septique ou embolie pulmonaire avec coma", "certificate": "c"}]
    index = data_set(tmp_path / "data", rows, tmp_path, write_table)
    assert [row["reject"] for row in job(index.folder, run, "--to", "lines", "--least", -1.5)] == [""]
    words = job(index.folder, run, "--to", "words", "--least", -1.5)
    assert {row["text"]: row["reject"] for row in words if row["reject"]} == {"ou": "word fits badly"}


def test_another_threshold_or_split_takes_the_same_parts(lines, run, capsys):
    first = job(lines.folder, run, "--to", "lines")
    parts = sorted((run / "alignment").glob("*/parts/*.parquet"))
    assert json.loads((parts[0].parent.parent / "summary.json").read_text(encoding="utf-8"))["wrong_found"] >= 0.9
    found = {row["certificate"] for row in first if row["reject"] == "label fits badly"}
    assert len(found) >= 3 and found <= {"c3", "c4", "c13", "c14"}
    times = [path.stat().st_mtime_ns for path in parts]
    assert len(parts) == 5
    job(lines.folder, run, "--to", "lines", "--least", "-99", "--split", "train")
    assert [path.stat().st_mtime_ns for path in parts] == times
    summary = json.loads((parts[0].parent.parent / "summary.json").read_text(encoding="utf-8"))
    assert summary["least"] == -99 and summary["rejects"] == {"text has characters that the reader lacks": 1}
    assert job(lines.folder, run, "--to", "lines") == first


def test_the_table_does_not_depend_on_the_tasks(lines, run, tmp_path, monkeypatch):
    one = job(lines.folder, run, "--to", "words", "--name", "one")
    (lines.folder / "aligned-words.parquet").unlink()
    for task in (2, 0, 1):
        for name, value in (("ID", task), ("COUNT", 3), ("MIN", 0), ("MAX", 2), ("STEP", 1)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        three = job(lines.folder, run, "--to", "words", "--name", "three")
        assert bool(three) == (task == 1)
    assert three == one
    assert not list(lines.folder.glob(".*.tmp"))


def test_a_table_above_the_data_set(lines, run, build, tmp_path):
    out = lines.folder.parent / "above.parquet"
    rows = job(lines.folder, run, "--to", "lines", "--out", out, "--least", -1)
    assert rows[0]["image"].startswith("data/train-0000")
    assert sum(build(tmp_path / "again", out, SETTINGS).lines.values()) == 24


FIELDS = [["grippe virale", "et coma"], ["cancer du sein", "choc", "septique et embolie"], ["coma", ""]]


@pytest.fixture
def fields(tmp_path, monkeypatch, write_table) -> Index:
    """A sample of level field, and its lines as parts, for each of FIELDS; the last one's second line is a smear."""
    rows = [
        {"image": "x.png", "text": " ".join(lines).strip(), "certificate": f"f{number}", "field": "Ia"}
        for number, lines in enumerate(FIELDS)
    ]

    def samples(rows, images, settings, forms):
        for row in rows:
            pieces = [written(line or "a")[0] for line in FIELDS[int(row["certificate"][1:])]]
            if not FIELDS[int(row["certificate"][1:])][-1]:
                pieces[-1][:] = 255
            made = [pack(row, pieces[0], settings, level="field", text=row["text"], line="all")]
            made += [pack(row, gray, settings, level="part", line=str(k)) for k, gray in enumerate(pieces)]
            yield row, made

    monkeypatch.setattr(write, "make_samples", samples)
    return data_set(tmp_path / "data", rows, tmp_path / "images", write_table)


def test_the_text_of_a_field_is_shared_out_to_its_lines(fields, run):
    rows = job(fields.folder, run, "--to", "lines")
    assert [(row["certificate"], row["line"], row["text"]) for row in rows] == [
        (f"f{number}", str(k), text) for number, lines in enumerate(FIELDS) for k, text in enumerate(lines)
    ]
    assert [row["reject"] for row in rows][:-1] == [""] * 6
    assert rows[-1]["reject"] == "no word of the field's text stands in this line"
    assert rows[0]["image"] == "train-00000.tar/f0_Ia_0.png" and rows[0]["margin"] == pytest.approx(0, abs=0.01)
    words = job(fields.folder, run, "--to", "words")
    assert [row["line"] for row in words if row["certificate"] == "f1"] == [
        "0-0",
        "0-1",
        "0-2",
        "1-0",
        "2-0",
        "2-1",
        "2-2",
    ]


def test_a_source_may_reject_its_rows_itself(tmp_path, write_table, build):
    rows = []
    for number, reason in enumerate(["", "crossed out", "x" * 300, "a\u0007b", " "]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), written("coma")[0])
        rows.append({"image": f"{number}.png", "text": "coma", "certificate": f"c{number}", "reject": reason})
    index = build(tmp_path / "data", write_table(tmp_path / "rows.csv", rows), SETTINGS)
    assert json.loads((index.folder / "index.json").read_text(encoding="utf-8"))["rejects"] == {
        "crossed out": 1,
        "rejected by the source": 3,
    }


def fails(*argv: object) -> str:
    with pytest.raises(ValueError) as error:
        job(*argv)
    return str(error.value)


def test_what_it_refuses(lines, run, tmp_path):
    assert "below its own folder" in fails(lines.folder, run, "--to", "lines", "--out", tmp_path / "x.parquet")
    assert "ends in .parquet" in fails(lines.folder, run, "--to", "lines", "--out", lines.folder / "x.csv")
    for name in ("index.parquet", "train-00000.parquet"):
        assert "has this name" in fails(lines.folder, run, "--to", "lines", "--out", lines.folder / name)
    assert "no sample in split val (there are: train)" in fails(lines.folder, run, "--to", "lines", "--split", "val")
    assert "no data set here" in fails(tmp_path, run, "--to", "lines")
    job(lines.folder, run, "--to", "lines", "--name", "x")
    assert "begun with another to" in fails(lines.folder, run, "--to", "words", "--name", "x")
    shutil.copytree(lines.folder, tmp_path / "cut")
    tar = tmp_path / "cut" / "train-00001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    assert "cut short or changed" in fails(tmp_path / "cut", run, "--to", "lines", "--name", "y")
