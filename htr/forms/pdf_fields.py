"""The form fields that a PDF defines (AcroForm), as fields of a template."""

import ctypes
import re

from htr.forms.template import MAX_FIELD_LINES, Field

DEFAULT_PITCH_PT = 22.0  # of handwriting: 8 mm
MULTILINE_FLAG = 1 << 12  # of a text field (ISO 32000-1, table 228)
MIN_SIDE_PT = 4.0  # of a field that is not hidden


def fields_of_pdf(document: object, page: int, scale: float, size: tuple[int, int]) -> list[Field]:
    """The fields of a page, from the top; [] if the PDF has none.

    `document`: of pypdfium2, its forms initialised. `page` counts from 0. `scale`: px to a point. `size`: width and
    height of the page in px.
    """
    import pypdfium2.raw as raw

    sheet, env = document[page], document.formenv
    if env is None:
        return []
    ticks = raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON
    texts = raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX
    found = []
    for number in range(raw.FPDFPage_GetAnnotCount(sheet)):
        note = raw.FPDFPage_GetAnnot(sheet, number)
        if raw.FPDFAnnot_GetSubtype(note) == raw.FPDF_ANNOT_WIDGET:
            kind, rect = raw.FPDFAnnot_GetFormFieldType(env, note), raw.FS_RECTF()
            if kind in ticks + texts and raw.FPDFAnnot_GetRect(note, rect):
                name = text_of(lambda *into, note=note: raw.FPDFAnnot_GetFormFieldName(env, note, *into))
                if kind in ticks:
                    value = text_of(lambda *into, note=note: raw.FPDFAnnot_GetFormFieldExportValue(env, note, *into))
                    name = f"{name}_{value}" if kind == raw.FPDF_FORMFIELD_RADIOBUTTON and value else name
                many = bool(raw.FPDFAnnot_GetFormFieldFlags(env, note) & MULTILINE_FLAG)
                edges = rect.left, rect.right, rect.top, rect.bottom
                found.append((name, "tick" if kind in ticks else "text", edges, many and kind not in ticks))
        raw.FPDFPage_CloseAnnot(note)
    return placed(found, sheet.get_size()[1], scale, size)


def text_of(get) -> str:
    """The text that a function of PDFium writes into a buffer, in UTF-16; it is first called for its length, bytes."""
    length = get(None, 0)
    buffer = (ctypes.c_ushort * (length // 2 + 1))()
    get(buffer, length)
    return bytes(buffer)[: max(length - 2, 0)].decode("utf-16-le", "replace")


def placed(found: list[tuple], height: float, scale: float, size: tuple[int, int]) -> list[Field]:
    """(name, kind, (left, right, top, bottom) in points, several lines) -> fields in px, each with a name of its own.

    `height`: of the page in points, from whose bottom a PDF counts.
    """
    fields, taken = [], set()
    for name, kind, (left, right, top, bottom), many in sorted(found, key=lambda one: (-max(one[2][2:]), one[2][0])):
        top, bottom = max(top, bottom), min(top, bottom)
        if right - left < MIN_SIDE_PT or top - bottom < MIN_SIDE_PT:
            continue  # hidden: not for people
        x, y = max(round(left * scale), 0), max(round((height - top) * scale), 0)
        w = min(round((right - left) * scale), size[0] - x)
        h = min(round((top - bottom) * scale), size[1] - y)
        if min(w, h) < 8:
            continue  # beyond the page
        lines = min(max(round((top - bottom) / DEFAULT_PITCH_PT), 1), MAX_FIELD_LINES) if many else 1
        own = again = re.sub(r"\s+", "_", name.strip()) or kind
        number = 1
        while again in taken:  # a question with several boxes, or a name that is used twice
            number += 1
            again = f"{own}_{number}"
        taken.add(again)
        fields.append(Field(again, kind, (x, y, w, h), lines, float(h) if kind == "tick" else round(h / lines, 1)))
    return fields
