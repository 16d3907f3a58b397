"""A CTC reader as an ONNX model, and the check that it reads like the one in PyTorch. Needs the extra `onnx`.

The model takes `images` (N, 1, H, W) uint8, 0 paper to 255 ink, zero right of each line's own width, W a multiple of
the encoder's step, and `widths` (N,) int64; it gives `log_probs` (N, W / frame, labels + 1) float32, the blank at 0,
and `lengths` (N,) int64, the frames in use. What lies beyond a line's length means nothing. Its metadata say the rest,
see `metadata`.
"""

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from htr.decoding.greedy import greedy
from htr.lines.normalise import MIN_LINE_WIDTH_PX, normalise_line
from htr.models.ctc.reader import CTCReader
from htr.models.layers import BiLSTM
from htr.reader import Reader

OPSET = 20
MAX_DIFFERENCE_NATS = 1e-3  # of a probability; what is never read, below -35 nats, may differ by more nats


def to_onnx(reader: Reader) -> bytes:
    """The reader's model, batch and width left open. Raises ValueError for another than a CTC reader."""
    if type(reader.model) is not CTCReader:  # an attention reader is one, too, but reads by its decoder
        raise ValueError(
            f"model '{reader.config.get('model')}' is autoregressive, which is not exported to ONNX: "
            "only CTC readers (ctc, conv) can be exported; --model of training chooses"
        )
    network = Network(copy.deepcopy(reader.model).cpu().float()).eval()
    encoder = reader.model.encoder.config
    images = torch.zeros(2, 1, encoder.height, 20 * encoder.step, dtype=torch.uint8)
    widths = torch.tensor([20 * encoder.step, 12 * encoder.step + 1])
    lines = torch.export.Dim("lines")
    width = encoder.step * torch.export.Dim("columns", min=max(MIN_LINE_WIDTH_PX // encoder.step, 1))
    with torch.no_grad(), quiet():
        # exported here and not by torch.onnx, which on a fault tries other ways until one works for this width alone
        program = torch.export.export(network, (images, widths), dynamic_shapes=({0: lines, 3: width}, {0: lines}))
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images", "widths"],
            output_names=["log_probs", "lengths"],
            verbose=False,
        )
    proto = exported.model_proto
    for name, value in metadata(reader).items():
        proto.metadata_props.add(key=name, value=value)
    return proto.SerializeToString()


def metadata(reader: Reader) -> dict[str, str]:
    """Key and value of the ONNX model's metadata: what a program needs to read with it."""
    encoder = reader.model.encoder.config
    known = {name: str(reader.config[name]) for name in ("model", "size", "step", "writes") if name in reader.config}
    return known | {
        "alphabet": json.dumps(reader.charset.characters, ensure_ascii=False),  # label 1 is its first character
        "blank": "0",
        "height": str(encoder.height),
        "frame": str(encoder.geometry.frame),
        "width_multiple": str(encoder.step),
        "ink": "255",
        "paper": "0",
    }


class Network(nn.Module):
    """The model from images to log-probabilities, with ONNX's bidirectional LSTMs."""

    def __init__(self, model: CTCReader):
        super().__init__()
        self.model = with_onnx_lstms(model)

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.model.encode(images.float() / 255, widths)
        return encoded.log_probs, encoded.lengths


def with_onnx_lstms(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, OnnxBiLSTM(child) if isinstance(child, BiLSTM) else with_onnx_lstms(child))
    return module


class OnnxBiLSTM(nn.Module):
    """A BiLSTM as ONNX's own bidirectional LSTM, which knows lengths; only for the export, where PyTorch's would be
    unrolled for one width."""

    def __init__(self, lstm: BiLSTM):
        super().__init__()
        ways = (lstm.forwards, lstm.backwards)
        self.hidden = lstm.forwards.hidden_size
        self.register_buffer("inputs", torch.stack([gates(way.weight_ih_l0) for way in ways]))
        self.register_buffer("recurrent", torch.stack([gates(way.weight_hh_l0) for way in ways]))
        biases = [torch.cat([gates(way.bias_ih_l0), gates(way.bias_hh_l0)]) for way in ways]
        self.register_buffer("biases", torch.stack(biases))

    def forward(self, x: Tensor, lengths: Tensor, on_cpu: Tensor | None = None) -> Tensor:
        """(T, N, C), (N,) -> (T, N, 2 * hidden). `on_cpu`, as BiLSTM has it, is of no use here."""
        given = (x, self.inputs, self.recurrent, self.biases, lengths.to(torch.int32))
        y = torch.onnx.ops.symbolic(
            "LSTM",
            given,
            {"hidden_size": self.hidden, "direction": "bidirectional"},
            dtype=x.dtype,
            shape=(x.shape[0], 2, x.shape[1], self.hidden),
        )
        return y.transpose(1, 2).flatten(2)


def gates(weights: Tensor) -> Tensor:
    """PyTorch's order of the gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    i, f, c, o = weights.detach().chunk(4)
    return torch.cat([i, o, f, c])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's words on torchvision, which is not needed, and on its own deprecations."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


# ---------------------------------------------------------------------------- the check


@dataclass(frozen=True)
class Agreement:
    difference: float  # the largest of probabilities
    lines: int
    alike: int  # of them, with the same greedy reading; two labels closer than the difference may change places


def check(content: bytes, reader: Reader, seed: int = 0) -> Agreement:
    """Read lines of many widths with both models, alone and in a padded batch.

    Raises ValueError when the ONNX model can't be run, its probabilities differ by MAX_DIFFERENCE_NATS or more, or it
    reads a
    line otherwise where no two labels are that close.
    """
    inks = some_lines(np.random.default_rng(seed), reader.geometry.height)
    largest, alike, lines, torn = 0.0, 0, 0, 0
    try:
        session = open_session(content)
        for batch in [*([ink] for ink in inks), inks]:
            images, widths = padded(batch, reader.model.encoder.config.step)
            log_probs, lengths = session.run(None, {"images": images, "widths": widths})
            expected = reader.encode(torch.from_numpy(images), torch.from_numpy(widths))
            if lengths.tolist() != expected.lengths.tolist():
                raise ValueError("its number of frames differs from that of the model that it was made from")
            for ours, theirs, length in zip(expected.log_probs.cpu().numpy(), log_probs, lengths, strict=True):
                largest = max(largest, float(np.abs(np.exp(ours[:length]) - np.exp(theirs[:length])).max()))
            readings = [greedy(probs, expected.lengths) for probs in (expected.log_probs, torch.from_numpy(log_probs))]
            same = [ours.labels == theirs.labels for ours, theirs in zip(*readings, strict=True)]
            alike += sum(same)
            top = expected.log_probs.exp().topk(2, dim=-1).values
            close = ((top[..., 0] - top[..., 1]) < 2 * MAX_DIFFERENCE_NATS).any(dim=1).tolist()
            torn += sum(not (one or near) for one, near in zip(same, close, strict=True))
            lines += len(batch)
    except Exception as error:  # onnxruntime has kinds of its own for every fault of a model
        raise ValueError(
            f"the ONNX model is not usable ({type(error).__name__}: {error}): nothing was written"
        ) from None
    if not largest < MAX_DIFFERENCE_NATS:
        raise ValueError(
            f"the ONNX model's probabilities differ by {largest:.2g}, "
            f"less than {MAX_DIFFERENCE_NATS} are allowed: nothing "
            "was written"
        )
    if torn:
        raise ValueError(f"the ONNX model reads {torn} of {lines} lines otherwise: nothing was written")
    return Agreement(largest, lines, alike)


def open_session(content: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def padded(inks: list[np.ndarray], multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """N lines (H, W) uint8 -> images (N, 1, H, W) uint8, W a multiple of so many; widths (N,) int64."""
    widths = np.array([ink.shape[1] for ink in inks], np.int64)
    images = np.zeros((len(inks), 1, len(inks[0]), -(-int(widths.max()) // multiple) * multiple), np.uint8)
    for image, ink in zip(images, inks, strict=True):
        image[0, :, : ink.shape[1]] = ink
    return images, widths


def some_lines(rng: np.random.Generator, height: int) -> list[np.ndarray]:
    """Scribbles of widths from the narrowest to 2 000 pixels, as a model sees them."""
    inks = []
    for width in (MIN_LINE_WIDTH_PX, 21, 96, 333, 1001, 2000):
        gray = np.full((height, width), 220, np.uint8)
        steps = np.arange(-8, width + 8, 4)
        points = np.stack(
            [steps + rng.integers(-6, 7, len(steps)), rng.integers(height // 5, 4 * height // 5, len(steps))], axis=1
        )
        cv2.polylines(gray, [points.astype(np.int32)], False, 30, 2, cv2.LINE_AA)
        inks.append(normalise_line(gray, height))
    return inks
