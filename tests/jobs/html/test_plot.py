"""Inline SVG: scales and their ticks, that marks stand where their values are, and that words are never markup."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.html.plot import HEIGHT, LEFT, TOP, WIDTH, Chart, Scale, Series, axis, bar, mark, scale_of

FINITE = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False)
SPACE = "{http://www.w3.org/2000/svg}"


def parsed(svg) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_within(low: float, wide: float):
    scale = Scale(low, low + wide)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 6 or low + wide == low
    assert all(
        low - 1e-9 * abs(low) - 1e-9 * wide <= tick <= low + wide * (1 + 1e-9) + 1e-9 * abs(low) for tick in ticks
    )
    for one, two in pairwise(ticks):
        digit = (two - one) / 10 ** math.floor(math.log10((two - one) * (1 + 1e-9)))
        assert min(abs(digit - whole) for whole in (1, 2, 5, 10)) < 1e-3


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        (Scale(0, 0.1), [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (Scale(0, 0.1, factor=100), [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (Scale(1, 100, log=True), [1, 2, 5, 10, 20, 50, 100]),
        (Scale(1, 100_000, log=True), [1, 10, 100, 1000, 10_000, 100_000]),
        (Scale(0, 0.6, factor=100, root=True), [0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
        (Scale(2, 2), [2]),
    ],
)
def test_ticks(scale: Scale, ticks: list[float]):
    found = scale.ticks(7 if scale.root else 5)
    assert found == pytest.approx(ticks)
    assert all(0 <= scale.at(tick) <= 1 for tick in found)


def test_places_on_a_scale():
    assert [Scale(10, 20).at(value) for value in (10, 15, 20, 25, 5)] == [0, 0.5, 1, 1, 0]
    assert Scale(1, 100, log=True).at(10) == pytest.approx(0.5) and Scale(1, 100, log=True).at(0) == 0
    assert Scale(0, 4, root=True).at(1) == pytest.approx(0.5)
    assert (
        Scale(-0.02, 0.02, form="{:+g}", factor=100).write(0.01) == "+1" and Scale(0, 1, form="{:+g}").write(0) == "0"
    )


@given(st.lists(FINITE | st.just(math.nan), max_size=6), st.booleans())
def test_a_scale_holds_its_values(values: list[float], log: bool):
    scale = scale_of(values, log=log)
    assert scale.low < scale.high and (log or scale.low <= 0 <= scale.high)
    assert all(scale.low <= value <= scale.high for value in values if math.isfinite(value) and (value > 0 or not log))


def test_points_stand_where_their_values_are():
    series = Series("", [(0, 0), (5, 1)], "points", intervals=[None, (0.5, 1)], tips=["first", "<second>"])
    svg = parsed(Chart("a < b", Scale(0, 10), Scale(0, 1), [series], "x & y").svg())
    assert svg.find("title").text == "a < b" and svg.get("role") == "img"
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in svg.iter("circle") if dot.get("class") == "dot"]
    bottom, right = HEIGHT - 30, WIDTH - 12
    assert dots == [(LEFT, bottom), ((LEFT + right) / 2, TOP)]
    [within] = [line for line in svg.iter("line") if line.get("class") == "within"]
    assert float(within.get("y1")) == (TOP + bottom) / 2 and float(within.get("y2")) == TOP
    assert [tip.find("title").text for tip in svg.iter("circle") if tip.get("class") == "tip"] == ["first", "<second>"]


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=30))
def test_words_are_no_markup(words: str):
    series = Series(words, [(0, 0), (1, 1)], tips=[words, words], group=words)
    svg = Chart(words, Scale(0, 1), Scale(0, 1), [series], words, [((0, 0), (1, 1), words)], [(0, 1, 1, words)]).svg()
    for part in (svg, mark(0.5, (0.4, 0.6), Scale(0, 1), words, 0.5), bar(0.5, words)):
        tags = {element.tag for element in parsed(part).iter()}
        assert tags <= {"svg", "title", "g", "line", "path", "circle", "rect", "text"}
    assert not words or parsed(svg).find("g").get("data-run") == words


def test_names_of_lines_do_not_lie_on_each_other():
    series = [Series(f"run {number}", [(0, 1), (1, 0.5 + number / 1000)], colour=number) for number in range(1, 6)]
    svg = parsed(Chart("", Scale(0, 1), Scale(0, 1), series).svg())
    spots = sorted(float(text.get("y")) for text in svg.iter("text") if (text.get("class") or "").startswith("name"))
    assert len(spots) == 5 and all(two - one >= 11.9 for one, two in pairwise(spots))
    assert spots[0] > 0 and spots[-1] < HEIGHT


def test_marks_of_cells():
    cell = parsed(mark(0.5, (0.25, 0.75), Scale(0, 1), "half"))
    assert cell.find("title").text == "half" and cell.find("circle").get("cx") == "50.00%"
    [within] = [line for line in cell.iter("line") if line.get("class") == "within"]
    assert (within.get("x1"), within.get("x2")) == ("26.00%", "74.00%")
    assert mark(None, None, Scale(0, 1), "") == mark(math.nan, None, Scale(0, 1), "") == ""
    assert parsed(bar(2, "")).find("rect").get("width") == "100.00%"
    assert re.findall(r">([^<]+)</text>", str(axis(Scale(0, 0.1, factor=100)))) == ["0", "5", "10"]
