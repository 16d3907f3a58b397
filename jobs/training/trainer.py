"""The training loop: from a checkpoint or the start to the last step, or to the signal that stops it."""

import contextlib
import math
from dataclasses import asdict
from itertools import islice

import torch

from htr.metrics.error_rates import Errors, compare
from htr.reader import Reader, files_of
from jobs.cli.console import Progress, log
from jobs.distributed.cpus import cpus_of_task
from jobs.distributed.heartbeat import ACTIVITY
from jobs.distributed.precision import precision
from jobs.distributed.signals import Decision, SignalHandler
from jobs.training import checkpoint
from jobs.training import optimizer as optimizers
from jobs.training.config import BATCH, TrainConfig
from jobs.training.device_batches import on_device, team_of
from jobs.training.metrics import MetricsLogger
from jobs.training.requeueing import CHAINED, queued_again, why_not_again
from jobs.training.train_step import TrainStep, averaged, dropout_seed, learning_rate, scaled_learning_rate
from shards.loader import AugmentConfig, batches, in_order, stream
from shards.sampler import EpochSampler


class Trainer:
    """The training loop of one rank. `run` is a RunFolder on rank 0, a NullRun elsewhere."""

    def __init__(self, config: TrainConfig, world, signals: SignalHandler, training_data, model, run):
        self.config, self.world, self.signals, self.training_data, self.model, self.run = (
            config, world, signals, training_data, model, run)  # fmt: skip
        self.height = model.geometry.height
        asked = config.runtime.workers
        self.workers = max(cpus_of_task() - 1, 1) if asked is None else asked
        self.rate = scaled_learning_rate(config.optim.lr, config.data.batch / BATCH, config.optim.lr_rule)
        self.mixed, amp = precision(config.runtime.amp, world.device)
        scaled = amp == "fp16"  # whose range small gradients fall below
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        self.optimizer = optimizers.create(config.optim.name, model, self.rate)
        # steps taken, the last one after which dev was read, the least CER there
        self.step, self.evaluated, self.best = 0, 0, math.inf
        world.on_root(checkpoint.assert_room, config.run, sum(weights.numel() for weights in model.parameters()))
        saved = world.on_root(checkpoint.load_newest, config.run / "checkpoints")
        if saved:
            model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.evaluated, self.best = saved["step"], saved["evaluated"], saved["best"]
        self.began = self.saved = self.step
        world.on_root(run.note_first, f"step {self.step} of {config.schedule.steps}", self.step, bool(saved))
        world.broadcast_parameters(model)
        self.average = averaged(model, config.optim.ema)
        if saved:
            self.average.load_state_dict(saved["average"])
        if saved and scaled and saved["scaler"]:  # empty where the run went without until now: it finds its scale
            self.scaler.load_state_dict(saved["scaler"])
        most, at_once = math.ceil((config.data.batch + 1) / world.size), config.runtime.micro_batch  # lines a rank
        passes = math.ceil(most / at_once) if at_once else 1
        self.logger = MetricsLogger(world.device)
        self.train_step = TrainStep(
            model, self.optimizer, self.scaler, self.mixed, training_data.encode, world, config.optim.clip, self.logger,
            passes, config.runtime.compression, most if at_once == 0 else None,
        )  # fmt: skip

    def fit(self) -> Decision:
        """Train until the last step, or until the ranks agree that a signal came."""
        config, world, samples = self.config, self.world, self.training_data.samples
        widths, weights = samples.widths(self.height), self.training_data.weights
        epochs = EpochSampler(
            samples.counts, widths, weights, config.data.batch, config.schedule.steps, config.data.batch_by,
            self.training_data.mixing,
        )  # fmt: skip
        decision = Decision()
        ACTIVITY.progressed("waiting for data")
        title, steps = f"train {config.model.architecture}", config.schedule.steps
        with (
            Progress(title, steps, "steps", world.rank == 0, self.step) as progress,
            team_of(self.workers, world.device) as self.team,
        ):
            if self.evaluation_due():  # the signal came before dev was read, or while it was
                decision = self.evaluate()
            with contextlib.closing(self.remaining_batches(epochs)) as batches_left:
                while not decision.stop and (found := next(batches_left, None)):
                    decision = self.run_step(*found, progress)
        if decision.stop:
            return self.stop(decision)
        world.on_root(self.run.update, {"state": "finished", "step": self.step})
        return decision

    def remaining_batches(self, epochs: EpochSampler):
        """The batches that are still to be trained on, each with its epoch; the loader reads ahead across epochs."""
        config, world, left = self.config, self.world, epochs.since(self.step)
        done = [max(self.step - epoch.first_step, 0) for epoch in left]
        windows = (
            window
            for epoch, skipped in zip(left, done, strict=True)
            for window in epochs.windows(epoch, config.seed, config.schedule.warmup, skipped)
        )
        keyed = None if config.augmentation.level == "none" else (config.seed, self.step)
        view = AugmentConfig(self.height, keyed, config.augmentation.level)
        data = self.training_data
        batches_left = stream(data.samples, windows, world.rank, world.size, view, self.team, kept=data.kept)
        with contextlib.closing(on_device(batches_left, world.device)) as batches_left:
            of_step = (epoch for epoch, skipped in zip(left, done, strict=True) for _ in range(epoch.steps - skipped))
            steps = islice(of_step, config.schedule.steps - self.step)
            yield from zip(steps, self.logger.waiting(batches_left), strict=False)  # the last epoch may be cut short

    def run_step(self, epoch, batch, progress: Progress) -> Decision:
        """One training step, then logging, evaluation and checkpoint where they are due."""
        config, world = self.config, self.world
        ACTIVITY.progressed("computing")
        answer = world.ask(self.signals.received)  # on its way while the step is computed
        rate = learning_rate(self.step, self.rate, config.schedule.warmup, config.schedule.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if hasattr(self.model, "guided"):
            self.model.guided = self.step < config.schedule.guide
        self.train_step.step(batch, self.step, dropout_seed(config.seed, self.step, world.rank))
        self.average.update_parameters(self.model)
        self.step += 1
        ACTIVITY.took(self.step)
        decision, last = Decision.of(answer()), self.step == config.schedule.steps
        if self.step % config.runtime.log_every == 0 or last:
            self.train_step.settle()
            done = epoch.number + (self.step - epoch.first_step) / epoch.steps
            metrics = {"step": self.step, "epoch": done, "lr": rate, **self.logger.collect(world)}
            if self.logger.slow_rank and world.rank == 0:
                log(f"train: step {self.step}: {self.logger.slow_rank}")
            world.on_root(self.run.log_step, metrics, config.schedule.steps)
            progress.note = f"loss {metrics['loss']:.3f}, {metrics['lines_per_s']:.0f} lines/s"
        if not decision.stop and self.evaluation_due():
            decision = self.evaluate()
        if last and not (self.training_data.dev and config.runtime.evaluate_every):
            self.save(chosen=True)  # nothing else will write the model
        elif (
            (self.step % config.runtime.checkpoint_every == 0 or last) and not decision.stop and self.saved != self.step
        ):
            self.save()
        progress.advance(1, progress.note)
        return decision

    # ---------------------------------------------------------------- dev

    def evaluation_due(self) -> bool:
        """Whether dev is to be evaluated after this step."""
        every = self.config.runtime.evaluate_every
        now = every and (self.step % every == 0 or self.step == self.config.schedule.steps)
        return bool(self.training_data.dev and now and self.step > self.evaluated)

    def evaluate(self) -> Decision:
        with ACTIVITY.during("evaluating"):
            return self.read_dev()

    def read_dev(self) -> Decision:
        """Greedy errors on dev, every line once: each rank reads its share of each batch. A signal ends it."""
        self.train_step.settle()
        dev, world = self.training_data.dev, self.world
        reader, errors = Reader(self.average.module.eval(), self.training_data.charset, {}), Errors()
        plan = in_order(dev.widths(self.height), 16 * world.size)
        with torch.no_grad(), self.mixed():
            for batch in batches(dev, plan, world.rank, world.size, self.height, self.team):
                for text, reading in zip(batch.texts, reader.read_batch(batch.images, batch.widths), strict=True):
                    errors += compare(text, reading.text)
                ACTIVITY.progressed()
                decision = Decision.of(world.sum(self.signals.received))
                if decision.stop:
                    return decision
        errors = Errors(**{name: int(value) for name, value in world.sum(asdict(errors)).items()})
        improved, self.best, self.evaluated = errors.cer < self.best, min(errors.cer, self.best), self.step
        world.on_root(self.run.log_dev, self.step, errors.cer, errors.wer)
        if world.rank == 0:
            log(f"train: step {self.step}, CER on dev {100 * errors.cer:.1f} %")
        if improved:
            self.save(chosen=True)
        self.logger.restart()
        return decision

    # ---------------------------------------------------------------- checkpoints

    def save(self, chosen: bool = False) -> None:
        """A checkpoint and, if the averaged weights are the ones to read with, the model's folder."""
        self.train_step.settle()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        state |= {"average": self.average.state_dict(), "scaler": self.scaler.state_dict()}
        state |= {"best": self.best, "evaluated": self.evaluated}
        with ACTIVITY.during("writing a checkpoint"):
            self.world.on_root(self.write_checkpoint, state, chosen)
        self.saved = self.step
        self.logger.restart()

    def write_checkpoint(self, state: dict, chosen: bool) -> None:
        checkpoint.save(self.config.run / "checkpoints", self.step, state, chosen, self.run.lock)
        if not chosen:
            return
        folder = self.config.run / "model"
        folder.mkdir(exist_ok=True)
        # the weights alone change during a run, so that no reader meets files that don't belong together
        named = (
            self.training_data.charset,
            self.config.model.architecture,
            self.config.model.size,
            self.step,
            self.config.data.text,
        )
        for name, content in files_of(self.average.module, *named).items():
            self.run.replace(folder / name, content)

    def stop(self, decision: Decision) -> Decision:
        """Write the last checkpoint of a run that a signal stops, and decide whether its job is requeued."""
        if self.saved != self.step:
            self.save()
        state = {"state": "stopped", "step": self.step, "reason": "told to stop"}
        if decision.requeue:
            decision, reason = self.world.on_root(self.may_requeue, decision)
            state["reason"] = f"time limit: {reason}"
        self.world.on_root(self.run.update, state)
        return decision

    def may_requeue(self, decision: Decision) -> tuple[Decision, str]:
        """On rank 0: whether the job may go back into the queue, and the reason for the log."""
        count, most, has_stepped = self.run.requeues, self.config.runtime.requeues, self.step > self.began
        why_not = why_not_again(count, most, has_stepped)
        if why_not == CHAINED:
            return Decision(), why_not
        if why_not:
            advice = "start it again to go on" if has_stepped else "give the job more --time"
            return Decision(stop=True), f"{why_not}, {advice}"
        self.run.update({"requeues": count + 1})
        return decision, queued_again(count, most)
