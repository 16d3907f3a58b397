"""The settings of a training, and how they stand in a run folder.

RUN/config.yaml holds what a run was asked to do, every setting of it, and is itself a file for `--config`.
RUN/data.json holds what came of the data: the data set's fingerprint, the characters of the charset (`alphabet`) and
what the reader writes. A run of before these files has all of it in RUN/config.json.
"""

import json
import os
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from jobs.cli.config_files import read_yaml, to_yaml
from jobs.cli.settings import group, leaves, setting
from shards import files

BATCH = 32  # lines a step that --lr is meant for
MAX_SEED = 2**63 - 1  # torch takes 64 bits
CONFIG, DATA, OLD = "config.yaml", "data.json", "config.json"
SAME_DATA = ", from the data set and each --mix, its weights too, in the order that config.yaml there has"
OLDER = {"height": 48, "recurrent_stride": 8}  # what a run had before one could choose, and its file lacks


def default_dataset() -> Path:
    return Path(os.environ.get("HTR_DATASET") or "demo/dataset")


@dataclass(frozen=True)
class DataConfig:
    dataset: Path = setting(
        make=default_dataset,
        positional=True,
        help="data set that preprocess made (default: HTR_DATASET, else %(default)s)",
    )
    mix: list[str] = setting(
        [],
        "further data set, and how often an epoch visits each of its texts, at the start and at the end of "
        "the training; repeatable",
        metavar="DATASET=WEIGHT[:WEIGHT]",
    )
    split: str = setting("train", "split of the data set to train on", fixed=True)
    where: list[str] = setting(
        [], "train on these samples only; repeatable (default: all)", metavar="COLUMN=VALUE", fixed=True
    )
    blanks: float = setting(0.05, "largest share of blank fields in an epoch", metavar="SHARE", fixed=True, least=0)
    text: str | None = setting(
        None, "column of the source that the reader shall write (default: the text as written)", metavar="COLUMN"
    )
    abbreviations: Path | None = setting(
        None, "table with the columns abbreviation and expansion: further texts that count as right", metavar="TABLE"
    )
    batch: int | None = setting(
        None, f"lines of one step, of all ranks together (default: {BATCH})", fixed=True, least=1
    )
    batch_per_rank: int | None = setting(
        None, "lines of one step per rank that the run begins with, in place of --batch", least=1
    )
    batch_by: Literal["lines", "pixels"] = setting(
        "lines",
        "lines: each step has the same number of lines; pixels: each step has the same number of pixels, more"
        " lines where they are narrow",
        fixed=True,
    )


@dataclass(frozen=True)
class ModelConfig:
    architecture: Literal["ctc", "conv", "attention"] = setting("ctc", "kind of reader", flag="model", fixed=True)
    size: Literal["tiny", "small", "mid", "base", "large"] = setting("small", "size of the encoder", fixed=True)
    height: int = setting(48, "height of lines as the model sees them, in px", metavar="PX", fixed=True)
    recurrent_stride: Literal[8, 4] = setting(
        8, "px of a line per recurrent step; 4 reads narrow writing better and is slower", fixed=True
    )
    dropout: float = setting(0.2, "share of activations that are left out in training", least=0, most=1)
    init_from: Path | None = setting(
        None,
        "run or model folder to start from, of any model, charset and size; weights are taken as far as they fit",
        metavar="RUN",
    )
    freeze: bool = setting(
        False,
        "train only the decoder of an attention reader; the encoder and CTC head of --init-from stay as they are",
        fixed=True,
    )
    teacher_noise: float = setting(0.2, "share of wrong labels in the inputs of an attention decoder", least=0, most=1)


