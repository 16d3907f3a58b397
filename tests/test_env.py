"""slurm/env.sh: which Python a job runs, whatever environment is active where it was submitted."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
ASK = ". slurm/env.sh; . slurm/env.sh; command -v python; echo ${PYTHONHOME:-none}"


def copy_of_scripts(home: Path) -> None:
    (home / "slurm").mkdir(parents=True)
    for name in ("env.sh", "toolchain.sh"):
        shutil.copy(CHECKOUT / "slurm" / name, home / "slurm")


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
    copy_of_scripts(home)
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
    done = subprocess.run(["bash", "-euc", ASK], cwd=home, env=environ, capture_output=True, text=True, timeout=250)
    python, python_home = done.stdout.split()
    assert python == str((home / ".venv" if wins == "venv" else environment) / "bin" / "python")
    assert python_home == "none" and done.returncode == 0
    assert done.stderr.count("htr: ") == bool(told) and told in done.stderr  # once, though it is sourced twice


def test_the_variables_are_not_left_to_those_who_source_it():
    done = subprocess.run(
        ["bash", "-c", '. slurm/env.sh; echo "${conda-unset} ${said-unset}"'],
        cwd=CHECKOUT, env=os.environ | {"CONDA_PREFIX": ""}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.stdout.split() == ["unset", "unset"]


@pytest.mark.parametrize("strict", ["-c", "-euc"])
@pytest.mark.parametrize(("loads", "told"), [("export LOADED=$2 $UNSET", ""), ("false", "module load cuda/99 failed")])
def test_modules_of_the_site_are_loaded_in_a_batch_script_too(tmp_path, strict: str, loads: str, told: str):
    """There `module` is no function yet, and it reads variables that are not set."""
    copy_of_scripts(tmp_path / "home")
    (tmp_path / "home" / "slurm" / "site.env").write_text('HTR_MODULES="cuda/99"\n')
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(f"module() {{ {loads}; }}\n")
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MODULESHOME": str(tmp_path)}
    ask = '. slurm/env.sh || { echo "failed $?"; exit 0; }; echo "${LOADED:-none} $-"'
    done = subprocess.run(
        ["bash", strict, ask], cwd=tmp_path / "home", env=environ, capture_output=True, text=True, timeout=250
    )
    assert told in done.stderr and done.returncode == 0
    said, flags = done.stdout.split()
    assert (said, flags) == ("failed", "1") if told else (said == "cuda/99" and ("u" in flags) == (strict == "-euc"))
