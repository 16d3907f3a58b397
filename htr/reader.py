"""A reader: a model with its alphabet, loaded from a folder of two small files.

reader = Reader.load("runs/ctc/model")
for reading in reader.read(images):        # gray (H, W) uint8, any size
    print(reading.text, reading.confidence)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from htr.alphabet import Alphabet
from htr.images.line import to_ink
from htr.models import create
from htr.models.encoder import HEIGHT

FORMAT = 1


@dataclass(frozen=True)
class Text:
    text: str
    confidence: float  # the model's own mean probability of the symbols, not yet calibrated


class Reader:
    def __init__(self, model: nn.Module, alphabet: Alphabet, config: dict):
        self.model, self.alphabet, self.config = model, alphabet, config

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Reader":
        """Raises ValueError when the folder holds no model, or one that is damaged or of a newer format."""
        folder = Path(folder)
        try:
            config = json.loads((folder / "config.json").read_text())
            if config["format"] != FORMAT:
                raise ValueError(f"format {config['format']}, this code reads {FORMAT}")
            alphabet = Alphabet(config["alphabet"])
            model = create(config["model"], config["size"], len(alphabet))
            with safe_open(folder / "weights.safetensors", "pt") as weights:
                model.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
                config["step"] = int(weights.metadata()["step"])
        except FileNotFoundError:
            raise ValueError(f"{folder}: no model here (config.json and weights.safetensors are needed)") from None
        except Exception as error:  # safetensors, json and torch each raise their own kinds
            raise ValueError(f"{folder}: not a model that can be read ({type(error).__name__}: {error})") from None
        return cls(model.to(device).eval(), alphabet, config)

    def read(self, images: Sequence[np.ndarray], batch: int = 16) -> list[Text]:
        """Gray line images (H, W) uint8 -> their texts, in the same order."""
        inks = [to_ink(image, HEIGHT) for image in images]
        order = sorted(range(len(inks)), key=lambda i: inks[i].shape[1])
        texts: dict[int, Text] = {}
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            padded = np.zeros((len(part), 1, HEIGHT, max(inks[i].shape[1] for i in part)), np.uint8)
            for row, i in zip(padded, part, strict=True):
                row[0, :, : inks[i].shape[1]] = inks[i]
            widths = torch.tensor([inks[i].shape[1] for i in part])
            texts.update(zip(part, self.read_batch(torch.from_numpy(padded), widths), strict=True))
        return [texts[i] for i in range(len(inks))]

    def read_batch(self, images: torch.Tensor, widths: torch.Tensor) -> list[Text]:
        """(N, 1, HEIGHT, W) uint8 ink and (N,) widths, as the stream gives them -> N texts."""
        device = next(self.model.parameters()).device
        readings = self.model.read(images.to(device).float() / 255, widths.to(device))
        return [Text(self.alphabet.decode(reading.symbols), reading.confidence) for reading in readings]


def files_of(model: nn.Module, alphabet: Alphabet, name: str, size: str, step: int) -> dict[str, bytes]:
    """The files of a model's folder, by name: what `Reader.load` reads."""
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    config = {"format": FORMAT, "model": name, "size": size, "alphabet": alphabet.characters}
    return {
        # the step goes with the weights: the two files are replaced one after the other
        "weights.safetensors": save(weights, {"step": str(step)}),
        "config.json": (json.dumps(config, ensure_ascii=False, indent=1) + "\n").encode(),
    }
