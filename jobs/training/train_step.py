"""One training step: learning rate schedule, mixed precision, averaged weights (EMA), losses that are not finite."""

import hashlib
import math
import time
from dataclasses import replace
from itertools import accumulate

import torch
from torch.optim.swa_utils import AveragedModel

from htr.certificate import log_name
from jobs.cli.console import log
from shards.loader import few_widths

MAX_NAMED_SAMPLES = 50  # samples without a finite loss that a rank names
MAX_STEPS_NOT_FINITE = 5  # steps without a finite gradient that end a run
MAX_STEPS_NOT_FINITE_FP16 = 20  # with fp16, whose scaler finds its scale by such steps


def learning_rate(step: int, lr: float, warmup: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """What torch's random numbers of a step begin with: 64 bits, other ones for each seed, step and rank.

    Where the three don't fit side by side, a digest of them.
    """
    if seed < 1 << 24 and step < 1 << 28 and rank < 1 << 12:
        return (seed << 40) + (step << 12) + rank
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def scaled_learning_rate(lr: float, ratio: float, rule: str) -> float:
    """The peak rate of batches `ratio` times as large as those that `lr` is meant for.

    linear: Goyal et al. 2017, "Accurate, Large Minibatch SGD"; sqrt: Krizhevsky 2014, "One weird trick".
    """
    return lr * {"none": 1.0, "sqrt": math.sqrt(ratio), "linear": ratio}[rule]


def averaged(model: torch.nn.Module, decay: float) -> AveragedModel:
    """The model's weights averaged over the last 1 / (1 - decay) steps or so; over fewer at first.

    With a decay of 0 they are the model's own.
    """

    def move(averages: list, current: list, steps: torch.Tensor | int) -> None:
        n = int(steps)
        torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=move)


class TrainStep:
    """Forward, backward, allreduce of the gradients and optimizer step; all ranks end with the same weights."""

    def __init__(
        self, model, optimizer, scaler, mixed, encode, world, clip: float, logger, passes: int = 1, compression="none"
    ):
        """`encode`: a text to its accepted texts, as labels; `mixed`: see jobs.distributed.precision.

        `passes`: a batch is computed in so many parts, whose gradients are accumulated.
        """
        self.model, self.optimizer, self.scaler, self.mixed = model, optimizer, scaler, mixed
        self.encode, self.world, self.clip, self.logger, self.passes = encode, world, clip, logger, passes
        self.wait = world.sum_gradients(model.parameters(), compression, passes)
        self.named: set[str] = set()
        self.in_a_row = 0
        self.computed: list[tuple[torch.Tensor, torch.Tensor, list[str]]] = []  # of this step's parts

    def step(self, batch, step: int) -> None:
        """Losses of the local lines over the characters of the global batch, summed over all ranks.

        Raises ValueError when the gradients of some steps in a row, this one the last, are not finite.
        """
        began = time.monotonic()
        world, scaler, optimizer = self.world, self.scaler, self.optimizer
        optimizer.zero_grad()
        for part in parts_of(batch, self.passes):
            try:
                loss = self.loss(part, max(batch.characters, 1))
                backward = time.monotonic()
                with world.guard("backward"):
                    scaler.scale(loss).backward()
            except torch.OutOfMemoryError:
                lines, _, _, wide = part.images.shape
                raise ValueError(
                    f"step {step}: {lines} lines of {wide} px at once are too many for the GPU's memory: give "
                    f"--micro-batch {max(lines // 2, 1)} (fewer at once, the same training) or a smaller --size"
                ) from None
            self.logger.seconds["compute"] += time.monotonic() - backward
        waited = time.monotonic()
        self.wait()
        self.logger.seconds["exchange"] += time.monotonic() - waited
        update = time.monotonic()
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
        # the gradients are the same on every rank now, and so is what is decided from them
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        finite = self.fetch(norm)
        if scaler.is_enabled():
            scaler.step(optimizer)
            scaler.update()
        elif finite:
            optimizer.step()
        self.logger.seconds["compute"] += time.monotonic() - update
        self.logger.skipped += not finite
        self.logger.norms.append(norm.detach())
        self.logger.seconds["step"] += time.monotonic() - began
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= (MAX_STEPS_NOT_FINITE_FP16 if scaler.is_enabled() else MAX_STEPS_NOT_FINITE):
            raise ValueError(
                f"step {step}: no finite gradient in the last {self.in_a_row} steps: lower --lr or --clip, or look at "
                f"the samples that the log names"
            )

    def loss(self, batch, characters: int) -> torch.Tensor:
        """The sum of its texts' losses over so many characters; what is not finite is counted and left out."""
        if not batch.texts:  # fewer texts than ranks or parts: only the sum of gradients is taken part in
            return 0.0 * sum(parameter.sum() for parameter in self.model.parameters())
        device = self.world.device
        images = batch.images
        if device.type != "cpu" and not images.is_pinned():
            images = images.pin_memory()
        images = images.to(device, non_blocking=True).float() / 255
        targets = [self.encode(text) for text in batch.texts]
        forward = time.monotonic()
        with self.mixed():
            losses = self.model.losses(images, batch.widths, targets, batch.parts)
        fits = losses.isfinite()
        loss = torch.where(fits, losses, 0.0).sum() / characters
        unfit = (~fits).sum()
        self.logger.add(batch, loss.detach(), unfit)
        self.logger.seconds["compute"] += time.monotonic() - forward
        self.computed.append((unfit, losses.detach(), batch.keys))
        return loss

    def fetch(self, norm: torch.Tensor) -> bool:
        """Whether the gradients are finite; names samples without a finite loss. The one wait for the device a step:
        whatever else is known of a step stays there until the log asks for it.
        """
        unfit = torch.stack([unfit for unfit, _, _ in self.computed]).sum() if self.computed else torch.zeros(())
        finite, some = torch.stack([norm.isfinite(), unfit.to(norm.device) > 0]).tolist()
        if some:
            for _, losses, keys in self.computed:
                self.name(losses.cpu(), keys)
        self.computed.clear()
        return finite

    def name(self, losses: torch.Tensor, keys: list[str]) -> None:
        """Say once which samples have no finite loss: `too long` for their frames, or `not a number`."""
        for loss, key in zip(losses.tolist(), keys, strict=True):
            if not math.isfinite(loss) and key not in self.named and len(self.named) < MAX_NAMED_SAMPLES:
                self.named.add(key)
                why = "its text is too long for it" if loss == math.inf else "its loss is not a number"
                log(f"train: {log_name(key)} teaches nothing: {why}")


def parts_of(batch, passes: int) -> list:
    """The batch cut into so many, some of them empty where it has fewer texts, none wider than its own lines need."""
    if passes == 1:
        return [batch]
    counts = batch.parts or [1] * len(batch.texts)
    first = [0, *accumulate(counts)]  # line of each text
    found = []
    for part in range(passes):
        start, end = (len(counts) * edge // passes for edge in (part, part + 1))
        lines = slice(first[start], first[end])
        widths = batch.widths[lines]
        wide = min(few_widths(int(widths.max())), batch.images.shape[3]) if len(widths) else 0
        cut = {"images": batch.images[lines, :, :, :wide], "widths": widths, "keys": batch.keys[start:end]}
        cut |= {"texts": batch.texts[start:end], "parts": batch.parts and batch.parts[start:end]}
        found.append(replace(batch, rows=batch.rows[start:end], **cut))
    return found
