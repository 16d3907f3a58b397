"""A reader: a model with its charset, loaded from a folder of two small files, and a decoder.

reader = Reader.load("runs/ctc/model")                                     # greedy
reader = Reader.load("runs/ctc/model", decoding="runs/ctc/decoding")       # a beam search, after python -m jobs tune
for reading in reader.read(images):                                        # gray (H, W) uint8, any size
    print(reading.text, reading.confidence)
for word in reader.read(images, boxes=True)[0].words:
    print(word.text, word.left, word.right, word.confidence)               # px of the image given
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from htr.charset import Charset
from htr.decoding.align import Alignment, Box, align_many, character_boxes, word_boxes
from htr.decoding.decoder import BeamDecoder, GreedyDecoder
from htr.io.given import line_images
from htr.lines.normalise import normalise_line
from htr.models.encoder import EncoderConfig
from htr.models.legacy import current_names
from htr.models.registry import create, encoder_config
from htr.types import EncoderOutput, Hypothesis, LineGeometry

FORMAT = 2  # 1 named a size alone; its lines are 48 px high, as EncoderConfig has it unless told
KEYS = ("format", "model", "size", "encoder", "alphabet", "writes", "delay")  # of config.json; the last one may lack


@dataclass(frozen=True)
class Prediction:
    text: str
    confidence: float  # 0 to 1, one of the signals' making and not calibrated
    signals: dict[str, float] = field(default_factory=dict)  # see htr/decoding/signals.py
    words: list[Box] = field(default_factory=list)  # with boxes=True; none where a text needs more frames than its line
    characters: list[Box] = field(default_factory=list)  # the same
    word_confidences: list[float] | None = None  # one for each of text.split(), not calibrated; None: not given
    word_signals: dict[str, list[float]] = field(default_factory=dict)  # the same lengths, see signals.py
    # of a beam search: other texts of the n best, likeliest first, with their shares
    alternatives: list[tuple[str, float]] = field(default_factory=list)


class Reader:
    """A model with its charset and a `decoder` (default: greedy). `emission_delay`, in px of what the model sees,
    is how far right of the writing CTC's peaks are (align.measure_emission_delay): the decoder's, else config.json's,
    else 0.
    """

    def __init__(
        self, model: nn.Module, charset: Charset, config: dict, decoder: GreedyDecoder | BeamDecoder | None = None
    ):
        self.model, self.charset, self.config = model, charset, config
        self.decoder = decoder or GreedyDecoder(charset)
        self.emission_delay = (
            decoder.emission_delay if isinstance(decoder, BeamDecoder) else float(config.get("delay", 0.0))
        )

    @property
    def geometry(self) -> LineGeometry:
        """Height of the lines and width of the frames."""
        return self.model.geometry

    @classmethod
    def load(
        cls, folder: str | Path, device: str | torch.device = "cpu", decoding: str | Path | None = None
    ) -> "Reader":
        """`decoding`: a folder that `python -m jobs tune` wrote for this model; None: greedy.

        Raises ValueError when a folder holds no model or no decoding, or one that is damaged, of a newer format, or
        was tuned for another model.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            charset = Charset(config["alphabet"])
            model = create(config["model"], encoder_of(config), len(charset))
            with safe_open(folder / "weights.safetensors", "pt") as weights:
                stored = {key: weights.get_tensor(key) for key in weights.keys()}  # noqa: SIM118
                model.load_state_dict(current_names(stored))
                config["step"] = int(weights.metadata()["step"])
        except FileNotFoundError:
            raise ValueError(f"{folder}: no model here (config.json and weights.safetensors are needed)") from None
        except Exception as error:  # safetensors, json and torch each raise their own kinds
            raise ValueError(f"{folder}: not a model that can be read ({type(error).__name__}: {error})") from None
        decoder = BeamDecoder.load(decoding, charset, weights_of(folder)) if decoding else None
        return cls(model.to(device).eval(), charset, config, decoder)

    def read(
        self,
        images: object,
        batch: int = 16,
        fields: Sequence[str | None] | None = None,
        boxes: bool = False,
    ) -> list[Prediction]:
        """Line images -> their texts, in the same order: one or many, each a path, a PIL image or an array, gray or
        colour, uint8, bool or float (see htr.io.given).

        `fields` says of what field of the form each is, for its language model. `boxes` adds those of words and
        characters, in px of the image given. Raises ValueError: what is no image, a page, or light on dark.
        """
        images = line_images(images)
        if fields is not None and len(fields) != len(images):
            raise ValueError(f"{len(images)} images and {len(fields)} fields: give one field an image, or None")
        inks = [normalise_line(image, self.geometry.height) for image in images]
        texts: dict[int, Prediction] = {}
        for part, encoded in self.encode_lines(inks, batch):
            readings = self.decode(encoded, [fields[i] for i in part] if fields is not None else None)
            found = [self.text(reading) for reading in readings]
            if boxes:
                log_probs, labels = encoded.log_probs.float().cpu().numpy(), [reading.labels for reading in readings]
                alignments = align_many(log_probs, labels, encoded.lengths.tolist())
                shapes, seen = [images[i].shape for i in part], [inks[i] for i in part]
                found = list(map(self.with_boxes, found, readings, alignments, shapes, seen))
            texts.update(zip(part, found, strict=True))
        return [texts[i] for i in range(len(inks))]

    def encode_lines(self, inks: Sequence[np.ndarray], batch: int) -> Iterator[tuple[list[int], EncoderOutput]]:
        """Normalised lines, each (H, W) uint8 ink (see htr.lines.normalise), by `batch` at once, narrow ones first
        -> the places of a batch's lines among them, and what the encoder makes of these.
        """
        order = sorted(range(len(inks)), key=lambda i: inks[i].shape[1])
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            widths = [inks[i].shape[1] for i in part]
            padded = np.zeros((len(part), 1, self.geometry.height, max(widths)), np.uint8)
            for row, i, width in zip(padded, part, widths, strict=True):
                row[0, :, :width] = inks[i]
            yield part, self.encode(torch.from_numpy(padded), torch.tensor(widths))

    def read_batch(
        self, images: torch.Tensor, widths: torch.Tensor, fields: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """(N, 1, H, W) uint8 ink and (N,) widths, as the stream gives them -> N texts, without boxes.

        H is the geometry's height.
        """
        return [self.text(reading) for reading in self.decode(self.encode(images, widths), fields)]

    def encode(self, images: torch.Tensor, widths: torch.Tensor) -> EncoderOutput:
        """(N, 1, H, W) uint8 ink and (N,) widths -> the encoder's output, on the model's device."""
        device = next(self.model.parameters()).device
        with torch.no_grad():
            return self.model.encode(images.to(device).float() / 255, widths.to(device))

    def decode(self, encoded: EncoderOutput, fields: Sequence[str | None] | None = None) -> list[Hypothesis]:
        with torch.no_grad():
            return self.decoder.decode(self.model, encoded, fields)

    def text(self, reading: Hypothesis) -> Prediction:
        known = {"word_confidences": reading.words, "word_signals": reading.word_signals}
        known |= {"alternatives": reading.alternatives}
        return Prediction(self.charset.decode(reading.labels), reading.confidence, reading.signals, **known)

    def with_boxes(
        self,
        text: Prediction,
        reading: Hypothesis,
        alignment: Alignment | None,
        shape: tuple[int, int],
        ink: np.ndarray,
    ) -> Prediction:
        if alignment is None:
            return text
        words = word_boxes(alignment, text.text, shape, self.geometry, ink, self.emission_delay)
        if reading.words is not None:
            words = [replace(box, confidence=value) for box, value in zip(words, reading.words, strict=True)]
        characters = character_boxes(alignment, text.text, shape, self.geometry, self.emission_delay)
        return replace(text, words=words, characters=characters)


def encoder_of(config: dict) -> EncoderConfig:
    """Of a model's config.json, whatever its format. Raises ValueError saying what is wrong with it."""
    if config["format"] == 1:
        return encoder_config(config["model"], config["size"])
    if config["format"] != FORMAT:
        raise ValueError(f"format {config['format']}, this code reads 1 to {FORMAT}")
    if unknown := [name for name in config if name not in KEYS]:
        raise ValueError(f"config.json: unknown key {', '.join(unknown)}; this code knows {', '.join(KEYS)}")
    return EncoderConfig.from_json(config["encoder"])


def join_lines(texts: Sequence[str]) -> str:
    """What the lines of a field say together, from the top; a line alone is left as it was read."""
    return texts[0] if len(texts) == 1 else " ".join(filter(None, map(str.strip, texts)))


def weights_of(folder: Path) -> str:
    """The SHA-256 of a model's weights: what a decoding is tuned for, and an evaluation is of."""
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()[:16]


def digest_of_model(folder: Path) -> str:
    """Of all that a model's readings hang on: its weights, and of its config alphabet, shape and delay. An alphabet in
    which two letters have changed places reads other texts with the same weights.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    known = json.dumps([weights_of(folder), *(config.get(name) for name in KEYS if name != "writes")])
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def files_of(
    model: nn.Module, charset: Charset, name: str, size: str, step: int, writes: str | None = None
) -> dict[str, bytes]:
    """The files of a model's folder, by name: what `Reader.load` reads. `writes`: the column of its texts."""
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    config = {"format": FORMAT, "model": name, "size": size, "encoder": model.encoder.config.to_json()}
    config |= {"alphabet": charset.characters, "writes": writes or "as written"}
    return {
        # the step goes with the weights: the two files are replaced one after the other
        "weights.safetensors": save(weights, {"step": str(step)}),
        "config.json": (json.dumps(config, ensure_ascii=False, indent=1) + "\n").encode(),
    }
