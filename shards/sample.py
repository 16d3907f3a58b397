"""A sample: checks of its row before an image is opened, its encoding and its metadata."""

import json
import unicodedata
from dataclasses import dataclass

import cv2
import numpy as np

from htr.certificate import MAX_KEY_LENGTH, clean_text, code_point, not_text, sample_key
from htr.charset import with_tokens
from htr.lines.normalise import RejectedInput

# columns of the plan that a sample's JSON does not copy as they are
NOT_META = ("row", "image", "page", "page_size", "text", "polygon", "baseline", "box", "turn", "fault", "reject",
            "page_known")  # fmt: skip
NOT_YET = "not yet transcribed"  # the reject of a row whose text a person is still to fill in: it holds without a text
MAX_REASON_LENGTH = 80  # characters; a longer cell is no reason that could be counted


@dataclass(frozen=True)
class Sample:
    """A sample as it is written into a shard."""

    row: int | None  # of the source; None: a blank field of the form that the source does not list
    key: str
    level: str
    text: str
    image: bytes  # encoded
    width: int
    height: int
    ink: float | None  # how much is written (text fields, line heights squared) or how surely ticked (0 to 1)
    note: dict  # what KEY.json says

    def members(self, encoding: str) -> dict[str, bytes]:
        """Its files in the tar: ending -> content."""
        note = json.dumps(self.note, ensure_ascii=False, sort_keys=True)
        return {encoding: self.image, "txt": self.text.encode(), "json": note.encode()}


def typed(row: dict, settings) -> str:
    """The row's text as it was typed, line feeds kept, with tokens for crossed-out and illegible pieces."""
    return with_tokens(row["text"] or "", settings.crossed, settings.illegible)


def check(row: dict, settings) -> str:
    """-> the row's text. Raises RejectedInput for what is wrong before an image is opened."""
    if row["fault"]:
        raise RejectedInput(row["fault"])
    if reason := given_reason(row):
        raise RejectedInput(reason)
    if len(sample_key(row["certificate"], row["field"], row["line"])) > MAX_KEY_LENGTH:
        raise RejectedInput("certificate, field and line make too long a name")
    text = clean_text(typed(row, settings))
    if strange := not_text(text):  # a reader would learn to write what nobody sees
        control = unicodedata.category(strange) in ("Cc", "Cf")
        kind = "a control character" if control else "a character that Unicode does not know"
        raise RejectedInput(f"text holds {kind} ({code_point(strange)})")
    return text


def given_reason(row: dict) -> str:
    """The source's own reason to reject the row, from its column `reject`; "" where it has none."""
    if not row.get("reject"):
        return ""
    reason = clean_text(row["reject"])
    if reason == NOT_YET and clean_text(row["text"]):
        return ""
    return reason if reason.isprintable() and 0 < len(reason) <= MAX_REASON_LENGTH else "rejected by the source"


def pack(
    row: dict, gray: np.ndarray, settings, *, level: str, text: str = "", line: str = "", box=None, ink=None, **known
) -> Sample:
    """A sample of this row and image, gray (H, W) uint8, encoded as the settings say.

    `line` replaces the row's; `known`: further entries of the sample's JSON. Raises RejectedInput for an image that the
    encoding can't hold.
    """
    height, width = gray.shape
    options = [cv2.IMWRITE_JPEG_QUALITY, settings.quality] if settings.encoding == "jpg" else []
    try:
        done, encoded = cv2.imencode("." + settings.encoding, gray, options)
    except cv2.error:
        done = False
    if not done:
        raise RejectedInput("image is too large to be stored")
    note = {column: value for column, value in row.items() if column not in NOT_META}
    note |= {"line": line} if line else {}
    note |= {"level": level, "image": row["image"], "page": int(row["page"] or 0), "box": box}
    note |= {"width": width, "height": height} | {name: value for name, value in known.items() if value is not None}
    if ink is not None:
        ink = round(float(ink), 4)
        note["ink"] = ink
    key = sample_key(note["certificate"], note["field"], note["line"])
    return Sample(row["row"], key, level, text, encoded.tobytes(), width, height, ink, note)
