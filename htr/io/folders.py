"""Listing of a folder by kinds of entries; nothing is opened, so that half a million scans take seconds.

Links to folders are not followed. What is not read is in the account with its reason, file by file.
"""

import os
import stat
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

from htr.io.account import Account

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
OTHER_IMAGES = (
    ".jp2",
    ".j2k",
    ".bmp",
    ".webp",
    ".gif",
    ".heic",
    ".heif",
    ".pdf",
    ".djvu",
    ".dng",
    ".psd",
    ".jxl",
    ".avif",
)
SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")


@dataclass
class Listing:
    """Names below a folder, with / between their parts, in order."""

    images: list[str] = field(default_factory=list)
    xml: list[str] = field(default_factory=list)


def look(folder: Path, account: Account) -> Listing:
    """Every image and XML below the folder; all entries are counted, and what is neither is passed over.

    Raises ValueError where a folder may not be entered: nobody could say how much is in it.
    """
    found, waiting = Listing(), [("", False)]
    while waiting:
        below, hidden = waiting.pop()
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{below}{entry.name}/", hidden or is_hidden(entry.name)))
                        continue
                    account.there += 1
                    why = "in hidden folders" if hidden else reason(entry)
                    name = entry.name.lower()
                    if why:
                        account.pass_over(why)
                    elif name.endswith(".xml"):
                        found.xml.append(below + entry.name)
                    else:
                        found.images.append(below + entry.name)
        except PermissionError:
            raise ValueError(
                f"{folder / below}: this folder may not be entered: ask for the right to read it, or name the folders "
                f"that are to be read one by one"
            ) from None
    found.images.sort()
    found.xml = [str(path) for path in sorted(map(Path, found.xml))]
    return found


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def reason(entry: os.DirEntry) -> str:
    """Why it is passed over; "" for an image and an XML."""
    name = entry.name.lower()
    if is_hidden(name):
        return "hidden files"
    if name in SYSTEM:
        return "files of the system"
    try:
        if entry.is_symlink():
            mode = entry.stat().st_mode
            if stat.S_ISDIR(mode):
                return "links to folders"
            if not stat.S_ISREG(mode):
                return "neither files nor folders"
        elif not entry.is_file(follow_symlinks=False):
            return "neither files nor folders"
    except OSError:
        return "links that lead nowhere"
    if name.endswith((*ENDINGS, ".xml")):
        return ""
    ending = os.path.splitext(name)[1][:10]
    if name.endswith(OTHER_IMAGES):
        return f"images of a kind that is not read ({ending})"
    return f"other files ({ending or 'no ending'})"


class Names:
    """The files of folders, found whatever the case and the Unicode form of their names."""

    def __init__(self, top: Path):
        self.top, self.known = top, {}

    def of(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self.known:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    names.setdefault(plain(name), []).append(name)
            except OSError:
                pass
            self.known[folder] = names
        return self.known[folder]

    def find(self, folder: Path, name: str) -> Path | None:
        """The one file of this name, in other letters perhaps. None: there is none, or more than one."""
        *parents, last = name.split("/")
        for parent in parents:
            folder = folder / parent
        same = self.of(folder).get(plain(last), [])
        return folder / same[0] if len(same) == 1 and (folder / same[0]).is_file() else None

    def nearest(self, folder: Path, name: str) -> str:
        """The image there whose name is most like this one; "" where none is."""
        names = [own for same in self.of(folder).values() for own in same if own.lower().endswith(ENDINGS)]
        return next(iter(get_close_matches(name, names, 1, 0.5)), "")


def plain(name: str) -> str:
    return normalize("NFC", name).casefold()
