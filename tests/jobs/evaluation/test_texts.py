"""The data set of a run is found from any folder, and never mistaken for another one of its name."""

from pathlib import Path

import cv2
import pytest

from jobs.cli.command_line import main
from jobs.evaluation.texts import config_of, dataset_of
from shards.plan import read_note


def made(folder: Path, text: str, draw, write_table) -> Path:
    """A data set of six lines at folder/data."""
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), draw(f"{text} {number}"))
    rows = [{"image": f"{n}.png", "text": f"{text} {n}", "certificate": f"c{n}"} for n in range(6)]
    table = write_table(folder / "lines.csv", rows)
    assert main(["preprocess", str(table), "--out", str(folder / "data"), "--shares", "train=1", "--workers", "1"]) == 0
    return folder / "data"


@pytest.fixture
def places(tmp_path: Path, draw, write_table) -> tuple[Path, Path]:
    """Two folders, each with a data set `data` of its own."""
    for name, text in (("here", "grippe"), ("there", "fracture")):
        made(tmp_path / name, text, draw, write_table)
    return tmp_path / "here", tmp_path / "there"


def test_a_training_knows_its_data_from_everywhere(places, monkeypatch: pytest.MonkeyPatch):
    here, there = places
    monkeypatch.chdir(here)
    assert main(["train", "data", "--config", "smoke-test", "--steps", "1", "--run", "run", "--device", "cpu"]) == 0
    monkeypatch.chdir(there)
    found = dataset_of(config_of(here / "run"))
    assert found.folder == here / "data" and "g" in found.charset.characters


def test_another_data_set_of_the_name_is_refused(places, monkeypatch: pytest.MonkeyPatch):
    """As runs of before have it, whose path is relative."""
    here, there = places
    config = {"folder": "data", "plan": read_note(here / "data")["fingerprint"]}
    monkeypatch.chdir(here)
    assert dataset_of(config).folder == Path("data")
    monkeypatch.chdir(there)
    with pytest.raises(
        ValueError, match=r"there/data is not the data set that the run was trained on .*name the right"
    ):
        dataset_of(config)
    assert dataset_of(config, here / "data").folder == here / "data"
