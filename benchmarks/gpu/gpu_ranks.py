"""The section of gpu_check.py about several ranks, and trainings in a world of one whose gradients a library sums."""

import json
import os
import sys
from pathlib import Path

from gpu_made import PLAIN, dataset, train
from gpu_section import Section, logged


def nccl(section: Section) -> None:
    """The losses of a world of one without a library, and over NCCL through Horovod, also with its asynchronous
    completion; and of two ranks on the one GPU over Gloo, through Horovod and through torch.distributed.
    """
    lines, folder = dataset(), Path(os.environ["GPU_CHECK_FOLDER"]) / "worlds"
    options = [str(lines), *PLAIN, "--size", "tiny", "--steps", "12", "--device", section.device.type, "--amp", "off"]
    options += ["--deterministic", "--lr", "2e-4"]
    began = {"alone": [train(options, folder / "alone")]}
    began["nccl"] = [train(options, folder / "nccl", program=[__file__, "over_horovod"])]
    began["nccl, async"] = [
        train(options, folder / "nccl, async", program=[__file__, "over_horovod"], HOROVOD_ENABLE_ASYNC_COMPLETION="1")
    ]
    began["nccl, torch"] = [train(options, folder / "nccl, torch", program=[__file__, "over_torch"])]
    parent = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "HTR_SHARED_GPU": "1"}
    for backend in ("horovod", "torch"):
        name = f"two, {backend}"
        began[name] = [
            train(
                [*options, "--backend", backend],
                folder / name,
                **parent,
                SUBMITIT_LOCAL_GLOBALID=str(rank),
                SUBMITIT_LOCAL_LOCALID=str(rank),
            )
            for rank in range(2)
        ]
    codes = {name: [process.wait() for process in processes] for name, processes in began.items()}
    alone = logged(folder / "alone")
    for name in codes:
        found = logged(folder / name)
        whole = len(found) == len(alone) == 12
        apart = max(abs(a / b - 1) for a, b in zip(found, alone, strict=True)) if whole else None
        section.row(
            world=name, codes=str(codes[name]), losses=len(found), last=found[-1] if found else None, apart=apart
        )
        section.check(f"{name}: losses as a world of one", apart is not None and apart < 1e-3)


def over_horovod(*argv: str) -> int:
    """`train` in a world of one whose gradients Horovod sums all the same."""
    import horovod.torch as hvd

    from jobs.distributed.horovod_backend import Horovod

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
