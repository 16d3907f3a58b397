"""Page images with ALTO 4 or PAGE XML (eScriptorium, Transkribus and kraken write these): one row a text line."""

import collections
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import defusedxml.ElementTree as ElementTree
from defusedxml.common import DefusedXmlException

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
MAX_XML_BYTES = 50 << 20  # of one file: a page of 100 lines takes 100 kB, and its tree ten times as much memory
METADATA = {"mets", "mods", "dc", "trpDocMetadata"}  # roots of what the same tools write beside their pages


def read_pages(folder: Path) -> Iterator[dict[str, str]]:
    """Rows of every .xml below the folder, in the order of their names; metadata among them is skipped with a warning.

    A page is a certificate; its lines are numbered from 0 in reading order. `image` is relative to the folder. Raises
    ValueError for a file that is neither ALTO nor PAGE XML, or that may not be read.
    """
    skipped, top = collections.Counter(), folder.resolve()
    for file in xml_files(folder):
        if file.is_symlink() and not file.resolve().is_relative_to(top):
            raise ValueError(f"{file}: a link that leads out of the source's folder")
        root = parse(file)
        kind = local(root)
        if kind in METADATA:
            skipped[kind] += 1
            continue
        if kind not in ("alto", "PcGts"):
            raise ValueError(f"{file}: neither ALTO nor PAGE XML (its root is <{kind[:40]}>)")
        unit = root.findtext(".//{*}MeasurementUnit", "pixel").strip() if kind == "alto" else "pixel"
        if unit != "pixel":
            raise ValueError(f"{file}: ALTO in '{unit[:40]}', only MeasurementUnit pixel is read")
        named, lines = alto_lines(root) if kind == "alto" else page_lines(root)
        image = find_image(folder, file, named)
        certificate = str(file.parent.relative_to(folder) / file.stem)
        for number, row in enumerate(lines):
            if not (row["box"] or row["polygon"]):
                row["box"] = "none"  # rejected with a reason: without a box the whole page would be the line
            yield {"image": image, "certificate": certificate, "field": "page", "line": str(number), **row}
    if skipped:
        counts = ", ".join(f"{count} <{kind}>" for kind, count in sorted(skipped.items()))
        warnings.warn(f"{folder}: metadata among the pages was skipped ({counts})", stacklevel=2)


def xml_files(folder: Path) -> list[Path]:
    """Every .xml below the folder by name; no folder, named pipe or link that leads nowhere."""
    return sorted(path for path in folder.rglob("*.xml") if is_file(path))


def parse(file: Path):
    """-> the root. Raises ValueError naming the file, never quoting it: it may hold transcriptions."""
    try:
        if file.stat().st_size > MAX_XML_BYTES:
            raise ValueError(f"{file}: too large for the XML of a page")
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: can't be read ({type(error).__name__})") from None
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, DefusedXmlException, LookupError, ValueError) as error:  # also unknown encodings
        raise ValueError(f"{file}: not well-formed XML that may be read ({type(error).__name__})") from None


def local(element) -> str:
    """An element's name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def find_image(folder: Path, file: Path, named: str) -> str:
    """The page's image, relative to the folder: the one that is named or has the file's name, beside the XML or one
    folder above (Transkribus keeps the XML in page/, OCR-D names a path from there)."""
    path = PurePosixPath(PureWindowsPath(named).as_posix())  # often one of another machine
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in named
    names = [str(path)] if inside and len(path.parts) > 1 else []
    names += [path.name] if path.name else []
    names += [file.stem + ending for ending in (*ENDINGS, *map(str.upper, ENDINGS))]
    names += [file.stem] if file.stem.lower().endswith(ENDINGS) else []  # p1.jpg.xml
    above = [file.parent.parent] if file.parent != folder else []
    for place in (file.parent, *above):
        for name in names:
            if is_file(place / name):
                return str((place / name).relative_to(folder))
    return str(file.parent.relative_to(folder) / path.name)


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system, a folder that may not be entered
        return False


def pairs(points: str) -> str:
    """Points with or without commas -> "x,y x,y …"."""
    numbers = points.replace(",", " ").split()
    return " ".join(f"{x},{y}" for x, y in zip(numbers[::2], numbers[1::2], strict=False))


# ---------------------------------------------------------------- ALTO


def alto_lines(root) -> tuple[str, Iterator[dict[str, str]]]:
    """-> the image's name; the lines, which ALTO keeps in reading order."""
    return root.findtext(".//{*}sourceImageInformation/{*}fileName", ""), map(
        alto_line, root.iterfind(".//{*}TextLine")
    )


