"""What holds the house together: which way imports go, one place for the pins, and shell scripts that parse."""

import ast
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from arrows import House, circles, files_in_folders, floors, named

CHECKOUT = Path(__file__).parent.parent
PACKAGES = ("htr", "shards", "jobs")
SOURCES = [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"))]
HOUSE = House.of(CHECKOUT)
# The rooms, from the ground up: a room uses only those of floors below its own. Two rooms of one floor know nothing of
# each other. See docs/architecture.md.
FLOORS = (
    ("htr.base", "htr.io"),
    ("htr.lines", "htr.metrics", "htr.reliability"),
    ("htr.forms", "htr.decoding"),
    ("htr.models", "htr.synth"),
    ("htr",),
    ("shards",),
    ("jobs.distributed",),
    ("jobs.cli",),
    ("jobs.launch", "jobs.training"),
    ("jobs.evaluation", "jobs.scaling", "jobs.transcription"),
    ("jobs.keying", "jobs.html"),
    ("jobs",),  # the verbs
)
MAX_FILES = 30  # in a folder
MAX_LINES = 300  # of a file
OLD_NAMES = """
    Alphabet Bystander Beacon BadLine ChannelNorm Clues FAR Frames LineConv LineLSTM LineNorm MOST Maker Material
    Mixture Notice Place Pulse Reading Ring RingError SURE STOP Upright astray by_symbol by_whom chores likes
    material notice pulse remember to_ink unprint unshared
"""
HEAD = ("align", "evaluate", "preprocess", "train", "transcribe")  # slurm/NAME.sh begins with finding the checkout


def test_every_room_has_a_floor():
    known = [room for floor in FLOORS for room in floor]
    assert len(known) == len(set(known)) and set(known) == set(HOUSE.room_arrows())


def test_arrows_go_down_only():
    level = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    wrong = [
        f"{module} -> {other}"
        for module, others in HOUSE.arrows.items()
        for other in others
        if HOUSE.room(module) != HOUSE.room(other) and level[HOUSE.room(other)] >= level[HOUSE.room(module)]
    ]
    assert not wrong


def test_shards_need_no_network():
    assert not HOUSE.room_arrows()["shards"] & {"htr", "htr.models", "htr.decoding"}


def test_no_circle_of_files_or_rooms():
    assert not circles(HOUSE.arrows) and not circles(HOUSE.room_arrows())


def test_circles_and_floors_of_a_known_graph():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(arrows) == [{"b", "c"}]
    assert floors(arrows) == {"a": 2, "b": 1, "c": 1, "d": 0}


def test_verbs_are_imported_by_nobody():
    from jobs.cli.command_line import VERBS

    verbs = HOUSE.verbs()
    assert verbs == {f"jobs.{verb}" for verb in VERBS}
    assert not [f"{module} -> {other}" for module, others in HOUSE.arrows.items() for other in others & verbs]


def test_no_folder_is_crowded():
    assert not {folder: count for folder, count in files_in_folders(CHECKOUT).items() if count > MAX_FILES}


def test_no_file_is_too_long():
    lines = {str(path.relative_to(CHECKOUT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path: count for path, count in lines.items() if count > MAX_LINES}


def test_old_names_are_gone():
    """See docs/architecture.md: what the names of before are called now."""
    found, old = set(), set(OLD_NAMES.split())
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (getattr(node, kind, None) for kind in ("id", "attr", "arg", "name"))
            found |= {(name, path.name) for name in names if name in old}
    assert not found


@pytest.mark.parametrize("verb", HEAD)
def test_scripts_find_the_checkout_in_the_same_way(verb: str):
    """sbatch runs a copy of the script elsewhere, so that these lines can't be sourced: they stand in each."""

    def head(name: str) -> str:
        text = (CHECKOUT / "slurm" / f"{name}.sh").read_text(encoding="utf-8")
        start, end = text.index("set -euo pipefail"), text.index('. "$HTR_HOME/slurm/run.sh"')
        return text[start:end]

    assert head(verb) == head(HEAD[0]) and "SLURM_SUBMIT_DIR" in head(verb)
    last = (CHECKOUT / "slurm" / f"{verb}.sh").read_text(encoding="utf-8").splitlines()[-1]
    assert last == f'. "$HTR_HOME/slurm/run.sh" {verb} "$@"'


def test_no_other_script_needs_that_head():
    users = {path.stem for path in CHECKOUT.glob("slurm/*.sh") if 'slurm/run.sh" ' in path.read_text(encoding="utf-8")}
    assert users == set(HEAD)


@pytest.mark.parametrize(
    ("module", "only"),
    [
        ("horovod", "jobs/distributed/horovod_backend.py"),
        ("torch.distributed", "jobs/distributed/torch_backend.py"),
        ("submitit", "jobs/launch/submitit_launcher.py"),
        ("concurrent.futures.ProcessPoolExecutor", "htr/worker_pool.py"),
        ("multiprocessing.get_context", "htr/worker_pool.py"),
    ],
)
def test_one_file_alone_imports_it(module: str, only: str):
    users = [
        str(path.relative_to(CHECKOUT))
        for path in SOURCES
        if any(f"{name}.".startswith(f"{module}.") for name in named(path))
    ]
    assert users == [only]


def test_pins_stand_in_pyproject_alone():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text(encoding="utf-8"))
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
    assert f"python{version}" in (CHECKOUT / "slurm" / "setup.sh").read_text(encoding="utf-8")


def test_every_library_that_breaks_is_pinned():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
        done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, text=True, timeout=250)
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
