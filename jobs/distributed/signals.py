"""A signal to one rank becomes a decision of all of them: go on, stop, or stop and be queued again.

Slurm sends SIGUSR1 some time before the time limit (`--signal=USR1@120`, in slurm/train.sh and by jobs/submit.py;
SIGUSR2 is submitit's own): the run writes a checkpoint, its job goes back into the queue and finds the run again by its
folder's name. SIGTERM is scancel or a preemption: a checkpoint and a plain end, since a job that was cancelled
must not start again, and a preempted one is queued again by Slurm itself. Both at once are a SIGTERM.
"""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass

LIMIT = (signal.SIGUSR1, signal.SIGUSR2)
STOPPED = 128 + signal.SIGTERM  # exit codes: of a run that was stopped by SIGTERM,
AGAIN = 75  # and of one that has to be started again by somebody else (EX_TEMPFAIL)


@dataclass(frozen=True)
class Decision:
    """What the ranks agreed on."""

    stop: bool = False
    requeue: bool = False

    @classmethod
    def of(cls, received: dict[str, float]) -> "Decision":
        """From the sums of `SignalHandler.received` over the ranks."""
        limit, stop = received["limit"], received["stop"]
        return cls(stop=bool(stop or limit), requeue=bool(limit and not stop))


class SignalHandler:
    """Keeps the signals that this rank got until its steps ask for them. Opened in the main thread.

    As a context it takes SIGTERM over too: outside, while nothing is trained yet, that one ends the program at once.
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
        # when all have agreed to end, srun's SIGTERM to the last rank must not make another exit code of it
        ending = self.received["stop"] or self.received["limit"]
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ending else self.before)


def requeue(environ: dict[str, str] = os.environ) -> str:
    """Put this Slurm job back into the queue -> empty, or why that can't be."""
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        return "this is no job of Slurm"
    if shutil.which("scontrol") is None:
        return "this node has no scontrol: submit with `python -m jobs submit train --chain N`"
    # it ends this job's steps at once: what is said after it reaches no log
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    return " ".join((done.stderr or done.stdout).split()) if done.returncode else ""
