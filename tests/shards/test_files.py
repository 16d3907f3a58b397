"""Files that are whole or not there: a process that dies while it writes leaves what was there before."""

import errno
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shards import files

CHECKOUT = Path(__file__).parents[2]
OLD, NEW = "what was there before\n", "new " * 100_000
DIES = """
import os, resource, signal, sys
from pathlib import Path
from shards import files

how, moment, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
content = "new " * 100_000

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "write":  # the kernel ends the process within the write that goes beyond this size
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
else:
    setattr(os, moment, die)
if how == "replace":
    files.replace(path, content)
else:
    attempt = files.temporary(path)
    files.write_synced(attempt, content)
    files.commit(attempt, path)
"""


def killed(how: str, moment: str, path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", DIES, how, moment, str(path)], cwd=CHECKOUT, capture_output=True)
    assert done.returncode == -(signal.SIGXFSZ if moment == "write" else signal.SIGKILL), done.stderr.decode()


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_file_whose_next_content_is_cut_off_keeps_the_old_one(tmp_path, moment):
    path = tmp_path / "status.json"
    files.replace(path, OLD)
    killed("replace", moment, path)
    assert path.read_text(encoding="utf-8") == OLD
    [left] = [found for found in tmp_path.iterdir() if found != path]
    assert left.name.startswith(".status.json.") and left.suffix == ".tmp"  # which no reader takes for the file
    files.replace(path, NEW)
    assert path.read_text(encoding="utf-8") == NEW


@pytest.mark.parametrize(("number", "is_named"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, number, is_named):
    """As Arrow says it, by number alone. Another error may be of a file that was read meanwhile."""
    with pytest.raises(OSError) as caught, files.attempt_at(tmp_path / "a.parquet") as attempt:
        attempt.write_text("half")
        raise OSError(number, "no room")
    assert caught.value.filename == (str(tmp_path / "a.parquet") if is_named else None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="no number"), files.named(tmp_path / "a.parquet"):
        raise OSError("no number")


@pytest.mark.parametrize("moment", ["write", "fsync", "link"])
def test_a_file_is_not_there_until_it_is_whole(tmp_path, moment):
    path = tmp_path / "train-00000.tar"
    killed("commit", moment, path)
    assert not path.exists()
    attempt = files.temporary(path)
    files.write_synced(attempt, NEW)
    assert files.commit(attempt, path) and path.read_text(encoding="utf-8") == NEW


def test_the_first_to_commit_keeps_its_content(tmp_path):
    path = tmp_path / "train-00000.json"
    for number, content in enumerate((OLD, NEW)):
        attempt = files.temporary(path)
        files.write_synced(attempt, content)
        assert files.commit(attempt, path) == (number == 0)
    assert path.read_text(encoding="utf-8") == OLD and list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    files.replace(path, OLD)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*status\.json"):
        files.replace(path, NEW)
    assert path.read_text(encoding="utf-8") == OLD and list(tmp_path.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, commits):
    files.replace(tmp_path / "a", NEW)
    attempt = files.temporary(tmp_path / "b")
    files.write_synced(attempt, NEW)
    assert files.commit(attempt, tmp_path / "b") and commits == ["a", "b"]


# --- the folder on the node's own disk: of this user alone, or refused


def test_it_is_made_for_this_user_alone(tmp_path, monkeypatch):
    folder = files.own_folder(tmp_path / "disk")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and files.own_folder(tmp_path / "disk") == folder
    monkeypatch.setenv("HTR_SCRATCH", str(tmp_path / "scratch"))
    assert files.own_folder().parent == tmp_path / "scratch"


def test_one_that_others_may_write_in_is_refused(tmp_path):
    folder = Path(tmp_path / f"htr-{os.getuid()}")
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        files.own_folder(tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="not a folder that you alone may use"):
        files.own_folder(tmp_path)


@pytest.mark.parametrize("name", ["data", "-data", "--out", "-a b", "a'b", "./-x", "/a b"])
def test_a_path_in_a_command_that_is_told_is_that_path_and_no_option(name):
    [word] = shlex.split(files.in_shell(Path(name)))
    assert Path(word) == Path(name) and not word.startswith("-")
