"""Lines with image, reference and reading, character by character: for --with-samples alone, being confidential."""

import base64
import random
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.html import percent

MAX_WIDTH_PX, MAX_HEIGHT_PX = 1400, 110  # px of an image in the page
COLUMNS = ["key", "reference", "hypothesis", "edits", "characters"]


def view(evaluation: Path, dataset: Path, many: int, fingerprint: str | None) -> dict[str, list[dict]]:
    """The `many` lines with the most edits, and as many drawn at random (the same ones each time).

    Raises ValueError where the data set is not the one that was evaluated.
    """
    from shards.index import read_index

    index = read_index(dataset)
    if index.fingerprint != fingerprint:
        raise ValueError(
            f"{dataset} is not the data set of {evaluation}: give the one that was evaluated with --dataset"
        )
    parts = sorted((evaluation / "parts").glob("*.parquet"))
    edits = pa.concat_tables(pq.read_table(path, columns=["key", "edits"]) for path in parts).sort_by("key")
    order = edits.sort_by([("edits", "descending"), ("key", "ascending")]).slice(0, many)
    worst = order["key"].to_pylist()
    typical = [edits["key"][row].as_py() for row in random.Random(0).sample(range(len(edits)), min(many, len(edits)))]
    keys = sorted({*worst, *typical})
    # of so many lines in all, these few with their texts
    found = pa.concat_tables(pq.read_table(path, columns=COLUMNS, filters=[("key", "in", keys)]) for path in parts)
    rows, images = {row["key"]: row for row in found.to_pylist()}, images_of(index, keys)
    shown = {"worst": worst, "typical": typical}
    return {kind: [one(rows[key], images) for key in chosen] for kind, chosen in shown.items()}


def one(row: dict, images: dict[str, str]) -> dict:
    rate = row["edits"] / row["characters"] if row["characters"] else None
    about = f"{row['edits']} edits in {row['characters']} characters" + (f", {percent(rate, 0)}" if rate else "")
    return {
        "key": row["key"],
        "image": images.get(row["key"]),
        "about": about,
        "reference": row["reference"],
        "reading": row["hypothesis"],
        "pairs": pairs(row["reference"], row["hypothesis"]),
    }


def pairs(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """How the reading differs, after NFC: (what happened, characters of the reference, of the reading) in order, where
    what happened is same (up to a space), sub, ins or del."""
    from rapidfuzz.distance import Levenshtein

    reference, hypothesis = (unicodedata.normalize("NFC", text) for text in (reference, hypothesis))
    found = []
    for step in Levenshtein.opcodes(reference, hypothesis):
        a, b = reference[step.src_start : step.src_end], hypothesis[step.dest_start : step.dest_end]
        if step.tag == "equal":
            words = [part for word in a.split(" ") for part in (word, " ")][:-1]
            found += [("same", word, word) for word in words if word]
        elif step.tag == "replace":
            found += [("sub", one, two) for one, two in zip(a, b, strict=True)]
        else:
            found += [("del", one, "") for one in a] + [("ins", "", two) for two in b]
    return found


def images_of(index, keys: list[str]) -> dict[str, str]:
    """The stored lines of these samples as data URLs, no larger than a page shows them."""
    import cv2

    from shards.loader import Samples

    table = pq.read_table(index.folder / "index.parquet", filters=[("key", "in", keys), ("level", "!=", "part")])
    samples, found = Samples(index.folder, table), {}
    try:
        for row in range(len(samples)):
            image = samples.read(row)[0][0]
            factor = min(MAX_WIDTH_PX / image.shape[1], MAX_HEIGHT_PX / image.shape[0], 1.0)
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()
            found[samples.key(row)] = "data:image/jpeg;base64," + base64.b64encode(content).decode()
    finally:
        samples.close()
    return found
