"""What lies in a tar, by its headers alone: names of GNU's, ustar's and PAX's kind.

tarfile's own scan would take as much into memory as a damaged header asks for.
"""

import os
import re
import tarfile
from collections import Counter
from typing import BinaryIO

from htr.io.image_headers import RejectedInput

MAX_TAR_MEMBERS = 1_000_000  # of a tar, whose names are in memory
MAX_NAME_LENGTH = 4096  # bytes of a member's
WITHOUT_DATA = {*tarfile.SUPPORTED_TYPES} - {*tarfile.REGULAR_TYPES, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)  # what says more of the member that follows
DAMAGED = "image's tar file is damaged"


def places(file: BinaryIO, others: Counter | None = None) -> dict[str, tuple[int, int]]:
    """Where the regular files of a tar lie: offset and size of each, by name; of twins the last, as tar takes it.

    What is none, and no folder, is counted in `others` by what it is. Raises RejectedInput for a damaged tar.
    """
    found: dict[str, tuple[int, int]] = {}
    others = Counter() if others is None else others
    end, at, long_name = os.fstat(file.fileno()).st_size, 0, ""
    while at < end:
        file.seek(at)
        try:
            member = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:
            break
        except (tarfile.HeaderError, ValueError):
            raise RejectedInput(DAMAGED) from None
        start, size = at + tarfile.BLOCKSIZE, member.size if member.type not in WITHOUT_DATA else 0
        at = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if size < 0 or start + size > end or (member.type == tarfile.GNUTYPE_LONGNAME and size > MAX_NAME_LENGTH):
            raise RejectedInput(DAMAGED)
        if member.type in PAX:
            long_name = pax_path(file.read(min(size, 16 * MAX_NAME_LENGTH))) or long_name
            continue
        if member.type == tarfile.XGLTYPE:
            continue
        if member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = file.read(size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            continue
        if member.isreg() and member.type != tarfile.GNUTYPE_SPARSE:
            name = long_name or member.name
            others["members that a later one of the same name replaces"] += name in found
            found[name] = (start, size)
        elif member.type != tarfile.GNUTYPE_LONGLINK and not member.isdir():
            others["links" if member.issym() or member.islnk() else "neither files nor folders"] += 1
        if member.type != tarfile.GNUTYPE_LONGLINK:
            long_name = ""
        if len(found) > MAX_TAR_MEMBERS:
            raise RejectedInput("image's tar file has too many members")
    return found


def pax_path(records: bytes) -> str:
    """The member's name in a PAX header, of records "LENGTH KEY=VALUE\\n"; "" where it has none."""
    at = 0
    while match := re.compile(rb"(\d{1,7}) ([^=]+)=").match(records, at):
        end = at + int(match[1])
        if match[2] == b"path" and match.end() < end <= len(records):
            return records[match.end() : end - 1].decode("utf-8", "surrogateescape")
        if end <= match.start():
            break
        at = end
    return ""
