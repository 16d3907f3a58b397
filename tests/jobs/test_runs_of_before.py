"""A run that commit 2a98bc8 made is resumed, evaluated, reported on, read with and aligned by, to the same results."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from format_1 import run_as_once

from jobs.cli.command_line import main

TRAIN = [
    "--size",
    "tiny",
    "--batch",
    "6",
    "--steps",
    "4",
    "--checkpoint-every",
    "2",
    "--log-every",
    "1",
    "--amp",
    "off",
]
TRAIN += ["--dropout", "0", "--teacher-noise", "0", "--device", "cpu", "--evaluate-every", "1000", "--warmup", "2"]


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory) -> tuple[Path, Path]:
    """One run twice: as it is written today, and as it was then."""
    today, then = (tmp_path_factory.mktemp("runs") / name for name in ("today", "then"))
    assert main(["train", str(dataset.folder), "--run", str(today), *TRAIN]) == 0
    shutil.copytree(today, then, symlinks=True)
    run_as_once(then)
    assert json.loads((then / "config.json").read_text(encoding="utf-8"))["lr"] and not (then / "config.yaml").exists()
    return today, then


def test_it_is_resumed_with_the_same_losses(runs, dataset, tmp_path):
    today, then = runs
    again = tmp_path / "again"
    shutil.copytree(then, again, symlinks=True)
    (again / "checkpoints" / "step-000004.pt").unlink()
    assert main(["train", str(dataset.folder), "--run", str(again), *TRAIN]) == 0

    def losses(run: Path) -> list[tuple[int, float]]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        return [(line["step"], line["loss"]) for line in lines if "loss" in line]

    assert losses(again)[-2:] == losses(today)[-2:] and losses(today)[-1][0] == 4


def test_another_run_begins_from_it(runs, dataset, tmp_path, capsys):
    options = ["--run", str(tmp_path / "run"), *TRAIN, "--init-from", str(runs[1])]
    assert main(["train", str(dataset.folder), *options]) == 0
    taken, of = next(
        line.split()[1:4:2] for line in capsys.readouterr().err.splitlines() if "weights taken from" in line
    )
    assert taken == of


def test_its_lines_are_read_and_aligned_as_today(runs, dataset, tmp_path):
    cers, texts, tables = [], [], []
    for run in runs:
        assert main(["evaluate", "--run", str(run), "--split", "train", "--name", "x", "--device", "cpu"]) == 0
        cers.append(json.loads((run / "evaluation" / "x" / "metrics.json").read_text(encoding="utf-8"))["cer"])
        assert main(["report", str(run)]) == 0 and (run / "evaluation" / "x" / "report.html").exists()
        out = tmp_path / f"{run.name}.csv"
        options = ["--model", str(run), "--out", str(out), "--device", "cpu", "--workers", "1"]
        assert main(["transcribe", str(dataset.folder), *options]) == 0
        texts.append(out.read_bytes())
        table = dataset.folder / f"aligned-{run.name}.parquet"
        command = [
            "align",
            str(dataset.folder),
            "--run",
            str(run),
            "--to",
            "words",
            "--device",
            "cpu",
            "--least",
            "-99",
        ]
        assert main([*command, "--out", str(table)]) == 0
        tables.append(pq.read_table(table))
        table.unlink()
    assert cers[0] == cers[1] and texts[0] == texts[1] and tables[0].equals(tables[1])
