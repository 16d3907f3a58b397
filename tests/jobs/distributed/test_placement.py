"""Where a process stands, from the environments that Slurm 24.11 and submitit 1.5.4 were seen to set."""

import os
import socket

import pytest

from jobs.distributed import devices, gpu_names
from jobs.distributed.devices import take_device
from jobs.distributed.placement import (
    DistributedError,
    Placement,
    expand_hosts,
    expand_tasks,
)

STEP = {  # task 2 of `srun -N2 -n3`, as printed on a real cluster
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "3",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_STEP_LAUNCHER_PORT": "38559",
    "SLURM_SRUN_COMM_PORT": "38559",
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURMD_NODENAME": "node2",
}
LOCAL = {  # task 1 of submitit's local executor with two
    "SUBMITIT_EXECUTOR": "local",
    "SUBMITIT_LOCAL_NTASKS": "2",
    "SUBMITIT_LOCAL_GLOBALID": "1",
    "SUBMITIT_LOCAL_LOCALID": "1",
    "SUBMITIT_LOCAL_NODEID": "0",
    "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
    "SUBMITIT_LOCAL_JOB_ID": "4242",
}


def stands(found: Placement) -> tuple[int, ...]:
    return (found.rank, found.size, found.local_rank, found.local_size, found.cross_rank, found.cross_size)


def test_a_heterogeneous_job_is_refused_before_anything_is_spent():
    with pytest.raises(DistributedError, match="heterogeneous job"):
        Placement.find(STEP | {"SLURM_HET_SIZE": "2"})


def test_uneven_tasks_count_only_the_nodes_that_have_the_local_rank():
    def task(rank, node, local):
        ids = {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(node), "SLURM_LOCALID": str(local)}
        return stands(Placement.find(STEP | ids))

    assert task(0, 0, 0) == (0, 3, 0, 2, 0, 2)
    assert task(1, 0, 1) == (1, 3, 1, 2, 0, 1)
    assert task(2, 1, 0) == (2, 3, 0, 1, 1, 2)


def test_a_step_on_many_nodes():
    many = {
        "SLURM_STEP_NUM_TASKS": "7",
        "SLURM_NTASKS": "7",
        "SLURM_STEP_TASKS_PER_NODE": "1,2(x3)",
        "SLURM_STEP_NODELIST": "gpu[08-10],big",
        "SLURM_PROCID": "6",
        "SLURM_NODEID": "3",
        "SLURM_LOCALID": "1",
    }
    found = Placement.find(STEP | many)
    assert stands(found) == (6, 7, 1, 2, 2, 3)
    assert found.hosts == (("gpu08", 1), ("gpu09", 2), ("gpu10", 2), ("big", 2))
    assert (found.host, found.source) == ("big", "slurm")


