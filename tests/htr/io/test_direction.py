"""Lines that run up or down the page, or upside down: read as their upright twins are, or a true reason."""

import cv2
import numpy as np
import pytest
from cropped import crops

from htr.io.account import Account
from htr.io.page_xml import Line, page_xml
from htr.io.page_xml import Region as PageRegion
from htr.io.sources import read_source
from htr.lines.normalise import Region, RejectedInput, cut
from shards.fields import from_upright
from shards.scans import Scans

WIDTH, HEIGHT = 640, 420
OUTLINE = np.array([[40, 100], [500, 104], [500, 160], [40, 156]], float)  # of a line on the upright page
BASELINE = np.array([[44, 140], [250, 141], [495, 144]], float)
RUNS = {90: "up", 180: "upside down", 270: "down"}  # what sets a line upright -> how it runs on the page


def drawn() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def on_page(turn: int) -> np.ndarray:
    """The page on which the line needs this turn to be upright."""
    return np.ascontiguousarray(np.rot90(drawn(), turn // 90))


def moved(points: np.ndarray, turn: int) -> np.ndarray:
    x, y = points.T
    return np.stack({0: (x, y), 90: (y, WIDTH - 1 - x), 180: (WIDTH - 1 - x, HEIGHT - 1 - y),
                     270: (HEIGHT - 1 - y, x)}[turn], axis=1)  # fmt: skip


def cells(points: np.ndarray) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def rows(folder, turn: int, line: str, region: str = "", kind: str = "PAGE") -> list:
    """Of each line its pixels, or the reason why there are none."""
    page = on_page(turn)
    cv2.imwrite(str(folder / "p.png"), page)
    size = f'imageWidth="{page.shape[1]}" imageHeight="{page.shape[0]}"'
    content = f'<PcGts><Page imageFilename="p.png" {size}><TextRegion {region}>{line}</TextRegion></Page></PcGts>'
    if kind == "ALTO":
        size = f'WIDTH="{page.shape[1]}" HEIGHT="{page.shape[0]}"'
        name = "<sourceImageInformation><fileName>p.png</fileName></sourceImageInformation>"
        block = f"<PrintSpace><TextBlock {region}>{line}</TextBlock></PrintSpace>"
        content = f"<alto><Description>{name}</Description><Layout><Page {size}>{block}</Page></Layout></alto>"
    return crops(folder, content)


def page_line(outline=None, baseline=None, more: str = "") -> str:
    coords = "" if outline is None else f'<Coords points="{cells(outline)}"/>'
    under = "" if baseline is None else f'<Baseline points="{cells(baseline)}"/>'
    return f"<TextLine {more}>{coords}{under}<TextEquiv><Unicode>mort</Unicode></TextEquiv></TextLine>"


@pytest.mark.parametrize("turn", [0, *RUNS])
def test_a_baseline_says_which_way_its_line_runs(tmp_path, turn):
    [upright] = rows(tmp_path, 0, page_line(OUTLINE, BASELINE))
    [found] = rows(tmp_path, turn, page_line(moved(OUTLINE, turn), moved(BASELINE, turn)))
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 1
    bent = BASELINE + np.array([[0, 8], [0, -4], [0, 8]])
    [upright] = rows(tmp_path, 0, page_line(OUTLINE, bent))
    [found] = rows(tmp_path, turn, page_line(moved(OUTLINE, turn), moved(bent, turn)))
    # what is straightened is sampled on rows of its own
    assert np.abs(np.array(found.shape) - upright.shape).max() <= 2
    best = cv2.minMaxLoc(cv2.matchTemplate(upright, found[2:-3, 3:-3], cv2.TM_CCOEFF_NORMED))[1]
    assert best > 0.99


@pytest.mark.parametrize("turn", RUNS)
@pytest.mark.parametrize("attribute", ["orientation", "readingOrientation", "ROTATION"])
def test_a_region_says_it(tmp_path, turn, attribute):
    x, y, w, h = 40, 100, 460, 50
    corners = moved(np.array([[x, y], [x + w - 1, y], [x + w - 1, y + h - 1], [x, y + h - 1]], float), turn)
    degrees = turn if turn <= 180 else turn - 360  # clockwise, from -180 to 180
    kind, line = "PAGE", page_line(corners)
    if attribute == "ROTATION":
        kind, (left, top), (wide, high) = "ALTO", corners.min(axis=0), np.ptp(corners, axis=0) + 1
        box = f'HPOS="{left:g}" VPOS="{top:g}" WIDTH="{wide:g}" HEIGHT="{high:g}"'
        line = f'<TextLine {box}><String CONTENT="mort"/></TextLine>'
    [found] = rows(tmp_path, turn, line, f'{attribute}="{degrees}"', kind)
    assert np.array_equal(found, drawn()[y : y + h, x : x + w])


@pytest.mark.parametrize("turn", RUNS)
def test_a_page_says_it_of_all_its_regions_that_say_nothing_else(tmp_path, turn):
    """As OCR-D's tools do: the orientation of a page, of a region within one, is that on the image as it is."""
    corners = moved(np.array([[40, 100], [499, 100], [499, 149], [40, 149]], float), turn)
    degrees = turn if turn <= 180 else turn - 360
    rows(tmp_path, turn, page_line(corners))
    content = (tmp_path / "p.xml").read_text(encoding="utf-8").replace("<Page ", f'<Page orientation="{degrees}.2" ')
    nested = content.replace("<TextRegion >", "<TableRegion><TextRegion>")
    nested = nested.replace("</TextRegion>", "</TextRegion></TableRegion>")
    for written in (content, nested):
        (tmp_path / "p.xml").write_text(written, encoding="utf-8")
        [row] = read_source(tmp_path, account=Account())[0].to_pylist()
        assert np.array_equal(cut(*Scans(tmp_path).cut_from(row)), drawn()[100:150, 40:500])
    own = content.replace("<TextRegion >", '<TextRegion orientation="0.5">')
    (tmp_path / "p.xml").write_text(own, encoding="utf-8")
    assert "turn" not in read_source(tmp_path, account=Account())[0].column_names


@pytest.mark.parametrize("turn", [0, *RUNS])
def test_a_baseline_alone_is_cut_around_whatever_way_it_runs(tmp_path, turn):
    lines = [np.array([[40, y], [560, y]], float) for y in (100, 200, 300)]
    said = f'orientation="{turn}"' if turn == 180 else ""  # upside down, with nothing above or below: a slip
    found = rows(tmp_path, turn, "".join(page_line(None, moved(line, turn)) for line in lines), said)
    for one, y in zip(found, (100, 200, 300), strict=True):
        assert np.array_equal(one, drawn()[y - 70 : y + 31, 40:561])


def test_a_single_line_in_the_margin_is_as_high_as_the_lines_of_its_page(tmp_path):
    across = [np.array([[100, y], [360, y]], float) for y in (150, 250, 350)]
    margin = np.array([[70, 600], [70, 60]], float)
    found = rows(tmp_path, 90, "".join(page_line(None, line) for line in [*across, margin]))
    page = on_page(90)
    assert np.array_equal(found[3], np.rot90(page[60:601, 0:101], -1))


def test_what_is_drawn_from_right_to_left_is_a_slip_where_the_outline_says_so(tmp_path):
    bent = BASELINE + np.array([[0, 8], [0, -4], [0, 8]])
    [right] = rows(tmp_path, 0, page_line(OUTLINE, bent))
    [slip] = rows(tmp_path, 0, page_line(OUTLINE, bent[::-1]))
    assert np.array_equal(right, slip)


@pytest.mark.parametrize("turn", [90, 270])
def test_a_region_and_a_baseline_drawn_against_it(tmp_path, turn):
    [upright] = rows(tmp_path, 0, page_line(OUTLINE, BASELINE))
    outline, baseline = moved(OUTLINE, turn), moved(BASELINE, turn)
    degrees = f'orientation="{turn if turn < 180 else -90}"'
    [found] = rows(tmp_path, turn, page_line(outline, baseline[::-1]), degrees)
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).mean() < 1
    below = moved(BASELINE + np.array([0, 12]), turn)  # the writing stands all above it
    [reason] = rows(tmp_path, turn, page_line(outline, below[::-1]))
    assert "contradict each other" in reason
    other = f'orientation="{-90 if turn == 90 else 90}"'
    [reason] = rows(tmp_path, turn, page_line(outline, baseline), other)
    assert reason == f"region is turned by {360 - turn} degrees, the line's baseline is not"


def test_true_reasons(tmp_path):
    assert rows(tmp_path, 0, page_line(OUTLINE), 'orientation="90"') == [
        "line is wider than high, and its region is turned by 90 degrees"
    ]
    [reason] = rows(tmp_path, 90, page_line(moved(OUTLINE, 90)), 'readingDirection="top-to-bottom"')
    assert "runs top-to-bottom, and neither" in reason
    for stated in ('orientation="x"', 'orientation="nan"', 'orientation="2.5"', 'readingDirection="left-to-right"'):
        assert isinstance(rows(tmp_path, 0, page_line(OUTLINE), stated)[0], np.ndarray)


def test_turn_as_a_column_of_a_table():
    page = on_page(90)
    (left, top), (wide, high) = moved(OUTLINE, 90).min(axis=0), np.ptp(moved(OUTLINE, 90), axis=0)
    box = f"{left:g} {top:g} {wide + 1:g} {high + 1:g}"
    wanted = drawn()[100:161, 40:501]
    assert np.array_equal(cut(page, Region.parse(box, "", "", "90")), wanted)
    assert np.array_equal(cut(page, Region.parse(box, "", "", "90.0")), wanted)
    assert np.array_equal(cut(page, Region.parse(box, "", "", "270")), wanted[::-1, ::-1])
    assert cut(page, Region.parse(box, "", "", "0")).shape == wanted.T.shape
    with pytest.raises(RejectedInput, match="turn is not 0, 90, 180 or 270"):
        Region.parse(box, "", "", "45")
    big = cv2.resize(page, None, fx=2, fy=2)
    assert cut(big, Region.parse(box, "", "", "90").scaled(2, 2)).shape == (2 * wanted.shape[0], 2 * wanted.shape[1])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_places_in_a_field_that_was_set_upright_lie_on_the_scan(turn):
    page = on_page(turn)
    corners = moved(np.array([[40, 100], [499, 159]], float), turn)
    (x, y), (w, h) = corners.min(axis=0).astype(int), np.ptp(corners, axis=0).astype(int) + 1
    region = Region(int(x), int(y), int(w), int(h), turn=turn)
    crop = cut(page, region)
    back = from_upright(region, crop.shape)
    for place in [(0, 0), (10, 3), (crop.shape[1] - 1, crop.shape[0] - 1)]:
        on_scan = back @ [*place, 1]
        assert page[int(on_scan[1]), int(on_scan[0])] == crop[place[1], place[0]]


@pytest.mark.parametrize("turn", [0, *RUNS])
def test_pages_that_are_written_say_how_their_lines_are_turned(tmp_path, turn):
    corners = moved(np.array([[40, 100], [499, 100], [499, 149], [40, 149]], float), turn).tolist()
    whole = [(0.0, 0.0), (100.0, 0.0), (100.0, 100.0)]
    page = on_page(turn)
    cv2.imwrite(str(tmp_path / "p.png"), page)
    written = PageRegion("Ia", whole, "mort", 1.0, (), [Line(corners, "mort", 1.0)], turn)
    (tmp_path / "p.xml").write_bytes(page_xml("p.png", page.shape[::-1], [written]))
    [row] = read_source(tmp_path, account=Account())[0].to_pylist()
    assert np.array_equal(cut(*Scans(tmp_path).cut_from(row)), drawn()[100:150, 40:500])
