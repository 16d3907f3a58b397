"""Augmentation of a line as a model sees it: slant, size, stroke thickness, contrast, noise. Keyed, so never stored."""

import cv2
import numpy as np


def random_for(*key: int | str) -> np.random.Generator:
    """A generator that depends on the key alone, such as (seed, epoch, sample)."""
    numbers = [part if isinstance(part, int) else int.from_bytes(part.encode(), "big") for part in key]
    return np.random.default_rng(numbers)


def augment(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W) uint8 ink -> the same height, another width."""
    height, width = ink.shape
    slant = rng.normal(0, 0.15)
    stretch = rng.uniform(0.9, 1.08)  # narrow: batches were made of lines of like width
    squeeze = np.exp(rng.normal(-0.05, 0.08))  # the line's own height within the image
    turn = rng.normal(0, 0.006)
    wider = int(max(width * stretch, 16))
    lean = abs(slant) * height / 2
    middle = height / 2
    matrix = np.array(
        [
            [stretch, -slant, slant * middle + lean],
            [turn * squeeze, squeeze, middle - squeeze * middle - turn * width / 2 + rng.normal(0, 1.5)],
        ],
        np.float32,
    )
    out = cv2.warpAffine(ink, matrix, (int(wider + 2 * lean), height), flags=cv2.INTER_LINEAR)
    kind = rng.random()
    if kind < 0.15:
        out = cv2.dilate(out, np.ones((2, 2), np.uint8))
    elif kind < 0.3:
        out = cv2.erode(out, np.ones((2, 2), np.uint8))
    elif kind < 0.4:
        out = cv2.GaussianBlur(out, (0, 0), 0.5 + rng.random())
    if rng.random() < 0.5:
        out = cv2.LUT(out, (255 * np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.3))).astype(np.uint8))
    return out
