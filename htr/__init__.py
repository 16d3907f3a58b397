"""A certificate, its lines and their text: images, models, decoding and scoring. Knows no tar file, no cluster."""

from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"  # the reader that comes with the project: model/, decoding/