@pytest.mark.parametrize(
    "without_step",
    [
        {"SLURM_JOB_ID": "3", "SLURM_NTASKS": "4", "SLURM_TASKS_PER_NODE": "3,1"},  # the shell of salloc
        {"SLURM_JOB_ID": "2", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script
        STEP | {"SLURM_STEP_ID": "batch"},
        STEP | {"SLURM_STEP_ID": str(0xFFFFFFFB)},  # the batch step by number
        STEP | {"SLURM_STEP_ID": str(0xFFFFFFFA)},  # salloc's interactive step
        {},
    ],
)
def test_alone_without_a_step(without_step):
    found = Placement.find(without_step)
    assert stands(found) == (0, 1, 0, 1, 0, 1)
    assert (found.source, found.hosts) == ("alone", ((socket.gethostname(), 1),))


@pytest.mark.parametrize(
    "name",
    ["SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST", "SLURM_NODEID", "SLURM_LOCALID"],
)
def test_a_missing_variable_is_named(name):
    with pytest.raises(DistributedError, match=f"{name} is not set"):
        Placement.find({key: value for key, value in STEP.items() if key != name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID=3 contradicts SLURM_STEP_NUM_TASKS=3"),
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID='x' is not a number"),
        ({"SLURM_LOCALID": "1"}, "SLURM_LOCALID=1 contradicts SLURM_STEP_TASKS_PER_NODE=2,1 on node 1"),
        ({"SLURM_NODEID": "2"}, "SLURM_NODEID=2 contradicts SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}, "SLURM_STEP_NUM_TASKS=4 contradicts SLURM_STEP_TASKS_PER"),
        ({"SLURM_NTASKS": "4"}, "SLURM_NTASKS=4 contradicts SLURM_STEP_NUM_TASKS=3"),
        ({"SLURM_STEP_NODELIST": "node1"}, "SLURM_STEP_NODELIST=node1 contradicts SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,one"}, "SLURM_STEP_TASKS_PER_NODE='2,one': 'one' is not a number"),
    ],
)
def test_a_contradiction_is_named(change, message):
    with pytest.raises(DistributedError) as caught:
        Placement.find(STEP | change)
    assert message in str(caught.value)


def test_the_key_is_that_of_this_very_start():
    key = Placement.find(STEP).key
    assert Placement.find(STEP | {"SLURM_PROCID": "0", "SLURM_NODEID": "0"}).key == key
    older = {name: value for name, value in STEP.items() if name != "SLURM_STEP_LAUNCHER_PORT"}
    assert Placement.find(older).key == key  # versions of Slurm have one variable or the other
    for other in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_LAUNCHER_PORT"):
        assert Placement.find(STEP | {other: "5"}).key != key


def test_submitits_local_executor():
    found = Placement.find(LOCAL)
    assert stands(found) == (1, 2, 1, 2, 0, 1)
    assert (found.source, found.hosts) == ("local", ((socket.gethostname(), 2),))
    assert f"-{os.getppid()}-" in found.key
    for name in ("SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_LOCALID"):
        with pytest.raises(DistributedError, match=f"{name} is not set"):
            Placement.find({key: value for key, value in LOCAL.items() if key != name})
    with pytest.raises(DistributedError, match="SUBMITIT_LOCAL_GLOBALID=2 contradicts SUBMITIT_LOCAL_NTASKS=2"):
        Placement.find(LOCAL | {"SUBMITIT_LOCAL_GLOBALID": "2"})


def test_submitit_and_slurm_together():
    assert Placement.find(STEP | {"SUBMITIT_EXECUTOR": "slurm"}).source == "slurm"
    shell = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_PROCID": "0"}
    assert Placement.find(STEP | shell | LOCAL).source == "local"  # local ranks started in `srun --pty bash`
    assert Placement.find(STEP | LOCAL).source == "slurm"


def test_the_variables_that_are_read_are_those_that_submitit_sets():
    from submitit.local.local import LocalJobEnvironment

    read = {name for name in LOCAL if name.startswith("SUBMITIT_LOCAL_")}
    assert read == set(LocalJobEnvironment._env.values())


def test_lists_of_slurm():
    assert expand_tasks("2(x3),1") == [2, 2, 2, 1]
    assert expand_hosts("node[1-2,05],login") == ["node1", "node2", "node05", "login"]
    assert expand_hosts("r[1-2]n[09-10]-ib") == ["r1n09-ib", "r1n10-ib", "r2n09-ib", "r2n10-ib"]


def test_device(monkeypatch):
    step = Placement.find(STEP | {"SLURM_PROCID": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"})
    for name in devices.GPU_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    gpus = []
    monkeypatch.setattr(devices, "visible_gpus", lambda: gpus)
    assert str(take_device(step)) == "cpu"
    with pytest.raises(DistributedError, match="'tpu' is not one of auto, cpu, cuda"):
        take_device(step, "tpu")
    with pytest.raises(DistributedError, match=r"^torch .* sees none"):
        take_device(step, "cuda")
    monkeypatch.setenv("SLURM_STEP_GPUS", "0,1")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    assert str(take_device(step)) == "cpu"  # the shell of salloc on a login node
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    with pytest.raises(DistributedError, match=r"Slurm gave GPUs \(SLURM_STEP_GPUS=0,1\) .* --device cpu"):
        take_device(step)
    assert str(take_device(step, "cpu")) == "cpu"
    gpus += ["GPU-a"]
    assert str(take_device(step)) == "cuda:0"  # bound: each task sees one
    gpus += ["GPU-b"]
    assert str(take_device(step)) == "cuda:1"
    gpus += ["GPU-c"]
    with pytest.raises(DistributedError, match=r"3 GPUs but 2 tasks on node1: .*--ntasks-per-node=3"):
        take_device(step)
    assert str(take_device(Placement.find({}))) == "cuda:0"  # a person's own machine


LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-8e5c)
  MIG 3g.40gb     Device  0: (UUID: MIG-aa)
  MIG 3g.40gb     Device  1: (UUID: MIG-bb)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-91d0)
  MIG 7g.80gb     Device  0: (UUID: MIG-cc)
"""


def test_parts_of_cards_by_the_names_that_nvidia_smi_lists():
    assert gpu_names.cards_of_parts(LISTING) == {"MIG-aa": "GPU-8e5c", "MIG-bb": "GPU-8e5c", "MIG-cc": "GPU-91d0"}
    assert gpu_names.cards_of_parts("") == {}


def test_gpus_that_a_user_names():
    def names(text: str):
        return gpu_names.named_gpus({"CUDA_VISIBLE_DEVICES": text})

    assert gpu_names.named_gpus({}) is None and names("") == names("-1") == names("NoDevFiles") == []
    assert names("2, 3") == ["2", "3"] and names("GPU-8e5c,MIG-cc") == ["GPU-8e5c", "MIG-cc"]
    for wrong, message in {"0,a": "'a' is no index", "1,1": "a GPU is named twice", "0,-1": "'-1' is no index"}.items():
        with pytest.raises(DistributedError, match=message):
            names(wrong)


def test_ranks_on_this_machine_have_the_gpus_that_the_users_shell_may_use():
    def given(count: int, text: str):
        return gpu_names.gpus_of_ranks(count, {"CUDA_VISIBLE_DEVICES": text})

    assert gpu_names.gpus_of_ranks(2, {}) is None
    assert given(2, "2,5,7") == "2,5" and given(1, "MIG-cc") == "MIG-cc" and given(0, "") == ""
    with pytest.raises(ValueError, match=r"--gpus-per-node 2, but CUDA_VISIBLE_DEVICES=GPU-8e5c names 1"):
        given(2, "GPU-8e5c")


def test_parts_of_cards_and_names_that_lead_nowhere_are_refused(monkeypatch):
    step = Placement.find(STEP | {"SLURM_PROCID": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"})
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["GPU-8e5c/MIG-aa"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-bb")
    assert str(take_device(step)) == "cuda:0"  # one a task
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa,MIG-bb")
    with pytest.raises(DistributedError, match=r"names 2 parts of cards \(MIG\).*CUDA_VISIBLE_DEVICES=MIG-bb"):
        take_device(step)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,9")
    with pytest.raises(DistributedError, match=r"CUDA_VISIBLE_DEVICES=0,9 on node1 names 2 GPUs, torch sees 1"):
        take_device(step)
