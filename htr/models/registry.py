"""The readers' networks: one shared encoder, a CTC head on it, an attention decoder on it.

A model is a folder with two small files, the network and what is its own, and a line in MODELS: an `nn.Module` with

    losses(images, widths, targets, lines_per_text=None)
                                 -> (M,) float32 loss of each text in nats, inf or NaN where it has none
    encode(images, widths)       -> `EncoderOutput`: features, lengths, log-probabilities of the CTC head
    read(encoded)                -> list of N `Hypothesis`, greedy
    geometry                     `LineGeometry`: the height of its lines and the width of its frames
    score(encoded, candidates)   -> log-probabilities of candidate texts; only where there is a decoder

where images are (N, 1, H, W) float in [0, 1] with ink 1 and paper 0, zero right of each line's own width; widths are
(N,) int64 in pixels; targets is a list of M lists of accepted texts, each a list of labels (1 is the charset's first
character, an empty text is a blank line); lines_per_text says how many of the N lines, one after the other, each text
has (None: one each).
"""

from dataclasses import replace

from torch import nn

from htr.models.attention.reader import AttentionReader
from htr.models.ctc.reader import CTCReader
from htr.models.encoder import RECURRENT_STRIDES, SIZES, EncoderConfig

# name: class, options of the encoder
MODELS = {
    "ctc": (CTCReader, {}),
    "conv": (CTCReader, {"recurrent": False}),
    "attention": (AttentionReader, {}),
}


def encoder_config(model: str, size: str, recurrent_stride: int = 8, **changes) -> EncoderConfig:
    """A named size as this model has it, and what is otherwise. Raises ValueError with the valid choices.

    `recurrent_stride`: px of a line that each recurrent step goes on by, 8 or 4.
    """
    if model not in MODELS:
        raise ValueError(f"no model '{model}': choose one of {', '.join(MODELS)}")
    if size not in SIZES:
        raise ValueError(f"no size '{size}': choose one of {', '.join(SIZES)}")
    return replace(SIZES[size], **MODELS[model][1] | RECURRENT_STRIDES[recurrent_stride] | changes)


def create(model: str, encoder: str | EncoderConfig, labels: int, dropout: float | None = None) -> nn.Module:
    """A freshly initialised model that writes `labels` characters. Raises ValueError with the valid choices.

    `encoder`: its configuration, or the name of a size; `dropout`: in place of the encoder's own.
    """
    config = encoder_config(model, encoder) if isinstance(encoder, str) else encoder
    if model not in MODELS:
        raise ValueError(f"no model '{model}': choose one of {', '.join(MODELS)}")
    return MODELS[model][0](config if dropout is None else replace(config, dropout=dropout), labels)
