"""What a training tells of itself: loss, lines a second, and where the time went, summed over the ranks."""

import time


class Meter:
    """What a rank did since the last log line."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.began = time.monotonic()
        self.loss = 0.0
        self.sums = dict.fromkeys(("lines", "unfit", "pixels", "ink"), 0)
        self.seconds = dict.fromkeys(("data", "exchange", "compute", "step"), 0.0)
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

    def add(self, batch, loss: float, unfit: int) -> None:
        self.loss += loss
        self.sums["lines"] += len(batch.texts)
        self.sums["unfit"] += unfit
        self.sums["pixels"] += batch.images.numel()
        self.sums["ink"] += int(batch.widths.sum()) * batch.images.shape[2]

    def collect(self, world) -> dict[str, float]:
        """Over all ranks and steps since the last call. Loss in nats a character; unfit: lines too dense for CTC."""
        passed = time.monotonic() - self.began
        shares = {f"{name}_share": seconds / passed / world.size for name, seconds in self.seconds.items()}
        total = world.sum({"loss": self.loss, **self.sums, **shares})
        metrics = {
            "loss": total["loss"] / max(self.steps, 1),
            "lines_per_s": total["lines"] / passed,
            "gradient_norm": sum(self.norms) / max(len(self.norms), 1),
            "padding": 1 - total["ink"] / max(total["pixels"], 1),
            "unfit": total["unfit"],
            "skipped_steps": self.skipped,
        } | {name: total[name] for name in shares}
        self.restart()
        return metrics
