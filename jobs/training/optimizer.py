"""Muon for the weight matrices, AdamW for all else, as one optimizer: Horovod wraps one, a checkpoint holds one.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") takes its momentum's direction with
all singular values made equal; scaled as Liu et al. 2025, "Muon is Scalable for LLM Training", so that AdamW's learning
rates fit. torch's own takes two-dimensional parameters only: no convolutions, and an LSTM's four gates as one matrix.
"""

import math

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5  # of Newton and Schulz; the polynomial's coefficients are Jordan's
A, B, C = 3.4445, -4.7750, 2.0315
WEIGHT_DECAY = 0.01
# modules by name, not by size: with 95 characters a hidden layer of size tiny has as many rows as there are labels
NO_HIDDEN_LAYER = ("head.", "auxiliary.", "decoder.")


class Muon(torch.optim.Optimizer):
    """A group's `matrices` says how many matrices stand on each other in its parameters; 0: AdamW's step for them.

    All parameters take a step together, by a few operations on lists and on stacks of matrices: on a GPU a step of
    small matrices costs what its launches cost.

    `found_inf`, as GradScaler sets it: a tensor of one number; other than 0, the step changes nothing, and nobody on
    the host has to wait for that number. Who learns of it later calls `skipped`.
    """

    def __init__(self, params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "matrices": 0})
        self.stacks: Stacks | None = None
        self.found_inf: Tensor | None = None
        self.unnoticed: Tensor | float = 0.0  # steps of AdamW's that were counted on the host and did not happen

    def skipped(self, steps: int) -> None:
        """So many of the steps so far changed nothing: they leave AdamW's count."""
        if steps:
            self.unnoticed = self.unnoticed - steps
            for state in self.state.values():
                if "step" in state:
                    state["step"] -= steps

    @torch.no_grad()
    def step(self, closure=None) -> None:
        matrices, gates, rates = [], [], []
        bad = None if self.found_inf is None else self.found_inf > 0
        if bad is not None:
            self.unnoticed = self.unnoticed + bad
        for group in self.param_groups:
            found = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not found:
                continue
            if group["matrices"]:
                if group["weight_decay"]:
                    torch._foreach_mul_(found, unless(bad, 1 - group["lr"] * group["weight_decay"]))
                matrices += found
                gates += [group["matrices"]] * len(found)
                rates += [group["lr"]] * len(found)
            else:
                self.adam(found, group)
        if matrices:
            self.orthogonal(matrices, gates, rates, bad)

    def orthogonal(
        self, parameters: list[Tensor], gates: list[int], rates: list[float], bad: Tensor | None = None
    ) -> None:
        """`gates`: how many matrices each parameter holds; `rates`: the learning rate of each; `bad`: nothing changes
        where it is true.
        """
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        if self.stacks is None or not self.stacks.hold(parameters):
            self.stacks = Stacks(parameters, gates)
        if bad is not None:  # zeros in place of what is not finite, which no factor makes harmless
            gradients = self.stacks.cleared(gradients, bad)
        torch._foreach_mul_(momenta, unless(bad, MOMENTUM))
        torch._foreach_add_(momenta, gradients)
        ahead = torch._foreach_add(gradients, momenta, alpha=MOMENTUM)  # Nesterov's
        directions = self.stacks.even_out(ahead, bad)
        if len(set(rates)) == 1:
            torch._foreach_add_(parameters, directions, alpha=-rates[0])
        else:
            torch._foreach_add_(parameters, torch._foreach_mul(directions, [-rate for rate in rates]))

    def adam(self, parameters: list[Tensor], group: dict) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["step"] += 1
        steps = sorted({self.state[parameter]["step"] for parameter in parameters})
        for step in steps:  # one, unless a parameter was without a gradient before
            found = [parameter for parameter in parameters if self.state[parameter]["step"] == step]
            states = [self.state[parameter] for parameter in found]
            count = torch.full((), float(step), device=found[0].device) - self.unnoticed
            torch._fused_adamw_(
                found,
                [like(parameter.grad, parameter) for parameter in found],
                [state["mean"] for state in states],
                [state["square"] for state in states],
                [],
                [count] * len(found),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                found_inf=self.found_inf,
            )


class AdamW(torch.optim.AdamW):
    """torch's, fused: like Muon it decides by `found_inf` on the device, and counts its steps there."""

    def load_state_dict(self, state_dict: dict) -> None:
        """Also of a run that began when it was not fused."""
        groups = [group | {"fused": True, "foreach": None} for group in state_dict["param_groups"]]
        super().load_state_dict(state_dict | {"param_groups": groups})

    def skipped(self, steps: int) -> None:
        pass


def unless(bad: Tensor | None, factor: float) -> Tensor | float:
    """The factor; 1 where `bad`, a tensor of one number, is true."""
    return factor if bad is None else torch.where(bad, 1.0, factor)


def like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient, its numbers in the order of the parameter's, as kernels over many tensors need it."""
    same = gradient.stride() == parameter.stride()
    return gradient if same else torch.empty_like(parameter).copy_(gradient)


