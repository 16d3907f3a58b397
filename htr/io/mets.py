"""A METS as a source (eScriptorium, OCR-D, Kitodo, Goobi): the files that it names, and which image a page's XML is of.

Files are named by FLocat's xlink:href: relative to the METS, absolute, as file://, with %20, with backslashes. Those at
an address are not fetched. One group of XML is read: where there are several, SOURCE#GROUP says which.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import defusedxml.ElementTree as ElementTree
from defusedxml.common import DefusedXmlException

from htr.io.account import Account
from htr.io.folders import ENDINGS, kind_of
from htr.io.page_content import local
from htr.io.trees import FolderTree, Names, place_of

ADDRESS = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # of two letters and more: C:\ is a place
MAX_METS_BYTES = 200 << 20  # of ten thousand pages in twenty groups: 60 MB
OUTSIDE = "files outside of the METS' folder"
AT_ADDRESS = "files at an address, which are not fetched"
IMAGE = re.compile("image/(jpe?g|png|tiff|jp2|webp|bmp|gif)$")
SMALL = re.compile("thumb|vignette|preview|min$", re.IGNORECASE)  # groups of small pictures


@dataclass(frozen=True)
class Named:
    """A file of a METS."""

    id: str
    group: str
    place: str  # relative to the METS; "" where it is none of this machine
    why: str = ""  # is it none
    mime: str = ""


def split_group(source: Path) -> tuple[Path, str]:
    """SOURCE#GROUP -> the file and the group; "" where none is named."""
    name, mark, group = source.name.rpartition("#")
    return (source.with_name(name), group) if mark and name and group and not source.exists() else (source, "")


def is_mets(path: Path) -> bool:
    """Whether a file's first element is METS."""
    if path.suffix.lower() != ".xml" or not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(1 << 16).replace(b"\0", b"")
    first = re.search(rb"<(?:[\w.-]+:)?([\w.-]+)[\s/>]", re.sub(rb"<!--.*?-->|<\?.*?\?>", b"", start, flags=re.DOTALL))
    return first is not None and first[1] == b"mets"


def open_mets(path: Path, group: str, account: Account, wants_xml: bool = True) -> FolderTree:
    """The files of one group of XML, with the images of all groups; without XML, those of one group of images.

    Raises ValueError: broken, or more than one group that it could be.
    """
    tree, root = FolderTree(path.parent), parse(path)
    files = list(named_files(root, tree))
    account.there += len(files)
    groups: dict[str, dict[str, list[Named]]] = {"XML": {}, "images": {}}
    for file in files:
        kind = file.why or kind_by(file)
        if kind not in groups:
            account.pass_over(kind)
        elif not tree.has(file.place):
            account.pass_over(f"{kind} that the METS names and that are not there")
            say_nearest(path, file, tree, account)
        else:
            groups[kind].setdefault(file.group, []).append(file)
    if group and not any(group in own for own in groups.values()):
        have = ", ".join(sorted({*groups["XML"], *groups["images"]})) or "none"
        raise ValueError(f"{path}: no files of a group {group} here (groups: {have})")
    if not wants_xml or (group and group not in groups["XML"]) or not groups["XML"]:
        for own in groups["XML"].values():
            account.pass_over("XML, which is not read with images that are lines or scans", len(own))
        large = {name: own for name, own in groups["images"].items() if not SMALL.search(name)}
        tree.images = chosen(path, group, large or groups["images"], groups["images"], account, "images")
        return tree
    tree.xml = chosen(path, group, groups["XML"], groups["XML"], account, "XML")
    images = [file for own in groups["images"].values() for file in own]
    tree.images = sorted({file.place for file in images})
    account.pass_over("files that the METS names twice", len(images) - len(tree.images))
    tree.given = images_of_pages(root, {file.id: file for own in groups["XML"].values() for file in own}, images)
    return tree


