"""Exactly once, whatever happens to an evaluation: as many tasks as there are, killed ones, a node that is off."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest
from bed import CLOCK_OFF, kill_at, wait_for

from jobs.cli.command_line import main
from shards.index import Index
from shards.plan import Settings

LINES, KILLS = 600, 6
OPTIONS = ["--split", "train", "--device", "cpu", "--batch", "4"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory, draw, write_table, build) -> Index:
    """Lines enough that an evaluation takes a while, in 60 shards; some of writers, some blank."""
    folder, rows = tmp_path_factory.mktemp("lines"), []
    for number, text in enumerate(("grippe", "choc septique", "insuffisance rénale chronique terminale", "AVC")):
        cv2.imwrite(str(folder / f"{number}.png"), draw(text))
    for number in range(LINES):
        os.link(folder / f"{number % 4}.png", folder / f"line-{number}.png")
        known = {
            "certificate": f"c{number // 3}",
            "writer": f"w{number // 30}" if number % 2 else "",
            "line": number % 3,
        }
        rows.append({"image": f"line-{number}.png", "text": f"texte {number % 7}", **known, "split": "train"})
    return build(folder / "dataset", write_table(folder / "lines.csv", rows), Settings(rows=10, encoding="png"))


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ctc"
    shutil.copytree(trained, folder)
    return folder


def command(run: Path, lines: Index, name: str) -> list[str]:
    return ["evaluate", str(lines.folder), "--run", str(run), "--name", name, *OPTIONS]


def contents(folder: Path) -> dict[str, bytes]:
    """All that an evaluation leaves but how long it took."""
    found = [folder / "metrics.json", folder / "evaluation.json", *(folder / "parts").iterdir()]
    return {path.name: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def undisturbed(run: Path, lines: Index) -> dict[str, bytes]:
    assert main(command(run, lines, "undisturbed")) == 0
    folder = run / "evaluation" / "undisturbed"
    keys = [key for path in (folder / "parts").iterdir() for key in pq.read_table(path)["key"].to_pylist()]
    assert sorted(keys) == sorted(lines.samples("train")["key"].to_pylist()) and len(keys) == LINES
    return contents(folder)


@pytest.mark.parametrize("tasks", [2, 7])
def test_any_number_of_tasks_in_any_order(run, lines, undisturbed, monkeypatch, tasks):
    order = random.Random(tasks).sample(range(tasks), tasks)
    for task in order:
        for name, value in (("ID", task), ("COUNT", tasks), ("MIN", 0), ("MAX", tasks - 1), ("STEP", 1)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        assert main(command(run, lines, f"tasks-{tasks}")) == 0
        merged = (run / "evaluation" / f"tasks-{tasks}" / "metrics.json").exists()
        assert merged == (task == order[-1])
    assert contents(run / "evaluation" / f"tasks-{tasks}") == undisturbed


def test_tasks_killed_after_this_many_shards_and_that(run, lines, undisturbed):
    """Two at once, each time; what was committed is not read again."""
    folder = run / "evaluation" / "killed"
    shards = len({*lines.samples("train")["shard"].to_pylist()})
    parts = lambda: {path.name: path.stat().st_mtime_ns for path in (folder / "parts").glob("*.parquet")}  # noqa: E731
    for kill in range(KILLS):
        before, moment = parts(), len(parts()) + kill
        tasks = [start(run, lines, "killed", task, 2) for task in range(2)]
        at_work = [kill_at(task, lambda: len(parts()), moment) for task in tasks]
        assert any(at_work) and moment <= len(parts()) <= shards and not (folder / "metrics.json").exists()
        assert {name: parts()[name] for name in before} == before
    assert main(command(run, lines, "killed")) == 0
    assert contents(folder) == undisturbed


def start(
    run: Path, lines: Index, name: str, task: int, tasks: int, first: int = 0, off: float = 0
) -> subprocess.Popen:
    """`off`: seconds that its node's clock is ahead."""
    array = {"ID": task, "COUNT": tasks, "MIN": first, "MAX": first + tasks - 1, "STEP": 1}
    environ = os.environ | {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    program = ["-c", CLOCK_OFF] if off else ["-m", "jobs"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environ | {"CLOCK_OFF_S": str(off)}}
    return subprocess.Popen([sys.executable, *program, *command(run, lines, name)], start_new_session=True, **pipes)


def test_one_array_task_that_failed_is_resubmitted_alone(run, lines, undisturbed):
    """As `--array=1`: it reads what the dead one left, and nothing that is there."""
    folder = run / "evaluation" / "alone"
    count = lambda: len(list((folder / "parts").glob("*.parquet")))  # noqa: E731
    assert kill_at(start(run, lines, "alone", 1, 3), count, 4)
    for task in (0, 2):
        other = start(run, lines, "alone", task, 3)
        assert other.communicate()[1] and other.returncode == 0
    assert not (folder / "metrics.json").exists()
    before = {path: path.stat().st_mtime_ns for path in (folder / "parts").iterdir()}
    again = start(run, lines, "alone", 1, 1, first=1)
    assert again.communicate()[1] and again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before and contents(folder) == undisturbed


@pytest.mark.parametrize("off", [-7200, 7200])
def test_a_node_whose_clock_is_two_hours_off(run, lines, undisturbed, off):
    """Both tasks may do all: the one does not take what the other has under way for left."""
    name = f"clock{off}"
    tasks = [start(run, lines, name, 0, 1), start(run, lines, name, 0, 1, off=off)]
    said = [task.communicate()[1].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    folder = run / "evaluation" / name
    if not (folder / "metrics.json").exists():  # each left the last one to the other
        assert main(command(run, lines, name)) == 0
    assert contents(folder) == undisturbed
    assert not (folder / ".under-way").exists()


def test_part_of_an_older_version(run, lines, undisturbed, capsys):
    folder = run / "evaluation" / "undisturbed"
    path = sorted((folder / "parts").iterdir())[0]
    content = path.read_bytes()
    try:
        pq.write_table(pq.read_table(path).replace_schema_metadata(), path)
        assert main(command(run, lines, "undisturbed")) == 1
        assert "written by an older version" in capsys.readouterr().err
    finally:
        path.write_bytes(content)


@pytest.mark.slurm
def test_a_node_that_is_switched_off(cluster, run, lines, undisturbed, tmp_path):
    """Slurm queues the task again; what was committed stays, what was not is read by those who are left."""
    folder, log = run / "evaluation" / "node", tmp_path / "log"
    array = ["--array=0-3", "--exclusive", "slurm/evaluate.sh", *command(run, lines, "node")[1:]]
    job = cluster.submit(log, *array)
    wait_for(lambda: len(list(folder.glob("parts/*.parquet"))) >= 3)
    assert not (folder / "metrics.json").exists(), "the node was switched off too late"
    cluster.node("off", 2)
    try:
        before = {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/*.parquet")}
        cluster.end(job, good=True)
    finally:
        cluster.node("on", 2)
    assert contents(folder) == undisturbed
    assert {name: (folder / "parts" / name).stat().st_mtime_ns for name in before} == before, "a part written again"
