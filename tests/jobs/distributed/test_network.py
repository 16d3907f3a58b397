"""The interface that ranks meet over, with IPv4, IPv6 or none; and ranks that meet over IPv6 alone, really."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from ranks import environment

from jobs.distributed import network
from jobs.distributed.network import Settings, choose_interface, shown, tell_nccl
from jobs.distributed.placement import DistributedError, Placement

CHECKOUT = Path(__file__).parents[3]
STEP = environment(1, "1,1", "node[1-2]")  # the second of two nodes
ONE_NODE = environment(0, "2")


def test_settings():
    assert Settings.find({}) == Settings("", None, 120.0)
    found = Settings.find({"HTR_IFACE": "ib0", "HTR_PORTS": "20000-20999", "HTR_START_TIMEOUT": "7.5"})
    assert found == Settings("ib0", range(20000, 21000), 7.5)
    for wrong in ({"HTR_PORTS": "20000"}, {"HTR_PORTS": "30-20"}, {"HTR_PORTS": "1-70000"}, {"HTR_PORTS": "²-³"}):
        with pytest.raises(DistributedError, match="HTR_PORTS"):
            Settings.find(wrong)
    for word in ("soon", "²", "."):
        with pytest.raises(DistributedError, match=f"HTR_START_TIMEOUT='{re.escape(word)}'"):
            Settings.find({"HTR_START_TIMEOUT": word})


Address = namedtuple("Address", "family address")
Stats = namedtuple("Stats", "isup")
V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def node2(monkeypatch):
    """What psutil says of a node with three networks; and the ways from it, by host."""
    import psutil

    known = {
        "lo": [Address(V4, "127.0.0.1"), Address(V6, "::1")],
        "docker0": [Address(V4, "172.17.0.1")],
        "ib0": [Address(V6, "fe80::9%ib0"), Address(V6, "fd00::2"), Address(V4, "10.9.0.2"), Address(V4, "10.9.0.3")],
        "eth6": [Address(V6, "fe80::1%eth6"), Address(V6, "fd06::2")],
        "link": [Address(V6, "fe80::2%link")],
        "bare": [Address(socket.AF_PACKET, "02:00:00:00:00:01")],
        "off": [Address(V4, "10.8.0.2")],
    }
    ways: dict[str, list[str]] = {}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: known)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: Stats(name != "off") for name in known})
    monkeypatch.setattr(network, "_ways_to", lambda host: ways.get(host, []))
    monkeypatch.setattr(network, "_resolve", lambda host: ["127.0.1.1", "::1"])  # what Debian writes in /etc/hosts
    return ways


@pytest.mark.parametrize(
    ("ways", "expected"),
    [
        ({"node1": ["10.9.0.2"]}, ("ib0", "10.9.0.2")),
        ({"node1": ["10.9.0.3"]}, ("ib0", "10.9.0.2")),  # of several addresses the first
        ({"node1": ["fd00::2"]}, ("ib0", "10.9.0.2")),  # nodes are named by IPv6, and have IPv4 there, too
        ({"node1": ["fd06::2"]}, ("eth6", "fd06::2")),
        ({"node1": [], "2001:db8::1": ["fd06::2"]}, ("eth6", "fd06::2")),  # the default route
        ({"node1": ["::1"], "192.0.2.1": ["172.17.0.1"]}, ("docker0", "172.17.0.1")),
    ],
)
def test_the_interface_on_the_way_to_the_others(node2, ways, expected):
    node2.update(ways)
    assert choose_interface(Placement.find(STEP)) == expected


def test_the_interface_that_is_asked_for(node2):
    step = Placement.find(STEP)
    assert choose_interface(step, "docker0") == ("docker0", "172.17.0.1")
    assert choose_interface(step, "eth6") == ("eth6", "fd06::2")
    assert choose_interface(Placement.find(ONE_NODE)) == ("lo", "127.0.0.1")
    listed = r" on node2, it has lo \(127.0.0.1\), docker0 .*, ib0 .*, eth6 \(fd06::2\)$"
    for asked, why in {
        "ib7": "no such network interface",
        "off": "that network interface is down",
        "bare": "no address at that network interface",
        "link": r"no address at that network interface but a link-local one \(fe80::\), which other nodes can't use,",
    }.items():
        with pytest.raises(DistributedError, match=f"HTR_IFACE={asked}: {why}{listed}"):
            choose_interface(step, asked)
    with pytest.raises(DistributedError, match="no network interface of node2 leads to the other nodes: set HTR_IFACE"):
        choose_interface(step)


def test_nccl_takes_what_the_ranks_have_met_on(monkeypatch):
    for name in ("NCCL_SOCKET_IFNAME", "NCCL_SOCKET_FAMILY"):
        monkeypatch.setenv(name, "")  # as it was before is what it will be
        monkeypatch.delenv(name)
    tell_nccl("ib0", "10.9.0.2")
    assert os.environ["NCCL_SOCKET_IFNAME"] == "=ib0" and "NCCL_SOCKET_FAMILY" not in os.environ
    tell_nccl("eth6", "fd06::2")
    assert os.environ["NCCL_SOCKET_IFNAME"] == "=ib0"  # what was set stays
    assert os.environ["NCCL_SOCKET_FAMILY"] == "AF_INET6"
    assert shown({"address": "fd06::2", "port": 80}) == "[fd06::2]:80"
    assert shown({"address": "10.9.0.2", "port": 80}) == "10.9.0.2:80"


# Two nodes, each a network of its own, with IPv6 alone between them. $0: python, $1: the program, $2: its folder
NODES = """
set -e
ip link set lo up
unshare --net sleep 1000 & other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add net6 type veth peer name net6 netns $other
ip -6 addr add fd77::1/64 dev net6 nodad; ip link set net6 up
on_other() { nsenter --target $other --net "$@"; }
on_other ip link set lo up; on_other ip -6 addr add fd77::2/64 dev net6 nodad; on_other ip link set net6 up
until ip -6 route get fd77::2 2>/dev/null | grep -q net6; do sleep 0.05; done
until ip link show net6 | grep -q "state UP" && on_other ip link show net6 | grep -q "state UP"; do sleep 0.05; done
"$0" -c "$1" "$2" 0 & first=$!
on_other "$0" -c "$1" "$2" 1
wait $first
"""
RANK = """
import json, os, sys
from pathlib import Path
from ranks import environment
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
os.environ |= environment(rank, "1,1", "node[1-2]", HTR_IFACE="net6", HTR_START_TIMEOUT="250")
"""
SUM = """
from jobs.distributed import process_group
with process_group.start(folder, "cpu", backend="torch") as world:
    found = world.sum({"ranks": rank + 1})
