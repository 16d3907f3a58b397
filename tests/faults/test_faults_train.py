"""A training on a real Slurm cluster of four nodes, disturbed: it finishes by itself as if nothing had been, or ends
with the reason. Two ranks on two nodes. Those that take long run by `make test-faults` alone.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from bed import LONG, PATIENT_S, Cluster, wait_for

from jobs.distributed.heartbeat import beats

pytestmark = pytest.mark.slurm
STEPS, EVERY, MANY = 160, 10, 1_000_000
TRAIN = ["--size", "tiny", "--batch", "8", "--warmup", "5", "--log-every", "1", "--amp", "off", "--deterministic"]
TRAIN += ["--device", "cpu", "--checkpoint-every", EVERY, "--evaluate-every", "80"]


def status(run: Path) -> dict:
    path = run / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def starts(run: Path) -> list[dict]:
    path = run / "provenance.json"
    return json.loads(path.read_text(encoding="utf-8"))["starts"] if path.exists() else []


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]


def checkpointed(run: Path) -> int:
    """The step of the newest checkpoint."""
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["step"]


class Job:
    """A training of two ranks, one a node. `run`: its folder, in the given one if not said. `every`: steps from one
    checkpoint to the next; `steps`: MANY where it is disturbed for good, so that it does not end before.
    """

    def __init__(
        self,
        cluster: Cluster,
        dataset,
        folder: Path,
        *options: object,
        run: Path | None = None,
        every: int = EVERY,
        steps: int = STEPS,
        **environ,
    ):
        self.cluster, self.run, self.log = cluster, run or folder / "run", folder / "log"
        options = [*options] if "--partition" in map(str, options) else ["--partition", "main", *options]
        command = ["--nodes=2", "--ntasks-per-node=1", *options, "slurm/train.sh", dataset.folder, "--run", self.run]
        # bound to the same CPU, the ranks of all nodes would share it: the nodes are one machine
        self.id = cluster.submit(self.log, "--cpus-per-task=2", *command, *TRAIN, "--steps", steps,
                                 "--checkpoint-every", every, **environ)  # fmt: skip

    def step(self) -> int:
        return status(self.run).get("step", 0)

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: self.step() >= step, every=0.05)

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

    def assert_undisturbed(self, whole: Path, restarts: int = 1, lost: int = EVERY) -> int:
        """It came back so often, and ends as the run that nothing happened to, having lost at most so many steps each
        time -> how many in all."""
        self.cluster.end(self.id, good=True)
        return assert_same(self.run, whole, restarts, lost)

    def seconds_to(self, condition: Callable[[], object], within: float = PATIENT_S) -> float:
        """From now until so."""
        began = time.monotonic()
        wait_for(condition, within)
        return time.monotonic() - began

    def ended(self) -> bool:
        """Whether it neither runs nor waits to run."""
        return not {"PENDING", "RUNNING", "COMPLETING"} & set(self.cluster.states(self.id))


def assert_same(run: Path, whole: Path, restarts: int = 1, lost: int = EVERY) -> int:
    assert status(run)["state"] == "finished" and len(starts(run)) == restarts + 1
    taken = steps_of(run)
    again = len(taken) - STEPS
    assert again <= restarts * lost, f"{again} steps were taken again"
    assert dict(taken) == dict(steps_of(whole)) and len(dict(taken)) == STEPS
    ours, theirs = weights(run), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    return again


def steps_of(run: Path) -> list[tuple[int, float]]:
    """Each step that was taken, those taken again too, and its loss."""
    taken = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["step"], line["loss"]) for line in taken if "loss" in line]


@pytest.fixture(autouse=True)
def left_behind(cluster: Cluster) -> Iterator[None]:
    """A job of a test that failed is not left to the next one."""
    yield
    cluster.run("scancel", "--full", "--user", "root")


@pytest.fixture(scope="module")
def whole(cluster: Cluster, dataset, tmp_path_factory) -> Path:
    """The run that nothing happens to."""
    job = Job(cluster, dataset, tmp_path_factory.mktemp("whole"))
    cluster.end(job.id, good=True)
    return job.run


def test_the_time_limits_signal_brings_it_back_without_a_step_lost(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(20)
    cluster.run("scancel", "--signal=USR1", job.id)  # what Slurm does before the limit
    fault("the time limit's signal", job.seconds_to(job.requeued), "", job.assert_undisturbed(whole, lost=0))
    assert status(job.run)["requeues"] == 1 and "the job is queued again" in job.log.read_text(encoding="utf-8")
    codes = {start["code"] for start in starts(job.run)}
    assert len(codes) == 1 and len(list((job.run / "code").glob("job-*"))) == 1


def test_scancel_leaves_a_checkpoint_and_does_not_raise_the_dead(cluster, dataset, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path, every=MANY, steps=MANY)
    job.wait_for_step(15)
    cluster.run("scancel", job.id)
    fault("scancel", job.seconds_to(job.ended), "", job.step() - checkpointed(job.run))
    cluster.end(job.id, good=False)
    assert status(job.run)["state"] == "stopped" and job.field("JobState") == "CANCELLED" and not job.requeued()
    assert checkpointed(job.run) == status(job.run)["step"]  # none that was due


LIMIT = 30  # seconds, of the watchdog
# the main thread of a python that gets these signals does this; the other threads go on
HANDLERS = """
import signal, time
def loop(*_):
    while True: pass
