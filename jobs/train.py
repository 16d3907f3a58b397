"""python -m jobs train DATASET --run RUN --model ctc: train a reader, alone or as the ranks of a job.

    sbatch --nodes=4 --gpus-per-node=4 --cpus-per-gpu=8 slurm/train.sh DATASET --run runs/ctc-16        on a cluster
    python -m jobs submit train --nodes 4 --gpus-per-node 4 --cpus-per-task 8 DATASET --run runs/ctc-16    with submitit

Global batches, learning rates and random numbers are the same for any number of ranks. A run folder with checkpoints is
resumed at the step of the newest one, within the epoch, with any number of ranks. The signal of the time limit (see
jobs.distributed.signals) ends the training with a checkpoint and puts its job back into the queue.
"""

import contextlib
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from jobs.cli.console import log
from jobs.distributed.work_sharding import job_name
from jobs.training.config import BATCH, ModelConfig, TrainConfig, has_run, read_run

Settings = TrainConfig


def main(config: TrainConfig) -> int:
    config = replace(config, run=config.run_folder)
    config.run.mkdir(parents=True, exist_ok=True)
    try:
        return begin(config)
    finally:
        remove_if_nothing_began(config.run)


def begin(config: TrainConfig) -> int:
    from jobs.distributed.signals import AGAIN, STOPPED, SignalHandler, requeue

    signals = SignalHandler()  # first of all: what comes now takes seconds, and a signal would end it

    from jobs.distributed import process_group
    from jobs.distributed.watchdog import Watchdog
    from jobs.training.requeueing import again_after_hang, note_not_queued

    # a rank that hangs ends the job, which is queued again
    runtime = config.runtime
    hung = partial(again_after_hang, config.run, runtime.requeues)
    again = [sys.executable, "-m", "jobs.training.requeueing", str(config.run), str(runtime.requeues)]
    with (
        process_group.start(config.run, runtime.device, runtime.deterministic, runtime.backend) as world,
        Watchdog(config.run, world.rank, world.place.host, hung, log, again=again, ranks=world.size),
    ):
        setup = agree(world, lambda: prepare(config, world))
        decision = train(world, signals, *setup)
    if decision.requeue and world.rank == 0 and (problem := requeue()):
        log(f"train: {note_not_queued(config.run, problem)}")
        return AGAIN
    # the other ranks exit with 0: with --kill-on-bad-exit srun would end the rank that is still writing
    return STOPPED if decision.stop and not decision.requeue else 0


def remove_if_nothing_began(run: Path) -> None:
    """A run that was refused leaves no folder; what another job keeps in it stays."""
    if not has_run(run):
        for folder in (run / ".heartbeat", run / "rendezvous", run):
            with contextlib.suppress(OSError):
                folder.rmdir()  # of empty ones


def agree(world, work):
    """Do the same work on every rank; if it fails anywhere, all ranks raise the first failure instead of waiting."""
    failure = result = None
    try:
        result = work()
    except (ValueError, OSError, RuntimeError) as error:
        failure = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    failures = [message for message in world.gather(failure) if message]
    if failures:
        raise ValueError(failures[0])
    return result


