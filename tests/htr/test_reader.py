"""A reader and its decoders, on a model whose frames are written in the image: texts, signals, boxes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from htr.charset import Charset
from htr.decoding.beam import BeamHypothesis, ScoreWeights, SearchLimits
from htr.decoding.decoder import BeamDecoder, GreedyDecoder, files_of, rescore, with_general
from htr.decoding.greedy import greedy
from htr.decoding.language import train_by_field, train_language_model
from htr.decoding.signals import (
    agreement,
    confidence,
    known,
    likelihoods,
    of_frames,
    of_words,
    shares,
    word_shares,
    words_of,
)
from htr.models.registry import MODELS, create
from htr.reader import Prediction, Reader, weights_of
from htr.reader import files_of as files_of_model
from htr.types import EncoderOutput, Hypothesis, LineGeometry

ALPHABET = Charset("abcé ")
CTC_ALONE = ScoreWeights(0, 0, 0)
HEIGHT = 48  # px of the test's lines
FRAME, TONE = 4, 40  # a frame's columns; the ink of label 1, twice that of label 2, and so on


class Written(nn.Module):
    """Reads the ink of every fourth column as a label, with the probability 0.9; the rest goes to the next label."""

    geometry = LineGeometry(HEIGHT, FRAME)

    def __init__(self, sure: float = 0.9):
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(sure), requires_grad=False)

    def encode(self, images: torch.Tensor, widths: torch.Tensor) -> EncoderOutput:
        labels = (images[:, 0, 0, ::FRAME] * 255 / TONE).round().long()
        probs = torch.full((*labels.shape, len(ALPHABET) + 1), 1e-4)
        probs.scatter_(2, ((labels + 1) % (len(ALPHABET) + 1))[..., None], 1 - float(self.sure))
        probs.scatter_(2, labels[..., None], float(self.sure))
        return EncoderOutput(probs, widths // FRAME, (probs / probs.sum(2, keepdim=True)).log())

    def read(self, frames: EncoderOutput) -> list[Hypothesis]:
        return greedy(frames.log_probs, frames.lengths)


class WithDecoder(Written):
    """Has a decoder that reads `text` whatever is there, and is all but sure of it."""

    def __init__(self, text: str):
        super().__init__(0.6)
        self.text = ALPHABET.encode(text)

    def read(self, frames: EncoderOutput) -> list[Hypothesis]:
        return [Hypothesis(self.text, 0.8)] * len(frames.lengths)

    def score(self, frames: EncoderOutput, candidates: list[list[list[int]]]) -> list[list[float]]:
        return [[-0.1 if text == self.text else -9.0 for text in texts] for texts in candidates]


def written(*paths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ink and widths, as the stream gives them, of lines with these labels in their frames."""
    images = torch.zeros(len(paths), 1, HEIGHT, FRAME * max(map(len, paths)) + 8, dtype=torch.uint8)
    for image, path in zip(images, paths, strict=True):
        image[0, :, : FRAME * len(path)] = torch.tensor(path).repeat_interleave(FRAME) * TONE
    return images, torch.tensor([FRAME * len(path) for path in paths])


def path(text: str) -> list[int]:
    return [0, *(part for label in ALPHABET.encode(text) for part in (label, 0))]


def beam(weights: ScoreWeights = CTC_ALONE, texts: tuple[str, ...] = (), **options) -> BeamDecoder:
    models = {"": train_language_model(texts, 3, ALPHABET.characters)} if texts else {}
    return BeamDecoder(ALPHABET, models, (), weights, **options)


# --- readings and their signals


def test_greedy_and_beam_read_the_same_where_all_is_plain():
    lines = written(path("abc é"), path("b"), [0, 0, 0])
    plain = {"likelihood", "greedy", "least_word", "least_character", "frames", "blank", "width", "length"}
    for decoder, names in ((GreedyDecoder(ALPHABET), plain), (beam(), plain | {"top_share", "agreement"})):
        texts = Reader(Written(0.99), ALPHABET, {}, decoder).read_batch(*lines)
        assert [text.text for text in texts] == ["abc é", "b", ""]
        for text in texts:
            assert set(text.signals) == names and shares_of(text)
            assert text.signals["length"] == len(text.text)
            assert text.confidence == pytest.approx(confidence(text.signals)) and text.confidence > 0.8
            assert text.words == text.characters == []
            assert len(text.word_confidences) == len(text.text.split())
            assert {len(values) for values in text.word_signals.values()} == {len(text.text.split())}
        assert [text.signals["width"] for text in texts] == [FRAME * 11 / 5, FRAME * 3, FRAME * 3]
        assert texts[2].signals["blank"] == pytest.approx(texts[2].signals["frames"]) == pytest.approx(0.99, abs=0.001)


