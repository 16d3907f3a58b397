"""The images that a source names: read once for all rows of a page, never from outside of the source's folder."""

import errno
import os
import stat
from functools import lru_cache
from pathlib import Path

import numpy as np

from htr.images.line import BadLine
from htr.images.picture import decode, resolution

MOST_BYTES = 1 << 30  # of an image file
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.EINVAL}


class Scans:
    def __init__(self, images: Path):
        """`images`: the folder that names are relative to."""
        self.images, self.root = images, images.resolve()
        self.folder = lru_cache(4096)(self.resolved)  # resolving costs as much as decoding a small line
        self.seen: tuple[str, str] | None = None
        self.page: np.ndarray | str = ""
        self.dpi: float | None = None  # of the page that was read last, if its header says it

    def read(self, name: str, page: str = "") -> np.ndarray:
        """-> gray (H, W) uint8, the same array for the same page asked for again. Raises BadLine with the reason.

        Raises OSError where storage fails: a shard without its lines would be committed for ever.
        """
        if self.seen != (name, page):
            self.seen, self.dpi = (name, page), None
            try:
                if not name:
                    raise BadLine("no image")
                if page and not (page.isascii() and page.isdigit() and len(page) < 7):
                    raise BadLine("page is not a number from 0 on")
                content = self.content(name)
                self.page, self.dpi = decode(content, int(page or 0)), resolution(content)
            except BadLine as reason:
                self.page = str(reason)
            except OSError as error:
                self.seen = None
                if error.errno in MISSING:
                    self.page = "image file is missing"
                elif error.errno in (errno.EACCES, errno.EPERM):
                    self.page = "image file may not be read"
                else:
                    raise
        if isinstance(self.page, str):
            raise BadLine(self.page)
        return self.page

    def content(self, name: str) -> bytes:
        if "\0" in name:
            raise BadLine("image file is missing")
        parent, base = os.path.split(name)
        if base in ("", ".", ".."):
            raise BadLine("image file is missing")
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
                raise BadLine("image file is missing") from None
            self.check_inside(path)
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise BadLine("image file is missing")
            if status.st_size > MOST_BYTES:
                raise BadLine("image file is too large")
            return file.read()

    def resolved(self, parent: str) -> Path:
        try:
            folder = (self.images / parent).resolve()
        except (RuntimeError, ValueError):
            raise BadLine("image file is missing") from None
        self.check_inside(folder)
        return folder

    def check_inside(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            raise BadLine("image lies outside the source's folder")
