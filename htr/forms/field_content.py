"""The content of a cut field: its lines with their images, or its tick.

Data sets and readers both take it from here, so that a reader gets the same images from a scan as in training.
"""

from dataclasses import replace

import numpy as np

from htr.forms.fields import FieldImage, enlarged, enlarging
from htr.forms.template import Field
from htr.forms.tick_boxes import is_empty, read_tick
from htr.lines.rulings import remove_rulings
from htr.lines.segmentation import FoundLine, cut_line, lines_beside, only_stray_ink

RULING_MODES = ("keep", "remove")


def written_lines(cut: FieldImage, field: Field) -> list[FoundLine]:
    """The lines of a text field, from the top; [] if it is blank."""
    if cut.upright is None:  # without a template the print is not known
        clean = remove_rulings(cut.image, None, pitch=cut.pitch)
    elif cut.upright.is_bare(field):
        return []
    else:
        clean = cut.image
    return lines_beside(clean, cut.form, box=cut.box, pitch=cut.pitch, most=field.lines)


def is_stray(cut: FieldImage) -> bool:
    """Whether all ink on a field looks like that of stamps, folds, hairs and specks.

    For fields without a transcription alone: writing under a stamp counts as part of the stamp.
    """
    return only_stray_ink(cut.image, cut.form, box=cut.box, pitch=cut.pitch)


def with_rulings(cut: FieldImage, rulings: str) -> FieldImage:
    """The field with the form's rulings as printed ("keep"), or without them ("remove").

    Raises ValueError otherwise.
    """
    if rulings not in RULING_MODES:
        raise ValueError(f"rulings {rulings!r}: choose one of {', '.join(RULING_MODES)}")
    if rulings == "keep":
        return cut
    return replace(cut, image=remove_rulings(cut.image, cut.printed, pitch=cut.pitch))


def line_image(cut: FieldImage, line: FoundLine) -> np.ndarray:
    """The image (h, w) uint8 of a found line; small writing is enlarged (`enlarging`)."""
    return enlarged(cut_line(cut.image, line, cut.pitch), enlarging(cut.pitch))


def tick_score(cut: FieldImage) -> float:
    """The score of a tick field, 0 to 1; it is ticked from 0.5 on."""
    return 0.0 if is_empty(cut.image, cut.box) else read_tick(cut.image, cut.printed).score