signal.signal(signal.SIGRTMIN, lambda *_: time.sleep(10000))
signal.signal(signal.SIGRTMIN + 1, loop)
"""
HANGS = {"stopped": signal.SIGSTOP, "asleep in Python": signal.SIGRTMIN, "in an endless loop": signal.SIGRTMIN + 1}


@pytest.fixture
def watched(tmp_path) -> dict[str, str]:
    """The environment of a job whose ranks can be made to hang; Horovod's own time-out is out of the way."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HANDLERS)
    path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    return {"HTR_STEP_TIMEOUT": str(LIMIT), "PYTHONPATH": path, "HOROVOD_GLOO_TIMEOUT_SECONDS": "600"}


def blamed(said: str) -> str:
    """Whom every rank names. Others know its step from the last heartbeat, its sentinel from a second before."""
    errors = [line for line in said.splitlines() if line.startswith("error: no step for")]
    who = [re.search(r"; (rank \d on node\d: .*)\. If that", line)[1] for line in errors]
    assert len({re.sub(r"step \d+$", "", name) for name in who}) == 1, errors
    return who[0]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[LONG] * (kind != "asleep in Python")) for kind in HANGS])
def test_a_rank_that_hangs_is_named_and_the_job_comes_back(cluster, dataset, whole, tmp_path, watched, fault, kind):
    all_of_it = bool(os.environ.get("HTR_FAULTS"))  # else its end is not waited for, nor seconds counted
    job = Job(cluster, dataset, tmp_path, steps=STEPS if all_of_it else MANY, **watched)
    job.wait_for_step(15)
    began = time.monotonic()
    job.rank(1).send_signal(HANGS[kind])
    wait_for(job.requeued)
    seconds = time.monotonic() - began
    said = job.log.read_text()
    at = "stopped answering" if kind == "stopped" else "(computing|waiting|rank 0's files)"  # wherever it was hit
    assert re.match(rf"rank 1 on node\d: {at}", blamed(said)), said
    assert list((job.run / "logs").glob(f"stacks-{job.id}-0-rank0-node*.txt"))
    if all_of_it:
        assert seconds <= 1.5 * LIMIT
        fault(f"a rank that is {kind}", seconds, blamed(said), job.assert_undisturbed(whole), LIMIT)


@LONG
def test_a_lone_rank_that_is_stopped_comes_back(cluster, dataset, tmp_path, watched, fault):
    """Nobody else is there to notice it, and its own watchdog is stopped: its sentinel acts."""
    job = Job(cluster, dataset, tmp_path, "--nodes=1", **watched)
    job.wait_for_step(15)
    job.rank(0).send_signal(signal.SIGSTOP)
    seconds = job.seconds_to(job.requeued)
    said, told = job.log.read_text(), (job.run / "logs" / "train.log").read_text(encoding="utf-8")
    assert re.match(r"rank 0 on node\d: stopped answering at step", blamed(said)), said
    assert "the job is queued again, 1 of" in told, told
    assert seconds <= 1.5 * LIMIT
    cluster.end(job.id, good=True)
    assert len(dict(steps_of(job.run))) == STEPS and len(starts(job.run)) == 2
    fault("a lone rank that is stopped", seconds, blamed(said), len(steps_of(job.run)) - STEPS, LIMIT)


@LONG
def test_a_shard_that_nobody_answers_for(cluster, dataset, tmp_path, watched, fault):
    """As of a file server that one node has lost. The job comes back, once without a step, and finds it well."""
    copy = tmp_path / "data"
    shutil.copytree(dataset.folder, copy)
    shard = next(copy.glob("train-*.tar"))
    well = shard.read_bytes()
    shard.unlink()
    os.mkfifo(shard)
    limit = 5 * 6  # of the first step
    job = Job(cluster, SimpleNamespace(folder=copy), tmp_path, **watched | {"HTR_STEP_TIMEOUT": "6"})
    wait_for(lambda: any(shard.name in said.get("at", "") for said in beats(job.run).values()))
    began = time.monotonic()
    wait_for(job.requeued)
    seconds = time.monotonic() - began
    (tmp_path / "well").write_bytes(well)
    (tmp_path / "well").replace(shard)
    said = job.log.read_text()
    told = (job.run / "logs" / "train.log").read_text(encoding="utf-8")  # what srun's end keeps from the job's log
    at = rf"waiting for data \([^)]*{re.escape(shard.name)}"  # others may be under way, too
    assert re.search(at, said) and "the job is queued again, 1 of" in told, said + told
    fault("a shard that is a FIFO, on all nodes, at the first step", seconds, shard.name, 0, limit)
    assert seconds <= 1.5 * limit
    cluster.end(job.id, good=True)
    assert len(dict(steps_of(job.run))) == STEPS and status(job.run)["requeues"] == 1


