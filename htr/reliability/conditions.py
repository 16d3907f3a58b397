"""The conditions of a reading: everything except the image that can change its text or its confidence.

A promise holds for readings that are made in the same way as those that its threshold was chosen on. An evaluation
notes its conditions and a promise keeps them. Where a condition differs production is refused
(htr/reliability/promise.py).

    weights     digest of the model's weights, alphabet and shape
    decode      greedy or beam
    decoding    digest of the files of the beam search; None: greedy
    amp         precision: off, bf16 or fp16. Under bf16 5 of 160 texts differ, and confidences by up to 0.27
    batch       number of lines that are read at once: it decides how far they are padded
    device      cpu or cuda
    passes      how often a line is read, at how many scales: see PASSES
    code        `reading_code`: digest of the code that makes readings, and the versions of its libraries
    forms       digest of the templates; only for fields that were cut from scans, in a data set or in production
    rulings     keep or remove: whether printed rulings were removed; for the same fields
    cutting     digest of the code that cuts fields and lines from scans (htr/code_digest.py); for the same fields
"""

from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
import torch

from htr.code_digest import code_digest

READER = ("weights", "decode", "decoding")
NAMES = (*READER, "amp", "batch", "device", "passes", "code")
OF_FORMS = ("forms", "rulings", "cutting")  # compared only where both readings have them
PASSES = 1  # a reader that reads a line more than once, at other scales, must give another number
# packages and modules whose code makes readings; by name, since they are on higher floors than this one
READERS = ("htr.models", "htr.decoding", "htr.reader", "htr.types", "htr.lines.normalise", "htr.io.given")


def conditions(
    weights: str, decode: str, decoding: str | None, amp: str, batch: int, device: str, passes: int = PASSES
) -> dict[str, object]:
    """The conditions by name. `amp` and `device` are what is computed with: ValueError for "auto"."""
    if "auto" in (amp, device):
        raise ValueError("conditions hold what was computed with: bf16, fp16 or off, and cpu or cuda, not auto")
    known = {"weights": weights, "decode": decode, "decoding": decoding}
    return known | {"amp": amp, "batch": batch, "device": device, "passes": passes, "code": reading_code()}


def conditions_in(asked: Mapping) -> dict[str, object]:
    """The conditions in the content of an evaluation.json. An older one lacks some of NAMES: they are None."""
    return {name: asked.get(name) for name in NAMES} | {name: asked[name] for name in OF_FORMS if name in asked}


@cache
def reading_code() -> str:
    """The digest of the code of READERS and of the versions of torch, numpy and OpenCV."""
    return code_digest(READERS, (torch.__version__, np.__version__, cv2.__version__))


def difference(made: Mapping, asked: Mapping, names: tuple[str, ...] = (*NAMES, *OF_FORMS)) -> str:
    """Which of these conditions differ, as text: "amp bf16 in place of off"; "" if none differs.

    `made`: the conditions of a promise; `asked`: those of the readings that it is asked about.
    """
    compared = [name for name in names if name not in OF_FORMS or (name in made and name in asked)]
    differ = [name for name in compared if made.get(name) != asked.get(name)]
    return ", ".join(f"{name} {asked.get(name)} in place of {made.get(name)}" for name in differ)
