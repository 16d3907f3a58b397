"""The sheet that `inspect --augment` writes: line images and what augmentation makes of them, in one HTML file."""

import html
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from htr.lines.augment import LEVELS, augment, random_for
from htr.lines.normalise import normalise_line
from htr.models.encoder import EncoderConfig
from jobs.html.pipeline_view import STYLE, figure
from shards import files

HEIGHT = EncoderConfig.height  # px, as models have it unless told otherwise
VARIANTS_PER_LINE = 6  # of each line
GRID = """
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: 0 1rem }
section { border-top: 1px solid #ccc; padding: .6rem 0 } body { max-width: none }
"""


def sheet(
    images: Iterable[tuple[str, np.ndarray]],
    *,
    seed: int = 0,
    level: str = "medium",
    height: int = HEIGHT,
) -> str:
    """An HTML page: each line as a model sees it, and variants of it as a training with this seed would see them.

    `images`: (key, stored line (H, W) uint8). Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"no such augmentation: {level!r}; one of {', '.join(LEVELS)}")
    parts = []
    for key, gray in images:
        ink = normalise_line(gray, height)
        shown = [(ink, f"<code>{html.escape(key)}</code>, {ink.shape[1]} px")]
        for number in range(VARIANTS_PER_LINE):
            variant = augment(ink, random_for(seed, number, key, 0), LEVELS[level])
            shown.append((variant, f"{variant.shape[1]} px"))
        parts.append(f"<section>{''.join(figure(255 - image, caption) for image, caption in shown)}</section>")
    title = f"Augmentation, {html.escape(level)}"
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{STYLE}{GRID}</style>"
    content = f"{len(parts)} lines, each as it is and {VARIANTS_PER_LINE} times augmented"
    summary = f"<p>{content}. Confidential: it shows handwriting.</p>"
    return f"{head}<h1>{title}</h1>{summary}{''.join(parts)}</html>"


def write_sheet(
    images: Iterable[tuple[str, np.ndarray]],
    out: Path,
    *,
    seed: int = 0,
    level: str = "medium",
    height: int = HEIGHT,
) -> None:
    """Write `sheet` to a file, whole or not at all, that its owner alone may read."""
    page = sheet(images, seed=seed, level=level, height=height)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(out, page)
    os.chmod(out, 0o600)
