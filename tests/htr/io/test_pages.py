"""ALTO and PAGE XML as eScriptorium, Transkribus and kraken write them, and XML that must not be read."""

import os
from pathlib import Path

import pytest

from htr.io.pages import read_pages
from htr.lines.normalise import Region, RejectedInput

ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto {namespace}>
  <Description><MeasurementUnit>{unit}</MeasurementUnit>
    <sourceImageInformation><fileName>{image}</fileName></sourceImageInformation></Description>
  <Layout><Page WIDTH="900" HEIGHT="600"><PrintSpace><TextBlock ID="b">
    <TextLine ID="l1" HPOS="10" VPOS="20" WIDTH="300" HEIGHT="40" BASELINE="10 50 160 52 310 50">
      <Shape><Polygon POINTS="10 20 310 20 310 60 10 60"/></Shape>
      <String CONTENT="choc"/><SP/><String CONTENT="septique &amp; é"/></TextLine>
    <TextLine ID="l2" HPOS="10" VPOS="80" WIDTH="200" HEIGHT="40"><String CONTENT="grippe"/></TextLine>
    <TextLine ID="l3"><Shape><Polygon POINTS="1,2 3,2 3,4"/></Shape></TextLine>
  </TextBlock></PrintSpace></Page></Layout>
</alto>"""
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts {namespace}><Page imageFilename="{image}" imageWidth="900" imageHeight="600"><TextRegion id="r">
  <TextLine id="l1"><Coords points="10,20 310,20 310,60"/><Baseline points="10,50 310,52"/>
    <Word><TextEquiv><Unicode>a word, not the line</Unicode></TextEquiv></Word>
    <TextEquiv><Unicode>décès brutal</Unicode></TextEquiv></TextLine>
  <TextLine id="l2"><Coords points="10,80 210,80 210,120"/></TextLine>
  <TextEquiv><Unicode>the region's text</Unicode></TextEquiv>
</TextRegion></Page></PcGts>"""
ALTO_4 = 'xmlns="http://www.loc.gov/standards/alto/ns-v4#"'
PAGE_2019 = 'xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"'


def alto(image: str = "p1.jpg", namespace: str = ALTO_4, unit: str = "pixel") -> str:
    return ALTO.format(image=image, namespace=namespace, unit=unit)


def page(image: str = "p1.jpg", namespace: str = PAGE_2019) -> str:
    return PAGE.format(image=image, namespace=namespace)


def rows(folder: Path, content: str, name: str = "p1.xml") -> list[dict[str, str]]:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(content, encoding="utf-8")
    return list(read_pages(folder))


@pytest.mark.parametrize("namespace", [ALTO_4, "", 'xmlns="http://www.loc.gov/standards/alto/ns-v2#"'])
def test_alto(tmp_path, namespace):
    first, second, third = rows(tmp_path, alto(namespace=namespace))
    assert first == {
        "image": "p1.jpg",
        "certificate": "p1",
        "field": "page",
        "line": "0",
        "text": "choc septique & é",
        "box": "10 20 300 40",
        "polygon": "10,20 310,20 310,60 10,60",
        "baseline": "10,50 160,52 310,50",
        "page_size": "900 600",
    }
    assert (second["text"], second["line"], second["polygon"]) == ("grippe", "1", "")
    assert (third["text"], third["box"], third["polygon"]) == ("", "", "1,2 3,2 3,4")  # points with and without commas


@pytest.mark.parametrize("namespace", [PAGE_2019, "", PAGE_2019.replace("2019", "2013")])
def test_page(tmp_path, namespace):
    first, second = rows(tmp_path, page(namespace=namespace))
    assert (first["text"], first["polygon"], first["box"]) == ("décès brutal", "10,20 310,20 310,60", "")
    assert (first["baseline"], second["baseline"]) == ("10,50 310,52", "")
    assert Region.parse(first["box"], first["polygon"]).w == 301
    assert (second["text"], second["line"]) == ("", "1")


