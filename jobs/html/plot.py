"""Plots as inline SVG: lines, points with intervals and bars on two scales; a mark on a scale for a table's cell.

What is drawn says its values in <title> (a tooltip, and what a screen reader says); colours are classes of page.css.
Text is never scaled down on a phone: a chart is drawn for its width, and cells are in percent of theirs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 230  # of a chart, in px of a phone
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 10, 30
LETTER_WIDTH_PX = 6.2  # px, of a direct label
MAX_TOOLTIPS = 80  # points of a line that have a tooltip of their own


@dataclass(frozen=True)
class Scale:
    """A scale from low to high: linear, logarithmic, or by the square root, which gives small values room and has a
    zero.

    `form`: how a tick is written (str.format); values are multiplied by `factor` before.
    """

    low: float
    high: float
    log: bool = False
    form: str = "{:g}"
    factor: float = 1.0
    root: bool = False

    def at(self, value: float) -> float:
        """The place of a value on the scale, 0 to 1; values beyond an end are placed at it."""
        low, high, value = map(self.bent, (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def bent(self, value: float) -> float:
        if self.log:
            return math.log(max(value, 1e-300))
        return math.sqrt(max(value, 0.0)) if self.root else value

    def ticks(self, about: float = 5) -> list[float]:
        """About so many round numbers, 1, 2 or 5 times a power of ten apart; on a scale that is not linear such numbers
        themselves."""
        if self.log or self.root:
            low, high = max(self.low, self.high / 400 if self.root else 0) * self.factor, self.high * self.factor
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
                if len(found) <= about + 2:
                    break
            return ([0.0] if self.root else []) + [tick / self.factor for tick in found or [low]]
        if self.high <= self.low:
            return [self.low]
        low, high = self.low * self.factor, self.high * self.factor
        power = 10.0 ** math.floor(math.log10((high - low) / about))
        step = next(power * d for d in (1, 2, 5, 10) if (high - low) / (power * d) <= about)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [number * step / self.factor for number in range(first, last + 1)]

    def write(self, value: float) -> str:
        return self.form.format(float(f"{value * self.factor:.6g}")) if abs(value) > 1e-12 else "0"


def scale_of(values: Sequence[float], *, log: bool = False, **options) -> Scale:
    """A scale that holds all values, and zero unless it is logarithmic, with some room above."""
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not known:
        return Scale(0.1 if log else 0.0, 1.0, log=log, **options)
    low, high = min(known), max(known)
    if log:
        return Scale(low / 1.1, high * 1.1, log=True, **options)
    low, high = min(low, 0.0), max(high, 0.0)
    air = 0.06 * (high - low)
    return Scale(low - air if low < 0 else 0.0, high + air if high > low else 1.0, **options)


@dataclass(frozen=True)
class Series:
    """The data of one colour: points (x, y) in order; `kind`: line or points.

    `intervals`: low and high of y for each point, None where there is none; `tips`: a tooltip for each point.
    """

    label: str
    points: Sequence[tuple[float, float]]
    kind: str = "line"
    colour: int = 1
    dashed: bool = False
    intervals: Sequence[tuple[float, float] | None] = ()
    tips: Sequence[str] = ()
    group: str = ""  # what page.js switches by


@dataclass(frozen=True)
class Chart:
    """`title`: what a screen reader says. `guides`: thin lines for comparison, each ((x, y), (x, y), label); `bars`:
    (from x, to x, height 0 to 1, tooltip) along the bottom, for how much data there is."""

    title: str
    x: Scale
    y: Scale
    series: Sequence[Series]
    x_label: str = ""
    guides: Sequence[tuple[tuple[float, float], tuple[float, float], str]] = ()
    bars: Sequence[tuple[float, float, float, str]] = ()
    labelled: bool = True  # the lines' names at their ends
    x_ticks: Sequence[float] | None = None

    def svg(self) -> Markup:
        names = [series.label for series in self.series if series.points] if self.labelled else []
        right = RIGHT + (min(LETTER_WIDTH_PX * max(map(len, names)), 120) if names and any(names) else 0)
        across, down = WIDTH - LEFT - right, HEIGHT - TOP - BOTTOM
        parts = [self.axes(across, down)]
        area = PlotArea(self.x, self.y, across, down)
        for x1, x2, height, tip in self.bars:
            left, width = area.x(x1), area.x(x2) - area.x(x1)
            top = 0.22 * down * height
            box = f'x="{left + 0.5:.1f}" width="{max(width - 1, 1):.1f}" y="{TOP + down - top:.1f}" height="{top:.1f}"'
            parts.append(Markup('<rect class="bar c6" {}>{}</rect>').format(Markup(box), titled(tip)))
        hints = []  # drawn last, above the lines
        for (x1, y1), (x2, y2), words in self.guides:
            a, b, c, d = area.x(x1), area.y(y1), area.x(x2), area.y(y2)
            parts.append(Markup(f'<line class="guide" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'))
            if words:
                spot = f'x="{c - 3:.1f}" y="{min(d + 13, TOP + down - 4):.1f}"'
                hints.append(Markup('<text class="hint" text-anchor="end" {}>{}</text>').format(Markup(spot), words))
        parts += [*(drawn(series, area) for series in self.series), *hints]
        if names:
            parts.append(labels(self.series, area))
        head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        return Markup(head) + titled(self.title) + Markup("").join(parts) + Markup("</svg>")

    def axes(self, across: float, down: float) -> Markup:
        parts, bottom = [], TOP + down
        for tick in self.y.ticks(5):
            y = bottom - down * self.y.at(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + across:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text text-anchor="end" x="{LEFT - 6}" y="{y + 3.5:.1f}">{self.y.write(tick)}</text>')
        ticks = self.x.ticks(5) if self.x_ticks is None else self.x_ticks
        for tick in ticks:
            x = LEFT + across * self.x.at(tick)
            parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:.1f}" y2="{bottom + 4:.1f}"/>')
            parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{bottom + 15:.1f}">{self.x.write(tick)}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + across:.1f}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
        label = Markup('<text class="label" text-anchor="end" x="{}" y="{}">{}</text>').format(
            round(LEFT + across, 1), HEIGHT - 2, self.x_label
        )
        return Markup("".join(parts)) + label


@dataclass(frozen=True)
class PlotArea:
    """From data to pixels of a chart."""

    across_scale: Scale
    down_scale: Scale
    across: float
    down: float

    def x(self, value: float) -> float:
        return LEFT + self.across * self.across_scale.at(value)

    def y(self, value: float) -> float:
        return TOP + self.down * (1 - self.down_scale.at(value))


def titled(words: str) -> Markup:
    return Markup("<title>{}</title>").format(words) if words else Markup("")


def drawn(series: Series, area: PlotArea) -> Markup:
    spots = [(area.x(x), area.y(y)) for x, y in series.points]
    parts = []
    if series.kind == "line" and len(spots) > 1:
        path, dashed = "L".join(f"{x:.1f},{y:.1f}" for x, y in spots), " dashed" if series.dashed else ""
        parts.append(Markup(f'<path class="line{dashed}" d="M{path}"/>'))
    for (x, _), within in zip(spots, series.intervals, strict=False):
        if within:
            low, high = (area.y(bound) for bound in within)
            parts.append(Markup(f'<line class="within" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'))
    shown = series.kind == "points" or len(spots) == 1
    every = max(math.ceil(len(spots) / MAX_TOOLTIPS), 1)
    for number, (x, y) in enumerate(spots):
        if shown:
            parts.append(Markup(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'))
        if series.tips and (shown or number % every == 0 or number == len(spots) - 1):
            spot = Markup(f'<circle class="tip" cx="{x:.1f}" cy="{y:.1f}" r="7">')
            parts.append(spot + titled(series.tips[number]) + Markup("</circle>"))
    group = Markup(' data-run="{}"').format(series.group) if series.group else ""
    return Markup('<g class="c{}"{}>{}</g>').format(series.colour, group, Markup("").join(parts))


def labels(series: Sequence[Series], area: PlotArea) -> Markup:
    """The lines' names at their right ends, moved apart where they would overlap."""
    ends = [(area.y(one.points[-1][1]), area.x(one.points[-1][0]), one) for one in series if one.points and one.label]
    ends.sort(key=lambda end: end[0])
    spots, last = [], -math.inf
    for y, x, one in ends:
        last = max(y + 3.5, last + 12)
        spots.append((last, x, one))
    over = max(last - (TOP + area.down + 4), 0) if spots else 0
    parts = []
    for y, x, one in spots:
        name = one.label if len(one.label) <= 19 else one.label[:18] + "…"
        group = Markup(' data-run="{}"').format(one.group) if one.group else ""
        spot = Markup(f'x="{x + 6:.1f}" y="{y - over:.1f}"')
        parts.append(Markup('<text class="name c{}"{} {}>{}</text>').format(one.colour, group, spot, name))
    return Markup("").join(parts)


