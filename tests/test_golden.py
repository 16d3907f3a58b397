"""What must stay as it is when code is moved or mended: the shards of a made source byte for byte, and what the reader
that comes with the project reads on made lines. A change on purpose: HTR_GOLDEN=write pytest tests/test_golden.py
"""

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import htr
from htr.reader import Reader
from htr.synth.simulate import simulate
from jobs.cli.command_line import main
from shards import files
from shards.index import read_index

GOLDEN = Path(__file__).with_name("golden_data.json")
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)
TEXTS = (
    "grippe", "choc septique", "AVC ischemique", "cancer du sein", "chute il y a 3 jours", "infarctus du myocarde",
    "embolie pulmonaire", "insuffisance renale", "pneumonie", "demence", "fracture du col", "diabete de type 2",
)  # fmt: skip


def golden(name: str, found: object) -> object:
    """What is stored under the name; with HTR_GOLDEN=write what was found becomes it."""
    stored = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("HTR_GOLDEN") == "write":
        stored[name] = found
        GOLDEN.write_text(json.dumps(stored, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return stored[name]


def drawn(number: int) -> np.ndarray:
    """(H, W) uint8: a text in one of OpenCV's fonts, on grained paper. Whole numbers alone: the same on any CPU."""
    text, font = TEXTS[number % len(TEXTS)], FONTS[(number + number // len(TEXTS)) % len(FONTS)]
    thick = 1 + number % 2
    (width, _), _ = cv2.getTextSize(text, font, 1.0, thick)
    image = np.full((52 + number % 5, width + 20), 228, np.uint8)
    cv2.putText(image, text, (10, 36), font, 1.0, 40, thick, cv2.LINE_8)
    return image - np.random.default_rng(number).integers(0, 12, image.shape, np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory, write_table) -> Path:
    """Lines as images of their own, as boxes and as polygons on a page; a damaged one, one without a text, twins."""
    folder, rows = tmp_path_factory.mktemp("golden"), []
    page = np.full((900, 900), 235, np.uint8)
    for number in range(24):
        image, text = drawn(number), TEXTS[number % len(TEXTS)]
        known = {"text": text, "certificate": f"c.{number // 3}", "field": ["Ia", "Ib", "II"][number % 3],
                 "year": 2018 + number % 4, "writer": f"w{number // 6}"}  # fmt: skip
        if number % 3:
            (folder / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
            rows.append({"image": f"{number}.png", **known})
            continue
        (height, width), top = image.shape, 10 + 36 * number
        page[top : top + height, 20 : 20 + width] = image
        box = f"20 {top} {width} {height}"
        edges = f"20,{top} {20 + width},{top + 3} {20 + width},{top + height} 20,{top + height - 4}"
        rows.append({"image": "page.png", **({"polygon": edges} if number % 2 else {"box": box}), **known})
    cv2.imwrite(str(folder / "page.png"), page)
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:200])
    rows[8]["text"] = ""
    rows += [rows[1], {"image": "none.png", "text": "grippe", "certificate": "c.99"}]
    return write_table(folder / "lines.csv", rows)


def digests(folder: Path) -> dict[str, str]:
    kinds = (".tar", ".json", ".parquet")
    found = [path for path in sorted(folder.iterdir()) if path.suffix in kinds and not path.name.startswith(".")]
    return {path.name: hashlib.sha256(content_of(path)).hexdigest() for path in found}


def content_of(path: Path) -> bytes:
    """All of a file but the digest of the code that cut fields: any edit of that code changes it."""
    content = path.read_bytes()
    if path.name != "plan.json":
        return content
    return files.to_json({name: value for name, value in json.loads(content).items() if name != "cutting"}).encode()


def test_shards_of_lines_are_the_same_bytes(source, tmp_path):
    options = ["--encoding", "png", "--rows", "9", "--workers", "1", "--shares=train=0.7,dev=0.1,test=0.2"]
    options += ["--may-share", "image"]
    assert main(["preprocess", str(source), "--out", str(tmp_path / "lines"), *options]) == 0
    found = digests(tmp_path / "lines")
    assert found == golden("shards of lines", found)
    assert {name.rsplit(".")[-1] for name in found} == {"tar", "json", "parquet"} and len(found) >= 10


def test_shards_of_fields_are_the_same_bytes(tmp_path):
    """Fields found on simulated scans. Sums of floats differ in their last bits between kinds of CPU: pixels are
    compared on the kind that they were taken on, what the samples are on every one."""
    table = simulate(tmp_path / "scans", 5, 5, severity="light")
    options = ["--unit", "field", "--encoding", "png", "--workers", "1", "--shares=train=1"]
    assert main(["preprocess", str(table), "--out", str(tmp_path / "fields"), *options]) == 0
    index = read_index(tmp_path / "fields")
    rows = pq.read_table(index.folder / "index.parquet").to_pylist()
    known = [" ".join(str(row[name]) for name in ("key", "level", "field", "length")) for row in rows]
    assert known == golden("samples of fields", known)
    kind, found = cv2.getCPUFeaturesLine(), digests(index.folder)
    if kind == golden("kind of CPU", kind):
        assert found == golden("shards of fields", found)
    assert len(known) > 20 and {row["level"] for row in rows} >= {"line", "field", "part", "blank", "tick"}


def test_the_project_s_reader_reads_the_same():
    reader = Reader.load(Path(htr.__file__).parent / "pretrained" / "model", "cpu")
    found = [reading.text for reading in reader.read([drawn(number) for number in range(100)])]
    assert found == golden("readings", found)
    assert len(set(found)) >= len(TEXTS) and sum(map(len, found)) > 1000
