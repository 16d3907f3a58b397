"""The code of a run is kept as it was; a job that comes back runs the same, whatever the checkout has become."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli.code_version import code_version
from jobs.launch import code_snapshot


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch) -> Path:
    """A small checkout of its own, to change."""
    folder = tmp_path / "checkout"
    for part in ("jobs", "slurm", "htr/pretrained", "shards", ".venv/bin"):
        (folder / part).mkdir(parents=True)
    (folder / "jobs" / "__init__.py").write_text("")
    (folder / "jobs" / "hello.py").write_text("print('first')\n")
    (folder / "htr" / "pretrained" / "weights").write_bytes(bytes(1000))
    (folder / "pyproject.toml").write_text("")
    (folder / "slurm" / "env.sh").write_text("")
    monkeypatch.setattr(code_snapshot, "CHECKOUT", folder)
    return folder


def said(home: Path, where: Path) -> str:
    """What the snapshot's module prints to a python that works in the checkout, as jobs do."""
    environ = os.environ | {"PYTHONPATH": f"{home}:{where}", "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "jobs.hello"]
    return subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, check=True).stdout


def test_a_job_that_comes_back_runs_what_it_began_with(checkout: Path, tmp_path: Path):
    run = tmp_path / "run"
    first = code_snapshot.take(run, "17")
    assert said(first, checkout) == "first\n"
    (checkout / "jobs" / "hello.py").write_text("print('second')\n")
    assert code_snapshot.take(run, "17") == first and said(first, checkout) == "first\n"
    other = code_snapshot.take(run, "18")  # a job of today
    assert other != first and said(other, checkout) == "second\n"
    (checkout / "jobs" / "hello.py").write_text("print('first')\n")
    assert code_snapshot.take(run, "19") == first and code_snapshot.take(run) == first  # equal code is kept once
    assert sorted(path.name for path in (run / "code").iterdir() if path.is_symlink()) == ["job-17", "job-18", "job-19"]


def test_what_is_kept(checkout: Path, tmp_path: Path):
    taken = code_snapshot.take(tmp_path / "run")
    kept = {str(path.relative_to(taken)) for path in taken.rglob("*") if path.is_file()}
    assert kept == {"jobs/__init__.py", "jobs/hello.py", "pyproject.toml", "slurm/env.sh", "SNAPSHOT"}
    assert (taken / ".venv").resolve() == checkout / ".venv"
    assert not list((tmp_path / "run" / "code").glob(".*"))


def test_a_snapshot_knows_its_commit(checkout: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(code_snapshot, "code_version", lambda: "0123456789ab+")
    taken = code_snapshot.take(tmp_path / "run")
    assert code_version(taken) == "0123456789ab+" != code_version()


def test_a_snapshot_is_not_copied_again(checkout: Path, tmp_path: Path):
    (checkout / code_snapshot.SNAPSHOT).write_text("abc\n")
    assert code_snapshot.take(tmp_path / "run", "17") == checkout and not (tmp_path / "run").exists()


def test_env_has_python_look_nowhere_else(tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(Path(code_snapshot.__file__).parents[2] / "slurm", home / "slurm")
    ask = f". {home}/slurm/env.sh; echo ${{PYTHONSAFEPATH:-no}} $PYTHONPATH"
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONSAFEPATH", "HTR_SITE")}

    def answer() -> str:
        return subprocess.run(["bash", "-c", ask], env=environ, capture_output=True, text=True, check=True).stdout

    assert answer().startswith(f"no {home}")
    (home / code_snapshot.SNAPSHOT).write_text("abc\n")
    assert answer().startswith(f"1 {home}")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("jobs.launch.code_snapshot.shutil.copy", full)
    with pytest.raises(OSError, match=rf"no snapshot of the code: No space left on device: '{tmp_path}/code'"):
        code_snapshot.take(tmp_path)
    assert not list((tmp_path / "code").iterdir())
