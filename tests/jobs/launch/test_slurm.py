"""On a real Slurm cluster of four nodes on this machine: what users type, small. Needs root."""

import json
import re
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from bed import Cluster, wait_for

from shards.index import read_index

pytestmark = pytest.mark.slurm
TRAIN = ["--size", "tiny", "--batch", "8", "--warmup", "2", "--log-every", "1", "--amp", "off", "--dropout", "0",
         "--teacher-noise", "0"]  # fmt: skip
TRAIN += ["--device", "cpu", "--steps", "4"]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text(encoding="utf-8"))


def sums(folder: Path) -> dict[str, str]:
    return {shard["shard"]: shard["sha256"] for shard in read_index(folder).shards}


def test_preprocess_on_four_nodes_and_as_an_array(cluster: Cluster, tmp_path: Path, source: Path, build):
    from shards.plan import Settings

    build(tmp_path / "here", source, Settings(rows=7))
    log, options = tmp_path / "log", ["--rows", "7", "--workers", "1"]
    cluster.sbatch(log, "--nodes=4", "slurm/preprocess.sh", source, "--out", tmp_path / "nodes", *options)
    array = ["--array=0-1", "slurm/preprocess.sh", source, "--out", tmp_path / "array", *options]
    cluster.end(cluster.submit(tmp_path / "%a", *array), good=True)
    assert "task 4 of 4" in log.read_text(encoding="utf-8")
    assert "task 2 of 2" in (tmp_path / "1").read_text(encoding="utf-8")
    assert sums(tmp_path / "nodes") == sums(tmp_path / "array") == sums(tmp_path / "here")
    assert "0 faults" in cluster.run("python", "-m", "jobs", "verify", tmp_path / "nodes")


@pytest.fixture(scope="module")
def alone(cluster: Cluster, dataset, tmp_path_factory) -> Path:
    """A run of one rank on one node, to compare the others with."""
    folder = tmp_path_factory.mktemp("alone")
    cluster.sbatch(folder / "log", "slurm/train.sh", dataset.folder, "--run", folder / "run", *TRAIN)
    assert status(folder / "run")["world"] == 1
    return folder / "run"


@pytest.mark.parametrize(
    ("options", "world", "hosts"),
    [
        (["--nodes=2", "--ntasks-per-node=1"], 2, 2),
        (["--nodes=4", "--ntasks-per-node=1"], 4, 4),
        (["--nodes=2", "--gpus-per-node=2", "--cpus-per-gpu=1"], 4, 2),  # the cluster's GPUs can only be counted
        (["--nodes=2", "--ntasks=3"], 3, 2),
    ],
)
def test_train_on_several_nodes(cluster: Cluster, alone: Path, dataset, tmp_path: Path, options, world, hosts):
    run = tmp_path / "run"
    cluster.sbatch(tmp_path / "log", *options, "slurm/train.sh", dataset.folder, "--run", run, *TRAIN)
    assert (status(run)["world"], status(run)["state"]) == (world, "finished")
    assert len(json.loads((run / "provenance.json").read_text(encoding="utf-8"))["starts"][0]["hosts"]) == hosts
    assert losses(run) == pytest.approx(losses(alone), rel=2e-3)
    assert list((run / "logs").glob("slurm-*.log"))
    assert not list((run / "rendezvous").iterdir())


def test_attention_through_submitit(cluster: Cluster, alone: Path, dataset, tmp_path: Path):
    run = tmp_path / "run"
    options = ["--nodes", 2, "--cpus-per-task", 1, "--time", "10:00", "--wait"]
    cluster.run("python", "-m", "jobs", "submit", "train", *options,
                dataset.folder, "--run", run, *TRAIN, "--model", "attention", "--init-from", alone)  # fmt: skip
    assert (status(run)["world"], status(run)["state"], status(run)["job"].isdigit()) == (2, "finished", True)
    assert (run / "logs").stat().st_mode & 0o777 == 0o700
    assert run.stat().st_mode & 0o777 == 0o750
    listed = cluster.run("python", "-m", "jobs", "runs", tmp_path)
    assert re.search(r"attention/tiny +2 +4/4 .*finished", listed), listed


