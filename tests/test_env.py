"""slurm/env.sh: which Python a job runs, whatever environment is active where it was submitted."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
ASK = ". slurm/env.sh; . slurm/env.sh; command -v python; echo ${PYTHONHOME:-none}"


def made(home: Path, stamp: bool) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").write_text("#!/bin/sh\n", encoding="utf-8")
    (home / "bin" / "python").chmod(0o755)
    if stamp:
        (home / ".htr-setup").write_text("x", encoding="utf-8")
    return home


@pytest.mark.parametrize(
    ("venv", "conda", "name", "wins", "told"),
    [  # whether it is there, and made by set-up
        ("set up", "foreign", "other", "venv", "conda is active, but .venv is used"),
        ("set up", "set up", "htr", "venv", "conda is active, but .venv is used"),
        ("set up", "foreign", "base", "venv", ""),
        ("set up", "", "", "venv", ""),
        ("plain", "foreign", "other", "venv", "conda is active, but .venv is used"),
        ("plain", "set up", "htr", "conda", ""),
        ("", "set up", "htr", "conda", ""),
        ("", "foreign", "other", "conda", "was not made by slurm/setup.sh, and there is no .venv"),
    ],
)
def test_which_python_wins(tmp_path, venv, conda, name, wins, told):
    home, environment = tmp_path / "home", tmp_path / "conda"
    (home / "slurm").mkdir(parents=True)
    shutil.copy(CHECKOUT / "slurm" / "env.sh", home / "slurm")
    if venv:
        made(home / ".venv", venv == "set up")
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONHOME": "/elsewhere",
        "VIRTUAL_ENV": "/elsewhere/venv",
    }
    if conda:
        made(environment, conda == "set up")
        environ |= {"CONDA_PREFIX": str(environment), "CONDA_DEFAULT_ENV": name}
        environ["PATH"] = f"{environment}/bin:{environ['PATH']}"
    done = subprocess.run(["bash", "-euc", ASK], cwd=home, env=environ, capture_output=True, text=True, timeout=60)
    python, python_home = done.stdout.split()
    assert python == str((home / ".venv" if wins == "venv" else environment) / "bin" / "python")
    assert python_home == "none" and done.returncode == 0
    assert done.stderr.count("htr: ") == bool(told) and told in done.stderr  # once, though it is sourced twice


def test_the_variables_are_not_left_to_those_who_source_it():
    done = subprocess.run(
        ["bash", "-c", '. slurm/env.sh; echo "${conda-unset} ${said-unset}"'],
        cwd=CHECKOUT, env=os.environ | {"CONDA_PREFIX": ""}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["unset", "unset"]
