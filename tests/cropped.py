"""Lines of a page with XML, cut out as preprocess cuts them."""

from pathlib import Path

from htr.io.account import Account
from htr.io.sources import read_source
from htr.lines.normalise import RejectedInput, cut
from shards.scans import Scans


def crops(folder: Path, content: str, account: Account | None = None) -> list:
    """Write the XML to folder/p.xml -> of each of its lines the pixels, or the reason why there are none."""
    (folder / "p.xml").write_text(content, encoding="utf-8")
    table, images = read_source(folder, account=account or Account())
    scans, found = Scans(images), []
    for row in table.to_pylist():
        try:
            if row.get("reject"):
                raise RejectedInput(row["reject"])
            found.append(cut(*scans.cut_from(row)))
        except RejectedInput as reason:
            found.append(str(reason))
    return found