@pytest.mark.parametrize("make", [alto, page])
@pytest.mark.parametrize("named", [r"C:\scans\2020\p1.jpg", "/home/me/p1.jpg", "p1.jpg", "../p1.jpg"])
def test_a_path_of_another_machine_is_its_name(tmp_path, make, named):
    (tmp_path / "p1.jpg").touch()
    assert {row["image"] for row in rows(tmp_path, make(named))} == {"p1.jpg"}


@pytest.mark.parametrize("named", ["renamed-since.jpg", ""])
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_the_image_beside_the_file_where_the_named_one_is_not(tmp_path, named, ending):
    (tmp_path / f"p1.{ending}").touch()
    assert {row["image"] for row in rows(tmp_path, alto(named))} == {f"p1.{ending}"}


def test_folders_within_the_folder(tmp_path):
    (tmp_path / "box 2").mkdir()
    (tmp_path / "box 2" / "p1.jpg").touch()
    rows(tmp_path, page(), "box 2/p1.xml")
    (tmp_path / "a.xml").write_text(alto("a.jpg"))
    found = list(read_pages(tmp_path))
    assert [row["certificate"] for row in found] == ["a"] * 3 + ["box 2/p1"] * 2
    assert found[-1]["image"] == "box 2/p1.jpg" and found[-1]["line"] == "1"


@pytest.mark.parametrize(
    "content",
    [
        alto().replace(' HPOS="10" VPOS="80" WIDTH="200" HEIGHT="40"', ""),
        alto().replace(' HEIGHT="40"><String CONTENT="g', '><String CONTENT="g'),
        page().replace('<Coords points="10,80 210,80 210,120"/>', ""),
    ],
)
def test_a_line_without_a_place_is_not_the_whole_page(tmp_path, content):
    row = rows(tmp_path, content)[1]
    with pytest.raises(RejectedInput):
        Region.parse(row["box"], row["polygon"])


LAUGHS = '<!DOCTYPE alto [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        f"{LAUGHS}]><alto><Description>&i;</Description></alto>",
        '<!DOCTYPE alto [<!ENTITY x SYSTEM "file:///etc/passwd">]><alto><String CONTENT="">&x;</String></alto>',
        '<!DOCTYPE alto [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]><alto/>',
        "<alto><Layout></alto>",
        "",
        "choc septique",
        '<?xml version="1.0" encoding="x-unknown"?><alto/>',
        '<?xml version="1.0" encoding="UTF-16"?><alto/>',
        '<?xml version="1.0" encoding="ascii"?><alto>é</alto>',
        "<alto>\0</alto>",
        "<alto>\x1b[2J</alto>",
    ],
)
def test_xml_that_may_not_be_read(tmp_path, content):
    with pytest.raises(ValueError, match=r"p1\.xml: not well-formed XML that may be read \(\w+\)$") as error:
        rows(tmp_path, content)
    assert "septique" not in str(error.value)


def test_neither_format(tmp_path):
    with pytest.raises(ValueError, match=r"p1\.xml: neither ALTO nor PAGE XML \(its root is <html>\)"):
        rows(tmp_path, '<html xmlns="http://www.w3.org/1999/xhtml"/>')


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("10 50 160 52", "10,50 160,52"),
        ("10,50 160,52", "10,50 160,52"),
        ("50", "10,50 310,50"),  # before ALTO 4: one y
        (" 50.5 ", "10,50.5 310,50.5"),
        ("", ""),
    ],
)
def test_baselines_of_alto(tmp_path, given, read):
    assert rows(tmp_path, alto().replace("10 50 160 52 310 50", given))[0]["baseline"] == read


def test_a_level_baseline_without_a_box_is_none(tmp_path):
    line = '<TextLine ID="l3" BASELINE="50">'
    assert rows(tmp_path, alto().replace('<TextLine ID="l3">', line))[2]["baseline"] == ""


