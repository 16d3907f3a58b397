"""A cost model of a training step on many GPUs: how its efficiency falls with their number, and what limits it.

A step of N ranks, with the same batch for each rank, takes

    compute * wider * (1 + jitter * m(N))       the slowest rank; m is the expected largest of N standard normals
    + other + tensors * per_tensor              what a rank does besides
    + the part of the sum of gradients, and of Horovod's agreement on it, that backward does not hide
    and at least the time of reading its lines from the shared file system.

The sum of the gradients of a bucket is one of two. Ring: 2 (N - 1) / N of its bytes over the slowest link, the least
that any allreduce can move, and 2 (N - 1) latencies (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms
for clusters of workstations"). Hierarchical: a reduce-scatter within each node, rings across the nodes that share its
link, and an allgather within each node (costs after Thakur, Rabenseifner and Gropp 2005, "Optimization of collective
communication operations in MPICH"). NCCL chooses its algorithm by itself, for small messages also trees. Horovod's own
hierarchical mode (HOROVOD_HIERARCHICAL_ALLREDUCE) needs MPI.

The agreement: in each cycle Horovod's ranks agree which buckets are ready, by a small Gloo allreduce over TCP, also a
ring: 2 (N - 1) hops for any number of bytes. torch.distributed has a fixed order of buckets and needs no agreement.
With both, the ranks sum one flag a step, to agree when to stop, while they compute.
"""

import math
from collections.abc import Iterable
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from statistics import NormalDist

from jobs.scaling.results import figures as figures_of_run
from jobs.training.config import read_run
from jobs.training.run_lock import read_json

SIZES = (8, 16, 32, 64, 128, 256, 512)
MAX_RANKS = 4096  # largest number of ranks that `end_of` tries


def figure(unit: str, source: str, **default: float) -> Field:
    """A field of `Figures`, with its unit and where its default comes from."""
    return field(metadata={"unit": unit, "source": source}, **default)


@dataclass(frozen=True)
class Figures:
    """All assumptions of the model, each with its unit and the source of its default."""

    compute: float = figure("s", "forward, backward and update of a rank's step: to be measured, has no default")
    gradients: float = figure("bytes", "4 a parameter, 2 with --compression: of a run, has no default")
    buckets: float = figure(
        "buckets", "that gradients are summed in (jobs/distributed/gradient_buckets.py); a run's", default=3
    )
    tensors: float = figure("tensors", "parameters of the model, each with a gradient; a run's", default=100)
    lines: float = figure("lines", "of a rank a step", default=32)
    other: float = figure("s", "of a step beside computing and exchange, waiting for data too; a run's", default=0.0)
    backward: float = figure("of compute", "two matrix products for each one of forward", default=2 / 3)
    tail: float = figure("of gradients", "in the bucket that backward fills last; a run's", default=0.1)
    ranks_per_node: int = figure("ranks", "GPUs of a usual node", default=4)
    inside: float = figure("bytes/s", "a ring within a node; assumed: NVLink, half of 200 GB/s", default=100e9)
    inside_latency: float = figure("s", "a hop within a node; assumed", default=5e-6)
    across: float = figure("bytes/s", "a node to the others; assumed: 80 % of 100 Gb/s", default=10e9)
    across_latency: float = figure("s", "a hop between nodes, NCCL; assumed", default=15e-6)
    cycle: float = figure("s", "HOROVOD_CYCLE_TIME, Horovod's default", default=1e-3)
    agreements: float = figure("a bucket", "Horovod's ranks agree on each; 0 with --backend torch", default=1.0)
    hop: float = figure("s", "a small message of Gloo over TCP; assumed: half a ping", default=30e-6)
    per_tensor: float = figure("s", "hook of a gradient and its copy into a bucket; on one CPU core", default=11e-6)
    jitter: float = figure("of compute", "standard deviation of equal steps on equal ranks; assumed", default=0.02)
    line_bytes: float = figure("bytes", "of a line in a shard; assumed: gray JPEG of 200 dpi", default=20e3)
    storage: float = figure("bytes/s", "all nodes reading shards at once; assumed", default=5e9)

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            above = name in ("compute", "gradients", "lines", "ranks_per_node", "inside", "across", "storage")
            if not math.isfinite(value) or value < 0 or (above and value == 0):
                raise ValueError(f"{name} {value:g}: a figure of the model is {'more than' if above else 'at least'} 0")
        for name in ("backward", "tail"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} {getattr(self, name):g}: it is a share, at most 1")


@dataclass(frozen=True)
class Step:
    """A predicted step. `lost`: by cause, the seconds beyond a step of one rank."""

    ranks: int
    seconds: float
    lines_per_s: float
    efficiency: float  # lines/s a rank over those of one rank
    allreduce: float  # s of the sum of gradients, hidden by backward or not
    lost: dict[str, float]

    @property
    def limit(self) -> str:
        """The cause of the largest loss."""
        return max(self.lost, key=self.lost.__getitem__) if any(self.lost.values()) else "nothing"


