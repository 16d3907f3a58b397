"""XML held against its image: sizes, units, orientation, several pages, texts and outlines at other levels, names."""

from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from cropped import crops
from test_image_files import exif, tiff, with_segment

from htr.io.account import Account
from htr.io.sources import read_source
from htr.lines.normalise import PageSize, Region, RejectedInput

WIDTH, HEIGHT = 600, 400
BOXES = [(40, 30, 500, 50), (60, 130, 300, 40), (30, 300, 540, 60)]


def drawn() -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8), (0, 0), 3)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)


def alto(boxes, width, height, *, unit: str = "pixel", image: str = "p.png") -> str:
    lines = "".join(
        f'<TextLine HPOS="{x}" VPOS="{y}" WIDTH="{w}" HEIGHT="{h}"><String CONTENT="ligne {n}"/></TextLine>'
        for n, (x, y, w, h) in enumerate(boxes)
    )
    return (
        f"<alto><Description><MeasurementUnit>{unit}</MeasurementUnit><sourceImageInformation><fileName>{image}"
        f"</fileName></sourceImageInformation></Description>"
        f'<Layout><Page WIDTH="{width}" HEIGHT="{height}">{lines}</Page></Layout></alto>'
    )


def test_a_page_of_the_same_size_is_cut_as_it_is(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    for found, (x, y, w, h) in zip(crops(tmp_path, alto(BOXES, WIDTH, HEIGHT)), BOXES, strict=True):
        assert np.array_equal(found, drawn()[y : y + h, x : x + w])


@pytest.mark.parametrize(("scale", "unit"), [(2, "pixel"), (0.5, "pixel"), (254 / 300, "mm10"), (4, "inch1200")])
def test_boxes_of_another_resolution_are_scaled(tmp_path, scale, unit):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    boxes = [[round(v * scale, 3) for v in box] for box in BOXES]
    found = crops(tmp_path, alto(boxes, round(WIDTH * scale), round(HEIGHT * scale), unit=unit))
    for one, (x, y, w, h) in zip(found, BOXES, strict=True):
        assert abs(one.shape[0] - h) <= 2 and abs(one.shape[1] - w) <= 2
        around = drawn()[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4]
        best = cv2.minMaxLoc(cv2.matchTemplate(around, one[2:-2, 2:-2], cv2.TM_CCOEFF_NORMED))
        assert best[1] > 0.99 and np.abs(np.array(best[3]) - (min(x, 4) + 2, min(y, 4) + 2)).max() <= 2


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT + 40), (HEIGHT, WIDTH), (WIDTH * 2, HEIGHT)])
def test_a_page_of_another_shape_rejects_its_lines_with_both_sizes(tmp_path, size):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    reason = f"boxes are of a page of {size[0]} x {size[1]}, the image has {WIDTH} x {HEIGHT}"
    assert crops(tmp_path, alto(BOXES, *size)) == [reason] * 3


def test_units_without_a_size_need_the_images_resolution(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    content = alto([(40, 30, 400, 40)], 0, 0, unit="mm10")
    assert crops(tmp_path, content) == ["boxes are in mm10, but neither page nor image says its size"]
    assert PageSize.parse("0 0 mm10").scale((HEIGHT, WIDTH), 300.0) == (300 / 254, 300 / 254)
    for cell in ("x y", "1", "1 2 cubit", "nan 3", "1 2 mm10 4"):
        with pytest.raises(RejectedInput, match="page_size"):
            PageSize.parse(cell)


@pytest.mark.parametrize("way", range(1, 9))
def test_an_orientation_leaves_the_crops_of_boxes_drawn_on_stored_pixels(tmp_path, way):
    plain = cv2.imencode(".jpg", drawn())[1].tobytes()
    right = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_GRAYSCALE)
    (tmp_path / "p.jpg").write_bytes(with_segment(plain, 0xE1, b"Exif\0\0" + exif(way)))
    for found, (x, y, w, h) in zip(crops(tmp_path, alto(BOXES, WIDTH, HEIGHT, image="p.jpg")), BOXES, strict=True):
        assert np.array_equal(found, right[y : y + h, x : x + w])


@pytest.mark.parametrize("way", [5, 6, 7, 8])
def test_boxes_drawn_on_what_a_viewer_showed_follow_the_orientation(tmp_path, way):
    stored = cv2.imencode(".jpg", drawn())[1].tobytes()
    content = with_segment(stored, 0xE1, b"Exif\0\0" + exif(way))
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (WIDTH, HEIGHT)
    (tmp_path / "p.jpg").write_bytes(content)
    boxes = [(30, 40, 300, 50), (60, 500, 200, 40)]
    for found, (x, y, w, h) in zip(crops(tmp_path, alto(boxes, HEIGHT, WIDTH, image="p.jpg")), boxes, strict=True):
        assert np.array_equal(found, shown[y : y + h, x : x + w])