(folder / f"said-{rank}").write_text(json.dumps([found, os.environ["NCCL_SOCKET_FAMILY"]]))
"""
REFUSED = """
from jobs.distributed import process_group
from jobs.distributed.placement import DistributedError
try:
    process_group.start(folder, "cpu", backend="horovod")
except DistributedError as error:
    (folder / f"said-{rank}").write_text(json.dumps(str(error)))
"""
LOOK = """
from jobs.launch import network_probe
import time
here = network_probe.listen("abc")
(folder / f"here-{rank}.tmp").write_text(json.dumps(here))
(folder / f"here-{rank}.tmp").rename(folder / f"here-{rank}")
there = folder / f"here-{1 - rank}"
while not there.exists():
    time.sleep(0.05)
took = network_probe.reach(here, {"network": json.loads(there.read_text()), "token": "abc"})
(folder / f"said-{rank}").write_text(json.dumps([here["address"], took]))
while not (folder / f"said-{1 - rank}").exists():
    time.sleep(0.05)
"""


ALONE = ["unshare", *(["--user", "--map-root-user"] * bool(os.geteuid())), "--net"]


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Some systems let nobody make a network namespace (containers, kernels that are set so): its tests are skipped
    there, but never by CI."""
    make = "ip link set lo up && ip link add net6 type veth peer name other6"
    tools = shutil.which("unshare") and shutil.which("ip") and shutil.which("nsenter")
    done = tools and subprocess.run([*ALONE, "bash", "-c", make], capture_output=True, text=True)
    if not (done and done.returncode == 0):
        why = done.stderr.strip() if done else "unshare, nsenter or ip is missing"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"no network namespace can be made here: {why}"
        )


def on_two_nodes(folder: Path, program: str) -> list:
    """Run it as both ranks -> what each said."""
    path = os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "tests")))
    environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [*ALONE, "bash", "-c", NODES, sys.executable, RANK + program, str(folder)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads((folder / f"said-{rank}").read_text()) for rank in range(2)]


def test_ranks_meet_over_ipv6_alone(namespaces, tmp_path):
    assert on_two_nodes(tmp_path, SUM) == [[{"ranks": 3.0}, "AF_INET6"]] * 2


def test_horovod_says_on_every_rank_that_it_does_not(namespaces, tmp_path):
    said = on_two_nodes(tmp_path, REFUSED)
    assert said[0] == said[1] and said[0].startswith("the ranks meet at fd77::1, and Horovod knows IPv4 alone: train")


def test_doctor_tries_ways_over_ipv6_by_connecting(namespaces, tmp_path):
    said = on_two_nodes(tmp_path, LOOK)
    assert [address for address, _ in said] == ["fd77::1", "fd77::2"]
    assert all(took > 0 for _, took in said)  # seconds