def shares_of(text: Prediction) -> bool:
    """All signals but width and length are 0 to 1."""
    return all(0 <= value <= 1 for name, value in text.signals.items() if name not in ("width", "length"))


def test_an_uncertain_line_is_less_sure_by_every_signal():
    line = written(path("ab ca"))
    for decoder in (None, beam()):
        sure, unsure = (Reader(Written(p), ALPHABET, {}, decoder).read_batch(*line)[0] for p in (0.99, 0.6))
        assert sure.text == unsure.text == "ab ca"
        lower = {name for name, value in unsure.signals.items() if value < sure.signals[name]}
        assert lower == set(sure.signals) - {"agreement", "width", "length"} and unsure.confidence < sure.confidence


def test_a_field_is_read_with_its_own_language():
    line = written(path("a"), path("a"), path("a"))
    general = train_language_model(["a"] * 9, 2, ALPHABET.characters)
    own = train_language_model(["b"] * 999, 2, ALPHABET.characters)
    decoder = BeamDecoder(ALPHABET, with_general({"": general, "Ia": own}), (), ScoreWeights(1.0, 0.0, 0.0))
    reader = Reader(Written(0.6), ALPHABET, {}, decoder)  # what is not a is b
    assert [text.text for text in reader.read_batch(*line, ["Ia", "II", None])] == ["b", "a", "a"]
    assert [text.text for text in reader.read_batch(*line)] == ["a"] * 3
    images = [image[0].numpy() for image in 255 - line[0]]
    with pytest.raises(ValueError, match="3 images and 1 fields"):
        reader.read(images, fields=["Ia"])


def test_a_second_decoder_rescores_the_n_best():
    line = written(path("ab a"))
    model = WithDecoder("ac a")
    plain, rescored = (
        Reader(model, ALPHABET, {}, beam(ScoreWeights(0, 0, 0, delta))).read_batch(*line)[0] for delta in (0, 1)
    )
    assert (plain.text, rescored.text) == ("ab a", "ac a")
    assert rescored.signals["top_share"] > 0.9 and rescored.signals["likelihood"] < plain.signals["likelihood"]
    # the agreement is that of the two greedy readings, whatever is chosen in the end
    assert (
        plain.signals["agreement"] == rescored.signals["agreement"] == agreement(path("ab a")[1::2], model.text) == 0.75
    )
    (alone,) = Reader(model, ALPHABET, {}).read_batch(*line)
    assert alone.text == "ac a" and not {"least_word", "least_character"} & set(alone.signals)
    assert "agreement" in alone.signals and alone.word_confidences is None and alone.word_signals == {}
    n_best = [BeamHypothesis([1], "a", -1.0, -1.0, 0.0, 0), BeamHypothesis([2], "b", -2.0, -2.0, 0.0, 0)]
    assert [h.score for h in rescore(n_best, [-3.0, -1.0], 1.0)] == [-3.0, -4.0]


def test_signals_of_known_cases():
    frames = torch.log(torch.tensor([[[0.2, 0.8], [0.5, 0.5], [0.3, 0.7]]]))
    # "a" once: a--, -a-, --a, aa-, -aa, aaa of three frames
    once = 0.8 * 0.5 * 0.3 + 0.2 * 0.5 * 0.3 + 0.2 * 0.5 * 0.7 + 0.8 * 0.5 * 0.3 + 0.2 * 0.5 * 0.7 + 0.8 * 0.5 * 0.7
    lengths = torch.tensor([3])
    assert likelihoods(frames, lengths, [[1]]) == pytest.approx([once])
    assert likelihoods(frames, lengths, [[1, 1]]) == pytest.approx([math.sqrt(0.8 * 0.5 * 0.7)])
    assert likelihoods(frames, lengths, [[]]) == pytest.approx([0.2 * 0.5 * 0.3])
    assert likelihoods(frames, lengths, [[1, 1, 1]]) == [0.0] and likelihoods(frames, lengths, []) == []
    assert shares([math.log(0.6) - 800, math.log(0.4) - 800]) == pytest.approx([0.6, 0.4])
    assert words_of(" ab  c", [0.1, 0.9, 0.5, 0.2, 0.1, 0.7]) == [0.5, 0.7] and words_of("", []) == []
    assert word_shares(["avc massif", "ave massif"], np.array([0.6, 0.4])) == pytest.approx([0.6, 1.0])
    assert word_shares(["a b", "a c", "a b c"], np.full(3, 1 / 3)) == pytest.approx([1, 2 / 3])
    assert word_shares([""], np.ones(1)) == []
    with pytest.raises(ValueError):
        word_shares([], np.ones(0))
    assert (
        confidence({"greedy": 0.25, "top_share": 1.0}) == 0.5 and confidence({"greedy": 0.0, "top_share": 1.0}) == 0.0
    )
    assert confidence({"greedy": 0.25, "width": 9.0, "frames": 0.1}) == 0.25  # the first five alone


