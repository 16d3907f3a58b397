"""Draw docs/pictures/certificate.png: a simulated certificate, what the project's reader says of it, how sure it is.

    python benchmarks/picture.py [--seed 20] [--out docs/pictures/certificate.png]

The scan is simulated, read the whole way by htr/pretrained with beam search. Colours are its own confidence, which is
not calibrated: green from 0.9, orange below, gray for blank fields. Tick boxes that are not ticked are left out.
"""

import argparse
import tempfile
from pathlib import Path

import cv2
import matplotlib

from htr.forms.registration import Forms
from htr.forms.template import load_templates
from htr.reader import Reader
from htr.scan import FieldText, read_scan
from htr.synth.simulate import simulate

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.patches import Rectangle

SURE = 0.9
GREEN, ORANGE, GRAY = "#1b7f3b", "#d9730d", "#8a8a8a"
CHARACTERS = 42  # of a reading in the list


def colour(field: FieldText) -> str:
    if not field.text:
        return GRAY
    return GREEN if field.confidence >= SURE else ORANGE


def shorten(text: str) -> str:
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


def draw(scan, fields: list[FieldText], out: Path) -> None:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.6), width_ratios=[1.55, 1])
    left.imshow(scan, cmap="gray")
    right.set_xlim(0, 1)
    shown = [field for field in fields if field.box and (field.lines or field.text == "1" or not field.text)]
    right.set_ylim(len(shown) + 1, -0.5)
    right.text(0, 0, "field", weight="bold")
    right.text(0.3, 0, "reading", weight="bold")
    right.text(1, 0, "confidence", weight="bold", ha="right")
    for row, field in enumerate(shown, start=1):
        x, y, w, h = field.box
        left.add_patch(Rectangle((x - 4, y - 4), w + 8, h + 8, fill=False, edgecolor=colour(field), linewidth=1.6))
        text = "ticked" if not field.lines and field.text == "1" else shorten(field.text) or "(blank)"
        right.text(0, row, field.field, fontsize=9)
        right.text(0.3, row, text, fontsize=9, color=colour(field))
        right.text(1, row, f"{field.confidence:.2f}", fontsize=9, color=colour(field), ha="right")
    for axes in (left, right):
        axes.axis("off")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/certificate.png"))
    args = parser.parse_args()
    reader = Reader.load("htr/pretrained/model", decoding="htr/pretrained/decoding")
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder), 1, seed=args.seed)
        [page] = (Path(folder) / "pages").glob("*.jpg")
        scan = cv2.imread(str(page), cv2.IMREAD_GRAYSCALE)
    draw(scan, read_scan(scan, Forms(load_templates()), reader), args.out)


if __name__ == "__main__":
    main()