def ring(f: Figures, ranks: int, size: float) -> float:
    """Seconds of an allreduce of `size` bytes in one ring, which is as slow as its slowest link."""
    one_node = ranks <= f.ranks_per_node
    bandwidth = f.inside if one_node else min(f.inside, f.across)
    latency = f.inside_latency if one_node else max(f.inside_latency, f.across_latency)
    return 2 * (ranks - 1) / ranks * size / bandwidth + 2 * (ranks - 1) * latency


def hierarchical(f: Figures, ranks: int, size: float) -> float:
    """Seconds of an allreduce of `size` bytes within the nodes, across them, and within them again."""
    local = min(ranks, f.ranks_per_node)
    nodes = -(-ranks // f.ranks_per_node)
    within = 2 * (local - 1) / local * size / f.inside + 2 * (local - 1) * f.inside_latency
    # each of the `local` rings has the same share of the gradients and of the node's link
    return within + 2 * (nodes - 1) / nodes * size / f.across + 2 * (nodes - 1) * f.across_latency


ALLREDUCE = {"ring": ring, "hierarchical": hierarchical}


def slowest(ranks: int) -> float:
    """The expected largest of `ranks` standard normal numbers (Blom 1958)."""
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))


def predict(f: Figures, ranks: int, algorithm: str = "ring", wider: dict[int, float] | None = None) -> Step:
    """The step of `ranks` ranks.

    `algorithm`: one of ALLREDUCE. `wider`: padded px of a line, by ranks (see `padding`).
    """
    alone = f.compute + f.other
    if ranks == 1:
        return Step(1, alone, f.lines / alone, 1.0, 0.0, {})
    padded = f.compute * (between(wider, ranks) / between(wider, 1) - 1) if wider else 0.0
    waited = (f.compute + padded) * f.jitter * slowest(ranks)
    allreduce, talk = ALLREDUCE[algorithm], 2 * (ranks - 1) * f.hop
    late = allreduce(f, ranks, f.tail * f.gradients)  # the bucket that backward fills last
    early = allreduce(f, ranks, (1 - f.tail) * f.gradients) + (f.buckets - 2) * allreduce(f, ranks, 0)  # the others
    to_hide, covered = early + f.agreements * f.buckets * talk, f.backward * (f.compute + padded)
    over = max(0.0, to_hide - covered) / to_hide if to_hide else 0.0
    lost = {
        "padding to wider lines": padded,
        "the slowest rank": waited,
        "the sum of gradients": late + over * early,
        # that on the last bucket is not hidden
        "the ranks' agreement": f.agreements * ((1 + over * f.buckets) * talk + f.cycle / 2)
        + max(0.0, talk - f.compute - padded),
        "hooks of gradients": f.tensors * f.per_tensor,
    }
    seconds = alone + sum(lost.values())
    lost["reading"] = max(0.0, ranks * f.lines * f.line_bytes / f.storage - seconds)
    seconds += lost["reading"]
    return Step(ranks, seconds, ranks * f.lines / seconds, alone / seconds, late + early, lost)


def end_of(
    f: Figures, share: float = 0.9, algorithm: str = "ring", wider: dict[int, float] | None = None
) -> tuple[Step, Step | None]:
    """-> the step of the last size with an efficiency of `share` or more; that of the next size, None over MAX_RANKS.

    Sizes are 1 to a whole node, then whole nodes.
    """
    last = predict(f, 1)
    for ranks in [*range(2, f.ranks_per_node + 1), *range(2 * f.ranks_per_node, MAX_RANKS + 1, f.ranks_per_node)]:
        step = predict(f, ranks, algorithm, wider)
        if step.efficiency < share:
            return last, step
        last = step
    return last, None


def between(known: dict[int, float], ranks: int) -> float:
    """The value at this number of ranks, interpolated over their logarithm; outside, that of the nearest known one."""
    import numpy as np

    sizes = sorted(known)
    return float(np.interp(math.log(ranks), [math.log(size) for size in sizes], [known[size] for size in sizes]))


# --- from what was asked and measured


