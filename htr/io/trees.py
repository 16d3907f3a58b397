"""Files that belong together, wherever they lie: below a folder, in a tar, or as a METS names them."""

import os
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Protocol
from unicodedata import normalize
from urllib.parse import unquote

from rapidfuzz import fuzz, process

from htr.io.account import Account
from htr.io.folders import ENDINGS, kind_of, list_folder
from htr.io.image_headers import RejectedInput
from htr.io.tar_members import places

FILE_SCHEME = re.compile(r"^file:(//(localhost)?)?", re.IGNORECASE)
MIN_LIKENESS = 60  # of 100: names that are less like each other are other names
MAX_XML_BYTES = 50 << 20  # of one file: a page of 100 lines takes 100 kB, and its tree ten times as much memory


class Tree(Protocol):
    """Names have / between their parts, whatever the tree is made of."""

    path: Path  # what messages call it
    prefix: str  # of an image's name in a row
    images: list[str]
    xml: list[str]
    given: dict[str, list[str]]  # an XML's images, where the tree itself says them

    def read(self, name: str) -> bytes:
        """An XML. Raises ValueError."""

    def has(self, name: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """Of the files there."""


@dataclass
class FolderTree:
    path: Path
    images: list[str] = field(default_factory=list)
    xml: list[str] = field(default_factory=list)
    given: dict[str, list[str]] = field(default_factory=dict)
    prefix: str = ""

    def __post_init__(self):
        self.root = self.path.resolve()

    @classmethod
    def of(cls, folder: Path, account: Account) -> "FolderTree":
        listing = list_folder(folder, account)
        return cls(folder, listing.images, listing.xml)

    def read(self, name: str) -> bytes:
        file = self.path / name
        if not file.resolve().is_relative_to(self.root):
            raise ValueError(f"{file}: a link that leads out of the source's folder")
        try:
            if file.stat().st_size > MAX_XML_BYTES:
                raise ValueError(f"{file}: too large for the XML of a page")
            return file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file}: can't be read ({type(error).__name__})") from None

    def has(self, name: str) -> bool:
        try:
            return (self.path / name).is_file()
        except (OSError, ValueError):  # a name too long for the file system, a folder that may not be entered
            return False

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.path / folder)
        except (OSError, ValueError):
            return []


class TarTree:
    """Members of a tar; a row names its image ARCHIVE.tar/MEMBER."""

    def __init__(self, path: Path, account: Account):
        self.path, self.prefix = path, f"{path.name}/"
        self.images, self.xml, self.given, others = [], [], {}, Counter()
        try:
            with open(path, "rb") as file:
                found = places(file, others)
                file.seek(max(file.seek(0, os.SEEK_END) - tarfile.BLOCKSIZE, 0))
                if any(file.read()) or not file.tell():
                    raise RejectedInput("the tar is cut off: its end is missing")
        except RejectedInput as reason:
            what = str(reason).replace("image's tar file", "the tar")
            raise ValueError(f"{path}: {what}: copy it again, or unpack it and name the folder") from None
        self.places = {posixpath.normpath(name): place for name, place in found.items()}
        account.there += len(found) + sum(others.values())
        for why, count in others.items():
            account.pass_over(why, count)
        account.pass_over("members that a later one of the same name replaces", len(found) - len(self.places))
        self.folders: dict[str, list[str]] = {}
        for name in sorted(self.places):
            if name.startswith("../"):
                account.pass_over("members that lie above the tar")
                continue
            folder, base = posixpath.split(name)
            self.folders.setdefault(folder, []).append(base)
            kind = kind_of(name)
            if kind in ("images", "XML"):
                (self.images if kind == "images" else self.xml).append(name)
            else:
                account.pass_over(kind)

    def read(self, name: str) -> bytes:
        start, size = self.places[name]
        if size > MAX_XML_BYTES:
            raise ValueError(f"{self.path}/{name}: too large for the XML of a page")
        with open(self.path, "rb") as file:
            file.seek(start)
            return file.read(size)

    def has(self, name: str) -> bool:
        return name in self.places

    def names(self, folder: str) -> list[str]:
        return self.folders.get(folder, [])


