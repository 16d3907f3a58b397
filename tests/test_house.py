"""What holds the house together: which way imports go, one place for the pins, and shell scripts that parse."""

import ast
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parent.parent
PACKAGES = ("htr", "shards", "jobs")
SOURCES = [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_arrows_go_down_only():
    may = {"htr": {"htr"}, "shards": {"htr", "shards"}, "jobs": {"htr", "shards", "jobs"}}
    for path in SOURCES:
        package = path.relative_to(CHECKOUT).parts[0]
        ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
        assert ours <= may[package], path
    for path in (CHECKOUT / "shards").glob("*.py"):
        assert not [name for name in imports(path) if name.startswith(("htr.models", "htr.reader"))], path


@pytest.mark.parametrize(
    ("module", "only"),
    [("horovod", "jobs/distributed/process_group.py"), ("submitit", "jobs/launch/submitit_launcher.py")],
)
def test_one_file_alone_imports_it(module: str, only: str):
    users = [str(p.relative_to(CHECKOUT)) for p in SOURCES if module in {name.split(".")[0] for name in imports(p)}]
    assert users == [only]


def test_pins_stand_in_pyproject_alone():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e .[simulate,onnx,test]"]
    assert set(project["optional-dependencies"]) == {"ring", "simulate", "onnx", "test"}
    # what setup.sh needs beside them, and no Python package that pyproject pins
    names = {entry.replace(">=", "=").split("=")[0] for entry in conda}
    assert names == {"python", "pip", "make", "cmake", "cxx-compiler"}
    [python] = [entry for entry in conda if entry.startswith("python=")]
    version = python.removeprefix("python=")
    assert project["requires-python"].startswith(f">={version},")
    assert f"python{version}" in (CHECKOUT / "slurm" / "setup.sh").read_text()


def test_every_library_that_breaks_is_pinned():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    pinned = {entry.split("==")[0] for entry in project["dependencies"] if "==" in entry}
    assert {"torch", "numpy", "opencv-python-headless", "pyarrow", "webdataset", "submitit", "safetensors"} <= pinned
    assert project["optional-dependencies"]["ring"][0].startswith("horovod==")


@pytest.mark.parametrize(
    "script", [*sorted(CHECKOUT.glob("slurm/*.sh")), *sorted(CHECKOUT.glob("tests/*.sh"))], ids=str
)
def test_shell_scripts_parse(script: Path):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("verb", ["preprocess", "train", "evaluate", "transcribe"])
def test_help_and_dry_run_need_no_cluster(verb: str, tmp_path: Path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    script = f"slurm/{verb}.sh"

    def run(*options: str) -> str:
        command = ["bash", script, *options]
        done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"python -m jobs {verb}" in run("--help")
    words = {"preprocess": ["lines.csv", "--out", str(tmp_path)], "train": ["--run", str(tmp_path)],
             "evaluate": ["--run", str(tmp_path)],
             "transcribe": ["scans", "--out", f"{tmp_path}/o.csv"]}[verb]  # fmt: skip
    text = run("--dry-run", "--nodes=4", "--gpus-per-node=2", "--time", "3:00:00", *words)
    assert "#SBATCH --nodes=4" in text
    assert "#SBATCH --ntasks-per-node=2" in text
    assert "srun " in text and "--kill-on-bad-exit=1" in text
    assert "GPU-hours: 24 at most" in text
    assert not list(tmp_path.iterdir())  # nothing was begun
