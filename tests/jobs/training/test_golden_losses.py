"""Golden losses of commit 2a98bc8, whose optimizer took each parameter by itself, and whose attention decoder was not
told where CTC has each label: that is all that has changed since.

They stand in tests/golden_data.json; nothing of today writes them anew.
"""

import json
import math
from pathlib import Path

import cv2
import pytest
import torch

from htr.models.attention.decoder import HEADS
from jobs.cli.command_line import main
from jobs.training.optimizer import MOMENTUM, NEWTON_SCHULZ_STEPS, A, B, C, Muon

GOLDEN = Path(__file__).parents[2] / "golden_data.json"


class MatrixByMatrix(Muon):
    """The step as it was: Newton-Schulz of each parameter alone, AdamW by single operations. Stacks of matrices differ
    from it in bfloat16's rounding, the fused AdamW in float32's, and nothing else of a training has changed."""

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    step = self.muon if group["matrices"] else self.adamw
                    step(parameter, parameter.grad, self.state[parameter], group)

    def muon(self, parameter: torch.Tensor, gradient: torch.Tensor, state: dict, group: dict) -> None:
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.mul_(MOMENTUM).add_(gradient)
        ahead = gradient.add(momentum, alpha=MOMENTUM)
        stack = ahead.reshape(group["matrices"], parameter.shape[0] // group["matrices"], -1)
        x, is_tall = stack.to(torch.bfloat16), stack.shape[1] > stack.shape[2]
        x = x.mT if is_tall else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(NEWTON_SCHULZ_STEPS):
            square = x @ x.mT
            x = A * x + (B * square + C * square @ square) @ x
        x = (x.mT if is_tall else x).to(ahead.dtype)
        parameter.add_(x.view_as(parameter), alpha=-group["lr"] * 0.2 * math.sqrt(max(stack.shape[1:])))

    def adamw(self, parameter: torch.Tensor, gradient: torch.Tensor, state: dict, group: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["step"]))


@pytest.mark.parametrize("model", ["ctc", "conv", "attention"])
@pytest.mark.parametrize("optimizer", [MatrixByMatrix, Muon])
def test_losses_are_those_of_before_and_only_the_optimizer_changes_their_last_digits(
    dataset, tmp_path: Path, monkeypatch, one_thread, model: str, optimizer: type
):
    monkeypatch.setattr("jobs.training.optimizer.Muon", optimizer)
    monkeypatch.setattr("htr.models.attention.decoder.PRECISIONS", (0.0,) * HEADS)
    options = ["--size", "tiny", "--steps", "8", "--batch", "6", "--warmup", "2", "--log-every", "1", "--amp", "off"]
    options += ["--device", "cpu", "--deterministic", "--checkpoint-every", "100", "--evaluate-every", "8"]
    assert main(["train", str(dataset.folder), "--run", str(tmp_path), "--model", model, *options]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    stored = json.loads(GOLDEN.read_text(encoding="utf-8"))
    before = stored["losses of trainings"][model]
    if optimizer is MatrixByMatrix and cv2.getCPUFeaturesLine() == stored["kind of CPU"]:
        assert losses == before
    assert losses == pytest.approx(before, rel=2e-2) and losses[:2] == pytest.approx(before[:2], rel=1e-4)
