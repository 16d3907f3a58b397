"""The doctor's judgement over made-up answers, each fault named; and the whole of it on this machine alone."""

import copy
import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import doctor
from jobs.cli.command_line import main
from jobs.launch import network_probe, node_checks, node_probe, storage_probe

VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "horovod": "0.28.1", "numpy": "2.4.6", "cv2": "4.14.0"}
VERSIONS |= {"commit": "0123456789ab", "code": "ba9876543210"}


def node(number: int, other: str) -> dict:
    """What a node answers where all is well."""
    network = {"interface": "ib0", "address": f"10.0.0.{number + 1}", "port": 20000, "ports": "20000-20999"}
    storage = {"free": 1 << 40, "inodes": 10**8, "mode": 0o750, "clock": 0.0}
    storage |= {"won": [] if number else [0, 1, 2, 3], "torn": []}
    return {
        "node": number,
        "host": f"gpu{number}",
        "ready": True,
        "done": True,
        "token": "t",
        "time": 1e9,
        "cpus": 8,
        "versions": dict(VERSIONS),
        "horovod": {"gloo": True, "nccl": True},
        "network": network,
        "gpus": {"torch": 4, "slurm": 4, "files": 4, "in_slurm": True},
        "storage": storage,
        "reached": {other: 0.0004},
        "seen": {other: 0.1},
    }


def judged(fault=lambda first, second: None, nodes=2, gpus=4, device="auto", stderr=""):
    """The checks that are not ok, name to (level, text), after `fault` has changed the answers."""
    answers = [node(0, "gpu1"), node(1, "gpu0")]
    fault(*answers)
    before = copy.deepcopy(answers)
    checks = node_checks.judge(answers, nodes, gpus, device, stderr)
    assert answers == before
    return {check.name: (check.level, check.text) for check in checks if check.level != "ok"}


def put(path: str, value, both=False):
    """A fault: the value at a path such as "gpus/torch", of the second node or of both."""

    def fault(first, second):
        for answer in (first, second) if both else (second,):
            *parents, name = path.split("/")
            for parent in parents:
                answer = answer[parent]
            answer[name] = value

    return fault


def test_all_is_well():
    assert judged() == {}


@pytest.mark.parametrize(
    ("path", "value", "check", "level", "says"),
    [
        ("versions/torch", "2.12.0", "versions", "FAIL", "torch is 2.13.0 on gpu0, 2.12.0 on gpu1"),
        ("versions/python", "3.11.2", "versions", "FAIL", "3.11.2 on gpu1"),
        ("versions/cv2", {"error": "ImportError: libGL.so.1"}, "versions", "FAIL", "cv2 on gpu1: ImportError: libGL"),
        ("versions/code", "x", "code", "FAIL", "x on gpu1"),
        ("versions/commit", "ffff+", "code", "FAIL", "ffff+ on gpu1"),
        ("versions/code", {"error": "no torch"}, "code", "FAIL", "gpu1: no torch"),
        ("versions/horovod", "0.27", "horovod", "FAIL", "0.27 on gpu1"),
        ("horovod", {"error": "undefined symbol"}, "horovod", "FAIL", "gpu1: undefined symbol"),
        ("horovod/gloo", False, "horovod", "FAIL", "built without gloo on gpu1"),
        ("horovod/nccl", False, "horovod", "FAIL", "built without NCCL on gpu1"),
        ("network/address", "10.0.0.1", "interface", "FAIL", "gpu1 has 10.0.0.1 on ib0"),
        ("network", {"error": "HTR_IFACE=ib7"}, "interface", "FAIL", "gpu1: HTR_IFACE=ib7"),
        ("reached", {"gpu0": {"error": "timed out"}}, "network", "FAIL", "gpu1 cannot reach gpu0 (timed out)"),
        ("reached", {}, "network", "FAIL", "gpu1 did not say"),
        ("seen", {"gpu0": {"error": "no file"}}, "storage", "FAIL", "gpu1, gpu0: no file"),
        ("seen", {}, "storage", "FAIL", "gpu1 did not say"),
        ("storage", {"error": "Operation not supported"}, "storage", "FAIL", "gpu1: Operation not supported"),
        ("storage/torn", ["parts of two versions"], "storage", "FAIL", "gpu1 read parts of two versions"),
        ("storage/won", [0, 1], "storage", "FAIL", "2 of 4 names were linked by several nodes"),
        ("storage/mode", 0o755, "permissions", "warn", "mode 0755, others may enter"),
        ("storage/mode", 0o770, "permissions", "warn", "the group may write"),
        ("storage/free", 10**8, "space", "FAIL", "0.1 GiB"),
        ("storage/free", 5 << 30, "space", "warn", "5.0 GiB"),
        ("storage/inodes", 10, "space", "FAIL", "10 files"),
        ("gpus/torch", 2, "gpus", "FAIL", "gpu1: torch sees 2 GPUs, Slurm gave 4"),
        ("gpus", {"error": "no kernel image"}, "gpus", "FAIL", "gpu1: no kernel image"),
        ("cpus", 7, "cpus", "warn", "gpu1 gives 7 CPUs for 4 ranks"),
        ("time", 1e9 + 5, "clock", "warn", "nodes differ by 5.0 s"),
        ("time", 1e9 - 45, "clock", "FAIL", "nodes differ by 45.0 s"),
        ("storage/clock", -45.0, "clock", "FAIL", "storage's clock by 45.0 s"),
    ],
)
def test_a_fault_of_one_node_is_named(path, value, check, level, says):
    wrong = judged(put(path, value))
    assert wrong[check][0] == level
    assert says in wrong[check][1]
    assert ": " in wrong[check][1]  # and what to do
    assert set(wrong) <= {check, "space"}, "one fault, one line"


