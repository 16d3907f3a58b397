"""The ring of ranks, with real Horovod: it works, and whatever is wrong is one clear line on every rank."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks import KEY, START, Ranks, open_nursery, rank, samples

from jobs.distributed import placement, process_group, rendezvous
from jobs.distributed.placement import Placement


@pytest.fixture(scope="module")
def nursery():
    with open_nursery() as process:
        yield process


@pytest.fixture(params=process_group.BACKENDS)
def ranks(nursery, tmp_path, request):
    return Ranks(nursery, tmp_path, request.param)


# --- they work together


@pytest.mark.parametrize(("tasks", "nodes"), [("2", "node1"), ("2,1", "node[1-2]")])
def test_ranks_work_together(ranks, tasks, nodes):
    size = sum(placement.expand_tasks(tasks))
    lo = {"HTR_IFACE": "lo", "HTR_PORTS": "28000-28400"}
    said = ranks.results(*(rank(number, tasks, nodes=nodes, more=lo) for number in range(size)))
    assert [each["rank"] for each in said] == list(range(size))
    for name in said[0].keys() - {"rank"}:
        assert all(each[name] == said[0][name] for each in said), name
    first = said[0]
    assert first["size"] == size
    assert first["hosts"] == ([["node1", 2]] if nodes == "node1" else [["node1", 2], ["node2", 1]])
    assert first["ask"] == {"stop": 1, "limit": 0}
    assert first["sum"] == {"b": 2.0**53 * size, "a": sum(range(size))}
    assert first["any"] == [True, False]
    assert first["object"] == {"rank": 0}
    assert first["gather"] == [str(number) for number in range(size)]
    assert first["on_root"] == ["x", 0]
    assert first["raised"] == "the disk is full"


def test_gradients_are_those_of_one_process_with_all_samples(ranks):
    found = ranks.results(rank(0), rank(1))[0]
    torch.manual_seed(0)
    one = process_group.ProcessGroup(Placement.find({}), torch.device("cpu"))
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    wait = one.sum_gradients(model.parameters())
    assert found["before"] == [value.tolist() for value in model.state_dict().values()]
    for _ in range(2):
        optimizer.zero_grad()
        (model[2](model[0](torch.cat([samples(0), samples(1)]))) ** 2).sum().backward()
        wait()
        gradient = model[0].weight.grad.clone()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(torch.tensor(found["gradient"]), gradient)
    torch.testing.assert_close(torch.tensor(found["weights"]), model[0].weight.detach())


def test_an_exception_on_rank_0_that_cannot_travel_reaches_all_as_a_ring_error(ranks):
    ranks.start(rank(0), rank(1), work="fail_on_root")
    root, other = ranks.ends()
    assert root[2].splitlines()[-1].endswith("Odd: the table has no column text")
    assert ranks.last_line(other) == "Odd on rank 0: the table has no column text"


def test_a_rank_that_dies_ends_the_others(ranks):
    ranks.start(rank(0), rank(1), work="die")
    survivor, dead = ranks.ends()
    assert dead[0] == 9
    said = {
        "horovod": "another rank ended or stopped answering, its log says why",
        "torch": "rank 1 on node1 ended; if that comes again, --exclude=node1",
    }
    assert ranks.last_line(survivor) == f"sum: {said[ranks.backend]}"


# --- they fail together

IMPATIENT = {"HTR_START_TIMEOUT": str(START)}
WAITS = 15.0  # seconds, of a rank 0 to which another one comes in any case
ABSENCES = {  # under either library the same: nobody has come to it
    "missing": (
        [rank(0, "4", more={"HTR_START_TIMEOUT": str(WAITS)}), rank(1, "4")],
        f"ranks 2, 3 did not start within {WAITS:g} s (nodes that answered: node1)",
    ),
    "rank 0 absent": (
        [rank(1, "3", more=IMPATIENT), rank(2, "3", more=IMPATIENT)],
        f"rank 0 did not start within {START:g} s (no {KEY}.json in FOLDER/rendezvous:",
    ),
    "unreachable": (
        [rank(0), rank(1, dead_port=9, more=IMPATIENT)],
        "rank 1 on node1: cannot reach rank 0 at 127.0.0.1:9 (its lo) over lo: Connection refused; is HTR_IFACE right,"
        " are the ports HTR_PORTS open between the nodes?",
    ),
}
FAILURES = {
    "doubled": ([rank(0, "3"), rank(1, "3"), rank(1, "3")], "rank 1 on node1 was started a second time, on node1"),
    "rank 0 doubled": ([rank(0, "3"), rank(0, "3"), rank(1, "3")], "rank 0 was started twice"),
    "interface of rank 0": (
        [rank(0, more={"HTR_IFACE": "ib7"}), rank(1)],
        "rank 0 on node1: HTR_IFACE=ib7: no such network interface on node1, it has lo",
    ),
    "interface of rank 1": (
        [rank(0), rank(1, more={"HTR_IFACE": "ib7"})],
        "rank 1 on node1: HTR_IFACE=ib7: no such network interface on node1, it has lo",
    ),
    "world": ([rank(0, "2"), rank(1, "3")], "rank 1 on node1: counts 3 ranks, rank 0 counts 2"),
    "GPUs": (
        [rank(0, gpus=["a", "b", "c"], device="auto"), rank(1, gpus=["a", "b", "c"], device="auto")],
        "rank 0 on node1, rank 1 on node1: 3 GPUs but 2 tasks on node1: start as many tasks a node as GPUs"
        " (--ntasks-per-node=3), or work with --device cpu",
    ),
    "shared GPU": (
        [rank(0, gpus=["a"], device="auto"), rank(1, gpus=["a"], device="auto")],
        "rank 0 on node1, rank 1 on node1: shares its GPU: start as many tasks a node as GPUs",
    ),
    "parts of one card": (
        [rank(n, gpus=[f"GPU-1/MIG-{n}"], device="auto", more={"CUDA_VISIBLE_DEVICES": f"MIG-{n}"}) for n in (0, 1)],
        "rank 0 on node1, rank 1 on node1: has a part of a card (MIG) that another rank has a part of: NCCL can't sum"
        " between these; give one part a card, whole GPUs, or set HTR_SHARED_GPU=1",
    ),
    "uneven GPUs": (
        [
            rank(
                n,
                "2,2",
                nodes="node[1-2]",
                gpus=["a", "b"][: 1 + (n < 2)] + ["c"] * (n > 1) * 2,
                device="auto",
                more={"HTR_IFACE": "lo"},
            )
            for n in range(4)
        ],
        "rank 2 on node2, rank 3 on node2: 3 GPUs but 2 tasks on node2: start as many tasks a node as GPUs"
        " (--ntasks-per-node=3), or work with --device cpu",
    ),
    "device": (
        [rank(0), rank(1, device="tpu")],
        "rank 1 on node1: device 'tpu' is not one of auto, cpu, cuda",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_wrong_is_said_on_every_rank(ranks, failure):
    assert_said(ranks, *FAILURES[failure])


@pytest.mark.parametrize("absence", ABSENCES)
def test_who_is_not_there_is_said_on_every_rank(nursery, tmp_path, absence):
    assert_said(Ranks(nursery, tmp_path, "torch"), *ABSENCES[absence])


def assert_said(ranks: Ranks, started: list[dict], message: str) -> None:
    lines = ranks.errors(*started)
    assert len(lines) == len(started)
    for line in lines:
        assert message.replace("FOLDER", str(ranks.folder)) in line
    assert len(set(lines)) == 1


def test_nobody_listens_at_the_published_address(ranks):
    file = ranks.folder / "rendezvous" / f"{KEY}.json"
    file.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    rendezvous.publish(file, {"address": "127.0.0.1", "port": port, "interface": "lo", "token": "old"})
    (line,) = ranks.errors(rank(1, more=IMPATIENT))
    assert f"rank 1 on node1: cannot reach rank 0 at 127.0.0.1:{port}" in line
    assert json.loads(file.with_suffix(".rank-1.error").read_text(encoding="utf-8"))["error"] in line


def test_a_file_of_an_earlier_start_does_not_mislead(ranks):
    file = ranks.folder / "rendezvous" / f"{KEY}.json"
    file.parent.mkdir()
    old = {"address": "127.0.0.1", "port": 9, "interface": "lo", "token": "old"}
    rendezvous.publish(file, old)
    rendezvous.publish(file.with_suffix(".rank-1.error"), {"token": "old", "rank": 1, "host": "node1", "error": "old"})
    ranks.start(rank(0, wait="later"), rank(1))
    time.sleep(0.5)  # rank 1 finds the old file alone, unless the machine is slow
    (ranks.folder / "later").touch()
    assert [code for code, _, _ in ranks.ends()] == [0, 0]


def test_strangers_do_not_disturb_the_barrier(ranks):
    ranks.start(rank(0), rank(1, wait="strangers-came"))
    file = ranks.folder / "rendezvous" / f"{KEY}.json"
    while not file.exists():
        time.sleep(0.02)
    assert file.stat().st_mode & 0o777 == 0o600
    where = json.loads(file.read_text(encoding="utf-8"))
    hello = {"rank": 1, "size": 2, "host": "evil", "local_rank": 1, "local_size": 2, "error": "I am rank 1"}
    strangers = []
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"x" * 200_000, rendezvous.sign("a guess", hello), b"\n", b"half"):
        stranger = socket.create_connection((where["address"], where["port"]))
        with contextlib.suppress(OSError):  # it may hang up before all of the garbage is out
            stranger.sendall(said)
        strangers.append(stranger)
    strangers[1].close()
    (ranks.folder / "strangers-came").touch()
    assert [code for code, _, _ in ranks.ends()] == [0, 0]
    for stranger in strangers:
        stranger.close()


def test_versions_and_nodes_that_disagree():
    def hello(number, **other):
        about = {"device": "cpu", "gpu": "", "versions": {"code": "1a", "torch": "2.13.0"}, "error": ""}
        return {"rank": number, "size": 2, "host": "n1", "local_rank": number, "local_size": 2} | about | other

    assert rendezvous.disagreements({0: hello(0), 1: hello(1)}) == []
    for other, message in {
        "versions": ({"code": "1a", "torch": "2.12.0"}, "rank 1 on n1: has torch 2.12.0, rank 0 has 2.13.0"),
        "device": ("cuda", "rank 1 on n1: works on cuda, rank 0 on cpu"),
        "local_rank": (0, "rank 0 on n1, rank 1 on n1: shares its local rank with another"),
        "host": ("n2", "rank 0 on n1, rank 1 on n2: counts 2 ranks on its node"),
    }.items():
        value, text = message
        assert rendezvous.disagreements({0: hello(0), 1: hello(1, **{other: value})}) == [text]


# --- a world of one

ALONE = """
import sys, torch
from pathlib import Path
from jobs.distributed import process_group as ring
with ring.start(Path("/nowhere"), "cpu") as world:
    model = torch.nn.Linear(2, 1)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    wait = world.sum_gradients(model.parameters())
    before = model.weight.tolist()
    model(torch.ones(1, 2)).sum().backward()
    wait()
    plain.step()
    assert model.weight.tolist() != before
    assert world.sum({"a": 2}) == {"a": 2.0} and world.any(True) and not world.any(False)
    assert world.gather("x") == ["x"] and world.on_root(max, 1, 2) == 2 and world.broadcast_object(3, "n") == 3
    try:
        world.on_root(lambda: 1 / 0)
    except ZeroDivisionError:
        assert (world.rank, world.size, world.device.type) == (0, 1, "cpu")
        print("horovod" in sys.modules)
"""


def test_a_world_of_one_needs_no_horovod():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=root, env=env, capture_output=True, text=True, timeout=250
    )
    assert (found.stdout, found.stderr) == ("False\n", "")
