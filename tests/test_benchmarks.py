"""The benchmarks run and end with the figures that they promise. Tiny: the figures themselves mean nothing here."""

import argparse
import csv
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import evaluated
import pytest
import torch
from bed import PATIENT_S

from htr.charset import Charset
from htr.models.registry import create
from htr.reader import files_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SHARED = os.environ.get("HTR_SHARED")


def run(name: str, *options: object) -> dict:
    command = [sys.executable, str(BENCHMARKS / name), *map(str, options)]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_S, env=environ)
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


def test_stream(tmp_path, source, build):
    dataset = build(tmp_path / "lines", source).folder
    figures = run("stream.py", "--dataset", dataset, "--repeat", 1, "--batch", 4, "--memory", 40, "--many", 400)
    assert all(value > 0 for name, value in figures.items() if name != "padding") and 0 <= figures["padding"] < 1
    assert {"lines_per_s", "ratio_to_webdataset", "ratio_to_limit", "memory_epoch_5_to_1"} <= set(figures)


def test_stream_on_drawn_lines():
    figures = run("stream.py", "--lines", 400, "--batch", 16, "--repeat", 1, "--memory", 0, "--many", 400)
    assert 0 < figures["padding"] < 0.35 and "memory_gib" not in figures


@pytest.mark.parametrize("there", [True, False])
def test_gpu_check_without_what_is_carried_says_so_in_a_line(tmp_path, there):
    if there:
        (tmp_path / "wheels").mkdir()
    script = BENCHMARKS / "gpu" / "gpu_check.sh"
    command = ["bash", str(script), "--wheels", str(tmp_path / "wheels"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_S)
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"gpu-check: {tmp_path}/wheels ") and f"--prepare {tmp_path}/wheels" in done.stderr
    assert not (tmp_path / "out").exists()


def test_forms():
    figures = run("forms.py", "--scans", 4, "--kinds", 1, "--remade", 8)
    assert figures["corners_within_3px"] == 1.0 and figures["wrong_edition"] == 0
    assert len(figures["kinds"]) == 9 and all(kind["wrong"] == 0 for kind in figures["kinds"].values())
    assert figures["remade"]["fields_found"] > 0.5


def test_forms_speed():
    figures = run("forms_speed.py", "--scans", 3, "--rounds", 1, "--checked", 6, "--before", BENCHMARKS.parent)
    assert {"register_ms", "first_way_ms", "ratio_to_first_way", "check_s"} <= set(figures)
    assert all(value > 0 for value in figures.values())


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_lines():
    figures = run("lines.py", "--handwriting", f"{SHARED}/handwriting", "--fields", 12)
    assert figures["lines_found"] > 0.8


def test_review():
    figures = run("review.py", "--operators", 2, "--seconds", 2, "--rows", 2000)
    assert (
        figures["failed"] == 0 and figures["answers"] == 8 and 0 < figures["answer_p50_ms"] <= figures["answer_p99_ms"]
    )
    assert {"open_csv_s", "open_csv_mb", "open_parquet_s", "read_csv_s", "fsync_p50_ms"} <= set(figures)


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_keying_order():
    options = ("--keyed", 8, "--steps", 1, "--seeds", 1, "--evaluated", 4, "--pool", 30)
    figures = run("keying_order.py", "--handwriting", f"{SHARED}/handwriting", *options)
    assert all(0 < figures[f"cer_{name}"] < 100 for name in ("before", "random", "unsure", "useful"))


def test_augment():
    assert run("augment.py", "--lines", 4, "--repeat", 1)["ms_per_line"] > 0


def test_decoding():
    assert run("decoding.py", "--lines", 10)


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_certificates(tmp_path):
    """With a reader that was never trained and the lines of one writer."""
    folder, writer = Path(SHARED) / "handwriting", "copiste-wikitexte_0010"
    with open(folder / "lines.csv", encoding="utf-8", newline="") as file:
        charset = Charset({letter for row in csv.DictReader(file) for letter in row["text"] if row["writer"] == writer})
    torch.manual_seed(0)
    for name, content in files_of(create("ctc", "tiny", len(charset)), charset, "ctc", "tiny", 1).items():
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


@pytest.mark.parametrize("backend", ["horovod", "torch"])
def test_scaling(backend: str):
    options = ("--size", "tiny", "--steps", 1, "--warm-up", 1, "--batch", 2, "--rounds", 1, "--backend", backend)
    figures = run("scaling.py", *options)
    assert figures["efficiency_2"] > 0 and figures["ratio_to_ddp"] > 0 and figures["backend"] == backend


def test_rendezvous():
    figures = run("rendezvous.py", "--ranks", "3,9", "--agreements", 2, "--to", 64)
    for backend in ("horovod", "torch"):
        assert [row["ranks"] for row in figures[backend]["rows"]] == [3, 9]
        assert all(value > 0 for row in figures[backend]["rows"] for value in row.values())
        assert all(value > 0 for value in figures[backend]["at_64"].values())


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
    sums = tensor(1, "allreduce.gradients.0", 100_000, 300_000) + tensor(2, "allreduce.gradients.1", 200_000, 500_000)
    assert overlapped([start, *sums, *tensor(3, "allreduce.sum stop", 0, 900_000)], [[1.0, 1.3]]) == pytest.approx(0.5)
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


