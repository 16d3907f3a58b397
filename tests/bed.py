"""The login node of a real Slurm cluster of four nodes on this machine, for tests marked slurm. Needs root."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PATIENT_S = 280.0  # seconds that a test waits for what comes by itself: never too short, however busy the machine is
LONG = pytest.mark.skipif(not os.environ.get("HTR_FAULTS"), reason="make test-faults runs it")
CHECKOUT = Path(__file__).parent.parent
CLUSTER = Path(__file__).parent / "slurm" / "cluster.sh"


class Cluster:
    """Commands run in the checkout."""

    def __init__(self, environ: dict[str, str]):
        self.environ = environ

    def run(self, *command: object, good: bool = True, **environ: str) -> str:
        """-> stdout and stderr; asserts that the command's success is `good`."""
        words, environ = list(map(str, command)), self.environ | environ
        done = subprocess.run(words, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=PATIENT_S)
        assert (done.returncode == 0) == good, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sbatch(self, log: Path, *command: object, good: bool = True, **environ: str) -> str:
        """Submit, wait for the end (sbatch --wait looks every ten seconds only), -> what the job wrote."""
        self.end(self.submit(log, *command, **environ), good)
        return log.read_text(encoding="utf-8")

    def submit(self, log: Path, *command: object, **environ: str) -> str:
        return self.run("sbatch", "--parsable", f"--output={log}", *command, **environ).strip()

    def states(self, job: str) -> list[str]:
        return self.run("squeue", "-h", "-r", "-j", job, "-t", "all", "-o", "%T").split()

    def end(self, job: str, good: bool, seconds: float = 2 * PATIENT_S) -> None:
        wait_for(lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(self.states(job)), seconds)
        assert (set(self.states(job)) == {"COMPLETED"}) == good, self.states(job)

    @property
    def small(self) -> Path:
        """A folder on a small file system of its own, which all nodes share."""
        return Path(self.environ["SLURM_CONF"]).parent / "small"

    def node(self, what: str, number: int) -> None:
        """`what`: off, as if its plug were pulled, or on."""
        subprocess.run([CLUSTER, what, f"node{number}"], check=True, capture_output=True, timeout=PATIENT_S)


def wait_for(condition: Callable[[], object], seconds: float = PATIENT_S, every: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def kill_at(task: subprocess.Popen, count: Callable[[], int], parts: int, seconds: float = PATIENT_S) -> bool:
    """Kill a task, the leader of a session, and its workers once `count()` has come to so many finished parts; look
    while they stand still. -> whether they were at work then: not when the task ended by itself before.

    By progress, not by time: a busy machine gives the same moments.
    """
    deadline = time.monotonic() + seconds
    while task.poll() is None and count() < parts:
        assert time.monotonic() < deadline, f"{count()} of {parts} parts after {seconds:g} s"
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(task.pid, signal.SIGSTOP)
    at_work = task.poll() is None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(task.pid, signal.SIGKILL)
    task.communicate()
    return at_work


# A node whose clock is off, on storage that stamps a file by the clock of the node that writes it, as Lustre does: put
# before a program, it shifts what Python is told of the time and the stamps of files that it makes and renews.
CLOCK_OFF = """
import os, sys, time
import shards.claim as claim
off = float(os.environ["CLOCK_OFF_S"])
now, utime, stat, clock = time.time, os.utime, os.stat, claim.clock
time.time = lambda: now() + off
def stamped(path, times=None, **more):
    utime(path, times or (now() + off,) * 2, **more)
os.utime = stamped
claim.clock = lambda mark: clock(mark) + off
opened = os.open
def opening(path, flags, *more, **named):
    handle = opened(path, flags, *more, **named)
    if flags & os.O_CREAT and flags & os.O_EXCL:
        utime(handle, (now() + off,) * 2)
    return handle
os.open = opening
import jobs.launch.under_way as under_way
under_way.clock = claim.clock
from jobs.cli.command_line import main
sys.exit(main(sys.argv[1:]))
"""

# a training to which something happens after a given step, whatever the machine is busy with
HELD = """
import os, signal, sys, time
from pathlib import Path
from jobs.cli.command_line import main
from jobs.training.trainer import Trainer

step, what, run_step = int(sys.argv[1]), sys.argv[2], Trainer.run_step

def held(self, *args):
    if self.step == step:
        exec(what)
    return run_step(self, *args)

Trainer.run_step = held
sys.exit(main(sys.argv[3:]))
"""
DIES, STOPS = (f"os.kill(os.getpid(), signal.{name})" for name in ("SIGKILL", "SIGSTOP"))
SLEEPS = "time.sleep(10**6)"


def jobs_but(step: int, what: str) -> list[str]:
    """`python -m jobs`, for a verb that trains. `what`: a line of Python for the time when so many steps are taken."""
    return [sys.executable, "-c", HELD, str(step), what]


def waits(mark: Path) -> str:
    """For a signal. `mark`: a file that is there from that time on."""
    return f"Path({str(mark)!r}).touch()\nwhile not any(self.signals.received.values()): time.sleep(0.01)"


def bring_up() -> tuple[Cluster, bool]:
    """-> the cluster, and whether it was up before."""
    was_up = subprocess.run([CLUSTER, "status"], capture_output=True).returncode == 0
    up = subprocess.run([CLUSTER, "up"], capture_output=True, text=True, timeout=500)
    assert up.returncode == 0, f"the cluster does not come up: {up.stderr}"
    exported = subprocess.run([CLUSTER, "env"], capture_output=True, text=True, check=True).stdout
    name, _, value = exported.strip().removeprefix("export ").partition("=")
    # one thread a rank: the four nodes share this machine's cores
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, name: value, "PATH": path, "OMP_NUM_THREADS": "1", "HTR_START_TIMEOUT": "250"}
    return Cluster(environ), was_up


def take_down() -> None:
    subprocess.run([CLUSTER, "down"], capture_output=True, timeout=100)
