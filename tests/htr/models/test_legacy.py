"""Weights under the names that they once had are today's weights."""

import json

import pytest
import torch
from format_1 import as_once
from safetensors.torch import load, save

from htr.charset import Charset
from htr.models.legacy import current_names
from htr.models.registry import MODELS, create
from htr.reader import Reader, files_of
from jobs.training import checkpoint
from jobs.training import optimizer as optimizers
from jobs.training.train_step import averaged
from jobs.training.weight_init import start_from

CHARSET = Charset("abcé ")
# some of each network, as they stood in the code that wrote format 1
STOOD = {
    "ctc": ["encoder.along.0.forwards.weight_ih_l0", "encoder.along.0.backwards.bias_hh_l0"],
    "conv": ["encoder.along.0.along.2.weight", "encoder.along.0.across.1.bias", "encoder.along.0.norms.0.weight"],
    "attention": [
        "encoder.along.0.forwards.weight_ih_l0",
        *(f"decoder.layers.1.{name}.weight" for name in ("written", "written_out", "query", "frames", "frames_out")),
        "decoder.layers.1.further.2.bias",
        "decoder.layers.1.norms.0.weight",
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_old_names_become_todays_in_the_same_order(name):
    today = create(name, "tiny", len(CHARSET)).state_dict()
    once = as_once(today)
    assert {*STOOD[name], "encoder.columns_norm.weight"} <= set(once)
    assert not [key for key in STOOD[name] if key in today and ".norms." not in key]
    assert list(current_names(once)) == list(today)
    assert all(weight is today[key] for key, weight in current_names(once).items())
    assert list(current_names(today)) == list(today)
    assert list(current_names({f"module.{key}": 0 for key in once})) == [f"module.{key}" for key in today]


def test_a_weight_under_both_names_is_an_error():
    with pytest.raises(ValueError, match=r"encoder\.cnn_norm\.weight stands there twice"):
        current_names({"encoder.columns_norm.weight": 1, "encoder.cnn_norm.weight": 2})


@pytest.fixture(params=[(name, number) for name in MODELS for number in (1, 2)], ids=lambda p: f"{p[0]}-format-{p[1]}")
def old_folder(request, tmp_path):
    """A model's folder as it was written, and the model: its kind, what is in it."""
    name, number = request.param
    torch.manual_seed(1)
    model = create(name, "tiny", len(CHARSET)).eval()
    content = files_of(model, CHARSET, name, "tiny", 7)
    config = json.loads(content["config.json"])
    if number == 1:
        config = {key: value for key, value in config.items() if key != "encoder"} | {"format": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = save(as_once(load(content["weights.safetensors"])), {"step": "7"})
    (tmp_path / "weights.safetensors").write_bytes(weights)
    return tmp_path, name, model


def test_a_model_written_under_old_names_is_read_and_begun_from(old_folder):
    folder, name, model = old_folder
    reader = Reader.load(folder)
    assert reader.config["step"] == 7
    for key, weight in reader.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[key]), key
    fresh = create(name, "tiny", len(CHARSET))
    start_from(fresh, CHARSET, folder)
    for key, weight in fresh.state_dict().items():
        assert torch.equal(weight, model.state_dict()[key]), key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_checkpoint_written_under_old_names_goes_on(tmp_path, name, optimizer):
    """Model, average and the optimizer's state, which goes by the parameters' order."""

    def made(seed: int):
        torch.manual_seed(seed)
        model = create(name, "tiny", len(CHARSET), dropout=0.0)
        return model, optimizers.create(optimizer, model, 1e-3), averaged(model, 0.9)

    def step(model, taker) -> None:
        torch.manual_seed(5)
        images, widths = torch.rand(2, 1, 48, 96), torch.tensor([96, 80])
        model.losses(images, widths, [[[1, 2]], [[3]]]).mean().backward()
        taker.step()
        taker.zero_grad()

    model, taker, average = made(1)
    step(model, taker)
    average.update_parameters(model)
    state = {"model": as_once(model.state_dict()), "average": as_once(average.state_dict())}
    assert "encoder.columns_norm.weight" in state["model"] and "module.encoder.columns_norm.weight" in state["average"]
    checkpoint.save(tmp_path / "checkpoints", 1, state | {"optimizer": taker.state_dict(), "step": 1}, False)

    saved = checkpoint.load_newest(tmp_path / "checkpoints")
    again, taker_again, average_again = made(2)
    again.load_state_dict(saved["model"])
    taker_again.load_state_dict(saved["optimizer"])
    average_again.load_state_dict(saved["average"])
    assert saved["step"] == 1
    step(model, taker)
    step(again, taker_again)
    for key, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[key]), key
    for key, weight in average_again.state_dict().items():
        assert torch.equal(weight, average.state_dict()[key]), key


def test_a_decoder_of_before_the_bias_reads_and_is_trained_on_as_it_was(tmp_path):
    torch.manual_seed(1)
    model = create("attention", "tiny", len(CHARSET), dropout=0.0).eval()
    model.decoder.precisions.zero_()
    content = files_of(model, CHARSET, "attention", "tiny", 7)
    weights = {key: value for key, value in load(content["weights.safetensors"]).items() if "precisions" not in key}
    (tmp_path / "config.json").write_bytes(content["config.json"])
    (tmp_path / "weights.safetensors").write_bytes(save(weights, {"step": "7"}))
    fresh = create("attention", "tiny", len(CHARSET))
    assert fresh.decoder.precisions.any()
    start_from(fresh, CHARSET, tmp_path)
    average = averaged(create("attention", "tiny", len(CHARSET)), 0.9)
    average.load_state_dict(
        {"n_averaged": torch.tensor(3)} | {f"module.{key}": value for key, value in weights.items()}
    )
    for reader in (Reader.load(tmp_path).model, fresh, average.module):
        assert not reader.decoder.precisions.any()
    images, widths = torch.rand(2, 1, 48, 96), torch.tensor([96, 80])
    losses = [reader.eval().losses(images, widths, [[[1, 2]], [[3]]]) for reader in (model, average.module)]
    assert torch.equal(*losses)
