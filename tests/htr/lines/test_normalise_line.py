"""A line: where it lies, how it is cut, and what a model sees of it."""

import cv2
import numpy as np
import pytest

from htr.lines.normalise import Region, RejectedInput, can_carry, cut, normalise_line


@pytest.mark.parametrize(
    ("box", "polygon", "reason"),
    [
        ("1 2 3", "", "box is not four numbers"),
        ("1 2 3 4 5", "", "box is not four numbers"),
        ("one 2 3 4", "", "box is not four numbers"),
        ("nan 2 3 4", "", "box is not four numbers"),
        ("1 2 inf 4", "", "box is not four numbers"),
        ("1 2 0 4", "", "box is empty"),
        ("1 2 3 -4", "", "box is empty"),
        ("1 2 1e300 1e300", "", "box lies outside"),
        ("", "1,2 3,4", "polygon is not at least three"),
        ("", "1,2 3,4 5", "polygon is not at least three"),
        ("", "1,2,3 4,5,6 7,8,9", "polygon is not at least three"),
        ("", "a,b c,d e,f", "polygon is not at least three"),
        ("1 2 3 4", "1,2 3,4", "polygon is not at least three"),
        ("", "99999999999,1 2,3 4,5", "box lies outside"),
        ("1 2 3 4", "99999999999,1 2,3 4,5", "box lies outside"),
    ],
)
def test_regions_that_are_none(box, polygon, reason):
    with pytest.raises(RejectedInput, match=reason):
        Region.parse(box, polygon)


def test_regions():
    assert Region.parse("", "") is None
    assert Region.parse("10.4,20 30 40.6", "") == Region(10, 20, 30, 41)
    region = Region.parse("", "10,20 30,20 30,45", "10,40 30,44.5")
    assert (region.x, region.y, region.w, region.h) == (10, 20, 21, 26)  # both ends belong to it
    assert region.polygon.tolist() == [[10, 20], [30, 20], [30, 45]]
    assert region.baseline.tolist() == [[10, 40], [30, 44.5]]


def test_a_cut_is_the_pages_own_pixels():
    page = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert cut(page, None) is page
    assert cut(page, Region(2, 3, 4, 5)).tolist() == page[3:8, 2:6].tolist()
    assert cut(page, Region(-1, 8, 4, 3)).tolist() == page[8:, :3].tolist()  # over the edge: what there is


@pytest.mark.parametrize("box", [(10, 0, 5, 5), (-6, 0, 10, 5), (0, 20, 5, 5), (-50, -50, 5, 5), (5, 5, 100, 100)])
def test_a_box_mostly_outside(box):
    with pytest.raises(RejectedInput, match="outside"):
        cut(np.zeros((10, 10), np.uint8), Region(*box))


def test_a_polygon_masks_the_neighbours():
    page = np.full((60, 100), 200, np.uint8)
    page[:20] = 10  # the line above
    page[30:34, 20:80] = 40  # this line's ink
    line = cut(page, Region.parse("0 0 100 60", "0,25 99,25 99,59 0,59"))
    assert line.shape == (60, 100)
    assert (line[:25] == 200).all()  # this line's paper instead
    assert (line[25:] == page[25:]).all()
    assert page[0, 0] == 10  # the page itself stays
    with pytest.raises(RejectedInput, match="polygon lies outside"):
        cut(page, Region.parse("0 0 100 60", "200,25 299,25 299,59"))


def test_a_polygon_far_from_its_box_costs_nothing():
    """OpenCV fills a polygon row by row, those far above the page too."""
    points = np.random.default_rng(0).integers(-(2**24), 2**24, (5000, 2))
    text = " ".join(f"{x},{y}" for x, y in points)
    assert cut(np.zeros((50, 60), np.uint8), Region.parse("0 0 60 50", text)).shape == (50, 60)
    with pytest.raises(RejectedInput, match="too many points"):
        Region.parse("0 0 60 50", text + " 1,2")


def test_a_polygon_is_drawn_a_page_around_the_line_at_most(monkeypatch):
    """So that it costs nothing, wherever its points are; and what lies within the line is the same."""
    drawn, fill = [], cv2.fillPoly

    def watched(mask, polygons, colour):
        drawn.extend(polygons)
        near = [np.clip(polygon, -9999, 9999) for polygon in polygons]  # a test that fails takes no minutes
        return fill(mask, near, colour)

    monkeypatch.setattr(cv2, "fillPoly", watched)
    page = np.full((60, 100), 200, np.uint8)
    page[:20] = 10
    far = 2**24
    line = cut(page, Region.parse("10 0 80 60", f"{-far},25 {far},25 {far},{far} {-far},{far}"))
    assert (line[:25] == 200).all() and (line[25:] == page[25:, 10:90]).all()
    assert len(drawn) == 1 and (np.abs(drawn[0]) <= (190, 120)).all()


# ---------------------------------------------------------------- baselines