def test_kraken_is_stopped_where_this_process_ignores_sigint(tmp_path, monkeypatch):
    """As in the background of a shell's script: what it starts would ignore it, too, and train on for an hour."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ketos, begun = importlib.import_module("ketos"), tmp_path / "kraken" / "begun"
    train = "mkdir model; touch model/checkpoint_abort.ckpt; exit"
    fakes = {"ketos": f"""case "$*" in *train*) ;; *) echo 40 Characters 7 Errors; exit ;; esac
trap '{train}' INT; touch begun; while :; do sleep 0.1; done""", "python": "echo 30"}  # fmt: skip
    for folder in ("bin", "kraken"):
        (tmp_path / folder).mkdir()
    for name, text in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)

    class Patient(subprocess.Popen):
        def wait(self, timeout=None):  # its minute ends when it trains
            while timeout == 60 and self.poll() is None:
                if begun.exists():
                    raise subprocess.TimeoutExpired(self.args, timeout)
            return super().wait(timeout and min(timeout, PATIENT_S))

    monkeypatch.setattr(subprocess, "Popen", Patient)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        found = ketos.train_kraken(argparse.Namespace(work=tmp_path, kraken=tmp_path, cores=1, minutes=1), {})
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["kraken_dev"] == found["kraken_val"] == 7 / 40 and found["kraken_lines_per_s"] > 0


def test_intervals():
    figures = run("intervals.py", "--evaluations", 40, "--clusters", 20, "--tails", 0, 0.03)
    assert figures["ours_20"] > 0.8 > figures["lines_20"] and {"percentile_20", "bca_20", "t_20"} <= set(figures)
    # what covers less is warned of, and the difference of two readers that are alike is covered
    assert figures["ours_20_tail_0.03"] < 0.9 and figures["warned_ours_20_tail_0.03"] > 0.95
    assert figures["alike_20"] > 0.85 < figures["alike_20_tail_0.03"] and figures["least_unwarned"] > 0.85


def test_terms():
    figures = run("terms.py", "--evaluations", 20, "--writers", 400)
    assert len(figures["covered"]) == 5 and 0.7 < figures["least"] <= figures["most"] <= 1


def test_scoring(tmp_path):
    figures = run("scoring.py", "--pairs", 2000, "--parts", 5, "--out", tmp_path / "x")
    assert figures["pairs"] == 2000 and 0.02 < figures["cer"] < 0.2
    assert figures["seconds"] == pytest.approx(figures["score_s"] + figures["merge_s"], abs=1e-3) and figures["gib"] > 0


def test_evaluate(dataset):
    figures = run("evaluate.py", dataset.folder, "--split", "train", "--lines", 8, "--cores", 1)
    assert figures["lines"] >= 8 and figures["ratio_to_forward"] > 0 and figures["cores"] == 1


def test_guarantee():
    figures = run("guarantee.py", "--calibrations", 2, "--population", 20_000)
    assert figures["cells"] == len(figures["promises"]) >= 6
    assert figures["kept_least"] == min(found["held"] for found in figures["promises"].values())
    assert all(0 <= found["held"] <= 1 for found in figures["promises"].values())
    assert set(figures["monitor"]) == {"0.5", "1.0", "1.5", "2.0", "3.0"} and figures["drift"]["1.0"]["200"] == 1.0


def test_reliability(tmp_path):
    """Two evaluations of one reader; other readings of the same lines agree where they are right."""
    parts = [evaluated.lines(seed, 60, writers=12, name=name) for seed, name in enumerate(("dev", "val"))]
    folders = [evaluated.write(tmp_path / str(i), table, "val") for i, table in enumerate(parts)]
    others = [evaluated.write(tmp_path / f"other{i}", table, "val") for i, table in enumerate(parts)]
    later = evaluated.write(tmp_path / "later", evaluated.lines(5, 60, easy=-2.0, writers=20, name="l"), "test")
    options = ("--other", ",".join(map(str, others)), "--drift", later, "--runs", 10)
    figures = run("reliability.py", *folders, *options)
    assert figures["lines"] == 480 and figures["writers"] == 24
    assert {"frames", "likelihood", "other_1", "likelihood + top_share", "all"} <= set(figures["signals"])
    areas = {name: found["area"] for name, found in figures["signals"].items()}
    assert areas["an oracle"] < areas["all"] < areas["width"]
    assert figures["drift"]["later"] < 0.05 and figures["drift"]["halves"] < 0.5
    assert figures["calibration"]["words, calibrated"]["items"] == 3 * 480


@pytest.mark.skipif(not SHARED, reason="HTR_SHARED names no folder of real handwriting")
def test_audit():
    figures = run("audit.py", "--handwriting", f"{SHARED}/handwriting", "--lines", 40, "--seeds", 2, "--spoil", 0.2)
    assert figures["spoiled"] == 8 and figures["lines"] == 40
    assert 0.4 < figures["audit_all"] <= 1 and figures["others_shown"] > 0  # a fifth would be chance
