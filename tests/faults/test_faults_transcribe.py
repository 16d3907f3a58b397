"""Transcribe, whatever happens to it: killed at any moment, run twice at once, a node switched off. The same bytes
each time, and each line once."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from bed import CLOCK_OFF, PATIENT_S, Cluster, kill_at, wait_for

from htr.synth.simulate import simulate

LINES, KILLS = 240, 8


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Path:
    """Images of lines that take a while; every seventeenth is damaged."""
    folder, rng = tmp_path_factory.mktemp("faults") / "lines", np.random.default_rng(3)
    folder.mkdir()
    for number in range(LINES):
        noise = rng.integers(120, 255, (90, rng.integers(500, 1500)), dtype=np.uint8)
        path = folder / f"{number:03d}.png"
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 2))
        if number % 17 == 0:
            path.write_bytes(path.read_bytes()[:500])
    return folder


def start(
    source: Path, model: Path, folder: Path, *options: object, off: float = 0, **environ: str
) -> subprocess.Popen:
    """`off`: seconds that its node's clock is ahead."""
    folder.mkdir(exist_ok=True)
    environ |= {"CLOCK_OFF_S": str(off)}
    program = ["-c", CLOCK_OFF] if off else ["-m", "jobs"]
    command = [sys.executable, *program, "transcribe", source, "--model", model, "--out", folder / "o.csv"]
    command += ["--chunk", 8, "--workers", 2, "--device", "cpu", "--xml", folder / "xml", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a session of its own: its workers are killed with it, as Slurm does it
    return subprocess.Popen([*map(str, command)], start_new_session=True, env=os.environ | environ, **pipes)


def finish(task: subprocess.Popen) -> str:
    _, errors = task.communicate(timeout=PATIENT_S)
    assert task.returncode == 0, errors
    return errors


def content(folder: Path) -> dict[str, bytes]:
    """Of every file that is a result: the table, the parts, the pages."""
    kinds = (".csv", ".parquet", ".xml")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in kinds}


def assert_whole(folder: Path, count: int) -> None:
    """Each item once, and nothing half written is left."""
    parts = sorted((folder / "o.csv.parts").glob("*.parquet"))
    items = [item for part in parts for item in pq.read_table(part, columns=["item"])["item"].to_pylist()]
    assert sorted(set(items)) == list(range(count)) and items == sorted(items)
    assert (folder / "o.csv").exists()


@pytest.fixture(scope="module")
def undisturbed(lines, untrained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "0"
    finish(start(lines, untrained, folder))
    assert_whole(folder, LINES)
    return folder


def test_killed_after_this_many_chunks_and_that(lines, untrained, undisturbed, tmp_path):
    """Each start is killed when it has done a few chunks more, the first one before any is."""
    folder, chunks = tmp_path / "o", LINES // 8
    done = lambda: len(list(folder.glob("o.csv.parts/*.parquet")))  # noqa: E731
    moments = [0, 1, 2, 3, 5, 9, 14, 18]  # far from the end, lest a start end before it is looked at
    assert len(moments) == KILLS
    for moment in moments:
        before = {path: path.stat().st_mtime_ns for path in folder.glob("o.csv.parts/*.parquet")}
        assert kill_at(start(lines, untrained, folder), done, max(moment, len(before))), f"it ended before {moment}"
        assert moment <= done() <= chunks and not (folder / "o.csv").exists()
        assert {path: path.stat().st_mtime_ns for path in before} == before, "a part written again"
    finish(start(lines, untrained, folder))
    assert_whole(folder, LINES)
    assert content(folder) == content(undisturbed)


def test_tasks_of_an_array_and_others_twice_at_once(lines, untrained, undisturbed, tmp_path):
    """Seven tasks of one thread or two each, the first three started twice: no task waits for another's reading."""

    def task(number: int) -> subprocess.Popen:
        array = {"ID": number, "COUNT": 7, "MIN": 0, "MAX": 6, "STEP": 1}
        environ = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
        workers = ["--workers", 1 + number % 2]
        return start(lines, untrained, tmp_path / "o", *workers, **environ, OMP_NUM_THREADS=str(1 + number % 2))

    for some in ((0, 0, 1), (1, 2, 2), (3, 4), (5, 6)):
        for started in [task(number) for number in some]:
            finish(started)
    assert_whole(tmp_path / "o", LINES)
    assert content(tmp_path / "o") == content(undisturbed)


def array(number: int, count: int, first: int = 0) -> dict[str, str]:
    told = {"ID": number, "COUNT": count, "MIN": first, "MAX": first + count - 1, "STEP": 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()}


def test_one_array_task_that_failed_is_resubmitted_alone(lines, untrained, undisturbed, tmp_path):
    """As `--array=1`: it reads what the dead one left, and nothing that is there."""
    folder = tmp_path / "o"
    done = lambda: len(list(folder.glob("o.csv.parts/*.parquet")))  # noqa: E731
    assert kill_at(start(lines, untrained, folder, **array(1, 3)), done, 3)
    for task in (0, 2):
        assert "left to others" in finish(start(lines, untrained, folder, **array(task, 3)))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("o.csv.parts/*.parquet")}
    finish(start(lines, untrained, folder, **array(1, 1, first=1)))
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a part written again"
    assert_whole(folder, LINES)
    assert content(folder) == content(undisturbed)


