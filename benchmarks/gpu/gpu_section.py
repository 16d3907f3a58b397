"""How a section of gpu_check.py says what it finds."""

import json
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
LABELS = 100
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Section:
    """Says what it found."""

    def __init__(self, device: str, seconds: float, quick: bool):
        self.device, self.quick, self.small = torch.device(device), quick, device == "cpu"
        self.end = time.monotonic() + seconds - 4  # ends by itself before it is ended
        self.found: dict = {"checks": {}, "rows": []}
        if device == "cuda":
            torch.cuda.set_device(0)

    def left(self) -> float:
        return self.end - time.monotonic()

    def say(self, **found: object) -> None:
        self.found |= found
        print(json.dumps(self.found), flush=True)

    def row(self, **row: object) -> None:
        self.found["rows"].append({name: short(value) for name, value in row.items()})
        self.say()

    def check(self, name: str, good: bool) -> None:
        self.found["checks"][name] = bool(good)
        self.say()


def short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def logged(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def synchronise(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
