"""Storage that does not answer one task of a verb that works in parts: it ends, with its reason, and the same command
does what is missing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
from bed import LONG

from jobs.cli.command_line import main

LIMIT_S = 10
# of every python of the task: to open this file never comes back
HANG = """
import os, time
opened = os.open
def opening(path, *more, **named):
    while os.fspath(path).endswith(os.environ["HANGS"]) if isinstance(path, (str, os.PathLike)) else False:
        time.sleep(1)
    return opened(path, *more, **named)
os.open = opening
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory, draw) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:02d}.png"), draw(f"grippe {number}"))
    return folder


def evaluate(tmp_path: Path, dataset, trained, images, source) -> tuple[list, str, Path]:
    """-> the command, the name of the file that does not answer, the folder of the work."""
    data, run = shutil.copytree(dataset.folder, tmp_path / "data"), tmp_path / "run"
    shutil.copytree(trained, run, symlinks=True)
    command = ["evaluate", data, "--run", run, "--split", "train", "--device", "cpu", "--name", "a"]
    return command, f"{dataset.samples('train')['shard'].to_pylist()[-1]}.tar", run / "evaluation" / "a"


def align(tmp_path: Path, dataset, trained, images, source) -> tuple[list, str, Path]:
    _, hangs, folder = evaluate(tmp_path, dataset, trained, images, source)
    command = [
        "align",
        tmp_path / "data",
        "--run",
        tmp_path / "run",
        "--to",
        "lines",
        "--split",
        "train",
        "--name",
        "a",
    ]
    return [*command, "--device", "cpu"], hangs, folder.parents[1] / "alignment" / "a"


def transcribe(tmp_path: Path, dataset, trained, images, source) -> tuple[list, str, Path]:
    read = shutil.copytree(images, tmp_path / "images")
    command = ["transcribe", read, "--model", trained, "--out", tmp_path / "o.csv", "--chunk", 4, "--workers", 2]
    return [*command, "--device", "cpu"], "09.png", tmp_path / "o.csv.parts"


def preprocess(tmp_path: Path, dataset, trained, images, source) -> tuple[list, str, Path]:
    table = Path(shutil.copytree(source.parent, tmp_path / "source")) / source.name
    command = ["preprocess", table, "--out", tmp_path / "made", "--rows", 7, "--workers", 2]
    return command, "c09-Ia.png", tmp_path / "made"


def precompute(tmp_path: Path, dataset, trained, images, source) -> tuple[list, str, Path]:
    data = shutil.copytree(dataset.folder, tmp_path / "data")
    return ["precompute", data, "--workers", 2], f"{dataset.shards[-1]['shard']}.tar", data / "lines-48"


@LONG
@pytest.mark.parametrize("verb", [evaluate, align, transcribe, preprocess, precompute])
def test_a_task_whose_storage_does_not_answer_ends(tmp_path, dataset, trained, images, source, fault, verb):
    command, hangs, folder = verb(tmp_path, dataset, trained, images, source)
    (tmp_path / "sitecustomize.py").write_text(HANG)
    words, path = list(map(str, command)), f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    environ = os.environ | {"HTR_STEP_TIMEOUT": str(LIMIT_S), "HANGS": hangs, "PYTHONPATH": path}
    began = time.monotonic()
    task = subprocess.run([sys.executable, "-m", "jobs", *words], env=environ, capture_output=True, text=True)
    seconds = time.monotonic() - began
    [said] = [line for line in task.stderr.splitlines() if "no progress for" in line]
    assert task.returncode not in (0, None) and "The same command does what is missing" in said, task.stderr
    [stacks] = (folder / "logs").glob("stacks-*.txt")
    assert str(stacks) in said and "grippe" not in stacks.read_text()
    parts = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".parquet", ".lines")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in parts if path.exists()}.items() <= parts.items()
    found = {
        evaluate: lambda: (folder / "metrics.json").exists(),
        align: lambda: (tmp_path / "data" / "aligned-lines.parquet").exists(),
        transcribe: lambda: sum(pq.read_table(path).num_rows for path in folder.glob("*.parquet")) == 12,
        preprocess: lambda: (folder / "index.json").exists(),
        precompute: lambda: (folder / "lines.json").exists(),
    }
    assert found[verb]()
    fault(f"{verb.__name__}, storage that does not answer", seconds, "the part", "0 parts")
