"""Images of a source: read once for all rows of a page, never from outside of the source's folder.

A name is that of a file, or of a member of a tar: train-00000.tar/KEY.jpg, as shards hold them.
"""

import contextlib
import errno
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from htr.io.image_files import decode, full_pages, read_header
from htr.io.tar_members import places
from htr.io.trees import FolderTree, Names, variants
from htr.lines.normalise import PageSize, Region, RejectedInput

MAX_IMAGE_BYTES = 1 << 30  # of an image file
MISSING_FILE = "image file is missing"
MAX_NEAREST = 20  # of a shard: to compare a name with half a million takes a second
TAR = re.compile(r"\.tar/", re.IGNORECASE)
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EINVAL}


class Scans:
    """The images of a source's folder. The last one that was read is kept, since the rows of a page follow each
    other."""

    def __init__(self, images: Path):
        """`images`: the folder that names are relative to."""
        self.images, self.root = images, images.resolve()
        self.folder = lru_cache(4096)(self.resolved)  # resolving costs as much as decoding a small line
        self.seen: tuple[str, str, str] | None = None
        self.page: np.ndarray | str = ""
        self.dpi: float | None = None  # of the page that was read last, if its header says it
        self.further: dict[str, int] = {}  # TIFFs read without a page's number: how many more pages each has
        self.names = Names(FolderTree(images))  # asked for what is missing
        self.nearest: dict[str, str] = {}  # images that are missing -> the nearest name there is, or ""
        self.reported = 0  # of these pages, how many newly_unread has told of
        self.tar: tuple[tuple, dict[str, tuple[int, int]]] | None = None  # the one in use; where its members lie

    def read(self, name: str, page: str = "", page_size: str = "") -> np.ndarray:
        """-> gray (H, W) uint8, the same array for the same page asked for again. Raises RejectedInput with the reason.

        `page_size`: "W H", of the page that boxes were drawn on. The pixels are as stored, unless only the orientation
        in the image's tags makes them fit that size; without it the orientation is obeyed. Raises OSError where storage
        fails: a shard without its lines would be committed for ever.
        """
        if self.seen != (name, page, page_size):
            self.seen, self.dpi = (name, page, page_size), None
            try:
                if not name:
                    raise RejectedInput("no image")
                if page and not (page.isascii() and page.isdigit() and len(page) < 7):
                    raise RejectedInput("page is not a number from 0 on")
                content = self.content(name)
                if not page and (further := len(full_pages(content)) - 1):
                    self.further[name] = further
                self.page = self.decoded(content, int(page or 0), PageSize.parse(page_size))
            except RejectedInput as reason:
                self.page = str(reason)
            except OSError as error:
                self.seen = None
                if error.errno in MISSING:
                    self.page = self.missing(name)
                elif error.errno in (errno.EACCES, errno.EPERM):
                    self.page = "image file may not be read"
                else:
                    raise
        if isinstance(self.page, str):
            raise RejectedInput(self.page)
        return self.page

    def newly_unread(self) -> int:
        """How many pages of TIFFs were found, since the last call, that no row names."""
        before, self.reported = self.reported, sum(self.further.values()) if self.further else 0
        return self.reported - before

    def decoded(self, content: bytes, page: int, size: PageSize | None) -> np.ndarray:
        header = read_header(content, page)
        self.dpi = header.dpi
        if size is None:
            return decode(content, page)
        if not size.fits(header.width, header.height) and size.fits(header.height, header.width):
            turned = decode(content, page)
            if turned.shape == (header.width, header.height):
                return turned
        return decode(content, page, oriented=False)

    def cut_from(self, row: dict) -> tuple[np.ndarray, Region | None]:
        """The page (H, W) of a row, and the region of its box and polygon there; None stands for the whole page. Raises
        RejectedInput."""
        region = Region.parse(row["box"], row["polygon"], row["baseline"], row.get("turn") or "")
        size = row.get("page_size") or ""
        page = self.read(row["image"], row["page"], size)
        if region and (stated := PageSize.parse(size)):
            region = region.scaled(*stated.scale(page.shape, self.dpi))
        return page, region

    def content(self, name: str) -> bytes:
        """The bytes of a file, or of the one file whose name differs from this in case or Unicode form alone (see
        htr.io.trees.variants)."""
        try:
            return self.exactly(name)
        except OSError as error:
            if error.errno not in MISSING:
                raise
            for one in variants(name):
                with contextlib.suppress(OSError):
                    if one != name:
                        return self.exactly(one)
                if found := self.names.find("", one):
                    return self.exactly(found)
            raise

    def missing(self, name: str) -> str:
        """The reason to reject a row whose image is missing; for the first few the most similar name is kept in
        `nearest`."""
        if len(self.nearest) < MAX_NEAREST and (known := variants(name)):
            self.nearest[name] = self.names.nearest(*os.path.split(known[-1]))
        return MISSING_FILE

    def exactly(self, name: str) -> bytes:
        try:
            with self.opened(name) as file:
                if os.fstat(file.fileno()).st_size > MAX_IMAGE_BYTES:
                    raise RejectedInput("image file is too large")
                return file.read()
        except NotADirectoryError:
            for match in TAR.finditer(name):  # ARCHIVE.tar/MEMBER, whose name may have folders
                archive = name[: match.end() - 1]
                if (self.images / archive).is_file():
                    with self.opened(archive) as file:
                        return self.member(file, name[match.end() :])
            raise

    def member(self, file: BinaryIO, name: str) -> bytes:
        """The content of a member of a tar; of several with one name the last, as tar does. Raises RejectedInput where
        it is not there."""
        status = os.fstat(file.fileno())
        tar = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self.tar is None or self.tar[0] != tar:
            self.tar = None  # never two of them in memory
            self.tar = (tar, places(file))
        name = name if name in self.tar[1] else f"./{name}"  # as tar names what it is given as a folder
        if name not in self.tar[1]:
            raise RejectedInput("image is missing in its tar file")
        offset, size = self.tar[1][name]
        if size > MAX_IMAGE_BYTES:
            raise RejectedInput("image file is too large")
        file.seek(offset)
        return file.read(size)

    def opened(self, name: str) -> BinaryIO:
        """A regular file within the source's folder, open for reading. Raises RejectedInput for any other, OSError as
        os.open does."""
        if "\0" in name:
            raise RejectedInput("image file is missing")
        parent, base = os.path.split(name)
        if base in ("", ".", ".."):
            raise RejectedInput("image file is missing")
        path = self.folder(parent) / base
        try:
            # without O_NONBLOCK a named pipe among the images would hold the task for ever
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            try:
                path = path.resolve(strict=True)  # a link: good where it leads to within the folder
            except RuntimeError:  # what pathlib makes of a loop of links
                raise RejectedInput("image file is missing") from None
            self.check_inside(path)
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise RejectedInput("image file is missing")
        return open(handle, "rb")

    def resolved(self, parent: str) -> Path:
        try:
            folder = (self.images / parent).resolve()
        except (RuntimeError, ValueError):
            raise RejectedInput("image file is missing") from None
        self.check_inside(folder)
        return folder

    def check_inside(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            raise RejectedInput("image lies outside the source's folder")
