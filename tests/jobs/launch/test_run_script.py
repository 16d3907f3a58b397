"""slurm/run.sh in a job: which folder keeps the log, whatever names it. srun is a script that prints its arguments."""

import os
import subprocess
from pathlib import Path

import pytest
from bed import PATIENT_S

CHECKOUT = Path(__file__).parents[3]
SRUN = '#!/usr/bin/env bash\necho "srun got $*"\n'


def run(folder: Path, verb: str, *arguments: str, srun=SRUN, **told: str) -> subprocess.CompletedProcess[str]:
    """The job script of this verb as Slurm starts it on one node, in `folder`."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "srun").write_text(srun, encoding="utf-8")
    (tools / "srun").chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environ |= {"PATH": f"{tools}:{environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "2"}
    environ |= {"HTR_HOME": str(CHECKOUT), **told}
    command = ["bash", str(CHECKOUT / "slurm" / f"{verb}.sh"), *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENT_S)


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["ds", "--run", "runs/a"], "runs/a"),
        (["ds", "--run=runs/b"], "runs/b"),
        (["--config", "mine.yaml"], "runs/of-the-file"),
        (["--config=mine.yaml", "--run", "runs/c"], "runs/c"),  # options win
        (["ds", "--model", "conv"], "runs/conv"),  # the default
    ],
)
def test_a_training_keeps_its_log_and_its_code_in_its_run(tmp_path: Path, arguments: list[str], where: str):
    (tmp_path / "mine.yaml").write_text("run: runs/of-the-file\ndata: {dataset: ds}\n", encoding="utf-8")
    done = run(tmp_path, "train", *arguments)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / where / "logs" / "slurm-7.log").read_text(encoding="utf-8")
    assert "python -m jobs train" in log and log == done.stdout
    assert (tmp_path / where / "code" / "job-7" / "jobs" / "train.py").exists()


def test_a_job_goes_on_and_slurms_log_too_where_the_folder_takes_no_more_lines(tmp_path: Path):
    logs = tmp_path / "runs" / "a" / "logs"
    logs.mkdir(parents=True)
    (logs / "slurm-7.log").symlink_to("/dev/full")
    much = (
        "#!/usr/bin/env bash\nfor i in {1..9999}; do echo 'a line of forty characters, more or less'; done\necho end\n"
    )
    done = run(tmp_path, "align", "ds", "--run", "runs/a", "--to", "words", srun=much)  # more than pipes hold
    assert done.returncode == 0 and done.stdout.endswith("\nend\n") and len(done.stdout.splitlines()) == 10_000
    assert f"error: {Path('runs/a/logs/slurm-7.log')} takes no more lines, this log goes on\n" in done.stderr


def test_other_verbs_have_theirs(tmp_path: Path):
    for verb, arguments, folder in (
        ("preprocess", ["lines.csv", "--out", "data"], "data"),
        ("transcribe", ["scans", "--out", "texts.csv"], "texts.csv.parts"),
        ("align", ["ds", "--run", "runs/a", "--to", "words"], "runs/a"),
    ):
        assert run(tmp_path, verb, *arguments).returncode == 0
        assert f"jobs {verb}" in (tmp_path / folder / "logs" / "slurm-7.log").read_text(encoding="utf-8")


def test_a_wrong_option_ends_the_job_in_one_line_before_srun(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("optim: {lrr: 1}\n", encoding="utf-8")
    for arguments, said in (
        (["ds", "--optim.lrr", "3"], "did you mean --optim.lr?"),
        (["ds", "--config", "mine.yaml"], "did you mean optim.lr?"),
    ):
        done = run(tmp_path, "train", *arguments)
        assert done.returncode and "srun" not in done.stdout
        assert said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"SLURM_HET_SIZE": "2"}, "a heterogeneous job: its parts don't see each other's ranks"),
        ({"SLURM_GPUS": "6", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NUM_NODES": "2"},
         "6 GPUs on 2 nodes, 4 of them here: nodes need the same number each, ask with --gpus-per-node"),
        ({"SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "3"}, "4 GPUs and 3 tasks a node"),
        ({"SLURM_NTASKS": "9", "SLURM_CPUS_ON_NODE": "4", "SLURM_JOB_CPUS_PER_NODE": "4"}, "9 ranks on a node"),
    ],
)  # fmt: skip
def test_what_no_ranks_can_be_laid_out_on_is_refused_before_srun(tmp_path: Path, told: dict[str, str], said: str):
    done = run(tmp_path, "train", "ds", "--run", "runs/a", **told)
    assert done.returncode == 1 and said in done.stderr and "srun got" not in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("verb", ["evaluate", "preprocess", "transcribe", "align"])
def test_an_array_with_gaps_is_refused_before_anything_is_made(tmp_path: Path, verb: str):
    gaps = {"ID": "2", "COUNT": "3", "MIN": "0", "MAX": "5", "STEP": "1"}
    told = {f"SLURM_ARRAY_TASK_{name}": value for name, value in gaps.items()} | {"SLURM_ARRAY_JOB_ID": "7"}
    where = ["--run", "runs/a"] if verb in ("evaluate", "align") else ["--out", "made.csv"]
    done = run(tmp_path, verb, "ds", *where, *["--to", "words"] * (verb == "align"), **told)
    assert done.returncode == 1 and "srun got" not in done.stdout
    assert done.stderr == "error: a job array of 3 tasks from 0 to 5 has gaps: use --array=0-2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_gpus_that_are_the_same_on_each_node(tmp_path: Path):
    told = {"SLURM_GPUS": "a100:8", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NUM_NODES": "2"}
    done = run(tmp_path, "train", "ds", "--run", "runs/a", **told, SLURM_CPUS_PER_TASK="4")
    assert "--ntasks=8 --ntasks-per-node=4 --cpus-per-task=4" in done.stdout, done.stderr


SBATCH = """#!/usr/bin/env bash
echo "$*" >>"$0.asked"
count=$(wc -l <"$0.asked")
if [ "$count" = "$REFUSED" ]; then echo "sbatch: error: Invalid partition" >&2; exit 1; fi
echo "10$count;cluster"
"""
SCANCEL = '#!/usr/bin/env bash\necho "$*" >>"$0.asked"\n'


@pytest.mark.parametrize(("refused", "cancelled"), [(1, ""), (2, "101"), (3, "101 102"), (0, "")])
def test_a_pipeline_cancels_what_it_queued_when_a_later_job_is_refused(tmp_path: Path, refused, cancelled):
    for name, content in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(content, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scancel.asked").touch()
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REFUSED": str(refused)}
    (tmp_path / "lines").mkdir()
    command = ["bash", str(CHECKOUT / "slurm" / "pipeline.sh"), "./lines", "run", "--steps", "9"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENT_S)
    assert (tmp_path / "scancel.asked").read_text().strip() == cancelled
    if not refused:
        assert done.returncode == 0 and "preprocess 101, train 102, evaluate 103; then" in done.stdout
        assert "--dependency=afterok:102 " in (tmp_path / "sbatch.asked").read_text()
        assert f"{CHECKOUT}/slurm/train.sh data/lines --run run --steps 9\n" in (tmp_path / "sbatch.asked").read_text()
    else:
        assert done.returncode == 1 and "Invalid partition" in done.stderr
    for job in cancelled.split():
        assert f"job {job}" in done.stderr


@pytest.mark.parametrize(
    ("source", "options", "preprocess", "said"),
    [
        ("lines.csv", ["--stepz", "9"], "", "did you mean --steps?"),
        ("lines.csv", [], "--quality 0", "--quality 0: give 1 to 100"),
        ("line.csv", [], "", "error: line.csv: no such file or folder"),
    ],
)
def test_a_pipeline_with_a_wrong_option_queues_nothing(tmp_path: Path, source: str, options, preprocess, said: str):
    """The training's would be said when the preprocess has run for hours."""
    (tmp_path / "sbatch").write_text(SBATCH, encoding="utf-8")
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "lines.csv").touch()
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PREPROCESS": preprocess, "REFUSED": "0"}
    command = ["bash", str(CHECKOUT / "slurm" / "pipeline.sh"), source, "run", *options]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENT_S)
    assert done.returncode and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.csv", "sbatch"]
