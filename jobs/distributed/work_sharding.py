"""Independent work, shards or parts of an evaluation: which share of it this process has."""

import os
from collections.abc import Mapping

from jobs.distributed.placement import Placement


def share_of_work(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """-> (task, tasks): this process among the tasks of its job array times the ranks of its job step.

    Item i of the work belongs to task i modulo tasks. Raises ValueError for an array with gaps.
    """
    place = Placement.find(environ)
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return place.rank, place.size
    task, count = int(environ["SLURM_ARRAY_TASK_ID"]), int(environ["SLURM_ARRAY_TASK_COUNT"])
    first, last, step = (int(environ.get(f"SLURM_ARRAY_TASK_{name}", 1)) for name in ("MIN", "MAX", "STEP"))
    if last - first != (count - 1) * step:
        raise ValueError(f"a job array of {count} tasks from {first} to {last} has gaps: use --array=0-{count - 1}")
    return (task - first) // step * place.size + place.rank, count * place.size


def more_tasks_than(parts: int, unit: str, environ: Mapping[str, str] = os.environ) -> str:
    """What to say, once a job, where tasks of an array have nothing to do; else empty. `unit`: shards, chunks."""
    task, tasks = share_of_work(environ)
    if task or tasks <= parts:
        return ""
    return f"{tasks} tasks for {parts} {unit}: {tasks - parts} of them have nothing to do"


def job_name(environ: Mapping[str, str] = os.environ) -> str:
    """The job's id for people and for locks: Slurm's, or local-PID."""
    return environ.get("SLURM_JOB_ID") or f"local-{environ.get('SUBMITIT_LOCAL_JOB_ID', os.getpid())}"
