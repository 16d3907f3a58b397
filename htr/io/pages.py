"""ALTO 2 to 4 and PAGE XML 2010 to 2019 (eScriptorium, Transkribus, kraken) with their images: a row a line."""

import collections
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import defusedxml.ElementTree as ElementTree
from defusedxml.common import DefusedXmlException

from htr.io.account import Account
from htr.io.baselines import cut_around
from htr.io.folders import ENDINGS, Names, look

MAX_XML_BYTES = 50 << 20  # of one file: a page of 100 lines takes 100 kB, and its tree ten times as much memory
METADATA = {"mets", "mods", "dc", "trpDocMetadata"}  # roots of what the same tools write beside their pages
UNITS = ("pixel", "mm10", "inch1200")  # of ALTO
ORDER = re.compile(r"readingOrder\s*\{\s*index\s*:\s*(\d+)")  # in Transkribus' attribute custom


@dataclass
class Page:
    """A page of an XML: the image that it names, which of that file's pages, the size on which its boxes were drawn."""

    image: str
    number: str  # from 0; "" where the XML has one page
    size: str  # "W H" or "W H UNIT"; "" where it isn't said
    lines: list[dict[str, str]]
    lineless: int = 0  # regions that have a text and no line


def read_pages(folder: Path, account: Account | None = None) -> Iterator[dict[str, str]]:
    """Rows of every .xml below the folder, in the order of their names.

    An XML is a certificate; its lines are numbered from 0 in reading order. `image` is relative to the folder;
    `page_size` is that of the page as the XML states it, on which its boxes were drawn; `reject` says why a line can't
    be one. What is not read goes into `account`; without one, metadata among the pages is a warning. Raises ValueError
    for a file that is neither ALTO nor PAGE XML, or that may not be read.
    """
    given, account = account, Account() if account is None else account
    listing, top, names = look(folder, account), folder.resolve(), Names(folder)
    skipped, used, missing, lineless = collections.Counter(), set(), [], 0
    for file in (folder / name for name in listing.xml):
        if file.is_symlink() and not file.resolve().is_relative_to(top):
            raise ValueError(f"{file}: a link that leads out of the source's folder")
        root = parse(file)
        kind = local(root)
        if kind in METADATA:
            skipped[kind] += 1
            continue
        if kind not in ("alto", "PcGts"):
            raise ValueError(f"{file}: neither ALTO nor PAGE XML (its root is <{kind[:40]}>)")
        number, certificate = 0, str(file.parent.relative_to(folder) / file.stem)
        for page in alto_pages(root, file) if kind == "alto" else page_pages(root):
            image = find_image(folder, file, page.image, names)
            if not is_file(folder / image):
                missing.append((file, image))
            used.add(image)
            lineless += page.lineless
            known = {"page": page.number} if page.number else {}
            known |= {"page_size": page.size} if page.size else {}
            for row in page.lines:
                if not (row["box"] or row["polygon"]):
                    row["box"] = "none"  # rejected with a reason: without a box the whole page would be the line
                yield {"image": image, "certificate": certificate, "field": "page", "line": str(number), **row, **known}
                number += 1
        if number:
            account.kinds["XML"] += 1
        else:
            account.pass_over("XML without a text line")
    close(folder, account, listing.images, used, missing, names)
    if lineless:
        account.note(f"{folder}: {lineless} regions have a text and no line: they are not read")
    for kind, count in skipped.items():
        account.pass_over(f"XML that is metadata (<{kind}>)", count)
    if skipped and given is None:
        counts = ", ".join(f"{count} <{kind}>" for kind, count in sorted(skipped.items()))
        warnings.warn(f"{folder}: metadata among the pages was skipped ({counts})", stacklevel=2)


def close(folder: Path, account: Account, images: list[str], used: set[str], missing: list, names: Names) -> None:
    """The images' part of the account."""
    there = sum(name in used for name in images)
    if there:
        account.kinds["images"] += there
    account.pass_over("images that no XML names", len(images) - there)
    if missing:
        file, image = missing[0]
        near = names.nearest((folder / image).parent, Path(image).name)
        account.note(
            f"{folder}: {len(missing)} XML name an image that is not there, the first is {file.name}, which names "
            f"{Path(image).name[:100]!r}" + (f"; the nearest name there is: {near!r}" if near else "")
        )


def xml_files(folder: Path) -> list[Path]:
    """Every .xml below the folder by name; none that is hidden, no folder, named pipe or link that leads nowhere."""
    return [folder / name for name in look(folder, Account()).xml]


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


def find_image(folder: Path, file: Path, named: str, names: Names) -> str:
    """The page's image, relative to the folder: the one that is named or has the file's name, beside the XML or one
    folder above (Transkribus keeps the XML in page/, OCR-D names a path from there)."""
    path = PurePosixPath(PureWindowsPath(named).as_posix())  # often one of another machine
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in named
    wanted = [str(path)] if inside and len(path.parts) > 1 else []
    wanted += [path.name] if path.name else []
    wanted += [plainly for name in wanted if (plainly := unquote(name)) != name and ".." not in plainly]  # %20
    alike = [name for name in wanted if len(name) < 1000 and "\0" not in name and not name.startswith("/")]
    wanted += [file.stem + ending for ending in (*ENDINGS, *map(str.upper, ENDINGS))]
    wanted += [file.stem] if file.stem.lower().endswith(ENDINGS) else []  # p1.jpg.xml
    places = [file.parent, *([file.parent.parent] if file.parent != folder else [])]
    for place in places:
        for name in wanted:
            if is_file(place / name):
                return str((place / name).relative_to(folder))
        for name in alike:
            if found := names.find(place, name):
                return str(found.relative_to(folder))
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


