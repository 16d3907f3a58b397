"""Signals: one that reaches a single rank becomes a decision of all ranks: go on, stop, or stop and requeue.

Slurm sends SIGUSR1 some time before the time limit (`--signal=USR1@120`, in slurm/train.sh and by jobs/submit.py;
SIGUSR2 is submitit's own). Then the run writes a checkpoint, and its job goes back into the queue. SIGTERM comes from
scancel or a preemption. Then the run writes a checkpoint and ends: a cancelled job must not start again, and Slurm
itself requeues a preempted one. Both signals at once count as a SIGTERM.
"""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass

LIMIT = (signal.SIGUSR1, signal.SIGUSR2)
STOPPED = 128 + signal.SIGTERM  # exit status of a run that was stopped by SIGTERM
SCONTROL_TIMEOUT_S = 60.0  # seconds
AGAIN = 75  # exit status of a run that the batch script must requeue (EX_TEMPFAIL)


@dataclass(frozen=True)
class Decision:
    """What the ranks have agreed on."""

    stop: bool = False
    requeue: bool = False

    @classmethod
    def of(cls, received: dict[str, float]) -> "Decision":
        """From the sums of `SignalHandler.received` over the ranks."""
        limit, stop = received["limit"], received["stop"]
        return cls(stop=bool(stop or limit), requeue=bool(limit and not stop))


class SignalHandler:
    """Keeps the signals that this rank has received until its next step asks for them. To be made in the main thread.

    As a context it also handles SIGTERM. Outside of it, when nothing is trained yet, SIGTERM ends the program at once.
    """

    def __init__(self) -> None:
        self.received = {"stop": 0, "limit": 0}
        for number in LIMIT:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: object) -> None:
        self.received["limit" if number in LIMIT else "stop"] = 1

    def __enter__(self) -> "SignalHandler":
        self.before = signal.signal(signal.SIGTERM, self.handle)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # when all have agreed to end, srun's SIGTERM to the last rank must not change its exit status
        ending = self.received["stop"] or self.received["limit"]
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ending else self.before)


def requeue(environ: dict[str, str] = os.environ) -> str:
    """Put this Slurm job back into the queue -> "", or why that failed."""
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        return "this is no job of Slurm"
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return "this node has no scontrol: submit with `python -m jobs submit train --chain N`"
    # it ends the steps of this job at once: later messages reach no log
    try:
        done = subprocess.run(
            [scontrol, "requeue", job], capture_output=True, text=True, timeout=SCONTROL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"scontrol did not answer within {SCONTROL_TIMEOUT_S:g} s"
    except OSError as error:
        return f"scontrol could not be started: {error.strerror}"
    return " ".join((done.stderr or done.stdout).split()) if done.returncode else ""
