"""Sections of gpu_check.py: whether a GPU computes what a CPU does, and the same again."""

import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from gpu_made import DROPPED, dataset, drawn_lines, random_batches, train
from gpu_section import KINDS, LABELS, ROOT, Section, logged

from htr.models.registry import MODELS, create

# the largest difference of a loss beside fp32's on the CPU, relative
CLOSE = {"fp32": 2e-3, "bf16": 0.06, "fp16": 0.03}


def losses(section: Section) -> None:
    """Of 20 steps: the same on the CPU and the GPU, and near them in half precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size, widest = ("tiny", 800) if section.small else ("small", 4000)
    if section.small:
        section.needs_gpu("fp16 with its scaler")
    for model in MODELS:
        told = {"cpu": steps_of(model, size, torch.device("cpu"), "fp32", widest)}
        for kind in KINDS:
            if section.small and kind == "fp16":
                continue
            began = time.monotonic()
            with section.attempt(f"{model} {kind}"):
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
    if section.small:
        section.needs_gpu("BiLSTM in fp16")
    for kind, dtype in KINDS.items():
        torch.manual_seed(2)
        for name, layer in {
            "MaskedInstanceNorm": MaskedInstanceNorm(32),
            "LayerNorm2d": LayerNorm2d(32),
            "Residual": Residual(32, 48, MaskedInstanceNorm, (2, 2)),
            "BiLSTM": BiLSTM(32, 48),
            "DilatedConvStack": DilatedConvStack(32, 48),
        }.items():
            if section.small and (name, kind) == ("BiLSTM", "fp16"):
                continue  # no CPU has it
            with section.attempt(f"{name} {kind}"):
                apart = apart_of(layer, name, dtype, section.device, 400 if section.small else 4000)
                section.row(layer=name, kind=kind, output=apart[0], gradient=apart[1], weights=max(apart[2:]))
                good = apart[0] < limits[kind][0] and max(apart[1:]) < limits[kind][1]
                section.check(f"{name} {kind} within {limits[kind]}", good)


def apart_of(layer: torch.nn.Module, name: str, dtype: torch.dtype, device: torch.device, widest: int) -> list[float]:
    """How far output and gradients are from those of fp64 on the CPU, in the norm."""
    torch.manual_seed(3)
    flat = name in ("BiLSTM", "DilatedConvStack")
    x = torch.randn((widest // 8, 3, 32) if flat else (3, 32, 24, widest // 2), dtype=torch.float64)
    if flat:
        along = strided = torch.tensor([len(x), len(x) // 2, 7])
    else:
        x = (x + 4) * 8  # as large as a CTC reader's become: their sums over a line pass 65 504
        used = torch.arange(x.shape[3]) < torch.tensor([x.shape[3], x.shape[3] // 2, 9])[:, None]
        along = used[:, None, None].double()
        strided = along[..., ::2] if name == "Residual" else along
        x = x * along
    wanted = both(layer.double(), x, along, strided, None, None)
    got = both(layer.to(device, torch.float32), x, along, strided, device, dtype)
    return [((a.double().cpu() - b).norm() / b.norm()).item() for a, b in zip(got, wanted, strict=True)]


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
        with section.attempt(kind):
            ours, theirs = (
                Reader.load(folder / "model", device, decoding=decoding).read(some)
                for device in ("cpu", section.device)
            )
            equal = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
            apart = max(abs(a.confidence - b.confidence) for a, b in zip(ours, theirs, strict=True))
            section.row(decoding=kind, lines=len(some), equal=equal, confidence_apart=apart)
            section.check(f"{kind}: every reading equal", equal == len(some))
            section.check(f"{kind}: confidences within 0.01", apart < 0.01)
    with section.attempt("transcribe"):
        shared(section, images)
    if section.small:
        section.needs_gpu("readings in bf16 and fp16")
        return
    reader = Reader.load(folder / "model", section.device)
    cpu = Reader.load(folder / "model").read(images)
    for kind in ("bf16", "fp16"):
        with section.attempt(kind):
            with torch.autocast("cuda", KINDS[kind]):
                half = reader.read(images)
            same = sum(a.text == b.text for a, b in zip(cpu, half, strict=True))
            section.row(decoding=kind, lines=len(images), equal=same)


def shared(section: Section, images: list[np.ndarray]) -> None:
    """`transcribe` with worker processes for which one process holds the GPU, beside the CPU alone."""
    import cv2

    from jobs.cli.command_line import main
    from jobs.transcription import chunks

    folder, texts = Path(os.environ["GPU_CHECK_FOLDER"]) / "shared", []
    (folder / "lines").mkdir(parents=True)
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "lines" / f"{number:03d}.png"), image)
    options = ["transcribe", str(folder / "lines"), "--chunk", str(len(images) // 4), "--amp", "off", "--workers", "2"]
    for name, device in (("cpu", "cpu"), ("shared", section.device.type)):
        if name == "shared":
            chunks.shares_reader = lambda device: True  # the CPU, too, where it stands in
        out, began = folder / name / "o.csv", time.monotonic()
        out.parent.mkdir()
        section.check(f"transcribe {name}", main([*options, "--out", str(out), "--device", device]) == 0)
        with open(out, newline="", encoding="utf-8") as file:
            texts.append([row["text"] for row in csv.DictReader(file)])
        section.row(transcribe=name, lines=len(images), s=time.monotonic() - began)
    section.check("transcribe: every reading equal", texts[0] == texts[1] and len(texts[0]) == len(images))


def repeat(section: Section) -> None:
    """Which layer, if any, does not compute the same bits again under --deterministic, one after the other.

    On 2026-11-26 two equal runs differed on an H200, and nothing said by what.
    """
    from htr.models.layers import BiLSTM, DilatedConvStack, LayerNorm2d, MaskedInstanceNorm, Residual

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(2)
    lines, lengths = torch.randn(300, 16, 96), torch.randint(20, 300, (16,))
    image = torch.randn(16, 24, 24, 800)
    used = (torch.arange(800) < torch.randint(90, 800, (16,))[:, None])[:, None, None].float()
    packed = BiLSTM(96, 96)
    packed.packed = True
    cases = {
        "MaskedInstanceNorm": (MaskedInstanceNorm(24), image * used, used),
        "LayerNorm2d": (LayerNorm2d(24), image * used, used),
        "Residual": (Residual(24, 32, MaskedInstanceNorm, (2, 2)), image * used, used[..., ::2]),
        "BiLSTM": (BiLSTM(96, 96), lines, lengths),
        "BiLSTM, packed": (packed, lines, lengths),
        "DilatedConvStack": (DilatedConvStack(96, 96), lines, lengths),
    }
    for name, (layer, x, mask) in cases.items():
        with section.attempt(name):
            same = same_bits(layer.to(section.device), x, mask, (lengths,) if name.startswith("BiLSTM") else ())
            section.row(what=name, same=same)
            section.check(f"{name}: the same bits", same)
    for kind in ("muon", "adamw"):
        with section.attempt(kind):
            one, other = stepped_by(kind, section.device), stepped_by(kind, section.device)
            same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
            section.row(what=f"steps of {kind}", same=same)
            section.check(f"steps of {kind}: the same bits", same)


def same_bits(layer: torch.nn.Module, x: torch.Tensor, mask: torch.Tensor, more: tuple) -> bool:
    """Whether output and gradients are equal in three goes on the layer's device."""
    device, found = next(layer.parameters()).device, []
    for _ in range(3):
        layer.zero_grad()
        given = x.to(device).requires_grad_()
        y = layer(given, mask.to(device), *more)
        (y * y).sum().backward()
        found.append([y.detach(), given.grad, *(weight.grad.clone() for weight in layer.parameters())])
    return all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))


