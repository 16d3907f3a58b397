"""What may make a training faster on a GPU, each an option that benchmarks/gpu/gpu_check.py measures, all off; and what
makes it the same each time.
"""

import os

import torch

from htr.models.layers import BiLSTM
from jobs.training.config import RuntimeConfig

COMPILE_MODES = {"on": "default", "graphs": "reduce-overhead"}
MOST_SHAPES = (
    128  # that the encoder is compiled for: widths are rounded to few, numbers of lines vary at an epoch's end
)


def apply(model: torch.nn.Module, device: torch.device, asked: RuntimeConfig) -> None:
    """Change the model in place. Names and values of its weights stay, so that checkpoints fit with and without."""
    if asked.deterministic:
        # cuBLAS reads it when a process first multiplies on a GPU: without, its sums' order may change
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = asked.tf32
    if asked.channels_last:
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    if asked.packed_lstm:
        for module in model.modules():
            if isinstance(module, BiLSTM):
                module.packed = True
    if asked.compile != "off":
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_SHAPES)
        model.encoder.compile(mode=COMPILE_MODES[asked.compile], dynamic=False)