def prepare(config: TrainConfig, world):
    """Check all that was asked. -> the settings with the batch resolved, the training data, the model."""
    import torch

    from htr.models.registry import create, encoder_config
    from jobs.distributed.precision import precision
    from jobs.training import checkpoint, gpu_options
    from jobs.training.data import TrainingData
    from jobs.training.weight_init import start_from
    from shards.sampler import MIXINGS

    precision(config.runtime.amp, world.device)  # what the device can't do is said before a run is begun
    batch = global_batch(config, world.size)
    data = replace(config.data, batch=batch, batch_per_rank=None)
    # a relative name may be another's, seen from elsewhere
    data = replace(data, dataset=data.dataset.absolute(), mix=[absolute(mix) for mix in data.mix])
    config = replace(config, data=data)
    training_data, began = TrainingData.open(config.data), read_run(config.run)
    if began is not None:  # its order of texts goes on as it began
        training_data = replace(training_data, mixing=MIXINGS[int(began.get("mixing", 1))])
    samples, charset, asked = training_data.samples, training_data.charset, config.model
    if len(samples) < world.size:
        raise ValueError(f"{len(samples)} samples for {world.size} ranks: use fewer ranks")
    if batch < world.size:
        raise ValueError(f"--batch {batch} is the global batch and less than the {world.size} ranks")
    if training_data.dev is None and config.runtime.evaluate_every and world.rank == 0:
        log("train: no line with a text is in dev: the last step's model is kept, and nothing says how well it reads "
            "(preprocess --shares train=0.8,dev=0.2 makes a dev)")  # fmt: skip
    if training_data.without_text and world.rank == 0:
        log(f"train: {training_data.without_text} of the lines and fields have no text and are learnt as blank: choose "
            "with --where if that is not meant")  # fmt: skip
    torch.manual_seed(config.seed)
    encoder = encoder_config(asked.architecture, asked.size, asked.recurrent_stride, height=asked.height)
    model = create(asked.architecture, encoder, len(charset), asked.dropout)
    if asked.architecture == "attention":
        model.decoder.noise = asked.teacher_noise
    # a run that is resumed has its weights already, whatever became of those that it started from
    if asked.init_from and not checkpoint.steps(config.run / "checkpoints"):
        taken = start_from(model, charset, asked.init_from)
        if world.rank == 0:
            log(f"train: {taken}")
    if asked.freeze:
        freeze(model, asked)
    model.to(world.device)
    gpu_options.apply(model, world.device, config.runtime)
    for note in training_data.use_precomputed(model.geometry.height):
        if world.rank == 0:
            log(f"train: {note}")
    if config.runtime.local_copy:
        training_data = training_data.keep(model.geometry.height)
    return config, training_data, model


def absolute(mix: str) -> str:
    """DATASET=WEIGHT with the data set's whole path; what is written otherwise as it is, for who reads it to refuse."""
    path, equals, weight = mix.rpartition("=")
    return f"{Path(path).absolute()}={weight}" if equals else mix


def freeze(model, asked: ModelConfig) -> None:
    if asked.architecture != "attention" or not asked.init_from:
        raise ValueError("--freeze needs --model attention and --init-from RUN: the decoder alone is trained")
    for name, weights in model.named_parameters():
        weights.requires_grad_(name.startswith("decoder."))


def global_batch(config: TrainConfig, ranks: int) -> int:
    """What was asked; of a run that is resumed by --batch-per-rank, what it began with, whatever its ranks are now."""
    batch, per_rank = config.data.batch, config.data.batch_per_rank
    if batch and per_rank:
        raise ValueError("give --batch, of all ranks together, or --batch-per-rank, not both")
    if not per_rank:
        return batch or BATCH
    began = read_run(config.run)
    return began["batch"] if began else per_rank * ranks


def train(world, signals, config: TrainConfig, training_data, model):
    """-> the decision that ended it (see jobs.distributed.signals)."""
    from jobs.distributed.cpus import cpus_of_task
    from jobs.distributed.process_group import versions
    from jobs.training.run_folder import NullRun, RunFolder
    from jobs.training.trainer import Trainer
    from shards.plan import read_note
    from shards.sampler import MIXINGS

    opened = []  # rank 0 holds the run; that it could not is everyone's error
    # the next job of a chain, say, comes soon after one that was killed
    patient = "SLURM_JOB_ID" in os.environ
    learnt = {"alphabet": training_data.charset.characters, "dataset": training_data.fingerprint}
    learnt["plan"] = read_note(config.data.dataset)["fingerprint"]
    learnt["writes"] = config.data.text or "as written"
    learnt["mixing"] = next(str(number) for number, mixing in MIXINGS.items() if mixing == training_data.mixing)
    world.on_root(lambda: opened.append(RunFolder(config.run, config, learnt, job_name(), patient)))
    hosts = [name for name, _ in world.place.hosts or ()]
    facts = {"dataset": training_data.fingerprint, "world": world.size, "hosts": hosts, "digest": versions()["code"]}
    facts |= {"folder": str(config.data.dataset), "device": world.device.type, "index": training_data.shards_digest}
    facts |= {"cpus": sum(world.gather(cpus_of_task()))}
    with opened[0] if opened else NullRun() as run, signals:
        world.on_root(run.note_start, facts)
        return Trainer(config, world, signals, training_data, model, run).fit()