def alto_pages(root, file: Path) -> Iterator[Page]:
    """Its lines are in reading order. Several pages are those of one file, or of as many files as are named."""
    unit = (root.findtext(".//{*}MeasurementUnit") or "pixel").strip()
    if unit not in UNITS:
        raise ValueError(f"{file}: ALTO in '{unit[:40]}', only {', '.join(UNITS)} are read")
    images = [name.text or "" for name in root.iterfind(".//{*}sourceImageInformation/{*}fileName")]
    pages = root.findall(".//{*}Page") or [root]
    for number, page in enumerate(pages):
        own = len(images) == len(pages)
        image = images[number] if own else next(iter(images), "")
        size = size_of(page.get("WIDTH"), page.get("HEIGHT"), unit)
        lines = [alto_line(line) for line in page.iterfind(".//{*}TextLine")]
        cut_around(lines)
        yield Page(image, "" if own else str(number), size, lines)


def size_of(width: str | None, height: str | None, unit: str = "pixel") -> str:
    """As a row's `page_size` says it; a page of 0 or without a size states none, which matters only where the unit
    isn't pixels."""
    try:
        sides = [float(side or 0) for side in (width, height)]
    except ValueError:
        sides = [0.0]
    known = len(sides) == 2 and all(0 < side < 1e9 for side in sides)
    if unit == "pixel":
        return f"{sides[0]:g} {sides[1]:g}" if known else ""
    return f"{sides[0]:g} {sides[1]:g} {unit}" if known else f"0 0 {unit}"


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


def page_pages(root) -> Iterator[Page]:
    for page in root.iterfind("{*}Page"):
        size = size_of(page.get("imageWidth"), page.get("imageHeight"))
        alone = sum(page_text(region) != "" and region.find(".//{*}TextLine") is None for region in regions_of(page))
        yield Page(page.get("imageFilename", ""), "", size, page_lines(page), alone)


def regions_of(page) -> Iterator:
    return (element for element in page.iter() if isinstance(element.tag, str) and element.tag.endswith("Region"))


def page_lines(page) -> list[dict[str, str]]:
    """Regions in the order of ReadingOrder, those without a place there last; their lines in theirs."""
    places = reading_order(page.find("{*}ReadingOrder"))
    regions, waiting = [], [(page, page, len(places))]
    owned = {}  # the place and the lines of each region, in the file's order
    while waiting:  # no recursion: the file decides how deep its regions lie in each other
        element, owner, place = waiting.pop()
        if element.tag.endswith("TextLine"):
            owned[owner][1].append(element)
            continue
        if owner is element or element.tag.endswith("Region"):
            owner = element
            owned[owner] = (place, [])
            regions.append(owner)
        inner = [child for child in element if isinstance(child.tag, str)]
        waiting += [(child, owner, places.get(child.get("id"), place)) for child in reversed(inner)]
    rows = []
    for region in sorted(regions, key=lambda region: owned[region][0]):  # stable: the file's order within a place
        rows += region_lines(region, owned[region][1])
    cut_around(rows)
    return rows


def region_lines(region, lines: list) -> list[dict[str, str]]:
    """The lines of a region with their texts, or the reason why they have none."""
    orders = [ORDER.search(line.get("custom", "")) for line in lines]
    if lines and all(orders):
        lines = [line for _, line in sorted(zip(orders, lines, strict=True), key=lambda pair: int(pair[0][1]))]
    rows = [page_line(line) for line in lines]
    pieces = [piece.strip() for piece in page_text(region).splitlines() if piece.strip()]
    if pieces and not any(row["text"] for row in rows):
        for number, row in enumerate(rows):
            row["text"] = pieces[number] if len(pieces) == len(rows) else ""
            if len(pieces) != len(rows):
                row["reject"] = "text stands at the region alone, in other pieces than it has lines"
    try:
        turned = abs(float(region.get("orientation") or 0)) > 45
    except ValueError:
        turned = False
    for row in rows if turned else []:
        row["reject"] = "region is turned by more than 45 degrees"
    return rows


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
    words = (page_text(word) or "".join(map(page_text, word.iterfind("{*}Glyph"))) for word in line.iterfind("{*}Word"))
    return {
        "text": page_text(line) or " ".join(word for word in words if word),
        "box": "",
        "polygon": points_of(line),
        "baseline": points_of(line, "Baseline"),
    }


def points_of(element, name: str = "Coords") -> str:
    """As an attribute, or as the <Point x="" y=""> of PAGE 2010."""
    found = element.find(f"{{*}}{name}")
    if found is None:
        return ""
    return found.get("points") or " ".join(f"{p.get('x')},{p.get('y')}" for p in found.iterfind("{*}Point"))


def page_text(element) -> str:
    """Of several readings the one with the lowest index, which is the main one."""
    readings = sorted(element.iterfind("{*}TextEquiv"), key=index)
    return next((reading.findtext("{*}Unicode") or "" for reading in readings), "")
