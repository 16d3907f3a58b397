"""A model's folder without a run reads one's own data; a run's data set is found from any folder, and no other."""

import json
import shutil
from pathlib import Path

import pytest

from jobs.cli.command_line import main
from jobs.evaluation.texts import config_of, dataset_of
from jobs.training.adopted import run_of
from shards.plan import read_note


def test_a_model_without_a_run_is_evaluated_and_tuned(trained, dataset, tmp_path, monkeypatch, capsys):
    model = tmp_path / "given"
    shutil.copytree(trained / "model", model / "model")
    monkeypatch.chdir(tmp_path)
    options = [str(dataset.folder), "--model", "given", "--device", "cpu"]
    assert main(["evaluate", *options, "--split", "train", "--name", "x"]) == 0
    run = run_of(None, model)
    assert run.parent == Path("runs") and run.name.startswith("given-")
    found = json.loads((run / "evaluation" / "x" / "metrics.json").read_text(encoding="utf-8"))
    own = shutil.copytree(trained, tmp_path / "own", symlinks=True)
    assert main(["evaluate", "--run", str(own), "--split", "train", "--name", "y", "--device", "cpu"]) == 0
    known = json.loads((own / "evaluation" / "y" / "metrics.json").read_text(encoding="utf-8"))
    assert (found["cer"], found["lines"]) == (known["cer"], known["lines"])
    assert "has the run folder" in capsys.readouterr().err
    assert main(["collect", "runs", "--out", "all.csv"]) == 0  # no training is missing where there never was one
    assert ",adopted," in Path("all.csv").read_text() and "damage" not in capsys.readouterr().err
    assert main(["evaluate", *options, "--split", "train", "--name", "x"]) == 0
    assert main(["tune", *options, "--most", "4"]) == 0 and (run / "decoding" / "weights.json").exists()
    assert "has the run folder" not in capsys.readouterr().err  # said once, when it was made
    with pytest.raises(ValueError, match="is not known here"):
        dataset_of(config_of(run))


def test_which_reader_is_meant(tmp_path):
    for run, model in ((None, None), (Path("a"), Path("b"))):
        with pytest.raises(ValueError, match="--run RUN, or --model FOLDER"):
            run_of(run, model)
    with pytest.raises(ValueError, match="no model here"):
        run_of(None, tmp_path)


def test_a_runs_data_set_is_the_same_from_anywhere_and_no_other(trained, dataset, tmp_path, monkeypatch):
    config = config_of(trained)
    assert Path(config["folder"]).is_absolute() and config["plan"] == read_note(dataset.folder)["fingerprint"]
    monkeypatch.chdir(tmp_path)
    assert dataset_of(config).fingerprint == dataset.fingerprint
    shutil.copytree(dataset.folder, tmp_path / "other")
    note = tmp_path / "other" / "index.json"
    note.write_text(note.read_text(encoding="utf-8").replace(dataset.fingerprint, "0" * 16), encoding="utf-8")
    assert dataset_of(config | {"folder": "other"})  # its rejects were written again: the plan is the same
    note = tmp_path / "other" / "plan.json"
    note.write_text(note.read_text(encoding="utf-8").replace(dataset.fingerprint, "0" * 16), encoding="utf-8")
    with pytest.raises(ValueError, match="is not the data set that the run was trained on"):
        dataset_of(config | {"folder": "other"})
    assert dataset_of(config, tmp_path / "other")  # who names it means it
