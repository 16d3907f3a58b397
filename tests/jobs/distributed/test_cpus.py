"""The CPUs of a task, on clusters that bind tasks and on those that do not; what its libraries' threads make of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.distributed.cpus import cpus_of_task, siblings

HERE = Path(__file__).parents[3]
MISSING = Path("/nowhere")


def step(tasks: int, **more: object) -> dict[str, str]:
    """Of the first of so many tasks on one node."""
    numbers = {"PROCID": 0, "NODEID": 0, "LOCALID": 0, "STEP_NUM_TASKS": tasks, "STEP_TASKS_PER_NODE": tasks}
    named = {"STEP_ID": 0, "STEP_NODELIST": "n1", "JOB_ID": 7, **numbers, **more}
    return {"SLURMD_NODENAME": "n1"} | {f"SLURM_{name}": str(value) for name, value in named.items()}


@pytest.mark.parametrize(
    ("environ", "mask", "expected"),
    [
        (step(8, CPUS_ON_NODE=96), 12, 12),  # bound: the mask is the task's own, and is not shared out again
        (step(8, CPUS_ON_NODE=96), 96, 12),  # not bound: all see all
        (step(8, CPUS_ON_NODE=96), 128, 12),  # nor is what other jobs have
        (step(4, CPUS_ON_NODE=128), 64, 32),  # bound to sockets, two tasks each
        (step(4, CPUS_ON_NODE=64, CPUS_PER_TASK=8), 64, 8),
        (step(2, CPUS_ON_NODE=2, CPUS_PER_TASK=8), 1, 1),  # srun did not take it over from sbatch
        (step(1, CPUS_ON_NODE=4), 128, 4),  # a task of an array, on a node that it shares
        (step(3, CPUS_ON_NODE=2), 2, 1),
        ({"SLURMD_NODENAME": "n1", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "6"}, 64, 6),  # a batch script
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "6"}, 64, 64),  # salloc's shell, on another machine
        ({}, 5, 5),
        ({"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "0",
          "SUBMITIT_LOCAL_LOCALID": "0"}, 8, 4),
    ],
)  # fmt: skip
def test_a_share_by_slurm_within_the_mask(environ, mask, expected):
    assert cpus_of_task(environ, set(range(mask)), MISSING) == expected


def threads_of_cores(folder: Path, cores: int) -> Path:
    for cpu in range(2 * cores):
        listed = folder / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        listed.parent.mkdir(parents=True)
        listed.write_text(f"{cpu % cores},{cpu % cores + cores}\n")
    return folder


@pytest.mark.parametrize("bound", [{0, 1, 2, 3}, {0, 1, 2, 3, 16, 17, 18, 19}])
def test_without_multithreading_a_core_counts_once(tmp_path, bound):
    topology = threads_of_cores(tmp_path, 16)
    assert siblings(17, topology) == (1, 17)
    # four tasks, four cores each; task/affinity hands out a thread of each core, cgroups both
    assert cpus_of_task(step(4, CPUS_ON_NODE=32, HINT="nomultithread"), bound, topology) == 4
    assert cpus_of_task(step(4, CPUS_ON_NODE=32, HINT="nomultithread"), set(range(32)), topology) == 4
    assert cpus_of_task(step(4, CPUS_ON_NODE=32), set(range(32)), topology) == 8


SAY = """
import json, os, sys
from jobs.__main__ import main
main(["status", sys.argv[1]])
import cv2, pyarrow, torch
print(json.dumps([torch.get_num_threads(), cv2.getNumThreads(), pyarrow.cpu_count()]))
"""


@pytest.mark.parametrize(
    ("given", "expected"), [({}, [1, 1, 1]), ({"OMP_NUM_THREADS": "2"}, [2, 1, 2]),
                            ({"OMP_NUM_THREADS": "2", "HTR_CHOSE_THREADS": "OMP_NUM_THREADS"}, [1, 1, 1])]
)  # fmt: skip
def test_torch_opencv_and_arrow_follow(tmp_path, given, expected):
    names = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "HTR_CHOSE_THREADS")
    environ = {name: value for name, value in os.environ.items() if name not in names and "SLURM" not in name}
    environ |= step(2, CPUS_ON_NODE=2, CPUS_PER_TASK=1) | given
    done = subprocess.run([sys.executable, "-c", SAY, tmp_path], env=environ, cwd=HERE, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == expected, done.stderr


SHARE = '. slurm/env.sh; htr_cpus_per_rank "$0"'


@pytest.mark.parametrize(
    ("ranks", "environ", "expected"),
    [
        (2, {"SLURM_JOB_CPUS_PER_NODE": "8(x3),4", "SLURM_CPUS_ON_NODE": "8"}, 2),  # the smallest node's
        (2, {"SLURM_CPUS_PER_TASK": "3", "SLURM_JOB_CPUS_PER_NODE": "8"}, 3),
        (4, {"SLURM_CPUS_ON_NODE": "2"}, 0),
        (2, {"SLURM_JOB_CPUS_PER_NODE": "2(x2),1", "SLURM_NTASKS": "5"}, 1),  # two nodes with two tasks, one with one
        (4, {"SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_NTASKS": "4"}, 0),
        (1, {}, 1),
    ],
)
def test_srun_is_told_by_one_function(ranks, environ, expected):
    rest = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    done = subprocess.run(["bash", "-c", SHARE, str(ranks)], env=rest | environ, cwd=HERE, capture_output=True)
    assert int(done.stdout) == expected


def test_nobody_else_asks_the_system():
    """How many CPUs there are is another question: this one is a task's."""
    asking = [path.name for path in (HERE / "jobs").rglob("*.py") if "sched_getaffinity" in path.read_text()]
    # what a node has, for the doctor; and how measurements on one machine share it
    assert sorted(asking) == ["cpus.py", "node_probe.py", "scale.py"]
    assert not [path for part in ("htr", "shards", "jobs") for path in (HERE / part).rglob("*.py")
                if "cpu_count()" in path.read_text()]  # fmt: skip
