"""The sections of gpu_check.py, one a process: python benchmarks/gpu/gpu_sections.py SECTION DEVICE SECONDS [quick]

Each says what it finds in lines of JSON as soon as it is known, `checks` (what must be true) and `rows` (a table) among
them; the last lines hold all of it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from gpu_made import DROPPED, PLAIN, batches_of, dataset, drawn_lines, make_dataset, random_batches, train

from htr.models.registry import MODELS, create

ROOT = Path(__file__).resolve().parents[2]
LABELS = 100
# the largest difference of a loss beside fp32's on the CPU, relative
CLOSE = {"fp32": 2e-3, "bf16": 0.06, "fp16": 0.03}
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Section:
    """Says what it found."""

    def __init__(self, device: str, seconds: float, quick: bool):
        self.device, self.quick, self.small = torch.device(device), quick, device == "cpu"
        self.end = time.monotonic() + seconds - 4  # ends by itself before it is ended
        self.found: dict = {"checks": {}, "rows": []}
        if device == "cuda":
            torch.cuda.set_device(0)

    def left(self) -> float:
        return self.end - time.monotonic()

    def say(self, **found: object) -> None:
        self.found |= found
        print(json.dumps(self.found), flush=True)

    def row(self, **row: object) -> None:
        self.found["rows"].append({name: short(value) for name, value in row.items()})
        self.say()

    def check(self, name: str, good: bool) -> None:
        self.found["checks"][name] = bool(good)
        self.say()


def short(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def data(section: Section) -> None:
    """Made once, for the sections that wait for it."""
    began = time.monotonic()
    section.say(lines=make_dataset())
    section.say(s=short(time.monotonic() - began))


# ---------------------------------------------------------------------------- right


def losses(section: Section) -> None:
    """Of 20 steps: the same on the CPU and the GPU, and near them in half precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size, widest = ("tiny", 800) if section.small else ("small", 4000)
    for model in MODELS:
        told = {"cpu": steps_of(model, size, torch.device("cpu"), "fp32", widest)}
        for kind in KINDS:
            if section.small and kind == "fp16":
                continue  # GradScaler and fp16 convolutions belong to GPUs
            began = time.monotonic()
            told[kind] = steps_of(model, size, section.device, kind, widest)
            apart = [abs(a / b - 1) for a, b in zip(told[kind], told["cpu"], strict=True)]
            good = bool(np.isfinite(told[kind]).all()) and max(apart) < CLOSE[kind]
            section.row(model=model, kind=kind, first=told[kind][0], last=told[kind][-1], cpu_last=told["cpu"][-1],
                        apart_first=apart[0], apart=max(apart), s=time.monotonic() - began)  # fmt: skip
            section.check(f"{model} {kind} within {CLOSE[kind]}", good)


def steps_of(model: str, size: str, device: torch.device, kind: str, widest: int, steps: int = 20) -> list[float]:
    torch.manual_seed(17)
    reader = create(model, size, LABELS, dropout=0.0).to(device).train()
    if model == "attention":
        reader.decoder.noise = 0.0  # drawn on the device: other numbers on a GPU
    # a large eps: Adam's own turns the last bit of a gradient near zero into a whole step
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3, eps=1e-2)
    scaler = torch.amp.GradScaler(device.type, enabled=kind == "fp16", init_scale=2.0**10)
    batches = random_batches(4, 8 if widest > 1000 else 2, LABELS, widest)
    found = []
    for step in range(steps):
        images, widths, targets, characters = batches[step % len(batches)]
        with torch.autocast(device.type, KINDS[kind], enabled=kind != "fp32"):
            loss = reader.losses(images.to(device), widths.to(device), targets).sum() / characters
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        found.append(loss.item())
    return found


