"""Two ranks beside one, and Horovod or torch.distributed beside torch's DDP, on the same model and batches.

    python benchmarks/scaling.py [--backend torch] [--size small] [--batch 16] [--steps 40] [--rounds 5] [--cores 0,1]
    eval "$(tests/slurm/cluster.sh env)"; python benchmarks/scaling.py --nodes        each rank on a node of its own

Training steps of the CTC reader as `train` takes them (Muon, bf16 where the CPU has it, clipping), on batches made
beforehand: random pixels and texts, widths as real lines have them, the same for every rank. A round is, one after the
other, each as processes of their own with one thread, pinned to one core each:

one   one rank                          two   two ranks, the backend through jobs/distributed/process_group.py
ddp   two ranks, torch's DistributedDataParallel over gloo
apart with --apart: two processes as `one` at the same time, which exchange nothing: what two cores of the machine that
      share its memory have to give

Ratios are taken within a round; what is printed is their median over the rounds. With --timeline Horovod's own is taken
in a run that does not count (its writer takes CPU time): the share of the time of the sums of gradients in which
backward still ran. A table, then one line of JSON: efficiency_2 is lines/s of two ranks over twice those of one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

KINDS = {"one": 1, "two": 2, "ddp": 2, "apart": 2}  # ranks
LABELS = 100
HEIGHT, MEDIAN, SPREAD = 48, 700, 0.35  # px of a line; its width is log-normal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--backend", choices=["horovod", "torch"], default="horovod", help="what sums gradients (default: %(default)s)")
    add("--size", default="small", help="of the CTC reader (default: %(default)s)")
    add("--batch", type=int, default=16, help="lines of a rank (default: %(default)s)")
    add("--steps", type=int, default=40, help="that are timed (default: %(default)s)")
    add("--warm-up", type=int, default=8, help="steps before, over all the widths (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")
    add("--cores", help="one a rank: 0,1 (default: the first two that this process may use)")
    add("--apart", action="store_true", help="also two ranks that exchange nothing")
    add("--nodes", action="store_true", help="one rank a node of the Slurm cluster, in place of ranks side by side")
    add("--timeline", type=Path, metavar="FILE", help="Horovod's timeline of two ranks, and what overlapped in it")
    args = parser.parse_args()
    if args.timeline and args.backend != "horovod":
        parser.error("--timeline is Horovod's own")
    cores = [int(core) for core in args.cores.split(",")] if args.cores else sorted(os.sched_getaffinity(0))[:2]
    if args.apart and args.nodes:
        parser.error("--apart is for ranks side by side")
    kinds = [kind for kind in KINDS if kind != "apart" or args.apart]
    if len(set(cores)) < 2:
        print(f"core {cores[0]} alone: both ranks run on it, the figures mean nothing", file=sys.stderr)
    asked = {"size": args.size, "batch": args.batch, "steps": args.steps, "warm_up": args.warm_up, "nodes": args.nodes}
    asked["backend"] = args.backend
    rounds = []
    for number in range(args.rounds):
        rounds.append({kind: measure(kind, asked, cores) for kind in kinds})
        speeds = ", ".join(f"{kind} {found['lines_per_s']:.1f}" for kind, found in rounds[-1].items())
        print(f"round {number + 1}: lines/s {speeds}", file=sys.stderr, flush=True)
        norms = [rounds[-1][kind]["norm"] for kind in ("two", "ddp")]
        if abs(norms[0] / norms[1] - 1) > 0.02:
            raise SystemExit(f"norms of the first gradient, {norms}, differ: this is not the same training")
    overlap = None
    if args.timeline:
        found = measure("two", asked, cores, args.timeline.absolute())
        overlap = overlapped(json.loads(args.timeline.read_text(encoding="utf-8")), found["backward"])
    report(rounds, overlap, args.backend)


def report(rounds: list[dict], overlap: float | None, backend: str) -> None:
    def middle(kind: str, name: str) -> float:
        return median(found[kind][name] for found in rounds)

    def ratio(over: str, under: str) -> float:
        return median(found[over]["lines_per_s"] / found[under]["lines_per_s"] for found in rounds)

    print(f"{'':5} {'ranks':>5} {'lines/s':>9} {'ms a step':>10} {'of them waiting':>16} {'CPU ms':>9} {'beside':>8}")
    for kind in rounds[0]:
        ranks = KINDS[kind]
        # DDP waits within backward, where it can't be told from it
        waited = "-" if kind == "ddp" else f"{1e3 * middle(kind, 'waited'):.1f}"
        print(
            f"{kind:5} {ranks:5} {middle(kind, 'lines_per_s'):9.1f} {1e3 * middle(kind, 'step'):10.1f} {waited:>16} "
            f"{1e3 * middle(kind, 'own'):9.1f} {1e3 * middle(kind, 'beside'):8.1f}"
        )
    print(f"two: by {backend}")
    figures = {
        "efficiency_2": ratio("two", "one") / 2,
        "ratio_to_ddp": ratio("two", "ddp"),
        "ddp_efficiency_2": ratio("ddp", "one") / 2,
        **({"apart_efficiency_2": ratio("apart", "one") / 2} if "apart" in rounds[0] else {}),
        **{f"{kind}_lines_per_s": middle(kind, "lines_per_s") for kind in rounds[0]},
        "cpu_share_beside": middle("two", "beside") / (middle("two", "own") + middle("two", "beside")),
        "ddp_cpu_share_beside": middle("ddp", "beside") / (middle("ddp", "own") + middle("ddp", "beside")),
        "waited_share": middle("two", "waited") / middle("two", "step"),
        "overlap": overlap,
    }
    rounded = {name: value if value is None else round(value, 4) for name, value in figures.items()}
    print(json.dumps({"backend": backend, **rounded}))


# ---------------------------------------------------------------------------- ranks


def measure(kind: str, asked: dict, cores: list[int], timeline: Path | None = None) -> dict:
    """Start the ranks and wait for them. -> lines/s of all, s a step and waited, of the slowest; the rest of rank 0,
    CPU s of a step among it: `own`, in the thread that takes it, and `beside`.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SUBMITIT"))}
    inherited |= {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    inherited |= {"OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "2048", "HOROVOD_LOG_LEVEL": "fatal"}
    inherited["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    size = KINDS[kind]
    if timeline:
        inherited["HOROVOD_TIMELINE"] = str(timeline)
    with tempfile.TemporaryDirectory() as folder:
        told = asked | {"kind": kind, "ranks": 1 if kind == "apart" else size, "cores": cores, "folder": folder}
        started = []

        def command(**more: int) -> list[str]:
            return [sys.executable, __file__, "--rank", json.dumps(told | more)]

        if asked["nodes"]:
            step = ["srun", "--kill-on-bad-exit=1", f"--nodes={size}", f"--ntasks={size}", "--ntasks-per-node=1"]
            started.append(subprocess.Popen([*step, *command()], env=inherited))
        else:
            for rank in range(size):
                # as submitit starts them on one machine
                number = 0 if kind == "apart" else rank
                local = {"LOCAL_NTASKS": told["ranks"], "LOCAL_GLOBALID": number, "LOCAL_LOCALID": number}
                environ = {f"SUBMITIT_{name}": str(value) for name, value in local.items()}
                environ = inherited | environ | {"SUBMITIT_EXECUTOR": "local"}
                started.append(subprocess.Popen(command(rank=rank), env=environ))
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"{kind}: a rank failed")
        found = [json.loads((Path(folder) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(size)]
    step = max(one["step"] for one in found)
    waited = max(one["waited"] for one in found)
    return found[0] | {"step": step, "waited": waited, "lines_per_s": size * asked["batch"] / step}


def be_rank(asked: SimpleNamespace) -> None:
    rank = int(os.environ["SLURM_PROCID"]) if asked.nodes else asked.rank
    os.sched_setaffinity(0, {asked.cores[rank]})  # before torch, so that its threads are there too
    import torch

    from htr.models.registry import create
    from jobs.distributed import process_group
    from jobs.distributed.precision import precision
    from jobs.training import optimizer as optimizers

    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = create("ctc", asked.size, LABELS)
    mixed, _ = precision("auto", torch.device("cpu"))
    batches = made_up(asked.batch, 8)
    optimizer = optimizers.create("muon", model, 2e-3)
    world = None
    if asked.kind == "ddp":
        warnings.filterwarnings("ignore", "Grad strides")  # it says it for 1 x 1 filters, where strides say nothing
        torch.distributed.init_process_group(
            "gloo", f"file://{asked.folder}/meeting", rank=rank, world_size=asked.ranks
        )
        network = torch.nn.parallel.DistributedDataParallel(as_forward(model))
        barrier, scale = torch.distributed.barrier, asked.ranks  # it averages, Horovod sums here
    else:
        world = process_group.start(Path(asked.folder), "cpu", backend=asked.backend)
        world.broadcast_parameters(model)
        wait = world.sum_gradients(model.parameters())
        network, barrier, scale = as_forward(model), world.barrier, 1
        if asked.kind == "apart":
            barrier = partial(both_there, Path(asked.folder), rank)
    first_norm, waited, spans = None, 0.0, []
    for number in range(asked.warm_up + asked.steps):
        if number == asked.warm_up:
            barrier()
            began, waited, spans = time.monotonic(), 0.0, []
            busy = time.thread_time(), time.process_time()
        images, widths, targets, characters = batches[number % len(batches)]
        torch.manual_seed(number)  # of dropout: the same in every kind
        optimizer.zero_grad()
        with mixed():
            loss = network(images, widths, targets).sum() * scale / (characters * asked.ranks)
        backward = time.time()  # as the timeline's start is given
        loss.backward()
        spans.append((backward, time.time()))
        if world:
            now = time.monotonic()
            wait()
            waited += time.monotonic() - now
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        first_norm = norm.item() if first_norm is None else first_norm
        optimizer.step()
    passed = time.monotonic() - began
    own, all_threads = time.thread_time() - busy[0], time.process_time() - busy[1]
    if world:
        world.close()
    else:
        torch.distributed.destroy_process_group()
    said = {"step": passed / asked.steps, "waited": waited / asked.steps, "norm": first_norm, "backward": spans}
    said |= {"own": own / asked.steps, "beside": (all_threads - own) / asked.steps}
    (Path(asked.folder) / f"{rank}.json").write_text(json.dumps(said), encoding="utf-8")


def both_there(folder: Path, rank: int) -> None:
    """Wait for the other of two processes that know nothing of each other."""
    (folder / f"there-{rank}").touch()
    while len(list(folder.glob("there-*"))) < 2:
        time.sleep(1e-3)


def as_forward(model):
    """A module with the model's losses as its `forward`, which DDP hooks into."""
    from torch import nn

    class OfModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *batch):
            return self.model.losses(*batch)

    return OfModel()


def made_up(batch: int, count: int) -> list[tuple]:
    """Batches of `train`'s shapes: images (N, 1, H, W) in [0, 1], widths, accepted texts, characters."""
    import numpy as np
    import torch

    from shards.loader import few_widths

    rng, found = np.random.default_rng(1), []
    # a global batch holds lines of nearly the same width
    all_widths = np.sort(np.clip(MEDIAN * np.exp(SPREAD * rng.standard_normal(batch * count)), 150, 2000).astype(int))
    for widths in np.split(all_widths, count):
        images = np.zeros((batch, 1, HEIGHT, few_widths(int(widths.max()))), np.float32)
        for image, width in zip(images, widths, strict=True):
            image[0, :, :width] = rng.random((HEIGHT, width), np.float32)
        targets = [[rng.integers(1, LABELS, max(int(width) // 16, 1)).tolist()] for width in widths]
        characters = sum(len(target[0]) for target in targets)
        found.append((torch.from_numpy(images), torch.from_numpy(widths), targets, characters))
    return [found[i] for i in rng.permutation(count)]


# ---------------------------------------------------------------------------- the timeline


def overlapped(events: list[dict], backward: list[list[float]]) -> float | None:
    """The share of the time of sums of gradients in which backward ran. None where nothing was summed.

    `backward`: its begins and ends in seconds since 1970, as the timeline names its own start.
    """
    start = next(e["args"]["start_time_since_epoch_in_micros"] for e in events if "start_time" in str(e.get("args")))
    tensors = {e["pid"]: e["args"].get("name", "") for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    spans, open_events = [], {}
    for event in events:
        if event["ph"] not in "BE" or not tensors.get(event["pid"], "").startswith("allreduce.gradients."):
            continue
        stack = open_events.setdefault(event["pid"], [])
        if event["ph"] == "B":
            stack.append(event)
        elif stack and (begun := stack.pop())["name"] == "ALLREDUCE":
            spans.append(((start + begun["ts"]) / 1e6, (start + event["ts"]) / 1e6))
    # the tensors of a fused buffer are summed at once
    joined: list[list[float]] = []
    for begin, end in sorted(span for span in spans if span[0] >= backward[0][0]):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    total = sum(end - begin for begin, end in joined)
    within = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end in joined for first, last in backward)
    return within / total if total else None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        be_rank(SimpleNamespace(**json.loads(sys.argv[2])))
    else:
        main()
