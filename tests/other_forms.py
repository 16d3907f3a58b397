"""Forms of quite another kind than the project's, drawn by these tests: a register with columns, a questionnaire."""

import cv2
import numpy as np

DPI = 200
FONT = cv2.FONT_HERSHEY_SIMPLEX


def words(sheet: np.ndarray, x: int, y: int, text: str, size: float = 0.6, thick: int = 1) -> None:
    cv2.putText(sheet, text, (x, y), FONT, size, 30, thick, cv2.LINE_AA)


def register() -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """A page of a register, A4 upright: a table of five columns and nine rows -> picture, the cells by name."""
    sheet, cells = np.full((2338, 1654), 255, np.uint8), {}
    words(sheet, 420, 120, "REGISTRE DES INHUMATIONS", 1.3, 3)
    words(sheet, 120, 180, "Commune de Saint-Pierre-le-Vieux, feuillet 27, tenu par le secretaire de mairie", 0.7)
    edges = [80, 220, 620, 900, 1220, 1574]
    for name, left in zip(("No", "Nom et prenoms", "Date du deces", "Profession", "Observations"), edges, strict=False):
        words(sheet, left + 12, 276, name, 0.7, 2)
    top, height = 300, 190
    for row in range(10):
        cv2.line(sheet, (edges[0], top + row * height), (edges[-1], top + row * height), 60, 2)
    cv2.line(sheet, (edges[0], 235), (edges[-1], 235), 60, 2)
    for column, x in enumerate(edges):
        cv2.line(sheet, (x, 235), (x, top + 9 * height), 60, 2)
        for row in range(9 if column < 5 else 0):
            cells[f"{row}_{column}"] = (x + 2, top + row * height + 2, edges[column + 1] - x - 3, height - 3)
    words(sheet, 120, 2120, "Arrete le present feuillet a neuf inscriptions, certifie conforme par le maire.", 0.7)
    words(sheet, 120, 2240, "Imprimerie Berger et fils, modele 412 bis, depot legal 1931", 0.5)
    return sheet, cells


def questionnaire() -> tuple[np.ndarray, dict[str, tuple[int, int, int, int]]]:
    """A questionnaire of a page, A4 upright: dotted lines, boxes to tick, a box for remarks -> picture, its fields."""
    sheet, fields = np.full((2338, 1654), 255, np.uint8), {}
    words(sheet, 120, 140, "Enquete sur les conditions de logement", 1.4, 3)
    words(sheet, 120, 200, "A retourner sous huit jours a l'adresse figurant au dos. Merci de votre concours.", 0.65)
    for number, label in enumerate(("Nom :", "Rue :", "Ville :", "Metier :")):
        y = 340 + 110 * number
        words(sheet, 120, y, label, 0.8, 2)
        for x in range(300, 1500, 8):
            cv2.circle(sheet, (x, y), 1, 60, -1)
        fields[f"line_{number}"] = (300, y - 96, 1200, 106)
    questions = ["Etes-vous proprietaire ?", "Avez-vous l'eau courante ?", "Avez-vous le chauffage central ?",
                 "Le logement est-il humide ?", "Y a-t-il des enfants au foyer ?"]  # fmt: skip
    for number, question in enumerate(questions):
        y = 860 + 90 * number
        words(sheet, 120, y, f"{number + 1}. {question}", 0.8, 2)
        for place, answer in enumerate(("oui", "non", "sans reponse")):
            x = 900 + 190 * place
            cv2.rectangle(sheet, (x, y - 26), (x + 30, y + 4), 50, 2)
            words(sheet, x + 44, y, answer, 0.7)
            fields[f"tick_{number}_{place}"] = (x - 1, y - 27, 32, 32)
    words(sheet, 120, 1380, "Remarques", 0.8, 2)
    cv2.rectangle(sheet, (120, 1400), (1534, 2100), 50, 3)
    fields["remarks"] = (122, 1402, 1411, 697)
    words(sheet, 120, 2200, "Institut departemental de statistique, formulaire L-7, tirage du printemps", 0.55)
    return sheet, fields


def overlap(one, other) -> float:
    """Intersection over union of two boxes x, y, w, h."""
    w, h = (max(min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1))
    return w * h / (one[2] * one[3] + other[2] * other[3] - w * h)


def found(proposed, boxes) -> tuple[int, int]:
    """Of proposed fields: how many of the boxes are among them, and how many of them are none of the boxes."""
    shares = np.array([[overlap(field.box, box) for field in proposed] for box in boxes])
    return int((shares.max(axis=1) >= 0.7).sum()), int((shares.max(axis=0) < 0.7).sum())
