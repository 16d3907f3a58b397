"""The readers' networks: one shared encoder, a CTC head on it, an attention decoder on it.

A model is an `nn.Module` with

    losses(images, widths, targets) -> (N,) float32 loss of each line in nats, infinite or NaN ones left in
    read(images, widths)            -> list of N `Reading`

where images are (N, 1, H, W) float in [0, 1] with ink 1 and paper 0, zero right of each line's own width; widths are
(N,) int64 in pixels; targets is a list of N lists of symbols (1 is the alphabet's first character).
"""

from dataclasses import replace

from torch import nn

from htr.models.attention import AttentionReader
from htr.models.ctc import CTCReader
from htr.models.encoder import SIZES

MODELS = {"ctc": CTCReader, "attention": AttentionReader}


def create(model: str, size: str, symbols: int, dropout: float = 0.2) -> nn.Module:
    """A freshly initialised model that writes `symbols` characters. Raises ValueError with the valid choices."""
    if model not in MODELS:
        raise ValueError(f"no model '{model}': choose one of {', '.join(MODELS)}")
    if size not in SIZES:
        raise ValueError(f"no size '{size}': choose one of {', '.join(SIZES)}")
    return MODELS[model](replace(SIZES[size], dropout=dropout), symbols)