def stepped_by(kind: str, device: torch.device) -> list[torch.Tensor]:
    """A model's weights after three steps of an optimizer with drawn gradients."""
    from jobs.training import optimizer as optimizers

    torch.manual_seed(3)
    model = create("ctc", "tiny", LABELS).to(device)
    optimizer = optimizers.create(kind, model, 1e-3)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def resume(section: Section) -> None:
    """A run that was killed and went on, beside one that was not: the same losses and weights."""
    lines = dataset()
    options = [*DROPPED, "--size", "tiny", "--steps", "24", "--checkpoint-every", "6", "--device", section.device.type]
    folder = Path(os.environ["GPU_CHECK_FOLDER"]) / "resume"
    if section.small:
        section.needs_gpu("bf16 and fp16")
    for precision in ("off",) if section.small or section.quick else ("off", "bf16", "fp16"):
        with section.attempt(precision):
            resumed(section, [str(lines), *options, "--amp", precision, "--deterministic"], folder, precision)


def resumed(section: Section, asked: list[str], folder: Path, precision: str) -> None:
    runs = [folder / f"{precision}-{name}" for name in ("whole", "again", "cut")]
    first, cut = [train(asked, runs[0]), train(asked, runs[1])], train(asked, runs[2])
    newest = runs[2] / "checkpoints" / "step-000012.pt"
    while not newest.exists() and cut.poll() is None and section.left() > 5:
        time.sleep(0.01)
    cut.send_signal(signal.SIGKILL)
    cut.wait()
    codes = [section.end_of(run) for run in first]
    began = len(logged(runs[2]))
    codes.append(section.end_of(train(asked, runs[2])))
    whole, again, gone_on = (logged(run) for run in runs)
    section.row(amp=precision, codes=str(codes), killed_after=began, logged=len(gone_on), last=(whole or [None])[-1])
    section.check(f"{precision}: it went on after kill -9", codes[-1] == 0 and began < 24)
    section.check(f"{precision}: equal runs are equal", len(whole) == 24 and whole == again)
    section.check(f"{precision}: resumed as never killed", len(whole) == 24 and whole[-6:] == gone_on[-6:])
    weights = [(run / "model" / "weights.safetensors").read_bytes() for run in (runs[0], runs[2])]
    section.check(f"{precision}: the same weights", weights[0] == weights[1])
