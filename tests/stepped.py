"""What tests of a training's step take steps with: a world of one, a model whose losses are told, batches."""

from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from jobs.distributed.process_group import GradientSum
from jobs.training import optimizer as optimizers
from jobs.training.metrics import MetricsLogger
from jobs.training.train_step import TrainStep
from shards.loader import Batch


class Alone:
    """A world of one."""

    device, rank, size = torch.device("cpu"), 0, 1

    @contextmanager
    def guard(self, doing, waits=True):
        yield

    def sum_gradients(self, parameters, compression, passes):
        return GradientSum(self, None)


class Model(nn.Module):
    """Gives the losses that it is told, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.told: list[float] = []

    def losses(self, images, widths, targets, parts):
        told = torch.tensor(self.told)
        return torch.where(told.isinf(), told, self.weight * told.nan_to_num(posinf=0.0, nan=float("nan")))


def train_step(model: Model) -> TrainStep:
    scaler, optimizer = torch.amp.GradScaler("cpu", enabled=False), optimizers.Muon(model.parameters(), lr=0.1)
    return TrainStep(model, optimizer, scaler, nullcontext, lambda text: [[1]], Alone(), 1.0, MetricsLogger())


def batch(keys: list[str], wide: int = 8) -> Batch:
    images = torch.zeros(len(keys), 1, 48 if wide > 100 else 8, wide, dtype=torch.uint8)
    widths = torch.full((len(keys),), wide)
    return Batch(images=images, widths=widths, parts=None, texts=["secret"] * len(keys), keys=keys,
                 rows=list(range(len(keys))), characters=10, total=len(keys))  # fmt: skip
