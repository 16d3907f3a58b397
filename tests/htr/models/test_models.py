"""Both readers: shapes, padding that leaks nothing, targets that do not fit, folders, and losses that are written down.

HTR_GOLDEN=write python -m pytest tests/htr/models/test_models.py     # after a change that is meant to change losses
"""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from htr.charset import Charset
from htr.io.given import Lines
from htr.lines.normalise import normalise_line
from htr.models.attention.decoder import EOS, Decoder, label_counts
from htr.models.ctc.loss import ctc_losses
from htr.models.encoder import SIZES, EncoderConfig, concat_lines
from htr.models.registry import MODELS, create
from htr.reader import Reader, files_of

HEIGHT = EncoderConfig.height
GOLDEN = Path(__file__).parents[2] / "golden.json"
TEXTS = ("AVC", "choc septique", "grippe", "IRC", "cancer du sein", "chute", "infarctus du myocarde", "embolie")
ALPHABET = Charset("".join(TEXTS))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=sorted(MODELS))
def model(request) -> torch.nn.Module:
    """A reader in evaluation, its parameters off their initial zeros and ones, as training leaves them."""
    torch.manual_seed(0)
    reader = create(request.param, "tiny", len(ALPHABET)).eval()
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return reader


@pytest.fixture(scope="module")
def inks(draw) -> list[np.ndarray]:
    return [normalise_line(draw(text), HEIGHT) for text in TEXTS]


