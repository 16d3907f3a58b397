"""Storage that stops answering while a training works on it: a file system of FUSE that stalls, as NFS mounted hard.

Needs /dev/fuse, and fusermount3 (Debian's package fuse3), which is installed where root is there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bed import CHECKOUT, LONG, PATIENT_S, Cluster, wait_for

from jobs.distributed.heartbeat import beats
from jobs.distributed.sentinel import LEFT_TO_SHELL
from jobs.distributed.signals import AGAIN
from jobs.training.checkpoint import steps
from jobs.training.run_lock import read_json

LIMIT_S = 30  # of the watchdog
SERVER = Path(__file__).with_name("stalling_storage.py")
TRAIN = ["--size", "tiny", "--batch", "4", "--steps", "100000", "--evaluate-every", "0", "--amp", "off"]
TRAIN += ["--log-every", "1", "--device", "cpu"]


class Mounted:
    """A folder as FUSE shows it at `mount`. `within`: a command that enters the namespace of a node of the cluster."""

    def __init__(self, folder: Path, mount: Path, within: list[str]):
        self.folder, self.mount, self.within = folder, mount, within
        self.stalled = folder.with_name(f"{folder.name}.stalled")
        folder.mkdir()
        mount.mkdir()
        self.server = subprocess.Popen([*within, sys.executable, SERVER, folder, mount])
        (folder / "up").touch()
        wait_for(lambda: self.server.poll() is not None or not self.asked("test", "-e", mount / "up").returncode)
        assert self.server.poll() is None, "FUSE does not mount"

    def asked(self, *command: object) -> subprocess.CompletedProcess:
        return subprocess.run([*self.within, *map(str, command)], stderr=subprocess.DEVNULL)

    def stall(self, held: bool) -> None:
        """`held`: the file server has taken the requests, and who waits can't even be killed."""
        if held:
            self.stalled.touch()
        else:
            self.server.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self.stalled.unlink(missing_ok=True)
        self.server.send_signal(signal.SIGCONT)
        self.asked("fusermount3", "-u", "-z", self.mount)
        self.server.terminate()
        self.server.wait()


def need_fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse here")
    if not shutil.which("fusermount3"):
        if os.geteuid():
            pytest.skip("no fusermount3 here: install fuse3")
        install = "apt-get update -qq && apt-get install -qq --no-install-recommends fuse3"
        subprocess.run(install, shell=True, check=True)


@pytest.fixture
def mounted(tmp_path) -> Iterator[Mounted]:
    need_fuse()
    found = Mounted(tmp_path / "there", tmp_path / "mount", [])
    try:
        yield found
    finally:
        found.end()


# a rank that reads from the mount, in a job of this machine: the child of a process that waits for it
RANK = """
import sys, time
from pathlib import Path
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.watchdog import Watchdog
folder = Path(sys.argv[1])
with Watchdog(folder, 0, "node1", str, lambda line: print(line, file=sys.stderr, flush=True)):
    ACTIVITY.took(1)
    while (folder / "up").exists():
        time.sleep(0.05)
        ACTIVITY.progressed("waiting for data")
"""
CONTROLLER = "import subprocess, sys; subprocess.call([sys.executable, *sys.argv[1:]])"


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=LONG)])
def test_a_rank_that_the_system_does_not_let_go_ends_its_job_all_the_same(mounted, tmp_path, plain):
    """In state D a process outlives even SIGKILL: it is left behind, and its job of this machine ends. In a plain shell
    nothing is around it: that says what it waits for, and that it may be closed."""
    (mounted.folder / "logs").mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environ |= {"HTR_STEP_TIMEOUT": "2"} | ({} if plain else {"SUBMITIT_EXECUTOR": "local"})
    command = [sys.executable, *([] if plain else ["-c", CONTROLLER]), "-c", RANK, mounted.mount]
    with open(tmp_path / "said", "w") as said:
        job = subprocess.Popen(command, env=environ, stderr=said, cwd=CHECKOUT)
    wait_for(lambda: any(said.get("step") == 1 for said in beats(mounted.folder).values()))
    [rank] = [psutil.Process(job.pid)] if plain else psutil.Process(job.pid).children()
    mounted.stall(held=True)
    assert plain or (job.wait(PATIENT_S) == -signal.SIGKILL and rank.is_running())
    wait_for(lambda: f"does not let its process {rank.pid} go" in (tmp_path / "said").read_text())
    told = (tmp_path / "said").read_text()
    assert (LEFT_TO_SHELL in told) == plain and ("its job ends without it" in told) != plain
    assert not plain or job.poll() is None
    assert "at step 1, waiting for data; the run folder's storage does not answer; stacks" in told
    assert "train: the job is not queued again, since its run folder does not answer" in told
    mounted.stalled.unlink()
    assert job.wait(PATIENT_S) in (AGAIN, -signal.SIGKILL)  # it had begun to end by itself before it was killed
    rank.wait(PATIENT_S)


# --- whole trainings