def test_evaluate_as_an_array_counts_every_line_once(cluster: Cluster, alone: Path, dataset, tmp_path: Path):
    evaluate = [dataset.folder, "--run", alone, "--device", "cpu", "--split", "train"]
    tasks = ["--array=0-2", "slurm/evaluate.sh", *evaluate, "--name", "array"]
    cluster.end(cluster.submit(tmp_path / "%a", *tasks), good=True)
    cluster.run("python", "-m", "jobs", "evaluate", *evaluate, "--name", "here")
    array, here = (
        json.loads((alone / "evaluation" / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("array", "here")
    )
    assert array == here
    assert array["lines"] == dataset.totals["train"]


def test_align_as_an_array_is_what_one_task_writes(cluster: Cluster, alone: Path, dataset, tmp_path: Path):
    align = [dataset.folder, "--run", alone, "--device", "cpu", "--to", "words", "--split", "train"]
    tables = [dataset.folder.parent / f"{name}.parquet" for name in ("array", "here")]
    tasks = ["--array=0-2", "slurm/align.sh", *align, "--out", tables[0], "--name", "array"]
    cluster.end(cluster.submit(tmp_path / "%a", *tasks), good=True)
    cluster.run("python", "-m", "jobs", "align", *align, "--out", tables[1], "--name", "here")
    array, here = (pq.read_table(table) for table in tables)
    assert array.equals(here) and array.num_rows >= dataset.totals["train"]


def test_wrong_interface_is_one_message_in_bounded_time(cluster: Cluster, dataset, tmp_path: Path):
    said = cluster.sbatch(tmp_path / "log", "--nodes=2", "slurm/train.sh", dataset.folder, "--run", tmp_path / "run",
                          *TRAIN, good=False, HTR_IFACE="ib7", HTR_START_TIMEOUT="20")  # fmt: skip
    assert "HTR_IFACE=ib7: no such network interface" in said
    # both ranks say it, unless one started so late that srun ended it with the other
    assert len(re.findall("^error: ", said, re.M)) in (1, 2)


def test_gpus_that_torch_cannot_use(cluster: Cluster, dataset, tmp_path: Path):
    command = ["slurm/train.sh", dataset.folder, "--run", tmp_path / "run", *TRAIN, "--device", "auto"]
    said = cluster.sbatch(tmp_path / "log", "--gpus-per-node=1", *command, good=False)
    assert "Slurm gave GPUs" in said
    said = cluster.sbatch(tmp_path / "log2", "--gpus-per-node=2", "--ntasks-per-node=1", *command, good=False)
    assert "2 GPUs and 1 tasks a node" in said


def test_killed_rank_ends_the_job_and_the_next_one_resumes(cluster: Cluster, dataset, tmp_path: Path):
    run = tmp_path / "run"
    command = ["--nodes=2", "slurm/train.sh", dataset.folder, "--run", run, *TRAIN, "--steps", 100_000]
    command += ["--checkpoint-every", 10]
    first = cluster.submit(tmp_path / "first", *command)
    wait_for(lambda: (run / "checkpoints" / "step-000020.pt").exists())
    # a second job on the folder is refused while the first one lives
    assert "works in this run folder" in cluster.sbatch(tmp_path / "second", *command, good=False)
    [rank] = [process for process in psutil.process_iter() if is_rank(process, run, first, "1")]
    rank.kill()
    cluster.end(first, good=False)
    (run / "lock.json").unlink(missing_ok=True)  # instead of waiting a minute for its heartbeat to grow old
    third = cluster.submit(tmp_path / "third", *command)
    wait_for(
        lambda: (tmp_path / "third").exists() and "resumed at step" in (tmp_path / "third").read_text(encoding="utf-8")
    )
    cluster.run("scancel", third)
    cluster.end(third, good=False)


def is_rank(process: psutil.Process, run: Path, job: str, number: str) -> bool:
    try:
        environ = process.environ() if str(run) in process.cmdline() else {}
    except psutil.Error:  # one of the machine's that has just ended
        return False
    return (environ.get("SLURM_PROCID"), environ.get("SLURM_JOB_ID")) == (number, job)


def test_pipeline_waits_for_each_job(cluster: Cluster, source: Path, tmp_path: Path):
    run = tmp_path / "run"
    environ = {"DATASET": f"{tmp_path}/data", "NODES": "2", "TASKS": "2", "PREPROCESS": "--rows 9 --quality 90"}
    said = cluster.run("bash", "slurm/pipeline.sh", source, run, *TRAIN, **environ,
                       SPLIT="train", SBATCH_OUTPUT=f"{tmp_path}/%x-%a")  # fmt: skip
    assert re.search(r"preprocess \d+, train \d+, evaluate \d+", said)
    wait_for(lambda: list(run.glob("evaluation/*/metrics.json")))
    assert status(run)["world"] == 2
    assert json.loads((tmp_path / "data" / "plan.json").read_text(encoding="utf-8"))["settings"]["rows"] == 9


def test_doctor_finds_the_cluster_ready(cluster: Cluster):
    assert "verdict: ready" in cluster.run("python", "-m", "jobs", "doctor", "--device", "cpu")
    said = cluster.run("python", "-m", "jobs", "doctor", "--device", "cpu", good=False, HTR_IFACE="ib7")
    assert "verdict: not ready" in said
    assert "ib7" in said


def test_the_benchmark_of_a_start_tells_what_it_asks_the_storage_for(cluster: Cluster):
    options = ("--nodes", 2, "--rounds", 1, "--lines", 60, "--shards", "2,20")
    [said] = [line for line in cluster.run("python", "benchmarks/startup.py", *options).splitlines() if line[:1] == "{"]
    figures = json.loads(said)
    assert figures["seconds"] > 0 and figures["ratio_to_imports"] > 0
    few, many = figures["shards"]
    assert 1 <= few < 10 < many
