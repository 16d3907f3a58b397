"""What --amp comes to on a device."""

import pytest
import torch

from jobs.distributed.precision import precision


@pytest.mark.parametrize(("hardware", "found"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_bf16_of_a_gpu_that_has_it_in_hardware_alone(monkeypatch, hardware, found):
    """torch says that older GPUs have it, too: they emulate it, at a fraction of fp16's speed."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware or including_emulation
    )
    _, amp = precision("auto", torch.device("cuda"))
    assert amp == found


@pytest.mark.parametrize(("hardware", "found"), [(True, "bf16"), (False, "off")])
def test_auto_on_a_cpu(monkeypatch, hardware, found):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: hardware)
    mixed, amp = precision("auto", torch.device("cpu"))
    with mixed():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert amp == found and product.dtype == (torch.bfloat16 if hardware else torch.float32)
