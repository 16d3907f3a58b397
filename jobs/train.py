"""python -m jobs train DATASET --run RUN --model ctc: train a reader, alone or as the ranks of a job.

    sbatch --nodes=4 --gpus-per-node=4 slurm/train.sh DATASET --run runs/ctc-16      on a cluster
    python -m jobs submit train --nodes 4 --gpus-per-node 4 DATASET --run runs/ctc-16    the same through submitit

The same global batches, learning rates and random numbers whatever the number of ranks. A run folder with checkpoints
is resumed at the step, within the epoch, where the newest one was written, by as many ranks as there are then. The
time limit's signal (see jobs.notice) ends it with a checkpoint and puts its job back into the queue.
"""

import argparse
import os
from pathlib import Path

from jobs.experiment import read_json
from jobs.show import say
from jobs.work import job_name

FIXED = ("model", "size", "alphabet", "dataset", "writes", "seed", "batch", "batch_by", "split", "where", "blanks",
         "steps", "lr", "warmup", "optimizer", "ema", "freeze", "guide", "height", "recurrent_stride")  # fmt: skip
BATCH = 32  # that --lr is meant for


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
    add(
        "--height",
        type=int,
        default=48,
        metavar="PX",
        help="of the lines as the model sees them (default: %(default)s)",
    )
    stride = "px of a line that each recurrent step goes on by: 4 reads narrow writing better, slower (%(default)s)"
    add("--recurrent-stride", type=int, choices=[8, 4], default=8, help=stride)
    init = "start from the weights of another run or model folder, of any model, alphabet and size as far as they fit"
    add("--init-from", type=Path, metavar="RUN", help=init)
    frozen = "train an attention reader's decoder alone, on the encoder and CTC head of --init-from as they are"
    add("--freeze", action="store_true", help=frozen)
    mix = "a further data set; how often an epoch visits each of its texts, at the training's start and end"
    add("--mix", action="append", default=[], metavar="DATASET=WEIGHT[:WEIGHT]", help=mix)
    add("--steps", type=int, default=20_000, help="of the whole training, which the schedule is laid out for")
    add("--batch", type=int, help=f"lines a step, of all ranks together (default: {BATCH})")
    add("--batch-per-rank", type=int, help="in place of --batch: so many times the ranks that the run begins with")
    by = "each step has so many lines, or the pixels of so many of mean width: more lines where they are narrow"
    add("--batch-by", choices=["lines", "pixels"], default="lines", help=f"{by} (default: %(default)s)")
    add("--micro-batch", type=int, metavar="LINES", help="a rank computes at once; more are accumulated")
    add("--lr", type=float, default=2e-3, help=f"peak learning rate of batches of {BATCH} (default: %(default)s)")
    rule = f"how it grows with the batch: none, or with its ratio to {BATCH} or that one's root (default: %(default)s)"
    add("--lr-rule", choices=["none", "sqrt", "linear"], default="none", help=rule)
    add(
        "--warmup",
        type=int,
        default=300,
        help="steps, with short lines first, until the peak, from where a cosine leads to zero",
    )
    add("--optimizer", choices=["muon", "adamw"], default="muon")
    add("--ema", type=float, default=0.998, metavar="DECAY", help="of the averaged weights; 0: none (%(default)s)")
    add("--clip", type=float, default=1.0, help="largest norm of the gradient (default: %(default)s)")
    add("--dropout", type=float, default=0.2)
    guide = "steps in which CTC's alignment shows an attention decoder the frames of each symbol (default: %(default)s)"
    add("--guide", type=int, default=2000, metavar="STEPS", help=guide)
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
    copied = "read shards from copies on the node's own disk, HTR_SCRATCH, made at the start"
    add("--local-copy", action="store_true", help=copied)
    add("--checkpoint-every", type=int, default=500, metavar="STEPS")
    add(
        "--evaluate-every",
        type=int,
        default=1000,
        metavar="STEPS",
        help="CER on dev, by which best.pt is chosen; 0: never",
    )
    add("--log-every", type=int, default=50, metavar="STEPS")
    add("--compression", choices=["none", "fp16", "bf16"], default="none", help="of gradients between the ranks")
    add("--deterministic", action="store_true", help="the same bits again with the same ranks; slower")
    more = "how often this run's job goes back into the queue before its time limit (default: %(default)s)"
    add("--requeues", type=int, default=20, metavar="N", help=more)


