"""The scaling experiment: what is submitted, what is taken from the logs, and what a second call does."""

import csv
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from beating import beats_when_watched

from jobs import scale
from jobs.cli.command_line import main, parse
from jobs.launch import slurm_state, submitit_launcher
from jobs.scaling import trainings
from jobs.scaling.results import figures, training_lines
from jobs.training import run_lock


def log(run: Path, steps: list[int], speeds: list[float], batch: int = 8, exchange: float = 0.1) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({"batch": batch}))
    with open(run / "metrics.jsonl", "a") as file:
        for step, speed in zip(steps, speeds, strict=True):
            shares = {"data_share": 0.02, "exchange_share": exchange, "compute_share": 0.88 - exchange}
            file.write(json.dumps({"step": step, "lines_per_s": speed, **shares}) + "\n")
        file.write(json.dumps({"step": steps[-1], "dev_cer": 0.5}) + "\n")


@pytest.fixture
def submitted(monkeypatch) -> list:
    """Requests in place of jobs: (request, argv of train, CPUs that the job would have)."""
    found = []

    def submit(request, argv):
        if request.cluster == "slurm":
            assert f"#SBATCH --nodes={request.nodes}\n" in submitit_launcher.dry_run(request, argv)
        found.append((request, argv, len(os.sched_getaffinity(0))))
        return [SimpleNamespace(job_id=str(100 + len(found)))]

    monkeypatch.setattr(submitit_launcher, "submit", submit)
    monkeypatch.setattr(submitit_launcher, "site_settings", lambda: {"partition": "gpu", "cpus_per_gpu": "6"})
    monkeypatch.setattr(slurm_state, "ask_slurm", lambda jobs: dict.fromkeys(jobs, "PENDING"))
    return found


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(f"--{name}") + 1]


def on_slurm(out: Path, *more: str) -> list[str]:
    return ["scale", "data", "--cluster", "slurm", "--out", str(out), "--gpus-per-node", "4", *more]


# --- what is submitted


def test_all_sizes_are_submitted_at_once(tmp_path: Path, submitted: list):
    more = ["--gpus", "8,1,4", "--time", "20", "--size", "tiny", "--where", "a=1", "--where", "b=2", "--deterministic"]
    assert main(on_slurm(tmp_path, *more)) == 0
    asked = [request for request, _, _ in submitted]
    assert [(r.nodes, r.gpus_per_node, r.ranks_per_node) for r in asked] == [("1", 1, 1), ("1", 4, 4), ("2", 4, 4)]
    assert all((r.partition, r.time, r.cpus_per_task, r.dependency) == ("gpu", "20", 6, None) for r in asked)
    for (_, argv, _), ranks in zip(submitted, (1, 4, 8), strict=True):
        assert option(argv, "batch") == str(32 * ranks) and option(argv, "run") == str(tmp_path / f"ranks-{ranks}")
        _, asked_of_train = parse(argv)  # train understands it
        assert (
            asked_of_train.model.size,
            asked_of_train.data.where,
            asked_of_train.runtime.deterministic,
        ) == (
            "tiny",
            ["a=1", "b=2"],
            True,
        )
        assert (
            asked_of_train.schedule.steps == 60
            and asked_of_train.runtime.evaluate_every == 0
            and asked_of_train.runtime.checkpoint_every > 60
        )
        assert asked_of_train.runtime.log_every == 5 and asked_of_train.schedule.warmup == 0  # no short lines first


def test_strong_scaling_and_one_by_one(tmp_path: Path, submitted: list):
    assert main(on_slurm(tmp_path, "--gpus", "2,4", "--strong", "--batch-per-rank", "16", "--one-by-one")) == 0
    assert [option(argv, "batch") for _, argv, _ in submitted] == ["32", "32"]
    assert [request.dependency for request, _, _ in submitted] == [None, "afterany:101"]


def test_cpu_ranks_of_a_cluster_without_gpus(tmp_path: Path, submitted: list):
    assert main(["scale", "data", "--cluster", "slurm", "--out", str(tmp_path), "--gpus", "4",
                 "--tasks-per-node", "2"]) == 0  # fmt: skip
    [(request, _, _)] = submitted
    assert (request.nodes, request.gpus_per_node, request.ranks_per_node, request.cpus_per_task) == ("2", 0, 2, None)


def test_a_rank_has_as_many_cpus_at_every_size(monkeypatch):
    held = {0, 1, 2, 3, 4, 5}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(held))
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cpus: (held.clear(), held.update(cpus)))
    for ranks, cpus in ((1, 1), (2, 2), (4, 4)):
        with scale.cpus_for(ranks, 4, "local"):
            assert len(held) == cpus
        assert len(held) == 6
    with scale.cpus_for(1, 4, "slurm"):
        assert len(held) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gpus", "6"], "6 ranks do not fill whole nodes of 4"),
        (["--tasks-per-node", "4"], "a rank takes one GPU"),
        (["--strong", "--gpus", "1,8", "--batch-per-rank", "4"], "a global batch of 4 for 8 ranks"),
        (["--steps", "2"], "at least 3"),
        (["--figure", "compute=1"], "add --predict"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, submitted: list, capsys, more: list[str], message: str):
    assert main(on_slurm(tmp_path, *more)) == 1
    assert message in capsys.readouterr().err
    assert not submitted


def test_it_must_be_said_what_a_node_holds(tmp_path: Path, submitted: list, capsys):
    assert main(["scale", "data", "--cluster", "slurm", "--out", str(tmp_path)]) == 1
    assert "say how many ranks a node holds" in capsys.readouterr().err


