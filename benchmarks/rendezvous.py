"""What many ranks take to meet and to agree, by light processes on this machine, and what 512 would take.

    python benchmarks/rendezvous.py [--ranks 16,32,64] [--backend horovod,torch] [--agreements 20] [--to 512]

A rank is a process that is forked with torch and Horovod imported. It starts jobs.distributed.process_group as under
Slurm, eight ranks a node by name, all over the loopback, sums a flag some times, and leaves. Of each size: seconds
until the slowest rank has met the others (rendezvous of our own) and has joined (Gloo's connections, by Horovod's
server or torch's store); CPU seconds of rank 0 and of the mean rank until then; ms an agreement, and CPU ms of a rank.

All processes share this machine's cores, so wall time says little of 512 nodes: what is extrapolated is CPU time. Of
starting, rank 0's, which serves the others, and the mean rank's: CPU(N) = a + b N + c N^2 by least squares over the
sizes, of a lower degree where c is negative; 512 ranks on cores of their own take at least the larger of both. Of an
agreement: CPU ms of a rank a + b N, beside 2 (N - 1) hops of --hop s, as jobs/scaling/cost_model.py has them. It is an
extrapolation by a factor of eight, not a measurement. A table, then a line of JSON.

Horovod's Gloo takes two ports of this one address for each pair of ranks to listen at, one to connect from, and a
question to its server leaves one behind for a minute: of some 28 000 ports about a hundred ranks can be had here. Of a
cluster each node has ports of its own. More ranks are refused.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PER_NODE = 8
PORTS_A_PAIR = 5  # of ranks with Horovod: two listen, one connects, two wait after questions to its server
FIGURES = ("met_s", "joined_s", "root_cpu_s", "rank_cpu_s", "agree_ms", "agree_cpu_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ranks", default="16,32,64", help="sizes (default: %(default)s)")
    add("--backend", default="horovod,torch", help="(default: %(default)s)")
    add("--agreements", type=int, default=20, help="that are timed (default: %(default)s)")
    add("--to", type=int, default=512, help="ranks that are extrapolated to (default: %(default)s)")
    add("--hop", type=float, default=30e-6, help="s, a small message over TCP between nodes (default: %(default)s)")
    args = parser.parse_args()
    sizes = sorted(int(size) for size in args.ranks.split(","))
    sys.path.insert(0, str(ROOT))
    import horovod.torch  # noqa: F401  (so that the ranks have it)
    import torch

    import jobs.distributed.horovod_backend
    import jobs.distributed.torch_backend  # noqa: F401

    torch.set_num_threads(1)
    # a rank holds a connection to each other one
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = {}
    check_ports(max(sizes), args.backend.split(","))
    for backend in args.backend.split(","):
        print(f"{backend}: {'ranks':>6} " + " ".join(f"{name:>12}" for name in FIGURES), flush=True)
        rows = []
        for size in sizes:
            rows.append(measure(backend, size, args.agreements))
            print(
                f"{'':{len(backend) + 1}} {size:6} " + " ".join(f"{rows[-1][name]:12.4f}" for name in FIGURES),
                flush=True,
            )
        found[backend] = {"rows": rows, f"at_{args.to}": extrapolated(rows, args.to, args.hop)}
        for name, value in found[backend][f"at_{args.to}"].items():
            print(f"  {args.to} ranks, {name}: {value:.3f}")
    print(json.dumps(found))


def check_ports(ranks: int, backends: list[str]) -> None:
    """Raises SystemExit for more ranks than an address has ports for: Gloo would abort in the middle."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split())
    most = int(((last - first + 1) / PORTS_A_PAIR * 2) ** 0.5)
    if "horovod" in backends and ranks > most:
        raise SystemExit(f"{ranks} ranks with Horovod: the ports of this machine's address are enough for {most}")


