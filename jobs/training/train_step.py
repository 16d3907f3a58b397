"""One training step: learning rate schedule, mixed precision, averaged weights (EMA), losses that are not finite."""

import hashlib
import math
from dataclasses import dataclass, replace
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


@dataclass
class Outcome:
    """Of a step that the device may still be at."""

    step: int
    flags: torch.Tensor  # on the CPU: whether the gradients are finite, whether some loss is not
    there: "torch.cuda.Event | None"  # when the flags have their values
    computed: list[tuple[torch.Tensor, torch.Tensor, list[str]]]  # of its parts: unfit, losses, keys


class TrainStep:
    """Takes the steps of a training; every rank its own, with the same result.

    Whether a step's gradients are finite is decided on the device, which then leaves all as it was. The host learns of
    it when it has begun the next step, and so waits for nothing that the device is not done with.
    """

    def __init__(
        self, model, optimizer, scaler, mixed, encode, world, clip: float, logger, passes: int = 1, compression="none",
        lines: int | None = None,
    ):  # fmt: skip
        """`encode`: a text to its accepted texts, as labels; `mixed`: see jobs.distributed.precision.

        `passes`: a batch is computed in so many parts, whose gradients are accumulated. `lines`: of a rank's largest
        batch; given, parts that are too large for the GPU's memory are halved, on all ranks.
        """
        self.model, self.optimizer, self.scaler, self.mixed = model, optimizer, scaler, mixed
        self.encode, self.world, self.clip, self.logger, self.passes = encode, world, clip, logger, passes
        self.wait = world.sum_gradients(model.parameters(), compression, passes)
        self.lines = lines
        self.named: set[str] = set()
        self.in_a_row = 0
        self.computed: list[tuple[torch.Tensor, torch.Tensor, list[str]]] = []  # of this step's parts
        self.before: Outcome | None = None  # of the last step

    def step(self, batch, step: int, seed: int | None = None) -> None:
        """Losses of the local lines over the characters of the global batch, summed over the ranks.

        `seed`: of dropout. Raises ValueError when the gradients of some steps in a row, the last one before this one,
        are not finite.
        """
        mark = self.logger.mark()
        while not self.attempt(batch, step, seed):
            self.logger.undo(mark)
            self.halve(step)

    def attempt(self, batch, step: int, seed: int | None) -> bool:
        """Whether there was memory enough on all ranks; if not, nothing has changed."""
        timer, world, scaler, optimizer = self.logger.timer, self.world, self.scaler, self.optimizer
        timer.lap("compute")
        optimizer.zero_grad()
        if seed is not None:
            torch.manual_seed(seed)
        full = self.compute(batch, step)
        timer.lap("exchange")
        self.wait()  # a rank without memory for its own gradients still takes part in the sums
        if self.lines and world.size > 1:
            full = world.any(full)
        if full:
            timer.lap("")
            return False
        timer.lap("compute")
        if scaler.is_enabled():
            scaler.unscale_(optimizer)
        # the gradients are the same on every rank now, and so is what is decided from them
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        finite = norm.isfinite()
        optimizer.found_inf = (~finite).float()  # the step changes nothing then
        optimizer.step()
        if scaler.is_enabled():
            scaler.update()
        self.logger.norms.append(norm.detach())
        before, self.before = self.before, self.outcome(step, finite)
        timer.lap("")
        self.learn(before)
        return True

    def compute(self, batch, step: int) -> bool:
        """The gradients of this rank's parts. Whether they were too large for the GPU's memory; without `lines` that
        is a ValueError.
        """
        for part in parts_of(batch, self.passes):
            try:
                loss = self.loss(part, max(batch.characters, 1))
                with self.world.guard("backward", waits=False):
                    self.scaler.scale(loss).backward()
            except torch.OutOfMemoryError:
                lines, _, _, wide = part.images.shape
                if self.lines is None or self.passes >= self.lines:
                    raise ValueError(
                        f"step {step}: {lines} lines of {wide} px at once are too many for the GPU's memory: give "
                        f"--micro-batch {max(lines // 2, 1)} (fewer at once, the same training) or a smaller --size"
                    ) from None
                return True
        return False

    def halve(self, step: int) -> None:
        """Compute half as many lines at once from now on."""
        self.passes = min(2 * self.passes, self.lines)
        self.wait.accumulate(self.passes)
        self.computed.clear()
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.world.rank == 0:
            log(
                f"train: step {step}: the GPU's memory is full on some rank: from now on "
                f"{math.ceil(self.lines / self.passes)} lines a rank at once (--micro-batch)"
            )

    def outcome(self, step: int, finite: torch.Tensor) -> Outcome:
        """What the host will learn of this step; nothing waits for it here."""
        unfit = torch.stack([unfit for unfit, _, _ in self.computed]).sum() if self.computed else torch.zeros(())
        flags, there = torch.stack([finite, unfit.to(finite.device) > 0]), None
        if flags.is_cuda:
            flags = torch.empty(2, dtype=torch.bool, pin_memory=True).copy_(flags, non_blocking=True)
            there = torch.cuda.Event()
            there.record()
        computed, self.computed = self.computed, []
        return Outcome(step, flags, there, computed)

    def settle(self) -> None:
        """Learn of the last step now: before what it did is counted, written or read. Raises as `step` does."""
        before, self.before = self.before, None
        self.learn(before)

    def learn(self, outcome: Outcome | None) -> None:
        """Count a step that changed nothing, name samples without a finite loss."""
        if outcome is None:
            return
        if outcome.there:
            outcome.there.synchronize()
        finite, some = outcome.flags.tolist()
        if some:
            for _, losses, keys in outcome.computed:
                self.name(losses.cpu(), keys)
        self.logger.skipped += not finite
        self.optimizer.skipped(int(not finite))
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if self.in_a_row >= (MAX_STEPS_NOT_FINITE_FP16 if self.scaler.is_enabled() else MAX_STEPS_NOT_FINITE):
            raise ValueError(
                f"step {outcome.step}: no finite gradient in the last {self.in_a_row} steps: lower --lr or --clip, or "
                f"look at the samples that the log names"
            )

    def loss(self, batch, characters: int) -> torch.Tensor:
        """The sum of its texts' losses over so many characters; what is not finite is counted and left out."""
        if not batch.texts:  # fewer texts than ranks or parts: only the sum of gradients is taken part in
            return 0.0 * sum(parameter.sum() for parameter in self.model.parameters())
        device = self.world.device
        images = batch.images
        if images.device.type == "cpu" != device.type and not images.is_pinned():
            images = images.pin_memory()
        images = images.to(device, non_blocking=True).float() / 255
        targets = [self.encode(text) for text in batch.texts]
        with self.mixed():
            losses = self.model.losses(images, batch.widths, targets, batch.parts)
        fits = losses.isfinite()
        loss = torch.where(fits, losses, 0.0).sum() / characters
        unfit = (~fits).sum()
        self.logger.add(batch, loss.detach(), unfit)
        self.computed.append((unfit, losses.detach(), batch.keys))
        return loss

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