@LONG
def test_a_chain_of_jobs_goes_on_where_the_one_before_ended(cluster, dataset, whole, tmp_path):
    """Where nodes can't put a job back into the queue. The third finds nothing to do."""
    run, options = tmp_path / "run", ["--chain", 3, "--nodes", 2, "--tasks-per-node", 1, "--partition", "main"]
    cluster.run("python", "-m", "jobs", "submit", "train", *options, "--time", "30:00", dataset.folder, "--run", run,
                *TRAIN, "--steps", STEPS)  # fmt: skip
    wait_for(lambda: status(run).get("step", 0) >= 25)
    first = status(run)["job"]
    cluster.run("scancel", "--signal=USR1", first)  # what Slurm does before the limit
    jobs = [str(int(first) + number) for number in range(3)]
    for job in jobs:
        wait_for(lambda job=job: not {"PENDING", "RUNNING", "COMPLETING"} & set(cluster.states(job)))
    assert all(cluster.states(job) == ["COMPLETED"] for job in jobs)
    said = "".join(path.read_text() for path in (run / "logs").glob(f"{first}_*_log.err"))
    assert "the next job of the chain goes on" in said
    assert [start["job"] for start in starts(run)][:2] == jobs[:2]
    assert_same(run, whole, restarts=len(starts(run)) - 1, lost=0)


@LONG
def test_scontrol_requeue(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    cluster.run("scontrol", "requeue", job.id)
    fault("scontrol requeue", job.seconds_to(job.requeued), "", job.assert_undisturbed(whole))


@LONG
def test_a_node_that_dies(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    host = int(starts(job.run)[0]["hosts"][1].removeprefix("node"))
    try:
        cluster.node("off", host)
        fault("a node that dies", job.seconds_to(job.requeued), "Slurm's own", job.assert_undisturbed(whole))
    finally:
        cluster.node("on", host)


@LONG
def test_preemption_by_a_higher_partition(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path, "--partition", "low")
    job.wait_for_step(25)
    other = cluster.submit(tmp_path / "other", "--partition=main", "--nodes=4", "--exclusive", "--wrap", "sleep 5")
    seconds = job.seconds_to(job.requeued)
    cluster.end(other, good=True)
    fault("preemption", seconds, "", job.assert_undisturbed(whole))


@LONG
def test_a_real_time_limit(cluster, dataset, whole, tmp_path, fault):
    """Slurm's own signal, half a minute before the limit or up to a minute earlier. The ranks are stopped meanwhile, so
    that a short training is still at work then; Slurm itself wakes them, by the SIGCONT that it sends before a signal.
    """
    patient = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "300"}
    job = Job(cluster, dataset, tmp_path, "--time=2", "--signal=USR1@30", **patient)
    job.wait_for_step(15)
    for number in range(2):
        job.rank(number).send_signal(signal.SIGSTOP)
    seconds = job.seconds_to(job.requeued)
    cluster.run("scontrol", "update", f"JobId={job.id}", "TimeLimit=30")  # or a slow machine meets it again
    fault("a time limit of two minutes", seconds, "", job.assert_undisturbed(whole, lost=0))
    assert status(job.run)["requeues"] == 1 and "the job is queued again" in job.log.read_text(encoding="utf-8")


@LONG
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    job.rank(1).kill()
    seconds = job.seconds_to(job.ended)
    cluster.end(job.id, good=False)
    again = Job(cluster, dataset, tmp_path)  # the first one's lock is left behind or not: it waits for no heartbeat
    fault("a killed rank", seconds, "rank 1", again.assert_undisturbed(whole))


@LONG
def test_a_full_disk_ends_the_job_and_the_same_command_goes_on(cluster, dataset, whole, tmp_path, fault):
    run = cluster.small / "run"
    ballast = cluster.small / "ballast"
    try:
        job = Job(cluster, dataset, tmp_path, run=run)
        job.wait_for_step(25)
        fill(ballast)
        seconds = job.seconds_to(job.ended)
        cluster.end(job.id, good=False)
        assert f"No space left on device: '{run}/" in job.log.read_text(encoding="utf-8")
        assert not list((run / "checkpoints").glob("*.tmp*"))
        ballast.unlink()
        again = Job(cluster, dataset, tmp_path, run=run)
        fault("a full disk", seconds, "the file", again.assert_undisturbed(whole))
    finally:
        ballast.unlink(missing_ok=True)
        shutil.rmtree(run, ignore_errors=True)


def fill(ballast: Path) -> None:
    """Take all that the file system has left."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


@LONG
def test_a_newest_checkpoint_that_was_cut_short(cluster, dataset, whole, tmp_path, fault):
    job = Job(cluster, dataset, tmp_path)
    job.wait_for_step(25)
    cluster.run("scancel", job.id)
    cluster.end(job.id, good=False)
    newest = (job.run / "checkpoints" / "last.pt").resolve()
    newest.write_bytes(newest.read_bytes()[:5000])
    again = Job(cluster, dataset, tmp_path)
    seconds = again.seconds_to(lambda: "is damaged" in again.log.read_text(encoding="utf-8"))
    fault("a newest checkpoint cut short: until it is named", seconds, "the file", again.assert_undisturbed(whole))