def test_faults_of_both_nodes():
    assert (
        "4 wanted" in judged(put("gpus", {"torch": 0, "slurm": 0, "files": 0, "in_slurm": True}, both=True))["gpus"][1]
    )
    assert judged(put("storage/inodes", None, both=True)) == {}
    assert judged(put("versions/commit", "unknown")) == {}, "a node without git"


def test_what_was_asked_decides_about_gpus():
    bare = put("gpus", {"torch": 0, "slurm": 0, "files": 0, "in_slurm": True}, both=True)
    assert judged(bare, gpus=0) == {}
    assert judged(bare, gpus=0, device="cuda")["gpus"][0] == "FAIL"
    assert judged(put("gpus/torch", 0, both=True), device="cpu") == {}
    idle = put("gpus", {"torch": 0, "slurm": 0, "files": 4, "in_slurm": False}, both=True)
    assert judged(idle, gpus=0)["gpus"][0] == "warn"
    free = put("gpus", {"torch": 4, "slurm": 0, "files": 4, "in_slurm": True}, both=True)
    assert "Slurm gave none" in judged(free, gpus=0)["gpus"][1]


def test_nccl_is_of_no_concern_on_cpus():
    def fault(first, second):
        put("horovod/nccl", False, both=True)(first, second)
        put("gpus", {"torch": 0, "slurm": 0, "files": 0, "in_slurm": True}, both=True)(first, second)

    assert judged(fault, gpus=0) == {}


def test_a_node_that_does_not_answer():
    def silent(first, second):
        del second["ready"]

    wrong = judged(silent, stderr="srun: error: gpu1: task 1: Killed\n")
    assert wrong["nodes"] == ("FAIL", "1 of 2 answered (gpu0): srun: error: gpu1: task 1: Killed")
    checks = node_checks.judge([], 2, 0, "auto", "srun: error: Invalid partition\n")
    assert [(check.level, check.name) for check in checks] == [("FAIL", "nodes")]
    assert "Invalid partition" in checks[0].text


