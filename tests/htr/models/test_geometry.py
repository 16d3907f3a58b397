"""Models of other heights and strides beside each other: each knows its own, in memory and in its folder."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from htr.charset import Charset
from htr.models.encoder import RECURRENT_STRIDES, SIZES, EncoderConfig
from htr.models.registry import MODELS, create, encoder_config
from htr.reader import Reader, files_of
from htr.types import LineGeometry
from jobs.training.weight_init import start_from

ALPHABET = Charset("abcdefgh ")
FINE = {"height": 64, **RECURRENT_STRIDES[4]}


def model_of(name: str = "ctc", **changes) -> torch.nn.Module:
    """Off its initial zeros, so that it reads more than blanks."""
    torch.manual_seed(0)
    model = create(name, encoder_config(name, "tiny", **changes), len(ALPHABET)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def save(folder: Path, model: torch.nn.Module, name: str = "ctc") -> Path:
    folder.mkdir(parents=True)
    for file, content in files_of(model, ALPHABET, name, "tiny", 3).items():
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize("stride", sorted(RECURRENT_STRIDES))
@pytest.mark.parametrize("width", [16, 17, 333])
def test_the_geometry_says_how_wide_frames_are(stride, width):
    config = encoder_config("ctc", "tiny", height=64, **RECURRENT_STRIDES[stride])
    assert config.step == stride and config.geometry == LineGeometry(64, 4)
    model = create("ctc", config, 5).eval()
    _, lengths, log_probs = model.encode(torch.rand(1, 1, 64, width), torch.tensor([width]))
    assert log_probs.shape[1] == lengths.item() == config.frames(width)
    assert 0 <= 4 * config.frames(width) - width < stride and model.geometry == config.geometry


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_fine_model_does_not_see_padding_and_learns(name):
    model = model_of(name, dropout=0.0, **FINE)
    images, widths = torch.rand(2, 1, 64, 120), torch.tensor([120, 61])
    images[1, :, :, 61:] = 0
    losses = model.losses(images, widths, [[[1, 2, 2]], [[3]]])
    alone = model.losses(images[1:, :, :, :61], widths[1:], [[[3]]])
    assert losses[1].item() == pytest.approx(alone.item(), rel=1e-4)
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_models_of_two_heights_read_in_one_process(tmp_path, draw):
    tall, low = (save(tmp_path / n, model_of(**c)) for n, c in (("tall", FINE), ("low", {})))
    readers = [Reader.load(folder) for folder in (tall, low)]
    assert [reader.geometry.height for reader in readers] == [64, 48]
    lines = [draw(text, 90) for text in ("grippe", "AVC", "choc septique")]
    together = [reader.read(lines, boxes=True) for reader in (*readers, *readers)]
    assert together[:2] == together[2:] and together[0] != together[1]
    for reader, texts, height in zip(readers, together, (64, 48), strict=False):
        for line, text in zip(lines, texts, strict=True):
            wide = reader.model.encoder.config.frames(round(line.shape[1] * height / 90))
            assert text.signals["width"] == pytest.approx(4 * wide / max(len(text.text), 1))
            edges = [box.left for box in text.characters] + [box.right for box in text.characters]
            assert all(0 <= edge <= line.shape[1] for edge in edges)


def test_a_box_is_where_the_frames_are_whatever_the_height():
    from htr.decoding.align import align, character_boxes

    probs = np.log(np.full((24, 3), 0.02) + 0.94 * np.eye(3)[[0] * 6 + [1] + [0] * 8 + [2] + [0] * 8])
    found = align(probs, [1, 2])
    for geometry in (LineGeometry(48, 4), LineGeometry(64, 4), LineGeometry(64, 8)):
        shape = (2 * geometry.height, 2 * 24 * geometry.frame)  # the stored image is twice what the model sees
        first, second = character_boxes(found, "ab", shape, geometry)
        assert first.right == second.left == 2 * geometry.frame * 11


# --- folders


def test_format_2_holds_every_value_and_comes_back(tmp_path):
    config = json.loads((save(tmp_path / "m", model_of(**FINE)) / "config.json").read_text(encoding="utf-8"))
    expected = encoder_config("ctc", "tiny", **FINE)
    assert config["format"] == 2 and EncoderConfig.from_json(config["encoder"]) == expected
    assert set(config["encoder"]) == {*EncoderConfig.__dataclass_fields__, "frame"} and config["encoder"]["frame"] == 4


@pytest.mark.parametrize("name", sorted(MODELS))
def test_format_1_is_still_read(tmp_path, name, draw):
    folder = save(tmp_path / "m", model_of(name), name)
    now = Reader.load(folder).read([draw("grippe")])
    old = {"format": 1, "model": name, "size": "tiny", "alphabet": ALPHABET.characters, "writes": "as written"}
    (folder / "config.json").write_text(json.dumps(old))
    reader = Reader.load(folder)
    assert reader.geometry == LineGeometry(48, 4) and reader.read([draw("grippe")]) == now


OF_FORMAT_1 = [  # log-probabilities of every eighth frame, as the code of format 1 gave them for these weights
    [-8.589, -4.09, -8.883, -6.841, -3.75, -6.124, -0.045, -8.749],
    [-8.577, -4.094, -8.823, -6.846, -3.723, -6.131, -0.046, -8.716],
    [-8.473, -4.093, -8.682, -6.845, -3.696, -6.129, -0.046, -8.642],
    [-8.558, -4.063, -8.69, -6.798, -3.684, -6.066, -0.047, -8.635],
    [-8.527, -4.058, -8.632, -6.791, -3.67, -6.055, -0.048, -8.593],
    [-8.532, -4.056, -8.555, -6.787, -3.683, -6.051, -0.048, -8.616],
]


def test_a_model_of_format_1_gives_the_frames_that_it_gave(tmp_path):
    def weights(number: int, shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        values = (torch.arange(count, dtype=torch.float64) * 7919 + 104729 * number) % 1009 / 504 - 1
        return (values * math.sqrt(3 / max(count // shape[0], 1))).float().reshape(shape)

    def then(name: str) -> str:  # the weights' names of format 1, by whose order they were made
        return name.replace("sequence_layers.", "along.").replace("cnn_norm.", "columns_norm.")

    shapes = {then(name): tuple(value.shape) for name, value in create("ctc", "tiny", 7).state_dict().items()}
    made = {name: weights(number, shapes[name]) for number, name in enumerate(sorted(shapes))}
    save_file(made, tmp_path / "weights.safetensors", {"step": "7"})
    old = {"format": 1, "model": "ctc", "size": "tiny", "alphabet": "abcdefg", "writes": "as written"}
    (tmp_path / "config.json").write_text(json.dumps(old))
    ink = (torch.arange(48 * 200) * 31 % 257).clamp(0, 255) * (torch.arange(48 * 200) % 7 < 3)
    frames = Reader.load(tmp_path).encode(ink.to(torch.uint8).reshape(1, 1, 48, 200), torch.tensor([190]))
    assert frames.log_probs.shape == (1, 50, 8) and frames.lengths.tolist() == [48]
    torch.testing.assert_close(frames.log_probs[0, 3:47:8], torch.tensor(OF_FORMAT_1), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown key colour; this code knows format, model"),
        ({"encoder": {"heigth": 64}}, "encoder: unknown key heigth; this code knows channels"),
        ({"encoder": {"height": None}}, "encoder: height None: give whole px, 16 to 256"),
        ({"encoder": {"height": 4000}}, "encoder: height 4000: give whole px"),
        ({"encoder": {"strides": [[2, 2], [2, 2], [2, 1]]}}, "encoder: strides .*: give four pairs"),
        ({"encoder": {"strides": [[2, 2], [2, 2], [2, 1], [2, 1]]}}, "frame 4, its strides make frames of 2 px"),
        ({"encoder": {"channels": [16, 32, 64, 0]}}, "encoder: channels .*: give four whole numbers"),
        ({"encoder": {"hidden": 1.5}}, "encoder: hidden 1.5: give a whole number"),
        ({"encoder": 3}, "encoder: its values by name are needed"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_clear_error(tmp_path, change, message):
    folder = save(tmp_path / "m", model_of())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if isinstance(change.get("encoder"), dict):
        change = {"encoder": config["encoder"] | change["encoder"]}
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message) as error:
        Reader.load(folder)
    assert str(error.value).startswith(f"{folder}: ")


def test_a_value_that_lacks_is_named():
    values = SIZES["tiny"].to_json()
    del values["layers"]
    with pytest.raises(ValueError, match="encoder: no layers"):
        EncoderConfig.from_json(values)


def test_weights_of_another_geometry_are_taken_as_far_as_they_fit(tmp_path):
    old = model_of()
    model = model_of(**FINE)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    said = start_from(model, ALPHABET, save(tmp_path / "old", old))
    for name, weight in model.state_dict().items():
        given = old.state_dict().get(name)
        fits = given is not None and given.shape == weight.shape
        assert torch.equal(weight, given if fits else before[name]), name
    assert not torch.equal(model.head.weight[:, :96], old.head.weight) and "weights taken" in said


def test_a_split_or_a_size_can_be_changed_alone():
    assert replace(SIZES["tiny"], split=False).geometry == LineGeometry(48, 8)
