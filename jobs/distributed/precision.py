"""The precision that a model computes in: the value of --amp on this device, and torch's autocast context for it."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}


def precision(amp: str, device: torch.device) -> tuple[Callable[[], AbstractContextManager], str]:
    """`amp`: auto, bf16, fp16 or off -> a function that makes the context of a forward pass; bf16, fp16 or off.

    auto is bf16 where the device has it in hardware, else fp16 on a GPU, else off. Raises ValueError for fp16 on a CPU.
    """
    if amp == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        amp = "bf16" if fast else "fp16" if device.type == "cuda" else "off"
    if amp == "fp16" and device.type == "cpu":
        raise ValueError("--amp fp16 needs a GPU; on a CPU use bf16 or off")
    return lambda: torch.autocast(device.type, TYPES[amp], enabled=amp != "off"), amp
