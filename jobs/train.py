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
import time
from pathlib import Path

from jobs.meter import Meter
from jobs.show import Progress, say
from jobs.work import job_name

FIXED = ("model", "size", "alphabet", "dataset", "seed", "batch", "split", "where", "steps", "lr", "warmup")


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
    add("--model", choices=["ctc", "attention"], default="ctc")
    add("--size", choices=["tiny", "small", "base"], default="small")
    add("--init-from", type=Path, metavar="RUN", help="start from the weights of another run (of either model)")
    add("--steps", type=int, default=20_000, help="of the whole training, which the schedule is laid out for")
    add("--batch", type=int, default=32, help="lines a step, of all ranks together (default: %(default)s)")
    add("--lr", type=float, default=1.5e-3, help="peak learning rate (default: %(default)s)")
    add(
        "--warmup",
        type=int,
        default=300,
        help="steps, with short lines first, until the peak, from where a cosine leads to zero",
    )
    add("--clip", type=float, default=1.0, help="largest norm of the gradient (default: %(default)s)")
    add("--dropout", type=float, default=0.2)
    levels = ["none", "light", "medium", "strong"]
    add("--augment", choices=levels, default="medium", help="distortion (inspect --augment shows it; %(default)s)")
    add("--split", default="train", help="of the data set, to train on (default: %(default)s)")
    add("--where", action="append", default=[], metavar="COLUMN=VALUE", help="train on these samples only; repeatable")
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
    """Everything that can be wrong with what was asked. -> index, samples, dev samples, model, optimizer, config."""
    import torch

    from htr.models import create
    from shards.index import read_index
    from shards.stream import Samples

    index = read_index(args.dataset)
    where = parse_where(args.where)
    samples = Samples(index.folder, index.samples(args.split, where))
    if len(samples) < world.size:
        raise ValueError(f"{len(samples)} samples for {world.size} ranks: use fewer ranks")
    if args.batch < world.size:
        raise ValueError(f"--batch {args.batch} is the global batch and less than the {world.size} ranks")
    has_dev = index.lines.get("dev") and args.split != "dev"
    dev = Samples(index.folder, index.samples("dev")) if has_dev else None
    torch.manual_seed(args.seed)
    model = create(args.model, args.size, len(index.alphabet), args.dropout)
    if args.init_from:
        start_from(model, args, index)
    model.to(world.device)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=args.lr, betas=(0.9, 0.98))
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    asked.pop("run_verb")
    config = asked | {"dataset": index.fingerprint, "folder": str(args.dataset), "alphabet": index.alphabet.characters}
    return index, samples, dev, model, optimizer, config


def parse_where(pairs: list[str]) -> dict[str, list[str]]:
    """["a=1", "a=2", "b="] -> {"a": ["1", "2"], "b": [""]}."""
    where: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--where {pair}: write it as COLUMN=VALUE")
        where.setdefault(name, []).append(value)
    return where


def start_from(model, args: argparse.Namespace, index) -> None:
    """Weights of another run, of every part that the two models share."""
    from htr.alphabet import name
    from htr.reader import Reader

    other = Reader.load(args.init_from / "model")
    if other.alphabet != index.alphabet:
        differ = other.alphabet.missing(index.alphabet.characters) + index.alphabet.missing(other.alphabet.characters)
        raise ValueError(f"{args.init_from} has another alphabet than {args.dataset}: they differ by {name(differ)}")
    if other.config["size"] != args.size:
        raise ValueError(f"{args.init_from} has size {other.config['size']}, asked was {args.size}")
    ours = model.state_dict()
    ours.update({name: value for name, value in other.model.state_dict().items() if name in ours})
    model.load_state_dict(ours)


