"""gpu_check.py tells of every part in time, whatever a part does. Its parts are shell scripts here."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

GPU = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"
LONG = 10_000  # seconds that no test waits for
DRIVER = """
import json, os, signal, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import gpu_parts
from gpu_parts import Check

out, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
gpu_parts.WHOLE, gpu_parts.REHEARSAL = (asked["whole"],) * 2, 1
gpu_parts.LIMITS = dict.fromkeys(gpu_parts.LIMITS, (asked["whole"],) * 2)
gpu_parts.packages = lambda folder: []

def hurry(check):  # the limit of `losses` is over as soon as it has begun to hang
    while not (out / "hangs").exists():
        time.sleep(0.05)
    process, began, _, log = check.running["losses"]
    check.running["losses"] = process, began, 0.0, log

def stuck(check):
    (out / "timer").write_text(str(signal.getitimer(signal.ITIMER_REAL)[0]))
    time.sleep(10**6)

Check.command = lambda self, name, limit: ["bash", "-c", asked["scripts"].get(name, ":")]
if asked["stuck"]:
    Check.wait = stuck
args = SimpleNamespace(device=asked["device"], quick=True, wheels=out, out=out)
(out / "folder").mkdir()
check = Check(args, out / "folder", list(gpu_parts.LIMITS))
threading.Thread(target=hurry, args=(check,), daemon=True).start()
sys.exit(check.run({"ok": True}))
"""
PARTS = ("build", "data", "losses", "layers", "repeat", "readings", "resume", "speed", "nccl", "compile")


def begin(out: Path, scripts: dict, device: str = "cuda", stuck: bool = False) -> subprocess.Popen:
    asked = {"scripts": scripts, "device": device, "stuck": stuck, "whole": LONG}
    command = [sys.executable, "-c", DRIVER, str(out), json.dumps(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(GPU)})


def told(process: subprocess.Popen, code: int = 1) -> tuple[dict, str]:
    """The last line, which tells of each part, and the table before it."""
    said, _ = process.communicate()
    *before, last = said.splitlines()
    assert process.returncode == code, said
    found = json.loads(last)
    assert sorted(found) == sorted(PARTS)
    return found, "\n".join(before[-len(PARTS) - 2 :])


def ended(process_id: int) -> bool:
    """Also a zombie, which this system's first process has not asked for yet."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_part_that_hangs_dies_or_fails_keeps_no_other_from_running(tmp_path):
    hangs, row = tmp_path / "hangs", '{"checks": {"a": true}, "rows": [{"loss": 2.5}]}'
    scripts = {
        "build": "echo 'g++: error: no such file' >&2; exit 3",
        "losses": f"trap '' TERM; echo '{row}'; sleep {LONG} & echo $! > {hangs}.part; mv {hangs}.part {hangs}; wait",
        "layers": "kill -SEGV $$",
        "repeat": 'echo \'{"checks": {"the same bits": false}}\'',
        "speed": 'echo \'{"needs_gpu": ["all figures"]}\'',
    }
    found, table = told(begin(tmp_path, scripts, device="cpu"))
    assert [name for name in PARTS if not found[name]["ok"]] == ["build", "losses", "layers", "repeat"]
    assert found["build"]["error"].startswith("g++: error") and found["layers"]["error"] == "ended by -11"
    assert found["losses"]["error"] == "its time limit ended it" and found["losses"]["rows"] == [{"loss": 2.5}]
    assert {name: found[name]["how"] for name in PARTS} == dict.fromkeys(PARTS, "stand-in") | {"data": "ran"}
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines()[1:-1]}
    assert rows["build"] == ["stand-in", "NO"] and rows["nccl"] == ["stand-in", "yes"] and set(rows) == set(PARTS)
    assert "all figures" in table and "NCCL" in table and "6 of 10 good" in table
    kept = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert {name: kept[name] for name in PARTS} == found
    while not ended(int(hangs.read_text(encoding="utf-8"))):  # its child
        time.sleep(0.05)


def test_without_a_data_set_who_waits_for_it_is_told(tmp_path):
    waits = 'while [ ! -e "$GPU_CHECK_FOLDER/no-data" ]; do sleep 0.05; done'
    found, _ = told(begin(tmp_path, {"data": "exit 1", "resume": waits, "speed": waits}))
    assert [name for name in PARTS if not found[name]["ok"]] == ["data"]


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_all_is_told_when_the_time_is_over_or_it_is_ended(tmp_path, number):
    begun = tmp_path / "begun"
    process = begin(
        tmp_path, {"resume": f"""echo '{{"rows": [{{"a": 1}}]}}'; touch {begun}; sleep {LONG}"""}, stuck=True
    )
    while not (begun.exists() and (tmp_path / "timer").exists()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    found, table = told(process)
    assert 0 < float((tmp_path / "timer").read_text(encoding="utf-8")) < LONG + 60
    assert found["resume"]["how"] == "ran" and not found["resume"]["ok"] and found["resume"]["rows"] == [{"a": 1}]
    why = "all the time was over" if number == signal.SIGALRM else "ended from outside"
    assert found["resume"]["error"] == found["nccl"]["error"] == why
    assert all(found[name]["how"] == "not begun" for name in PARTS[-3:]) and table.count("not begun") == 3


def test_a_full_disk_hides_no_result(tmp_path):
    (tmp_path / "gpu_check.part").mkdir()  # what is written there fails, as on a full disk
    found, _ = told(begin(tmp_path, {}), code=0)
    assert all(found[name]["ok"] for name in PARTS)


@pytest.mark.parametrize(("quick", "minutes"), [(True, 4), (False, 8)])
def test_what_comes_before_leaves_time_for_what_comes_after(tmp_path, monkeypatch, quick, minutes):
    monkeypatch.syspath_prepend(str(GPU))
    parts = importlib.import_module("gpu_parts")
    check = parts.Check(SimpleNamespace(device="cuda", quick=quick), tmp_path, list(PARTS))
    now = 0.0
    monkeypatch.setattr(check, "passed", lambda: now)
    now = max(check.limit(name) for name in parts.AT_ONCE)  # each part takes all that it may
    for name in parts.LEAST:
        assert check.limit(name) >= parts.LEAST[name][not quick]
        now += check.limit(name)
    assert sorted([*parts.AT_ONCE, *parts.LEAST]) == sorted(PARTS) and now <= check.whole
    assert check.whole + 3 * parts.DIES_S <= 60 * minutes  # until the timer, and until what it kills is dead