def chosen(path: Path, group: str, could: dict, all_of_them: dict, account: Account, kind: str) -> list[str]:
    """The places of the group's files; the other groups are passed over. Raises ValueError: which one?"""
    if not group and len(could) > 1:
        have = ", ".join(f"{name} ({len(own)})" for name, own in could.items())
        first = next(iter(could))
        raise ValueError(f"{path}: {len(could)} groups of {kind}: {have}. Name one: {path.name}#{first}")
    name = group or next(iter(could), "")
    for other, own in all_of_them.items():
        if other != name:
            account.pass_over(f"{kind} of other groups of the METS", len(own))
    places = [file.place for file in all_of_them.get(name, ())]
    account.pass_over("files that the METS names twice", len(places) - len({*places}))
    return list(dict.fromkeys(places))


def parse(path: Path):
    if path.stat().st_size > MAX_METS_BYTES:
        raise ValueError(f"{path}: too large for a METS")
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"{path}: not well-formed METS that may be read ({type(error).__name__})") from None


def named_files(root, tree: FolderTree) -> Iterator[Named]:
    """In the METS' order, each once: of several places the first that is no address and is there."""
    names = Names(tree)
    waiting = [(element, "") for element in reversed(root.findall(".//{*}fileSec"))]
    while waiting:
        element, group = waiting.pop()
        for child in reversed([c for c in element if isinstance(c.tag, str)]):
            kind = local(child)
            if kind == "fileGrp":
                waiting.append((child, child.get("USE") or child.get("ID") or group))
            elif kind == "file":
                waiting.append((child, group))
        if local(element) == "file":
            hrefs = [href_of(flocat) for flocat in element.iterfind("{*}FLocat")]
            own = [href for href in hrefs if href and not ADDRESS.match(href)]
            places = [place for href in own if (place := place_of(href, tree, names))]
            there = [place for place in places if tree.has(place)]
            why = "" if places else OUTSIDE if own else AT_ADDRESS if any(hrefs) else "files without a place"
            yield Named(element.get("ID", ""), group, (there or places or [""])[0], why, element.get("MIMETYPE", ""))


def href_of(flocat) -> str:
    """Of xlink as it is or as it was before 2001."""
    return next((value.strip() for name, value in flocat.attrib.items() if name.rsplit("}", 1)[-1] == "href"), "")


def kind_by(file: Named) -> str:
    """As kind_of; a file whose name has no known ending is what the METS says of it."""
    kind = kind_of(file.place)
    if kind.startswith("other files") and re.search(r"\bxml$|/xml", file.mime):
        return "XML"
    return "images" if kind.startswith("other files") and IMAGE.match(file.mime) else kind


def images_of_pages(root, xml: dict[str, Named], images: list[Named]) -> dict[str, list[str]]:
    """Of each XML the images of its page, by the physical structMap: the METS' own order, small pictures last."""
    found: dict[str, list[str]] = {}
    by_id = {file.id: file for file in images if file.id}
    for page in root.iterfind(".//{*}structMap//{*}div"):
        ids = [pointer.get("FILEID", "") for pointer in page.iterfind("{*}fptr")]
        ids += [area.get("FILEID", "") for area in page.iterfind("{*}fptr//{*}area")]
        own = sorted((by_id[name] for name in ids if name in by_id), key=lambda file: bool(SMALL.search(file.group)))
        for name in ids:
            if name in xml and own:
                found.setdefault(xml[name].place, [file.place for file in own])
    return found


def say_nearest(path: Path, file: Named, tree: FolderTree, account: Account) -> None:
    """Of the first that is missing."""
    if any("that is not there" in note for note in account.notes):
        return
    folder, last = posixpath.split(file.place)
    names, kinds = Names(tree), (*ENDINGS, ".xml")
    near = names.nearest(folder, last, kinds) or names.nearest("", last, kinds)
    account.note(f"{path}: names a file that is not there, the first is {file.place[:200]!r}"
                 + (f"; the nearest name there is: {near!r}" if near else ""))  # fmt: skip
