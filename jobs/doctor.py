"""python -m jobs doctor: can jobs run here? Environment, interface, shared storage, GPUs and versions of two nodes.

    python -m jobs doctor --shared /scratch/me --gpus-per-node 4     on a login node: Slurm is asked for two nodes
    salloc --nodes=2 …  python -m jobs doctor                        in an allocation: its nodes are taken
    python -m jobs doctor                                            without Slurm: this machine alone

The nodes take the same way as a job: slurm/env.sh with this site's settings, then Python. Exit code 0: ready.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.cli.settings import setting
from jobs.launch.node_checks import Check, judge, last
from jobs.launch.node_probe import ask, probe

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto or cuda looks at GPUs, cpu does not")
    nodes: int = setting(2, "number of nodes to check")
    shared: Path = setting(Path(), "folder on shared storage where data and runs will be", metavar="FOLDER")
    partition: str | None = setting(None, "partition of the nodes (default: that of slurm/site.env)")
    account: str | None = setting(None, "account to use (default: that of slurm/site.env)")
    gpus_per_node: int = setting(0, "GPUs per node to ask for and check", metavar="N")
    probe: Path | None = setting(None, argparse.SUPPRESS)


def main(args: Settings) -> int:
    if args.probe:
        return probe(args.probe)
    if args.nodes < 1 or args.gpus_per_node < 0:
        raise ValueError("--nodes must be 1 or more, --gpus-per-node 0 or more")
    missing = no_slurm()
    nodes = 1 if missing else min(args.nodes, int(os.environ.get("SLURM_JOB_NUM_NODES") or args.nodes))
    checks = [Check("warn", "slurm", f"{missing}: this machine alone is checked")] if missing else []
    if not missing and nodes < args.nodes:
        checks = [Check("warn", "slurm", f"this allocation has {nodes} of the {args.nodes} nodes asked for")]
    try:
        folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=args.shared.resolve()))
    except OSError as error:
        return report([*checks, Check("FAIL", "storage", f"{args.shared}: {error.strerror}: give another --shared")])
    try:
        answers, stderr = ask(alone(folder) if missing else in_slurm(args, nodes, folder), nodes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report(checks + judge(answers, nodes, args.gpus_per_node, args.device, stderr))


def no_slurm() -> str:
    """Why Slurm can't be asked; empty if it can."""
    if not (shutil.which("srun") and shutil.which("sinfo")):
        return "no srun here"
    try:
        done = subprocess.run(["sinfo", "-h"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "sinfo does not answer"
    return f"sinfo fails ({last(done.stderr, 1)})" if done.returncode else ""


# --- the nodes are asked


def alone(folder: Path) -> list[str]:
    # as slurm/run.sh does in a job: what is checked is the environment that a job would find
    script = 'cd "$0" && . slurm/env.sh && exec python -m jobs doctor --probe "$1"'
    return ["bash", "-c", script, str(CHECKOUT), str(folder)]


def in_slurm(args: Settings, nodes: int, folder: Path) -> list[str]:
    """The same by srun: within this allocation, or in one of its own with two CPUs a rank where nodes have them."""
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--export=ALL"]
    srun += [f"--gpus-per-node={args.gpus_per_node}"] if args.gpus_per_node else []
    if "SLURM_JOB_ID" in os.environ:  # its CPUs are all given to a step that asks for none; others may work there
        return [*srun, "--overlap", *alone(folder)]
    from jobs.launch.submitit_launcher import site_settings

    site = site_settings() | {name: getattr(args, name) for name in ("partition", "account") if getattr(args, name)}
    # what no node has may wait in the queue for ever, instead of being refused
    sinfo = ["sinfo", "-h", "-o", "%c", *([f"--partition={site['partition']}"] if site.get("partition") else [])]
    done = subprocess.run(sinfo, capture_output=True, text=True, timeout=30)
    most = max([int(word.rstrip("+")) for word in done.stdout.split() if word.rstrip("+").isdigit()], default=1)
    srun += ["--job-name=htr-doctor", "--time=10", f"--cpus-per-task={min(2 * max(args.gpus_per_node, 1), most)}"]
    srun += [f"--{name}={site[name]}" for name in ("partition", "account", "qos", "constraint") if site.get(name)]
    return [*srun, *alone(folder)]


def report(checks: list[Check]) -> int:
    for check in checks:
        print(f"{check.level:<5} {check.name:<12} {check.text}")
    failed = [check.name for check in checks if check.level == "FAIL"]
    print(f"verdict: not ready: {', '.join(failed)}" if failed else "verdict: ready", flush=True)
    return 1 if failed else 0
