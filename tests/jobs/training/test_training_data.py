"""What a training reads: several data sets by weight, blank fields, another column's texts, and what is refused."""

import json
from pathlib import Path

import pytest

from jobs.training.config import DataConfig
from jobs.training.data import TrainingData, parse_mix
from shards.plan import Settings
from shards.sampler import Weight

ALL = Settings(shares={"train": 1.0})


def asked(dataset: Path, **more) -> DataConfig:
    return DataConfig(dataset=dataset, **more)


@pytest.fixture
def other(tmp_path, source, build, write_table) -> Path:
    rows = [
        {"image": "c00-Ia.png", "text": f"ŷ{i}", "certificate": f"d{i}", "field": "Ia", "typed": f"ÿ{i}"}
        for i in range(3)
    ]
    return build(tmp_path / "other", write_table(source.parent / "other.csv", rows), ALL).folder


def test_one_data_set_is_its_lines(dataset):
    training_data = TrainingData.open(asked(dataset.folder))
    assert len(training_data.samples) == dataset.lines["train"] and training_data.weights == [Weight(1.0, 1.0)]
    assert training_data.charset == dataset.charset and training_data.fingerprint == dataset.fingerprint
    assert len(training_data.dev) == dataset.lines["dev"]
    text = training_data.samples.read(0)[1]
    assert training_data.encode(text) == [training_data.charset.encode(text)]


def test_data_sets_are_mixed_by_weight(dataset, other):
    training_data = TrainingData.open(asked(dataset.folder, mix=[f"{other}=0.5:0.1"]))
    assert training_data.samples.counts == [dataset.lines["train"], 3]
    assert training_data.weights == [Weight(1.0, 1.0), Weight(0.5, 0.1)]
    assert set("ŷ") <= set(training_data.charset.characters) >= set(dataset.characters)
    assert training_data.fingerprint not in (dataset.fingerprint, TrainingData.open(asked(dataset.folder)).fingerprint)
    again = TrainingData.open(asked(dataset.folder, mix=[f"{other}=0.5"]))
    assert again.fingerprint != training_data.fingerprint


def test_lines_are_kept_on_the_nodes_disk_for_each_data_set(dataset, other, tmp_path, monkeypatch):
    material = TrainingData.open(asked(dataset.folder, mix=[f"{other}=1"]))
    monkeypatch.setenv("HTR_SCRATCH", str(tmp_path / "disk"))
    kept = material.keep(48).kept
    assert len(set(kept)) == 2 and all(tmp_path / "disk" in folder.parents for folder in kept)
    assert [(folder / "places.map").stat().st_size for folder in kept] == [8 * sum(dataset.totals.values()), 8 * 3]
    assert material.keep(48).kept == kept != material.keep(64).kept
    monkeypatch.setenv("HTR_SCRATCH", "")
    with pytest.raises(ValueError, match="HTR_SCRATCH names no disk"):
        material.keep(48)


def test_an_order_that_began_goes_on(dataset, tmp_path):
    """A run of before windows grew keeps its order of texts; a new one has the newest."""
    from jobs.cli.command_line import main
    from jobs.training.config import DATA, read_run

    argv = ["train", str(dataset.folder), "--run", str(tmp_path / "run"), "--size", "tiny", "--device", "cpu"]
    argv += ["--batch", "8", "--steps", "2", "--evaluate-every", "0"]
    assert main(argv) == 0 and read_run(tmp_path / "run")["mixing"] == "2"
    facts = json.loads((tmp_path / "run" / DATA).read_text())
    del facts["mixing"]
    (tmp_path / "run" / DATA).write_text(json.dumps(facts))
    assert main(argv) == 0 and read_run(tmp_path / "run")["mixing"] == "1"


@pytest.mark.parametrize(
    "mix", ["x", "=1", "{other}=", "{other}=-1", "{other}=0", "{other}=0:0", "{other}=1:b", "{other}=nan"]
)
def test_a_weight_that_is_none_is_refused(other, mix):
    with pytest.raises(ValueError, match="write it as DATASET=WEIGHT"):
        parse_mix(mix.format(other=other))