def alto_line(line) -> dict[str, str]:
    polygon = line.find("{*}Shape/{*}Polygon")
    box = [line.get(name, "") for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    return {
        "text": alto_text(line),
        "box": " ".join(box) if all(box) else "",
        "polygon": "" if polygon is None else pairs(polygon.get("POINTS", "")),
        "baseline": alto_baseline(line.get("BASELINE", ""), *box),
    }


def alto_baseline(baseline: str, x: str, y: str, width: str, height: str) -> str:
    """Points since ALTO 4, one y before."""
    if len(baseline.replace(",", " ").split()) != 1:
        return pairs(baseline)
    try:
        return f"{x},{baseline.strip()} {float(x) + float(width):g},{baseline.strip()}"
    except ValueError:  # no box
        return ""


def alto_text(line) -> str:
    """The strings with what is between them: a space where <SP> stands or, in a file without any, between all."""
    spaced = line.find("{*}SP") is not None
    parts = []
    for child in line:
        kind = local(child) if isinstance(child.tag, str) else ""
        if kind == "String":
            parts += ["" if spaced or not parts else " ", child.get("CONTENT", "")]
        elif kind == "SP":
            parts.append(" ")
        elif kind == "HYP":  # the hyphen at the line's end, a part of its last word
            parts.append(child.get("CONTENT", "-").replace("\N{SOFT HYPHEN}", "-"))
    return "".join(parts)


# ---------------------------------------------------------------- PAGE XML


def page_lines(root) -> tuple[str, Iterator[dict[str, str]]]:
    """-> the image's name; the lines, their regions in the order of ReadingOrder, those without a place there last."""
    page = root.find("{*}Page")
    if page is None:
        return "", iter(())
    places = reading_order(page.find("{*}ReadingOrder"))
    lines, waiting = [], [(page, len(places))]
    while waiting:  # no recursion: the file decides how deep its regions lie in each other
        element, place = waiting.pop()
        if element.tag.endswith("TextLine"):
            lines.append((place, element))
            continue
        inner = [child for child in element if isinstance(child.tag, str)]
        waiting += [(child, places.get(child.get("id"), place)) for child in reversed(inner)]
    lines.sort(key=lambda pair: pair[0])  # stable: the file's order within a region
    return page.get("imageFilename", ""), (page_line(line) for _, line in lines)


def reading_order(order) -> dict[str, int]:
    """The regions' ids -> their places. The children of an ordered group come by their index."""
    places, waiting = {}, [] if order is None else [order]
    while waiting:
        element = waiting.pop()
        if element.get("regionRef"):
            places.setdefault(element.get("regionRef"), len(places))
        children = [child for child in element if isinstance(child.tag, str)]
        if local(element).startswith("OrderedGroup"):
            children.sort(key=index)
        waiting += reversed(children)
    return places


def index(element) -> int:
    try:
        return int(element.get("index", "0"))
    except ValueError:
        return 0


def page_line(line) -> dict[str, str]:
    coords, baseline = line.find("{*}Coords"), line.find("{*}Baseline")
    words = (page_text(word) for word in line.iterfind("{*}Word"))
    return {
        "text": page_text(line) or " ".join(word for word in words if word),
        "box": "",
        "polygon": "" if coords is None else coords.get("points", ""),
        "baseline": "" if baseline is None else baseline.get("points", ""),
    }


def page_text(element) -> str:
    """Of several readings the one with the lowest index, which is the main one."""
    readings = sorted(element.iterfind("{*}TextEquiv"), key=index)
    return next((reading.findtext("{*}Unicode") or "" for reading in readings), "")