def batch(inks: list[np.ndarray], width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, H, W), padded to the widest line or to `width`, and widths."""
    images = torch.zeros(len(inks), 1, HEIGHT, max(width, *(ink.shape[1] for ink in inks)))
    for image, ink in zip(images, inks, strict=True):
        image[0, :, : ink.shape[1]] = torch.from_numpy(ink) / 255
    return images, torch.tensor([ink.shape[1] for ink in inks])


def targets(texts=TEXTS) -> list[list[list[int]]]:
    return [[ALPHABET.encode(text)] for text in texts]


# --- shapes


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_size_has_losses_and_readings(name, size, inks):
    torch.manual_seed(0)
    reader = create(name, size, len(ALPHABET)).eval()
    images, widths = batch(inks[:2])
    losses = reader.losses(images, widths, targets()[:2])
    assert losses.shape == (2,) and losses.dtype == torch.float32 and (losses > 0).all() and losses.isfinite().all()
    readings = reader.read(reader.encode(images, widths))
    assert len(readings) == 2
    for reading, width in zip(readings, widths.tolist(), strict=True):
        assert all(1 <= label <= len(ALPHABET) for label in reading.labels)
        assert len(reading.labels) <= SIZES[size].frames(width) and 0 <= reading.confidence <= 1


@pytest.mark.parametrize("width", [*range(16, 50), 333])
def test_the_number_of_frames(width):
    torch.manual_seed(0)
    images = torch.rand(1, 1, HEIGHT, width)
    _, lengths, log_probs = create("ctc", "tiny", 5).eval().encode(images, torch.tensor([width]))
    frames = SIZES["tiny"].frames(width)
    assert log_probs.shape == (1, frames, 6) and lengths.tolist() == [frames]
    assert torch.allclose(log_probs.exp().sum(2), torch.ones(1, frames), atol=1e-5)


def test_the_choices_are_named():
    with pytest.raises(ValueError, match="no model 'crnn': choose one of ctc, conv, attention"):
        create("crnn", "tiny", 5)
    with pytest.raises(ValueError, match="no size 'huge': choose one of tiny, small, mid, base"):
        create("ctc", "huge", 5)


# --- padding


@pytest.mark.parametrize("more", [0, 1, 3, 64])
def test_a_line_in_a_padded_batch_has_the_loss_and_reading_that_it_has_alone(model, inks, more):
    images, widths = batch(inks, width=max(ink.shape[1] for ink in inks) + more)
    together, readings = model.losses(images, widths, targets()), model.read(model.encode(images, widths))
    for i, ink in enumerate(inks):
        alone = model.losses(*batch([ink]), targets([TEXTS[i]]))
        assert together[i].item() == pytest.approx(alone.item(), rel=1e-4)
        (reading,) = model.read(model.encode(*batch([ink])))
        assert readings[i].labels == reading.labels
        assert readings[i].confidence == pytest.approx(reading.confidence, rel=1e-3)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_training_does_not_see_the_padding_either(name, inks):
    torch.manual_seed(0)
    reader = create(name, "tiny", len(ALPHABET), dropout=0.0).train()
    torch.manual_seed(1)  # of the wrong labels that the decoder is given
    tight = reader.losses(*batch(inks), targets())
    torch.manual_seed(1)
    loose = reader.losses(*batch(inks, width=max(ink.shape[1] for ink in inks) + 40), targets())
    torch.testing.assert_close(loose, tight, rtol=1e-4, atol=1e-4)


def test_logits_do_not_see_the_padding(inks):
    torch.manual_seed(0)
    reader = create("ctc", "tiny", len(ALPHABET)).eval()
    _, lengths, together = reader.encode(*batch(inks))
    for i, ink in enumerate(inks):
        _, (length,), alone = reader.encode(*batch([ink]))
        assert length == lengths[i]
        torch.testing.assert_close(together[i, :length], alone[0], rtol=1e-4, atol=1e-4)


def test_lines_of_very_different_widths_are_read_as_alone(model):
    rng = np.random.default_rng(0)
    odd = [rng.integers(0, 255, (HEIGHT, width), np.uint8) for width in (16, 17, 1500, 90)]
    for ink, reading in zip(odd, model.read(model.encode(*batch(odd))), strict=True):
        assert model.read(model.encode(*batch([ink])))[0].labels == reading.labels


def test_a_narrow_image_is_read_and_trains(model):
    images, widths = batch([np.full((HEIGHT, 16), 200, np.uint8)])
    losses = model.train().losses(images, widths, [[[1, 2]]])
    losses.sum().backward()
    assert losses.isfinite().all() and len(model.eval().read(model.encode(images, widths))) == 1


# --- targets that do not fit


@pytest.mark.parametrize("target", [[1] * 30, list(range(1, 6)), [1, 1, 2]], ids=["long", "one more", "doubled"])
def test_a_target_that_does_not_fit_is_infinite_and_teaches_nothing_wrong(inks, target):
    """16 pixels are four frames; a pair of equal labels needs a blank between."""
    torch.manual_seed(0)
    reader = create("ctc", "tiny", len(ALPHABET), dropout=0.0)
    images, widths = batch([inks[0][:, :16], inks[1]])
    losses = reader.losses(images, widths, [[target], targets()[1]])
    fits = SIZES["tiny"].frames(16) >= len(target) + sum(a == b for a, b in itertools.pairwise(target))
    assert losses[0].isinf() == (not fits) and losses[1].isfinite()
    losses.sum().backward()
    grads = [parameter.grad for parameter in reader.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    if not fits:
        expected = create("ctc", "tiny", len(ALPHABET), dropout=0.0)
        expected.load_state_dict(reader.state_dict())
        expected.losses(images, widths, [[target], targets()[1]])[1].backward()
        for grad, parameter in zip(grads, expected.parameters(), strict=True):
            torch.testing.assert_close(grad, parameter.grad)


def test_the_attention_reader_still_learns_from_a_target_too_dense_for_ctc(inks):
    torch.manual_seed(0)
    reader = create("attention", "tiny", len(ALPHABET))
    losses = reader.losses(*batch([inks[0][:, :16], inks[1]]), [[[1] * 30], targets()[1]])
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(p.grad.isfinite().all() for p in reader.parameters() if p.grad is not None)


def test_decoding_label_by_label_equals_teacher_forcing(inks):
    """Greedy decoding step by step against one pass over its own result: the same labels, as sure of each."""
    torch.manual_seed(0)
    reader = create("attention", "tiny", len(ALPHABET)).eval()
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.add_(0.08 * torch.randn_like(parameter))
        images, widths = batch(inks)
        frames_of = reader.encode(images, widths)
        memory = reader.decoder.encode_memory(*frames_of)
        readings = reader.decoder.greedy(memory)
        assert max(len(reading.labels) for reading in readings) > 5
        for i, reading in enumerate(readings):
            logits, _ = reader.decoder(memory.of(torch.tensor([i])), torch.tensor([[*reading.labels, EOS]]))
            probs, labels = logits[0].softmax(1).max(1)
            size = len(reading.labels)
            assert labels[:size].tolist() == reading.labels
            assert reading.probs == pytest.approx(probs[:size].tolist(), rel=1e-3)
            if size < SIZES["tiny"].frames(int(widths[i])):  # it ended by itself
                assert labels[size] == EOS


def test_labels_are_counted_at_the_peaks_of_ctc():
    """a _ b b _ b: the same label once more is another one after a blank; a doubtful one counts half."""
    labels = torch.tensor([[1, 0, 2, 2, 0, 2, 0]])
    probs = torch.nn.functional.one_hot(labels, 4).double()
    assert label_counts(probs.log())[0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 1.5, 2, 2.5])
    probs[0, 5, [0, 2]] = 0.5
    assert label_counts(probs.log())[0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 1.5, 1.75, 2])
    longer = torch.cat([probs, torch.rand(1, 5, 4).softmax(2)], 1)
    assert torch.equal(label_counts(longer.log())[:, :7], label_counts(probs.log()))


def test_where_bits_are_to_be_the_same_labels_are_counted_on_the_cpu(monkeypatch):
    log_probs, asked = torch.rand(2, 7, 4).log_softmax(2), []
    counts = label_counts(log_probs)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: asked.append(tensor.shape) or tensor)
    for same_bits in (False, True):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda same_bits=same_bits: same_bits)
        assert torch.equal(label_counts(log_probs), counts) and asked == [(2, 7)] * same_bits


def test_a_decoder_looks_where_ctc_has_the_label_before_it_has_learnt_anything():
    torch.manual_seed(0)
    decoder = Decoder(32, 5).eval()
    labels = torch.arange(1, 41) % 5 + 1
    frames = torch.stack([labels, torch.zeros_like(labels)], 1).flatten()[None]  # each label, then a blank
    log_probs = torch.nn.functional.one_hot(frames, 6).double().log()
    memory = decoder.encode_memory(torch.randn(1, 80, 32), torch.tensor([80]), log_probs)
    _, attended = decoder(memory, torch.cat([labels, torch.tensor([EOS])])[None])
    far = (attended[0, :40].argmax(1) - 2 * torch.arange(40)).abs()
    assert far.max() <= 8, "the first head is to look within four labels of CTC's"
    decoder.precisions.zero_()
    _, attended = decoder(memory, torch.cat([labels, torch.tensor([EOS])])[None])
    assert (attended[0, :40].argmax(1) - 2 * torch.arange(40)).abs().max() > 20


# --- several accepted texts, several lines


@pytest.mark.parametrize("name", ["ctc", "conv"])
def test_accepted_texts_are_taken_together(name, inks):
    """As probable as either of them: the sum of both."""
    torch.manual_seed(0)
    reader = create(name, "tiny", len(ALPHABET), dropout=0.0)
    one, other = [ALPHABET.encode("AVC")], [ALPHABET.encode("chute")]
    frames_of = reader.encode(*batch(inks[:1]))
    both, first, second = (
        ctc_losses(frames_of.log_probs, frames_of.lengths, [texts]) for texts in (one + other, one, other)
    )
    assert both.item() == pytest.approx(-torch.logsumexp(torch.cat([-first, -second]), 0).item(), rel=1e-5)
    too_long = [[1] * 999]
    assert ctc_losses(frames_of.log_probs, frames_of.lengths, [one + too_long]).item() == pytest.approx(first.item())
    assert ctc_losses(frames_of.log_probs, frames_of.lengths, [too_long + too_long]).isinf().all()


def test_an_attention_decoder_learns_the_likeliest_of_the_accepted_texts(inks):
    torch.manual_seed(0)
    reader = create("attention", "tiny", len(ALPHABET), dropout=0.0)
    accepted = [ALPHABET.encode("AVC"), ALPHABET.encode("infarctus du myocarde")]
    features, lengths, _ = reader.encoder(*batch(inks[:1]))
    losses = [ctc_losses(reader.head(features), lengths, [[text]]).item() for text in accepted]
    for texts in (accepted, accepted[::-1]):
        assert reader.likeliest(reader.head(features), lengths, [texts]) == [accepted[int(np.argmin(losses))]]


def test_a_field_is_its_lines_one_after_the_other(model, inks):
    """One text for two lines: as if their frames were those of one line; and a batch may hold both kinds."""
    images, widths = batch(inks[:3])
    wanted = [[ALPHABET.encode("AVC choc septique")], [ALPHABET.encode("grippe")]]
    together = model.losses(images, widths, wanted, [2, 1])
    alone = model.losses(images[:2], widths[:2], wanted[:1], [2]), model.losses(images[2:], widths[2:], wanted[1:])
    assert together.tolist() == pytest.approx([alone[0].item(), alone[1].item()], rel=1e-4)
    frames_of = model.encode(images[:2], widths[:2])
    joined, (length,) = concat_lines(frames_of.log_probs, frames_of.lengths, [2])
    first, second = frames_of.lengths.tolist()
    assert length == first + second
    assert torch.equal(joined[0, first:], frames_of.log_probs[1, :second])
    swapped = model.losses(images[:2].flip(0), widths[:2].flip(0), wanted[:1], [2])
    assert swapped.item() != pytest.approx(alone[0].item(), rel=1e-4)  # the order matters


def test_a_blank_line_has_an_empty_text(model, inks):
    images, widths = batch([inks[0] * 0, inks[1]])
    losses = model.train().losses(images, widths, [[[]], targets()[1]])
    losses.sum().backward()
    assert losses.isfinite().all() and losses[0] > 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# --- the folder of a reader


@pytest.fixture
def folder(tmp_path, model, request) -> Path:
    name = request.node.callspec.params["model"]
    for file, content in files_of(model, ALPHABET, name, "tiny", step=123).items():
        (tmp_path / file).write_bytes(content)
    return tmp_path


def test_a_reader_comes_back_from_its_folder(folder, model, draw):
    lines = [draw(text, height) for text, height in zip(TEXTS, (20, 90, 64, 40, 30, 64, 33, 50), strict=True)]
    lines = Lines([*lines, np.full((1, 1), 255, np.uint8)])  # as cut from a scan, whatever comes of it
    before = Reader(model, ALPHABET, {}).read(lines)
    reader = Reader.load(folder)
    assert reader.read(lines) == before == reader.read(lines)
    assert reader.config["step"] == 123 and reader.charset == ALPHABET and not reader.model.training
    one_by_one = reader.read(lines, batch=1)  # nor does it hang on what shares its batch
    assert [text.text for text in one_by_one] == [text.text for text in before]
    assert len({text.text for text in before}) > 1 and reader.read([]) == []


def rewrite(name: str, change) -> callable:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def configured(**more) -> callable:
    return rewrite("config.json", lambda content: json.dumps(json.loads(content) | more).encode())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "weights.safetensors").unlink(), "no model here"),
        (lambda folder: (folder / "config.json").unlink(), "no model here"),
        (rewrite("weights.safetensors", lambda content: content[:-100]), "not a model"),
        (rewrite("weights.safetensors", lambda content: content[:20]), "not a model"),
        (rewrite("weights.safetensors", lambda _: b""), "not a model"),
        (
            rewrite("weights.safetensors", lambda content: content.replace(b"head.weight", b"head.WEIGH_")),
            "not a model",
        ),
        (rewrite("config.json", lambda content: content[:-10]), "not a model"),
        (rewrite("config.json", lambda _: b"[]"), "not a model"),
        (rewrite("config.json", lambda _: b"\xff\xfe"), "not a model"),
        (configured(format=3), "format 3, this code reads 1 to 2"),
        (configured(charset="abc"), "not a model"),
        (configured(charset=""), "not a model"),
        (configured(encoder=SIZES["small"].to_json()), "not a model"),
        (configured(model="crnn"), "choose one of ctc, conv, attention"),
    ],
)
@pytest.mark.parametrize("model", ["ctc"], indirect=True)
def test_a_folder_that_holds_no_reader(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as error:
        Reader.load(folder)
    assert str(error.value).startswith(f"{folder}: ")


# --- golden losses


@pytest.mark.parametrize("name", sorted(MODELS))
def test_thirty_steps_reproduce_the_losses_that_are_written_down(name, inks):
    torch.manual_seed(17)
    reader = create(name, "tiny", len(ALPHABET), dropout=0.0).train()
    # a large eps: Adam's usual one turns the last bit of a gradient near zero, another on every CPU, into a whole step
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-3, eps=1e-2)
    halves = [(batch(inks[start::2]), targets(TEXTS[start::2])) for start in (0, 1)]
    losses = []
    for step in range(1, 31):
        (images, widths), wanted = halves[step % 2]
        loss = reader.losses(images, widths, wanted).sum() / sum(len(text) for (text,) in wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.exists() else {}
    if os.environ.get("HTR_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(golden | {name: losses}, indent=1, sort_keys=True) + "\n")
    else:
        assert losses == pytest.approx(golden[name], rel=3e-3)  # kinds of CPU differ by 6e-4