# ---------------------------------------------------------------------------------------------------- a table's cell


def mark(
    value: float | None, within: Sequence[float] | None, scale: Scale, tip: str, guide: float | None = None
) -> Markup:
    """A point with its interval, as wide as a table's cell, on the scale of the column."""
    if value is None or not math.isfinite(value):
        return Markup("")
    at = [f"{2 + 96 * scale.at(number):.2f}%" for number in (value, *(within or ()))]
    parts = ['<line class="rail" x1="2%" x2="98%" y1="9" y2="9"/>']
    if guide is not None:
        spot = f"{2 + 96 * scale.at(guide):.2f}%"
        parts.append(f'<line class="guide" x1="{spot}" x2="{spot}" y1="0" y2="18"/>')
    if within:
        parts.append(f'<line class="within" x1="{at[1]}" x2="{at[2]}" y1="9" y2="9"/>')
    parts.append(f'<circle class="dot" cx="{at[0]}" cy="9" r="4"/>')
    head = Markup('<svg class="mark" role="img">') + titled(tip)
    return head + Markup("".join(parts) + "</svg>")


def bar(share: float, tip: str) -> Markup:
    """A bar from the left edge of a table's cell; `share`: 0 to 1 of its width."""
    head = Markup('<svg class="mark" role="img">') + titled(tip)
    return head + Markup(
        f'<rect class="bar" x="0" y="4" width="{100 * min(max(share, 0), 1):.2f}%" height="10"/></svg>'
    )


def axis(scale: Scale) -> Markup:
    """The ticks of a column's scale, for the column's heading."""
    ticks = scale.ticks(4 if scale.low < 0 else 4.5)
    parts = [Markup('<svg class="mark ruler" aria-hidden="true">')]
    for number, tick in enumerate(ticks):
        spot = 2 + 96 * scale.at(tick)
        anchor = "start" if number == 0 and spot < 6 else "end" if spot > 94 else "middle"
        parts.append(
            Markup('<text x="{}%" y="13" text-anchor="{}">{}</text>').format(round(spot, 2), anchor, scale.write(tick))
        )
    return Markup("").join(parts) + Markup("</svg>")
