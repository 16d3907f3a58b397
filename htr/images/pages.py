"""Page images with ALTO 4 or PAGE XML (eScriptorium, Transkribus and kraken write these): one row a text line."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import defusedxml.ElementTree as ElementTree
from defusedxml.common import DefusedXmlException


def read_pages(folder: Path) -> Iterator[dict[str, str]]:
    """Rows of every .xml below the folder, in the order of their names. Raises ValueError for a file that is neither.

    A page is a certificate; its lines are numbered from 0 in the order of the file. `image` is relative to the folder.
    """
    files = sorted(folder.rglob("*.xml"))
    for file in files:
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, DefusedXmlException) as error:
            raise ValueError(f"{file}: not well-formed XML that may be read ({type(error).__name__})") from None
        kind = root.tag.rsplit("}", 1)[-1]
        if kind not in ("alto", "PcGts"):
            raise ValueError(f"{file}: neither ALTO nor PAGE XML (its root is <{kind}>)")
        parent = file.parent.relative_to(folder)
        unit = root.findtext(".//{*}MeasurementUnit", "pixel") if kind == "alto" else "pixel"
        if unit != "pixel":
            raise ValueError(f"{file}: ALTO in '{unit}', only MeasurementUnit pixel is read")
        for number, row in enumerate(alto_lines(root) if kind == "alto" else page_lines(root)):
            if not (row["box"] or row["polygon"]):
                row["box"] = "none"  # rejected with a reason: without a box the whole page would be the line
            named = PurePosixPath(PureWindowsPath(row.pop("image")).as_posix()).name  # a path of another machine
            image = next((n for n in (named, *beside(file)) if n and (file.parent / n).is_file()), named)
            yield {
                "image": str(parent / image),
                "certificate": str(parent / file.stem),
                "field": "page",
                "line": str(number),
                **row,
            }


def beside(file: Path) -> list[str]:
    """The names that the page's image may have when the XML names none that is there."""
    return [file.stem + ending for ending in (".jpg", ".jpeg", ".png", ".tif", ".tiff")]


def alto_lines(root) -> Iterator[dict[str, str]]:
    image = root.findtext(".//{*}sourceImageInformation/{*}fileName", "")
    for line in root.iterfind(".//{*}TextLine"):
        polygon = line.find("{*}Shape/{*}Polygon")
        numbers = [] if polygon is None else polygon.get("POINTS", "").replace(",", " ").split()
        box = [line.get(name, "") for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
        yield {
            "image": image,
            "text": " ".join(string.get("CONTENT", "") for string in line.iterfind("{*}String")),
            "box": " ".join(box) if all(box) else "",
            "polygon": " ".join(f"{x},{y}" for x, y in zip(numbers[::2], numbers[1::2], strict=False)),
        }


def page_lines(root) -> Iterator[dict[str, str]]:
    page = root.find("{*}Page")
    image = "" if page is None else page.get("imageFilename", "")
    for line in root.iterfind(".//{*}TextLine"):
        coords = line.find("{*}Coords")
        yield {
            "image": image,
            "text": line.findtext("{*}TextEquiv/{*}Unicode") or "",
            "box": "",
            "polygon": "" if coords is None else coords.get("points", ""),
        }
