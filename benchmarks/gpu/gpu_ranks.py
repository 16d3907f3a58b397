"""The section of gpu_check.py about several ranks, and trainings in a world of one whose gradients a library sums."""

import json
import os
import subprocess
import sys
from pathlib import Path

from gpu_made import PLAIN, dataset, train
from gpu_section import Section, logged

STEPS = 12
# the largest difference of a loss beside a world of one, relative; gradients are sent in 8 bits with bf16
CLOSE, CLOSE_BF16 = 1e-3, 2e-2


def nccl(section: Section) -> None:
    """The losses of a world of one without a library, and over NCCL through Horovod, with its asynchronous completion
    (as `train` sets it) and without, and through torch.distributed; and of two ranks on the one GPU over Gloo, through
    both. In a rehearsal worlds of one are summed by Gloo, too.
    """
    if section.small:
        section.needs_gpu("NCCL and async completion")
    lines, folder = dataset(), Path(os.environ["GPU_CHECK_FOLDER"]) / "worlds"
    options = [str(lines), *PLAIN, "--size", "tiny", "--steps", str(STEPS), "--device", section.device.type]
    options += ["--amp", "off", "--deterministic", "--lr", "2e-4", *(["--batch", "4"] if section.small else [])]
    horovod, torch = [__file__, "over_horovod"], [__file__, "over_torch"]
    began = {"alone": [train(options, folder / "alone")]}
    for name, program, more, environ in (
        ("nccl", horovod, [], {}),
        ("nccl, no async", horovod, [], {"HOROVOD_ENABLE_ASYNC_COMPLETION": "0"}),
        ("nccl, bf16", horovod, ["--compression", "bf16"], {}),
        ("nccl, torch", torch, [], {}),
    ):
        began[name] = [train([*options, *more], folder / name, program=program, **environ)]
    for backend in ("horovod", "torch"):
        name = f"two, {backend}"
        began[name] = [two([*options, "--backend", backend], folder / name, rank) for rank in range(2)]
    for name, processes in began.items():  # the first is what the others are compared with
        codes = [section.end_of(process) for process in processes]
        with section.attempt(name):
            compare(section, name, codes, logged(folder / "alone"), logged(folder / name))


def two(options: list[str], run: Path, rank: int) -> subprocess.Popen:
    """A rank of two that share the GPU, as submitit starts them on one machine."""
    local = {"EXECUTOR": "local", "LOCAL_NTASKS": 2, "LOCAL_GLOBALID": rank, "LOCAL_LOCALID": rank}
    environ = {f"SUBMITIT_{name}": str(value) for name, value in local.items()}
    return train(options, run, HTR_SHARED_GPU="1", **environ)


def compare(section: Section, name: str, codes: list[int | None], alone: list[float], found: list[float]) -> None:
    whole = len(found) == len(alone) == STEPS
    apart = max(abs(a / b - 1) for a, b in zip(found, alone, strict=True)) if whole else None
    section.row(world=name, codes=str(codes), losses=len(found), last=found[-1] if found else None, apart=apart)
    close = CLOSE_BF16 if "bf16" in name else CLOSE
    section.check(f"{name}: losses as a world of one", codes == [0] * len(codes) and whole and apart < close)


def over_horovod(*argv: str) -> int:
    """`train` in a world of one whose gradients Horovod sums all the same."""
    import horovod.torch as hvd
    import torch

    from jobs.distributed.horovod_backend import Horovod, let_the_gpu_wait

    let_the_gpu_wait(torch.device("cuda" if "cuda" in argv else "cpu"), shared=False)
    hvd.init()
    print(json.dumps({"nccl_built": bool(hvd.nccl_built()), "gloo_built": bool(hvd.gloo_built())}), flush=True)
    return train_over(Horovod(hvd), argv)


def over_torch(*argv: str) -> int:
    """The same by torch.distributed."""
    import torch.distributed as dist

    from jobs.distributed.lifeline import Lifeline
    from jobs.distributed.torch_backend import TorchDistributed

    cuda = "cuda" in argv
    if cuda:
        import torch

        torch.cuda.set_device(0)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return train_over(TorchDistributed(1, Lifeline(0, ["here"], {}, 60.0)), argv)


def train_over(collectives, argv: tuple[str, ...]) -> int:
    from jobs.cli.command_line import main
    from jobs.distributed import process_group
    from jobs.distributed.devices import take_device
    from jobs.distributed.placement import Placement

    def start(folder: Path, device: str = "auto", deterministic: bool = False, backend: str = "horovod"):
        place = Placement.find()
        return process_group.ProcessGroup(place, take_device(place, device), collectives)

    process_group.start = start
    return main(list(argv))


if __name__ == "__main__":  # as the program of a training
    sys.exit({"over_horovod": over_horovod, "over_torch": over_torch}[sys.argv[1]](*sys.argv[2:]))
