"""Images of a row: its crop in the scan's own pixels, its surroundings, the whole scan. Encoded, ready to be sent.

A row says where it stands by a box or polygon, by `place` (where transcribe found the field after it had registered the
scan on its form), or by its field alone: then the scan is registered here. Without any of them it is the whole image.
"""

import threading
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from htr.lines.normalise import PageSize, Region, RejectedInput, cut
from shards.scans import Scans

CROP, AROUND, WHOLE = "crop", "around", "whole"
VIEWS = (CROP, AROUND, WHOLE)
MARGIN_BESIDE_HEIGHTS, MARGIN_ABOVE_HEIGHTS, MIN_MARGIN_PX = 0.5, 0.35, 8  # margins of a crop in heights of its box, px
MAX_SIDE_PX = 2600  # px of the longer side of a whole scan
MAX_CACHED_BYTES = 256 << 20  # of scans that are kept
BOX_COLOUR_BGR = (30, 110, 240)  # BGR, of the box on a scan


class Pictures:
    """Makes the images of rows; several threads may ask at once. `forms`: a folder of templates (None: the project's
    own)."""

    def __init__(self, forms: Path | None = None):
        self.folder, self.own = forms, threading.local()
        self.lock, self.pages = threading.Lock(), OrderedDict()
        self.bytes, self.forms = 0, None

    def make(self, images: Path, row: dict[str, str], view: str, of_fields: bool) -> tuple[bytes, str]:
        """-> the encoded image, its media type. Raises RejectedInput, or OSError where storage fails."""
        page = self.page(images, row["image"], row["page"], row.get("page_size", ""))
        if view == CROP:
            return encoded(self.crop(page, row, of_fields), ".png"), "image/png"
        box = self.box(page, row, of_fields)
        shown = cv2.cvtColor(page, cv2.COLOR_GRAY2BGR)
        if box is not None:
            x, y, w, h = box
            thick = max(page.shape[1] // 600, 2)
            cv2.rectangle(shown, (x - thick, y - thick), (x + w + thick, y + h + thick), BOX_COLOUR_BGR, thick)
            if view == AROUND:
                left, top, right, bottom = widened(box, page.shape, w // 3 + 2 * h, 3 * h)
                shown = shown[top:bottom, left:right]
        scale = MAX_SIDE_PX / max(shown.shape[:2])
        if scale < 1:
            shown = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return encoded(shown, ".jpg"), "image/jpeg"

    def page(self, images: Path, name: str, number: str, size: str = "") -> np.ndarray:
        """The scan, gray (H, W) uint8; the last ones are kept in memory."""
        key = (images, name, number, size)
        with self.lock:
            if key in self.pages:
                self.pages.move_to_end(key)
                return self.pages[key]
        readers = self.own.__dict__.setdefault("readers", {})
        page = readers.setdefault(images, Scans(images)).read(name, number, size)
        with self.lock:
            if key not in self.pages:
                self.pages[key] = page
                self.bytes += page.nbytes
            while self.bytes > MAX_CACHED_BYTES and len(self.pages) > 1:
                self.bytes -= self.pages.popitem(last=False)[1].nbytes
        return page

    def crop(self, page: np.ndarray, row: dict[str, str], of_fields: bool) -> np.ndarray:
        region = Region.parse(row["box"], row["polygon"], row["baseline"], row.get("turn", ""))
        region = scaled(region, page, row.get("page_size", ""))
        if region is not None and region.polygon is not None:
            return cut(page, region)
        box = self.box(page, row, of_fields)
        if box is None:
            return page
        height = box[3] if not region or region.turn % 180 == 0 else box[2]
        margins = (
            max(round(MARGIN_BESIDE_HEIGHTS * height), MIN_MARGIN_PX),
            max(round(MARGIN_ABOVE_HEIGHTS * height), MIN_MARGIN_PX),
        )
        left, top, right, bottom = widened(box, page.shape, *margins)
        around = page[top:bottom, left:right]
        return np.rot90(around, -region.turn // 90) if region else around

    def box(self, page: np.ndarray, row: dict[str, str], of_fields: bool) -> tuple[int, int, int, int] | None:
        """The row's x, y, w, h on the scan; None where the row is the whole image."""
        region = scaled(Region.parse(row["box"] or row["place"], row["polygon"]), page, row.get("page_size", ""))
        if region is not None:
            cut(page, Region(region.x, region.y, region.w, region.h))  # raises RejectedInput where it lies elsewhere
            return region.x, region.y, region.w, region.h
        # a line of a data set is its own image, whatever form it came from
        if (of_fields or row["form"]) and row["field"] and ".tar/" not in row["image"]:
            return self.field_box(page, row["field"])
        return None

    def field_box(self, page: np.ndarray, name: str) -> tuple[int, int, int, int] | None:
        """x, y, w, h of this field, found on the scan's form; None where there is no such form or field."""
        from htr.forms.fields import DeskewedScan
        from htr.forms.registration import Forms
        from htr.forms.template import load_templates

        with self.lock:
            if self.forms is None:
                self.forms = Forms(load_templates(self.folder) if self.folder else load_templates())
        try:
            registration = self.forms.register(page)
            field = registration.template.field(name)
            made = DeskewedScan(page, registration).cut(field) if field else None
        except RejectedInput:
            return None
        return tuple(made.on_scan(made.box)) if made else None


def scaled(region: Region | None, page: np.ndarray, size: str) -> Region | None:
    """A region in pixels of a page of the size that is stated -> in pixels of the scan."""
    stated = PageSize.parse(size)
    if region is None or stated is None:
        return region
    return region.scaled(*stated.scale(page.shape, None))


def widened(box: tuple[int, int, int, int], page: tuple[int, int], beside: int, above: int) -> tuple[int, ...]:
    """-> left, top, right and bottom of the box with a margin, within the page (rows, columns)."""
    x, y, w, h = box
    return max(x - beside, 0), max(y - above, 0), min(x + w + beside, page[1]), min(y + h + above, page[0])


def encoded(image: np.ndarray, ending: str) -> bytes:
    # level 1 is several times as fast as OpenCV's default and a crop is small
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if ending == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 85]
    try:
        done, content = cv2.imencode(ending, np.ascontiguousarray(image), options)
    except cv2.error:
        done = False
    if not done:
        raise RejectedInput("image is too large to be shown")
    return content.tobytes()
