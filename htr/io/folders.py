"""Listing of a folder by kinds of entries; nothing is opened, so that half a million scans take seconds.

Links to folders are not followed. What is not read is in the account with its reason, file by file.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from htr.io.account import Account

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2", ".j2k", ".webp", ".bmp", ".gif")
OTHER_IMAGES = (".jfif", ".jpx", ".jpf", ".jxl", ".heic", ".heif", ".avif", ".pdf", ".djvu", ".djv", ".svg", ".dng")
OTHER_IMAGES += (".psd", ".eps", ".pcx", ".tga", ".ico", ".pbm", ".pgm", ".ppm", ".pnm", ".cr2", ".nef", ".arw")
SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")


@dataclass
class Listing:
    """Names below a folder, with / between their parts, in order."""

    images: list[str] = field(default_factory=list)
    xml: list[str] = field(default_factory=list)


def list_folder(folder: Path, account: Account) -> Listing:
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
    return name.startswith(".") or name.lower() == "__macosx"


def reason(entry: os.DirEntry) -> str:
    """Why it is passed over; "" for an image and an XML."""
    kind = kind_of(entry.name)
    if kind in ("hidden files", "files of the system"):
        return kind
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
    return "" if kind in ("images", "XML") else kind


def kind_of(path: str) -> str:
    """By its name alone: "images", "XML", or why it is passed over."""
    *above, name = path.lower().split("/")
    if any(map(is_hidden, above)):
        return "in hidden folders"
    if is_hidden(name):
        return "hidden files"
    if name in SYSTEM:
        return "files of the system"
    if name.endswith(".xml"):
        return "XML"
    if name.endswith(ENDINGS):
        return "images"
    ending = os.path.splitext(name)[1][:10]
    if name.endswith(OTHER_IMAGES):
        return f"images of a kind that is not read ({ending})"
    return f"other files ({ending or 'no ending'})"
