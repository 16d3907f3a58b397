"""PAGE XML as the schema of 2019-07-15 has it, which is not at hand in a test: its structure, by its own rules."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from htr.io.page_xml import NAMESPACE, Line, Region, box_outline, page_xml
from htr.io.pages import read_pages

# of each element: its children in the schema's order with how often they may come, and its attributes, * if needed
STRUCTURE = {
    "PcGts": (["Metadata 1 1", "Page 1 1"], ["pcGtsId"]),
    "Metadata": (["Creator 1 1", "Created 1 1", "LastChange 1 1", "Comments 0 1"], []),
    "Page": (
        ["AlternativeImage 0 n", "Border 0 1", "PrintSpace 0 1", "ReadingOrder 0 1", "Layers 0 1", "Relations 0 1",
         "TextRegion 0 n"], ["imageFilename*", "imageWidth*", "imageHeight*"]),
    "ReadingOrder": (["OrderedGroup 1 1"], ["conf"]),
    "OrderedGroup": (["RegionRefIndexed 1 n"], ["id*", "caption", "custom"]),
    "RegionRefIndexed": ([], ["index*", "regionRef*"]),
    "TextRegion": (["Coords 1 1", "TextLine 0 n", "TextEquiv 0 n", "TextStyle 0 1"], ["id*", "type", "custom"]),
    "TextLine": (["Coords 1 1", "Baseline 0 1", "Word 0 n", "TextEquiv 0 n"], ["id*", "custom", "index"]),
    "TextEquiv": (["PlainText 0 1", "Unicode 1 1"], ["index", "conf", "dataType", "comments"]),
    "Coords": ([], ["points*", "conf"]),
    "Baseline": ([], ["points*", "conf"]),
}  # fmt: skip
VALUES = {
    "points": r"([0-9]+,[0-9]+ )+([0-9]+,[0-9]+)",
    "conf": r"0\.\d+|1\.0+",
    "index": r"\d+",
    "id": r"[A-Za-z_][\w.-]*",
    "imageWidth": r"\d+",
    "imageHeight": r"\d+",
    "type": "paragraph|heading|caption|header|footer|page-number|other",
}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


def check(element: ElementTree.Element) -> None:
    name = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    if name in ("Unicode", "Creator", "Created", "LastChange"):
        assert not len(element) and not element.attrib
        return
    children, attributes = STRUCTURE[name]
    places = [child.split() for child in children]
    order = [place[0] for place in places]
    found = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    assert [order.index(child) for child in found] == sorted(order.index(child) for child in found), name
    for child, least, most in places:
        assert found.count(child) >= int(least) and (most == "n" or found.count(child) <= int(most)), (name, child)
    assert {a.rstrip("*") for a in attributes if a.endswith("*")} <= set(element.attrib), name
    assert set(element.attrib) <= {a.rstrip("*") for a in attributes}, name
    for attribute, value in element.attrib.items():
        assert attribute not in VALUES or re.fullmatch(VALUES[attribute], value), (name, attribute, value)
    for child in element:
        check(child)


def fields() -> list[Region]:
    lines = [
        Line(box_outline((10, 20, 300, 40)), "choc septique & <é>", 0.9, [("choc sceptique", 0.08)]),
        Line([(10.4, 80.6), (310, 80), (310, 130)], "", 1.0, (), [(-3, 110), (4000, 111.5)]),
    ]
    text = "choc septique & <é>"
    return [
        Region("Ia", box_outline((10, 20, 300, 110)), text, 0.9, [("choc sceptique", 0.08)], lines),
        Region("II", box_outline((0, 200, 900, 50)), "", 1.2),
        Region("autopsy_yes", box_outline((880, 590, 20, 10)), "1", 0.97),
    ]


@pytest.mark.parametrize("regions", [fields(), []], ids=["fields", "none"])
def test_what_the_schema_asks_for(regions):
    content = page_xml("p1.jpg", (900, 600), regions)
    root = ElementTree.fromstring(content)
    check(root)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    named = [element.get("regionRef") for element in root.iter() if element.get("regionRef")]
    assert set(named) <= set(ids) and len(named) == len(regions)
    times = [root.findtext(f".//{{*}}{name}") for name in ("Created", "LastChange")]
    assert all(re.fullmatch(TIME, time) for time in times)
    assert content == page_xml("p1.jpg", (900, 600), regions)


def test_texts_and_places_come_back(tmp_path: Path):
    (tmp_path / "p1.jpg").write_bytes(b"")
    (tmp_path / "p1.jpg.xml").write_bytes(page_xml("p1.jpg", (900, 600), fields()))
    first, second = read_pages(tmp_path)
    assert (first["image"], first["text"]) == ("p1.jpg", "choc septique & <é>")
    assert first["polygon"] == "10,20 309,20 309,59 10,59" and first["baseline"] == ""
    assert (
        second["text"] == "" and second["polygon"] == "10,81 310,80 310,130" and second["baseline"] == "0,110 899,112"
    )


def test_readings_have_the_lowest_index_and_regions_their_names():
    root = ElementTree.fromstring(page_xml("p1.jpg", (900, 600), fields()))
    line = root.find(".//{*}TextLine")
    equivs = [(e.get("index"), e.get("conf"), e.findtext("{*}Unicode")) for e in line.iterfind("{*}TextEquiv")]
    assert equivs == [("0", "0.9000", "choc septique & <é>"), ("1", "0.0800", "choc sceptique")]
    regions = root.findall(".//{*}TextRegion")
    assert [re.search(r"structure \{type:(\w+);\}", region.get("custom"))[1] for region in regions] == [
        "Ia", "II", "autopsy_yes"]  # fmt: skip
    assert regions[1].find("{*}TextEquiv").get("conf") == "1.0000"


def test_characters_that_no_xml_holds():
    content = page_xml("a\x00b.jpg", (90, 60), [Region("I\x0ba", box_outline((0, 0, 9, 9)), "mort\x1b[2J\ud800", 0.5)])
    root = ElementTree.fromstring(content)
    assert root.findtext(".//{*}Unicode") == "mort\ufffd[2J\ufffd"
