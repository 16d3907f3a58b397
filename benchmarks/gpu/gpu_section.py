"""How a section of gpu_check.py says what it finds."""

import contextlib
import json
import subprocess
import time
import traceback
from collections.abc import Iterator
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

    def needs_gpu(self, what: str) -> None:
        """Say what a rehearsal on the CPU leaves out."""
        self.found["needs_gpu"] = list(dict.fromkeys([*self.found.get("needs_gpu", []), what]))
        self.say()

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Around a piece whose failure is recorded and keeps no other piece from running."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            said = (str(error).splitlines() or [""])[0][:120]
            self.check(f"{name}: {type(error).__name__}: {said}", False)

    def end_of(self, process: subprocess.Popen, spare: float = 5.0) -> int | None:
        """Its exit status; None where it is killed, since only so many seconds are left for what comes after it."""
        try:
            return process.wait(max(self.left() - spare, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def logged(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def synchronise(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
