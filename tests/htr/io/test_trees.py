"""A METS and a tar as sources: what they name is read, rejected or passed over, each file once."""

import io
import json
import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.io.account import Account
from htr.io.mets import is_mets
from htr.io.sources import digest, read_source
from jobs.transcription.inputs import open_input
from shards.plan import Settings, open_plan
from shards.scans import Scans
from shards.write import write_shard

PAGE_TEXT = cv2.putText(np.full((90, 420), 230, np.uint8), "mort", (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 40, 2)
HEAD = '<mets:mets xmlns:mets="http://www.loc.gov/METS/" xmlns:xlink="http://www.w3.org/1999/xlink">'


def page(image: str) -> str:
    outline, text = '<Coords points="20,20 400,20 400,75 20,75"/>', "<TextEquiv><Unicode>mort</Unicode></TextEquiv>"
    region = f"<TextRegion><TextLine>{outline}{text}</TextLine></TextRegion>"
    return f'<PcGts><Page imageFilename="{image}" imageWidth="420" imageHeight="90">{region}</Page></PcGts>'


def alto(image: str) -> str:
    line = '<TextLine HPOS="20" VPOS="20" WIDTH="380" HEIGHT="55"><String CONTENT="mort"/></TextLine>'
    name = f"<sourceImageInformation><fileName>{image}</fileName></sourceImageInformation>"
    return f'<alto><Description>{name}</Description><Layout><Page WIDTH="420" HEIGHT="90">{line}</Page></Layout></alto>'


def put(folder: Path, files: dict[str, str | None]) -> None:
    """None: an image."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            cv2.imwrite(str(file), PAGE_TEXT)
        else:
            file.write_text(content, encoding="utf-8")


def mets(groups: dict[str, dict[str, str]], pages: list[list[str]] = (), space: bool = True) -> str:
    """`groups`: USE -> file's id -> href; `pages`: the ids of each."""
    made = "".join(
        f'<mets:fileGrp USE="{use}">'
        + "".join(f'<mets:file ID="{key}"><mets:FLocat LOCTYPE="URL" xlink:href="{href}"/></mets:file>'
                  for key, href in files.items())
        + "</mets:fileGrp>"
        for use, files in groups.items()
    )  # fmt: skip
    divs = "".join(
        '<mets:div TYPE="page">' + "".join(f'<mets:fptr FILEID="{key}"/>' for key in own) + "</mets:div>"
        for own in pages
    )
    physical = f'<mets:structMap TYPE="PHYSICAL"><mets:div>{divs}</mets:div></mets:structMap>'
    text = f"{HEAD}<mets:fileSec>{made}</mets:fileSec>{physical}</mets:mets>"
    return text if space else text.replace("mets:", "").replace("xmlns:mets", "xmlns")


def read(source: Path) -> tuple[list[dict], Account]:
    """The rows, each with whether its image can be read; the account is checked."""
    account = Account()
    table, images = read_source(source, account=account)
    rows = table.to_pylist()
    for row in rows:
        assert Scans(images).read(row["image"], row["page"], row["page_size"]).shape == PAGE_TEXT.shape
    assert account.there == sum(account.kinds.values()) + sum(account.passed_over.values())
    return rows, account


def escriptorium(folder: Path) -> Path:
    put(folder, {"a.jpg.png": None, "b.png": None, "a.xml": alto("a.jpg.png"), "b.xml": alto("b.png")})
    groups = {"image": {"i1": "a.jpg.png", "i2": "b.png"}, "export": {"x1": "a.xml", "x2": "b.xml"}}
    put(folder, {"METS.xml": mets(groups, [["i1", "x1"], ["i2", "x2"]])})
    return folder / "METS.xml"


def ocr_d(folder: Path) -> Path:
    put(folder, {"OCR-D-IMG/p_1.png": None, "OCR-D-IMG-BIN/p_1.png": None,
                 "OCR-D-GT/p_1.xml": page("OCR-D-IMG/p_1.png"),
                 "OCR-D-SEG/p_1.xml": page("OCR-D-IMG/p_1.png")})  # fmt: skip
    groups = {"OCR-D-IMG": {"i": "OCR-D-IMG/p_1.png"}, "OCR-D-IMG-BIN": {"j": "OCR-D-IMG-BIN/p_1.png"},
              "OCR-D-GT": {"g": "OCR-D-GT/p_1.xml"}, "OCR-D-SEG": {"s": "OCR-D-SEG/p_1.xml"}}  # fmt: skip
    put(folder, {"mets.xml": mets(groups, [["i", "j", "g", "s"]])})
    return folder / "mets.xml"


def goobi(folder: Path) -> Path:
    """Image names that no XML knows; files on another machine, at an address, small pictures."""
    put(folder, {"images/00000001.png": None, "thumbs/00000001.png": None, "alto/1.xml": alto("master_1.tif")})
    groups = {
        "PRESENTATION": {"p": "https://iiif.example.org/1.jpg"}, "THUMBS": {"t": "thumbs/00000001.png"},
        "LOCAL": {"l": "file:///opt/digiverso/goobi/metadata/12/images/00000001.png"},
        "ALTO": {"f": "file:///opt/digiverso/goobi/metadata/12/alto/1.xml"},
    }  # fmt: skip
    put(folder, {"meta.xml": mets(groups, [["t", "p", "l", "f"]])})
    return folder / "meta.xml"


def test_a_mets_of_escriptorium(tmp_path):
    rows, account = read(escriptorium(tmp_path))
    assert [(row["image"], row["certificate"], row["text"]) for row in rows] == [
        ("a.jpg.png", "a", "mort"), ("b.png", "b", "mort"),
    ]  # fmt: skip
    assert account.kinds == {"XML": 2, "images": 2} and account.there == 4 and not account.notes


def test_several_groups_of_xml_are_asked_for(tmp_path):
    source = ocr_d(tmp_path)
    with pytest.raises(ValueError, match=r"2 groups of XML: OCR-D-GT \(1\), OCR-D-SEG \(1\). Name one: mets.xml#OCR"):
        read_source(source)
    for group in ("OCR-D-GT", "OCR-D-SEG"):
        rows, account = read(tmp_path / f"mets.xml#{group}")
        assert [(row["image"], row["certificate"]) for row in rows] == [("OCR-D-IMG/p_1.png", f"{group}/p_1")]
        assert account.passed_over == {"XML of other groups of the METS": 1, "images that no XML names": 1}
    with pytest.raises(ValueError, match="no files of a group GT here"):
        read_source(tmp_path / "mets.xml#GT")
    assert digest(tmp_path / "mets.xml#OCR-D-GT") != digest(tmp_path / "mets.xml#OCR-D-SEG")
    images = open_input(tmp_path / "mets.xml#OCR-D-IMG-BIN", "field")
    assert [row["image"] for row in images.chunk(0, 1).rows] == ["OCR-D-IMG-BIN/p_1.png"]
    with pytest.raises(ValueError, match="2 groups of images"):
        open_input(source, "field")


def test_a_mets_of_goobi_says_which_image_an_xml_is_of(tmp_path):
    rows, account = read(goobi(tmp_path))
    assert [row["image"] for row in rows] == ["images/00000001.png"]
    assert account.passed_over == {"files at an address, which are not fetched": 1, "images that no XML names": 1}
    assert [row["image"] for row in open_input(tmp_path / "meta.xml", "field").chunk(0, 1).rows] == [
        "images/00000001.png"
    ]


@pytest.mark.parametrize(
    ("there", "href"),
    [
        ("scans/acte 1.png", "scans/acte%201.png"),
        ("scans/acte 1.png", "file:scans/acte%201.png"),
        ("scans/acte 1.png", "file://localhost/data/lot/scans/acte%201.png"),
        ("scans/acte1.png", r"scans\acte1.png"),
        ("scans/acte1.png", r"D:\lot\scans\acte1.png"),
        ("scans/Acte1.PNG", "scans/acte1.png"),
        ("scans/50%20.png", "scans/50%20.png"),
        ("scans/acte1.png", "./scans/acte1.png"),
        ("scans/de\u0301ce\u0300s.png", "scans/d\u00e9c\u00e8s.png"),
    ],
)
@pytest.mark.parametrize("space", [True, False])
def test_places_as_people_write_them(tmp_path, there, href, space):
    put(tmp_path, {there: None, "x/p.xml": page("nothing.tif")})
    put(tmp_path, {"mets.xml": mets({"IMG": {"i": href}, "PAGE": {"x": "x/p.xml"}}, [["i", "x"]], space)})
    rows, _ = read(tmp_path / "mets.xml")
    assert [row["image"] for row in rows] == [there]


def test_what_a_mets_names_and_is_not_there(tmp_path):
    put(tmp_path, {"a.xml": page("a.png"), "a.png": None, "Scan_02.png": None})
    groups = {"IMG": {"1": "a.png", "2": "scan-02.png", "3": "../out.png", "5": "doc.pdf"}, "X": {"4": "a.xml"}}
    put(tmp_path, {"mets.xml": mets(groups, [["1", "4"]])})
    rows, account = read(tmp_path / "mets.xml")
    assert len(rows) == 1 and account.there == 5
    assert account.passed_over == {
        "images that the METS names and that are not there": 1, "files outside of the METS' folder": 1,
        "images of a kind that is not read (.pdf)": 1,
    }  # fmt: skip
    assert account.notes == [
        f"{tmp_path}/mets.xml: names a file that is not there, the first is 'scan-02.png'; the nearest name there is: "
        f"'Scan_02.png'"
    ]


def test_a_mets_without_anything_that_is_there(tmp_path):
    put(tmp_path, {"mets.xml": mets({"IMG": {"1": "https://example.org/1.jpg"}})})
    with pytest.raises(ValueError, match="no ALTO or PAGE XML with a text line in this METS"):
        read_source(tmp_path / "mets.xml")
    with pytest.raises(ValueError, match="no image"):
        open_input(tmp_path / "mets.xml", "field")
    put(tmp_path, {"mets.xml": mets({})[:-20]})
    with pytest.raises(ValueError, match="not well-formed METS"):
        read_source(tmp_path / "mets.xml")


def test_what_is_a_mets(tmp_path):
    put(
        tmp_path, {"a.xml": '<?xml version="1.0"?><!-- <alto> -->\n<mets:mets xmlns:mets="x"/>', "b.xml": alto("a.png")}
    )
    (tmp_path / "c.xml").write_text('<?xml version="1.0" encoding="utf-16"?><mets OBJID="é"/>', encoding="utf-16")
    assert [is_mets(tmp_path / f"{name}.xml") for name in "abcd"] == [True, False, True, False]
    with pytest.raises(ValueError, match="a single ALTO or PAGE XML is no source: name the folder"):
        read_source(tmp_path / "b.xml")


# ---------------------------------------------------------------- tar


def tar_of(folder: Path, archive: Path, form: int = tarfile.PAX_FORMAT, top: str = "") -> Path:
    with tarfile.open(archive, "w", format=form) as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, f"{top}{file.relative_to(folder)}", recursive=False)
    return archive


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("top", ["", "./"])
def test_pages_in_a_tar(tmp_path, form, top):
    long = "page " * 18 + ".png"
    put(tmp_path / "in", {"d/page/p1.xml": page("p1.png"), "d/p1.png": None, f"d/{long}": None, "._x.xml": "no",
                          "d/notes.txt": "x", "d/p2.XML": alto("P2.png"), "d/p2.PNG": None})  # fmt: skip
    os.symlink("p1.png", tmp_path / "in" / "link.png")
    archive = tar_of(tmp_path / "in", tmp_path / "lot.tar", form, top)
    rows, account = read(archive)
    assert [(row["image"], row["certificate"]) for row in rows] == [
        ("lot.tar/d/p2.PNG", "d/p2"), ("lot.tar/d/p1.png", "d/page/p1"),
    ]  # fmt: skip
    assert account.there == 8 and account.passed_over == {
        "hidden files": 1, "other files (.txt)": 1, "links": 1, "images that no XML names": 1,
    }  # fmt: skip
    scans = open_input(archive, "field")
    assert scans.count == 3 and scans.account["there"] == 8
    assert all(images for _, images, _ in scans.chunk(0, 3).items())