def test_report(capsys):
    assert doctor.report([node_checks.Check("warn", "cpus", "few"), node_checks.Check("ok", "nodes", "a")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: ready"
    assert doctor.report([node_checks.Check("FAIL", "cpus", "none"), node_checks.Check("FAIL", "clock", "off")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: not ready: cpus, clock"


def test_no_controller_means_this_machine_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.no_slurm() == "no srun here"
    for name in ("srun", "sinfo"):  # stand-ins for Slurm's programs on a machine without a cluster
        (tmp_path / name).write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    assert doctor.no_slurm() == "sinfo fails (Unable to contact slurm controller)"


def test_this_machine_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "no_slurm", lambda: "no srun here")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "HTR_"))]:
        monkeypatch.delenv(name)
    code = main(["doctor", "--device", "cpu", "--shared", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "warn  slurm        no srun here: this machine alone is checked"
    levels = {line.split()[1]: line.split()[0] for line in lines[:-1]}
    # what depends on the code, not on how well this machine is equipped
    assert {levels[name] for name in ("nodes", "code", "interface", "network", "storage", "clock")} == {"ok"}
    assert lines[-1].startswith("verdict: ready" if code == 0 else "verdict: not ready: ")
    assert list(tmp_path.iterdir()) == [], "the doctor leaves nothing behind"


def test_a_shared_folder_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "no_slurm", lambda: "no srun here")
    assert main(["doctor", "--shared", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().out.endswith("verdict: not ready: storage\n")


def test_two_probes_that_share_nothing_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(storage_probe, "VISIBLE_WITHIN_S", 0.3)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    storage_probe.storage(tmp_path / "a", 0, "token")
    with pytest.raises(ValueError, match="did not appear"):
        storage_probe.see(tmp_path / "b", {"node": 0, "token": "token"}, 0.0)
    with pytest.raises(ValueError, match="not the same folder"):
        storage_probe.storage(tmp_path / "none", 1, "token")
    assert storage_probe.see(tmp_path / "a", {"node": 0, "token": "token"}, 0.0) == 0.0
    with pytest.raises(ValueError, match="did not appear"):  # a file of that name with other content
        storage_probe.see(tmp_path / "a", {"node": 0, "token": "other"}, 0.0)


def test_a_stranger_at_the_address_is_no_peer(monkeypatch):
    monkeypatch.setenv("HTR_IFACE", "lo")
    network = network_probe.listen("mine")
    assert network_probe.reach(network, {"network": network, "token": "mine"}) < 5
    with pytest.raises(ValueError, match="somebody else answers"):
        network_probe.reach(network, {"network": network, "token": "theirs"})


def test_banners_and_broken_lines_are_no_answers():
    script = "\n".join(
        [
            "echo 'Welcome to the cluster'; echo 17; echo '[1]'; echo '{\"a\": 1}'",
            'echo \'{"node": 0, "host": "a", "versions": {"x": 1}}\'; echo \'{"node": 0, "versions": {"y": 2}}\'',
            'echo \'{"node": 0, "network": {}, "token": "t", "ready": true}\'; read peers',
            'echo "$peers" >&2; echo \'{"node": 0, "done": true}\'; cat',
        ]
    )
    answers, stderr = node_probe.ask(["bash", "-c", script], 1)
    assert answers[0]["versions"] == {"x": 1, "y": 2}
    assert json.loads(stderr) == [{"node": 0, "host": "a", "network": {}, "token": "t"}]


def test_probes_that_end_at_once():
    assert node_probe.ask(["bash", "-c", "echo no python >&2; exit 127"], 2) == ([], "no python\n")


def test_lines_of_a_probe_are_short_enough_for_slurm(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(node_probe, "horovod", lambda: 1 / 0)
    assert node_probe.probe(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 1000
    assert {"node": 0, "done": True} in map(json.loads, lines)
    assert any("ZeroDivisionError: division by zero" in line for line in lines)


def test_a_way_that_is_open_is_proposed():
    """The interface of the default route leads nowhere, another one does, by connecting."""

    def fault(first, second):
        for answer, other in ((first, "gpu1"), (second, "gpu0")):
            answer["reached"] = {other: {"error": "timed out"}}
            answer["other_ways"] = {other: ["ib1", "eth1"] if answer is first else ["ib1"]}

    assert "over ib1 the nodes do answer: set HTR_IFACE=ib1" in judged(fault)["network"][1]


def test_the_ways_between_two_nodes(monkeypatch):
    monkeypatch.setattr(network_probe, "interfaces", lambda: {"lo": "127.0.0.1", "a": "127.0.0.2", "b": "127.0.0.3"})
    monkeypatch.setattr(network_probe, "is_loopback", lambda address: address == "127.0.0.1")
    ours, theirs = (network_probe.listen_everywhere(token, {"address": "127.0.0.9"}) for token in ("one", "two"))
    assert set(ours) == set(theirs) == {"a", "b"}
    peer = {"network": {"ways": theirs | {"b": ["127.0.0.3", 1]}}, "token": "two"}  # nobody listens there
    assert network_probe.other_ways(ours, peer) == ["a"]
    assert network_probe.other_ways(ours, peer | {"token": "three"}) == []
    assert network_probe.other_ways({"error": "none"}, peer) == []


def both(folder) -> list[dict]:
    """What two nodes say that contest one folder."""
    peers = [{"node": 0}, {"node": 1}]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda node: storage_probe.contest(folder, node, peers), (0, 1)))


def test_links_and_renames_of_several_nodes_at_once(tmp_path, monkeypatch):
    said = both(tmp_path)
    assert sorted(said[0]["won"] + said[1]["won"]) == list(range(storage_probe.CONTESTS))
    assert said[0]["torn"] == said[1]["torn"] == []

    def in_two_writes(path, text):
        with open(path, "w", encoding="utf-8") as file:
            for half in (text[: len(text) // 2], text[len(text) // 2 :]):
                file.write(half)
                file.flush()
                time.sleep(0.005)

    monkeypatch.setattr(storage_probe.files, "commit", lambda attempt, path: True)
    monkeypatch.setattr(storage_probe.files, "replace", in_two_writes)
    said = both(tmp_path)
    assert all(len(one["won"]) == storage_probe.CONTESTS for one in said)
    assert said[0]["torn"] == ["parts of two versions of a file that is being replaced"]