@pytest.mark.parametrize(
    ("strings", "text"),
    [
        ('<String CONTENT="choc"/><String CONTENT="septique"/>', "choc septique"),
        ('<String CONTENT="choc"/><SP/><String CONTENT="sep"/><String CONTENT="tique"/>', "choc septique"),
        ('<String CONTENT="choc"/><SP/><String CONTENT="sep"/><HYP CONTENT="-"/>', "choc sep-"),
        ('<String CONTENT="sep" SUBS_TYPE="HypPart1" SUBS_CONTENT="septique"/><HYP CONTENT="\u00ad"/>', "sep-"),
        ('<!-- x --><String CONTENT="choc"><Glyph CONTENT="c"/></String><?pi x?>', "choc"),
    ],
)
def test_strings_spaces_and_hyphens_of_alto(tmp_path, strings, text):
    content = alto().replace('<String CONTENT="choc"/><SP/><String CONTENT="septique &amp; é"/>', strings)
    assert rows(tmp_path, content)[0]["text"] == text


def in_page(tmp_path: Path, content: str) -> list[dict[str, str]]:
    return rows(tmp_path, f"<PcGts><Page imageFilename='p1.jpg'>{content}</Page></PcGts>")


def reading(text: str, index: str = "") -> str:
    return f"<TextEquiv {index}><Unicode>{text}</Unicode></TextEquiv>"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"<Word>{reading('choc')}</Word><Word>{reading('septique')}</Word>", "choc septique"),
        (f"<Word>{reading('choc')}</Word><Word/><Word>{reading('septique')}</Word>{reading('')}", "choc septique"),
        (f"<Word>{reading('a word')}</Word>{reading('the line')}", "the line"),
        (reading("third", "index='2'") + reading("main", "index='0'") + reading("second", "index='1'"), "main"),
        (reading("the only", "index='-'"), "the only"),
        ("<TextEquiv><PlainText>x</PlainText></TextEquiv>", ""),
        ("", ""),
    ],
)
def test_which_text_of_page_counts(tmp_path, content, text):
    [row] = in_page(tmp_path, f"<TextRegion><TextLine><Coords points='1,2 3,4 5,6'/>{content}</TextLine></TextRegion>")
    assert row["text"] == text


def region(name: str, inner: str = "") -> str:
    return f"<TextRegion id='{name}'><TextLine>{reading(name)}</TextLine>{inner}</TextRegion>"


def test_the_reading_order_of_page(tmp_path):
    order = """<ReadingOrder><OrderedGroup id="g" caption="x">
        <RegionRefIndexed index="10" regionRef="c"/><RegionRefIndexed index="2" regionRef="b"/>
        <UnorderedGroupIndexed index="3" id="u"><RegionRef regionRef="z"/><RegionRef regionRef="a"/>
        </UnorderedGroupIndexed><RegionRefIndexed index="4" regionRef="gone"/></OrderedGroup></ReadingOrder>"""
    regions = region("rest") + region("a") + region("b", region("within b")) + region("c") + region("z")
    found = in_page(tmp_path, order + regions)
    assert [row["text"] for row in found] == ["b", "within b", "z", "a", "c", "rest"]
    assert [row["line"] for row in found] == list("012345")
    table = f"<TableRegion id='c'><TableCell><TextLine>{reading('cell')}</TextLine></TableCell></TableRegion>"
    found = in_page(tmp_path, order + region("a") + table)
    assert [row["text"] for row in found] == ["a", "cell"]


def test_regions_very_deep_in_each_other(tmp_path):
    depth = 20_000
    content = "<TextRegion>" * depth + f"<TextLine>{reading('deep')}</TextLine>" + "</TextRegion>" * depth
    assert [row["text"] for row in in_page(tmp_path, content)] == ["deep"]


