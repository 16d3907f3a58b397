"""Muon for the weight matrices, AdamW for all else, as one optimizer: Horovod wraps one, a checkpoint holds one.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") takes its momentum's direction with
all singular values made equal; scaled as Liu et al. 2025, "Muon is Scalable for LLM Training", so that AdamW's learning
rates fit. torch's own takes two-dimensional parameters only: no convolutions, and an LSTM's four gates as one matrix.
"""

import math

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
STEPS = 5  # of Newton and Schulz; the polynomial's coefficients are Jordan's
A, B, C = 3.4445, -4.7750, 2.0315
DECAY = 0.01


class Muon(torch.optim.Optimizer):
    """A group's `matrices` says how many matrices stand on each other in its parameters; 0: AdamW's step for them."""

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "matrices": 0})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            take = self.orthogonal if group["matrices"] else self.adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    take(parameter, parameter.grad, self.state[parameter], group)

    def orthogonal(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.mul_(MOMENTUM).add_(gradient)
        ahead = gradient.add(momentum, alpha=MOMENTUM)  # Nesterov's
        stack = ahead.reshape(group["matrices"], parameter.shape[0] // group["matrices"], -1)
        scale = 0.2 * math.sqrt(max(stack.shape[1:]))  # the root mean square of AdamW's updates
        parameter.add_(even_out(stack).view_as(parameter), alpha=-group["lr"] * scale)

    def adam(self, parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["mean"], root, value=-group["lr"] / (1 - first ** state["step"]))


def even_out(matrices: Tensor) -> Tensor:
    """(M, rows, columns) -> the same with singular values of about 1."""
    x = matrices.to(torch.bfloat16)  # five steps need no more
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = A * x + (B * square + C * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def create(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """ "muon" or "adamw". Weight matrices decay, biases and norms don't.

    An attention decoder's are AdamW's either way: it learns far more slowly by Muon (see EXPERIMENTS.md).
    """
    by_kind: dict[int | None, list[nn.Parameter]] = {}
    for place, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            kind = stacked(module, parameter, model.head.out_features) if parameter.dim() > 1 else None
            if place.startswith("decoder") and kind:
                kind = 0
            by_kind.setdefault(kind, []).append(parameter)
    groups = [{"params": found, "weight_decay": 0.0 if kind is None else DECAY} for kind, found in by_kind.items()]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
    for kind, group in zip(by_kind, groups, strict=True):
        group["matrices"] = kind or 0
    return Muon(groups, lr=lr)


def stacked(module: nn.Module, weight: Tensor, symbols: int) -> int:
    """How many matrices of hidden layers a weight is; 0 for the first and last layers and filters of one channel."""
    if isinstance(module, nn.Embedding) or weight.shape[0] == symbols:
        return 0
    if isinstance(module, nn.Conv1d | nn.Conv2d) and (weight.shape[1] == 1 or module.in_channels < 8):
        return 0
    return 4 if isinstance(module, nn.LSTM) else 1
