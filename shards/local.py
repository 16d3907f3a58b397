"""The node's own disk: a folder there of this user alone, since what lies in it is read without a check."""

import os
import stat
import tempfile
from pathlib import Path


def own_folder(disk: Path | None = None) -> Path:
    """A folder of this user on the node's own disk: below `disk`, HTR_SCRATCH, or the folder of temporary files. Raises
    ValueError where it belongs to another user."""
    disk = disk or Path(os.environ.get("HTR_SCRATCH") or tempfile.gettempdir())
    path = disk / f"htr-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        there = path.lstat()
        if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o077:
            raise ValueError(f"{path}: not a folder that you alone may use: set HTR_SCRATCH to another one") from None
    return path
