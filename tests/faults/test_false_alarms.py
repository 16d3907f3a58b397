"""The watchdog's silence: two thousand steps with evaluations, checkpoints and a loader that stalls end nothing."""

import os
import subprocess
import sys

import pytest
from bed import LONG

from jobs.distributed.watchdog import MIN_LIMIT_S

# What a rank waits for, the next batch that its workers make, comes late: after every so many it stalls for a third of
# the limit. A limit that is found grows with what steps have lasted: it is that of the steps before any stall.
STALLING = """
import sys, time
from shards.loader import Flow
following, seconds, every, taken = Flow.next, float(sys.argv[1]) / 3, int(sys.argv[2]), [0]
def stalling(self):
    taken[0] += 1
    if taken[0] % every == 0:
        print("stalls", flush=True)
        time.sleep(seconds)
    return following(self)
Flow.next = stalling
from jobs.cli.command_line import main
sys.exit(main(sys.argv[3:]))
"""


@LONG
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("limit", "every", "least"), [(15, 100, 20), (None, 400, 5)])
def test_no_false_alarm_in_2000_steps(dataset, tmp_path, fault, limit, every, least):
    """`limit`: seconds; None: as the watchdog finds it from the run's own steps."""
    options = ["--steps", 2000, "--evaluate-every", 200, "--size", "tiny", "--batch", "2", "--amp", "off"]
    options += ["--checkpoint-every", 50, "--log-every", "10", "--device", "cpu"]
    train = ["train", dataset.folder, "--run", tmp_path / "run", *options]
    command = [sys.executable, "-c", STALLING, limit or MIN_LIMIT_S, every, *train]
    environ = {name: value for name, value in os.environ.items() if name != "HTR_STEP_TIMEOUT"}
    environ |= {"HTR_STEP_TIMEOUT": str(limit)} if limit else {}
    done = subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True)
    assert done.returncode == 0 and "no step for" not in done.stderr, done.stderr[-2000:]
    assert "step 2000, CER on dev" in done.stderr
    stalls = done.stdout.count("stalls")
    assert stalls >= least
    third = (limit or MIN_LIMIT_S) / 3
    fault(f"none: 2000 steps, {stalls} stalls of {third:g} s, limit {limit or 'found'}", 0, "nobody", 0)