@dataclass(frozen=True)
class OptimConfig:
    name: Literal["muon", "adamw"] = setting("muon", "optimiser of the weight matrices", flag="optimizer", fixed=True)
    lr: float = setting(2e-3, f"peak learning rate, for batches of {BATCH} lines", fixed=True, over=0, most=1000)
    lr_rule: Literal["none", "sqrt", "linear"] = setting(
        "none",
        f"how the rate grows with the batch: none, linear (the ratio to {BATCH} lines), or sqrt (its square root)",
    )
    ema: float = setting(
        0.998, "decay of the averaged weights; 0: no average", metavar="DECAY", fixed=True, least=0, most=1
    )
    clip: float = setting(1.0, "largest norm of the gradient", over=0)


@dataclass(frozen=True)
class ScheduleConfig:
    steps: int = setting(20_000, "steps of the training; the learning rate is planned for them", fixed=True, least=1)
    warmup: int = setting(
        300,
        "steps until the peak learning rate, with short lines first; then a cosine leads to zero",
        fixed=True,
        least=0,
    )
    guide: int = setting(
        2000,
        "steps in which the alignment of CTC shows an attention decoder the frames of each label",
        metavar="STEPS",
        fixed=True,
        least=0,
    )


@dataclass(frozen=True)
class AugmentationConfig:
    level: Literal["none", "light", "medium", "strong"] = setting(
        "medium", "strength of the distortion of lines (inspect --augment shows it)", flag="augment"
    )


def micro_batch(text: str) -> int:
    """auto is 0. Raises ArgumentTypeError for what is no number of lines."""
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError(f"{text} is no number of lines (or auto)")
    return 0 if text == "auto" else int(text)


@dataclass(frozen=True)
class RuntimeConfig:
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "where to compute; auto takes a GPU if there is one")
    amp: Literal["auto", "off", "bf16", "fp16"] = setting(
        "auto", "precision of the computation; auto takes bf16 where the device has it"
    )
    micro_batch: int | None = setting(
        None,
        "lines that a rank computes at once; more are accumulated. auto (0 in a file): all at once, halved "
        "when a GPU's memory is full (default: all of its share)",
        metavar="LINES|auto",
        least=0,
        parse=micro_batch,
        write=lambda lines: str(lines or "auto"),
    )
    tf32: bool = setting(False, "multiply float32 in TF32 on a GPU, rounded to eleven bits; faster with --amp off")
    channels_last: bool = setting(False, "keep filters by channels, as the tensor cores of a GPU take them")
    packed_lstm: bool = setting(False, "compute both directions of an LSTM in one call of cuDNN, on a GPU")
    compile: Literal["off", "on", "graphs"] = setting(
        "off", "torch.compile of the encoder, once for each of the few widths; graphs: as CUDA graphs"
    )
    workers: int | None = setting(
        None,
        "processes per rank that decode and augment lines; 0: a thread of the rank itself (default: by the "
        "CPUs it has)",
        was="threads",
        least=0,
    )
    local_copy: bool = setting(
        False, "keep each line ready-made on the node's own disk (HTR_SCRATCH) from the first time that it is read"
    )
    checkpoint_every: int = setting(500, "steps between checkpoints", metavar="STEPS", least=1)
    evaluate_every: int = setting(
        1000, "steps between readings of dev, whose CER chooses best.pt; 0: never", metavar="STEPS", least=0
    )
    log_every: int = setting(50, "steps between log lines", metavar="STEPS", least=1)
    compression: Literal["none", "fp16", "bf16"] = setting(
        "none", "how gradients are sent between ranks: as they are, or as 16-bit floats"
    )
    backend: Literal["horovod", "torch"] = setting(
        "horovod", "library that sums gradients: horovod, or torch.distributed, which needs no build of its own"
    )
    deterministic: bool = setting(False, "give the same bits again with the same ranks; slower")
    requeues: int = setting(
        20, "how often the job of this run is put back into the queue before its time limit", metavar="N", least=0
    )


