"""The node probe of doctor: environment and network of a node, and the connections between nodes.

A node tells facts as lines of JSON on stdout, a few short ones, since Slurm passes lines of up to 1024 bytes on whole.
The others' addresses come as one line on stdin, which srun hands to all nodes: nodes that share nothing still meet.
"""

import glob
import importlib
import json
import os
import platform
import queue
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO

from jobs.cli.code_version import code_version
from jobs.cli.console import log
from jobs.distributed.placement import (
    DistributedError,
    expand_hosts,
    in_step,
)
from jobs.launch.network_probe import listen, listen_everywhere, other_ways, reach
from jobs.launch.storage_probe import VISIBLE_WITHIN_S, contest, see, storage

QUEUE, START, LOOK = 300.0, 120.0, 100.0  # seconds for the first node's answer, for the others', for their meeting
# In a process of its own: a Horovod that does not fit its torch may abort. Only jobs/distributed/horovod_backend.py
# imports it for good.
HOROVOD = "import horovod.torch as h; print(bool(h.gloo_built()), bool(h.nccl_built()))"


# --- the doctor's side


def ask(command: list[str], nodes: int) -> tuple[list[dict], str]:
    """Start the probes with this command, and tell each where the others listen. -> the nodes' answers, and srun's
    error output. It ends in bounded time."""
    answers: dict[int, dict] = {}
    lines: queue.Queue[str | None] = queue.Queue()
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=environ)
        threading.Thread(target=pump, args=(process.stdout, lines), daemon=True).start()
        try:
            if command[0] == "srun":
                log(f"doctor: nodes asked of Slurm: {nodes}; waiting at most {QUEUE:.0f} s until they are there …")
            hear(lines, answers, lambda: bool(answers), QUEUE)
            hear(lines, answers, lambda: all_have(answers, nodes, "ready"), START)
            ready = [answer for answer in answers.values() if "ready" in answer]
            peers = [{name: answer[name] for name in ("node", "host", "network", "token")} for answer in ready]
            with suppress(OSError):  # they have ended: stderr says why
                process.stdin.write(json.dumps(peers) + "\n")
                process.stdin.flush()
            hear(lines, answers, lambda: all_have(answers, len(ready), "done"), LOOK if ready else 0)
        finally:
            end(process)
        stderr.seek(0)
        return [answers[node] for node in sorted(answers)], stderr.read()


def pump(stream: IO[str], lines: queue.Queue) -> None:
    with stream:  # its reader closes it: left to the garbage collector, it is a file that stays open
        for line in stream:
            lines.put(line)
    lines.put(None)


def hear(lines: queue.Queue, answers: dict[int, dict], enough: Callable[[], bool], seconds: float) -> None:
    """Merge what the probes say into `answers`, until there is enough, all probes have ended, or `seconds` have
    passed."""
    deadline = time.monotonic() + seconds
    while not enough():
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return
        if line is None:
            lines.put(None)  # for the next to ask
            return
        with suppress(ValueError, TypeError, KeyError):  # a site's banner is no answer
            facts = json.loads(line)
            answer = answers.setdefault(facts["node"], {})
            for name, value in facts.items():
                answer[name] = answer.get(name, {}) | value if isinstance(value, dict) else value


def all_have(answers: dict[int, dict], nodes: int, name: str) -> bool:
    return sum(name in answer for answer in answers.values()) >= nodes


def end(process: subprocess.Popen) -> None:
    with suppress(OSError):
        process.stdin.close()  # the probes end by it
    for stop in (process.terminate, process.kill, lambda: None):  # srun cancels a job that still waits
        try:
            process.wait(15 if process.poll() is None else 0)
            return
        except subprocess.TimeoutExpired:
            stop()


# --- a node's side


def probe(folder: Path) -> int:
    """On a node: test it and talk to doctor, by lines of JSON. `folder`: on storage that all nodes should share. What
    fails is reported to doctor, not raised."""
    node, token = int(os.environ.get("SLURM_PROCID", "0")), secrets.token_hex(8)

    def tell(**facts) -> None:
        print(json.dumps({"node": node, **facts}), flush=True)

    tell(host=socket.gethostname())
    for name in ("torch", "numpy", "cv2"):
        tell(versions={name: attempt(lambda name=name: importlib.import_module(name).__version__)})
    tell(versions={"python": platform.python_version(), "horovod": attempt(lambda: version("horovod"))})
    tell(versions={"commit": code_version(), "code": attempt(code_digest)})
    tell(horovod=attempt(horovod), gpus=attempt(gpus), cpus=len(os.sched_getaffinity(0)))
    network = attempt(lambda: listen(token))
    tell(network=network)
    ways = attempt(lambda: listen_everywhere(token, network))
    tell(network={"ways": ways})
    tell(storage=attempt(lambda: storage(folder, node, token)))
    tell(ready=True, token=token)
    line = sys.stdin.readline()  # it comes to all nodes at once
    tell(time=time.time())
    peers = json.loads(line) if line.strip() else []
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    for peer in peers:
        if peer["node"] != node or len(peers) == 1:
            took = attempt(lambda peer=peer: reach(network, peer))
            tell(reached={peer["host"]: took})
            if isinstance(took, dict):
                tell(other_ways={peer["host"]: attempt(lambda peer=peer: other_ways(ways, peer))})
    for peer in peers:
        if peer["node"] != node:
            tell(seen={peer["host"]: attempt(lambda peer=peer: see(folder, peer, deadline))})
    tell(storage=attempt(lambda: contest(folder, node, peers)))
    tell(done=True)
    sys.stdin.read()  # the others may still want to reach this node
    return 0


def attempt(check: Callable) -> object:
    """The result of `check`, or {"error": a line}: a broken library may raise anything."""
    try:
        return check()
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        kind = "" if type(error) in (ValueError, DistributedError) else f"{type(error).__name__}: "
        return {"error": f"{kind}{line}"[:300]}


def code_digest() -> str:
    from jobs.distributed import process_group

    return process_group.versions()["code"]


def horovod() -> dict[str, bool]:
    """Whether Horovod was built with Gloo and with NCCL. Raises ValueError where it cannot be imported."""
    done = subprocess.run([sys.executable, "-c", HOROVOD], capture_output=True, text=True, timeout=120)
    words = done.stdout.split()
    if done.returncode or len(words) < 2:
        raise ValueError((done.stderr.strip().splitlines() or [f"its import ended with {done.returncode}"])[-1])
    return {"gloo": words[-2] == "True", "nccl": words[-1] == "True"}


def gpus() -> dict:
    """The GPUs that torch sees, that Slurm allocated, and that have device files; and whether torch can compute on
    them."""
    import torch

    from jobs.distributed.devices import visible_gpus

    given = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
    count = len(expand_hosts(f"[{given}]")) if given else int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    facts = {"torch": len(visible_gpus()), "slurm": count, "files": len(glob.glob("/dev/nvidia[0-9]*"))}
    facts["in_slurm"] = in_step()
    for index in range(facts["torch"]):  # a torch that is not built for this GPU sees it all the same
        torch.ones(1, device=torch.device("cuda", index)).add_(1).item()
    return facts
