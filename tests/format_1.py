"""Models and runs in the form that commit 2a98bc8 gave them, made from today's: all verbs go on reading that."""

import json
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, save

from jobs.training.config import CONFIG, DATA, OLD, read_run

# today's -> as models of format 1 and their checkpoints have it
ONCE = {
    r"encoder\.sequence_layers\.(\d+)\.depthwise\.": r"encoder.along.\1.along.",
    r"encoder\.sequence_layers\.(\d+)\.pointwise\.": r"encoder.along.\1.across.",
    r"encoder\.sequence_layers\.": "encoder.along.",
    r"encoder\.cnn_norm\.": "encoder.columns_norm.",
    r"\.self_attn\.": ".written.",
    r"\.self_attn_out\.": ".written_out.",
    r"\.cross_attn_query\.": ".query.",
    r"\.cross_attn\.": ".frames.",
    r"\.cross_attn_out\.": ".frames_out.",
    r"\.ffn\.": ".further.",
}
# of today's settings those that its runs knew
SETTINGS = """
    abbreviations alphabet amp augment batch batch_by batch_per_rank blanks checkpoint_every clip compression dataset
    deterministic device dropout ema evaluate_every folder freeze guide init_from local_copy log_every lr lr_rule
    micro_batch mix model optimizer requeues run seed size split steps teacher_noise text threads warmup where writes
"""


def as_once(weights: dict) -> dict:
    for new, old in ONCE.items():
        weights = {re.sub(new, old, key): value for key, value in weights.items()}
    return weights


def model_as_once(folder: Path) -> None:
    """Of a model's folder, in place: names of weights, and a config.json without the encoder's hyperparameters."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key != "encoder"} | {"format": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    path = folder / "weights.safetensors"
    with safe_open(path, "pt") as file:
        step = file.metadata()
    path.write_bytes(save(as_once(load(path.read_bytes())), step))


def run_as_once(run: Path) -> None:
    """Of a run's folder, in place: its settings and facts in config.json, its model and its checkpoints."""
    known = read_run(run)
    settings = {name: known.get(name) for name in SETTINGS.split()} | {"verb": "train", "folder": str(known["folder"])}
    (run / OLD).write_text(json.dumps(settings, default=str), encoding="utf-8")
    for name in (CONFIG, DATA):
        (run / name).unlink()
    model_as_once(run / "model")
    for path in run.glob("checkpoints/step-*.pt"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        torch.save(state | {part: as_once(state[part]) for part in ("model", "average")}, path)