def main(args: argparse.Namespace) -> int:
    from jobs import ring
    from jobs.notice import AGAIN, STOPPED, Notice, requeue

    args.run = run_folder(args)
    args.run.mkdir(parents=True, exist_ok=True)
    notice = Notice()
    with ring.start(args.run, args.device, args.deterministic) as world:
        setup = agree(world, lambda: prepare(args, world))
        decision = train(args, world, notice, *setup)
    if decision.requeue and world.rank == 0 and (problem := requeue()):
        say(f"train: the job can't go back into the queue: {problem}; start it again to go on")
        return AGAIN
    # the other ranks leave in peace: a bad exit would have srun end the one that is at it
    return STOPPED if decision.stop and not decision.requeue else 0


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

    args.batch = global_batch(args, world.size)
    material = Material.open(args)
    samples, alphabet = material.samples, material.alphabet
    if len(samples) < world.size:
        raise ValueError(f"{len(samples)} samples for {world.size} ranks: use fewer ranks")
    if args.batch < world.size:
        raise ValueError(f"--batch {args.batch} is the global batch and less than the {world.size} ranks")
    torch.manual_seed(args.seed)
    model = create(args.model, encoder_of(vars(args)), len(alphabet), args.dropout)
    if args.model == "attention":
        model.decoder.noise = args.teacher_noise
    if args.init_from:
        start_from(model, alphabet, args.init_from)
    if args.freeze:
        freeze(model, args)
    model.to(world.device)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    asked.pop("run_verb")
    config = asked | {"dataset": material.fingerprint, "folder": str(args.dataset), "alphabet": alphabet.characters}
    return material, model, config | {"writes": args.text or "as written"}


def encoder_of(config: dict):
    """-> the EncoderConfig of a run's config.json. A run made before these could be chosen has their defaults."""
    from htr.models import encoder_config
    from htr.models.encoder import RECURRENT_STRIDES

    chosen = {"height": config.get("height", 48), **RECURRENT_STRIDES[config.get("recurrent_stride", 8)]}
    return encoder_config(config["model"], config["size"], **chosen)


def freeze(model, args: argparse.Namespace) -> None:
    if args.model != "attention" or not args.init_from:
        raise ValueError("--freeze needs --model attention and --init-from RUN: the decoder alone is trained")
    for name, weights in model.named_parameters():
        weights.requires_grad_(name.startswith("decoder."))


def global_batch(args: argparse.Namespace, ranks: int) -> int:
    """What was asked; of a run that is resumed by --batch-per-rank, what it began with, whatever its ranks are now."""
    if args.batch and args.batch_per_rank:
        raise ValueError("give --batch, of all ranks together, or --batch-per-rank, not both")
    if not args.batch_per_rank:
        return args.batch or BATCH
    began = read_json(args.run / "config.json")
    return began["batch"] if began else args.batch_per_rank * ranks


def parse_where(pairs: list[str]) -> dict[str, list[str]]:
    """["a=1", "a=2", "b="] -> {"a": ["1", "2"], "b": [""]}."""
    where: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--where {pair}: write it as COLUMN=VALUE")
        where.setdefault(name, []).append(value)
    return where


def train(args: argparse.Namespace, world, notice, material, model, config):
    """-> the decision that ended it (see jobs.notice)."""
    from jobs.experiment import Bystander, Experiment
    from jobs.loop import Training
    from jobs.place import RingError
    from jobs.pulse import Pulse
    from jobs.ring import versions

    opened = []  # rank 0 holds the run; that it could not is everyone's error
    # the next job of a chain, say, comes soon after one that was killed
    patient = "SLURM_JOB_ID" in os.environ
    world.on_root(lambda: opened.append(Experiment(args.run, config, FIXED, job_name(), patient)))
    hosts = [name for name, _ in world.place.hosts or ()]
    facts = {"dataset": material.fingerprint, "world": world.size, "hosts": hosts, "digest": versions()["code"]}
    cores = world.gather((world.place.host, os.sched_getaffinity(0)))  # ranks of a node may share theirs
    facts |= {"device": world.device.type, "cpus": len({(host, core) for host, mine in cores for core in mine})}
    with opened[0] if opened else Bystander() as run, notice, Pulse(args.run, world.rank) as pulse:
        world.on_root(run.note_start, facts)
        try:
            return Training(args, world, notice, material, model, run).go()
        except RingError as error:
            raise RingError(f"{error}{pulse.blame()}") from error
