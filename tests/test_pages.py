"""ALTO and PAGE XML as eScriptorium, Transkribus and kraken write them, and XML that must not be read."""

from pathlib import Path

import pytest

from htr.images.line import BadLine, Region
from htr.images.pages import read_pages

ALTO = """<?xml version="1.0" encoding="UTF-8"?>
<alto {namespace}>
  <Description><MeasurementUnit>{unit}</MeasurementUnit>
    <sourceImageInformation><fileName>{image}</fileName></sourceImageInformation></Description>
  <Layout><Page WIDTH="900" HEIGHT="600"><PrintSpace><TextBlock ID="b">
    <TextLine ID="l1" HPOS="10" VPOS="20" WIDTH="300" HEIGHT="40">
      <Shape><Polygon POINTS="10 20 310 20 310 60 10 60"/></Shape>
      <String CONTENT="choc"/><SP/><String CONTENT="septique &amp; é"/></TextLine>
    <TextLine ID="l2" HPOS="10" VPOS="80" WIDTH="200" HEIGHT="40"><String CONTENT="grippe"/></TextLine>
    <TextLine ID="l3"><Shape><Polygon POINTS="1,2 3,2 3,4"/></Shape></TextLine>
  </TextBlock></PrintSpace></Page></Layout>
</alto>"""
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts {namespace}><Page imageFilename="{image}" imageWidth="900" imageHeight="600"><TextRegion id="r">
  <TextLine id="l1"><Coords points="10,20 310,20 310,60"/>
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
    (folder / name).parent.mkdir(exist_ok=True)
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
    }
    assert (second["text"], second["line"], second["polygon"]) == ("grippe", "1", "")
    assert (third["text"], third["box"], third["polygon"]) == ("", "", "1,2 3,2 3,4")  # points with and without commas


@pytest.mark.parametrize("namespace", [PAGE_2019, "", PAGE_2019.replace("2019", "2013")])
def test_page(tmp_path, namespace):
    first, second = rows(tmp_path, page(namespace=namespace))
    assert (first["text"], first["polygon"], first["box"]) == ("décès brutal", "10,20 310,20 310,60", "")
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
    with pytest.raises(BadLine):
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
    ],
)
def test_xml_that_may_not_be_read(tmp_path, content):
    with pytest.raises(ValueError, match=r"p1\.xml: not well-formed XML that may be read \(\w+\)$") as error:
        rows(tmp_path, content)
    assert "septique" not in str(error.value)


def test_neither_format(tmp_path):
    with pytest.raises(ValueError, match=r"p1\.xml: neither ALTO nor PAGE XML \(its root is <html>\)"):
        rows(tmp_path, '<html xmlns="http://www.w3.org/1999/xhtml"/>')


def test_alto_in_millimetres(tmp_path):
    with pytest.raises(ValueError, match=r"p1\.xml: ALTO in 'mm10'"):
        rows(tmp_path, alto(unit="mm10"))
