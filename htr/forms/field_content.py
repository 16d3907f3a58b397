"""The content of a cut field: its lines, their images as a data set stores and a reader reads them, or its tick.

One place for both, so that a reader sees on a scan what it saw in training.
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
    """The lines of a text field from the top; none if it is blank."""
    if cut.upright is None:  # without a template nobody knows what was printed
        clean = remove_rulings(cut.image, None, pitch=cut.pitch)
    elif cut.upright.is_bare(field):
        return []
    else:
        clean = cut.image
    return lines_beside(clean, cut.form, box=cut.box, pitch=cut.pitch, most=field.lines)


def is_stray(cut: FieldImage) -> bool:
    """Whether what is on a field looks like stamps, folds, hairs and specks alone, and no writing beside them.

    Meant for fields that nobody typed a text of: writing under a stamp counts as the stamp's.
    """
    return only_stray_ink(cut.image, cut.form, box=cut.box, pitch=cut.pitch)


def with_rulings(cut: FieldImage, rulings: str) -> FieldImage:
    """The field as its lines are cut from it: the form's rulings kept, or removed ("remove")."""
    if rulings not in RULING_MODES:
        raise ValueError(f"rulings {rulings!r}: choose one of {', '.join(RULING_MODES)}")
    if rulings == "keep":
        return cut
    return replace(cut, image=remove_rulings(cut.image, cut.printed, pitch=cut.pitch))


def line_image(cut: FieldImage, line: FoundLine) -> np.ndarray:
    """A found line, gray (h, w) uint8, small writing enlarged."""
    return enlarged(cut_line(cut.image, line, cut.pitch), enlarging(cut.pitch))


def tick_score(cut: FieldImage) -> float:
    """How surely a tick field is ticked, 0 to 1; 0.5 is the threshold."""
    return 0.0 if is_empty(cut.image, cut.box) else read_tick(cut.image, cut.printed).score
