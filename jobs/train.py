"""python -m jobs train DATASET --run RUN --model ctc: train a reader, alone or as the ranks of a job.

    sbatch --nodes=4 --gpus-per-node=4 slurm/train.sh DATASET --run runs/ctc-16      on a cluster
    python -m jobs submit train --nodes 4 --gpus-per-node 4 DATASET --run runs/ctc-16    the same through submitit

The same global batches, learning rates and random numbers whatever the number of ranks. A run folder with checkpoints
is resumed at the step, within the epoch, where the newest one was written.
"""

import argparse
import contextlib
import math
import os
from pathlib import Path

from jobs.meter import Meter
from jobs.show import Progress, say
from jobs.work import job_name

FIXED = ("model", "size", "alphabet", "dataset", "writes", "seed", "batch", "split", "where", "blanks", "steps", "lr",
         "warmup", "optimizer", "ema")  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    default = Path(os.environ.get("HTR_DATASET") or "demo/dataset")
    add(
        "dataset",
        type=Path,
        nargs="?",
        default=default,
        help="that preprocess made (default: HTR_DATASET, %(default)s)",
    )
    add("--run", type=Path, help="the run's folder, on shared storage, resumed if it has a checkpoint (runs/MODEL)")
    add("--model", choices=["ctc", "conv", "attention"], default="ctc")
    add("--size", choices=["tiny", "small", "base", "large"], default="small")
    init = "start from the weights of another run or model folder, of any model, alphabet and size as far as they fit"
    add("--init-from", type=Path, metavar="RUN", help=init)
    mix = "a further data set; how often an epoch visits each of its texts, at the training's start and end"
    add("--mix", action="append", default=[], metavar="DATASET=WEIGHT[:WEIGHT]", help=mix)
    add("--steps", type=int, default=20_000, help="of the whole training, which the schedule is laid out for")
    add("--batch", type=int, default=32, help="lines a step, of all ranks together (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    add(
        "--warmup",
        type=int,
        default=300,
        help="steps, with short lines first, until the peak, from where a cosine leads to zero",
    )
    add("--optimizer", choices=["muon", "adamw"], help="default: muon, and adamw for attention")
    add("--ema", type=float, default=0.998, metavar="DECAY", help="of the averaged weights; 0: none (%(default)s)")
    add("--clip", type=float, default=1.0, help="largest norm of the gradient (default: %(default)s)")
    add("--dropout", type=float, default=0.2)
    add("--teacher-noise", type=float, default=0.2, help="wrong symbols among those an attention decoder is given")
    levels = ["none", "light", "medium", "strong"]
    add("--augment", choices=levels, default="medium", help="distortion (inspect --augment shows it; %(default)s)")
    add("--split", default="train", help="of the data set, to train on (default: %(default)s)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="train on these samples only; repeatable")
    add(
        "--blanks", type=float, default=0.05, metavar="SHARE", help="of blank fields in an epoch, at most (%(default)s)"
    )
    add("--text", metavar="COLUMN", help="of the source, in place of the text as written: what the reader shall write")
    add("--abbreviations", type=Path, metavar="TABLE", help="abbreviation,expansion: further accepted texts")
    add("--seed", type=int, default=1)
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--amp", choices=["auto", "off", "bf16", "fp16"], default="auto", help="auto: bf16 where the device has it")
    add("--threads", type=int, help="that decode images, a rank (default: by the CPUs it has)")
    add("--checkpoint-every", type=int, default=500, metavar="STEPS")
    add("--evaluate-every", type=int, default=1000, metavar="STEPS", help="CER on dev, by which best.pt is chosen")
    add("--log-every", type=int, default=50, metavar="STEPS")


def main(args: argparse.Namespace) -> int:
    from jobs import ring

    args.run = run_folder(args)
    # a decoder finds the frames later with Muon (see EXPERIMENTS.md)
    args.optimizer = args.optimizer or ("adamw" if args.model == "attention" else "muon")
    args.run.mkdir(parents=True, exist_ok=True)
    with ring.start(args.run, args.device) as world:
        setup = agree(world, lambda: prepare(args, world))
        return train(args, world, *setup)


def run_folder(args: argparse.Namespace) -> Path:
    return args.run or Path("runs") / args.model


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


def prepare(args: argparse.Namespace, world):
    """Everything that can be wrong with what was asked. -> samples, weights, dev samples, encode, model, config."""
    import torch

    from htr.models import create
    from jobs.material import Material
    from jobs.warm import start_from

    material = Material.open(args)
    samples, alphabet = material.samples, material.alphabet
    if len(samples) < world.size:
        raise ValueError(f"{len(samples)} samples for {world.size} ranks: use fewer ranks")
    if args.batch < world.size:
        raise ValueError(f"--batch {args.batch} is the global batch and less than the {world.size} ranks")
    torch.manual_seed(args.seed)
    model = create(args.model, args.size, len(alphabet), args.dropout)
    if args.model == "attention":
        model.decoder.noise = args.teacher_noise
    if args.init_from:
        start_from(model, alphabet, args.init_from)
    model.to(world.device)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    asked.pop("run_verb")
    config = asked | {"dataset": material.fingerprint, "folder": str(args.dataset), "alphabet": alphabet.characters}
    return material, model, config | {"writes": args.text or "as written"}


def parse_where(pairs: list[str]) -> dict[str, list[str]]:
    """["a=1", "a=2", "b="] -> {"a": ["1", "2"], "b": [""]}."""
    where: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--where {pair}: write it as COLUMN=VALUE")
        where.setdefault(name, []).append(value)
    return where


def train(args: argparse.Namespace, world, material, model, config) -> int:
    import torch

    from htr.models.encoder import HEIGHT
    from jobs import checkpoint
    from jobs import optimizer as optimizers
    from jobs.experiment import Bystander, Experiment
    from jobs.step import Step, autocast, averaged, learning_rate
    from shards.epochs import Epochs
    from shards.stream import batches

    opened = []  # rank 0 holds the run; that it could not is everyone's error
    world.on_root(lambda: opened.append(Experiment(args.run, config, FIXED, job_name())))
    hosts = [name for name, _ in world.place.hosts or ()]
    with opened[0] if opened else Bystander() as run:
        # ------------------------------------------------------------ where it stands
        world.on_root(run.note_start, {"dataset": material.fingerprint, "world": world.size, "hosts": hosts})
        optimizer = optimizers.create(args.optimizer, model, args.lr)
        step, best = 0, math.inf
        saved = world.on_root(checkpoint.load_newest, args.run / "checkpoints")
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            step, best = saved["step"], saved["best"]
            if world.rank == 0:
                say(f"train: resumed at step {step} of {args.steps}")
        world.broadcast_parameters(model)
        average = averaged(model, args.ema)
        if saved:
            average.load_state_dict(saved["average"])
        optimizer = world.wrap(optimizer, model.named_parameters())
        mixed, scaled = autocast(args, world.device)
        scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        if saved and scaled:
            scaler.load_state_dict(saved["scaler"])
        threads = args.threads or max(len(os.sched_getaffinity(0)) // world.place.local_size - 1, 1)
        samples, dev = material.samples, material.dev
        epochs = Epochs(samples.source, samples.widths(HEIGHT), material.weights, args.batch, args.steps)

        # ------------------------------------------------------------ steps
        meter = Meter()
        taker = Step(model, optimizer, scaler, mixed, material.encode, world, args.clip, meter)
        with Progress(f"train {args.model}", args.steps, "steps", shown=world.rank == 0) as progress:
            progress.advance(step)
            for epoch in epochs.since(step):
                plan = epochs.plan(epoch, args.seed, args.warmup)[step - epoch.first_step :][: args.steps - step]
                keyed = None if args.augment == "none" else (args.seed, step)
                options = {"threads": threads, "key": keyed, "strength": args.augment}
                stream = batches(samples, plan, world.rank, world.size, HEIGHT, **options)
                with contextlib.closing(stream):
                    for batch in meter.waiting(stream):
                        rate = learning_rate(step, args.lr, args.warmup, args.steps)
                        for group in optimizer.param_groups:
                            group["lr"] = rate
                        torch.manual_seed((args.seed << 40) + (step << 12) + world.rank)  # of dropout
                        taker.take(batch, step)
                        average.update_parameters(model)
                        step += 1
                        last = step == args.steps
                        if step % args.log_every == 0 or last:
                            done = epoch.number + (step - epoch.first_step) / epoch.steps
                            metrics = {"step": step, "epoch": done, "lr": rate, **meter.collect(world)}
                            world.on_root(run.log_step, metrics, args.steps)
                            progress.note = f"loss {metrics['loss']:.3f}, {metrics['lines_per_s']:.0f} lines/s"
                        improved = False
                        if dev and (step % args.evaluate_every == 0 or last):
                            errors = evaluate_dev(dev, average.module, mixed, material.alphabet, world, threads)
                            improved, best = errors.cer < best, min(best, errors.cer)
                            world.on_root(run.log_dev, step, errors.cer, errors.wer)
                            if world.rank == 0:
                                say(f"train: step {step}, CER on dev {100 * errors.cer:.1f} %")
                            meter.restart()
                        if improved or last or step % args.checkpoint_every == 0:
                            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                            state |= {"average": average.state_dict(), "best": best, "scaler": scaler.state_dict()}
                            chosen = average.module if improved or (last and not dev) else None
                            world.on_root(save, args, chosen, material.alphabet, step, state)
                            meter.restart()
                        progress.advance(1, progress.note)
        world.on_root(run.update, {"state": "finished", "step": step})
    return 0


def evaluate_dev(dev, model, mixed, alphabet, world, threads: int):
    """Greedy errors on dev, every line once: each rank reads its share of each batch."""
    from dataclasses import asdict

    import torch

    from htr.models.encoder import HEIGHT
    from htr.reader import Reader
    from htr.scoring.errors import Errors, compare
    from shards.stream import batches, in_order

    model.eval()
    reader, errors = Reader(model, alphabet, {}), Errors()
    plan = in_order(dev.widths(HEIGHT), 16 * world.size)
    with torch.no_grad(), mixed():
        for batch in batches(dev, plan, world.rank, world.size, HEIGHT, threads):
            for text, reading in zip(batch.texts, reader.read_batch(batch.images, batch.widths), strict=True):
                errors += compare(text, reading.text)
    model.train()
    return Errors(**{name: int(value) for name, value in world.sum(asdict(errors)).items()})


def save(args: argparse.Namespace, chosen, alphabet, step: int, state: dict) -> None:
    """On rank 0: the checkpoint and, if its averaged weights are the ones to read with, the model's folder."""
    from htr.reader import files_of
    from jobs import checkpoint
    from shards import files

    checkpoint.save(args.run / "checkpoints", step, state, chosen is not None)
    if chosen is not None:
        folder = args.run / "model"
        folder.mkdir(exist_ok=True)
        # the weights alone change during a run, so that no reader meets files that don't belong together
        for name, content in files_of(chosen, alphabet, args.model, args.size, step, args.text).items():
            files.replace(folder / name, content)