def layers(section: Section) -> None:
    """Each layer's output and gradients, in three precisions, beside fp64 on the CPU."""
    from htr.models.layers import BiLSTM, DilatedConvStack, LayerNorm2d, MaskedInstanceNorm, Residual

    limits = {"fp32": (1e-4, 5e-3), "bf16": (0.03, 0.25), "fp16": (0.005, 0.1)}  # outputs; gradients: a ReLU may flip
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    widths_to = 400 if section.small else 4000
    for kind, dtype in KINDS.items():
        torch.manual_seed(2)
        for name, layer in {
            "MaskedInstanceNorm": MaskedInstanceNorm(32),
            "LayerNorm2d": LayerNorm2d(32),
            "Residual": Residual(32, 48, MaskedInstanceNorm, (2, 2)),
            "BiLSTM": BiLSTM(32, 48),
            "DilatedConvStack": DilatedConvStack(32, 48),
        }.items():
            torch.manual_seed(3)
            flat = name in ("BiLSTM", "DilatedConvStack")
            if section.small and (name, kind) == ("BiLSTM", "fp16"):
                continue  # no CPU has it
            x = torch.randn((widths_to // 8, 3, 32) if flat else (3, 32, 24, widths_to // 2), dtype=torch.float64)
            if flat:
                along, strided = torch.tensor([len(x), len(x) // 2, 7]), None
            else:
                x = (x + 4) * 8  # as large as a CTC reader's become: their sums over a line pass 65 504
                used = torch.arange(x.shape[3]) < torch.tensor([x.shape[3], x.shape[3] // 2, 9])[:, None]
                along = used[:, None, None].double()
                strided = along[..., ::2] if name == "Residual" else along
                x = x * along
            if strided is None:
                strided = along
            wanted = both(layer.double(), x, along, strided, None, None)
            got = both(layer.to(section.device, torch.float32), x, along, strided, section.device, dtype)
            apart = [((a.double().cpu() - b).norm() / b.norm()).item() for a, b in zip(got, wanted, strict=True)]
            section.row(layer=name, kind=kind, output=apart[0], gradient=apart[1], weights=max(apart[2:]))
            good = apart[0] < limits[kind][0] and max(apart[1:]) < limits[kind][1]
            section.check(f"{name} {kind} within {limits[kind]}", good)


def both(layer, x, along, strided, device, dtype) -> list[torch.Tensor]:
    """Output, and the gradients of the input and of each weight."""
    layer.zero_grad()
    device = device or torch.device("cpu")
    inner = torch.float64 if dtype is None else torch.float32
    x = x.detach().to(device, inner, copy=True).requires_grad_()
    mask = along.to(device) if along.dtype == torch.int64 else strided.to(device, inner)
    with torch.autocast(device.type, dtype or torch.float32, enabled=dtype not in (None, torch.float32)):
        # as the encoder gives it: what came out of a convolution
        given = x.to(dtype) if dtype and along.dtype != torch.int64 else x
        y = layer(given, mask)
    if along.dtype != torch.int64:
        y = y * mask.to(y.dtype)
    torch.manual_seed(5)
    weights = torch.randn(y.shape, dtype=torch.float64).to(device)
    (y.double() * weights).sum().mul(1e-2).backward()
    # copies: a layer that moves to another device takes its gradients along
    return [y.detach(), x.grad, *(weight.grad.clone() for weight in layer.parameters())]


def readings(section: Section) -> None:
    """What the shipped reader reads, and how sure it is, on both."""
    from htr.reader import Reader

    folder = ROOT / "htr" / "pretrained"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    images = drawn_lines(16 if section.small else 96)
    for kind in ("greedy", "beam"):
        decoding = folder / "decoding" if kind == "beam" else None
        some = images if kind == "greedy" else images[: len(images) // 3]
        ours, theirs = (
            Reader.load(folder / "model", device, decoding=decoding).read(some) for device in ("cpu", section.device)
        )
        equal = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
        apart = max(abs(a.confidence - b.confidence) for a, b in zip(ours, theirs, strict=True))
        section.row(decoding=kind, lines=len(some), equal=equal, confidence_apart=apart)
        section.check(f"{kind}: every reading equal", equal == len(some))
        section.check(f"{kind}: confidences within 0.01", apart < 0.01)
    if section.small:
        return
    reader = Reader.load(folder / "model", section.device)
    cpu = Reader.load(folder / "model").read(images)
    for kind in ("bf16", "fp16"):
        with torch.autocast("cuda", KINDS[kind]):
            half = reader.read(images)
        section.row(
            decoding=kind, lines=len(images), equal=sum(a.text == b.text for a, b in zip(cpu, half, strict=True))
        )


# ---------------------------------------------------------------------------- exact resume


def resume(section: Section) -> None:
    """A run that was killed and went on, beside one that was not: the same losses and weights."""
    lines = dataset()
    options = [*DROPPED, "--size", "tiny", "--steps", "24", "--checkpoint-every", "6", "--device", section.device.type]
    folder = Path(os.environ["GPU_CHECK_FOLDER"]) / "resume"
    for precision in ("off",) if section.small or section.quick else ("off", "bf16", "fp16"):
        runs = [folder / f"{precision}-{name}" for name in ("whole", "again", "cut")]
        asked = [str(lines), *options, "--amp", precision, "--deterministic"]
        first = [train(asked, runs[0]), train(asked, runs[1])]
        cut = train(asked, runs[2])
        newest = runs[2] / "checkpoints" / "step-000012.pt"
        while not newest.exists() and cut.poll() is None and section.left() > 0:
            time.sleep(0.01)
        cut.send_signal(signal.SIGKILL)
        cut.wait()
        for run in first:
            run.wait()
        began = len(logged(runs[2]))
        code = train(asked, runs[2]).wait()
        whole, again, gone_on = (logged(run) for run in runs)
        section.row(amp=precision, killed_after=began, logged=len(gone_on), last=whole[-1] if whole else None)
        section.check(f"{precision}: it went on after kill -9", code == 0 and began < 24)
        section.check(f"{precision}: equal runs are equal", len(whole) == 24 and whole == again)
        section.check(f"{precision}: resumed as never killed", len(whole) == 24 and whole[-6:] == gone_on[-6:])
        weights = [(run / "model" / "weights.safetensors").read_bytes() for run in (runs[0], runs[2])]
        section.check(f"{precision}: the same weights", weights[0] == weights[1])


def logged(run: Path) -> list[float]:
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


# ---------------------------------------------------------------------------- fast


def speed(section: Section) -> None:
    """Lines a second as `train` takes its steps, on batches that are there and through the loader."""
    lines = dataset()
    sizes = ("tiny",) if section.small else ("small", "base", "large")
    counts = (32,) if section.small else (64, 256, 512) if section.quick else (64, 128, 256, 512)
    threads = max(len(os.sched_getaffinity(0)) - 1, 1)
    plan = [(size, batch) for size in sizes for batch in counts]
    plan.sort(key=lambda pair: (pair[1] != 256, sizes.index(pair[0])))  # what matters most comes first
    for done, (size, batch) in enumerate(plan):
        share = section.left() / (len(plan) - done)
        if share < 1.5:
            section.say(cut_short=f"no time for {len(plan) - done} of {len(plan)}")
            break
        row: dict = {"size": size, "batch": batch}
        try:
            few = batches_of(lines, batch, 1, threads, most=12)
            row |= measure(section, size, few, share * 0.35)
            if size == "small" or batch == 256:
                loader = measure(section, size, batches_of(lines, batch, 2, threads), share * 0.45)
                row |= {f"loader_{name}": value for name, value in loader.items() if name != "gib"}
                row["ratio"] = loader["lines_per_s"] / row["lines_per_s"]
        except torch.cuda.OutOfMemoryError:
            row["error"] = "out of memory"
        section.row(**row)
        if section.device.type == "cuda":
            torch.cuda.empty_cache()
    section.check("measured", any("lines_per_s" in row for row in section.found["rows"]))


def measure(section: Section, size: str, batches: Iterator | list, seconds: float, wrap=None) -> dict:
    """Steps for so long, after three of each shape as a warm-up: lines/s, ms a step, the GPU's share, its peak GiB."""
    train_step = stepper(section.device, size, wrap)
    cuda = section.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    endless = iter(batches) if not isinstance(batches, list) else (b for _ in range(10**6) for b in batches)
    end = time.monotonic() + 0.4 * seconds
    warm = len(batches) + 2 if isinstance(batches, list) else 12
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


def synchronise(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


def stepper(device: torch.device, size: str, wrap=None):
    """Steps as `train` takes them: Muon, the precision that it would choose, clipping."""
    from jobs.distributed.placement import Placement
    from jobs.distributed.precision import precision
    from jobs.distributed.process_group import ProcessGroup
    from jobs.training import optimizer as optimizers
    from jobs.training.metrics import MetricsLogger
    from jobs.training.train_step import TrainStep

    torch.manual_seed(1)
    model = create("ctc", size, LABELS).to(device)
    if wrap:
        wrap(model)
    mixed, amp = precision("auto", device)
    scaled = amp == "fp16"
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    world = ProcessGroup(Placement.find({}), device)
    optimizer = optimizers.create("muon", model, 1e-4)
    return TrainStep(model, optimizer, scaler, mixed, encode, world, 1.0, MetricsLogger())


def encode(text: str) -> list[list[int]]:
    return [[1 + ord(character) % (LABELS - 1) for character in text]]


def compile(section: Section) -> None:
    """torch.compile and CUDA graphs over one width, beside neither; the encoder alone is compiled."""
    from dataclasses import replace

    few = batches_of(dataset(), 32 if section.small else 256, 1, 2, most=4)
    wide = max(batch.images.shape[3] for batch in few)
    # one shape: each further one is compiled anew
    few = [replace(b, images=torch.nn.functional.pad(b.images, (0, wide - b.images.shape[3]))) for b in few]
    few = [batch for batch in few if len(batch.images) == len(few[0].images)]
    modes = {"off": None, "compile": "default", "compile and graphs": "reduce-overhead"}
    if section.small:
        del modes["compile and graphs"]
    for name, mode in modes.items():
        if section.left() < 8:
            section.say(cut_short=f"no time for {name}")
            break

        def wrap(model, mode=mode) -> None:
            if mode:
                model.encoder.compile(mode=mode, dynamic=False)

        began = time.monotonic()
        try:
            row = measure(section, "tiny" if section.small else "small", few, 6.0, wrap)
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
        section.row(what=name, **row, s=time.monotonic() - began)
    section.check("measured", any("lines_per_s" in row for row in section.found["rows"]))


# ---------------------------------------------------------------------------- several ranks


def nccl(section: Section) -> None:
    """The losses of a world of one without Horovod, over NCCL, and of two ranks on the one GPU over Gloo."""
    lines, folder = dataset(), Path(os.environ["GPU_CHECK_FOLDER"]) / "worlds"
    options = [str(lines), *PLAIN, "--size", "tiny", "--steps", "12", "--device", section.device.type, "--amp", "off"]
    options += ["--deterministic", "--lr", "2e-4"]
    began = {"alone": [train(options, folder / "alone")]}
    began["nccl"] = [train(options, folder / "nccl", program=[__file__, "over_horovod"])]
    parent = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "HTR_SHARED_GPU": "1"}
    began["two"] = [
        train(options, folder / "two", **parent, SUBMITIT_LOCAL_GLOBALID=str(rank), SUBMITIT_LOCAL_LOCALID=str(rank))
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

    from jobs.cli.command_line import main
    from jobs.distributed import process_group
    from jobs.distributed.devices import take_device
    from jobs.distributed.placement import Placement

    hvd.init()
    print(json.dumps({"nccl_built": bool(hvd.nccl_built()), "gloo_built": bool(hvd.gloo_built())}), flush=True)

    def start(folder: Path, device: str = "auto", deterministic: bool = False) -> process_group.ProcessGroup:
        place = Placement.find()
        return process_group.ProcessGroup(place, take_device(place, device), hvd)

    process_group.start = start
    return main(list(argv))


def main() -> int:
    name, device, seconds, *more = sys.argv[1:]
    if name == "over_horovod":
        return over_horovod(*sys.argv[2:])
    # the data set is made in forked processes, which must not inherit a GPU that is in use
    section = Section("cpu" if name == "data" else device, float(seconds), "quick" in more)
    SECTIONS[name](section)
    section.say()
    return 0


SECTIONS = {f.__name__: f for f in (data, losses, layers, readings, resume, speed, compile, nccl)}

if __name__ == "__main__":
    sys.exit(main())
