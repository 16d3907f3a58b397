"""The benchmarks run and end with the figures that they promise. Tiny: the figures themselves mean nothing here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
