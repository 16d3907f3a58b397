"""Old names of weights: models and checkpoints that have them are read under today's names.

Only names changed, never their order or the weights' shapes, so an optimizer's state, which goes by the order of the
parameters, is as valid as it was.
"""

import re
from typing import TypeVar

Value = TypeVar("Value")

# an averaged model's weights are named `module.` and then as the model's own
RENAMED = [
    (re.compile(rf"^((?:module\.)?){old}(?=\.)"), rf"\1{new}")
    for old, new in (
        (r"encoder\.columns_norm", "encoder.cnn_norm"),
        (r"encoder\.along", "encoder.sequence_layers"),
        (r"encoder\.sequence_layers\.(\d+)\.along", r"encoder.sequence_layers.\2.depthwise"),
        (r"encoder\.sequence_layers\.(\d+)\.across", r"encoder.sequence_layers.\2.pointwise"),
        (r"decoder\.layers\.(\d+)\.written", r"decoder.layers.\2.self_attn"),
        (r"decoder\.layers\.(\d+)\.written_out", r"decoder.layers.\2.self_attn_out"),
        (r"decoder\.layers\.(\d+)\.query", r"decoder.layers.\2.cross_attn_query"),
        (r"decoder\.layers\.(\d+)\.frames", r"decoder.layers.\2.cross_attn"),
        (r"decoder\.layers\.(\d+)\.frames_out", r"decoder.layers.\2.cross_attn_out"),
        (r"decoder\.layers\.(\d+)\.further", r"decoder.layers.\2.ffn"),
    )
]


def current_names(weights: dict[str, Value]) -> dict[str, Value]:
    """A state dict under today's names, in the order given. One that has them already comes back as it is.

    Raises ValueError where a weight stands under its old name and its new one.
    """
    renamed: dict[str, Value] = {}
    for key, value in weights.items():
        name = current_name(key)
        if name in renamed:
            raise ValueError(f"weight {name} stands there twice, once under an old name: write the model anew")
        renamed[name] = value
    return renamed


def current_name(key: str) -> str:
    for old, new in RENAMED:
        key = old.sub(new, key)
    return key
