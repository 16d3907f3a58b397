"""Training metrics over all ranks: loss, lines a second, memory, and shares of the time."""

import statistics
import time
from pathlib import Path

import torch

SHARES = ("data", "exchange", "compute", "step")  # of the time that passed
PARTS = ("compute", "exchange")  # of a step; the rest is the host's


SLOW = 1.3  # of the median of the ranks' own time
STAYS = 3  # log lines in a row


class SlowRank:
    """Whether one rank makes the others wait, log line after log line: a throttled GPU, a node that others use too."""

    def __init__(self) -> None:
        self.rank, self.lines = -1, 0

    def look(self, own: list[float], hosts: list[str]) -> str:
        """`own`: time of each rank in which it waited for no other. What to say now; mostly nothing."""
        slowest, median = own.index(max(own)), statistics.median_low(own)
        times = own[slowest] / median if median > 0 else 1.0
        self.lines = (self.lines + 1 if slowest == self.rank else 1) if times > SLOW else 0
        self.rank = slowest
        if self.lines != STAYS:
            return ""
        return (
            f"rank {slowest} on {hosts[slowest]} takes {times:.1f} times as long as the median of ranks, in {STAYS} "
            f"log lines in a row: all wait for it. If that stays, --exclude={hosts[slowest]}"
        )


class StepTimer:
    """Seconds of the parts of steps. On a GPU by events in its stream: the host is done with a part long before."""

    def __init__(self, device: torch.device | None = None):
        self.cuda = device is not None and device.type == "cuda"
        self.seconds = dict.fromkeys((*PARTS, "step"), 0.0)
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.part, self.since, self.began = "", None, None

    def now(self) -> "float | torch.cuda.Event":
        if not self.cuda:
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, part: str) -> None:
        """What follows is this part; "" ends the step."""
        now = self.now()
        if self.part in PARTS:
            self.add(self.part, self.since, now)
        if not self.part:
            self.began = now
        if not part:
            self.add("step", self.began, now)
        self.part, self.since = part, now

    def add(self, part: str, since: "float | torch.cuda.Event", now: "float | torch.cuda.Event") -> None:
        if self.cuda:
            self.events.append((part, since, now))
        else:
            self.seconds[part] += now - since

    def total(self) -> dict[str, float]:
        """So far. Waits for the GPU."""
        if self.events:
            self.events[-1][2].synchronize()
            for part, since, now in self.events:
                self.seconds[part] += since.elapsed_time(now) / 1e3
            self.events.clear()
        return self.seconds


class MetricsLogger:
    """What a rank did since the last log line."""

    def __init__(self, device: torch.device | None = None):
        """`device`: that computes the steps; None: a CPU."""
        self.device = device
        self.slow, self.slow_rank = SlowRank(), ""  # what the last `collect` has to say of it
        self.restart()

    def restart(self) -> None:
        self.began = time.monotonic()
        self.loss, self.unfit = 0.0, 0
        self.sums = dict.fromkeys(("lines", "unfit", "pixels", "ink"), 0)
        self.waited = 0.0  # seconds for data
        self.timer = StepTimer(self.device)
        self.skipped, self.steps, self.norms = 0, 0, []

    def waiting(self, stream):
        """The stream's batches, with the time that passed until each was there."""
        iterator = iter(stream)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            self.steps += 1
            yield batch

    def add(self, batch, loss, unfit) -> None:
        """`loss`, `unfit`: tensors of one number, which stay on their device until `collect`."""
        self.loss = self.loss + loss.double()
        self.unfit = self.unfit + unfit
        self.sums["lines"] += len(batch.texts)
        self.sums["pixels"] += batch.images.numel()
        self.sums["ink"] += int(batch.widths.numpy().sum()) * batch.images.shape[2]

    def mark(self) -> tuple:
        """For `undo`: what was added since a step's begin, where the step begins anew."""
        return self.loss, self.unfit, dict(self.sums)

    def undo(self, mark: tuple) -> None:
        self.loss, self.unfit, self.sums = mark[0], mark[1], dict(mark[2])

    def collect(self, world) -> dict[str, float]:
        """Over all ranks and steps since the last call, by one exchange.

        loss: nats a character; unfit: lines too dense for CTC; *_share: of the time, the mean of the ranks;
        lines_per_s_rank: the mean of the ranks; memory_gib and, with GPUs, gpu_memory_gib: the largest rank's peak
        since it started. Ranks wait for each other at every step, so that all seem equally fast: slowest_rank is the
        one with the most time of its own, in which it did not wait for others; slowest_excess says how far above the
        mean that is (0.1: 10 %).
        """
        passed = time.monotonic() - self.began
        shares = {name: spent / passed for name, spent in {"data": self.waited, **self.timer.total()}.items()}
        self.sums["unfit"] = int(self.unfit)
        norm = float(torch.stack(self.norms).double().mean()) if self.norms else 0.0
        mine = {"host": world.place.host, "loss": float(self.loss), **self.sums, **shares, **memory(world.device)}
        ranks = world.gather(mine)
        total = {name: sum(rank[name] for rank in ranks) for name in ("loss", *self.sums, *SHARES)}
        own = [rank["data"] + rank["step"] - rank["exchange"] for rank in ranks]
        mean = sum(own) / world.size
        self.slow_rank = self.slow.look(own, [rank["host"] for rank in ranks])
        metrics = {
            "loss": total["loss"] / max(self.steps, 1),
            "lines_per_s": total["lines"] / passed,
            "lines_per_s_rank": total["lines"] / passed / world.size,
            "gradient_norm": norm,
            "padding": 1 - total["ink"] / max(total["pixels"], 1),
            "unfit": total["unfit"],
            "skipped_steps": self.skipped,
            "slowest_rank": own.index(max(own)),
            "slowest_excess": max(own) / mean - 1 if mean else 0.0,
        }
        metrics |= {f"{name}_share": total[name] / world.size for name in SHARES}
        metrics |= {name: max(rank[name] for rank in ranks) for name in ranks[0] if name.endswith("memory_gib")}
        self.restart()
        return metrics


def memory(device) -> dict[str, float]:
    """The most that this process has had at once, in GiB (getrusage tells its parent's peak where that is higher)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    [peak] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]  # KiB
    found = {"memory_gib": peak / 2**20}
    if device.type == "cuda":
        found["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found
