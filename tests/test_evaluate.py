"""Evaluation: every line once, the same result whatever the tasks, and what it refuses."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from htr.scoring.errors import Errors, compare
from jobs.__main__ import main


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory) -> Path:
    """A CTC run of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "ctc"
    options = ["--size", "tiny", "--steps", "3", "--batch", "8", "--device", "cpu"]
    assert main(["train", str(dataset.folder), "--run", str(folder), *options]) == 0
    return folder


def evaluate(run: Path, name: str, *options: str) -> int:
    return main(["evaluate", "--run", str(run), "--split", "train", "--device", "cpu", "--name", name, *options])


def as_task(monkeypatch, task: int, tasks: int) -> None:
    for name, value in (("ID", task), ("COUNT", tasks), ("MIN", 0), ("MAX", tasks - 1), ("STEP", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


def test_result_does_not_depend_on_the_tasks(run: Path, dataset, monkeypatch, capsys):
    assert evaluate(run, "one") == 0
    for task in (2, 0, 1):
        as_task(monkeypatch, task, 3)
        assert evaluate(run, "three") == 0
        assert (run / "evaluation" / "three" / "metrics.json").exists() == (task == 1)  # the last one merges
    one, three = (run / "evaluation" / name for name in ("one", "three"))
    assert (one / "metrics.json").read_bytes() == (three / "metrics.json").read_bytes()
    parts = sorted(path.name for path in (one / "parts").iterdir())
    assert len(parts) > 2
    assert all((one / "parts" / name).read_bytes() == (three / "parts" / name).read_bytes() for name in parts)
    # the figures are those of the lines, each once
    rows = [row for name in parts for row in pq.read_table(one / "parts" / name).to_pylist()]
    assert sorted(row["key"] for row in rows) == sorted(dataset.samples("train")["key"].to_pylist())
    total = sum((compare(row["reference"], row["hypothesis"]) for row in rows), Errors())
    metrics = json.loads((one / "metrics.json").read_text())
    assert (metrics["lines"], metrics["cer"], metrics["wer"]) == (total.lines, total.cer, total.wer)
    assert sum(part["lines"] for part in metrics["by"]["field"].values()) == total.lines
    said = capsys.readouterr()
    assert not [row for row in rows if row["reference"] in said.out + said.err]


def test_second_run_does_only_what_is_missing(run: Path):
    assert evaluate(run, "again") == 0
    folder = run / "evaluation" / "again"
    before = (folder / "metrics.json").read_bytes()
    first, *others = sorted((folder / "parts").iterdir())
    times = [path.stat().st_mtime_ns for path in others]
    first.unlink()
    (folder / "metrics.json").unlink()
    assert evaluate(run, "again") == 0
    assert (folder / "metrics.json").read_bytes() == before
    assert [path.stat().st_mtime_ns for path in others] == times


def test_where_selects_lines(run: Path, dataset):
    assert evaluate(run, "field", "--where", "field=Ia") == 0
    metrics = json.loads((run / "evaluation" / "field" / "metrics.json").read_text())
    assert metrics["lines"] == dataset.samples("train")["field"].to_pylist().count("Ia") > 0


def fails(capsys, *argv: object) -> str:
    assert main([str(part) for part in argv]) == 1
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_another_question_under_the_same_name(run: Path, capsys):
    assert evaluate(run, "name") == 0
    said = fails(capsys, "evaluate", "--run", run, "--split", "dev", "--name", "name", "--device", "cpu")
    assert "was begun with another split" in said


def test_dataset_of_another_alphabet(run: Path, dataset, tmp_path: Path, capsys):
    shutil.copytree(dataset.folder, tmp_path / "other")
    path = tmp_path / "other" / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"alphabet": index["alphabet"] + "\u017f"}))
    said = fails(capsys, "evaluate", tmp_path / "other", "--run", run, "--device", "cpu")
    assert "has another alphabet" in said and "U+017F" in said


def test_no_run_no_model_no_dataset(run: Path, tmp_path: Path, capsys):
    assert "not a run folder" in fails(capsys, "evaluate", "--run", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    shutil.copy(run / "config.json", tmp_path / "empty")
    assert "no model here" in fails(capsys, "evaluate", "--run", tmp_path / "empty", "--device", "cpu")
    assert "no data set here" in fails(capsys, "evaluate", tmp_path / "nothing", "--run", run)


def test_shard_cut_short(run: Path, dataset, tmp_path: Path, capsys):
    shutil.copytree(dataset.folder, tmp_path / "cut")
    tar = next((tmp_path / "cut").glob("train-*.tar"))
    tar.write_bytes(tar.read_bytes()[:700])
    said = fails(
        capsys, "evaluate", tmp_path / "cut", "--run", run, "--split", "train", "--name", "cut", "--device", "cpu"
    )
    assert f"{tar.name}: cut short or changed" in said
    assert not (run / "evaluation" / "cut" / "metrics.json").exists()
