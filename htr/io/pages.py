"""ALTO 2 to 4 and PAGE XML 2010 to 2019 (eScriptorium, Transkribus, kraken) with their images: a row a line."""

import collections
import posixpath
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import defusedxml.ElementTree as ElementTree
from defusedxml.common import DefusedXmlException

from htr.io.account import Account
from htr.io.alto import alto_pages
from htr.io.folders import ENDINGS
from htr.io.mets import is_mets, open_mets, split_group
from htr.io.page_content import local
from htr.io.page_read import page_pages
from htr.io.trees import FolderTree, Names, TarTree, Tree

METADATA = {"mets", "mods", "dc", "trpDocMetadata"}  # roots of what the same tools write beside their pages


def read_pages(source: Path, account: Account | None = None) -> Iterator[dict[str, str]]:
    """Rows of every .xml of a folder, a tar or a METS, in the order of their names (of a METS in its own).

    An XML is a certificate; its lines are numbered from 0 in reading order. `image` is relative to the folder, or to
    that of the tar or METS; `page_size` is that of the page as the XML states it, on which its boxes were drawn; `turn`
    what its region says of its lines; `reject` says why a line can't be one. What is not read goes into `account`;
    without one, metadata among the pages is a warning. Raises ValueError for a file that is neither ALTO nor PAGE XML,
    or that may not be read.
    """
    given, account = account, Account() if account is None else account
    tree = open_tree(source, account)
    names, skipped, missing, lineless = Names(tree), collections.Counter(), [], 0
    used: dict[tuple[str, str], list[str]] = {}  # images and their pages -> the XML that name them
    for name in tree.xml:
        root = parse(tree, name)
        kind, file = local(root), tree.path / name
        if kind in METADATA:
            skipped[kind] += 1
            continue
        if kind not in ("alto", "PcGts"):
            raise ValueError(f"{file}: neither ALTO nor PAGE XML (its root is <{kind[:40]}>)")
        number, certificate = 0, posixpath.splitext(name)[0]
        for page in alto_pages(root, file) if kind == "alto" else page_pages(root):
            image = find_image(tree, name, page.image, names)
            if posixpath.basename(image) and not tree.has(image):
                missing.append((file, image))
            used.setdefault((image, page.number), []).append(name)
            lineless += page.lineless
            known = {"page": page.number} if page.number else {}
            known |= {"page_size": page.size} if page.size else {}
            for row in page.lines:
                if not posixpath.basename(image):
                    row["reject"] = "XML names no image, and no image has its name"
                if not (row["box"] or row["polygon"]):
                    row["box"] = "none"  # rejected with a reason: without a box the whole page would be the line
                own = {"image": tree.prefix + image, "certificate": certificate, "field": "page", "line": str(number)}
                yield own | row | known
                number += 1
        if number:
            account.kinds["XML"] += 1
        else:
            account.pass_over("XML without a text line")
    close(tree, account, used, missing, names)
    if lineless:
        account.note(f"{source}: {lineless} regions have a text and no line: they are not read")
    for kind, count in skipped.items():
        account.pass_over(f"XML that is metadata (<{kind}>)", count)
    if skipped and given is None:
        counts = ", ".join(f"{count} <{kind}>" for kind, count in sorted(skipped.items()))
        warnings.warn(f"{source}: metadata among the pages was skipped ({counts})", stacklevel=2)


def close(tree: Tree, account: Account, used: dict[tuple[str, str], list[str]], missing: list, names: Names) -> None:
    """The images' part of the account."""
    named = {image for image, _ in used}
    there = sum(name in named for name in tree.images)
    if there:
        account.kinds["images"] += there
    account.pass_over("images that no XML names", len(tree.images) - there)
    if twice := [files for (image, _), files in used.items() if len(files) > 1 and tree.has(image)]:
        one, other, *_ = twice[0]
        account.note(
            f"{tree.path}: {len(twice)} pages have more than one XML, the first has {one} and {other}: their lines are "
            f"read as often"
        )
    if missing:
        file, image = missing[0]
        same = names.all_of(posixpath.basename(image))
        near = names.nearest(*posixpath.split(image))
        more = f"; the nearest name there is: {near!r}" if near else ""
        more = f"; {len(same)} in other folders have this name: {', '.join(same[:3])}" if same else more
        account.note(
            f"{tree.path}: {len(missing)} XML name an image that is not there, the first is {file.name}, which names "
            f"{posixpath.basename(image)[:100]!r}{more}"
        )


def tree_kind(source: Path) -> str:
    """folder, tar or METS (perhaps with one of its groups, SOURCE#GROUP); "" for what is none: a table."""
    if source.is_dir():
        return "folder"
    if source.suffix.lower() == ".tar":
        return "tar"
    return "METS" if is_mets(split_group(source)[0]) else ""


def open_tree(source: Path, account: Account, wants_xml: bool = True) -> Tree:
    """Of a METS without a group, `wants_xml` chooses one of XML or of images."""
    kind = tree_kind(source)
    if kind == "folder":
        return FolderTree.of(source, account)
    if kind == "tar":
        return TarTree(source, account)
    return open_mets(*split_group(source), account, wants_xml)


def parse(tree: Tree, name: str):
    """-> the root. Raises ValueError naming the file, never quoting it: it may hold transcriptions."""
    content = tree.read(name)
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, DefusedXmlException, LookupError, ValueError) as error:  # also unknown encodings
        raise ValueError(f"{tree.path / name}: not well-formed XML that may be read ({type(error).__name__})") from None


def find_image(tree: Tree, file: str, named: str, names: Names) -> str:
    """The page's image, by its name in the tree: the one that is named or has the file's name, beside the XML or one
    folder above (Transkribus keeps the XML in page/, OCR-D names a path from there); else what a METS says."""
    named = named.strip()
    named = named.partition("?")[0] if "://" in named else named  # an address, of IIIF perhaps
    path = PurePosixPath(PureWindowsPath(named).as_posix())  # often one of another machine
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in named
    wanted = [str(path)] if inside and len(path.parts) > 1 else []
    folder, base = posixpath.split(file)
    if ".." in path.parts and not path.is_absolute():  # ../images/p1.png, from the XML
        from_here = posixpath.normpath(posixpath.join(folder, str(path)))
        if not from_here.startswith("..") and tree.has(from_here):
            return from_here
    wanted += [path.name] if path.name else []
    wanted += [plainly for name in wanted if (plainly := unquote(name)) != name and ".." not in plainly]  # %20
    alike = [name for name in wanted if len(name) < 1000 and "\0" not in name and not name.startswith("/")]
    stem = posixpath.splitext(base)[0]
    same = [stem + ending for ending in (*ENDINGS, *map(str.upper, ENDINGS))]
    same += [stem] if stem.lower().endswith(ENDINGS) else []  # p1.jpg.xml
    places = [folder, *([posixpath.dirname(folder)] if folder else [])]
    for place in places:
        for name in wanted:
            if tree.has(found := posixpath.join(place, name)):
                return found
        for name in alike:
            if found := names.find(place, name):
                return found
    if file in tree.given:  # of several groups the one whose name is like the XML's or its image's
        own = tree.given[file]
        alike = {stem_of(name) for name in (path.name, base)}
        return next((name for name in own if stem_of(name) in alike), own[0])
    for place in places:
        for name in same:
            if tree.has(found := posixpath.join(place, name)):
                return found
        if found := names.find_stem(place, stem):
            return found
    if found := names.anywhere(path.name):
        return found
    return posixpath.join(folder, path.name)


def stem_of(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]
