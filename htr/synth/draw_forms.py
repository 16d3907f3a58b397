"""Draws blank forms in the likeness of the French death certificate's medical part: A5 landscape, 200 dpi.

    template = draw("adult-2018")  # or adult-2024, nearly the same edition; neonatal-2018, another arrangement

`python -m htr.synth.draw_forms` writes the ones that come with the project into htr/forms/data.
"""

import unicodedata
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from htr.forms.field_rules import Rule
from htr.forms.template import FORMS, Field, Template, write_template
from htr.synth.handwriting import ACCENTS, CEDILLA

SIZE, DPI = (1654, 1165), 200  # width, height
NAMES = ("adult-2018", "adult-2024", "neonatal-2018")
SHIPPED = ("adult-2018", "neonatal-2018")  # the other edition is for tests: hard to tell from its like
BLACK, GRAY = 20, 70
LEFT, RIGHT = 30, 1624  # of the frame
GAP_ABOVE_PX, GAP_BELOW_PX = 12, 10  # a ruled field ends that far under the ruling above and under its own
TICK_SIDE_PX = 26
CHAIN = "Ia_interval", "Ib_interval", "Ic_interval", "Id_interval"


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


@dataclass
class Sheet:
    """A form while it is drawn: every field is noted where its rulings, box or square are drawn."""

    picture: Image.Image = field(default_factory=lambda: Image.new("L", SIZE, 255))
    fields: list[Field] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pen = ImageDraw.Draw(self.picture)

    def label(self, x: int, y: int, text: str, size: int, *, bold: bool = False) -> int:
        """Text that stands on the row y, from the column x on -> the column where it ends."""
        font, letters = font_of(size), [unicodedata.normalize("NFD", c) for c in text]
        plain = "".join(letter[0] for letter in letters)  # Pillow's own font has no accents: they are drawn after it
        weight = size / 40 if bold else 0
        self.pen.text((x, y), plain, fill=BLACK, font=font, anchor="ls", stroke_width=weight)
        for at, letter in enumerate(letters):
            if len(letter) == 2:
                middle = x + (font.getlength(plain[:at]) + font.getlength(plain[: at + 1])) / 2
                top = 0.08 * size if letter[1] == "\u0327" else -(0.78 if letter[0].isupper() else 0.62) * size
                strokes = CEDILLA if letter[1] == "\u0327" else ACCENTS[letter[1]]
                thick = round(size / 13) + bold
                for stroke in strokes:
                    points = [(middle + 0.45 * size * dx, y + top + 0.45 * size * dy) for dx, dy in stroke]
                    self.pen.line(points, fill=BLACK, width=thick)
        return round(x + font.getlength(plain))

    def frame(self, x0: int, y0: int, x1: int, y1: int, width: int = 2) -> None:
        self.pen.rectangle((x0, y0, x1, y1), outline=GRAY, width=width)

    def rule(self, y: int, x0: int = LEFT, x1: int = RIGHT, width: int = 2) -> None:
        self.pen.line((x0, y, x1, y), fill=GRAY, width=width)

    def ruled(self, name: str, rows: list[int], x0: int, x1: int, pitch: int, lines: int = 1) -> None:
        """A text field on rulings at these rows."""
        for y in rows:
            self.rule(y, x0, x1)
        top = rows[0] - pitch + GAP_ABOVE_PX
        self.fields.append(Field(name, "text", (x0, top, x1 - x0, rows[-1] + GAP_BELOW_PX - top), lines, pitch))

    def boxed(self, name: str, x: int, y: int, w: int, h: int, pitch: int, lines: int = 1) -> None:
        """A text field in a box without rulings."""
        self.frame(x, y, x + w, y + h)
        self.fields.append(Field(name, "text", (x + 3, y + 3, w - 5, h - 5), lines, pitch))

    def ticks(self, x: int, y: int, name: str, answers: dict[str, str], gap: int = 26) -> None:
        """Squares with their answers after them, standing on the row y, from the column x on."""
        for answer, words in answers.items():
            self.frame(x, y - TICK_SIDE_PX + 4, x + TICK_SIDE_PX, y + 4)
            self.fields.append(
                Field(
                    f"{name}_{answer}",
                    "tick",
                    (x, y - TICK_SIDE_PX + 4, TICK_SIDE_PX + 1, TICK_SIDE_PX + 1),
                    1,
                    TICK_SIDE_PX + 1,
                )
            )
            end = self.label(x + TICK_SIDE_PX + 9, y, words, 20)
            x = end + gap

    def head(self, title: str, edition: str, number: str) -> None:
        self.label(40, 44, "RÉPUBLIQUE FRANÇAISE", 18, bold=True)
        self.label(40, 68, "Ministère chargé de la santé", 17)
        self.label(40, 90, "À remplir par le médecin, en capitales de préférence", 14)
        self.label(480, 56, title, 38, bold=True)
        self.label(480, 90, "Volet médical anonyme, à clore par le médecin. Ne pas indiquer l'identité du défunt.", 19)
        self.frame(1392, 16, RIGHT, 72)
        self.label(1404, 52, number, 24, bold=True)
        self.label(1404, 94, edition, 18)
        self.frame(LEFT, 104, RIGHT, 1118, 3)

    def foot(self, edition: str) -> None:
        small = (
            "Les informations de ce volet sont confidentielles : elles sont destinées à la statistique nationale des "
            "causes de décès et à la veille sanitaire."
        )
        self.label(40, 1138, small, 14)
        self.label(40, 1156, "Articles L. 2223-42 et R. 2213-1-1 du code général des collectivités territoriales.", 14)
        self.label(1420, 1150, edition, 16)


