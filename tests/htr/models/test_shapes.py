"""No crash on any shape: a pixel, a hair, a stripe of ten thousand, blank or black, and texts that fit none of them."""

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from htr.charset import Charset
from htr.io.given import Lines
from htr.io.sources import read_source
from htr.lines.augment import LEVELS, augment, random_for
from htr.lines.normalise import MAX_LINE_WIDTH_PX, MIN_LINE_WIDTH_PX, normalise_line
from htr.models.encoder import SIZES, EncoderConfig
from htr.models.registry import MODELS, create
from htr.reader import Reader
from jobs.cli.command_line import main
from shards.index import read_index
from shards.loader import Samples, batches, in_order
from shards.plan import Settings

HEIGHT, frames = EncoderConfig.height, SIZES["tiny"].frames
ALPHABET = Charset("abcdefghij ")
# (height, width): the corners of what may come, and beyond
SHAPES = [(1, 1), (8, 5), (400, 5), (400, 30), (8, 300), (64, 500), (8, 10_000), (400, 10_000)]
SHADES = ("white", "black", "noise", "written")
pytestmark = pytest.mark.usefixtures("one_thread")


def image(shape: tuple[int, int], shade: str) -> np.ndarray:
    height, width = shape
    if shade == "noise":
        return np.random.default_rng(height * width).integers(0, 256, shape, np.uint8)
    gray = np.full(shape, 0 if shade == "black" else 255, np.uint8)
    if shade == "written":
        for x in range(0, width, max(height, 8)):
            cv2.putText(gray, "e", (x, int(0.7 * height)), cv2.FONT_HERSHEY_SIMPLEX, height / 40, 30, 1 + height // 40)
    return gray


def all_images() -> list[np.ndarray]:
    """Every shape, its shade by turns, so that every shade is among the narrow, the wide and the tiny ones."""
    short = [image(shape, shade) for shape in SHAPES[:-2] for shade in SHADES]
    return [*short, image(SHAPES[-2], "black"), image(SHAPES[-1], "written"), image(SHAPES[-1], "white")]


def new(name: str, labels: int = len(ALPHABET)) -> torch.nn.Module:
    torch.manual_seed(0)
    return create(name, "tiny", labels)


# --- reading


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_reader_reads_every_shape(name):
    images = all_images()
    # the widest comes last and alone: it would pad others, and an attention reader takes a step a frame
    texts = Reader(new(name).eval(), ALPHABET, {}).read(Lines(images), batch=(len(images) - 1) // 2)
    assert len(texts) == len(images)
    for text, gray in zip(texts, images, strict=True):
        width = normalise_line(gray, HEIGHT).shape[1]
        assert len(text.text) <= frames(width) and not ALPHABET.missing(text.text)
        assert 0 <= text.confidence <= 1


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_image_no_text(name):
    assert Reader(new(name).eval(), ALPHABET, {}).read([]) == []


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("shade", ["white", "black"])
def test_what_is_blank_is_finite(name, shade):
    """Ink without a difference gives a variance of zero: what divides by it must not be seen."""
    model = new(name).eval()
    ink = normalise_line(image((40, 300), shade), HEIGHT)
    for pixels in (ink, np.zeros_like(ink), np.full_like(ink, 255)):
        with torch.no_grad():
            result = model.encode(torch.from_numpy(pixels)[None, None] / 255, torch.tensor([ink.shape[1]]))
        assert result.log_probs.isfinite().all() and result.features.isfinite().all()


# --- losses


LONG = [1 + i % 9 for i in range(60)]
TARGETS = {
    "longer than the output": [LONG],
    "equal neighbours": [[1] * 40],
    "empty": [[]],
    "one label": [[3]],
    "some accepted texts don't fit": [LONG, [1, 2], [3]],
    "no accepted text fits": [LONG, LONG + LONG],
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_losses_of_every_shape_and_text_have_finite_gradients(name):
    model = new(name).train()
    inks = [normalise_line(image(shape, shade), HEIGHT) for shape, shade in
            [((1, 1), "black"), ((8, 5), "noise"), ((400, 5), "white"), ((64, 100), "black"), ((64, 100), "white"),
             ((40, 60), "noise")]]  # fmt: skip
    images = torch.zeros(len(inks), 1, HEIGHT, max(ink.shape[1] for ink in inks))
    for padded, ink in zip(images, inks, strict=True):
        padded[0, :, : ink.shape[1]] = torch.from_numpy(ink) / 255
    widths = torch.tensor([ink.shape[1] for ink in inks])
    for shift in range(len(TARGETS)):  # each text meets each shape
        targets = [list(TARGETS.values())[(i + shift) % len(TARGETS)] for i in range(len(inks))]
        model.zero_grad()
        losses = model.losses(images, widths, targets)
        assert losses.shape == (len(inks),) and not losses.isnan().any()
        fits = losses.isfinite()
        for accepted, fit, width in zip(targets, fits.tolist(), widths.tolist(), strict=True):
            least = min(len(text) + sum(a == b for a, b in pairwise(text)) for text in accepted)
            if name != "attention":  # which needs no frame a label
                assert fit == (least <= frames(width)), (least, width)
        torch.where(fits, losses, 0.0).sum().backward()
        for parameter in model.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()
        assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_batch_in_which_nothing_fits_has_no_gradient_and_no_nan(name):
    model = new(name).train()
    losses = model.losses(torch.zeros(2, 1, HEIGHT, 16), torch.tensor([16, 16]), [[LONG], [LONG]])
    torch.where(losses.isfinite(), losses, 0.0).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
    if name != "attention":
        assert losses.isinf().all()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_widest_line_has_losses(name):
    ink = normalise_line(image((8, 10_000), "written"), HEIGHT)
    assert ink.shape[1] == MAX_LINE_WIDTH_PX
    model = new(name).train()
    losses = model.losses(torch.from_numpy(ink)[None, None] / 255, torch.tensor([ink.shape[1]]), [[[1, 2, 3]]])
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_characters_outside_the_charset_are_named():
    with pytest.raises(ValueError, match=r"characters that the charset lacks: 'z' \(U\+007A\)"):
        ALPHABET.encode("abz")


# --- augmentation


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_every_shape_can_be_augmented(level):
    for i, gray in enumerate(all_images()):
        ink = normalise_line(gray, HEIGHT)
        for seed in range(1 if ink.shape[1] > 2000 else 4):
            out = augment(ink, random_for(seed, 0, f"line {i}"), LEVELS[level])
            assert out.shape[0] == HEIGHT and out.dtype == np.uint8
            assert MIN_LINE_WIDTH_PX <= out.shape[1] <= 2 * MAX_LINE_WIDTH_PX


# --- from a table to a trained reader


@pytest.fixture(scope="module")
def extreme(tmp_path_factory, write_table, draw) -> Path:
    """A table of such images with texts that fit and texts that don't, and a few plain lines."""
    folder = tmp_path_factory.mktemp("extreme")
    rows = []

    def add(gray: np.ndarray, text: str, split: str = "train") -> None:
        name = f"{len(rows):02d}.png"
        cv2.imwrite(str(folder / name), gray)
        rows.append({"image": name, "text": text, "certificate": f"c{len(rows)}", "split": split})

    for i, shape in enumerate(SHAPES):
        # the widest are not trained on, which would take the tests' time: they are in the stream's batches, below
        add(image(shape, SHADES[i % len(SHADES)]), "ab", "val" if shape[1] == 10_000 else "train")
    add(image((400, 5), "noise"), "a")  # too narrow for a single character
    add(image((8, 5), "black"), "abcdefghij" * 5)  # longer than its image can carry
    add(image((64, 100), "white"), "")  # no text
    add(image((64, 100), "white"), "a\x07b")
    add(image((64, 100), "noise"), "aaaaaaaaaaaaaaaaaaaaaaaaa")  # fits by its width, hardly by its frames
    for i in range(4):
        add(draw("abc def"), "abc def", ["train", "train", "dev", "val"][i])
    add(draw("abc xyz"), "abc xyz", "dev")  # characters that train has not
    return write_table(folder / "lines.csv", rows)


@pytest.fixture(scope="module")
def extreme_dataset(tmp_path_factory, extreme, build) -> Path:
    folder = tmp_path_factory.mktemp("extreme-dataset") / "lines"
    return build(folder, extreme, Settings(rows=6, encoding="png")).folder


def test_every_row_is_a_sample_or_is_rejected_with_its_reason(extreme, extreme_dataset):
    import pyarrow.parquet as pq

    rejects = pq.read_table(extreme_dataset / "rejects.parquet").to_pylist()
    reasons = {row["row"]: row["reason"] for row in rejects}
    count = len(read_source(extreme)[0])
    assert sum(read_index(extreme_dataset).totals.values()) + len(reasons) == count
    first = len(SHAPES)
    assert reasons[first] == reasons[first + 1] == "text is longer than its image can carry"
    assert reasons[first + 2] == "no text" and reasons[first + 3].startswith("text holds a control character (U+")
    assert set(reasons) <= {2, first, first + 1, first + 2, first + 3}  # 2: "ab" on 400 x 5 pixels


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("level", ["none", "strong"])
def test_batches_of_them(level, split, extreme_dataset):
    samples = Samples(extreme_dataset, read_index(extreme_dataset).samples(split))
    plan = in_order(samples.widths(HEIGHT), 3)
    key = None if level == "none" else (1, 0)
    seen = 0
    for batch in batches(samples, plan, 0, 1, HEIGHT, key=key, strength=level):
        assert len(batch.texts) == len(batch.keys) == len(batch.widths) == len(batch.images)
        assert batch.images.shape[1:3] == (1, HEIGHT) and batch.widths.min() >= MIN_LINE_WIDTH_PX
        assert batch.widths.max() <= batch.images.shape[3]
        assert not any(image[:, :, width:].any() for image, width in zip(batch.images, batch.widths, strict=True))
        seen += len(batch.texts)
    samples.close()
    assert seen == len(samples) > 0


@pytest.mark.parametrize("name", ["attention", "ctc"])
def test_a_reader_is_trained_on_them(name, extreme_dataset, tmp_path):
    options = ["--size", "tiny", "--steps", "2", "--batch", "5", "--warmup", "1", "--device", "cpu", "--log-every", "1"]
    options += ["--augment", "strong", "--workers", "1", "--amp", "off", "--evaluate-every", "2"]
    assert main(["train", str(extreme_dataset), "--run", str(tmp_path), "--model", name, *options]) == 0
    steps = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [step["loss"] for step in steps if "loss" in step]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert not any(step.get("skipped_steps") for step in steps)
    assert Reader.load(tmp_path / "model").read(Lines([image((1, 1), "black")]))[0] is not None
