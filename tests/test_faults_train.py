"""A training on a real Slurm cluster of four nodes, disturbed: it finishes by itself as if nothing had been, or ends
with the reason. Two ranks on two nodes. Those that take long run by `make test-faults` alone.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import torch
from bed import Cluster, wait_for

pytestmark = pytest.mark.slurm
LONG = pytest.mark.skipif(not os.environ.get("HTR_FAULTS"), reason="make test-faults runs it")
STEPS, EVERY = 160, 10
TRAIN = ["--size", "tiny", "--batch", "8", "--warmup", "5", "--log-every", "1", "--amp", "off", "--deterministic"]
TRAIN += ["--device", "cpu", "--checkpoint-every", EVERY, "--evaluate-every", "80"]


def status(run: Path) -> dict:
    path = run / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def starts(run: Path) -> list[dict]:
    path = run / "provenance.json"
    return json.loads(path.read_text())["starts"] if path.exists() else []


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


class Job:
    """A training of two ranks, one a node."""

    def __init__(self, cluster: Cluster, dataset, folder: Path, *options: object, steps: int = STEPS, **environ: str):
        self.cluster, self.run, self.log = cluster, folder / "run", folder / "log"
        self.log.parent.mkdir(exist_ok=True)
        options = [*options] if "--partition" in map(str, options) else ["--partition", "main", *options]
        command = ["--nodes=2", "--ntasks-per-node=1", *options, "slurm/train.sh", dataset.folder, "--run", self.run]
        self.id = cluster.submit(self.log, *command, *TRAIN, "--steps", steps, **environ)

    def step(self) -> int:
        return status(self.run).get("step", 0)

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: self.step() >= step, 120)

    def rank(self, number: int) -> psutil.Process:
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.run) in process.cmdline() and "-m" in process.cmdline():
                    environ = process.environ()
                    if (environ.get("SLURM_PROCID"), environ.get("SLURM_JOB_ID")) == (str(number), self.id):
                        found.append(process)
            except psutil.Error:
                continue
        [process] = [p for p in found if p.name().startswith("python")]
        return process

    def requeued(self) -> bool:
        return int(self.field("Restarts")) > 0

    def field(self, name: str) -> str:
        shown = self.cluster.run("scontrol", "show", "job", self.id)
        return next(word for word in shown.split() if word.startswith(f"{name}=")).partition("=")[2]

    def assert_undisturbed(self, whole: Path, restarts: int = 1, lost: int = EVERY) -> None:
        """It came back so often, and ended as the run that nothing had happened to, having lost so many steps."""
        self.cluster.end(self.id, good=True)
        assert status(self.run)["state"] == "finished" and len(starts(self.run)) == restarts + 1
        taken = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in taken if "loss" in line]
        assert set(steps) == set(range(1, STEPS + 1)) and len(steps) - STEPS <= restarts * lost
        ours, theirs = weights(self.run), weights(whole)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def whole(cluster: Cluster, dataset, tmp_path_factory) -> Path:
    """The run that nothing happens to."""
    job = Job(cluster, dataset, tmp_path_factory.mktemp("whole"))
    cluster.end(job.id, good=True)
    return job.run


def test_the_time_limits_signal_brings_it_back_without_a_step_lost(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(20)
    cluster.run("scancel", "--signal=USR1", job.id)  # what Slurm does before the limit
    job.assert_undisturbed(whole, lost=0)
    assert status(job.run)["requeues"] == 1 and "the job is queued again" in job.log.read_text()
    codes = {start["code"] for start in starts(job.run)}
    assert len(codes) == 1 and len(list((job.run / "code").glob("job-*"))) == 1


def test_scancel_leaves_a_checkpoint_and_does_not_raise_the_dead(cluster, dataset, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(15)
    cluster.run("scancel", job.id)
    cluster.end(job.id, good=False)
    assert status(job.run)["state"] == "stopped" and job.field("JobState") == "CANCELLED" and not job.requeued()
    written = torch.load(job.run / "checkpoints" / "last.pt", weights_only=True)["step"]
    assert written == status(job.run)["step"] and written % EVERY  # none that was due


def test_a_rank_that_hangs_is_named_with_its_host_and_ends_the_job(cluster, dataset, tmp_path):
    job = Job(cluster, dataset, tmp_path, HOROVOD_GLOO_TIMEOUT_SECONDS="20")
    job.wait_for_step(15)
    job.rank(1).send_signal(signal.SIGSTOP)
    cluster.end(job.id, good=False, seconds=90)
    said = job.log.read_text()
    assert "without a sign of life: rank 1 on node" in said and "--exclude=node" in said


@LONG
def test_scontrol_requeue(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    cluster.run("scontrol", "requeue", job.id)
    job.assert_undisturbed(whole)


@LONG
def test_a_node_that_dies(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    host = int(starts(job.run)[0]["hosts"][1].removeprefix("node"))
    try:
        cluster.node("off", host)
        job.assert_undisturbed(whole)
    finally:
        cluster.node("on", host)


@LONG
def test_preemption_by_a_higher_partition(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path, "--partition", "low")
    job.wait_for_step(25)
    other = cluster.submit(tmp_path / "other", "--partition=main", "--nodes=4", "--exclusive", "--wrap", "sleep 5")
    cluster.end(other, good=True)
    job.assert_undisturbed(whole)


@LONG
def test_a_real_time_limit(cluster, dataset, tmp_path):
    job = Job(cluster, dataset, tmp_path, "--time=2", "--signal=USR1@30", steps=1_000_000)
    wait_for(lambda: len(starts(job.run)) > 1, 240)
    stood = torch.load(job.run / "checkpoints" / "last.pt", weights_only=True)["step"]
    job.wait_for_step(stood + 20)
    cluster.run("scancel", job.id)
    cluster.end(job.id, good=False)
    said = job.log.read_text()
    assert "the job is queued again" in said and f"resumed at step {stood}" in said


@LONG
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    job.rank(1).kill()
    cluster.end(job.id, good=False, seconds=60)
    again = Job(cluster, dataset, tmp_path)  # the first one's lock is left behind or not: it waits for no heartbeat
    again.assert_undisturbed(whole)


@LONG
def test_a_full_disk_ends_the_job_and_the_same_command_goes_on(cluster, dataset, whole, tmp_path):
    disk = tmp_path / "run"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "tmpfs", disk], check=True)
    try:
        job = Job(cluster, dataset, tmp_path)
        job.wait_for_step(25)
        (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
        cluster.end(job.id, good=False, seconds=60)
        assert "No space left on device" in job.log.read_text()
        (disk / "ballast").unlink()
        again = Job(cluster, dataset, tmp_path)
        again.assert_undisturbed(whole)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@LONG
def test_a_newest_checkpoint_that_was_cut_short(cluster, dataset, whole, tmp_path):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    cluster.run("scancel", job.id)
    cluster.end(job.id, good=False)
    newest = (job.run / "checkpoints" / "last.pt").resolve()
    newest.write_bytes(newest.read_bytes()[:5000])
    again = Job(cluster, dataset, tmp_path)
    again.assert_undisturbed(whole)
    assert "is damaged" in again.log.read_text()
