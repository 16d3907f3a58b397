"""Which share of independent work a process has: alone, in a step, in an array, in an array of steps."""

import pytest

from jobs.distributed.work_sharding import more_tasks_than, share_of_work


def step(rank: int, size: int) -> dict[str, str]:
    node = {
        "SLURM_NODEID": "0",
        "SLURM_STEP_TASKS_PER_NODE": str(size),
        "SLURM_STEP_NODELIST": "n1",
        "SLURM_JOB_ID": "7",
    }
    ranks = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_NUM_TASKS": str(size)}
    return {"SLURM_STEP_ID": "0", **node, **ranks}


def array(task: int, first: int, last: int, by: int = 1) -> dict[str, str]:
    count = (last - first) // by + 1
    return {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MIN": str(first),
            "SLURM_ARRAY_TASK_MAX": str(last), "SLURM_ARRAY_TASK_STEP": str(by)}  # fmt: skip


def test_alone():
    assert share_of_work({}) == (0, 1)


def test_every_share_is_had_once():
    assert [share_of_work(step(rank, 3)) for rank in range(3)] == [(0, 3), (1, 3), (2, 3)]
    assert [share_of_work(array(task, 1, 4)) for task in (1, 2, 3, 4)] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [share_of_work(array(task, 0, 6, 2)) for task in (0, 2, 4, 6)] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    both = [share_of_work(array(task, 0, 1) | step(rank, 2)) for task in (0, 1) for rank in (0, 1)]
    assert both == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_array_with_gaps_would_leave_work_undone():
    gaps = array(7, 3, 7) | {"SLURM_ARRAY_TASK_COUNT": "2"}
    with pytest.raises(ValueError, match="gaps: use --array=0-1"):
        share_of_work(gaps)


def test_an_array_larger_than_the_work_is_said_once():
    assert more_tasks_than(3, "shards", array(0, 0, 4)) == "5 tasks for 3 shards: 2 of them have nothing to do"
    assert not more_tasks_than(3, "shards", array(1, 0, 4)) and not more_tasks_than(5, "shards", array(0, 0, 4))