def parameter_groups(model) -> list[dict]:
    """Weights decay, biases and norms don't."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = (step - args.warmup) / max(args.steps - args.warmup, 1)
    return args.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def autocast(args: argparse.Namespace, device):
    """-> (context for the forward pass, whether gradients need a scaler)."""
    import torch

    kind = args.amp
    if kind == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        kind = "bf16" if fast else "fp16" if device.type == "cuda" else "off"
    if kind == "fp16" and device.type == "cpu":
        raise ValueError("--amp fp16 needs a GPU; on a CPU use bf16 or off")
    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}
    return lambda: torch.autocast(device.type, types[kind], enabled=kind != "off"), kind == "fp16"


def train(args: argparse.Namespace, world, index, samples, dev, model, optimizer, config) -> int:
    import torch

    from htr.models.encoder import HEIGHT
    from jobs import checkpoint
    from jobs.experiment import Bystander, Experiment
    from shards.stream import batches, plan_epoch

    opened = []  # rank 0 holds the run; that it could not is everyone's error
    world.on_root(lambda: opened.append(Experiment(args.run, config, FIXED, job_name())))
    hosts = [name for name, _ in world.place.hosts or ()]
    with opened[0] if opened else Bystander() as run:
        # ------------------------------------------------------------ where it stands
        world.on_root(run.note_start, {"dataset": index.fingerprint, "world": world.size, "hosts": hosts})
        step, best = 0, math.inf
        saved = world.on_root(checkpoint.load_newest, args.run / "checkpoints")
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            step, best = saved["step"], saved["best"]
            if world.rank == 0:
                say(f"train: resumed at step {step} of {args.steps}")
        world.broadcast_parameters(model)
        optimizer = world.wrap(optimizer, model.named_parameters())
        mixed, scaled = autocast(args, world.device)
        scaler = torch.amp.GradScaler(world.device.type, enabled=scaled)
        if saved and scaled:
            scaler.load_state_dict(saved["scaler"])
        threads = args.threads or max(len(os.sched_getaffinity(0)) // world.place.local_size - 1, 1)
        widths = samples.columns["width"] * HEIGHT // samples.columns["height"]
        per_epoch = len(plan_epoch(widths, args.batch, args.seed, 0))

        # ------------------------------------------------------------ steps
        meter = Meter()
        with Progress(f"train {args.model}", args.steps, "steps", shown=world.rank == 0) as progress:
            progress.advance(step)
            while step < args.steps:
                epoch, skip = divmod(step, per_epoch)
                plan = plan_epoch(widths, args.batch, args.seed, epoch, args.warmup)[skip : skip + args.steps - step]
                keyed = None if args.augment == "none" else (args.seed, epoch)
                options = {"threads": threads, "key": keyed, "strength": args.augment}
                stream = batches(samples, plan, world.rank, world.size, HEIGHT, **options)
                with contextlib.closing(stream):
                    for batch in meter.waiting(stream):
                        rate = learning_rate(step, args)
                        for group in optimizer.param_groups:
                            group["lr"] = rate
                        torch.manual_seed((args.seed << 40) + (step << 12) + world.rank)  # of dropout
                        take_step(batch, model, optimizer, scaler, mixed, index.alphabet, world, args.clip, meter)
                        step += 1
                        last = step == args.steps
                        if step % args.log_every == 0 or last:
                            metrics = {"step": step, "epoch": step / per_epoch, "lr": rate, **meter.collect(world)}
                            world.on_root(run.log_step, metrics, args.steps)
                            if metrics["skipped_steps"] >= args.log_every:
                                raise ValueError(f"no finite gradient since step {step - args.log_every}: lower --lr")
                            progress.note = f"loss {metrics['loss']:.3f}, {metrics['lines_per_s']:.0f} lines/s"
                        improved = False
                        if dev and (step % args.evaluate_every == 0 or last):
                            errors = evaluate_dev(dev, model, mixed, index.alphabet, world, threads)
                            improved, best = errors.cer < best, min(best, errors.cer)
                            world.on_root(run.log_dev, step, errors.cer, errors.wer)
                            if world.rank == 0:
                                say(f"train: step {step}, CER on dev {100 * errors.cer:.1f} %")
                            meter.restart()
                        if improved or last or step % args.checkpoint_every == 0:
                            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
                            state |= {"best": best, "scaler": scaler.state_dict()}
                            chosen = improved or (last and not dev)
                            world.on_root(save, args, model, index.alphabet, step, state, chosen)
                            meter.restart()
                        progress.advance(1, progress.note)
        world.on_root(run.update, {"state": "finished", "step": step})
    return 0


def take_step(batch, model, optimizer, scaler, mixed, alphabet, world, clip: float, meter: Meter) -> None:
    """One step of all ranks: losses of the local lines over the characters of the global batch, summed by the ring."""
    import torch

    began = time.monotonic()
    optimizer.zero_grad()
    if batch.texts:
        images = batch.images if world.device.type == "cpu" else batch.images.pin_memory()
        images = images.to(world.device, non_blocking=True).float() / 255
        targets = [alphabet.encode(text) for text in batch.texts]
        with mixed():
            losses = model.losses(images, batch.widths.to(world.device), targets)
        fits = losses.isfinite()
        loss = torch.where(fits, losses, 0.0).sum() / batch.characters
        meter.add(batch, loss.item(), int((~fits).sum()))
    else:  # a global batch smaller than the world: this rank only takes part in the sum
        loss = 0.0 * sum(parameter.sum() for parameter in model.parameters())
    with world.guard("backward"):
        scaler.scale(loss).backward()
    waited = time.monotonic()
    world.synchronize(optimizer)
    meter.seconds["exchange"] += time.monotonic() - waited
    if scaler.is_enabled():
        scaler.unscale_(optimizer)
    # the gradients are the same on every rank now, and so is what is decided from them
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if scaler.is_enabled():
        world.apply(optimizer, lambda: scaler.step(optimizer))
        scaler.update()
    elif norm.isfinite():
        world.apply(optimizer)
    meter.skipped += not norm.isfinite()
    meter.norms.append(norm.item())
    meter.seconds["step"] += time.monotonic() - began


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
    plan = in_order(dev.columns["width"] * HEIGHT // dev.columns["height"], 16 * world.size)
    with torch.no_grad(), mixed():
        for batch in batches(dev, plan, world.rank, world.size, HEIGHT, threads):
            for text, reading in zip(batch.texts, reader.read_batch(batch.images, batch.widths), strict=True):
                errors += compare(text, reading.text)
    model.train()
    return Errors(**{name: int(value) for name, value in world.sum(asdict(errors)).items()})


def save(args: argparse.Namespace, model, alphabet, step: int, state: dict, chosen: bool) -> None:
    """On rank 0: the checkpoint and, if it is the one to read with, the model's folder."""
    from htr.reader import files_of
    from jobs import checkpoint
    from shards import files

    checkpoint.save(args.run / "checkpoints", step, state, chosen)
    if chosen:
        folder = args.run / "model"
        folder.mkdir(exist_ok=True)
        # the weights alone change during a run, so that no reader meets files that don't belong together
        for name, content in files_of(model, alphabet, args.model, args.size, step).items():
            files.replace(folder / name, content)