def draw_adult(edition: str) -> Sheet:
    """Part I in four lines with intervals, part II in two, four questions, and a box for the circumstances."""
    sheet, new = Sheet(), edition == "2024"
    sheet.head("CERTIFICAT DE DÉCÈS", f"modèle {'B' if new else 'A'}, {edition}", f"N° 10-27*0{4 if new else 3}")
    sheet.label(44, 136, "PARTIE I", 23, bold=True)
    sheet.label(160, 136, "Maladie(s) ou affection(s) morbide(s) ayant directement provoqué le décès", 22, bold=True)
    rule = (
        "La dernière ligne remplie est la cause initiale. Ne pas indiquer le mode de décès (arrêt cardiaque, syncope)."
    )
    sheet.label(160, 158, rule, 15)
    sheet.label(1292, 124, "Intervalle entre le début du processus", 16)
    sheet.label(1292, 144, "et le décès (heures, jours, mois, ans)", 16)
    pitch = 98
    for number, letter in enumerate("abcd"):
        y = 258 + number * pitch
        sheet.label(52, y - 14, f"{letter})", 28, bold=True)
        if number:
            sheet.label(48, y - 58, "dû ou consécutif", 13)
            sheet.label(48, y - 43, "à :", 13)
        sheet.ruled(f"I{letter}", [y], 166, 1250, pitch)
        sheet.boxed(f"I{letter}_interval", 1288, y - 84, 322, 90, pitch - 8)
    sheet.rule(578)
    sheet.label(44, 604, "PARTIE II", 23, bold=True)
    other = "Autres états morbides, facteurs ou états physiologiques ayant contribué au décès"
    sheet.label(166, 603, f"{other}, {'et' if new else 'mais'} non mentionnés en partie I", 18)
    sheet.ruled("II", [702, 796], 166, 1250, 94, lines=4)
    sheet.boxed("II_interval", 1288, 626, 322, 174, 90, lines=2)
    sheet.rule(822)
    moved = 10 if new else 0
    sheet.label(44, 858, "Grossesse dans l'année précédant le décès", 19, bold=True)
    sheet.ticks(480 + moved, 858, "pregnancy", {"yes": "oui", "no": "non"})
    sheet.label(44, 912, "Accident du travail (ou présumé tel)", 19, bold=True)
    sheet.ticks(480, 912, "work_accident", {"yes": "oui", "no": "non", "unknown": "sans précision"})
    sheet.label(44, 966 + moved, "Autopsie demandée", 19, bold=True)
    sheet.ticks(480, 966 + moved, "autopsy", {"yes": "oui", "no": "non"})
    sheet.label(44, 1024, "Lieu du décès", 19, bold=True)
    places = {"home": "domicile", "hospital": "hôpital", "clinic": "clinique", "ehpad": "Ehpad"}
    sheet.ticks(205, 1024, "place", places, 24)
    sheet.ticks(205, 1066, "place", {"road": "voie publique", "other": "autre lieu"}, 24)
    sheet.label(44, 1104, "Cocher la case qui convient. En l'absence de réponse, préciser au verso.", 14)
    sheet.label(838, 848, "Circonstances apparentes du décès", 19, bold=True)
    sheet.label(1165, 848, "(mort violente : préciser le lieu et la nature)", 15)
    sheet.boxed("circumstances", 838, 860, 772, 240, 58, lines=4)
    sheet.foot(f"Éd. {edition}-01")
    return sheet