def given(pairs: Iterable[str]) -> dict[str, float]:
    """["across=2e9"] -> {"across": 2e9}. Raises ValueError for a name that is no figure, and for no number."""
    names, found = [each.name for each in fields(Figures)], {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in names:
            raise ValueError(f"--figure {pair}: no such figure, there are {', '.join(names)}")
        try:
            found[name] = int(number) if name == "ranks_per_node" else float(number)
        except ValueError:
            raise ValueError(f"--figure {pair}: write it as NAME=NUMBER") from None
    return found


def measured(run: Path, texts: int | None = None) -> tuple[dict[str, float], dict[int, float], list[str]]:
    """-> figures of a run, by name; `wider` of its data set (see `predict`); what is not known, in words.

    `texts`: as if the data set had this number of such lines. Raises ValueError for a folder without a run's log lines.
    """
    import torch

    from htr.models.registry import create, encoder_config
    from jobs.distributed.gradient_buckets import parted

    config, found = read_run(run), figures_of_run(run)
    status = read_json(run / "status.json")
    if config is None or found is None or status is None:
        raise ValueError(f"{run}: no run with log lines in its metrics.jsonl: give the folder of a training")
    world = status["world"]
    seconds = config["batch"] / found["lines_per_s"]
    beside = 1 - found["compute_share"] - found["exchange_share"]
    geometry = {name: config[name] for name in ("height", "recurrent_stride") if name in config}
    model = create(
        config["model"], encoder_config(config["model"], config["size"], **geometry), len(config["alphabet"])
    )
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buckets = parted(weights)
    values = {
        "compute": found["compute_share"] * seconds,
        "other": max(beside, 0.0) * seconds,
        "lines": config["batch"] / world,
        "gradients": (4 if config.get("compression", "none") == "none" else 2) * sum(map(torch.numel, weights)),
        "buckets": len(buckets),
        "tail": sum(map(torch.numel, buckets[0])) / sum(map(torch.numel, weights)),
        "tensors": len(weights),
    }
    batch, height = max(config["batch"] // world, 1), model.geometry.height
    try:
        line_bytes, wider = padding(Path(config["folder"]), config["split"], batch, height, texts)
    except (OSError, ValueError):
        return values, {}, [f"its data set {config['folder']} is not here: bytes of a line and padding are not known"]
    return values | {"line_bytes": line_bytes}, wider, []


def padding(
    dataset: Path, split: str, batch: int, height: int, texts: int | None = None
) -> tuple[float, dict[int, float]]:
    """-> bytes of a line in its shard; padded px of a line, by number of ranks, with `batch` lines of `height` px a
    rank.

    A step takes as long as its rank with the most pixels. With more ranks a global batch has more lines, and the lines
    of a data set are sorted by width into fewer batches. `texts`: as if the data set had this number of lines, of the
    same widths.
    """
    import numpy as np

    from shards.index import read_index
    from shards.loader import Samples, few_widths
    from shards.sampler import WINDOW, EpochSampler, Weight, share

    index = read_index(dataset)
    shards = [shard for shard in index.shards if shard["split"] == split]
    known = Samples(index.folder, index.samples(split)).widths(height)
    wider = {}
    for ranks in (1, *SIZES):
        if ranks > 1 and ranks * batch > (texts or len(known)):
            break  # a data set with fewer lines than a batch can't show such sizes
        # the batches of two windows represent all of them
        drawn = min(texts or 0, 2 * WINDOW * batch * ranks)
        widths = np.random.default_rng(1).choice(known, drawn) if texts else known
        epochs = EpochSampler([len(widths)], widths, [Weight()], batch * ranks, 1)
        plan = epochs.plan(epochs.epochs[0], 1)
        slowest = 0
        for rows in plan:
            parts = [part for part in (share(rows, rank, ranks) for rank in range(ranks)) if len(part)]
            slowest += max(len(part) * few_widths(int(widths[part].max())) for part in parts)
        wider[ranks] = float(ranks * slowest / len(widths))
    return sum(shard["bytes"] for shard in shards) / sum(shard["count"] for shard in shards), wider


# --- the table


def report(f: Figures, given: Iterable[str], wider: dict[int, float], share: float = 0.9) -> str:
    """A text: steps of 8 to 512 ranks, where and why the efficiency falls below `share`, and every assumption.

    `given`: names of the figures that are no defaults.
    """
    heads = f"{'allreduce ms':>22} {'step ms':>18} {'lines/s':>20} {'efficiency':>20}"
    lines = [f"{'ranks':>5} {'nodes':>5} {heads}  limit"]
    lines.append(f"{'':11} " + " ".join(f"{'ring':>{width}} {'hierarch.':>11}" for width in (10, 6, 8, 8)))
    for ranks in SIZES:
        one, two = (predict(f, ranks, algorithm, wider) for algorithm in ALLREDUCE)
        lines.append(
            f"{ranks:5} {-(-ranks // f.ranks_per_node):5}  {1e3 * one.allreduce:10.2f} {1e3 * two.allreduce:11.2f} "
            f"{1e3 * one.seconds:6.1f} {1e3 * two.seconds:11.1f} {one.lines_per_s:8.0f} {two.lines_per_s:11.0f} "
            f"{one.efficiency:8.3f} {two.efficiency:11.3f}  {one.limit}"
        )
    for algorithm in ALLREDUCE:
        last, after = end_of(f, share, algorithm, wider)
        end = f"ends after {last.ranks} ranks, by {after.limit}" if after else f"still holds at {last.ranks} ranks"
        lines.append(f"{algorithm}: {share:.0%} efficiency {end}")
    most = f.storage / f.line_bytes
    lines += [f"the file system can deliver {most:,.0f} lines/s", "", "assumptions:"]
    for each in fields(f):
        source = "given or measured" if each.name in set(given) else each.metadata["source"]
        lines.append(f"  {each.name:15} {getattr(f, each.name):12.6g} {each.metadata['unit']:13} {source}")
    if wider:
        lines.append("  padded px of a line, by ranks: " + ", ".join(f"{n} {px:.0f}" for n, px in wider.items()))
    return "\n".join(lines) + "\n"
