"""Form dropout: a small image of a field's darkness without the form's print, in which lines are found.

A pitch has about SMALL_PITCH_PX pixels in the small image, and a whole number of the field's pixels becomes one. Level
rulings are divided out (see rulings.py). Labels, dots and upright edges are painted over, and the strokes that cross
them are joined again.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from htr.lines.rulings import bands_of, divide_out

SMALL_PITCH_PX = 30  # about so many pixels has a pitch in the small image
PRINT_TOLERANCE_PX = 3  # px of the field that print may lie off its place


@dataclass(frozen=True, eq=False)
class PrintedForm:
    """A template's print on a field, reduced as the field is: each of its rows, but of every small pixel's columns the
    middle one alone."""

    comb: np.ndarray  # (H, w) uint8, > 0 where there is print within PRINT_TOLERANCE_PX columns
    bands: list[tuple[int, int]]  # first and last row of each level ruling

    @classmethod
    def of(cls, printed: np.ndarray, factor: int) -> "PrintedForm":
        """`printed`: (H, W) uint8, > 0 where there is print."""
        wide = cv2.dilate(printed, np.ones((1, 2 * PRINT_TOLERANCE_PX + 1), np.uint8))
        comb = wide[:, factor // 2 :: factor][:, : max(printed.shape[1] // factor, 1)]
        return cls(np.ascontiguousarray(comb), bands_of(printed))


def factor_of(pitch: float) -> int:
    """By how much a field is reduced before lines are looked for. `pitch`: the height of a line in pixels."""
    return max(round(pitch / SMALL_PITCH_PX), 1)


def drop_form(field: np.ndarray, form: PrintedForm | None, factor: int) -> np.ndarray:
    """An evened field (H, W) uint8 -> darkness of its small image, (h, w) uint8, without the form's print."""
    width, height = max(field.shape[1] // factor, 1), max(field.shape[0] // factor, 1)
    # the mean of each square of pixels, in a third of the time that OpenCV takes to shrink
    mean = cv2.blur(field, (factor, factor), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    small = np.ascontiguousarray(mean[::factor, ::factor][:height, :width])
    if form is None:
        return cv2.bitwise_not(small)
    ink = cv2.bitwise_not(divide_out(small, form.bands, factor))
    comb = form.comb
    if form.bands:
        comb = comb.copy()
        for first, last in form.bands:
            comb[first : last + 1] = 0
    columns = cv2.reduce(comb, 0, cv2.REDUCE_MAX)[0].nonzero()[0]
    if not len(columns):
        return ink
    lower = shift_of(field, comb, columns[:: len(columns) // 16 + 1], factor)
    rows = np.clip(np.arange(height) * factor + factor // 2 - lower, 0, len(comb) - 1)
    mask = cv2.dilate(comb, np.ones((2 * PRINT_TOLERANCE_PX + 1, 1), np.uint8))[rows]
    ink = cv2.subtract(ink, mask)
    # a stroke that crosses the print goes on behind it
    bridged = cv2.morphologyEx(ink, cv2.MORPH_CLOSE, np.ones((5, 1), np.uint8))
    return cv2.copyTo(bridged, mask, ink)


def shift_of(field: np.ndarray, comb: np.ndarray, columns: np.ndarray, factor: int) -> int:
    """By how many rows the print lies lower on the field than on the template, from -PRINT_TOLERANCE_PX to that.

    `comb`: the template's print; `columns`: those of the reduced field in which the two are compared.
    """
    dark = 255 - field[:, np.minimum(columns * factor + factor // 2, field.shape[1] - 1)].astype(np.float32)
    form = (comb[PRINT_TOLERANCE_PX:-PRINT_TOLERANCE_PX, columns] > 0).astype(np.float32)
    match = [float(np.vdot(dark[start : start + len(form)], form)) for start in range(2 * PRINT_TOLERANCE_PX + 1)]
    return int(np.argmax(match)) - PRINT_TOLERANCE_PX if max(match) > 0 else 0
