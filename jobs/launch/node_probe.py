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
    Placement,
    Settings,
    bind,
    choose_interface,
    expand_hosts,
    in_step,
    visible_gpus,
)
from shards import files

QUEUE, START, LOOK = 300.0, 120.0, 100.0  # seconds for the first node's answer, for the others', for their meeting
VISIBLE_WITHIN_S = (
    60.0  # seconds until a file of one node must be there on another: as long as NFS may remember that it is not
)
# In a process of its own: a Horovod that does not fit its torch may abort. Only jobs/distributed/process_group.py
# imports it for good.
HOROVOD = "import horovod.torch as h; print(bool(h.gloo_built()), bool(h.nccl_built()))"


# --- the doctor's side


def ask(command: list[str], nodes: int) -> tuple[list[dict], str]:
    """Start the probes, tell each where the others are. -> what each node answered, stderr. Ends in bounded time."""
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
    """Merge the lines that come into `answers` until it is enough, the probes have ended, or the time is over."""
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
    """Talk to the doctor; `folder` is on storage that should be shared. Whatever fails is told, not raised."""
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
    tell(storage=attempt(lambda: storage(folder, node, token)))
    tell(ready=True, token=token)
    line = sys.stdin.readline()  # it comes to all nodes at once
    tell(time=time.time())
    peers = json.loads(line) if line.strip() else []
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    for peer in peers:
        if peer["node"] != node or len(peers) == 1:
            tell(reached={peer["host"]: attempt(lambda peer=peer: reach(network, peer))})
    for peer in peers:
        if peer["node"] != node:
            tell(seen={peer["host"]: attempt(lambda peer=peer: see(folder, peer, deadline))})
    tell(done=True)
    sys.stdin.read()  # the others may still want to reach this node
    return 0


def attempt(check: Callable) -> object:
    """What `check` returns, or {"error": one line}: a broken library can raise anything."""
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
    """Whether Horovod was built with gloo and with nccl. Raises ValueError if it cannot be imported."""
    done = subprocess.run([sys.executable, "-c", HOROVOD], capture_output=True, text=True, timeout=120)
    words = done.stdout.split()
    if done.returncode or len(words) < 2:
        raise ValueError((done.stderr.strip().splitlines() or [f"its import ended with {done.returncode}"])[-1])
    return {"gloo": words[-2] == "True", "nccl": words[-1] == "True"}


def gpus() -> dict:
    """GPUs that torch sees, that Slurm gave, whose device files are here; and whether torch can compute on them."""
    import torch

    given = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
    count = len(expand_hosts(f"[{given}]")) if given else int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    facts = {"torch": len(visible_gpus()), "slurm": count, "files": len(glob.glob("/dev/nvidia[0-9]*"))}
    facts["in_slurm"] = in_step()
    for index in range(facts["torch"]):  # a torch that is not built for this GPU sees it all the same
        torch.ones(1, device=torch.device("cuda", index)).add_(1).item()
    return facts


def listen(token: str) -> dict:
    """Answer with the token at a port of the site's, at the address that ranks would take. Raises DistributedError."""
    settings = Settings.find()
    interface, address = choose_interface(Placement.find(), settings.interface)
    server = bind(address, settings.ports, socket.create_server)

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with suppress(OSError), connection:
                connection.sendall(token.encode())

    threading.Thread(target=serve, daemon=True).start()
    ports = f"{settings.ports[0]}-{settings.ports[-1]}" if settings.ports else "any"
    return {"interface": interface, "address": address, "port": server.getsockname()[1], "ports": ports}


def reach(network: dict, peer: dict) -> float:
    """Seconds until the other node's answer. It must be its own: bridges of containers have one address everywhere."""
    if "error" in network or "error" in peer["network"]:
        raise ValueError("no interface to go by")
    where, began = (peer["network"]["address"], peer["network"]["port"]), time.monotonic()
    with socket.create_connection(where, 10, (network["address"], 0)) as connection, connection.makefile() as stream:
        if stream.read() != peer["token"]:
            raise ValueError(f"somebody else answers at {where[0]}")
    return round(time.monotonic() - began, 4)


def storage(folder: Path, node: int, token: str) -> dict:
    """Write, link and rename as shards and runs do. Raises OSError where the file system can't."""
    until(
        lambda: os.path.isdir(folder),
        time.monotonic() + VISIBLE_WITHIN_S,
        f"{folder.parent} is not the same folder here",
    )
    path, began = folder / f"node-{node}", time.time()
    for is_first in (True, False):
        again = files.temporary(path)
        files.write_synced(again, "linked")
        if files.commit(again, path) != is_first:
            raise OSError(
                "os.link replaces a file that is there" if is_first is False else "os.link says a file is there"
            )
    files.replace(path, token)
    changed, now, space = path.stat().st_mtime, time.time(), os.statvfs(folder)
    return {
        "free": space.f_bavail * space.f_frsize,
        "inodes": space.f_favail if space.f_files else None,  # some file systems don't count
        "mode": folder.parent.stat().st_mode & 0o777,
        "clock": round(min(changed - began, 0) or max(changed - now, 0), 1),  # the file server's, ahead of ours
    }


def see(folder: Path, peer: dict, deadline: float) -> float:
    """Seconds until the other node's file was there with its content. Raises ValueError."""
    name, began = f"node-{peer['node']}", time.monotonic()
    # a listing asks the file server again, where the file's name alone is answered from a cache
    there = lambda: name in os.listdir(folder) and (folder / name).read_text(encoding="utf-8") == peer["token"]  # noqa: E731
    until(there, deadline, f"its file did not appear within {VISIBLE_WITHIN_S:g} s")
    return round(time.monotonic() - began, 1)


def until(there: Callable[[], bool], deadline: float, late: str) -> None:
    while True:
        with suppress(OSError):
            if there():
                return
        if time.monotonic() > deadline:
            raise ValueError(late)
        time.sleep(0.2)
