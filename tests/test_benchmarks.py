"""The benchmarks run and end with the figures that they promise. Tiny: the figures themselves mean nothing here."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from htr.alphabet import Alphabet
from htr.models import create
from htr.reader import files_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHARED = os.environ.get("HTR_SHARED")


def run(name: str, *options: object) -> dict:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, options)]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environ)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_preprocess(tmp_path):
    figures = run("preprocess.py", "--certificates", 4, "--lines", 20, "--repeat", 1, "--out", tmp_path / "x")
    assert set(figures) == {
        "certificates_per_s",
        "ratio_to_limit",
        "lines_ratio_to_limit",
        "ratio_two_workers",
        "ratio_to_webdataset",
    }
    assert all(value > 0 for value in figures.values())


def test_plan(tmp_path):
    figures = run("plan.py", "--rows", 3000, "--shards", 3, "--shard-rows", 50, "--out", tmp_path / "x")
    assert figures["rows"] == 3000 and {"plan_s", "plan_gib", "index_s", "index_gib"} <= set(figures)


def test_forms():
    figures = run("forms.py", "--scans", 4)
    assert figures["corners_within_3px"] == 1.0 and figures["wrong_edition"] == 0


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_lines():
    figures = run("lines.py", "--handwriting", f"{SHARED}/handwriting", "--fields", 12)
    assert figures["lines_found"] > 0.8


def test_augment():
    assert run("augment.py", "--lines", 4, "--repeat", 1)["ms_per_line"] > 0


def test_decoding():
    assert run("decoding.py", "--lines", 10)


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_certificates(tmp_path):
    """With a reader that was never trained and the lines of one writer."""
    folder, writer = Path(SHARED) / "handwriting", "copiste-wikitexte_0010"
    with open(folder / "lines.csv", encoding="utf-8", newline="") as file:
        alphabet = Alphabet(
            {letter for row in csv.DictReader(file) for letter in row["text"] if row["writer"] == writer}
        )
    torch.manual_seed(0)
    for name, content in files_of(create("ctc", "tiny", len(alphabet)), alphabet, "ctc", "tiny", 1).items():
        (tmp_path / name).write_bytes(content)
    options = ("--where", f"writer={writer}", "--model", tmp_path, "--certificates", 2, "--simulated", 1)
    figures = run("certificates.py", "--handwriting", folder, *options)
    assert {"cer_clean", "cer_scan", "difference", "false_text", "cer_simulated"} <= set(figures)
    assert figures["cer_clean"] > 0.5 and figures["cer_scan"] > 0.5 and 0 <= figures["false_text"] <= 1


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_noise(tmp_path):
    options = ("--lines", 60, "--steps", 2, "--size", "tiny", "--train=--batch=4", "--edges", 3, "--out", tmp_path)
    figures = run("noise.py", "--handwriting", f"{SHARED}/handwriting", *options)
    assert {"cer_clean", "cer_noisy", "lost_points", "swaps_found", "good_rejected", "word_edges"} <= set(figures)
    assert abs(figures["lost_points"] - 100 * (figures["cer_noisy"] - figures["cer_clean"])) < 0.01
    assert 0 <= figures["swaps_found"] <= 1 and 0 <= figures["word_edges"] <= 1


def test_transcribe():
    figures = run("transcribe.py", "--certificates", 3, "--repeat", 1, "--plan", 2000)
    names = {"certificates_per_s", "certificates_per_s_beam", "lines_per_s", "ratio_to_bare", "ratio_to_bare_beam"}
    names |= {"ratio_to_one_by_one", "merge_s_per_100000", "planned", "plan_s", "plan_mib"}
    assert set(figures) == names and all(value > 0 for name, value in figures.items() if name != "plan_mib")


def test_scaling():
    options = ("--size", "tiny", "--steps", 1, "--warm-up", 1, "--batch", 2, "--rounds", 1)
    figures = run("scaling.py", *options)
    assert figures["efficiency_2"] > 0 and figures["ratio_to_ddp"] > 0


def test_the_share_of_sums_that_backward_hides():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from scaling import overlapped
    finally:
        sys.path.remove(str(BENCHMARKS))

    def tensor(pid: int, name: str, begin: float, end: float) -> list[dict]:
        named = {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}
        return [
            named,
            *({"ph": ph, "name": "ALLREDUCE", "pid": pid, "ts": ts} for ph, ts in (("B", begin), ("E", end))),
        ]

    start = {"ph": "M", "name": "start", "pid": 0, "args": {"start_time_since_epoch_in_micros": 1_000_000}}
    # a second after 1970 the clock starts; backward runs from 1.0 to 1.3 s, sums from 1.1 to 1.5, two of them at once
    sums = tensor(1, "allreduce.a", 100_000, 300_000) + tensor(2, "allreduce.b", 200_000, 500_000)
    assert overlapped([start, *sums, *tensor(3, "sum", 0, 900_000)], [[1.0, 1.3]]) == pytest.approx(0.5)
    assert overlapped([start], [[1.0, 1.3]]) is None


def test_readers(tmp_path, draw, write_table):
    """Ours alone: kraken's environment is not at hand."""
    splits, texts = ["train"] * 6 + ["dev", "val"], ("grippe", "chute", "choc septique", "grippe choc")
    rows = []
    for i, split in enumerate(splits):
        cv2.imwrite(str(tmp_path / f"{i}.png"), draw(texts[i % 4]))
        known = {"certificate": f"c{i}", "writer": f"w{i}", "collection": "copiste", "split": split, "flags": ""}
        rows.append({"image": f"{i}.png", "text": texts[i % 4], **known})
    write_table(tmp_path / "lines.csv", [*rows, {**rows[0], "flags": "crossed"}])
    options = ("--only", "ours", "--size", "tiny", "--steps", 2, "--cores", 1, "--work", tmp_path / "work")
    figures = run("readers.py", "--handwriting", tmp_path, *options)
    assert figures["cer_ours"] > 0 and figures["train_lines_per_s"] > 0 and figures["cores"] == 1
    assert 0 <= figures["padding"] < 1 and 0 <= figures["step_overhead"] < 1
    assert figures["cer_kraken"] is None and figures["ratio_time_kraken"] is None
    (tmp_path / "lines.csv").unlink()
    write_table(tmp_path / "lines.csv", rows)
    assert run("readers.py", "--handwriting", tmp_path, *options) == figures  # what is done is not repeated