class Names:
    """The files of a tree's folders, found whatever the case and the Unicode form of their names."""

    def __init__(self, tree: Tree):
        self.tree, self.known, self.bases, self.stems = tree, {}, {}, {}

    def of(self, folder: str) -> dict[str, list[str]]:
        if folder not in self.known:
            names: dict[str, list[str]] = {}
            for name in self.tree.names(folder):
                names.setdefault(plain(name), []).append(name)
            self.known[folder] = names
        return self.known[folder]

    def find(self, folder: str, name: str) -> str | None:
        """The one file of this name, in other letters perhaps. None: there is none, or more than one."""
        *above, last = posixpath.join(folder, name).split("/")
        folder = ""
        for part in above:  # a folder in other letters too
            same = self.of(folder).get(plain(part), [])
            if part not in same and len(same) > 1:
                return None
            folder = posixpath.join(folder, same[0] if same and part not in same else part)
        same = self.of(folder).get(plain(last), [])
        found = posixpath.join(folder, same[0]) if len(same) == 1 else ""
        return found if found and self.tree.has(found) else None

    def find_stem(self, folder: str, stem: str) -> str | None:
        """The one image whose name but for its ending is this."""
        if folder not in self.stems:
            stems = self.stems[folder] = {}
            for name, own in self.of(folder).items():
                if name.endswith(ENDINGS):
                    stems.setdefault(posixpath.splitext(name)[0], []).extend(own)
        found = self.stems[folder].get(plain(stem), [])
        return posixpath.join(folder, found[0]) if len(found) == 1 else None

    def anywhere(self, name: str) -> str | None:
        """The one image of this name in all folders of the tree: people keep images in one and XML in another."""
        found = self.all_of(name)
        return found[0] if len(found) == 1 else None

    def all_of(self, name: str) -> list[str]:
        if not self.bases:
            for image in self.tree.images:
                self.bases.setdefault(plain(posixpath.basename(image)), []).append(image)
        return self.bases.get(plain(name), []) if name else []

    def nearest(self, folder: str, name: str, endings: tuple[str, ...] = ENDINGS) -> str:
        """The file there whose name is most like this one; "" where none is."""
        names = [own for same in self.of(folder).values() for own in same if own.lower().endswith(endings)]
        return nearest(name, names)


def place_of(href: str, tree: FolderTree, names: Names) -> str:
    """Relative to the METS, "" for one outside. An absolute one is often of another machine: of its last parts as many
    as are found."""
    href = FILE_SCHEME.sub("", href)
    place = ""
    for name in dict.fromkeys((href, unquote(href))):
        path = PureWindowsPath(name)  # knows both / and \
        parts = [part for part in path.parts[bool(path.anchor) :] if part != "."]
        if ".." in parts or not parts:
            continue
        for first in range(len(parts) if path.anchor else 1):
            place = "/".join(parts[first:])
            if tree.has(place):
                return place
            if found := names.find("", place):
                return found
        place = "/".join(parts[-1:] if path.anchor else parts)
    return place


def plain(name: str) -> str:
    return normalize("NFC", name).casefold()


def variants(name: str) -> list[str]:
    """A relative name as it may be meant: with %20, with backslashes, as file://."""
    found = []
    for one in (name, unquote(name)):
        one = FILE_SCHEME.sub("", one).replace("\\", "/").removeprefix("./")
        if one and ".." not in one.split("/") and not one.startswith("/") and "\0" not in one and len(one) < 1000:
            found.append(one)
    return list(dict.fromkeys(found))


def nearest(name: str, names: Iterable[str]) -> str:
    """The one that is most like it; "" where none is."""
    found = process.extractOne(name, list(names), scorer=fuzz.ratio, processor=plain, score_cutoff=MIN_LIKENESS)
    return found[0] if found else ""
