"""The folder on the node's own disk: of this user alone, or refused."""

import os
import stat
from pathlib import Path

import pytest

from shards.local import own_folder


def test_it_is_made_for_this_user_alone(tmp_path, monkeypatch):
    folder = own_folder(tmp_path / "disk")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and own_folder(tmp_path / "disk") == folder
    monkeypatch.setenv("HTR_SCRATCH", str(tmp_path / "scratch"))
    assert own_folder().parent == tmp_path / "scratch"


def test_one_that_others_may_write_in_is_refused(tmp_path):
    folder = Path(tmp_path / f"htr-{os.getuid()}")
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        own_folder(tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        own_folder(tmp_path)
