"""Storage that stops answering while a training reads from it: a file system of FUSE that stalls, as NFS mounted hard.

Needs /dev/fuse and fusermount3 (Debian's package fuse3)."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import LONG, wait_for

from jobs.training.run_lock import read_json

LIMIT_S = 20  # of the watchdog
TRAIN = ["--size", "tiny", "--batch", "4", "--steps", "100000", "--evaluate-every", "0", "--amp", "off"]
TRAIN += ["--log-every", "1", "--device", "cpu"]


@pytest.fixture
def mounted(dataset, tmp_path) -> Iterator[tuple[Path, Path]]:
    """-> the data set as it is read through FUSE, and the file that stalls it."""
    if not (os.path.exists("/dev/fuse") and shutil.which("fusermount3")):
        pytest.fail("no FUSE here: install fuse3")
    folder, mount = tmp_path / "data", tmp_path / "mount"
    shutil.copytree(dataset.folder, folder)
    mount.mkdir()
    server = subprocess.Popen([sys.executable, Path(__file__).with_name("stalling_storage.py"), folder, mount])
    try:
        wait_for(lambda: (mount / "index.json").exists(), 60)
        yield mount, tmp_path / "data.stalled"
    finally:
        (tmp_path / "data.stalled").unlink(missing_ok=True)
        subprocess.run(["fusermount3", "-u", "-z", mount])
        server.terminate()
        server.wait()


@LONG
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_whose_storage_stalls_ends_in_bounded_time(mounted, tmp_path, fault, ranks):
    mount, stalled = mounted
    run, environ = tmp_path / "run", os.environ | {"HTR_STEP_TIMEOUT": str(LIMIT_S)}
    environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "600"  # it is not what ends the job
    verb = ["train"] if ranks == 1 else ["submit", "train", "--cluster", "local", "--tasks-per-node", str(ranks)]
    command = [sys.executable, "-m", "jobs", *verb, mount, "--run", run, *TRAIN]
    job = subprocess.Popen(list(map(str, command)), env=environ, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (read_json(run / "status.json") or {}).get("step", 0) >= 10 or job.poll() is not None, 200)
    step = read_json(run / "status.json")["step"]
    stalled.touch()
    began = time.monotonic()
    _, said = job.communicate(timeout=10 * LIMIT_S)
    seconds = time.monotonic() - began
    assert job.returncode != 0 and list((run / "logs").glob("stacks-*-rank0-*.txt")), said
    log = (run / "logs" / "train.log").read_text(encoding="utf-8")
    assert "no step for" in log and "waiting for data (train-" in log, log
    assert seconds <= 1.5 * LIMIT_S + 10  # what was read ahead is trained on first
    fault(f"storage that stalls, {ranks} rank{'s' * (ranks > 1)}", seconds, "the shard", f"from {step}")
