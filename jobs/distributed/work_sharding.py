"""Sharing out independent work (shards, parts of an evaluation) among the tasks of a job."""

import os
from collections.abc import Mapping

from jobs.distributed.placement import Placement


def share_of_work(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """-> (task, tasks): the number of this process, and how many there are: tasks of the job array times ranks of a
    step.

    Item i of the work belongs to the process i modulo `tasks`. Raises ValueError for an array with gaps.
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
    """A message, for task 0 alone, where there are more tasks than parts of the work; else "". `unit`: "shards"."""
    task, tasks = share_of_work(environ)
    if task or tasks <= parts:
        return ""
    return f"{tasks} tasks for {parts} {unit}: {tasks - parts} of them have nothing to do"


def job_name(environ: Mapping[str, str] = os.environ) -> str:
    """The job's id in messages and locks: Slurm's, or local-PID."""
    return environ.get("SLURM_JOB_ID") or f"local-{environ.get('SUBMITIT_LOCAL_JOB_ID', os.getpid())}"
