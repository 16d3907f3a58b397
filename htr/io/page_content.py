"""What ALTO and PAGE XML have in common: a page with its lines, each a row's cells."""

from dataclasses import dataclass

from htr.io.direction import quarter


@dataclass
class Page:
    """A page of an XML: the image that it names, which of that file's pages, the size on which its boxes were drawn."""

    image: str
    number: str  # from 0; "" where the XML has one page
    size: str  # "W H" or "W H UNIT"; "" where it isn't said
    lines: list[dict[str, str]]
    lineless: int = 0  # regions that have a text and no line


def local(element) -> str:
    """An element's name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


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


def stated_turn(*degrees: str | None) -> str:
    """What sets the lines of a region upright, as a row's `turn` says it; "" where it is 0. Skew is no turn."""
    try:
        return str(quarter(sum(float(angle or 0) for angle in degrees)) or "")
    except (ValueError, OverflowError):  # no number
        return ""


def pairs(points: str) -> str:
    """Points with or without commas -> "x,y x,y …"."""
    numbers = points.replace(",", " ").split()
    return " ".join(f"{x},{y}" for x, y in zip(numbers[::2], numbers[1::2], strict=False))
