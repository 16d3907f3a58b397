"""Line images given from Python: a path, a PIL image, gray or colour arrays of any kind -> gray (H, W) uint8."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from htr.io.image_files import RejectedInput, decode

MIN_PAGE_HEIGHT, MIN_PAGE_WIDTH = 600, 400  # px; a line of writing is never as high and hardly wider than it is high
MAX_PAGE_RATIO = 2.0  # of a page's width to its height
DARK_LEVEL, MAX_DARK_SHARE = 96, 0.7  # gray level, and the share of pixels below it, of light writing on dark paper
MIN_HEIGHT, MIN_WIDTH, MAX_NARROW = 8, 3, 20  # px of a line; its height in widths
MIN_CONTRAST = 8  # gray levels between the darkest and the brightest pixel of an image that nothing is written on
KINDS = "a path, a PIL image or an array (H, W) or (H, W, 3) of bool, uint8, uint16 or float (0 to 1, or 0 to 255)"


class Lines(list):
    """Gray (H, W) uint8 that were cut as lines by this project: nobody looks at them again."""


def line_images(given: object) -> list[np.ndarray]:
    """One image, or many, each of any kind. Raises ValueError: which one it is, what is wrong, what is wanted."""
    if isinstance(given, Lines):
        return given
    given = [given] if is_one(given) else given
    if isinstance(given, (Mapping, str)) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise ValueError(f"one image or a list of them is read, not a {type(given).__name__}: give {KINDS}")
    images = []
    for number, image in enumerate(given):
        try:
            images.append(checked(as_gray(image)))
        except RejectedInput as reason:
            raise ValueError(f"image {number}: {reason}") from None
    return images


def is_one(given: object) -> bool:
    """Whether it is an image, not many of them: an array (N, H, W) is many, a tensor (1 or 3, H, W) is one."""
    if isinstance(given, (str, Path, bytes, bytearray)) or hasattr(given, "convert") or hasattr(given, "read"):
        return True
    shape = getattr(given, "shape", ())
    if hasattr(given, "detach") and channels_first(shape):
        return True
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))


def channels_first(shape: tuple[int, ...]) -> bool:
    """Of a tensor: (1 or 3, H, W)."""
    return len(shape) == 3 and shape[0] in (1, 3) and shape[2] > 4


def as_gray(image: object) -> np.ndarray:
    """(H, W) uint8, 0 black and 255 white; colour as RGB, by luma; transparency on white. Raises RejectedInput."""
    if isinstance(image, (str, Path)):
        try:
            return decode(Path(image).read_bytes())
        except OSError as error:
            raise RejectedInput(f"{image} can't be read ({error.strerror or type(error).__name__})") from None
    if isinstance(image, (bytes, bytearray)):
        return decode(bytes(image))
    if hasattr(image, "read"):
        return decode(image.read())
    if hasattr(image, "convert"):
        image = from_pillow(image)
    elif hasattr(image, "detach"):  # a tensor
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        if channels_first(image.shape):
            image = np.moveaxis(image, 0, 2)
    if not isinstance(image, np.ndarray):
        raise RejectedInput(f"a {type(image).__name__} is no image: give {KINDS}")
    if image.size == 0:
        raise RejectedInput(f"an empty image of shape {image.shape}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (2, 3, 4)):
        raise RejectedInput(f"an array of shape {image.shape} is no image: give {KINDS}")
    image = to_bytes(image)
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    if image.shape[2] in (2, 4):
        alpha = image[..., -1:].astype(np.float32) / 255
        image = np.rint(image[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def from_pillow(image) -> np.ndarray:
    """Pixels as they are, or as Pillow makes them RGB or RGBA. Raises RejectedInput."""
    if image.mode == "I":  # 16 bits, as it opens some PNG and TIFF
        pixels = np.asarray(image)
        return pixels.astype(np.uint16) if pixels.max(initial=0) > 255 and pixels.min(initial=0) >= 0 else pixels
    if image.mode in ("1", "L", "F", "RGB") or image.mode.startswith("I;16"):
        return np.asarray(image)
    try:
        if image.mode == "La":  # multiplied by the opacity already
            image = image.convert("LA")
        see_through = "A" in image.mode or "a" in image.mode or "P" in image.mode
        return np.asarray(image.convert("RGBA" if see_through else "RGB"))
    except ValueError:
        raise RejectedInput(f"a PIL image of mode {image.mode} can't be made RGB: convert it first") from None


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Values to 0 to 255, uint8. Raises RejectedInput: values that no one could know the white of."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return (image / 257).round().astype(np.uint8)
    if image.dtype.kind not in "fiu":
        raise RejectedInput(f"values of {image.dtype} are no pixels: give {KINDS}")
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
        raise RejectedInput(f"values from {low:g} to {high:g}: pixels are 0 to 255, or 0 to 1 as floats")
    scale = 255 if image.dtype.kind == "f" and high <= 1 else 1
    return np.rint(image * scale).astype(np.uint8)


def checked(gray: np.ndarray) -> np.ndarray:
    """The image, if it can be a line of dark writing on light paper. Raises RejectedInput."""
    height, width = gray.shape
    if height < MIN_HEIGHT or width < MIN_WIDTH:
        raise RejectedInput(f"{width} x {height} pixels are too few for a line of writing")
    if height > MAX_NARROW * width:
        raise RejectedInput(f"{width} x {height} pixels: a line of writing is wider than high: turn it (numpy.rot90)")
    if height >= MIN_PAGE_HEIGHT and width >= MIN_PAGE_WIDTH and width <= MAX_PAGE_RATIO * height:
        raise RejectedInput(
            f"{width} x {height} pixels are a page, not a line: give its lines (htr.scan reads certificates, python -m "
            f"jobs transcribe pages with XML)"
        )
    if np.ptp(gray[:: max(height // 64, 1)]) > DARK_LEVEL and np.mean(gray < DARK_LEVEL) > MAX_DARK_SHARE:
        raise RejectedInput("light writing on dark paper: invert it (255 - image)")
    if np.ptp(gray) < MIN_CONTRAST:
        raise RejectedInput("nothing is written on it: all its pixels have the same shade")
    return gray