def test_texts_of_another_column(other):
    training_data = TrainingData.open(asked(other, text="typed"))
    assert training_data.samples.read(0)[1][0] == "ÿ" and "ŷ" not in training_data.charset.characters
    with pytest.raises(ValueError, match="no column nosuch"):
        TrainingData.open(asked(other, text="nosuch"))


def test_another_split_is_learnt_with_its_own_characters(tmp_path, source, build, write_table):
    """The index names those of train: a step of the training would end at the first text with another one."""
    letters = (("ŷ", "train"), ("œ", "val"), ("ß", "val"), ("ñ", "test"))
    rows = [
        {"image": f"c0{i}-Ia.png", "text": f"{letter}{i}", "certificate": f"d{i}", "field": "Ia", "split": split}
        for i, (letter, split) in enumerate(letters)
    ]
    folder = build(tmp_path / "splits", write_table(source.parent / "splits.csv", rows), ALL).folder
    assert set(TrainingData.open(asked(folder)).charset.characters) == {"ŷ", "0"}
    training_data = TrainingData.open(asked(folder, split="val"))
    for text in range(2):
        assert training_data.charset.decode(training_data.encode(training_data.samples.read(text)[1])[0])[0] in "œß"
    assert "ñ" not in training_data.charset.characters
    with pytest.raises(ValueError, match="no split 'vall': choose one of train, dev, val"):
        TrainingData.open(asked(folder, split="vall"))


def test_a_column_that_is_not_filled_in_is_told_of(tmp_path, source, build, write_table):
    """In dev of no line: a CER of nothing is less than no other one, and no model would ever be written."""
    rows = [
        {"image": f"c0{i}-Ia.png", "text": "a", "certificate": f"d{i}", "field": "Ia", "split": split, "typed": typed}
        for i, (split, typed) in enumerate((("train", "b"), ("train", ""), ("train", " "), ("dev", "")))
    ]
    folder = build(tmp_path / "typed", write_table(source.parent / "typed.csv", rows), ALL).folder
    training_data = TrainingData.open(asked(folder, text="typed"))
    assert training_data.without_text == 2 and training_data.dev is None
    training_data = TrainingData.open(asked(folder))
    assert training_data.without_text == 0 and len(training_data.dev) == 1


def test_abbreviations_are_accepted_texts(tmp_path, dataset, source, build, write_table):
    table = tmp_path / "short.csv"
    table.write_text("abbreviation,expansion\nIDM,infarctus du myocarde\n")
    rows = [{"image": "c00-Ia.png", "text": text, "certificate": f"e{i}", "field": "Ia"}
            for i, text in enumerate(("IDM", "infarctus du myocarde"))]  # fmt: skip
    folder = build(tmp_path / "idm", write_table(source.parent / "idm.csv", rows), ALL).folder
    training_data = TrainingData.open(asked(folder, abbreviations=table))
    accepted = training_data.encode("IDM")
    texts = [training_data.charset.decode(text) for text in accepted]
    assert texts[0] == "IDM" and "infarctus du myocarde" in texts


def test_blank_fields_are_a_share_of_an_epoch(tmp_path, blanks):
    training_data = TrainingData.open(asked(blanks, blanks=0.1))
    levels = training_data.samples.columns["length"] == 0
    weight = training_data.weights[1].start
    assert levels.sum() and weight * levels.sum() == pytest.approx(0.1 * (~levels).sum())
    assert TrainingData.open(asked(blanks, blanks=1e9)).weights[1].start == 1.0


@pytest.fixture
def blanks(tmp_path) -> Path:
    """Certificates on their form: most of their fields are blank."""
    from jobs.cli.command_line import main

    made, out = tmp_path / "made", tmp_path / "fields"
    assert main(["simulate", "--out", str(made), "--certificates", "3", "--seed", "3"]) == 0
    table = next(made.glob("*.csv"))
    argv = ["preprocess", str(table), "--out", str(out), "--unit", "field", "--shares", "train=1", "--workers", "1"]
    assert main(argv) == 0
    return out