@pytest.mark.parametrize("off", [-7200, 7200])
def test_a_node_whose_clock_is_two_hours_off(lines, untrained, undisturbed, tmp_path, off):
    """Both tasks may do all, and the one that ends first leaves what the other has under way."""
    folder = tmp_path / "o"
    for task in [start(lines, untrained, folder, "--workers", 1, off=by) for by in (0, off)]:
        finish(task)
    if not (folder / "o.csv").exists():  # each left the last one to the other
        finish(start(lines, untrained, folder))
    assert_whole(folder, LINES)
    assert content(folder) == content(undisturbed)


def test_one_worker_killed_ends_the_task_with_an_error(lines, untrained, undisturbed, tmp_path):
    """As the kernel does it when memory is short: the task must not hang, and the next one finishes."""
    import psutil

    task = start(lines, untrained, tmp_path / "o")
    wait_for(lambda: list(tmp_path.glob("o/o.csv.parts/*.parquet")) or task.poll() is not None, every=0.01)
    workers = [child for child in psutil.Process(task.pid).children(recursive=True) if child.num_threads() > 1]
    assert workers, "no worker was seen at work"
    workers[-1].kill()
    _, errors = task.communicate(timeout=PATIENT_S)
    assert task.returncode not in (0, None) and "error" in errors and not (tmp_path / "o" / "o.csv").exists()
    finish(start(lines, untrained, tmp_path / "o"))
    assert_whole(tmp_path / "o", LINES)
    assert content(tmp_path / "o") == content(undisturbed)


# --- on a cluster


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("scans"), 24, 4, severity="light").parent


def options_of(scans: Path, model: Path, out: Path) -> list[object]:
    return [scans / "pages", "--unit", "field", "--model", model, "--out", out, "--chunk", 1, "--workers", 1,
            "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def alone(cluster: Cluster, scans, untrained, tmp_path_factory) -> Path:
    """Of one task, on a node."""
    folder = tmp_path_factory.mktemp("alone")
    cluster.sbatch(folder / "log", "slurm/transcribe.sh", *options_of(scans, untrained, folder / "o.csv"))
    assert_whole(folder, 24)
    return folder


@pytest.mark.slurm
def test_an_array_and_nodes_write_the_same(cluster: Cluster, scans, untrained, alone, tmp_path):
    made = tmp_path / "array"
    made.mkdir()
    array = ["--array=0-2", "slurm/transcribe.sh", *options_of(scans, untrained, made / "o.csv")]
    cluster.end(cluster.submit(tmp_path / "%a", *array), good=True)
    assert "task 3 of 3, 8 of its 8 chunks" in (tmp_path / "2").read_text(encoding="utf-8")
    assert content(made) == content(alone)
    made = tmp_path / "nodes"
    made.mkdir()
    cluster.sbatch(tmp_path / "log", "--nodes=4", "slurm/transcribe.sh", *options_of(scans, untrained, made / "o.csv"))
    assert "of 4, " in (tmp_path / "log").read_text(encoding="utf-8") and list(
        (made / "o.csv.parts" / "logs").glob("slurm-*.log")
    )
    assert content(made) == content(alone)
    made = tmp_path / "submit"
    made.mkdir()
    submit = ["python", "-m", "jobs", "submit", "transcribe", "--array", 2, "--cpus-per-task", 1, "--time", "10:00"]
    cluster.run(*submit, "--wait", *options_of(scans, untrained, made / "o.csv"))
    assert content(made) == content(alone)
    assert (made / "o.csv.parts" / "logs").stat().st_mode & 0o777 == 0o700


@pytest.mark.slurm
def test_a_node_that_is_switched_off(cluster: Cluster, scans, untrained, alone, tmp_path):
    """Slurm notices, and queues its task again; what was committed stays, what was not is done."""
    out, parts = tmp_path / "o.csv", tmp_path / "o.csv.parts"
    array = ["--array=0-3", "--exclusive", "slurm/transcribe.sh", *options_of(scans, untrained, out)]
    job = cluster.submit(tmp_path / "log", *array)
    wait_for(lambda: len(list(parts.glob("*.parquet"))) >= 3)
    assert not out.exists(), "the node was switched off too late"
    cluster.node("off", 2)
    try:
        before = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
        cluster.end(job, good=True)
    finally:
        cluster.node("on", 2)
    assert_whole(tmp_path, 24)
    assert content(tmp_path) == content(alone)
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a part written again"
