"""The conditions of a reading: all but the image that may change a text or a confidence.

A promise holds for readings made as those were that it was chosen on. An evaluation notes its conditions, a promise
keeps them, and production is refused where one is another (htr/reliability/promise.py).

    weights decode decoding   a digest of the model's weights, alphabet and shape; greedy or beam; the digest of the
                              search's own files, None: greedy
    amp                       off, bf16 or fp16: under bf16 5 of 160 texts differ, confidences by up to 0.27
    batch device              lines read at once (how far they are padded), cpu or cuda
    passes                    how often a line is read, at how many scales: see PASSES
    code                      `reading_code`: the code that makes readings, and the libraries that it computes with
    forms rulings             of fields found on their forms alone, in a data set as in production: the digest of the
                              templates, and whether printed rulings were removed
"""

import ast
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

READER = ("weights", "decode", "decoding")
NAMES = (*READER, "amp", "batch", "device", "passes", "code")
OF_FORMS = ("forms", "rulings")  # compared where both readings have them
PASSES = 1  # the place for reading narrow writing twice: whoever reads with other passes says so here, or as an option
# packages and modules whose code makes readings; by name, since they lie above this one
READERS = ("htr.models", "htr.decoding", "htr.reader", "htr.types", "htr.lines.normalise", "htr.io.given")


def conditions(
    weights: str, decode: str, decoding: str | None, amp: str, batch: int, device: str, passes: int = PASSES
) -> dict[str, object]:
    """By NAMES. `amp` is what is computed with, never "auto"; `device` its kind. Raises ValueError for "auto"."""
    if "auto" in (amp, device):
        raise ValueError("conditions hold what was computed with: bf16, fp16 or off, and cpu or cuda, not auto")
    known = {"weights": weights, "decode": decode, "decoding": decoding}
    return known | {"amp": amp, "batch": batch, "device": device, "passes": passes, "code": reading_code()}


def conditions_in(asked: Mapping) -> dict[str, object]:
    """Of an evaluation.json, which may be older and lack some of NAMES: None then."""
    return {name: asked.get(name) for name in NAMES} | {name: asked[name] for name in OF_FORMS if name in asked}


@cache
def reading_code() -> str:
    """A digest of the code that makes readings, whatever its comments and docstrings say, and of the versions of torch,
    numpy and OpenCV.
    """
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__} {cv2.__version__}".encode())
    for module in READERS:
        file = Path(find_spec(module).origin)
        paths = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        for path in paths:
            digest.update(code_in(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def code_in(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)


def difference(made: Mapping, asked: Mapping, names: tuple[str, ...] = (*NAMES, *OF_FORMS)) -> str:
    """Which of these conditions differ, and how; "" where none does."""
    compared = [name for name in names if name not in OF_FORMS or (name in made and name in asked)]
    differ = [name for name in compared if made.get(name) != asked.get(name)]
    return ", ".join(f"{name} {asked.get(name)} in place of {made.get(name)}" for name in differ)
