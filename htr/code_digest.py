"""Digests of the code that a result was made by. Comments, docstrings and layout do not count.

code_digest(("htr.models", "htr.reader"))    # 16 hexadecimal digits
cutting_code()                               # of the code that cuts fields and lines from scans
"""

import ast
import hashlib
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

# modules whose code decides which pixels of a scan become a field's lines, in data sets and in production; by name,
# since they are on higher floors than this one
CUTTERS = (
    *(
        f"htr.forms.{name}"
        for name in ("edition", "fallback", "feature_matching", "field_content", "fields", "fitting")
    ),
    *(f"htr.forms.{name}" for name in ("glass", "keypoints", "mark_print", "registration", "tick_boxes", "warp")),
    *(f"htr.lines.{name}" for name in ("form_dropout", "normalise", "region", "rows", "rulings", "segmentation")),
    "htr.lines.stray_ink",
    "htr.scan",
    "shards.fields",
)

PARSER = threading.Lock()  # that of Python 3.11 fails where two threads are in it


@cache
def cutting_code() -> str:
    """The digest of CUTTERS and of the versions of numpy and OpenCV."""
    return code_digest(CUTTERS, (np.__version__, cv2.__version__))


def code_digest(modules: Sequence[str], versions: Sequence[str] = ()) -> str:
    """16 hexadecimal digits of the code of modules and whole packages, by name, and of the versions of libraries."""
    digest = hashlib.sha256(" ".join(versions).encode())
    for module in modules:
        file = Path(find_spec(module).origin)
        paths = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
        for path in paths:
            digest.update(code_in(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:16]


def code_in(source: str) -> str:
    """Python source -> a dump of its syntax tree, without comments, docstrings and layout."""
    with PARSER:
        tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)