@pytest.mark.parametrize("way", range(1, 9))
def test_the_orientation_of_a_tiff(tmp_path, way):
    (tmp_path / "p.tif").write_bytes(tiff(drawn().tobytes(), WIDTH, HEIGHT, t274=way))
    found = crops(tmp_path, alto(BOXES, WIDTH, HEIGHT, image="p.tif"))
    assert all(np.array_equal(f, drawn()[y : y + h, x : x + w]) for f, (x, y, w, h) in zip(found, BOXES, strict=True))


def test_each_page_of_an_alto_is_cut_from_its_own_image(tmp_path):
    pages = [drawn(), 255 - drawn()]
    (tmp_path / "p.tif").write_bytes(cv2.imencodemulti(".tif", pages)[1].tobytes())
    one, end = alto(BOXES, WIDTH, HEIGHT, image="p.tif").split("<Page", 1)[0], "</Layout></alto>"
    page = "<Page" + alto(BOXES, WIDTH, HEIGHT).split("<Page", 1)[1].removesuffix(end)
    found = crops(tmp_path, one + page + page + end)
    for number, (x, y, w, h) in enumerate(BOXES * 2):
        assert np.array_equal(found[number], pages[number // 3][y : y + h, x : x + w])
    cv2.imwrite(str(tmp_path / "a.png"), pages[0])
    cv2.imwrite(str(tmp_path / "b.png"), pages[1])
    files = "".join(f"<sourceImageInformation><fileName>{n}.png</fileName></sourceImageInformation>" for n in "ab")
    found = crops(tmp_path, f"<alto><Description>{files}</Description><Layout>{page}{page}{end}")
    assert np.array_equal(found[3], pages[1][30:80, 40:540])
    cv2.imwrite(str(tmp_path / "p.png"), pages[0])
    found = crops(tmp_path, one.replace("p.tif", "p.png") + page + page + end)
    assert found[3:] == ["image has no such page"] * 3


# ---------------------------------------------------------------- PAGE


def page_xml(inner: str, attributes: str = "", order: str = "") -> str:
    size = f'imageFilename="p.png" imageWidth="{WIDTH}" imageHeight="{HEIGHT}"'
    region = f'<TextRegion id="r" {attributes}><Coords points="0,0 599,0 599,399 0,399"/>{inner}</TextRegion>'
    return f"<PcGts><Page {size}>{order}{region}</Page></PcGts>"


def equiv(text: object) -> str:
    return f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv>"


def texts(folder: Path, content: str) -> list[tuple[str, str]]:
    (folder / "p.xml").write_text(content, encoding="utf-8")
    rows = read_source(folder, account=Account())[0].to_pylist()
    return [(row["text"], row.get("reject", "")) for row in rows]


OUTLINE = '<Coords points="40,30 540,30 540,80 40,80"/>'


def test_points_as_elements(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    points = "".join(f'<Point x="{x}" y="{y}"/>' for x, y in [(40, 30), (539, 30), (539, 79), (40, 79)])
    [found] = crops(tmp_path, page_xml(f"<TextLine><Coords>{points}</Coords>{equiv('a')}</TextLine>"))
    assert np.array_equal(found, drawn()[30:80, 40:540])


def test_texts_of_glyphs_words_and_regions(tmp_path):
    glyphs = "".join(f"<Glyph>{equiv(letter)}</Glyph>" for letter in "mort")
    line = f"<TextLine>{OUTLINE}<Word>{glyphs}</Word><Word>{equiv('subite')}</Word></TextLine>"
    assert texts(tmp_path, page_xml(line)) == [("mort subite", "")]
    bare = f"<TextLine>{OUTLINE}</TextLine>"
    assert texts(tmp_path, page_xml(2 * bare + equiv("a\nb"))) == [("a", ""), ("b", "")]
    alone = "text stands at the region alone, in other pieces than it has lines"
    assert texts(tmp_path, page_xml(3 * bare + equiv("a\nb"))) == [("", alone)] * 3
    account = Account()
    (tmp_path / "p.xml").write_text(page_xml(bare).replace("</Page>", f"<TextRegion>{equiv('x')}</TextRegion></Page>"))
    read_source(tmp_path, account=account)
    assert any("1 regions have a text and no line" in note for note in account.notes)


def test_a_baseline_alone_is_cut_around(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    lines = "".join(
        f'<TextLine><Coords points=""/><Baseline points="40,{y} 560,{y}"/>{equiv("a")}</TextLine>'
        for y in (100, 200, 300)
    )
    for number, found in enumerate(crops(tmp_path, page_xml(lines)), 1):
        assert np.array_equal(found, drawn()[100 * number - 70 : 100 * number + 31, 40:561])
    one = f'<TextLine><Baseline points="40,100 560,100"/>{equiv("a")}</TextLine>'
    assert crops(tmp_path, page_xml(one)) == ["line has a baseline alone, and no neighbour tells its height"]


def test_a_baseline_that_can_not_be_its_lines_is_none(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    slip = f'<TextLine>{OUTLINE}<Baseline points="50,30 52,380"/>{equiv("a")}</TextLine>'
    level = f"<TextLine>{OUTLINE}{equiv('a')}</TextLine>"
    [plain] = crops(tmp_path, page_xml(level))
    assert np.array_equal(crops(tmp_path, page_xml(slip))[0], plain)  # a wide line
    assert np.array_equal(crops(tmp_path, page_xml(level, 'orientation="-3.5"'))[0], plain)
    assert crops(tmp_path, page_xml(f"<TextLine>{equiv('a')}</TextLine>")) == ["line has no box, polygon or baseline"]


def test_the_order_of_lines_that_transkribus_writes(tmp_path):
    lines = "".join(
        f'<TextLine custom="readingOrder {{index:{place};}} structure {{type:x;}}">{OUTLINE}{equiv(place)}</TextLine>'
        for place in (2, 0, 10, 1)
    )
    assert [text for text, _ in texts(tmp_path, page_xml(lines))] == ["0", "1", "2", "10"]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (normalize("NFD", "décès.png"), normalize("NFC", "décès.png")),
        (normalize("NFC", "décès.png"), normalize("NFD", "décès.png")),
        ("acte 1.png", "acte%201.png"),
        ("acte 1.png", "file:///D:/scans/acte%201.png"),
        ("acte.png", r"D:\scans\acte.png"),
        ("ACTE.PNG", "acte.png"),
        ("Scans/acte.png", "scans/acte.png"),
    ],
)
def test_an_image_is_found_by_a_name_that_means_it(tmp_path, there, named):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    cv2.imwrite(str(tmp_path / there), drawn())
    account = Account()
    found = crops(tmp_path, alto(BOXES, WIDTH, HEIGHT, image=named), account)
    if "/" in there and not isinstance(found[0], np.ndarray):
        assert any("the first is p.xml" in note for note in account.notes)  # a folder's letters: said
    else:
        assert all(isinstance(one, np.ndarray) for one in found) and account.kinds["images"] == 1


def test_two_that_differ_in_case_alone_are_not_guessed_and_the_nearest_is_said(tmp_path):
    cv2.imwrite(str(tmp_path / "Acte1.png"), drawn())
    account = Account()
    assert crops(tmp_path, alto(BOXES, WIDTH, HEIGHT, image="acte-1.png"), account) == ["image file is missing"] * 3
    assert any("the nearest name there is: 'Acte1.png'" in note for note in account.notes)


def test_a_region_is_scaled_with_all_it_has():
    region = Region.parse("10 20 100 40", "10,20 110,20 110,60", "10,50 110,50").scaled(2, 0.5)
    assert (region.x, region.y, region.w, region.h) == (20, 10, 200, 20)
    assert region.polygon.tolist() == [[20, 10], [220, 10], [220, 30]] and region.baseline.tolist() == [
        [20, 25],
        [220, 25],
    ]


def test_an_outline_without_an_area_is_none(tmp_path):
    """As exports of eScriptorium have them: a polygon of two points, a box of no height."""
    cv2.imwrite(str(tmp_path / "p.png"), drawn())
    shape = '<Shape><Polygon POINTS="40 30 540 30"/></Shape>'
    head, line = alto([(40, 30, 500, 50)], WIDTH, HEIGHT).split("</TextLine>")[0], "</TextLine></Page></Layout></alto>"
    [found] = crops(tmp_path, head + shape + line)
    assert np.array_equal(found, drawn()[30:80, 40:540])
    flat = "".join(
        f'<TextLine HPOS="40" VPOS="{y}" WIDTH="500" HEIGHT="0" BASELINE="40,{y} 539,{y}"><Shape>'
        f'<Polygon POINTS="40,{y} 540,{y} 40,{y}"/></Shape><String CONTENT="a"/></TextLine>'
        for y in (100, 200)
    )
    content = alto([], WIDTH, HEIGHT).replace("</Page>", flat + "</Page>")
    for one, y in zip(crops(tmp_path, content), (100, 200), strict=True):
        assert np.array_equal(one, drawn()[y - 70 : y + 31, 40:540])


def test_an_xml_that_names_no_image_and_has_none(tmp_path):
    for image in ("", "\t "):
        assert (
            crops(tmp_path, alto(BOXES, WIDTH, HEIGHT, image=image))
            == ["XML names no image, and no image has its name"] * 3
        )
