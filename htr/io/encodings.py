"""What a table is written in: UTF-8, UTF-16, or cp1252 as Excel has it in France. Its bytes become UTF-8."""

import mmap
import re
from pathlib import Path
from typing import BinaryIO

UTF8_PIECE = re.compile(b"[\xc2-\xf4][\x80-\xbf]")
# what MacRoman's and DOS's French letters become if they are read as cp1252
STRANGE = bytes.fromhex("82838485868788898a8b8e98999a9b9ed0def0fea4a6a8b8afacb6").decode("cp1252")
# ¼ ½ ¾ within a word are what Œ œ Ÿ of ISO 8859-15 become
NOT_FRENCH = re.compile(f"[{STRANGE}]|(?<=[A-Za-z])[¼-¾]|[¼-¾](?=[a-zà-ÿ]{{2}})")
UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
NO_TEXT = {  # first bytes of what is no text, whatever it is called
    b"PK\3\4": "a workbook or a zip archive, not CSV: save its sheet as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook, not CSV: save its sheet as CSV in UTF-8",
    b"\x1f\x8b": "compressed: unpack it first",
    b"PAR1": "a Parquet file: give it a name that ends in .parquet",
    b"%PDF": "a PDF, not a table",
}
HINT = "save it as CSV in UTF-8"


def opened(source: Path) -> tuple[bytes | mmap.mmap, str]:
    """-> the file's bytes, mapped, or those of UTF-16 in UTF-8; what it was written in. Raises ValueError."""
    with open(source, "rb") as file:
        start = file.read(4096)
        if not start.strip(b"\xef\xbb\xbf \t\r\n"):
            raise ValueError(f"{source}: an empty file, or one that begins with an empty line")
        for signature, what in NO_TEXT.items():
            if start.startswith(signature):
                raise ValueError(f"{source}: {what}")
        if start[:2] in (b"\xff\xfe", b"\xfe\xff") or start[:4] in UTF32 or utf16_of(start):
            file.seek(0)
            marked = "utf-16" if start[0] in b"\xff\xfe" else utf16_of(start)
            encoding = "utf-32" if start[:4] in UTF32 else marked
            try:
                return file.read().decode(encoding).encode(), encoding[:6].upper()
            except UnicodeError:
                raise ValueError(f"{source}: begins as {encoding[:6].upper()} and is not, please {HINT}") from None
        if b"\r" in start and b"\n" not in start and mapped_find(file, b"\n") < 0:
            file.seek(0)
            return file.read().replace(b"\r", b"\n"), "UTF-8 with the line ends of old Macs"
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "UTF-8"


def mapped_find(file: BinaryIO, wanted: bytes) -> int:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(wanted)


def from_cp1252(source: Path, content) -> bytes:
    """What isn't UTF-8 is cp1252, Excel's in France, unless pieces of it are UTF-8: then it is damaged. -> in UTF-8.
    Raises ValueError."""
    content = content[:]
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    else:
        raise ValueError(f"{source}: can't be read as CSV, please {HINT}")
    if UTF8_PIECE.search(content):
        raise ValueError(f"{source}: not UTF-8 CSV: line {line} holds a byte that is not UTF-8, please {HINT}")
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    else:
        strange = NOT_FRENCH.search(text)
        if strange is None:
            return text.encode()
        line = text[: strange.start()].count("\n") + 1
    raise ValueError(f"{source}: not UTF-8 CSV, nor cp1252: see line {line}, and {HINT}")


def utf16_of(start: bytes) -> str:
    """The kind of UTF-16 without a mark that these first bytes are, by the zeros in every second; else ""."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    half = len(start) // 2
    if half < 4 or max(even, odd) < 0.7 * half or min(even, odd) > 0.1 * half:
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"
