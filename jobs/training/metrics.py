"""Training metrics over all ranks: loss, lines a second, memory, and shares of the time."""

import time
from pathlib import Path

import torch

SHARES = ("data", "exchange", "compute", "step")  # of the time that passed


class MetricsLogger:
    """What a rank did since the last log line."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.began = time.monotonic()
        self.loss, self.unfit = 0.0, 0
        self.sums = dict.fromkeys(("lines", "unfit", "pixels", "ink"), 0)
        self.seconds = dict.fromkeys(SHARES, 0.0)
        self.skipped, self.steps, self.norms = 0, 0, []

    def waiting(self, stream):
        """The stream's batches, with the time that passed until each was there."""
        iterator = iter(stream)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            self.seconds["data"] += time.monotonic() - began
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

    def collect(self, world) -> dict[str, float]:
        """Over all ranks and steps since the last call, by one exchange.

        loss: nats a character; unfit: lines too dense for CTC; *_share: of the time, the mean of the ranks;
        lines_per_s_rank: the mean of the ranks; memory_gib and, with GPUs, gpu_memory_gib: the largest rank's peak
        since it started. Ranks wait for each other at every step, so that all seem equally fast: slowest_rank is the
        one with the most time of its own, in which it did not wait for others; slowest_excess says how far above the
        mean that is (0.1: 10 %).
        """
        passed = time.monotonic() - self.began
        shares = {name: self.seconds[name] / passed for name in SHARES}
        self.sums["unfit"] = int(self.unfit)
        norm = float(torch.stack(self.norms).double().mean()) if self.norms else 0.0
        ranks = world.gather({"loss": float(self.loss), **self.sums, **shares, **memory(world.device)})
        total = {name: sum(rank[name] for rank in ranks) for name in ("loss", *self.sums, *SHARES)}
        own = [rank["data"] + rank["step"] - rank["exchange"] for rank in ranks]
        mean = sum(own) / world.size
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
