"""PAGE XML output: a page with its fields as regions, their lines, texts, confidences and alternatives.

The schema is that of 2019-07-15 (https://github.com/PRImA-Research-Lab/PAGE-XML). eScriptorium, Transkribus and kraken
read it, and so does pages.py. A field's name is in its region's `custom`, "structure {type:Ia;}", as Transkribus has.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
MADE = "1970-01-01T00:00:00"  # the schema wants a time; with the true one no two runs would write the same bytes
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line of writing. `outline`: its polygon, in pixels of the page."""

    outline: Points
    text: str
    confidence: float
    alternatives: Sequence[tuple[str, float]] = ()
    baseline: Points = ()


@dataclass(frozen=True)
class Region:
    """A field; one without lines is blank, or a tick box with the text 1 or 0."""

    name: str
    outline: Points
    text: str
    confidence: float
    alternatives: Sequence[tuple[str, float]] = ()
    lines: Sequence[Line] = field(default_factory=tuple)
    turn: int = 0  # degrees clockwise that set its lines upright, see direction.py


def page_xml(image: str, size: tuple[int, int], regions: Sequence[Region]) -> bytes:
    """`image`: the file's name; `size`: width, height in pixels; the regions in reading order."""
    root = ElementTree.Element("PcGts", xmlns=NAMESPACE)
    metadata = ElementTree.SubElement(root, "Metadata")
    for name, text in (("Creator", "htr-hpc"), ("Created", MADE), ("LastChange", MADE)):
        ElementTree.SubElement(metadata, name).text = text
    width, height = (str(side) for side in size)
    page = ElementTree.SubElement(root, "Page", imageFilename=clean(image), imageWidth=width, imageHeight=height)
    if regions:  # the schema has no empty group
        order = ElementTree.SubElement(ElementTree.SubElement(page, "ReadingOrder"), "OrderedGroup", id="order")
        for number in range(len(regions)):
            ElementTree.SubElement(order, "RegionRefIndexed", index=str(number), regionRef=f"r{number}")
    for number, region in enumerate(regions):
        custom = f"readingOrder {{index:{number};}} structure {{type:{clean(region.name)};}}"
        element = ElementTree.SubElement(page, "TextRegion", id=f"r{number}", type="other", custom=custom)
        if region.turn:
            element.set("orientation", str(region.turn if region.turn <= 180 else region.turn - 360))
        add_points(element, "Coords", region.outline, size)
        for place, line in enumerate(region.lines):
            child = ElementTree.SubElement(element, "TextLine", id=f"r{number}l{place}")
            add_points(child, "Coords", line.outline, size)
            if line.baseline:
                add_points(child, "Baseline", line.baseline, size)
            add_texts(child, line)
        add_texts(element, region)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="utf-8") + b"\n"


def box_outline(box: Sequence[float]) -> list[tuple[float, float]]:
    """x, y, w, h -> the corners of the box, its last pixels among them, as pages.py reads it back."""
    x, y, w, h = box
    right, bottom = x + w - 1, y + h - 1
    return [(x, y), (right, y), (right, bottom), (x, bottom)]


def add_points(parent: ElementTree.Element, name: str, points: Points, size: tuple[int, int]) -> None:
    """The schema has whole numbers from 0 on alone."""
    inside = [(min(max(round(x), 0), size[0] - 1), min(max(round(y), 0), size[1] - 1)) for x, y in points]
    ElementTree.SubElement(parent, name, points=" ".join(f"{x},{y}" for x, y in inside))


def add_texts(parent: ElementTree.Element, read: Line | Region) -> None:
    """The reading has the index 0, the alternatives those after it."""
    for index, (text, sure) in enumerate([(read.text, read.confidence), *read.alternatives]):
        equiv = ElementTree.SubElement(parent, "TextEquiv", index=str(index), conf=f"{min(max(sure, 0.0), 1.0):.4f}")
        ElementTree.SubElement(equiv, "Unicode").text = clean(text)


def clean(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