def start(data: Path, run: Path, ranks: int, log: Path, seen: Path | None = None) -> subprocess.Popen:
    """-> a training of so many ranks that has taken ten steps. `seen`: where its run folder lies."""
    environ = os.environ | {"HTR_STEP_TIMEOUT": str(LIMIT_S)}
    environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = "600"  # it is not what ends the job
    verb = ["train"] if ranks == 1 else ["submit", "train", "--cluster", "local", "--tasks-per-node", str(ranks)]
    every = "5" if seen is None else "100000"  # a checkpoint under way may take five limits
    command = [sys.executable, "-m", "jobs", *verb, data, "--run", run, *TRAIN, "--checkpoint-every", every]
    with open(log, "w") as said:  # a worker that is held keeps it open: nobody waits for its end
        job = subprocess.Popen(list(map(str, command)), env=environ, stderr=said, stdout=said)
    wait_for(lambda: step_of(seen or run) >= 10 or job.poll() is not None)
    assert job.poll() is None
    return job


def step_of(run: Path) -> int:
    return (read_json(run / "status.json") or {}).get("step", 0)


def last_step(run: Path) -> tuple[int, float, int]:
    """-> its number, when it was done, and how many steps after the newest checkpoint."""
    line = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    written = steps(run / "checkpoints")
    return line["step"], line["time"], line["step"] - (int(written[0].stem[5:]) if written else 0)


@LONG
@pytest.mark.parametrize(("ranks", "held"), [(1, False), (2, False), (1, True), (2, True)])
def test_a_training_whose_data_stall_ends_in_bounded_time(dataset, mounted, tmp_path, fault, ranks, held):
    shutil.copytree(dataset.folder, mounted.folder / "data")
    run = tmp_path / "run"
    job = start(mounted.mount / "data", run, ranks, tmp_path / "said")
    mounted.stall(held)
    job.wait(timeout=20 * LIMIT_S)
    ended, (_, at, lost) = time.time(), last_step(run)  # what was read ahead was trained on first
    assert job.returncode != 0 and list((run / "logs").glob("stacks-*-rank0-*.txt")), (tmp_path / "said").read_text()
    log = (run / "logs" / "train.log").read_text(encoding="utf-8")
    assert "no step for" in log and "waiting for data (train-" in log, log
    kind = "data that stall" + ", requests held" * held + f", {ranks} rank{'s' * (ranks > 1)}"
    fault(kind, ended - at, "the shard", lost, LIMIT_S)
    assert ended - at <= 1.5 * LIMIT_S


@LONG
@pytest.mark.parametrize("log_too", [False, True])
def test_a_training_whose_run_folder_stalls_ends_in_bounded_time(dataset, mounted, tmp_path, fault, log_too):
    """No heartbeat, no stacks and no checkpoint can be written, nor, if it lies there too, the line that says so."""
    said = (mounted.mount if log_too else tmp_path) / "said"
    job = start(dataset.folder, mounted.mount / "run", 1, said, mounted.folder / "run")
    mounted.stall(held=False)
    job.wait(timeout=20 * LIMIT_S)
    ended, (_, at, lost) = time.time(), last_step(mounted.folder / "run")
    fault(f"a run folder that stalls{', and the log' * log_too}", ended - at, "the storage", lost, LIMIT_S)
    assert job.returncode != 0 and ended - at <= 1.5 * LIMIT_S
    if not log_too:
        told = said.read_text(encoding="utf-8")
        assert "no step for" in told and "; the run folder's storage does not answer; stacks" in told
        assert "the job is not queued again, since its run folder does not answer" in told


@LONG
@pytest.mark.slurm
def test_a_job_whose_rank_the_system_does_not_let_go_ends_in_bounded_time(cluster: Cluster, dataset, tmp_path, fault):
    """The run folder lies on node1's mount, and requests are held: the rank outlives SIGKILL. Its job ends all the
    same; the node is Slurm's matter until its UnkillableStepTimeout.
    """
    need_fuse()
    limit, state = 2 * LIMIT_S, Path(cluster.environ["SLURM_CONF"]).parent  # of which fixed seconds are a smaller part
    node = (state / "run" / "node1.pid").read_text().strip()
    mounted = Mounted(tmp_path / "there", tmp_path / "mount", ["nsenter", "-t", node, "-m"])
    run = mounted.folder / "run"
    try:
        options = ["--nodelist=node1", "slurm/train.sh", dataset.folder, "--run", mounted.mount / "run", *TRAIN]
        environ = {"HTR_STEP_TIMEOUT": str(limit)}
        job = cluster.submit(tmp_path / "log", *options, "--checkpoint-every", "100000", **environ)
        wait_for(lambda: step_of(run) >= 10)
        mounted.stall(held=True)
        wait_for(lambda: cluster.states(job) != ["RUNNING"], 10 * limit)
        ended, (_, at, lost) = time.time(), last_step(run)
    finally:
        mounted.end()
    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "no step for" in told and "; the run folder's storage does not answer; stacks" in told
    assert "the system does not let its process" in told
    cluster.end(job, good=False)
    fault("a run folder that stalls, its rank in state D", ended - at, "the storage", lost, limit)
    assert ended - at <= 1.5 * limit
