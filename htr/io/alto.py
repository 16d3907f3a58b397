"""Pages of ALTO 2 to 4 (https://github.com/altoxml/schema)."""

from collections.abc import Iterator
from pathlib import Path

from htr.io.baselines import cut_around
from htr.io.page_content import Page, local, pairs, size_of, stated_turn

UNITS = ("pixel", "mm10", "inch1200")  # of ALTO


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
        lines = alto_lines(page)
        cut_around(lines)
        yield Page(image, "" if own else str(number), size, lines)


def alto_lines(page) -> list[dict[str, str]]:
    """Those of a block that is turned say so: ROTATION is how far it was turned against the clock."""
    turns = {
        line: turn
        for block in page.iterfind(".//{*}TextBlock[@ROTATION]")
        if (turn := stated_turn(block.get("ROTATION")))
        for line in block.iterfind("{*}TextLine")
    }
    lines = page.iterfind(".//{*}TextLine")
    return [alto_line(line) | ({"turn": turns[line]} if line in turns else {}) for line in lines]


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
