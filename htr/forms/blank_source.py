"""A blank form from a file: an image, or a page of a PDF at the resolution of what it shows."""

from pathlib import Path

import cv2
import numpy as np

from htr.forms.blank_form import guess_dpi, resampled
from htr.io.image_files import RejectedInput, decode, resolution

DPI, MAX_DPI = 200.0, 300.0  # of a page that is drawn, not scanned; of a template: more only costs time
MAX_POLYGON_POINTS = 3400  # of a PDF's page: A0


def read_blank(path: Path, page: int, dpi: float | None) -> tuple[np.ndarray, float]:
    """-> (H, W) uint8 and its dpi. `page` counts from 1. Raises ValueError."""
    if page < 1:
        raise ValueError(f"--page {page}: pages count from 1")
    encoded = path.read_bytes()
    if encoded[:5] == b"%PDF-":
        picture, found = read_pdf(path, page)
    else:
        try:
            picture, found = decode(encoded, page - 1), dpi or resolution(encoded)
        except RejectedInput as error:
            raise ValueError(f"{path}: {error}") from None
        found = found or guess_dpi(picture.shape)
        if found is None:
            raise ValueError(f"{path}: its resolution is not in the file, nor is its size that of a usual paper: give "
                             "it with --dpi")  # fmt: skip
    if not 50 <= found <= 1200:
        raise ValueError(f"{path}: a resolution of {found:g} dpi is not between 50 and 1200")
    if found > MAX_DPI:
        picture, found = resampled(picture, found, MAX_DPI), MAX_DPI
    return whitened(picture), round(float(found), 2)


def read_pdf(path: Path, page: int) -> tuple[np.ndarray, float]:
    """The page as it is printed; a page that is one scan at the scan's own resolution."""
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{path}: this PDF can't be read ({error})") from None
    try:
        if page > len(document):
            raise ValueError(f"{path}: it has {len(document)} pages, not {page}")
        sheet = document[page - 1]
        width, height = sheet.get_size()
        if max(width, height) > MAX_POLYGON_POINTS:
            raise ValueError(f"{path}: page {page} is larger than any paper")
        dpi = DPI
        for image in sheet.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=2):
            left, bottom, right, top = image.get_bounds()
            if (right - left) * (top - bottom) > 0.8 * width * height:
                dpi = min(max(max(image.get_px_size()) * 72 / max(right - left, top - bottom), 100.0), MAX_DPI)
        bitmap = sheet.render(scale=dpi / 72, grayscale=True, may_draw_forms=True)
        return np.ascontiguousarray(bitmap.to_numpy().reshape(bitmap.height, -1)[:, : bitmap.width]), dpi
    finally:
        document.close()


def whitened(picture: np.ndarray) -> np.ndarray:
    """Paper that was scanned gray becomes white, as blank forms are compared with; what is white already stays."""
    paper = float(np.median(picture))
    if paper >= 250:
        return picture
    if paper < 100:
        raise ValueError("the blank form is dark: is it a negative?")
    return cv2.convertScaleAbs(picture, alpha=255 / max(paper - 6, 1))