class Stacks:
    """The matrices of all parameters in a few stacks, those of about one size in one, narrower ones with zeros beside.

    Zero columns stay zero and change nothing else in Newton's and Schulz's steps.
    """

    MORE = 0.06  # of all the work, at most, that joining matrices of another width may add

    def __init__(self, parameters: list[Tensor], gates: list[int]):
        self.parameters = [id(parameter) for parameter in parameters]
        shapes = []
        for parameter, count in zip(parameters, gates, strict=True):
            rows, columns = parameter.shape[0] // count, parameter[0].numel()
            shapes.append((count, rows, columns))
        of = self.joined(shapes)
        taken = dict.fromkeys(of.values(), 0)
        places = []
        for count, rows, columns in shapes:
            key = of[min(rows, columns), max(rows, columns)]
            places.append((key, taken[key]))
            taken[key] += count
        device = parameters[0].device
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), device=device)
        self.views = [
            torch.as_strided(part, parameter.shape, parameter.stride())
            for part, parameter in zip(self.flat.split(sizes), parameters, strict=True)
        ]
        self.inputs = {
            key: torch.zeros(count, *key, dtype=torch.bfloat16, device=device) for key, count in taken.items()
        }
        self.outputs = {key: torch.zeros(count, *key, device=device) for key, count in taken.items()}
        scales = {key: torch.zeros(count, 1, 1) for key, count in taken.items()}
        self.into, self.out = [], []
        for parameter, (count, rows, columns), (key, first) in zip(parameters, shapes, places, strict=True):
            # the root mean square of AdamW's updates
            scales[key][first : first + count] = 0.2 * math.sqrt(max(rows, columns))
            for buffers, views in ((self.inputs, self.into), (self.outputs, self.out)):
                part = buffers[key][first : first + count]
                part = part[:, :columns, :rows].mT if rows > columns else part[:, :rows, :columns]
                # one matrix has its parameter's shape; gates lie on each other, and are never higher than wide
                views.append(part[0].unflatten(1, parameter.shape[1:]) if count == 1 else part.flatten(0, 1))
        self.scale = torch.cat(list(scales.values())).to(device)
        self.scales = self.by_key(self.scale)

    def joined(self, shapes: list[tuple[int, int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
        """(rows, columns), the smaller first, to the shape of the stack that it goes to."""
        counts: dict[tuple[int, int], int] = {}
        for count, rows, columns in shapes:
            key = min(rows, columns), max(rows, columns)
            counts[key] = counts.get(key, 0) + count
        work = sum(count * rows * rows * columns for (rows, columns), count in counts.items())
        found, widest = {}, {}
        for (rows, columns), count in sorted(counts.items(), reverse=True):
            wide = widest.get(rows, columns)
            if count * rows * rows * (wide - columns) > self.MORE * work:
                wide = columns
            found[rows, columns] = rows, wide
            widest[rows] = wide
        return found

    def by_key(self, scale: Tensor) -> dict[tuple[int, int], Tensor]:
        return dict(zip(self.inputs, scale.split([len(matrices) for matrices in self.inputs.values()]), strict=True))

    def hold(self, parameters: list[Tensor]) -> bool:
        return self.parameters == [id(parameter) for parameter in parameters]

    def cleared(self, gradients: list[Tensor], bad: Tensor) -> list[Tensor]:
        """Copies of them, or zeros."""
        torch._foreach_copy_(self.views, gradients)
        self.flat.masked_fill_(bad, 0.0)
        return self.views

    def even_out(self, ahead: list[Tensor], bad: Tensor | None = None) -> list[Tensor]:
        """-> the directions of the parameters' steps, in the parameters' shapes; zeros where `bad`."""
        torch._foreach_copy_(self.into, ahead)
        scales = self.scales if bad is None else self.by_key(self.scale.masked_fill(bad, 0.0))
        for key, matrices in self.inputs.items():
            torch.mul(even_out(matrices), scales[key], out=self.outputs[key])
        return self.out


def even_out(matrices: Tensor) -> Tensor:
    """(M, rows, columns), as many columns as rows or more -> the same with singular values of about 1, in bfloat16."""
    x = matrices.to(torch.bfloat16)  # five steps need no more
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = torch.bmm(x, x.mT)
        factor = torch.baddbmm(square, square, square, beta=B, alpha=C)
        x = torch.baddbmm(x, factor, x, beta=A)
    return x


def create(name: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """ "muon" or "adamw". Weight matrices decay, biases and norms don't.

    An attention decoder's are AdamW's either way: it learns far more slowly by Muon (see EXPERIMENTS.md).
    """
    by_kind: dict[int | None, list[nn.Parameter]] = {}
    for place, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            kind = stacked(module, parameter) if parameter.dim() > 1 else None
            if f"{place}.".startswith(NO_HIDDEN_LAYER) and kind:
                kind = 0
            by_kind.setdefault(kind, []).append(parameter)
    groups = [
        {"params": found, "weight_decay": 0.0 if kind is None else WEIGHT_DECAY} for kind, found in by_kind.items()
    ]
    if name == "adamw":
        return AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    for kind, group in zip(by_kind, groups, strict=True):
        group["matrices"] = kind or 0
    return Muon(groups, lr=lr)


def stacked(module: nn.Module, weight: Tensor) -> int:
    """How many matrices of hidden layers a weight is; 0 for embeddings, first layers and filters of one channel."""
    if isinstance(module, nn.Embedding):
        return 0
    if isinstance(module, nn.Conv1d | nn.Conv2d) and (weight.shape[1] == 1 or module.in_channels < 8):
        return 0
    return 4 if isinstance(module, nn.LSTM) else 1
