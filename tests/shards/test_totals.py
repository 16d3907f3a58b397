"""index.json and its table: what is damaged, or of another data set, is named in one line, and made anew."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.cli.command_line import main
from shards.index import merge, read_index
from shards.plan import read_plan


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def others(path: Path) -> None:
    """Of another data set of the same columns."""
    pq.write_table(pq.read_table(path).slice(1), path)


DAMAGES = [
    ("index.json", cut, "damaged"),
    ("index.json", empty, "damaged"),
    ("index.json", lambda path: path.write_text("[1]"), "damaged"),
    ("index.json", lambda path: path.write_text('{"totals": {}}'), "of another version"),
    ("index.parquet", cut, "damaged"),
    ("index.parquet", empty, "damaged"),
    ("index.parquet", Path.unlink, "missing"),
    ("index.parquet", others, "59 samples, index.json has 60"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGES)
def test_a_damaged_index_is_one_line_and_made_anew(dataset, tmp_path, capsys, name: str, damage: Callable, said: str):
    folder = shutil.copytree(dataset.folder, tmp_path / "lines")
    damage(folder / name)
    assert main(["stats", str(folder)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder / name}: {said}") and "preprocess, run again, makes it" in line
    merge(read_plan(folder))  # what preprocess does at its end
    assert read_index(folder).digest == dataset.digest and main(["stats", str(folder)]) == 0


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "damaged"),
        (lambda path: path.write_text("{}"), "not a plan that this version reads"),
        (lambda path: path.write_text(path.read_text().replace('"salt"', '"pepper"')), "not a plan that this version"),
    ],
)
def test_a_plan_that_is_damaged_or_newer_is_one_line(dataset, tmp_path, capsys, damage: Callable, said: str):
    folder = shutil.copytree(dataset.folder, tmp_path / "lines")
    damage(folder / "plan.json")
    assert main(["status", str(folder)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder / 'plan.json'}: {said}")


def test_the_note_of_a_shard_that_is_damaged_is_named(dataset, tmp_path):
    folder = shutil.copytree(dataset.folder, tmp_path / "lines")
    cut(folder / "train-00000.json")
    with pytest.raises(ValueError, match=r"train-00000.json: damaged.*remove it"):
        merge(read_plan(folder))
