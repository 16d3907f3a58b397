"""Samples from rows of the plan: cut out, checked, encoded. The first fault rejects the row."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from htr.lines import normalise as lines
from htr.lines.normalise import RejectedInput
from shards.sample import Sample, check, pack
from shards.scans import MISSING_FILE, Scans

LEVELS = {
    "line": "a line with its own text",
    "field": "a whole field with the text of its lines",
    "part": "a line of such a field, its own text not known",
    "blank": "a field that nothing was written in",
    "tick": "a box that is ticked or not",
    "page": "a whole certificate with the text of its fields",
}


def make_samples(rows: list[dict], images: Path, settings, forms=None) -> Iterator[tuple[dict, list[Sample] | str]]:
    """For each row (row, its samples) or (row, the reason why there is none). The rows of one page must follow each
    other.

    `images`: the folder that the rows' images are relative to. `forms` (see htr.forms.registration.Forms) is needed
    where the settings' unit is "field"; then samples of blank fields that the source does not list follow each page,
    with a row whose number is None.
    """
    scans = Scans(images)
    for row, result in outcomes(rows, scans, settings, forms):
        if unread := scans.newly_unread():
            row["unread_pages"] = unread  # of a TIFF, of which no row names a page
        if result == MISSING_FILE and (near := scans.nearest.get(row["image"])):
            row["nearest"] = f"{row['image']}, the nearest name there is: {near}"
        yield row, result


def outcomes(rows: list[dict], scans: Scans, settings, forms) -> Iterator[tuple[dict, list[Sample] | str]]:
    """The same, without notes on pages that were not read and on names like that of a missing image."""
    if settings.unit == "field":
        from shards.fields import field_samples

        for _, group in groupby(rows, key=lambda row: (row["image"], row["page"])):
            yield from field_samples(list(group), scans, settings, forms)
        return
    for row in rows:
        try:
            yield row, [line_sample(row, scans, settings)]
        except RejectedInput as reason:
            yield row, str(reason)


def line_sample(row: dict, scans: Scans, settings) -> Sample:
    """The sample of a row that is a line. Raises RejectedInput."""
    text = check(row, settings)
    if not text:
        raise RejectedInput("no text")
    page, region = scans.cut_from(row)
    gray = lines.cut(page, region)
    if not lines.can_carry(gray.shape, text):
        raise RejectedInput("text is longer than its image can carry")
    box = [region.x, region.y, region.w, region.h] if region else None
    turn = region.turn or None if region else None
    return pack(row, gray, settings, level="line", text=text, box=box, dpi=scans.dpi, turn=turn)
