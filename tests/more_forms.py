"""Forms as offices have them, drawn by these tests: combs, circles, pale colours, dots, columns, labels alone, PDF."""

import cv2
import numpy as np
from other_forms import words

Boxes = dict[str, tuple[int, int, int, int]]
TEXTS = ("Caisse primaire de la region", "Cadre reserve au service", "Ecrire au stylo noir, en capitales",
         "Voir la notice au verso avant de remplir", "Document a conserver dix ans", "Cerfa 13-777")  # fmt: skip


def head(sheet: np.ndarray, title: str) -> None:
    """Print enough for a scan to be registered on."""
    width = sheet.shape[1]
    words(sheet, 120, 130, title, 1.2, 3)
    for number, text in enumerate(TEXTS):
        words(sheet, 120 + (number % 2) * (width // 2), 190 + 34 * (number // 2), text, 0.6)
        words(sheet, 120 + (number % 2) * (width // 2), sheet.shape[0] - 130 + 34 * (number // 2), text[::-1], 0.6)


def combs() -> tuple[np.ndarray, Boxes]:
    """Boxes of single characters: closed, side by side; open ones, a level line with bars; each is one field."""
    sheet, fields = np.full((2338, 1654), 255, np.uint8), {}
    head(sheet, "DECLARATION D'ACCIDENT")
    for row, (label, cells) in enumerate((("Nom", 20), ("Prenom", 20), ("Ne le", 8), ("Code postal", 5))):
        y = 400 + row * 170
        words(sheet, 120, y + 34, label, 0.7, 2)
        for cell in range(cells):
            cv2.rectangle(sheet, (360 + 50 * cell, y), (410 + 50 * cell, y + 50), 60, 2)
        fields[f"closed_{row}"] = (362, y + 2, 50 * cells - 3, 47)
    for row, (label, cells) in enumerate((("Immatriculation", 15), ("Employeur", 24))):
        y = 1200 + row * 170
        words(sheet, 120, y, label, 0.7, 2)
        cv2.line(sheet, (420, y), (420 + 44 * cells, y), 60, 2)
        for cell in range(cells + 1):
            cv2.line(sheet, (420 + 44 * cell, y - 20), (420 + 44 * cell, y), 60, 2)
        fields[f"open_{row}"] = (420, y - 126, 44 * cells, 136)
    return sheet, fields


def circles() -> tuple[np.ndarray, Boxes]:
    """A questionnaire whose answers are circles."""
    sheet, fields = np.full((2338, 1654), 255, np.uint8), {}
    head(sheet, "Votre sejour OOO 000 CODE")
    for number in range(12):
        y = 420 + 120 * number
        words(sheet, 120, y, f"{number + 1}. Que pensez-vous de la chambre {number} ?", 0.8, 2)
        for place, answer in enumerate(("bien", "moyen", "mal", "O")):
            x = 900 + 170 * place
            cv2.circle(sheet, (x + 14, y - 10), 14, 50, 2, cv2.LINE_AA)
            words(sheet, x + 40, y, answer, 0.7)
            fields[f"{number}_{place}"] = (x - 1, y - 25, 31, 31)
    return sheet, fields


def pale() -> tuple[np.ndarray, Boxes]:
    """A drop-out form: rulings and boxes in a pale colour, labels in black."""
    sheet, fields = np.full((2338, 1654), 255, np.uint8), {}
    head(sheet, "BULLETIN DE SITUATION")
    for row in range(8):
        y = 420 + row * 150
        words(sheet, 120, y, f"Rubrique {row}", 0.7, 2)
        cv2.line(sheet, (420, y), (1000, y), 200, 3)
        fields[f"line_{row}"] = (420, y - 126, 580, 136)
        cv2.rectangle(sheet, (1060, y - 90), (1534, y + 10), 200, 3)
        fields[f"box_{row}"] = (1062, y - 88, 470, 96)
    for place in range(5):
        cv2.rectangle(sheet, (420 + 200 * place, 1700), (450 + 200 * place, 1730), 200, 3)
        fields[f"tick_{place}"] = (418 + 200 * place, 1698, 34, 34)
    return sheet, fields


def two_columns() -> tuple[np.ndarray, Boxes]:
    """A3 across, two pages beside each other, labels above their rulings and dotted lines."""
    sheet, fields = np.full((2338, 3307), 255, np.uint8), {}
    head(sheet, "DOSSIER D'ADMISSION")
    for side in (0, 1):
        for row in range(10):
            x, y = 120 + 1650 * side, 460 + row * 160
            words(sheet, x, y - 90, f"Libelle {side}{row}", 0.6, 1)
            if row % 2:
                for dot in range(x, x + 1300, 9):
                    cv2.circle(sheet, (dot, y), 1, 60, -1)
            else:
                cv2.line(sheet, (x, y), (x + 1300, y), 60, 2)
            fields[f"{side}_{row}"] = (x, y - 86, 1300, 96)
    return sheet, fields


def labels_alone() -> tuple[np.ndarray, Boxes]:
    """No ruling at all: labels with room at their right."""
    sheet, fields = np.full((1654, 2338), 255, np.uint8), {}
    head(sheet, "FICHE DE LIAISON")
    for row, label in enumerate(
        ("Nom :", "Prenom :", "Date de naissance :", "Adresse :", "Medecin traitant :", "Motif :")
    ):
        y = 440 + 130 * row
        words(sheet, 120, y, label, 0.9, 2)
        right = 120 + cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 2)[0][0]
        fields[f"{row}"] = (right + 12, y - 60, 2338 - 60 - right - 12, 80)
    return sheet, fields


def tinted(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Print of a colour (blue, green, red) on white, (H, W, 3)."""
    share = (255 - sheet[..., None].astype(np.float32)) / 225
    return np.clip(255 - share * (255 - np.array(colour, np.float32)), 0, 255).astype(np.uint8)


def pdf_form(fields: list[tuple[str, str, tuple[float, float, float, float], int]]) -> bytes:
    """A PDF page, A4, with form fields: (name, Tx or Btn, rectangle in points from the lower left, flags)."""
    text = b"BT /F1 18 Tf 60 780 Td (Formulaire de demande) Tj ET " + b" ".join(
        b"BT /F1 11 Tf %d %d Td (%s) Tj ET" % (60, rect[3] + 3, name.encode()) for name, _, rect, _ in fields
    )
    widgets = b" ".join(b"%d 0 R" % (6 + n) for n in range(len(fields)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R "
               b"/AcroForm << /Fields [%s] /DR << /Font << /F1 4 0 R >> >> >> >>" % widgets,
               b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
               b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R "
               b"/Resources << /Font << /F1 4 0 R >> >> /Annots [%s] >>" % widgets,
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
               b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text)]  # fmt: skip
    for name, kind, rect, flags in fields:
        objects.append(b"<< /Type /Annot /Subtype /Widget /FT /%s /T (%s) /Ff %d /Rect [%g %g %g %g] /P 3 0 R /F 4 >>"
                       % (kind.encode(), name.encode(), flags, *rect))  # fmt: skip
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
