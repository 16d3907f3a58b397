"""The watchdog's silence: two thousand steps with evaluations, checkpoints and a loader that stalls end nothing."""

import os
import subprocess
import sys

import pytest
from bed import LONG

# what a rank waits for: the next batch that its workers make
STALLING = """
import random, sys, time
from shards.loader import Flow
following, rng, limit = Flow.next, random.Random(7), float(sys.argv[1])
def stalling(self):
    if rng.random() < 0.01:
        print("stalls", flush=True)
        time.sleep(limit / 3)
    return following(self)
Flow.next = stalling
from jobs.cli.command_line import main
sys.exit(main(sys.argv[2:]))
"""


@LONG
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("limit", [15, None])  # seconds; None: as the watchdog finds it
def test_no_false_alarm_in_2000_steps(dataset, tmp_path, fault, limit):
    options = ["--steps", 2000, "--evaluate-every", 200, "--size", "tiny", "--batch", "2", "--amp", "off"]
    options += ["--checkpoint-every", 50, "--log-every", "10", "--device", "cpu"]
    train = ["train", dataset.folder, "--run", tmp_path / "run", *options]
    command = [sys.executable, "-c", STALLING, limit or 15, *train]
    environ = os.environ | ({"HTR_STEP_TIMEOUT": str(limit)} if limit else {})
    done = subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and "no step for" not in done.stderr, done.stderr[-2000:]
    stalls = done.stdout.count("stalls")
    assert stalls >= 10
    fault(f"none: 2000 steps, {stalls} stalls of {(limit or 15) / 3:g} s, limit {limit or 'found'}", 0, "nobody", 0)
