"""Whether the job of a run goes back into the queue: at its time limit, and when its ranks hang.

python -m jobs.training.requeueing RUN REQUEUES STEP REASON      after a hang, for a rank that can't do it itself
"""

import os
import sys
from pathlib import Path

from jobs.cli.console import log
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.sentinel import ANOTHER
from jobs.distributed.signals import requeue
from jobs.distributed.watchdog import is_first
from jobs.distributed.work_sharding import job_name
from jobs.training import run_log
from jobs.training.run_lock import read_json, read_lock
from shards import files

CHAINED = "the next job of the chain goes on, if one is left"


def why_not_again(count: int, most: int, has_stepped: bool) -> str:
    """Why the job is not to be queued again; empty if it is. `count`: how often it was in the run's life, `most`: how
    often it may be; `has_stepped`: a step was taken since this start. `submit --chain` sets HTR_CHAIN: other jobs wait.
    """
    if not has_stepped:
        return "no step was taken since the start"
    if "HTR_CHAIN" in os.environ:
        return CHAINED
    return f"{count} of {most} --requeues" if count >= most else ""


def queued_again(count: int, most: int) -> str:
    """What to say of it. `count`: how often it was before."""
    return f"the job is queued again, {count + 1} of {most} --requeues"


def not_queued_again(problem: str) -> str:
    """What to say of it."""
    return f"the job is not queued again: {problem}; start it again to go on"


def again_after_hang(run: Path, most: int, reason: str, step: int | None = None) -> str:
    """Put the job back into the queue, if that helps -> what to say of it.

    By whichever rank comes first: rank 0 may be the one that hangs. `most`: so often at most in the run's life; `step`:
    of the hang, that of this process if it is not said.
    """
    path, held = run / "status.json", read_lock(run / "lock.json") or {}
    if (held.get("job"), held.get("restart")) != (job_name(), int(os.environ.get("SLURM_RESTART_COUNT") or 0)):
        return "the job is not queued again: the run is not its own any more"
    status = read_json(path) or {}
    run_log.append(run, job_name(), reason)
    count, before = status.get("requeues", 0), status.get("hung_at")
    step = ACTIVITY.step if step is None else step
    status |= {"state": "stopped", "reason": reason[:500], "hung_at": step}
    # a node may be why not even a first step was taken: once that is no reason to stay away
    problem = why_not_again(count, most, has_stepped=True)
    if not problem and before is not None and step <= before:
        problem = f"it hung before, at step {before}, and came no further: another node does not help"
    if not problem:
        said = queued_again(count, most)
        files.replace(path, files.to_json(status | {"requeues": count + 1}))
        run_log.append(run, job_name(), said)  # Slurm ends this process with the job that it queues again
        problem = requeue()
    if problem:
        said = problem if problem == CHAINED else not_queued_again(problem)
        files.replace(path, files.to_json(status | {"requeues": count}))
        run_log.append(run, job_name(), said)
    return said


def note_not_queued(run: Path, problem: str) -> str:
    """Of a run that ended before its time limit, and whose job Slurm would not queue again -> what to say of it. Who
    looks at the run would wait for it otherwise.
    """
    said = not_queued_again(problem)
    path = run / "status.json"
    status = read_json(path) or {}
    if status.get("job") == job_name() and status.get("state") == "stopped":  # else another job has it already
        count = max(status.get("requeues", 1) - 1, 0)
        files.replace(path, files.to_json(status | {"reason": f"time limit: {said}"[:500], "requeues": count}))
        run_log.append(run, job_name(), said)
    return said


if __name__ == "__main__":  # RUN REQUEUES STEP REASON, by the sentinel of a rank that could not do it itself
    os.umask(0o027)
    run, most, step, reason = sys.argv[1:]
    if not is_first(Path(run)):
        sys.exit(ANOTHER)
    log(f"train: {again_after_hang(Path(run), int(most), reason, int(step))}")
