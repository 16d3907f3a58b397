"""What a user hands in is read, rejected or passed over, each entry once: folders of random mixtures, TIFFs, names."""

import os
from pathlib import Path

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htr.io.account import Account, lines_of
from htr.io.folders import list_folder
from htr.io.image_files import full_pages
from htr.io.sources import read_source
from jobs.transcription.inputs import open_input

LINE = '<TextLine><Coords points="1,2 50,2 50,30"/><TextEquiv><Unicode>mort</Unicode></TextEquiv></TextLine>'
REGION = f"<TextRegion>{LINE}</TextRegion>"
PAGE = f'<PcGts><Page imageFilename="{{image}}" imageWidth="60" imageHeight="40">{REGION}</Page></PcGts>'
GRAY = np.full((40, 60), 200, np.uint8)
KINDS = {  # the name's ending, and what is written
    "image": ".png", "tiff": ".tif", "jp2": ".jp2", "bmp": ".BMP",
    "xml": ".xml", "capitals": ".XML", "empty": ".xml", "mets": ".xml",
    "heic": ".heic", "text": ".txt", "bare": "", "hidden": ".png", "thumbs": "", "apple": ".xml", "dead": ".png",
    "dead xml": ".xml",
    "link": ".png", "folder": "", "linked folder": "", "pipe": ".jpg",
}  # fmt: skip


def put(folder: Path, number: int, kind: str) -> None:
    """An entry of this kind; an XML names the image of the number before."""
    file = folder / f"e{number}{KINDS[kind]}"
    if kind in ("image", "link", "jp2", "bmp"):
        cv2.imwrite(str(file), GRAY)
    elif kind == "tiff":
        file.write_bytes(cv2.imencodemulti(".tif", [GRAY, GRAY])[1].tobytes())
    elif kind in ("xml", "capitals"):
        file.write_text(PAGE.format(image=f"e{number - 1}.png"), encoding="utf-8")
    elif kind in ("empty", "mets"):
        file.write_text("<PcGts><Page/></PcGts>" if kind == "empty" else "<mets/>", encoding="utf-8")
    elif kind in ("hidden", "apple"):
        file.with_name(f"._e{number}{KINDS[kind]}").write_bytes(b"\0\5\x16\7")
    elif kind == "thumbs":
        (folder / "Thumbs.db").write_bytes(b"x")
    elif kind.startswith("dead"):
        file.symlink_to(folder / "nowhere")
    elif kind == "folder":
        (folder / f".hidden{number}").mkdir()
        (folder / f".hidden{number}" / "p.xml").write_text("not XML", encoding="utf-8")
    elif kind == "linked folder":
        file.symlink_to(folder, target_is_directory=True)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"x")