def test_sizes_are_numbers(capsys):
    with pytest.raises(SystemExit):
        parse(["scale", "data", "--gpus", "1,two"])
    assert "write numbers of ranks as 1,2,4,8" in capsys.readouterr().err


# --- the same command again


def test_done_is_not_redone_and_missing_is_said(tmp_path: Path, submitted: list, capsys, monkeypatch):
    command = on_slurm(tmp_path, "--gpus", "1,2,4")
    assert main(command) == 0 and len(submitted) == 3
    log(tmp_path / "ranks-1", [5, 10, 15], [9, 10, 10])
    log(tmp_path / "ranks-2", [5, 10, 15], [9, 18, 18])
    for ranks in (1, 2):
        (tmp_path / f"ranks-{ranks}" / "status.json").write_text('{"state": "finished"}')
    capsys.readouterr()
    assert main(command) == 0 and len(submitted) == 3
    said = capsys.readouterr()
    assert "4 ranks: queued" in said.err and "Not measured yet: 4 ranks" in said.out and "| 0.900 |" in said.out
    monkeypatch.setattr(slurm_state, "ask_slurm", lambda jobs: dict.fromkeys(jobs, "TIMEOUT"))
    assert main(["scale", "--collect", "--out", str(tmp_path)]) == 1 and len(submitted) == 3  # the rest it knows
    said = capsys.readouterr()
    assert "job 103 failed (Slurm says TIMEOUT)" in said.err and "| 0.900 |" in said.out
    assert main(["scale", "--collect", "--out", str(tmp_path / "other")]) == 1
    assert "nothing was submitted there" in capsys.readouterr().err
    main(command)
    assert [request.name for request, _, _ in submitted[3:]] == ["htr-scale-4"]


@pytest.mark.parametrize("off", [-7200, 7200])
def test_a_training_that_is_seen_to_beat_is_not_submitted_again(tmp_path: Path, submitted: list, monkeypatch, off):
    """Its clock is two hours off and Slurm does not answer: it lives all the same; a dead one is submitted again."""
    command = on_slurm(tmp_path, "--gpus", "1,2")
    assert main(command) == 0
    monkeypatch.setattr(slurm_state, "ask_slurm", lambda jobs: {})
    monkeypatch.setattr(trainings, "UNKNOWN_JOB_WAIT_S", 0.0)
    monkeypatch.setattr(run_lock, "BEAT_INTERVAL_S", 0.2)
    for ranks in (1, 2):
        run = tmp_path / f"ranks-{ranks}"
        run.mkdir(exist_ok=True)
        (run / "status.json").write_text('{"state": "running"}')
        (run / "lock.json").write_text("{}")
        os.utime(run / "lock.json", (time.time() + off,) * 2)
    beats_when_watched(monkeypatch, tmp_path / "ranks-1" / "lock.json", off)
    main(command)
    assert [request.name for request, _, _ in submitted[2:]] == ["htr-scale-2"]


def test_other_options_want_another_folder(tmp_path: Path, submitted: list, capsys):
    assert main(on_slurm(tmp_path, "--gpus", "1")) == 0
    assert main(on_slurm(tmp_path, "--gpus", "1", "--size", "tiny")) == 1
    said = capsys.readouterr().err
    assert "was trained with other options" in said and "--size tiny" in said and "another --out" in said


# --- figures, table and picture


def test_the_warm_up_part_does_not_count(tmp_path: Path):
    log(tmp_path, list(range(5, 65, 5)), [1, 1, 1, 1, 20, 30, 40, 50, 60, 70, 80, 90])
    found = figures(tmp_path)
    assert (found["lines_per_s"], found["lowest"], found["highest"]) == (55, 20, 90)
    assert (found["first_step"], found["last_step"], found["log_lines"]) == (21, 60, 8)
    assert found["exchange_share"] == pytest.approx(0.1)


def test_a_start_that_was_lost_does_not_count(tmp_path: Path):
    log(tmp_path, [5, 10], [1, 1])
    log(tmp_path, [5, 10, 15], [7, 8, 9])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "lines_')  # while it is written
    assert [line["lines_per_s"] for line in training_lines(tmp_path)] == [7, 8, 9]


def test_trained_and_collected_on_this_machine(tmp_path: Path, dataset, capsys):
    out = tmp_path / "out"
    command = ["scale", str(dataset.folder), "--cluster", "local", "--tasks-per-node", "2", "--gpus", "1,2"]
    command += ["--batch-per-rank", "2", "--steps", "3", "--size", "tiny", "--out", str(out), "--device", "cpu"]
    assert main(command) == 0
    with open(out / "scaling.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["ranks"], row["batch"], row["first_step"], row["last_step"]) for row in rows] == [
        ("1", "2", "2", "3"), ("2", "4", "2", "3"),
    ]  # fmt: skip
    one, two = (float(row["lines_per_s"]) for row in rows)
    assert float(rows[1]["efficiency"]) == pytest.approx(two / 2 / one, rel=1e-4)
    assert float(rows[0]["exchange_share"]) < float(rows[1]["exchange_share"])
    assert json.loads((out / "ranks-2" / "status.json").read_text(encoding="utf-8"))["world"] == 2
    assert (out / "scaling.md").read_text(encoding="utf-8") == capsys.readouterr().out
    assert (out / "scaling.png").read_bytes().startswith(b"\x89PNG")
    first = (out / "ranks-1" / "metrics.jsonl").read_bytes()
    assert main(command) == 0  # nothing is trained again
    assert (out / "ranks-1" / "metrics.jsonl").read_bytes() == first