def extrapolated(rows: list[dict], ranks: int, hop: float) -> dict[str, float]:
    """See above; ms and s."""
    start = max(fitted(rows, "root_cpu_s", ranks, 2), fitted(rows, "rank_cpu_s", ranks, 2))
    agree = fitted(rows, "agree_cpu_ms", ranks, 1) + 2e3 * (ranks - 1) * hop
    return {"start_s": round(start, 3), "agree_ms": round(agree, 3)}


def fitted(rows: list[dict], name: str, ranks: int, degree: int) -> float:
    """At so many ranks, of a polynomial through the rows; of a lower degree where its lead would be negative."""
    sizes, values = [row["ranks"] for row in rows], [row[name] for row in rows]
    for power in range(min(degree, len(rows) - 1), 0, -1):
        polynomial = np.polyfit(sizes, values, power)
        if polynomial[0] >= 0:
            return float(np.polyval(polynomial, ranks))
    return max(values)


def measure(backend: str, size: int, agreements: int) -> dict:
    """One size: forks its ranks, waits for them. Raises SystemExit where one fails."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        began = time.monotonic()
        for rank in range(size):
            child = os.fork()
            if child == 0:
                code = 70
                try:
                    be_rank(Path(folder), backend, rank, size, agreements, began)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            children.append(child)
        codes: dict[int, int] = {}
        while len(codes) < size and not any(codes.values()):
            child, status = os.wait()
            codes[children.index(child)] = os.waitstatus_to_exitcode(status)
        if any(codes.values()):
            for rank in set(range(size)) - codes.keys():  # the others would wait for it until their time is up
                os.kill(children[rank], signal.SIGKILL)
            raise SystemExit(f"{backend}, {size} ranks: one failed, exit status by rank {codes}")
        said = [json.loads((Path(folder) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(size)]
    row = {name: max(one[name] for one in said) for name in ("met_s", "joined_s", "agree_ms")}
    row |= {"root_cpu_s": said[0]["cpu_s"], "rank_cpu_s": float(np.mean([one["cpu_s"] for one in said]))}
    row["agree_cpu_ms"] = float(np.mean([one["agree_cpu_ms"] for one in said]))
    return {"ranks": size} | {name: round(value, 4) for name, value in row.items()}


def be_rank(folder: Path, backend: str, rank: int, size: int, agreements: int, began: float) -> None:
    from jobs.distributed import process_group

    nodes = -(-size // PER_NODE)
    last = size - PER_NODE * (nodes - 1)
    numbers = {"JOB_ID": 1, "STEP_ID": 0, "PROCID": rank, "NODEID": rank // PER_NODE, "LOCALID": rank % PER_NODE}
    numbers |= {"STEP_NUM_TASKS": size, "STEP_LAUNCHER_PORT": os.getppid(), "STEP_NODELIST": f"n[1-{nodes}]"}
    layout = f"{PER_NODE}(x{nodes - 1})," if nodes > 1 else ""
    numbers["STEP_TASKS_PER_NODE"] = f"{layout}{last}"
    os.environ |= {f"SLURM_{name}": str(value) for name, value in numbers.items()}
    os.environ |= {"HTR_IFACE": "lo", "HTR_START_TIMEOUT": "300", "HTR_PEER_TIMEOUT": "300"}
    said, meet = {}, process_group.rendezvous_of_ranks

    def timed(*told):
        found = meet(*told)
        said["met_s"] = time.monotonic() - began
        return found

    process_group.rendezvous_of_ranks = timed
    busy = time.process_time()
    with process_group.start(folder, "cpu", backend=backend) as world:
        said |= {"joined_s": time.monotonic() - began, "cpu_s": time.process_time() - busy}
        world.barrier()
        busy, since = time.process_time(), time.monotonic()
        for _ in range(agreements):
            world.ask({"stop": 0.0, "limit": 0.0})()
        said |= {"agree_ms": 1e3 * (time.monotonic() - since) / agreements}
        said["agree_cpu_ms"] = 1e3 * (time.process_time() - busy) / agreements
        world.barrier()
    (folder / f"{rank}.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
