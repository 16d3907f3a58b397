"""ONNX: the exported reader reads like the one that it was made of, by a program without torch, or there is no file."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bed import PATIENT_S

from htr.charset import Charset
from htr.decoding.greedy import greedy
from htr.lines.normalise import normalise_line
from htr.models.encoder import SIZES
from htr.models.registry import create
from htr.reader import Reader, files_of
from jobs import export
from jobs.cli.command_line import parse

for name in export.NEEDED:
    pytest.importorskip(name, reason=f"the extra onnx is not installed: {name} is missing")

CHECKOUT = Path(__file__).parents[2]
ALPHABET = Charset(" abcdefghijklmnopqrstuvwxyzéè'")


@pytest.fixture(scope="module", autouse=True)
def few_blocks():
    """The exporter's time goes with the number of layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", replace(SIZES["tiny"], blocks=(0, 0, 0, 1), layers=1))
        yield


def save(folder: Path, model: str) -> Path:
    torch.manual_seed(0)
    network = create(model, "tiny", len(ALPHABET)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # off their initial zeros; and it reads more than blanks
    folder.mkdir(parents=True)
    for name, content in files_of(network, ALPHABET, model, "tiny", 7).items():
        (folder / name).write_bytes(content)
    return folder


def run(model: Path, out: Path) -> int:
    run_verb, config = parse(["export", "--model", str(model), "--out", str(out)])
    return run_verb(config)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """-> a model's folder, its ONNX file."""
    folder = tmp_path_factory.mktemp("export")
    model = save(folder / "model", "ctc")
    assert run(model, folder / "out" / "reader.onnx") == 0
    assert [path.name for path in (folder / "out").iterdir()] == ["reader.onnx"]
    return model, folder / "out" / "reader.onnx"


def test_its_metadata_say_how_to_read_with_it(exported):
    import onnxruntime

    known = onnxruntime.InferenceSession(exported[1]).get_modelmeta().custom_metadata_map
    assert known.pop("writes", None)
    assert known == {
        "alphabet": f'"{ALPHABET.characters}"',
        "model": "ctc",
        "size": "tiny",
        "step": "7",
        "blank": "0",
        "height": "48",
        "frame": "4",
        "width_multiple": "8",
        "ink": "255",
        "paper": "0",
    }


def test_the_lines_of_the_help_read_an_image_without_torch(exported, tmp_path, draw):
    model, onnx = exported
    image = draw("grippe et fièvre")
    cv2.imwrite(str(tmp_path / "line.png"), image)
    lines = export.__doc__.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("    import"))
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(line[4:] for line in lines[first:])
    (tmp_path / "reader.onnx").symlink_to(onnx)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": ":".join([str(CHECKOUT), *sys.path])},
        capture_output=True, text=True, timeout=PATIENT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [expected] = Reader.load(model).read([image])
    assert done.stdout.removesuffix("\n") == expected.text and expected.text


def test_a_model_without_recurrence(tmp_path):
    assert run(save(tmp_path / "model", "conv"), tmp_path / "reader.onnx") == 0


def test_attention_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'attention'.*only CTC readers"):
        run(save(tmp_path / "model", "attention"), tmp_path / "reader.onnx")
    assert not (tmp_path / "reader.onnx").exists()


def test_another_model_does_not_pass_the_check(exported, tmp_path):
    from htr.export import check

    reader = Reader.load(exported[0])
    with torch.no_grad():
        reader.model.head.bias[3] += 0.5
    with pytest.raises(ValueError, match="probabilities differ by"):
        check(exported[1].read_bytes(), reader)


def test_what_fails_the_check_is_not_written(exported, tmp_path, monkeypatch):
    from htr import export as maker

    monkeypatch.setattr(maker, "to_onnx", lambda reader: exported[1].read_bytes())
    other = save(tmp_path / "model", "ctc")
    weights = Reader.load(other)
    with torch.no_grad():
        weights.model.head.bias += torch.linspace(0, 1, len(ALPHABET) + 1)
    for name, content in files_of(weights.model, ALPHABET, "ctc", "tiny", 7).items():
        (other / name).write_bytes(content)
    with pytest.raises(ValueError, match="probabilities differ by"):
        run(other, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("*out.onnx*"))


def test_what_is_no_model_is_one_clear_error(exported):
    from htr.export import check

    with pytest.raises(ValueError, match="the ONNX model is not usable"):
        check(exported[1].read_bytes()[:1000], Reader.load(exported[0]))


def test_readings_are_the_same(exported, draw):
    from htr.export import check, open_session, padded

    reader = Reader.load(exported[0])
    agreed = check(exported[1].read_bytes(), reader)
    assert agreed.difference < 1e-3 and agreed.alike >= agreed.lines - 1
    inks = [normalise_line(draw(text), reader.geometry.height) for text in ("grippe", "infarctus du myocarde", "AVC")]
    images, widths = padded(inks, 8)
    log_probs, lengths = open_session(exported[1].read_bytes()).run(None, {"images": images, "widths": widths})
    ours = reader.read_batch(torch.from_numpy(images), torch.from_numpy(widths))
    theirs = greedy(torch.from_numpy(log_probs), torch.from_numpy(lengths))
    assert [text.text for text in ours] == [ALPHABET.decode(reading.labels) for reading in theirs]


def test_the_check_sees_every_width_and_a_padded_batch():
    from htr.export import padded, some_lines

    inks = some_lines(np.random.default_rng(0), 48)
    images, widths = padded(inks, 8)
    assert (
        images.shape[3] % 8 == 0 and len(set(widths.tolist())) == len(inks) and not images[0, :, :, widths[0] :].any()
    )


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("onnx", "onnx_that_nobody_has"))
    with pytest.raises(ValueError, match=r"export needs onnx_that_nobody_has: pip install -e '\.\[onnx\]'"):
        run(tmp_path, tmp_path / "reader.onnx")