@dataclass(frozen=True)
class TrainConfig:
    """Settings marked `fixed` can't change when a run is resumed; all others may."""

    run: Path | None = setting(
        None, "folder of the run, on shared storage; resumed if it has a checkpoint (default: runs/MODEL)"
    )
    seed: int = setting(1, "seed of all random choices", fixed=True, least=0, most=MAX_SEED)
    data: DataConfig = group(DataConfig, "data")
    model: ModelConfig = group(ModelConfig, "model")
    optim: OptimConfig = group(OptimConfig, "optimisation")
    schedule: ScheduleConfig = group(ScheduleConfig, "schedule")
    augmentation: AugmentationConfig = group(AugmentationConfig, "augmentation")
    runtime: RuntimeConfig = group(RuntimeConfig, "runtime")

    @property
    def run_folder(self) -> Path:
        return self.run or Path("runs") / self.model.architecture


def parse_where(pairs: list[str]) -> dict[str, list[str]]:
    """["a=1", "a=2", "b="] -> {"a": ["1", "2"], "b": [""]}."""
    where: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--where {pair}: write it as COLUMN=VALUE")
        where.setdefault(name, []).append(value)
    return where


# --- in a run folder


def read_run(run: Path) -> dict[str, Any] | None:
    """What a run folder says of its run, by the names of the options, with `dataset` the data's fingerprint, `folder`
    the data set's folder, `alphabet` and `writes`. None where nothing does.

    A run of an older version lacks what it did not know. Raises ValueError for a file that is damaged.
    """
    if not (run / CONFIG).exists():
        return read_record(run / OLD) if (run / OLD).exists() else None
    try:
        content = read_yaml(run / CONFIG)
        found = {leaf.name: value_at(content, leaf.key) for leaf in leaves(TrainConfig) if stands(content, leaf.key)}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"{CONFIG} is damaged") from None
    if "dataset" in found:
        found["folder"] = found.pop("dataset")
    return found | (read_record(run / DATA) if (run / DATA).exists() else {})


def read_record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is damaged")
    return content


def value_at(content: dict, key: str) -> Any:
    for name in key.split("."):
        content = content[name]
    return content


def stands(content: dict, key: str) -> bool:
    group, _, name = key.rpartition(".")
    return name in ((content.get(group) or {}) if group else content)


def has_run(folder: Path) -> bool:
    """Whether the folder holds the settings of a run."""
    return (folder / CONFIG).is_file() or (folder / OLD).is_file()


def check_resumable(run: Path, config: TrainConfig, facts: dict[str, str]) -> None:
    """Raises ValueError where the run began with another value of what can't change.

    `facts`: dataset, alphabet and writes, as DATA has them.
    """
    before = read_run(run)
    if before is None:
        return
    before = OLDER | before
    now = facts | {leaf.name: as_written(leaf.of(config)) for leaf in leaves(TrainConfig) if leaf.meta.fixed}
    for name, value in now.items():
        if name in before and before[name] != value:  # a run of an older version may not know it
            raise ValueError(
                f"{run} is a run of {name} '{before[name]}', asked was '{value}': "
                f"give another --run, or the same {name}{SAME_DATA if name in ('dataset', 'alphabet') else ''}"
            )


def as_written(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def write_adopted(run: Path, model: dict[str, str], facts: dict[str, str]) -> None:
    """Of a run that is a model alone, whose training nobody knows: what is known of it, and no data set."""
    files.replace(run / DATA, files.to_json(facts))
    known = {"data": {"split": "train", "where": [], "mix": [], "text": None}, "model": model}
    files.replace(run / CONFIG, yaml.safe_dump(known, sort_keys=False))


def write_run(run: Path, config: TrainConfig, facts: dict[str, str], replace=files.replace) -> None:
    """The settings, all of them resolved, after the facts that they are read with."""
    replace(run / DATA, files.to_json(facts))
    again = f"python -m jobs train --config {files.in_shell(run / CONFIG)} --run ANOTHER trains the same again"
    replace(run / CONFIG, to_yaml(config, again))