def test_metadata_among_the_pages_is_skipped_and_said_once(tmp_path):
    (tmp_path / "METS.xml").write_text('<mets xmlns="http://www.loc.gov/METS/"><fileSec/></mets>')
    (tmp_path / "doc").mkdir()
    for name in ("metadata", "other"):
        (tmp_path / "doc" / f"{name}.xml").write_text("<trpDocMetadata/>")
    with pytest.warns(UserWarning, match=r"skipped \(1 <mets>, 2 <trpDocMetadata>\)") as warned:
        found = rows(tmp_path, page())
    assert len(found) == 2 and len(warned) == 1


def test_transkribus_keeps_its_images_above(tmp_path):
    (tmp_path / "doc").mkdir()
    (tmp_path / "doc" / "p1.JPG").touch()
    found = rows(tmp_path / "doc", page("p1.JPG"), "page/p1.xml")
    assert {row["image"] for row in found} == {"p1.JPG"}
    found = list(read_pages(tmp_path))
    assert {(row["image"], row["certificate"]) for row in found} == {("doc/p1.JPG", "doc/page/p1")}
    assert {row["image"] for row in read_pages(tmp_path / "doc" / "page")} == {"p1.JPG"}  # never above the source


def test_ocr_d_names_a_path_from_above(tmp_path):
    (tmp_path / "IMG").mkdir()
    (tmp_path / "IMG" / "scan.tif").touch()
    assert {row["image"] for row in rows(tmp_path, page("IMG/scan.tif"), "SEG/p1.xml")} == {"IMG/scan.tif"}


@pytest.mark.parametrize(
    "named", ["../../../etc/passwd", "/etc/passwd", "..", "x" * 5000, "a\tb", "ﬁ\u202e.jpg", "C:/x"]
)
def test_a_name_leads_nowhere_else(tmp_path, named):
    image = rows(tmp_path, page(named), "sub/p1.xml")[0]["image"]
    assert not image.startswith("/") and image.removeprefix("sub/").count("/") == 0


def test_what_is_no_file_of_ours(tmp_path):
    (tmp_path / "folder.xml").mkdir()
    (tmp_path / "gone.xml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.xml")
    assert len(rows(tmp_path, page())) == 2


def test_files_that_are_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.xml").write_text(page())
    (tmp_path / "in" / "p0.xml").symlink_to(tmp_path / "secret.xml")
    with pytest.raises(ValueError, match=r"p0\.xml: a link that leads out"):
        list(read_pages(tmp_path / "in"))
    (tmp_path / "in" / "p0.xml").unlink()
    os.truncate(tmp_path / "secret.xml", 1 << 30)  # a hole: it takes no room
    with pytest.raises(ValueError, match=r"secret\.xml: too large"):
        list(read_pages(tmp_path))


def test_no_page_and_no_line(tmp_path):
    assert rows(tmp_path, "<PcGts/>") == [] and rows(tmp_path, "<alto/>") == []


@pytest.mark.skipif("HTR_SHARED" not in os.environ, reason="HTR_SHARED names no folder of real pages")
def test_all_lines_of_real_pages():
    folder = Path(os.environ["HTR_SHARED"]) / "pages"
    found = list(read_pages(folder))
    assert len(found) == 1182 and all((folder / row["image"]).is_file() for row in found)
    regions = [Region.parse(row["box"], row["polygon"], row["baseline"]) for row in found]
    assert sum(region.baseline is not None for region in regions) >= 1175


@pytest.mark.parametrize(("unit", "size"), [("mm10", "900 600 mm10"), ("inch1200", "900 600 inch1200")])
def test_alto_in_other_units(tmp_path, unit, size):
    assert {row["page_size"] for row in rows(tmp_path, alto(unit=unit))} == {size}
    unsized = alto(unit=unit).replace('WIDTH="900" HEIGHT="600"', "")
    assert {row["page_size"] for row in rows(tmp_path, unsized)} == {f"0 0 {unit}"}
    with pytest.raises(ValueError, match=r"p1\.xml: ALTO in 'cubit'"):
        rows(tmp_path, alto(unit="cubit"))
