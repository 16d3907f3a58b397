"""What is asked of Slurm through submitit, and what the site's file adds."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from htr import PRETRAINED
from jobs.cli.command_line import main
from jobs.launch import submitit_launcher
from jobs.launch.submitit_launcher import Request, dry_run, minutes, site_settings, wait


def request(**changes) -> Request:
    return Request(**({"cluster": "slurm", "name": "htr-train", "logs": Path("/shared/run/logs")} | changes))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:30", 90.5), ("8:00:00", 480), ("1-00", 1440), ("1-02:30", 1590), ("2-00:00:30", 2880.5)],
)
def test_time_limits_as_slurm_writes_them(text: str, expected: float):
    assert minutes(text) == expected


def test_bad_time_limit():
    with pytest.raises(ValueError, match="--time soon: write minutes"):
        minutes("soon")


def test_gpu_hours():
    assert request(nodes="4", gpus_per_node=4, time="8:00:00").gpu_hours == 128
    assert request(nodes="4", gpus_per_node=4).gpu_hours is None


def test_batch_script_says_what_was_asked():
    asked = request(nodes="2", gpus_per_node=4, cpus_per_task=8, partition="gpu", account="deaths", qos="long",
                    constraint="a100", mem="64G", time="1:00:00")  # fmt: skip
    lines = dry_run(asked, ["train", "data"]).splitlines()
    for option in ("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=8", "partition=gpu",
                   "account=deaths", "qos=long", "constraint=a100", "mem=64G", "time=1:00:00"):  # fmt: skip
        assert f"#SBATCH --{option}" in lines
    [srun] = [line for line in lines if line.startswith("srun ")]
    # Slurm's srun does not take the CPUs over from sbatch, and does not end the others when one rank dies
    assert "export SRUN_CPUS_PER_TASK=$(htr_cpus_per_rank 4)" in lines
    assert "--kill-on-bad-exit=1" in srun and "--distribution=block" in srun


def test_site_file_reaches_both_ways_of_submitting(tmp_path: Path, monkeypatch, capsys):
    site = tmp_path / "site.env"
    site.write_text("HTR_PARTITION=gpu\nHTR_ACCOUNT=deaths\nHTR_TIME=2:00:00\nHTR_CPUS_PER_GPU=6\n")
    monkeypatch.setenv("HTR_SITE", str(site))
    assert site_settings()["partition"] == "gpu"
    assert main(["submit", "train", "--dry-run", "--gpus-per-node", "2", "--run", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    for option in ("partition=gpu", "account=deaths", "time=2:00:00", "cpus-per-task=6"):
        assert f"#SBATCH --{option}\n" in text
    assert "GPU-hours: 4 at most" in text
    monkeypatch.setenv("SBATCH_PARTITION", "debug")  # what the user exported wins over the site's file
    assert site_settings()["partition"] == "debug"


@pytest.mark.parametrize("ask", ["--dry-run", "--print-folder"])
@pytest.mark.parametrize(
    "words",
    [
        ["train", "data", "--run", "run"],
        ["evaluate", "data", "--model", str(PRETRAINED)],
        ["transcribe", "scans", "--out", "texts.csv"],
        ["preprocess", "table.csv", "--out", "data"],
        ["align", "data", "--run", "run", "--to", "words"],
    ],
)
def test_what_only_asks_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list, ask: str):
    monkeypatch.chdir(tmp_path)
    assert main(["submit", *words, ask]) == 0
    assert capsys.readouterr().out.strip() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["ctc-%j", "a\nb", "back\\slash"])
def test_a_folder_whose_name_slurm_would_read_otherwise_is_refused(tmp_path: Path, capsys, name: str):
    assert main(["submit", "train", "--cluster", "slurm", "--dry-run", "--run", str(tmp_path / name)]) == 1
    said = capsys.readouterr()
    assert (
        said.err.startswith("error: ") and said.err.count("\n") == 1 and not said.out and not list(tmp_path.iterdir())
    )


def test_contradictions_are_refused(capsys, tmp_path: Path):
    run = ["--run", str(tmp_path / "run")]
    assert main(["submit", "train", "--dry-run", "--gpus-per-node", "4", "--tasks-per-node", "2", *run]) == 1
    assert "a rank takes one GPU" in capsys.readouterr().err
    assert main(["submit", "train", "--dry-run", "--array", "4", *run]) == 1
    assert "one job of many ranks" in capsys.readouterr().err
    assert main(["submit", "train", "--cluster", "local", "--nodes", "2", *run]) == 1
    assert "this machine is one node" in capsys.readouterr().err


@pytest.mark.parametrize("of", [["train", "data", "--run"], ["preprocess", "lines.csv", "--array", "5000", "--out"]])
@pytest.mark.parametrize("left", ["", "logs", "logs/7_submitted.pkl", "status.json"])
def test_what_slurm_refuses_leaves_no_folder(tmp_path: Path, monkeypatch, capsys, of: list[str], left: str):
    """But what was there before, or is another submission's."""
    folder = tmp_path / "made"

    def refuse(request: Request, argv: list[str], chain: int = 1) -> None:
        request.logs.mkdir(parents=True, exist_ok=True)
        if left and left != "logs":
            (folder / left).touch()
        raise ValueError("Slurm refused the job: Invalid partition")

    monkeypatch.setattr(submitit_launcher, "submit", refuse)
    if left == "logs":
        (folder / left).mkdir(parents=True)
    assert main(["submit", *of, str(folder), "--cluster", "slurm"]) == 1
    assert "Invalid partition" in capsys.readouterr().err
    assert folder.exists() == bool(left)


def test_wrong_option_of_the_verb_is_said_at_submission(tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        main(["submit", "train", "--dry-run", "--modle", "ctc"])
    assert "unrecognized arguments: --modle" in capsys.readouterr().err


def test_slurms_accounting_is_not_asked_four_times_a_second(tmp_path: Path):
    """By `submit --wait`: submitit asks it as often as it must, if it is not made to."""
    forced = []

    def done(force_check: bool) -> bool:
        forced.append(force_check)
        return len(forced) == 3

    paths = SimpleNamespace(stdout=tmp_path / "out", stderr=tmp_path / "err", folder=tmp_path)
    assert wait([SimpleNamespace(done=done, paths=paths, job_id="7", num_tasks=0)]) == 0
    assert forced == [False] * 3


def test_a_submit_that_is_told_to_end_ends_what_runs_here_and_leaves_what_slurm_has(tmp_path: Path, capsys):
    """A training that nobody waits for any more would go on unseen. What it does at its end is waited for."""
    ends = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('written', flush=True), sys.exit(143)));"
    )
    ends += " print('begun', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", ends], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        its_paths = SimpleNamespace(folder=tmp_path, **{name: tmp_path / name for name in ("stdout", "stderr")})
        its_paths.result_pickle = tmp_path / "result"

        class Local(submitit_launcher.submitit.LocalJob):
            job_id, paths = str(process.pid), its_paths

            def __init__(self) -> None:
                self._process, self._cancel_at_deletion = None, False

            def done(self, force_check: bool = False) -> bool:
                return process.poll() is not None

        def told() -> None:
            raise SystemExit(143)

        slurms = SimpleNamespace(job_id="17", paths=its_paths, done=lambda force_check: False)
        with pytest.raises(SystemExit):
            wait([Local(), slurms], told)
        assert process.poll() == 143 and process.stdout.read() == "written\n"
        assert capsys.readouterr().err == "submit: job 17 goes on; scancel 17 ends it\n"
