"""HTML pages of `report`: a run's files become a view (dictionaries of figures and plots), a template a page.

One file each, without a request to anywhere: style and script stand in the page, plots are SVG of `plot`. Templates
escape whatever they are given; only `plot` and these files write markup. A page holds no text and no image of a line,
unless `samples` was asked for them.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

HERE = Path(__file__).parent
THIN_SPACE = "\u202f"  # a narrow space that doesn't break
MINUS = "\u2212"
UNKNOWN_SIGN = "\u2013"


def render(template: str, **view) -> str:
    """A view -> the page. Raises ValueError for what the view lacks."""
    pages = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters |= {"percent": percent, "bounds": bounds, "count": count, "points": points, "plain": plain}
    files = {name: (HERE / f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    try:
        return pages.get_template(template).render(**{name: Markup(text) for name, text in files.items()}, **view)
    except UndefinedError as error:
        raise ValueError(f"a figure is missing, was it made by another version? ({error})") from None


def known(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def percent(value: float | None, digits: int = 2) -> str:
    """0.0835 -> 8.35 %"""
    return f"{100 * value:.{digits}f}{THIN_SPACE}%" if known(value) else UNKNOWN_SIGN


def bounds(pair: Sequence[float | None] | None, digits: int = 2, factor: float = 100) -> str:
    """(0.0677, 0.0999) -> 6.77 to 9.99"""
    if not pair or not all(map(known, pair)):
        return UNKNOWN_SIGN
    return " to ".join(f"{factor * bound:.{digits}f}".replace("-", MINUS) for bound in pair)


def points(value: float | None, digits: int = 2) -> str:
    """A difference of shares in percentage points: 0.0203 -> +2.03"""
    return f"{100 * value:+.{digits}f}".replace("-", MINUS) if known(value) else UNKNOWN_SIGN


def count(value: int | None) -> str:
    return f"{value:,}".replace(",", THIN_SPACE) if known(value) else UNKNOWN_SIGN


def plain(value: float | None, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if known(value) else UNKNOWN_SIGN


def number(content: dict, *names: str) -> float | None:
    """The number under these names, one within the other; None where there is none that is finite."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if known(content) else None


def pair(low: float | None, high: float | None) -> tuple[float, float] | None:
    return (low, high) if known(low) and known(high) else None
