"""A blank form from a file: an image, or a page of a PDF with the fields that it defines."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from htr.forms.blank_form import likely_dpi, resampled
from htr.forms.pdf_fields import fields_of_pdf
from htr.forms.template import Field
from htr.io.image_files import RejectedInput, decode, resolution

DPI, MAX_DPI = 200.0, 300.0  # of a PDF page that is no scan; of a template: more only costs time
MAX_PAGE_PT = 3400  # points of a side of a PDF's page: A0


@dataclass(frozen=True, eq=False)
class BlankPage:
    picture: np.ndarray  # (H, W) uint8
    dpi: float
    fields: tuple[Field, ...] = ()  # form fields of a PDF
    pages: int = 1  # of the file


def read_blank(path: Path, page: int, dpi: float | None) -> BlankPage:
    """`page` counts from 1. `dpi`: that of the user, in place of the file's. Raises ValueError where no blank form of a
    known resolution can be read.
    """
    if page < 1:
        raise ValueError(f"--page {page}: pages count from 1")
    encoded = path.read_bytes()
    if encoded[:5] == b"%PDF-":
        return read_pdf(path, page)
    try:
        picture, said = decode(encoded, page - 1), resolution(encoded)
    except RejectedInput as error:
        raise ValueError(f"{path}: {error}") from None
    found = dpi or likely_dpi(said, picture.shape)
    if found is None:
        raise ValueError(f"{path}: its resolution is not in the file, nor is its size that of a usual paper: give "
                         "it with --dpi")  # fmt: skip
    if not 50 <= found <= 1200:
        raise ValueError(f"{path}: a resolution of {found:g} dpi is not between 50 and 1200")
    if found > MAX_DPI:
        picture, found = resampled(picture, found, MAX_DPI), MAX_DPI
    return BlankPage(whitened(picture), round(float(found), 2))


def read_pdf(path: Path, page: int) -> BlankPage:
    """The page, rendered at DPI; a page that consists of one scan, at the resolution of that. Raises ValueError."""
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{path}: this PDF can't be read ({error})") from None
    try:
        document.init_forms()  # before a page is opened: else its fields are not known, nor drawn
        if page > len(document):
            raise ValueError(f"{path}: it has {len(document)} pages, not {page}")
        sheet = document[page - 1]
        width, height = sheet.get_size()
        if max(width, height) > MAX_PAGE_PT:
            raise ValueError(f"{path}: page {page} is larger than any paper")
        dpi = DPI
        for image in sheet.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2):
            left, bottom, right, top = image.get_bounds()
            if (right - left) * (top - bottom) > 0.8 * width * height:
                dpi = min(max(max(image.get_px_size()) * 72 / max(right - left, top - bottom), 100.0), MAX_DPI)
        bitmap = sheet.render(scale=dpi / 72, grayscale=True, may_draw_forms=True)
        picture = np.ascontiguousarray(bitmap.to_numpy().reshape(bitmap.height, -1)[:, : bitmap.width])
        fields = fields_of_pdf(document, page - 1, dpi / 72, picture.shape[::-1])
        return BlankPage(whitened(picture), round(float(dpi), 2), tuple(fields), len(document))
    finally:
        document.close()


def whitened(picture: np.ndarray) -> np.ndarray:
    """Gray paper is made white, as in all templates; a picture with white paper is unchanged.

    ValueError: it is dark.
    """
    paper = float(np.median(picture))
    if paper >= 250:
        return picture
    if paper < 100:
        raise ValueError("the blank form is dark: is it a negative?")
    return cv2.convertScaleAbs(picture, alpha=255 / max(paper - 6, 1))