def written(rise, draw, length: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> a page with a line of writing along y = 150 + rise(x), the straight line it was, its baseline (n, 2)."""
    line = np.full((60, length), 225, np.uint8)
    word = draw("choc septique", 40)
    line[10:50, 40 : 40 + word.shape[1]] = word
    line[38:40, 20:-20] = 60  # the baseline itself
    x, y = np.meshgrid(np.arange(length + 100, dtype=np.float32), np.arange(300, dtype=np.float32))
    page = cv2.remap(line, x - 50, y - 111 - rise(x).astype(np.float32), cv2.INTER_LINEAR, borderValue=225)
    points = np.arange(70, 70 + length - 40, 20.0)
    return page, line, np.stack([points, 150 + rise(points)], axis=1)


def cells(points: np.ndarray) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def around(baseline: np.ndarray, above: int = 38, below: int = 20) -> str:
    """A polygon as a segmenter draws it."""
    return cells(np.concatenate([baseline - (0, above), np.add(baseline[::-1], (0, below))]))


CURVES = {
    "slope": lambda x: 0.08 * (x - 350),
    "arc": lambda x: ((x - 350) / 60) ** 2,
    "wave": lambda x: 12 * np.sin(x / 80),
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("cut_by", ["polygon", "box"])
def test_a_line_is_straightened_on_its_baseline(name, cut_by, draw):
    page, line, baseline = written(CURVES[name], draw)
    low, high = baseline[:, 1].min() - 38, baseline[:, 1].max() + 20
    box, polygon = ("", around(baseline)) if cut_by == "polygon" else (f"70 {low} 541 {high - low}", "")
    plain, straight = cut(page, Region.parse(box, polygon)), cut(page, Region.parse(box, polygon, cells(baseline)))
    columns = straight[:, 60:500].astype(float)
    rows = np.argsort(columns.mean(axis=1))[:2]  # the drawn baseline is one row of two pixels again
    assert abs(rows[0] - rows[1]) == 1 and columns[rows].mean() < 100, columns[rows].mean()
    assert plain[:, 60:500].mean(axis=1).min() > columns[rows].mean() + 40
    length = np.hypot(*np.diff(baseline, axis=0).T).sum()
    assert abs(straight.shape[1] - length) < 12  # native resolution
    if cut_by == "polygon":
        assert abs(straight.shape[0] - 58) <= 8
        mine = straight[max(rows) - 30 : max(rows) + 12].astype(float)
        best = cv2.matchTemplate(line.astype(np.float32), mine[:, 100:300].astype(np.float32), cv2.TM_CCOEFF_NORMED)
        assert best.max() > 0.85  # the word is as it was written


def test_a_straight_level_baseline_leaves_the_pixels_as_they_are(draw):
    page, _, baseline = written(lambda x: 0.001 * (x - 350), draw)
    polygon = around(baseline)
    assert (cut(page, Region.parse("", polygon)) == cut(page, Region.parse("", polygon, cells(baseline)))).all()


def test_outside_of_the_polygon_lies_paper(draw):
    """The polygon is low along the first half of the line, where a neighbour hangs down."""
    page, _, baseline = written(CURVES["wave"], draw)
    across = np.arange(700)
    above = 150 + CURVES["wave"](across) - np.arange(300)[:, None]
    page[(above > 34) & (above < 50) & (across < 340)] = 10
    high = np.where(baseline[:, 0] < 350, 31, 60)
    polygon = np.concatenate([baseline - np.stack([0 * high, high], 1), np.add(baseline[::-1], (0, 12))])
    straight = cut(page, Region.parse("", cells(polygon), cells(baseline)))
    assert straight.shape[0] > 65 and (straight[:24, :240] > 200).all()


def test_a_baseline_shorter_than_its_polygon_is_drawn_out(draw):
    page, _, baseline = written(CURVES["slope"], draw)
    whole = cut(page, Region.parse("", around(baseline), cells(baseline)))
    part = cut(page, Region.parse("", around(baseline), cells(baseline[5:-5])))
    assert abs(part.shape[1] - whole.shape[1]) <= 2 and abs(part.shape[0] - whole.shape[0]) <= 2


@pytest.mark.parametrize(
    "baseline",
    [
        "",
        "100,150",
        "100,150 100,150",
        "a,b c,d",
        "100,150 200",
        "100,150,3 200,150,3",
        "nan,150 600,160",
        "100,inf 600,160",
        "1e308,150 600,160",
        "100,150 99999999999,160",
        "300,130 301,190",  # upwards
        "100,150 200,158",  # of a part of the line
        "100,900 600,940",  # of another line
        " ".join(f"{x},{150 + 40 * (x // 10 % 2)}" for x in range(80, 620, 10)),  # zig-zag
        " ".join(f"{x % 500 + 100},{150 + x % 7}" for x in range(0, 5000, 100)),  # to and fro
        " ".join(f"{100 + x / 50},{150 + x / 1000}" for x in range(25_000)),
    ],
)
def test_a_baseline_that_makes_no_sense_is_ignored(baseline, draw):
    page, _, good = written(CURVES["arc"], draw)
    region = Region.parse("", around(good), baseline)
    assert region.baseline is None
    assert (cut(page, region) == cut(page, Region.parse("", around(good)))).all()


def test_the_normals_of_a_kinked_baseline_do_not_cross():
    """The page is brighter to the right, so a row that becomes darker would show a place twice. The line is flat, but
    for letters that are high above the kink."""
    page = np.tile((np.arange(700) // 3).astype(np.uint8), (400, 1))
    across = np.arange(50.0, 651, 10)
    baseline = np.stack([across, np.interp(across, [50, 200, 350, 650], [180, 260, 180, 180])], axis=1)
    above = np.where(np.abs(across - 200) < 60, 100, 12)
    polygon = cells(np.concatenate([baseline - np.stack([0 * above, above], 1), np.add(baseline[::-1], (0, 8))]))
    straight = cut(page, Region.parse("", polygon, cells(baseline)))
    assert straight.shape != cut(page, Region.parse("", polygon)).shape
    paper = np.bincount(straight.ravel()).argmax()
    for row in straight.astype(int):
        ours = row[row != paper]
        assert (ours >= np.maximum.accumulate(ours) - 2).all()


def test_any_baseline_gives_a_line_of_sensible_size():
    page, refused = np.random.default_rng(0).integers(0, 255, (200, 300)).astype(np.uint8), 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        (x, y), w, h = rng.integers(0, 40, 2), rng.integers(1, 260), rng.integers(1, 160)
        across = np.sort(rng.uniform(x - 5, x + w + 5, rng.integers(2, 12)))
        down = rng.normal(y + h / 2, rng.choice([1, 5, h / 4]), len(across))
        shape = np.stack([rng.uniform(x, x + w, 9), rng.uniform(y, y + h, 9)], axis=1)
        try:
            region = Region.parse(
                f"{x} {y} {w} {h}", cells(shape) if seed % 2 else "", cells(np.stack([across, down], 1))
            )
        except RejectedInput as reason:
            assert "contradict each other" in str(reason)
            refused += 1
            continue
        line = cut(page, region)
        w, h = (h, w) if region.turn in (90, 270) else (w, h)
        assert line.size and line.shape[0] <= 3 * h + 20 and line.shape[1] <= 2 * (w + h) + 20, seed
    assert refused < 150


def test_a_line_at_the_edge_of_its_page(draw):
    page, _, baseline = written(CURVES["arc"], draw)
    edge = page[100:, 100:]
    straight = cut(edge, Region.parse("", around(baseline - (100, 100)), cells(baseline - (100, 100))))
    assert straight.min() < 100 and abs(straight.shape[1] - 530) < 20
    with pytest.raises(RejectedInput, match="outside"):
        cut(page, Region.parse("", around(baseline - (400, 0)), cells(baseline - (400, 0))))


def test_can_carry():
    assert can_carry((64, 20), "x" * 10) and not can_carry((64, 20), "x" * 11)
    assert can_carry((32, 20), "x" * 20) and not can_carry((128, 20), "x" * 6)


@pytest.mark.parametrize("height", [48, 64, 96])
def test_ink_is_white_on_black_and_keeps_its_aspect(draw, height):
    gray = draw("cancer du sein", 120)
    ink = normalise_line(gray, height)
    assert ink.shape == (height, round(gray.shape[1] * height / 120)) and ink.dtype == np.uint8
    assert np.median(ink) < 8 and ink.max() == 255
    dark = cv2.resize(gray, ink.shape[::-1], interpolation=cv2.INTER_AREA)
    assert ink[dark < 60].min() > 180 and ink[dark > 215].max() < 40


def test_shadows_leave_and_faint_ink_is_raised(draw):
    gray = draw("cancer du sein", 64)
    shadow = np.linspace(0.55, 1, gray.shape[1])
    shaded = normalise_line((gray * shadow).astype(np.uint8), 64)
    assert np.abs(shaded.astype(int) - normalise_line(gray, 64)).mean() < 12
    faint = normalise_line((225 - (225 - gray.astype(int)) * 0.3).astype(np.uint8), 64)
    assert faint.max() > 240


def test_the_noise_of_an_empty_line_is_not_raised_to_ink():
    noise = np.clip(np.random.default_rng(0).normal(220, 4, (64, 400)), 0, 255).astype(np.uint8)
    assert normalise_line(noise, 64).max() < 160


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5), (10000, 8), (8, 10000), (1, 70000), (2, 3)])
def test_no_shape_and_no_shade_is_too_much(shape, value):
    ink = normalise_line(np.full(shape, value, np.uint8), 64)
    assert ink.shape[0] == 64 and 16 <= ink.shape[1] <= 8192 and ink.dtype == np.uint8
    if value:
        assert ink.max() < 8  # paper without ink
