"""Weights of another run: every part that fits, characters by name, and what has nothing in common is refused."""

from dataclasses import replace

import pytest
import torch

from htr.charset import Charset
from htr.models.encoder import SIZES
from htr.models.registry import create
from htr.reader import files_of
from jobs.training.weight_init import start_from

OLD, NEW = Charset("abcé"), Charset("bcdéœ")


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    model = create("ctc", "tiny", len(OLD))
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    for name, content in files_of(model, OLD, "ctc", "tiny", 5).items():
        (folder / name).write_bytes(content)
    return folder.parent, model


@pytest.mark.parametrize("kind", ["ctc", "attention"])
def test_encoder_and_known_characters_are_taken(run, kind):
    folder, old = run
    torch.manual_seed(1)
    model = create(kind, "tiny", len(NEW))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    assert "2 of 5 characters are new" in start_from(model, NEW, folder)
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, old.encoder.state_dict()[name]), name
    for label, character in enumerate(" " + NEW.characters):
        ours = model.head.weight[label]
        if character == " " or character in OLD.labels:
            assert torch.equal(ours, old.head.weight[0 if character == " " else OLD.labels[character]])
        else:
            assert torch.equal(ours, before["head.weight"][label])


def test_a_matrix_of_as_many_rows_as_there_are_labels_is_taken_as_it_is(tmp_path):
    """Size tiny has 96: with 95 characters only names tell a row a label from others."""
    charsets = [Charset(map(chr, range(first, first + 95))) for first in (0x100, 0x102)]
    old, model = (create("attention", "tiny", len(charset)) for charset in charsets)
    for name, content in files_of(old, charsets[0], "attention", "tiny", 5).items():
        (tmp_path / name).write_bytes(content)
    before, given = {name: weight.clone() for name, weight in model.state_dict().items()}, old.state_dict()
    start_from(model, charsets[1], tmp_path)
    rows = [name for name, weight in given.items() if not torch.equal(model.state_dict()[name], weight)]
    assert set(rows) == {
        *(f"{part}.{name}" for part in ("head", "auxiliary", "decoder.output") for name in ("weight", "bias")),
        "decoder.embedding.weight",
    }
    for name in rows:  # label 0, the 93 that both have, two new ones
        now = model.state_dict()[name]
        assert torch.equal(now[0], given[name][0]) and torch.equal(now[1:94], given[name][3:])
        assert torch.equal(now[94:], before[name][94:])


def test_a_model_folder_will_do_and_a_conv_reader_takes_the_convolutions(run):
    folder, old = run
    model = create("conv", "tiny", len(NEW))
    start_from(model, NEW, folder / "model")
    assert torch.equal(model.encoder.stem.weight, old.encoder.stem.weight)


def test_another_size_has_nothing_in_common_with_it(run, tmp_path):
    with pytest.raises(ValueError, match="give the size of its encoder, --size tiny"):
        start_from(create("ctc", "large", len(NEW)), NEW, run[0])
    config = SIZES["tiny"]  # its stem alone fits: no start
    with pytest.raises(ValueError, match="of this model's convolutions fit"):
        start_from(create("ctc", replace(config, channels=(config.channels[0], 24, 40, 48)), len(NEW)), NEW, run[0])
    with pytest.raises(ValueError, match="no model here"):
        start_from(create("ctc", "tiny", len(NEW)), NEW, tmp_path)
