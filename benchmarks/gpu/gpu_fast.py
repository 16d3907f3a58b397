"""Sections of gpu_check.py: how fast steps are, with the loader and without, and with what `train` has as options."""

import math
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from gpu_made import batches_of, dataset
from gpu_section import LABELS, Section, short, synchronise

from htr.models.registry import create

REHEARSED_S = 6.0  # of a measurement on the CPU, which means nothing


def speed(section: Section) -> None:
    """Lines a second as `train` takes its steps, on batches that are there and through the loader."""
    lines = dataset()
    sizes = ("tiny",) if section.small else ("small", "base", "large")
    counts = (8,) if section.small else (64, 256, 512) if section.quick else (64, 128, 256, 512)
    workers = max(len(os.sched_getaffinity(0)) - 1, 1)
    plan = [(size, batch) for size in sizes for batch in counts]
    plan.sort(key=lambda pair: (pair[1] != 256, sizes.index(pair[0])))  # what matters most comes first
    if section.small:
        section.needs_gpu("all figures, sizes from small and batches from 64")
    for done, (size, batch) in enumerate(plan):
        share = min(section.left() / (len(plan) - done), REHEARSED_S if section.small else math.inf)
        if share < 1.5:
            section.say(cut_short=f"no time for {len(plan) - done} of {len(plan)}")
            break
        row: dict = {"size": size, "batch": batch}
        with section.attempt(f"{size} {batch}"):
            try:
                few = batches_of(lines, batch, 1, workers, most=3 if section.small else 12)
                row |= measure(section, size, few, share * 0.35)
                if size in ("tiny", "small") or batch == 256:
                    loader = measure(section, size, batches_of(lines, batch, 2, workers), share * 0.45)
                    row |= {f"loader_{name}": value for name, value in loader.items() if name != "gib"}
                    row["ratio"] = loader["lines_per_s"] / row["lines_per_s"]
            except torch.cuda.OutOfMemoryError:
                row["error"] = "out of memory"
        section.row(**row)
        if section.device.type == "cuda":
            with section.attempt("memory given back"):
                torch.cuda.empty_cache()
    section.check("measured", any("lines_per_s" in row for row in section.found["rows"]))


def measure(section: Section, size: str, batches: Iterator | list, seconds: float, config=None) -> dict:
    """Steps for so long, after three of each shape as a warm-up: lines/s, ms a step, the GPU's share, its peak GiB."""
    train_step = stepper(section.device, size, config)
    cuda = section.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    endless = iter(batches) if not isinstance(batches, list) else (b for _ in range(10**6) for b in batches)
    end = time.monotonic() + 0.4 * seconds
    warm = len(batches) + 2 if isinstance(batches, list) else 3 if section.small else 12
    for number in range(warm):
        train_step.step(next(endless), number)
        if number > 2 and time.monotonic() > end:
            break
    synchronise(cuda)
    began, lines, steps = time.monotonic(), 0, 0
    while (steps < 6 or time.monotonic() - began < 0.4 * seconds) and steps < 2000:
        batch = next(endless)
        train_step.step(batch, steps)
        lines, steps = lines + len(batch.texts), steps + 1
    synchronise(cuda)
    passed = time.monotonic() - began
    row = {"lines_per_s": round(lines / passed, 1), "ms": short(1e3 * passed / steps)}
    if cuda:
        row["gib"] = short(torch.cuda.max_memory_allocated() / 2**30)
        try:
            row["gpu_share"], row["kernels"] = gpu_share(train_step, endless)
        except Exception as error:  # a profiler that fails here must not cost the figures
            row["profiler"] = f"{type(error).__name__}: {error}"[:80]
    return row


def gpu_share(train_step, batches: Iterator, steps: int = 6) -> tuple[float, int]:
    """Of the time of a few steps, the share in which a kernel ran; kernels a step. The profiler's own time counts."""
    from torch.profiler import ProfilerActivity, profile

    synchronise(True)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        began = time.monotonic()
        for number in range(steps):
            train_step.step(next(batches), number)
        synchronise(True)
        passed = time.monotonic() - began
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, end = 0.0, -np.inf
    for first, last in spans:
        busy += max(last - max(first, end), 0)
        end = max(end, last)
    return short(busy / 1e6 / passed), len(spans) // steps


def stepper(device: torch.device, size: str, config=None):
    """Steps as `train` takes them: Muon, clipping, the precision and options of a RuntimeConfig."""
    from jobs.distributed.placement import Placement
    from jobs.distributed.precision import precision
    from jobs.distributed.process_group import ProcessGroup
    from jobs.training import gpu_options
    from jobs.training import optimizer as optimizers
    from jobs.training.config import RuntimeConfig
    from jobs.training.metrics import MetricsLogger
    from jobs.training.train_step import TrainStep

    torch.manual_seed(1)
    model = create("ctc", size, LABELS).to(device)
    config = config or RuntimeConfig()
    gpu_options.apply(model, device, config)
    mixed, amp = precision(config.amp, device)
    scaled = amp == "fp16"
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    world = ProcessGroup(Placement.find({}), device)
    optimizer = optimizers.create("muon", model, 1e-4)
    return TrainStep(model, optimizer, scaler, mixed, encode, world, 1.0, MetricsLogger(device))


def encode(text: str) -> list[list[int]]:
    return [[1 + ord(character) % (LABELS - 1) for character in text]]


def compile(section: Section) -> None:
    """What `train` has as options, over one width, each beside none of them."""
    from dataclasses import replace

    from jobs.training import gpu_options
    from jobs.training.config import RuntimeConfig

    few = batches_of(dataset(), 8 if section.small else 256, 1, 2, most=4)
    wide = max(batch.images.shape[3] for batch in few)
    # one shape: each further one is compiled anew
    few = [replace(b, images=torch.nn.functional.pad(b.images, (0, wide - b.images.shape[3]))) for b in few]
    few = [batch for batch in few if len(batch.images) == len(few[0].images)]
    options = {
        "none": {},
        "--packed-lstm": {"packed_lstm": True},
        "--channels-last": {"channels_last": True},
        "--tf32 --amp off": {"tf32": True, "amp": "off"},
        "--amp off": {"amp": "off"},
        "--compile on": {"compile": "on"},
        "--compile graphs": {"compile": "graphs"},
    }
    if section.small:
        del options["--compile graphs"]
        section.needs_gpu("all figures, CUDA graphs, TF32")
    seconds = REHEARSED_S / 6 if section.small else 6.0
    for name, asked in options.items():
        if section.left() < 8:
            section.say(cut_short=f"no time for {name}")
            break
        config = RuntimeConfig(**asked)
        began = time.monotonic()
        try:
            row = measure(section, "tiny" if section.small else "small", few, seconds, config)
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
        gpu_options.apply(torch.nn.Module(), section.device, RuntimeConfig())  # TF32 is of the process
        section.row(what=name, **row, s=time.monotonic() - began)
    section.check("measured", any("lines_per_s" in row for row in section.found["rows"]))
