"""What a source may hold by accident or malice: each row ends as a sample or as a reject with its reason, nothing
crashes, nothing is read from outside of the source's folder, and memory stays bounded.

Decoders run in processes of their own, with a bounded address space: a crash there is a failed test, not the end of all
of them. `python tests/htr/test_hostile.py SEED COUNT` repeats a part of the fuzz.
"""

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.io.image_files import decode, resolution
from htr.lines.normalise import Region, RejectedInput, cut

CHECKOUT = Path(__file__).parents[2]
sys.path.append(str(Path(__file__).parent / "io"))  # test_image_files, whose made files are used here
ADDRESS_SPACE = 3 << 30
CANARY = "canary-d41d8cd9"  # stands in files that nothing may read
VARIANTS, PART = 6000, 2000


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def run(*command: str, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_THREAD_LIMIT"), "1")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")} | threads
    environ["PYTHONPATH"] = str(CHECKOUT)
    options = {"capture_output": True, "text": True, "errors": "replace", "timeout": 100, "preexec_fn": bounded}
    return subprocess.run([sys.executable, *command], cwd=cwd, env=environ, **options)


# ---------------------------------------------------------------- images


def originals() -> list[bytes]:
    from test_image_files import G4, exif, tiff, with_chunk, with_segment

    gray = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (40, 150)).astype(np.uint8), (0, 0), 2)
    colour = np.dstack([gray, 255 - gray, gray // 2])
    clear = np.dstack([colour, 255 - gray])
    wide = gray.astype(np.uint16) * 257

    def encode(ending: str, image: np.ndarray, *options: int) -> bytes:
        return cv2.imencode(ending, image, options)[1].tobytes()

    kinds = [cv2.IMWRITE_TIFF_COMPRESSION]
    return [
        encode(".jpg", gray),
        with_segment(encode(".jpg", colour), 0xE1, b"Exif\0\0" + exif(6)),
        encode(".jpg", colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode(".jpg", gray, cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        *(encode(".png", image) for image in (gray, colour, clear, wide)),
        with_chunk(encode(".png", gray), b"tRNS", b"\0\0"),
        *(encode(".tif", image) for image in (gray, colour, clear, wide)),
        *(encode(".tif", colour, *kinds, compression) for compression in (1, 5, 8, 32773)),
        tiff(gray.tobytes(), 150, 40),
        tiff(bytes.fromhex(G4), 40, 12, t258=1, t259=4, t262=0),
        tiff(gray.tobytes(), 150, 40, ">", t274=6),
        cv2.imencodemulti(".tif", [gray, gray.T.copy()])[1].tobytes(),
    ]


def damage(whole: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, bits flipped, bytes overwritten or a piece lost, mostly in the headers at both ends."""
    content = np.frombuffer(whole, np.uint8).copy()
    if rng.random() < 0.3:
        content = content[: rng.integers(1, len(content))]
    for _ in range(rng.integers(0, 8)):
        reach = min(len(content), int(rng.choice([64, 300, len(whole)])))
        at = rng.integers(reach)
        at = len(content) - 1 - at if rng.random() < 0.4 else at
        content[at] = content[at] ^ (1 << rng.integers(8)) if rng.random() < 0.6 else rng.choice([0, 1, 127, 255])
    if rng.random() < 0.1:
        at = rng.integers(len(content))
        content = np.delete(content, slice(at, at + rng.integers(1, 40)))
    return content.tobytes()


def fuzz(first: int, count: int) -> None:
    """In a process of its own. The last seed that it prints is the one it died of."""
    cv2.setNumThreads(1)
    files, decoded = originals(), 0
    for seed in range(first, first + count):
        print("seed", seed, flush=True)
        rng = np.random.default_rng(seed)
        content = damage(files[seed % len(files)], rng)
        try:
            image = decode(content, page=int(rng.random() < 0.1))
            assert image.ndim == 2 and image.dtype == np.uint8 and image.size
            decoded += 1
        except RejectedInput as reason:
            assert str(reason) and len(str(reason)) < 80 and str(reason).isascii()
        try:
            dpi = resolution(content)
            assert dpi is None or 75 <= dpi <= 2400
        except RejectedInput:
            pass
    # not ru_maxrss: a child begins with the peak of the process that started it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    print(json.dumps({"decoded": decoded, "peak_mib": int(status["VmHWM"].split()[0]) // 1024}))


@pytest.mark.parametrize("first", range(0, VARIANTS, PART))
def test_damaged_images(first):
    done = run(__file__, str(first), str(PART))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{[line for line in lines if 'seed' in line][-1:]}: {done.stderr[-2000:]}"
    result = json.loads(lines[-1])
    assert 0 < result["decoded"] < PART * 0.7
    assert result["peak_mib"] < 400


# ---------------------------------------------------------------- places on the page

NUMBERS = ["nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "-1", "0", "2147483648", "16777216", "1_0", "٣", "", "x"]
PAGE = np.full((50, 80), 200, np.uint8)


def outcome(box: str, polygon: str, baseline: str = "") -> np.ndarray | str:
    """The line, or the reason why there is none."""
    try:
        return cut(PAGE, Region.parse(box, polygon, baseline))
    except RejectedInput as reason:
        assert str(reason).isascii()
        return str(reason)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", range(4))
def test_numbers_in_boxes_polygons_and_baselines(number, place):
    box = ["10", "10", "30", "20"]
    box[place] = number
    points = ["10,10", "40,10", "40,30", "10,30"]
    for at in (f"{number},12", f"12,{number}", number):
        points[place] = at
        for cells in (("", " ".join(points)), ("10 10 30 20", " ".join(points)), (" ".join(box), " ".join(points))):
            found = outcome(*cells)
            assert isinstance(found, str) or 0 < found.size <= PAGE.size
        found = outcome("10 10 30 20", "", " ".join(points))
        assert isinstance(found, np.ndarray)  # a baseline alone rejects nothing
    found = outcome(" ".join(box), "")
    assert isinstance(found, str) or 0 < found.size <= PAGE.size


@pytest.mark.parametrize("box", ["-100 -100 50 50", "500 10 30 20", "10 10 3000 20", "10 -2e6 30 1e6", "-70 0 80 50"])
def test_boxes_outside_of_the_page(box):
    assert outcome(box, "") == "box lies outside the image"


@pytest.mark.parametrize("count", [4_000, 100_000])
def test_polygons_of_very_many_points(count):
    rng = np.random.default_rng(0)
    for reach in (80, 2**24, 1e300):
        text = " ".join(f"{x:g},{y:g}" for x, y in rng.uniform(-reach, reach, (count, 2)))
        found = outcome("0 0 80 50", text)
        if count == 100_000:
            assert found == "polygon has too many points"
        assert isinstance(found, str) or found.shape == PAGE.shape
        assert isinstance(outcome("0 0 80 50", "", text), np.ndarray)


# ---------------------------------------------------------------- the whole chain


def preprocess(source: Path, out: Path) -> subprocess.CompletedProcess:
    """Its last line of output is the peak memory of its largest process, KiB, taken by a small parent."""
    code = (
        "import resource, subprocess, sys; code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    options = ["--workers", "1", "--shares=train=1"]
    return run("-c", code, "-m", "jobs", "preprocess", str(source), "--out", str(out), *options, cwd=source.parent)


def table(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw) -> Path:
    """Images good and bad, among them what leads out of the folder: there a line image and a text lie."""
    from test_image_files import BOMBS

    outside = tmp_path_factory.mktemp("outside")
    cv2.imwrite(str(outside / "secret.png"), draw(CANARY))
    (outside / "secret.txt").write_text(CANARY)
    inside = outside / "source"
    (inside / "folder.png").mkdir(parents=True)
    cv2.imwrite(str(inside / "good.png"), draw("choc septique"))
    whole = (inside / "good.png").read_bytes()
    for name, content in {"short": whole[:-40], "empty": b"", "text": CANARY.encode()}.items():
        (inside / f"{name}.png").write_bytes(content)
    cv2.imwrite(str(inside / "good.jpg"), draw("choc septique"))
    (inside / "short.jpg").write_bytes((inside / "good.jpg").read_bytes()[:-200])
    for name, content in BOMBS.items():
        (inside / f"bomb {name}.bin").write_bytes(content)
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "etc").symlink_to(outside)
    (inside / "loop.png").symlink_to(inside / "loop.png")
    (inside / "gone.png").symlink_to(inside / "nowhere.png")
    os.mkfifo(inside / "pipe.png")
    return inside


BAD_IMAGES: dict[str, str] = {
    "../secret.png": "outside the source",
    "/etc/passwd": "outside the source",
    "{outside}/secret.png": "outside the source",
    "etc/secret.png": "outside the source",
    "link.png": "outside the source",
    "./../source/../secret.png": "outside the source",
    "loop.png": "missing",
    "gone.png": "missing",
    "pipe.png": "missing",
    "folder.png": "missing",
    "nowhere.png": "missing",
    "good.png/": "missing",
    ".": "missing",
    "x" * 5000: "missing",
    "nul\0.png": "missing",
    "\x1b[2Jgood.png": "missing",
    "\u202egnp.doog": "missing",
    "empty.png": "file is empty",
    "text.png": "not a JPEG, PNG, TIFF",
    "short.png": "truncated",
    "short.jpg": "truncated",
    "bomb PNG.bin": "too many pixels",
    "bomb JPEG.bin": "too many pixels",
    "bomb TIFF.bin": "too many pixels",
    "bomb a tile.bin": "too many pixels",
    "bomb progressive.bin": "too many pixels",
    "bomb transparent.bin": "too many pixels",
}
BAD_CELLS: list[tuple[dict, str]] = [
    ({"box": "nan 0 10 10"}, "box is not four numbers"),
    ({"box": "0 0 -10 10"}, "box is empty"),
    ({"box": "0 0 1e308 1e308"}, "box lies outside"),
    ({"box": "5000 5000 10 10"}, "box lies outside"),
    ({"polygon": "nan,nan inf,1 2,3"}, "polygon is not at least three points"),
    ({"polygon": " ".join(f"{n % 97},{n % 31}" for n in range(100_000))}, "too many points"),
    ({"text": "mort " * 200_000}, "longer than its image can carry"),
    ({"text": " \t\n "}, "no text"),
    ({"text": "\u05de\u05d5\u05ea \u202emort"}, "control character"),
    ({"text": "mort\x1b[2J"}, "control character"),
    ({"certificate": "x" * 5000}, "too long a name"),
]


def test_a_table_of_everything(folder, tmp_path):
    good = {"image": "good.png", "text": "choc septique"}
    rows = [{**good, "image": name.format(outside=folder.parent), "why": why} for name, why in BAD_IMAGES.items()]
    rows += [{**good, **cells, "why": why} for cells, why in BAD_CELLS]
    rows += [{**good, "certificate": "twice", "why": why} for why in ("", "were there before", "were there before")]
    fine = ["../../up", "/abs", "a\0b", "a\x1bb", "é\u202e", "..", "~", "a.b.c", "nul.tar", "x" * 150]
    rows += [{**good, "certificate": name} for name in fine]
    rows += [{**good, "text": "\u05de\u05d5\u05ea mort"}, {**good, "baseline": "nan,1 1e308,2"}]
    rows = [{"certificate": f"c{n}", **row} for n, row in enumerate(rows)]
    data = tmp_path / "out" / "data"
    done = preprocess(table(folder / "lines.csv", rows), data)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr and "\x1b[2J" not in done.stderr and CANARY not in done.stderr

    index = json.loads((data / "index.json").read_text(encoding="utf-8"))
    expected = [row["why"] for row in rows if row.get("why")]
    assert sum(index["rejects"].values()) == len(expected)
    assert sum(index["totals"].values()) == len(rows) - len(expected)
    for why in set(expected):
        count = sum(number for reason, number in index["rejects"].items() if why in reason)
        assert count == expected.count(why), why
    assert sum(len(reason) for reason in index["rejects"]) < 2000  # reasons, not contents
    # nothing from outside came in, nothing was written elsewhere
    assert all(CANARY.encode() not in path.read_bytes() for path in data.rglob("*.tar"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["secret.png", "secret.txt", "source"]
    peak = int(done.stdout.splitlines()[-1]) / 1024
    assert peak < 600, f"{peak:.0f} MiB"


LAUGHS = '<!DOCTYPE alto [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
SYSTEM = '<!DOCTYPE alto [<!ENTITY x SYSTEM "file://{outside}/secret.txt">]>'
BAD_XML: dict[str, Callable[[Path], str]] = {
    "billion laughs": lambda _: f"{LAUGHS}]><alto><Description>&i;</Description></alto>",
    "quadratic": lambda _: f'<!DOCTYPE alto [<!ENTITY a "{"x" * 10**5}">]><alto>{"&a;" * 10**5}</alto>',
    "external entity": lambda outside: f"{SYSTEM.format(outside=outside)}<alto>&x;</alto>",
    "external DTD": lambda _: '<!DOCTYPE alto [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]><alto/>',
    "not XML": lambda _: CANARY,
    "cut short": lambda _: f"<alto><Layout>{CANARY}",
    "another root": lambda _: f"<html>{CANARY}</html>",
}


@pytest.mark.parametrize("name", ["billion laughs", "external entity", "not XML"])
def test_hostile_xml_is_one_clear_error(name, tmp_path):
    (tmp_path / "secret.txt").write_text(CANARY)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "p7.xml").write_text(BAD_XML[name](tmp_path))
    done = preprocess(tmp_path / "source", tmp_path / "data")
    assert done.returncode not in (0, -9, -11)
    said = done.stdout + done.stderr
    assert "p7.xml" in said and "Traceback" not in said and CANARY not in said and len(said) < 1000
    assert not list((tmp_path / "data").glob("*.tar"))


@pytest.mark.parametrize("name", BAD_XML)
def test_hostile_xml_is_refused_without_being_expanded(name, tmp_path):
    from htr.io.pages import read_pages

    (tmp_path / "secret.txt").write_text(CANARY)
    (tmp_path / "p7.xml").write_text(BAD_XML[name](tmp_path))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"p7\.xml: ") as error:
        list(read_pages(tmp_path))
    assert CANARY not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


if __name__ == "__main__":
    fuzz(int(sys.argv[1]), int(sys.argv[2]))
