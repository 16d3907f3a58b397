"""Simulated certificates: the same for the same seed whoever makes them, and truth that holds on the scan."""

import csv
import errno
import os
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from htr.synth import simulate as module
from htr.synth.draw_forms import draw
from htr.synth.handwriting import Writer, hands
from htr.synth.layout import Slot, fitted, put, rulings, slots, tick, with_mistake
from htr.synth.simulate import HELD_OUT, certificate, chosen_hands, filled, simulate, ticked
from htr.synth.text_generator import ALPHABET

HANDS = hands()
ADULT = draw("adult-2018")
LINES = ["image", "text", "certificate", "year", "form", "field", "line", "box", "writer"]
TYPED = ["image", "certificate", "year", "form", "field", "text", "writer"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def rows(folder: Path, table: str = "certificates.csv") -> list[dict[str, str]]:
    with (folder / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    simulate(path, 10, seed=3)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mixed")
    simulate(path, 6, seed=5, form="adult-2018,neonatal-2018", severity="hard")
    return path


def test_one_and_two_workers_make_the_same_bytes(mixed, tmp_path):
    seen = []
    options = {"form": "adult-2018,neonatal-2018", "severity": "hard"}
    table = simulate(tmp_path, 6, seed=5, workers=2, progress=seen.append, **options)
    assert table == tmp_path / "certificates.csv" and seen == [1] * 6
    assert contents(tmp_path) == contents(mixed)
    assert len(contents(mixed)) == 6 + 4  # and no temporary file is left


def test_a_range_makes_the_same_certificates_as_the_whole(folder, tmp_path):
    simulate(tmp_path, range(5, 8), seed=3)
    for table in ("certificates.csv", "lines.csv", "truth/lines.csv", "truth/pages.csv"):
        assert rows(tmp_path, table) == [r for r in rows(folder, table) if 5 <= int(r["certificate"][4:]) < 8]
    pages = {name: content for name, content in contents(tmp_path).items() if name.endswith(".jpg")}
    assert len(pages) == 3 and pages.items() <= contents(folder).items()


def test_the_seed_changes_text_and_page(folder, tmp_path):
    simulate(tmp_path, 2, seed=4)
    texts = [row["text"] for row in rows(tmp_path)]
    assert texts != [row["text"] for row in rows(folder)][: len(texts)]
    assert contents(tmp_path)["pages/sim-000000.jpg"] != contents(folder)["pages/sim-000000.jpg"]


def test_certificates_csv_is_what_data_entry_leaves(folder):
    """A row a field of the form, blank ones too, without a box: nothing in it says where a line ends."""
    table = rows(folder)
    assert list(table[0]) == TYPED and len(table) == 10 * len(ADULT.fields)
    for first in range(0, len(table), len(ADULT.fields)):
        page = table[first : first + len(ADULT.fields)]
        assert [row["field"] for row in page] == [field.name for field in ADULT.fields]
        assert len({(row["certificate"], row["writer"], row["year"], row["image"], row["form"]) for row in page}) == 1
        for row, field in zip(page, ADULT.fields, strict=True):
            assert row["text"] in ("0", "1") if field.kind == "tick" else set(row["text"]) <= set(ALPHABET)
        assert page[0]["text"]  # Ia
    assert all(row["image"] == f"pages/{row['certificate']}.jpg" and (folder / row["image"]).exists() for row in table)
    assert all(re.fullmatch(r"writer-\d{4}", row["writer"]) and 2012 <= int(row["year"]) <= 2023 for row in table)
    assert 2 <= len({row["writer"] for row in table}) <= 8
    assert {"", "0", "1"} <= {row["text"] for row in table}


@pytest.mark.parametrize("made", ["folder", "mixed"])
def test_the_lines_of_the_truth_are_the_text_of_their_field(made, request):
    path = request.getfixturevalue(made)
    lines = rows(path, "truth/lines.csv")
    assert list(lines[0]) == LINES
    assert rows(path, "lines.csv") == [line | {"image": line["image"].removeprefix("../")} for line in lines]
    assert all((path / "truth" / line["image"]).exists() for line in lines)
    found: dict[tuple, list[str]] = {}
    for line in lines:
        key = line["certificate"], line["field"]
        assert int(line["line"]) == len(found.setdefault(key, []))  # in reading order
        found[key].append(line["text"])
    typed = {(row["certificate"], row["field"]): row["text"] for row in rows(path)}
    assert {key: " ".join(texts) for key, texts in found.items()} == {k: t for k, t in typed.items() if t not in "01"}
    assert max(map(len, found.values())) > 1 or made == "folder"


def test_the_matrix_of_the_truth_finds_the_fields(mixed):
    """A ruling of the form, taken to the scan by the matrix, is dark there, and a little beside it is paper."""
    pages = rows(mixed, "truth/pages.csv")
    assert [row["number"] for row in pages] == [str(n) for n in range(6)]
    assert {row["form"] for row in pages} == {"adult-2018", "neonatal-2018"} and {r["severity"] for r in pages} == {
        "hard"
    }
    for row in pages:
        image = cv2.imread(str(mixed / "truth" / row["image"]), cv2.IMREAD_UNCHANGED)
        matrix = np.array(row["matrix"].split(), float).reshape(2, 3)
        assert abs(image.shape[1] / 1654 / int(row["dpi"]) * 200 - 1) < 0.1 and image.ndim == 2
        back = cv2.warpAffine(image, matrix, (1654, 1165), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP).astype(float)
        template, darker = draw(row["form"]), []
        for field in template.fields:
            for ruling in rulings(template, field) if field.kind == "text" else ():
                part = back[:, field.box[0] + 10 : field.box[0] + field.box[2] - 10]
                profile = np.median(part[ruling - 12 : ruling + 13], axis=1)
                darker.append(abs(int(profile.argmin()) - 12))
        assert np.median(darker) <= 2, row["certificate"]


@pytest.mark.parametrize(
    ("severity", "form"), [("light", "adult-2018"), ("light", "neonatal-2018"), ("hard", "adult-2018")]
)
def test_boxes_hold_their_ink_and_all_of_it(severity, form):
    """The same page with and without the handwriting differs by the ink alone: it must be in the boxes."""
    for number in range(4):
        options = {"seed": 9, "hands": HANDS, "form": form, "severity": severity}
        made, without = certificate(number, **options), certificate(number, written=False, **options)
        page, blank = made.scan.image, without.scan.image
        assert made.lines == without.lines and made.typed == without.typed
        ink = blank.astype(int) - page > (25 if severity == "light" else 45)
        boxed = np.zeros(page.shape, bool)
        for line in made.lines:
            x, y, w, h = map(int, line["box"].split())
            assert x >= 0 and y >= 0 and x + w <= page.shape[1] and y + h <= page.shape[0]
            if severity == "light":
                assert w >= 100 and h <= 114 and (h >= 90 or line["field"] in ("II", "circumstances") or "n" in form)
                across = np.flatnonzero(ink[y : y + h, x : x + w].any(axis=0))
                assert across[0] >= 4 and across[-1] <= w - 5  # a margin on both sides, blurred edges taken off
            boxed[y : y + h, x : x + w] = True
            assert page[y : y + h, x : x + w].mean() < blank[y : y + h, x : x + w].mean()
        outside = ink & ~boxed
        assert ink.any() and outside.mean() < (1e-9 if severity == "light" else 2e-4)  # hard: it shines through


def test_light_scans_are_gray_a5_pages(folder):
    for page in sorted((folder / "pages").iterdir()):
        image = cv2.imread(str(page), cv2.IMREAD_UNCHANGED)
        assert image.shape == (1165, 1654) and image.dtype == np.uint8
        assert 205 < np.median(image) < 252 and image.min() < 120  # paper, ink


def test_fewer_causes_further_down():
    counts: Counter[str] = Counter()
    for number in range(400):
        found = list(filled(ADULT, np.random.default_rng(number)))
        causes = [name for name in found if name in module.FILLED]
        assert causes == list(module.FILLED)[: len(causes)] and causes  # a chain without gaps
        assert {name.removesuffix("_interval") for name in found} <= {*causes, "II", "circumstances"}
        counts.update(found)
    assert 400 == counts["Ia"] > counts["Ib"] > counts["Ic"] > counts["Id"] > 0
    intervals, causes = (sum(counts[f"I{c}{end}"] for c in "abcd") for end in ("_interval", ""))
    assert 0.6 < intervals / causes < 0.9 and 100 < counts["II"] < 220


def test_one_box_of_a_question_is_ticked_or_none():
    answers: Counter[str] = Counter()
    for number in range(300):
        found = ticked(ADULT, np.random.default_rng(number))
        assert max(Counter(name.rpartition("_")[0] for name in found).values(), default=1) == 1
        answers.update(found)
    assert set(answers) == {field.name for field in ADULT.fields if field.kind == "tick"}
    assert answers["autopsy_no"] > answers["autopsy_yes"] > 0


def test_a_tick_is_in_its_box():
    for seed in range(30):
        page = np.zeros(ADULT.picture.shape, np.uint8)
        field = ADULT.field("autopsy_yes")
        tick(page, field, np.random.default_rng(seed))
        x, y, w, h = field.box
        assert (page[y : y + h, x : x + w] > 100).mean() > 0.12
        page[y - 14 : y + h + 14, x - 14 : x + w + 14] = 0
        assert not page.any()


def test_lines_stand_on_rulings_or_share_the_field():
    field = ADULT.field("II")
    assert rulings(ADULT, field) == (702, 796) and rulings(ADULT, ADULT.field("circumstances")) == ()
    assert [slot.baseline for slot in slots(ADULT, field, 2)] == [694, 788]
    for name, most in (("II", 4), ("circumstances", 4), ("Ia", 1), ("Ia_interval", 1)):
        x, y, w, h = ADULT.field(name).box
        for lines in range(1, most + 1):
            room = slots(ADULT, ADULT.field(name), lines)
            rows = [slot.baseline for slot in room]
            assert len(room) == lines and rows == sorted(rows) and y < rows[0] and rows[-1] < y + h
            assert all(slot.x >= x and slot.x + slot.width <= x + w for slot in room)
            assert room[0].height == 76 or most > 1


def test_wide_text_is_written_smaller_instead_of_leaving_the_field():
    slot = Slot(10, 290, 100.0, 76.0, 92)
    for seed in range(10):
        writer, rng = Writer.make(seed, HANDS), np.random.default_rng(seed)
        ink = fitted(lambda height, w=writer, r=rng: w.write("depuis septembre 2019", height, r), slot)
        assert 150 < ink.pixels.shape[1] <= 290 and ink.pixels.shape[0] <= 92
        page = np.zeros((200, 400), np.uint8)
        x, y = put(page, ink, slot, rng)
        assert np.array_equal(page[y : y + ink.pixels.shape[0], x : x + ink.pixels.shape[1]], ink.pixels)


def test_a_crossed_out_word_is_on_the_paper_and_not_in_the_text():
    for seed in range(10):
        writer = Writer.make(seed, HANDS)
        plain = writer.write("choc septique", 76, np.random.default_rng(seed))
        ink = with_mistake(writer, "choc septique", "AVC", 76, np.random.default_rng(seed))
        assert ink.pixels.shape[1] > plain.pixels.shape[1] + 20 and ink.pixels.sum() > 1.15 * plain.pixels.sum()
        assert 0 < ink.baseline < ink.pixels.shape[0]
    level = module.SEVERITIES["hard"]
    assert level.crossed > module.SEVERITIES["medium"].crossed > 0 == module.SEVERITIES["light"].crossed


def test_held_out_hands_are_never_trained_on():
    names = {share: {hand.name for hand in chosen_hands(None, share)} for share in module.HANDS}
    assert names["train"] | names["held-out"] == names["all"] and not names["train"] & names["held-out"]
    assert {"Satisfy-Regular", "Zeyada"} <= names["held-out"] and len(names["train"]) > len(names["held-out"])
    assert all(any(name.startswith(held.replace(" ", "")) for held in HELD_OUT) for name in names["held-out"])
    with pytest.raises(ValueError, match="choose one of all, train, held-out"):
        chosen_hands(None, "test")


def test_a_word_list_is_mixed_in(tmp_path):
    (tmp_path / "terms.csv").write_text("code,text\nA1,maladie de Zzyzx\n", encoding="utf-8")
    table = simulate(tmp_path / "out", 12, seed=1, terms=str(tmp_path / "terms.csv"))
    texts = [row["text"].lower() for row in rows(table.parent)]
    assert sum("zzyzx" in text for text in texts) > 5 and any(text.isalpha() and "zzyzx" not in text for text in texts)


def test_an_interrupted_run_leaves_no_table(tmp_path):
    simulate(tmp_path, 1, seed=1)

    def unplugged(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, 2, seed=2, progress=unplugged)
    assert not (tmp_path / "certificates.csv").exists() and not (tmp_path / "truth" / "pages.csv").exists()


def test_pages_appear_under_their_name_only_when_whole(tmp_path, monkeypatch):
    (tmp_path / "pages").mkdir()

    def unplugged(source: Path, target: Path) -> None:
        assert cv2.imread(str(source), cv2.IMREAD_UNCHANGED) is not None or source.stat().st_size > 10_000
        raise OSError("unplugged")

    monkeypatch.setattr(os, "replace", unplugged)
    with pytest.raises(OSError, match="unplugged"):
        module.write_certificate(0, folder=tmp_path, fonts=None, hands="all", terms=None, seed=1)
    assert not list((tmp_path / "pages").iterdir())


@pytest.mark.parametrize("full", ["pages", "truth"])
def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(tmp_path, monkeypatch, full):
    def write(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(handle: int) -> None:
        write(tmp_path, b"")

    monkeypatch.setattr(*(Path, "write_bytes", write) if full == "pages" else (os, "fsync", sync))
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/.*[.](jpg|csv)'"):
        simulate(tmp_path, 1, seed=1)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == (0 if full == "pages" else 1) and all(path.suffix == ".jpg" for path in left)


def test_what_cannot_be_made_is_refused(tmp_path):
    for wrong in (0, range(0), range(-3, 2)):
        with pytest.raises(ValueError, match="nothing to make"):
            simulate(tmp_path / "out", wrong, seed=1)
    (tmp_path / "empty").mkdir()
    for options, message in [
        ({"fonts": tmp_path / "empty"}, f"{tmp_path / 'empty'}.*fonts"),
        ({"form": "adult-2018,none"}, "no form 'none'"),
        ({"severity": "awful"}, "awful.*light, medium, hard"),
        ({"dpi": 9000}, "dpi 9000"),
        ({"terms": str(tmp_path / "none.csv")}, "none.csv"),
    ]:
        with pytest.raises(ValueError, match=message):
            simulate(tmp_path / "out", 1, seed=1, **options)
    assert not (tmp_path / "out").exists()
