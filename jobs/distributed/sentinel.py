"""A small process beside each rank of a training, for hangs in which the rank itself can't act any more.

The watchdog is a thread of the rank. It does not run while the process is stopped or a C function keeps Python's lock,
and it can't end a process that the system does not let go (state D: a thread of it waits for storage that took a
request and never answers). The sentinel hears from the watchdog every second. Where it hears nothing for longer than
the limit, it has Slurm queue the job again and ends the rank. A rank that even SIGKILL does not end is left behind: its
job, Slurm's or one of this machine, is ended around it.

It lives no longer than its rank, and opens no file of the run: what the rank waits for it must not wait for.

    python -I -S sentinel.py NAME      as a child of the rank, which speaks to its stdin in lines of JSON
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

TICK = 0.5  # seconds between two looks; a longer pause of the sentinel itself was one of the whole job
# the other ranks, who can say more, come first:
STANDS = 1.2  # times the limit without a word
MIN_STANDS_S = 5.0  # seconds, by which it is longer at least
KILLED_WITHIN = 1.0  # seconds in which whoever can be killed is gone
OTHERS_FIRST = 3.0  # seconds that ranks whose storage answers have to queue the job again, before it is cancelled
CLOSED_WITHIN = 60.0  # seconds until the sentinel itself is gone
SAID_WITHIN = 1.0  # seconds for a line
ASK_WITHIN = 30.0  # seconds for a command of Slurm's, or for one that asks it
ANOTHER = 3  # exit status of the command that queues the job again, where another rank has come first
LEFT_TO_SHELL = (
    "it is killed already, and goes when the storage answers. You may close this terminal; the same command goes on "
    "then from the newest checkpoint"
)
STATES = {"T": "stopped", "t": "stopped by a debugger", "D": "waiting in the system", "R": "running", "S": "asleep"}


class Sentinel:
    """In the rank: starts the process, and speaks to it without ever waiting for it."""

    def __init__(self, name: str, again: list[str]):
        """`name`: of the rank, for people; `again`: a command that queues the job again, before STEP and REASON."""
        command = [sys.executable, "-I", "-S", __file__, name]
        theirs, self.pipe = os.pipe()
        os.set_blocking(self.pipe, False)
        self.process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL)
        os.close(theirs)
        self.lock = threading.Lock()  # of the pipe: once it is closed its number is another file's
        self.tell(again=again)

    def tell(self, **said: object) -> None:
        """`limit`: seconds until the next word, at most (0: for ever), and `step`; `end`: seconds until the rank has
        ended itself."""
        with self.lock, contextlib.suppress(OSError):  # a full pipe too: a word is as good as another
            if self.pipe >= 0:
                os.write(self.pipe, json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        """The rank needs it no more."""
        with self.lock:
            os.close(self.pipe)
            self.pipe = -1
        try:
            self.process.wait(CLOSED_WITHIN)
        except subprocess.TimeoutExpired:  # the storage of Python itself does not answer
            self.process.kill()


# --- the process


def watch(rank: int, name: str, scancel: str | None) -> None:
    """Until the rank has ended, or says goodbye. `scancel`: where it lies."""
    told: dict = {}
    quiet, before, text = 0.0, time.monotonic(), b""
    while os.getppid() == rank:
        readable, _, _ = select.select([0], [], [], TICK)
        now = time.monotonic()
        quiet += now - before if now - before < 2 * TICK else 0.0
        before = now
        if readable:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError, TypeError):  # no word: without stderr the pipe may have its number
                    told |= json.loads(line)
                    quiet = 0.0
        if "end" in told and quiet > told["end"]:
            end(rank, name, scancel)
            return
        limit = told.get("limit")
        if "end" not in told and limit and quiet > max(STANDS * limit, limit + MIN_STANDS_S):
            if stands(rank, name, told["again"], quiet, told["step"]):
                ends_within(rank, max((STANDS - 1) * limit, MIN_STANDS_S))
            end(rank, name, scancel)
            return


def stands(rank: int, name: str, again: list[str], quiet: float, step: int) -> bool:
    """The whole process stands still, its watchdog too. The job is queued again before anything ends, since with the
    rank its step of Slurm's ends, and the sentinel with that. -> whether another rank is about to do it, which must not
    be ended with this one.
    """
    state = STATES.get(state_of(rank), "in a call that does not return")
    who = f"{name}: stopped answering at step {step}. If that comes again, --exclude={name.rpartition(' on ')[2]}"
    reason = f"no step for {quiet:.0f} s; its process stands still ({state}); {who}"
    say(f"error: {reason}")
    if "SLURM_JOB_ID" in os.environ and again:
        return ask([*again, str(step), reason]) == ANOTHER
    say("train: the job is not queued again; start it again to go on")
    return False


def end(rank: int, name: str, scancel: str | None) -> None:
    """Kill the rank; where that is in vain, end its job around it."""
    if os.getppid() == rank:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rank, signal.SIGKILL)
    if ends_within(rank, KILLED_WITHIN):
        return
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    by_slurm = step is not None and bool(scancel)
    controller = parent_of(rank) if os.environ.get("SUBMITIT_EXECUTOR") == "local" else 0
    if by_slurm or controller > 1:
        then = "its job ends without it"
    else:  # in a plain shell nothing can be ended: its own process is the one that waits
        then = LEFT_TO_SHELL if step is None else f"there is no scancel here: cancel job {job} elsewhere"
    say(f"error: {name}: the system does not let its process {rank} go, it waits for storage; {then}")
    if by_slurm:
        time.sleep(OTHERS_FIRST)
        # srun waits for the end of each task, also when its step is over. A job that another rank has queued again is
        # not running now; an allocation that somebody works in stays
        batch = os.environ.get("ENVIRONMENT") == "BATCH"
        ask([scancel, "--state=RUNNING", job] if batch else [scancel, "--signal=KILL", f"{job}.{step}"])
    elif controller > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(controller, signal.SIGKILL)


def ends_within(rank: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while os.getppid() == rank:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def ask(command: list[str]) -> object:
    """Its exit status; None where it takes too long."""
    return within(ASK_WITHIN, lambda: subprocess.call(command, stdin=subprocess.DEVNULL, timeout=ASK_WITHIN))


def say(line: str) -> None:
    within(SAID_WITHIN, lambda: os.write(2, f"{line}\n".encode()))


def within(seconds: float, work: Callable[[], object]) -> object:
    """Its result; None where it fails or takes longer. Then it is left to a thread that nobody waits for: stderr, a
    file or a program may lie on storage that does not answer.
    """
    found: list[object] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            found.append(work())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def stat_of(process: int) -> list[str]:
    """What /proc says, from the state on; empty for a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def state_of(process: int) -> str:
    return (stat_of(process) or [""])[0]


def parent_of(process: int) -> int:
    return int((stat_of(process) or ["", "0"])[1])


if __name__ == "__main__":
    # the rank ends by these, or goes on: so does the sentinel with it
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # now, since later a folder of PATH may not answer: a run keeps its code, and the links to its programs, itself
    watch(os.getppid(), sys.argv[1], shutil.which("scancel"))
