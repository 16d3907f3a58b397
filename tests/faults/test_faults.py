"""Exactly once, whatever happens: killed workers, a full disk, tasks run twice at once. The same bytes each time.

The account is kept by the number of a row in the source: each ends in samples or in the rejects, never both or neither.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bed import PATIENT_S, kill_at, wait_for

from htr.synth.simulate import simulate
from shards.index import read_index
from shards.verify import verify

ROWS, IMAGES = 1500, 60
KILLS = 20


def digests(folder: Path) -> dict[str, str]:
    """Of every file that a preprocess leaves; logs and pictures are not its result."""
    kinds = (".tar", ".parquet", ".json")
    files = [path for path in sorted(folder.iterdir()) if path.suffix in kinds]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_account(folder: Path, rows: int) -> None:
    """As sets of row numbers: samples and rejects part what the source has, and nothing else is there."""
    samples = pq.read_table(folder / "index.parquet", columns=["row", "key"])
    kept = set(samples["row"].drop_null().to_pylist())
    rejected = pq.read_table(folder / "rejects.parquet", columns=["row"])["row"].to_pylist()
    assert len(rejected) == len(set(rejected))
    assert kept.isdisjoint(rejected) and kept | set(rejected) == set(range(rows))
    assert pc.count_distinct(samples["key"]).as_py() == samples.num_rows
    assert verify(read_index(folder)) == []
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def preprocess(source: Path, folder: Path, **more) -> subprocess.Popen:
    command = [sys.executable, "-m", "jobs", "preprocess", str(source), "--out", str(folder), "--rows", "50"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a session of its own: its workers are killed with it, as Slurm does it
    return subprocess.Popen([*command, "--workers", "2"], start_new_session=True, **pipes, **more)


def finish(source: Path, folder: Path) -> str:
    task = preprocess(source, folder)
    _, errors = task.communicate(timeout=PATIENT_S)
    assert task.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def lines(tmp_path_factory, write_table) -> Path:
    """A table whose images take a while; some rows name none, some are there twice."""
    folder, rng = tmp_path_factory.mktemp("faults"), np.random.default_rng(3)
    for number in range(IMAGES):
        noise = rng.integers(120, 255, (90, 900), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.GaussianBlur(noise, (0, 0), 2))
    for number in range(ROWS):
        os.link(folder / f"{number % IMAGES}.png", folder / f"line-{number}.png")
    rows = [{"image": f"line-{n}.png", "text": "grippe", "certificate": f"c{n}", "line": "0"} for n in range(ROWS)]
    for number in range(0, ROWS, 17):
        rows[number]["image"] = f"missing-{number}.png"
    for number in range(5, ROWS, 101):
        rows[number]["certificate"] = rows[number - 5]["certificate"]
    return write_table(folder / "lines.csv", rows)


@pytest.fixture(scope="module")
def undisturbed(lines, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "lines"
    finish(lines, folder)
    assert_account(folder, ROWS)
    return folder


def test_workers_killed_after_this_many_shards_and_that(lines, undisturbed, tmp_path):
    """Each start is killed when it has committed a shard or two more, the first ones before any is."""
    folder, shards = tmp_path / "lines", len(read_index(undisturbed).shards)
    done = lambda: len([path for path in folder.glob("*-*.json") if path.with_suffix(".tar").exists()])  # noqa: E731
    hits = 0
    for kill in range(KILLS):
        before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
        hits += kill_at(preprocess(lines, folder), done, max(kill * shards // KILLS, done()))
        now = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
        assert {name: now[name] for name in before} == before, "a committed shard written again"
        if (folder / "index.json").exists():
            assert_account(folder, ROWS)
            break
    assert hits >= KILLS // 2, f"only {hits} kills came before the end"
    finish(lines, folder)
    assert_account(folder, ROWS)
    assert digests(folder) == digests(undisturbed)


def test_one_worker_killed_ends_the_task_with_an_error(lines, undisturbed, tmp_path):
    """As the kernel does it when memory is short: the task must not hang, and the next one finishes."""
    folder = tmp_path / "lines"
    task = preprocess(lines, folder)
    until = time.monotonic() + 250
    victims: list[int] = []
    while not victims and time.monotonic() < until and task.poll() is None:
        time.sleep(0.05)
        status_files = list(folder.glob(".workers/*.json"))
        victims = [int(path.stem.rsplit("-", 1)[1]) for path in status_files]
    assert victims, "no worker was seen at work"
    os.kill(victims[0], signal.SIGKILL)
    _, errors = task.communicate(timeout=PATIENT_S)
    assert task.returncode not in (0, None) and "error" in errors and "the same command does what is missing" in errors
    assert len(errors.strip().splitlines()) < 12, errors
    finish(lines, folder)
    assert_account(folder, ROWS)
    assert digests(folder) == digests(undisturbed)


def test_tasks_run_twice_at_once(lines, undisturbed, tmp_path):
    tasks = [preprocess(lines, tmp_path / "lines") for _ in range(3)]
    for task in tasks:
        _, errors = task.communicate(timeout=PATIENT_S)
        assert task.returncode == 0, errors
    assert_account(tmp_path / "lines", ROWS)
    assert digests(tmp_path / "lines") == digests(undisturbed)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(lines, undisturbed, small_disk):
    """It says so, leaves no half shard, and goes on where it was once there is room."""
    task = preprocess(lines, small_disk / "lines")
    _, errors = task.communicate(timeout=PATIENT_S)
    assert task.returncode == 1 and "No space left on device" in errors
    assert not [path for path in (small_disk / "lines").iterdir() if path.suffix == ".tmp"]
    before = {path.name: path.stat().st_mtime_ns for path in (small_disk / "lines").glob("*.tar")}
    assert before, "a disk too small for a single shard shows nothing"
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    finish(lines, small_disk / "lines")
    assert_account(small_disk / "lines", ROWS)
    assert digests(small_disk / "lines") == digests(undisturbed)
    committed = {name: (small_disk / "lines" / name).stat().st_mtime_ns for name in before}
    assert committed == before, "a committed shard was written again"


def test_the_same_with_one_worker_in_this_order_and_that(lines, undisturbed, tmp_path):
    """Shard by shard, from the last to the first."""
    from shards.index import merge
    from shards.plan import Settings, open_plan
    from shards.write import write_shard

    plan, images = open_plan(tmp_path / "lines", lines, Settings(rows=50))
    for number in reversed(range(len(plan.shards))):
        write_shard(plan, number, images)
    merge(plan)
    assert digests(tmp_path / "lines") == digests(undisturbed)


# --- on a cluster


@pytest.mark.slurm
@pytest.mark.parametrize("nodes", [1, 4])
def test_one_node_and_four(cluster, lines, undisturbed, tmp_path, nodes):
    options = ["--rows", "50", "--workers", "1"]
    cluster.sbatch(
        tmp_path / "log", f"--nodes={nodes}", "slurm/preprocess.sh", lines, "--out", tmp_path / "lines", *options
    )
    assert f"of {nodes}, " in (tmp_path / "log").read_text(encoding="utf-8")
    assert_account(tmp_path / "lines", ROWS)
    assert digests(tmp_path / "lines") == digests(undisturbed)


@pytest.mark.slurm
def test_certificates_on_their_form_on_one_node_and_four(cluster, tmp_path):
    """Registration and line finding give every node the same bytes."""
    source = simulate(tmp_path / "scans", 8, 4, severity="medium")
    for nodes in (1, 4):
        options = ["--unit", "field", "--rows", "24", "--workers", "1", "--out", tmp_path / str(nodes)]
        cluster.sbatch(tmp_path / "log", f"--nodes={nodes}", "slurm/preprocess.sh", source, *options)
        assert_account(tmp_path / str(nodes), 8 * 24)
    assert digests(tmp_path / "1") == digests(tmp_path / "4")


@pytest.mark.slurm
def test_a_node_that_is_switched_off(cluster, lines, undisturbed, tmp_path):
    """Slurm notices, and queues the job again; what was committed stays, what was not is done by those who are left."""
    folder, log = tmp_path / "lines", tmp_path / "log"
    array = ["--array=0-3", "--exclusive", "slurm/preprocess.sh", lines, "--out", folder, "--rows", "50"]
    job = cluster.submit(log, *array, "--workers", "1")
    wait_for(lambda: len(list(folder.glob("*.tar"))) >= 3)
    assert not (folder / "index.json").exists(), "the node was switched off too late"
    cluster.node("off", 2)
    try:
        before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
        cluster.end(job, good=True)
    finally:
        cluster.node("on", 2)
    assert_account(folder, ROWS)
    assert digests(folder) == digests(undisturbed)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before, "a committed shard written again"
