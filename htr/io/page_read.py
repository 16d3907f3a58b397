"""Pages of PAGE XML 2010 to 2019 (https://github.com/PRImA-Research-Lab/PAGE-XML), as page_xml writes it too."""

import re
from collections.abc import Iterator

from htr.io.baselines import cut_around
from htr.io.direction import is_upright
from htr.io.page_content import Page, local, pairs, size_of, stated_turn

LOOSE = re.compile(r",\s|\s,")  # "10, 20 30, 40"
ORDER = re.compile(r"readingOrder\s*\{\s*index\s*:\s*(\d+)")  # in Transkribus' attribute custom
RUNNING = ("orientation", "readingOrientation", "readingDirection")
UPRIGHT = ("top-to-bottom", "bottom-to-top")  # of PAGE's readingDirection


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
    owned = {}  # the place and the lines of each region, in the file's order, and what is said of how they run
    while waiting:  # no recursion: the file decides how deep its regions lie in each other
        element, owner, place = waiting.pop()
        if element.tag.endswith("TextLine"):
            owned[owner][1].append(element)
            continue
        if owner is element or element.tag.endswith("Region"):
            # what a region does not say of its lines it has from the region or the page that it lies in
            above = owned[owner][2] if owner in owned else {}
            said = above | {name: element.get(name) for name in RUNNING if element.get(name)}
            owner = element
            owned[owner] = (place, [], said)
            regions.append(owner)
        inner = [child for child in element if isinstance(child.tag, str)]
        waiting += [(child, owner, places.get(child.get("id"), place)) for child in reversed(inner)]
    rows = []
    for region in sorted(regions, key=lambda region: owned[region][0]):  # stable: the file's order within a place
        rows += region_lines(region, *owned[region][1:])
    cut_around(rows)
    return rows


def region_lines(region, lines: list, said: dict[str, str]) -> list[dict[str, str]]:
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
    turn = stated_turn(said.get("orientation"), said.get("readingOrientation"))
    for row, line in zip(rows, lines, strict=True):
        running = line.get("readingDirection") or said.get("readingDirection", "")
        if turn:
            row["turn"] = turn
        elif running in UPRIGHT and not row["baseline"] and is_upright(row["polygon"]):
            row["reject"] = f"line runs {running}, and neither a baseline nor an orientation says how it is turned"
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
    if points := found.get("points"):
        return pairs(points) if LOOSE.search(points) else points
    return " ".join(f"{p.get('x')},{p.get('y')}" for p in found.iterfind("{*}Point"))


def page_text(element) -> str:
    """Of several readings the one with the lowest index, which is the main one."""
    readings = sorted(element.iterfind("{*}TextEquiv"), key=index)
    return next((reading.findtext("{*}Unicode") or "" for reading in readings), "")