def draw_neonatal() -> Sheet:
    """Causes of the child and of the mother in ruled fields of one or two lines, numbers in small boxes, questions."""
    sheet = Sheet()
    sheet.head("CERTIFICAT DE DÉCÈS NÉONATAL", "modèle N, 2018", "N° 10-31*02")
    sheet.label(44, 138, "ENFANT", 23, bold=True)
    sheet.label(160, 138, "né vivant et décédé entre la naissance et le 27e jour de vie révolu", 20)
    sheet.label(44, 196, "Poids de naissance (g)", 18)
    sheet.boxed("weight", 250, 152, 180, 66, 62)
    sheet.label(460, 196, "Âge gestationnel (SA)", 18)
    sheet.boxed("gestation", 660, 152, 150, 66, 62)
    sheet.label(840, 196, "Âge de l'enfant", 18)
    sheet.boxed("age", 985, 152, 210, 66, 62)
    sheet.label(1226, 178, "Naissance", 18, bold=True)
    sheet.ticks(1340, 178, "birth", {"single": "simple", "multiple": "multiple"})
    sheet.label(1226, 212, "Sexe", 18, bold=True)
    sheet.ticks(1340, 212, "sex", {"male": "masculin", "female": "féminin"})
    sheet.rule(232)
    sheet.label(44, 258, "CAUSES DU DÉCÈS", 23, bold=True)
    sheet.label(300, 258, "chez l'enfant, puis chez la mère (causes obstétricales et maternelles)", 19)
    questions = [
        ("a", "child_main", "Affection principale", "de l'enfant", [352]),
        ("b", "child_other", "Autres affections", "de l'enfant", [446, 540]),
        ("c", "mother_main", "Affection principale", "de la mère", [634]),
        ("d", "mother_other", "Autres affections", "de la mère", [728, 822]),
    ]
    for letter, name, first, second, rows in questions:
        sheet.label(48, rows[0] - 34, f"{letter})", 26, bold=True)
        sheet.label(90, rows[0] - 40, first, 17)
        sheet.label(90, rows[0] - 18, second, 17)
        sheet.ruled(name, rows, 270, 1604, 94, lines=2 * len(rows) if len(rows) > 1 else 1)
    sheet.rule(846)
    sheet.label(44, 872, "e) Autres circonstances ayant joué un rôle", 19, bold=True)
    sheet.boxed("circumstances", 44, 884, 780, 216, 58, lines=3)
    for y, question, name, answers in [
        (886, "Accouchement", "delivery", {"vaginal": "voie basse", "cesarean": "césarienne"}),
        (942, "Réanimation", "resuscitation", {"yes": "oui", "no": "non"}),
        (998, "Autopsie demandée", "autopsy", {"yes": "oui", "no": "non"}),
        (1054, "Lieu du décès", "place", {"home": "domicile", "hospital": "maternité", "other": "autre"}),
    ]:
        sheet.label(860, y, question, 19, bold=True)
        sheet.ticks(1080, y, name, answers)
    sheet.foot("Éd. 2018-01")
    return sheet


@cache
def draw(name: str) -> Template:
    """The form of this name, one of NAMES. ValueError for another."""
    if name not in NAMES:
        raise ValueError(f"no form {name!r} can be drawn; there are {', '.join(NAMES)}")
    sheets = {"adult-2018": draw_adult("2018"), "adult-2024": draw_adult("2024"), "neonatal-2018": draw_neonatal()}
    pictures = {name: np.asarray(sheet.picture) for name, sheet in sheets.items()}
    like = {"adult-2018": "adult-2024", "adult-2024": "adult-2018"}.get(name)
    marks = differences(pictures[name], pictures[like]) if like else ((1392, 16, 233, 84),)  # else the form's number
    fields = tuple(sheets[name].fields)
    return Template(name, pictures[name], DPI, fields, marks, rules_between(fields))


def rules_between(fields: tuple[Field, ...]) -> tuple[Rule, ...]:
    """Of a question at most one box; an onset is no later than what it led to; no duration is longer than a life."""
    ticks = [field.name for field in fields if field.kind == "tick"]
    questions = dict.fromkeys(name.rpartition("_")[0] for name in ticks)
    groups = [tuple(name for name in ticks if name.rpartition("_")[0] == question) for question in questions]
    rules = [Rule("at_most", "one of", group) for group in groups if len(group) > 1]
    known = {field.name for field in fields}
    if known.issuperset(CHAIN):
        rules.append(Rule("order", "durations", CHAIN))
        rules.append(Rule("between", ("0 min", "120 ans"), (*CHAIN, "II_interval")))
    if "age" in known:
        rules.append(Rule("between", ("0 min", "28 jours"), ("age",)))  # a neonatal death
    return tuple(rules)


def differences(picture: np.ndarray, like: np.ndarray) -> tuple[tuple[int, int, int, int], ...]:
    """The zones (x, y, w, h) where two editions differ, from top to bottom: near differences are one zone."""
    changed = cv2.dilate(cv2.absdiff(picture, like), np.ones((17, 33), np.uint8)) > 40
    stats = cv2.connectedComponentsWithStats(changed.astype(np.uint8))[2][1:, :4].tolist()
    return tuple(sorted(map(tuple, stats), key=lambda box: (box[1], box[0])))


def main() -> None:
    for name in SHIPPED:
        print(write_template(draw(name), FORMS))


if __name__ == "__main__":
    main()