def there(folder: Path) -> int:
    return sum(
        len(files) + sum((Path(at) / name).is_symlink() for name in below) for at, below, files in os.walk(folder)
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["", "a", "a/b"]), st.sampled_from(list(KINDS))), min_size=1, max_size=12))
def test_every_entry_of_any_folder_is_accounted_for(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("mixed")
    for number, (below, kind) in enumerate(entries):
        (folder / below).mkdir(parents=True, exist_ok=True)
        put(folder / below, number, kind)
    count, account = there(folder), Account()
    listing = list_folder(folder, account)
    assert account.there == count == len(listing.images) + len(listing.xml) + sum(account.passed_over.values())
    account = Account()
    try:
        rows = read_source(folder, account=account)[0]
    except ValueError as error:
        assert "no ALTO or PAGE XML with a text line" in str(error)
    else:
        pages = sum(kind in ("xml", "capitals") for _, kind in entries)
        assert rows.num_rows == pages == account.kinds["XML"]
        assert account.there == count == sum(account.kinds.values()) + sum(account.passed_over.values())
    for unit in ("line", "field"):
        try:
            source = open_input(folder, unit)
        except ValueError as error:
            assert "no image" in str(error) or "no ALTO or PAGE XML" in str(error)
            continue
        known = source.account
        assert known["there"] == count == sum(known["kinds"].values()) + sum(known["passed_over"].values())
        items = source.chunk(0, source.count).rows
        if unit == "field" and listing.images:  # one XML does not turn the scans away; a TIFF's pages are rows
            tiffs = sum(name.endswith(".tif") for name in listing.images)
            assert len(items) == len(listing.images) + tiffs
            assert len({row["certificate"] for row in items}) == len(items)


def test_what_a_person_is_told(tmp_path):
    for number, kind in enumerate(["image", "xml", "image", "heic", "apple", "dead", "mets"]):
        put(tmp_path, number, kind)
    account = Account()
    read_source(tmp_path, account=account)
    assert lines_of(account.as_dict()) == [
        "7 entries: 2 read (1 XML, 1 images), 5 passed over",
        "         1 x XML that is metadata (<mets>)",
        "         1 x hidden files",
        "         1 x images of a kind that is not read (.heic)",
        "         1 x images that no XML names",
        "         1 x links that lead nowhere",
    ]


def test_a_folder_that_may_not_be_entered_is_an_error(tmp_path):
    put(tmp_path, 0, "image")
    put(tmp_path, 1, "xml")
    (tmp_path / "locked").mkdir()
    put(tmp_path / "locked", 2, "image")
    (tmp_path / "locked").chmod(0)
    status = 3
    child = os.fork()
    if not child:  # as another user: root may enter anything
        try:
            if os.geteuid() == 0:
                for parent in (tmp_path, *list(tmp_path.parents)[:2]):
                    parent.chmod(0o755)
                os.setuid(65534)
            for read in (read_source, lambda path: open_input(path, "field")):
                try:
                    read(tmp_path)
                    status = 1
                    break
                except ValueError as error:
                    status = 0 if "locked: this folder may not be entered" in str(error) else 2
                    if status:
                        break
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (tmp_path / "locked").chmod(0o755)
    assert code == 0


# ---------------------------------------------------------------- pages of TIFFs


def test_pages_of_tiffs(tmp_path):
    two = cv2.imencodemulti(".tif", [GRAY, GRAY])[1].tobytes()
    assert full_pages(two) == [0, 1] and full_pages(cv2.imencode(".tif", GRAY)[1].tobytes()) == [0]
    assert full_pages(b"") == full_pages(two[:20]) == full_pages(b"II*\0\xff\xff\xff\xff") == [0]
    loop = b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"  # a directory that follows itself
    assert full_pages(loop) == [0]
    (tmp_path / "a.tif").write_bytes(two)
    source = open_input(tmp_path / "a.tif", "line")
    rows = source.chunk(0, 2).rows
    assert [(row["page"], row["certificate"]) for row in rows] == [("0", "a-1"), ("1", "a-2")]
    assert all(images for _, images, _ in source.chunk(0, 2).items()) and "further" in source.account["notes"][0]


def test_a_table_without_pages_has_every_page_and_one_with_boxes_says_so(tmp_path):
    (tmp_path / "a.tif").write_bytes(cv2.imencodemulti(".tif", [GRAY, GRAY, GRAY])[1].tobytes())
    cv2.imwrite(str(tmp_path / "b.tif"), GRAY)
    table = tmp_path / "t.csv"
    table.write_text("image,page,box\na.tif,,\nb.tif,,\na.tif,2,\na.tif,,1 1 9 9\n", encoding="utf-8")
    source = open_input(table, "line")
    rows = source.chunk(0, source.count).rows
    assert [(row["image"], row["page"]) for row in rows] == [
        ("a.tif", "0"), ("a.tif", "1"), ("a.tif", "2"), ("b.tif", ""), ("a.tif", "2"), ("a.tif", ""),
    ]  # fmt: skip
    assert any("2 further pages of TIFFs are not read" in note for note in source.account["notes"])
    assert any("2 further pages of TIFFs are read" in note for note in source.account["notes"])


def test_preprocess_counts_the_pages_that_no_row_names(tmp_path):
    import json

    from shards.index import merge
    from shards.plan import Settings, open_plan
    from shards.write import write_shard

    page = cv2.putText(np.full((64, 400), 230, np.uint8), "mort", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 40, 2)
    (tmp_path / "a.tif").write_bytes(cv2.imencodemulti(".tif", [page, page])[1].tobytes())
    (tmp_path / "t.csv").write_text("image,text,certificate\na.tif,mort,c\n", encoding="utf-8")
    plan, images = open_plan(tmp_path / "set", tmp_path / "t.csv", Settings())
    for number in range(len(plan.shards)):
        write_shard(plan, number, images)
    merge(plan)
    assert json.loads((tmp_path / "set" / "index.json").read_text(encoding="utf-8"))["unread_pages"] == 1
    account = json.loads((tmp_path / "set" / "plan.json").read_text(encoding="utf-8"))["account"]
    assert account == {"there": 1, "read": 1, "kinds": {}, "passed_over": {}, "notes": []}