def test_signals_of_frames_and_words():
    probs = torch.tensor([[[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], [[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]])
    first, second = of_frames(probs.log(), torch.tensor([3, 1]), [[1, 1], []], 4)
    assert first == pytest.approx({"frames": 0.7, "blank": 1.1 / 3, "width": 6.0, "length": 2.0})
    assert second == pytest.approx({"frames": 0.9, "blank": 0.9, "width": 4.0, "length": 0.0})  # not its padding
    words = of_words("ab cé", [0.8, 0.4, 0.1, 0.5, 0.7], {"ab", "x"})
    assert words["least_character"] == [0.4, 0.5] and words["mean_character"] == pytest.approx([0.6, 0.6])
    assert words["length"] == [2, 2] and words["known"] == [1, 0] and "known" not in of_words("ab", [1, 1])
    assert known("L'ab, 12", {"ab"}) == pytest.approx(2 / 3) and known("12", {"ab"}) == 1.0


def test_language_and_lexicon_are_signals_where_they_weigh():
    line = written(path("ab ca"))
    models = {"": train_language_model(["ab ca"] * 9, 3, ALPHABET.characters)}
    decoder = BeamDecoder(ALPHABET, models, ("AB",), ScoreWeights(0.5, 0.5, 0.2))
    (text,) = Reader(Written(), ALPHABET, {}, decoder).read_batch(*line)
    score = models[""].score(text.text)
    assert text.text == "ab ca" and text.signals["language"] == pytest.approx(math.exp(score / 6))
    assert text.signals["known"] == 0.5 and text.word_signals["known"] == [1.0, 0.0]
    # nine tenths, and of what is left no label has more than a part
    assert text.signals["least_character"] == pytest.approx(0.9, abs=0.01)
    assert text.word_signals["least_character"] == pytest.approx([0.9, 0.9], abs=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_read_by_every_decoder(name: str):
    torch.manual_seed(0)
    model = create(name, "tiny", len(ALPHABET)).eval()
    images = [np.random.default_rng(i).integers(0, 255, (40, 30 + 50 * i), np.uint8) for i in range(3)]
    for decoder in (None, beam(ScoreWeights(0.5, 0.5, 0.0, 0.5), ("ab", "ca"))):
        reader = Reader(model, ALPHABET, {}, decoder)
        texts = reader.read(images, batch=2, boxes=True)
        assert [text.text for text in texts] == [text.text for text in reader.read(images)]
        for text, image in zip(texts, images, strict=True):
            assert 0 <= text.confidence <= 1 and shares_of(text)
            assert all(0 <= box.left <= box.right <= image.shape[1] for box in text.words + text.characters)
            if text.characters:
                assert "".join(box.text for box in text.characters) == text.text
        assert reader.read([]) == [] and reader.read_batch(*written([0]))[0].confidence <= 1


# --- boxes


class Seen(Written):
    """Reads nothing of the image but its width: the frames are given."""

    def __init__(self, paths: list[list[int]]):
        super().__init__(0.99)
        self.paths = {len(path): path for path in paths}

    def encode(self, images: torch.Tensor, widths: torch.Tensor) -> EncoderOutput:
        inks, widths = written(*(self.paths[int(width) // FRAME] for width in widths))
        return super().encode(inks.float() / 255, widths)


@pytest.mark.parametrize("decoder", [None, beam(emission_delay=8.0)])
def test_boxes_of_words_and_characters(decoder: BeamDecoder | None):
    paths = [path("ab ca") + [0] * 4, path("é") + [0] * 5, [0] * 20]
    images = [np.full((2 * HEIGHT, 2 * FRAME * len(one)), 255, np.uint8) for one in paths]
    for image in images:
        image[0, 0] = 0  # what is blank all over is refused
    reader = Reader(Seen(paths), ALPHABET, {"delay": 0.0}, decoder)
    texts = reader.read(images, boxes=True)
    assert [text.text for text in texts] == ["ab ca", "é", ""]
    first, _, blank = texts
    assert [box.text for box in first.words] == ["ab", "ca"] and blank.words == blank.characters == []
    assert "".join(box.text for box in first.characters) == "ab ca"
    late = 2 * reader.emission_delay  # px of the image, which is twice what the model sees
    # the peaks are at frames 1, 3, 5, 7, 9; neighbours meet in the middle of the blank between them
    assert [box.right for box in first.characters[:-1]] == [2 * FRAME * edge - late for edge in (2.5, 4.5, 6.5, 8.5)]
    assert first.words[0].right == first.characters[1].right and first.words[1].left == first.characters[3].left
    assert all(box.confidence == pytest.approx(0.99, abs=0.01) for box in first.characters)
    assert all(0.5 < box.confidence <= 1 for box in first.words)
    assert first.signals["least_word"] == pytest.approx(min(box.confidence for box in first.words))


def test_delay_is_the_decodings_else_the_models():
    model = Written()
    assert (
        Reader(model, ALPHABET, {}).emission_delay == 0.0
        and Reader(model, ALPHABET, {"delay": 6}).emission_delay == 6.0
    )
    assert Reader(model, ALPHABET, {"delay": 6}, beam(emission_delay=14.0)).emission_delay == 14.0


# --- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model/ and decoding/, tuned for it."""
    torch.manual_seed(0)
    (tmp_path / "model").mkdir()
    for name, content in files_of_model(create("ctc", "tiny", len(ALPHABET)), ALPHABET, "ctc", "tiny", 7).items():
        (tmp_path / "model" / name).write_bytes(content)
    write(tmp_path, ScoreWeights(0.6, 0.5, 0.2, 0.3))
    return tmp_path


def write(folder: Path, weights: ScoreWeights) -> None:
    models = train_by_field([("Ia", "ab c"), ("II", "ca")], 3)
    tuned_for = {"weights": weights_of(folder / "model"), "step": 7}
    (folder / "decoding").mkdir(exist_ok=True)
    for name, content in files_of(models, {"ab", "ça"}, weights, SearchLimits(width=5), 14.0, tuned_for, {}).items():
        (folder / "decoding" / name).write_bytes(content)


def test_a_decoding_folder_comes_back_as_it_was_written(folder: Path):
    reader = Reader.load(folder / "model", decoding=folder / "decoding")
    searches = reader.decoder.searches
    assert (
        reader.emission_delay == 14.0
        and searches.weights == ScoreWeights(0.6, 0.5, 0.2, 0.3)
        and searches.limits.width == 5
    )
    assert set(searches.languages) == {"", "Ia", "II"} and searches.lexicon == {"ab", "ça"}
    assert isinstance(reader.read([255 - 255 * np.eye(40, 200, dtype=np.uint8)])[0], Prediction)
    assert isinstance(Reader.load(folder / "model").decoder, GreedyDecoder)
    write(folder, ScoreWeights(0, 0, 0))
    plain = Reader.load(folder / "model", decoding=folder / "decoding").decoder.searches
    assert not plain.languages and not plain.lexicon  # what has no weight costs no time


def test_what_is_no_decoding_of_this_model_is_an_error(folder: Path):
    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            Reader.load(folder / "model", decoding=folder / "decoding")

    path = folder / "decoding" / "weights.json"
    good = path.read_text(encoding="utf-8")
    note = json.loads(good)
    for change, match in (
        ({"format": 9}, "format 9, this code reads 1"),
        ({"model": {"weights": "0" * 16, "step": 3}}, "tuned for other weights, those of step 3: .* tune again"),
        ({"weights": {"omega": 1.0}}, "not a decoding that can be read"),
        ({"files": {}}, "not a decoding that can be read"),
        ({"limits": note["limits"] | {"width": 0}}, r"no search has these limits: SearchLimits\(width=0"),
        ({"limits": note["limits"] | {"threshold": -1}}, "no search has these limits"),
        ({"weights": {"lm_weight": math.nan}}, r"no search has these weights.*lm_weight=nan.*tune again"),
        ({"best": 0}, "or so few best texts.*, 0"),
    ):
        path.write_text(json.dumps(note | change))
        fails(match)
    path.write_text(good[:40])
    fails("damaged")
    path.write_text(good)
    (folder / "decoding" / "lexicon.txt").write_text("other")
    fails("lexicon.txt is not the one that weights.json was written for")
    (folder / "decoding" / "lexicon.txt").unlink()
    fails("no decoding here .*lexicon.txt is missing.*: run python -m jobs tune")
