"""States of jobs from Slurm's accounting, asked rarely: everybody shares its data base."""

import math
import shutil
import subprocess
import time
from collections.abc import Iterable

SACCT_TIMEOUT_S = 20.0  # seconds for sacct
# seconds from one question to it to the next, while the table is watched: it asks a shared data base
QUERY_INTERVAL_S = 60.0
# what Slurm says of a job that is over, whatever its run folder still says; the rest is said by the folder better
ENDED = ("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def ask_slurm(jobs: Iterable[str | None]) -> dict[str, str]:
    """The state of each job that Slurm's accounting knows, by one call of sacct; empty where that does not answer."""
    ids = sorted({job for job in jobs if job and job.isascii() and job.isdigit()})
    if not ids or not shutil.which("sacct"):
        return {}
    command = ["sacct", "-X", "-n", "-P", "--format=JobIDRaw,State", f"--jobs={','.join(ids)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SACCT_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    pairs = (line.split("|") for line in done.stdout.splitlines() if line.count("|") == 1)
    return {job: state.split()[0] for job, state in pairs if state.strip()}  # "CANCELLED by 1000"


class Slurm:
    """Keeps the last answer, and asks again when that is old or a new job has come up."""

    def __init__(self):
        self.states, self.asked, self.when = {}, frozenset(), -math.inf

    def ask(self, jobs: Iterable[str | None]) -> dict[str, str]:
        jobs = frozenset(jobs)
        if not jobs <= self.asked or time.monotonic() - self.when >= QUERY_INTERVAL_S:
            self.states, self.asked, self.when = ask_slurm(jobs), jobs, time.monotonic()
        return self.states