def test_a_tar_of_images_is_lines_and_its_tiffs_have_pages(tmp_path):
    put(tmp_path / "in", {"l1.png": None, "l2.png": None})
    (tmp_path / "in" / "l3.tif").write_bytes(cv2.imencodemulti(".tif", [PAGE_TEXT, PAGE_TEXT])[1].tobytes())
    source = open_input(tar_of(tmp_path / "in", tmp_path / "lines.tar"), "line")
    assert [(row["image"], row["page"]) for row in source.chunk(0, 4).rows] == [
        ("lines.tar/l1.png", ""), ("lines.tar/l2.png", ""), ("lines.tar/l3.tif", "0"), ("lines.tar/l3.tif", "1"),
    ]  # fmt: skip
    assert all(images for _, images, _ in source.chunk(0, 4).items())
    with pytest.raises(ValueError, match="no ALTO or PAGE XML with a text line in this tar"):
        read_source(tmp_path / "lines.tar")


def test_a_tar_that_is_none(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(ValueError, match=r"a\.tar: the tar is damaged"):
        read_source(tmp_path / "a.tar")
    for name in ("a.tar.gz", "a.tgz", "a.zip", "a.tar.xz"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match="unpack it"):
            read_source(tmp_path / name)


def test_a_tar_that_is_cut_off_is_not_read_in_part(tmp_path):
    put(tmp_path / "in", {"p1.png": None, "p2.png": None, "p1.xml": page("p1.png"), "p2.xml": page("p2.png")})
    whole = tar_of(tmp_path / "in", tmp_path / "whole.tar").read_bytes()
    read(tmp_path / "whole.tar")
    for size in (0, 512, len(whole) // 3, *range(1024, len(whole) - 12_000, 1536)):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.tar: the tar is (cut off|damaged)"):
            read_source(tmp_path / "cut.tar")


def test_members_that_lie_above_their_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../p.xml", "q/../../p.xml", "p.xml"):
            content = page("p.png").encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    account = Account()
    assert read_source(tmp_path / "a.tar", account=account)[0].num_rows == 1
    assert account.passed_over == {"members that lie above the tar": 1,
                                   "members that a later one of the same name replaces": 1}  # fmt: skip


def test_files_that_a_mets_alone_knows_the_kind_of(tmp_path):
    put(tmp_path, {"d/1.xml": page("nothing.tif"), "d/1.png": None})
    os.rename(tmp_path / "d" / "1.xml", tmp_path / "d" / "page-1")
    os.rename(tmp_path / "d" / "1.png", tmp_path / "d" / "image-1")
    text = mets({"IMG": {"i": "d/image-1"}, "PAGE": {"x": "d/page-1"}}, [["i", "x"]])
    for key, kind in (("i", "image/png"), ("x", "application/vnd.prima.page+xml")):
        text = text.replace(f'ID="{key}"', f'ID="{key}" MIMETYPE="{kind}"', 1)
    put(tmp_path, {"mets.xml": text.replace("1999/xlink", "TR/xlink")})  # as it was written before 2001
    rows, account = read(tmp_path / "mets.xml")
    assert [row["image"] for row in rows] == ["d/image-1"] and account.kinds == {"XML": 1, "images": 1}


def test_a_member_that_comes_twice_counts_twice_and_is_read_once(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in [("a.xml", page("x.png")), ("a.xml", page("a.png"))]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
        content = cv2.imencode(".png", PAGE_TEXT)[1].tobytes()
        info = tarfile.TarInfo("a.png")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    rows, account = read(tmp_path / "a.tar")
    assert [row["image"] for row in rows] == ["a.tar/a.png"] and account.there == 3


@pytest.mark.parametrize("make", [escriptorium, ocr_d, goobi])
def test_preprocess_takes_them(tmp_path, make):
    source = make(tmp_path / "in")
    source = source.with_name("mets.xml#OCR-D-GT") if make is ocr_d else source
    archive = tar_of(tmp_path / "in", tmp_path / "in.tar")
    for number, one in enumerate([source] if make is goobi else [source, archive]):
        plan, images = open_plan(tmp_path / f"set{number}", one, Settings())
        again, _ = open_plan(tmp_path / f"set{number}", one, Settings())
        assert again.fingerprint == plan.fingerprint
        notes = [write_shard(plan, shard, images) for shard in range(len(plan.shards))]
        assert sum(note["count"] for note in notes) == sum(note["rows"] for note in notes) > 0
        account = json.loads((tmp_path / f"set{number}" / "plan.json").read_text(encoding="utf-8"))["account"]
        assert account["there"] == sum(account["kinds"].values()) + sum(account["passed_over"].values())
