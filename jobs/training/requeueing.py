"""Whether the job of a run goes back into the queue: at its time limit, and when its ranks hang."""

import os
from pathlib import Path

from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.signals import requeue
from jobs.distributed.work_sharding import job_name
from jobs.training import run_log
from jobs.training.run_lock import read_json
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


def again_after_hang(run: Path, most: int, reason: str) -> str:
    """Put the job back into the queue, if that helps -> what to say of it.

    By whichever rank comes first: rank 0 may be the one that hangs. `most`: so often at most in the run's life.
    """
    path, held = run / "status.json", read_json(run / "lock.json") or {}
    if (held.get("job"), held.get("restart")) != (job_name(), int(os.environ.get("SLURM_RESTART_COUNT") or 0)):
        return "the job is not queued again: the run is not its own any more"
    status = read_json(path) or {}
    run_log.append(run, job_name(), reason)
    count, step, before = status.get("requeues", 0), ACTIVITY.step, status.get("hung_at")
    status |= {"state": "stopped", "reason": reason[:500], "hung_at": step}
    # a node may be why not even a first step was taken: once that is no reason to stay away
    problem = why_not_again(count, most, has_stepped=True)
    if not problem and before is not None and step <= before:
        problem = f"it hung before, at step {before}, and came no further: another node does not help"
    if not problem:
        files.replace(path, files.to_json(status | {"requeues": count + 1}))
        problem = requeue()
    said = queued_again(count, most)
    if problem:
        files.replace(path, files.to_json(status | {"requeues": count}))
        said = problem if problem == CHAINED else f"the job is not queued again: {problem}; start it again to go on"
    run_log.append(run, job_name(), said)
    return said
