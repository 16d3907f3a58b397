"""The code that a run was begun with, in RUN/code: a job that waits, or comes back from the queue, runs what was there
when it was submitted, whatever became of the checkout.

    python -m jobs.launch.code_snapshot RUN JOB      in slurm/run.sh: prints the folder to run from

`python -m jobs submit train` takes it when it submits, `sbatch slurm/train.sh` when the job first starts.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from pathlib import Path

from jobs.cli.code_version import CHECKOUT, SNAPSHOT, code_version
from shards import files

PARTS = ("htr", "jobs", "shards", "slurm", "pyproject.toml")
LEFT = ("pretrained", "__pycache__")  # weights are no code


def take(run: Path, job: str | None = None) -> Path:
    """-> the folder of the snapshot of this code in RUN/code, made if it is not there. A job that had one before
    (`job`: its id) gets that one again.

    Code that is a snapshot itself is not copied. Raises OSError.
    """
    if (CHECKOUT / SNAPSHOT).exists():
        return CHECKOUT
    folder = run.absolute() / "code"
    link = folder / f"job-{job}"
    if job and link.exists():
        return link.resolve()
    paths = sources()
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0".encode() + (CHECKOUT / path).read_bytes())
    taken = folder / digest.hexdigest()[:12]
    if not taken.exists():
        attempt = files.temporary(taken)
        try:
            copy(paths, attempt)
        except OSError as error:
            shutil.rmtree(attempt, ignore_errors=True)
            raise OSError(error.errno, f"no snapshot of the code: {error.strerror}", str(folder)) from None
        try:
            attempt.rename(taken)
        except OSError:  # another job was quicker
            if not taken.exists():
                raise
            shutil.rmtree(attempt)
    if job:
        with contextlib.suppress(FileExistsError):
            link.symlink_to(taken.name)
    return taken


def copy(paths: list[Path], attempt: Path) -> None:
    for path in paths:
        (attempt / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / path, attempt / path)
    if (CHECKOUT / ".venv").exists():
        (attempt / ".venv").symlink_to((CHECKOUT / ".venv").resolve())
    # slurm/env.sh has python look for code nowhere else where this file is
    (attempt / SNAPSHOT).write_text(code_version() + "\n", encoding="utf-8")


def sources() -> list[Path]:
    """The files to keep, relative to the checkout."""
    found = []
    for part in PARTS:
        path = CHECKOUT / part
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found += [p.relative_to(CHECKOUT) for p in inside]
    return [path for path in found if not set(LEFT) & set(path.parts)]


if __name__ == "__main__":
    os.umask(0o027)
    try:
        print(take(Path(sys.argv[1]), sys.argv[2]))
    except OSError as error:  # a full disk
        sys.exit(f"error: {error}: make room, or mend that folder, then give the same command again")
