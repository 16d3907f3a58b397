"""A rank without a pulse is named with its host, one that lives is not."""

import os
import time

from jobs.distributed import heartbeat
from jobs.distributed.heartbeat import Heartbeat


def test_silent_ranks_are_named_with_their_hosts(tmp_path):
    with Heartbeat(tmp_path, 0) as ours, Heartbeat(tmp_path, 1):
        wait_for(lambda: len(list(ours.folder.glob("[0-9]*"))) == 2)
        assert ours.blame() == ""
        for rank, host, age in ((3, "node2", 40), (2, "node1", 70), (4, "node2", 33), (5, "node4", 2)):
            path = ours.folder / f"{rank}-{host}"
            path.touch()
            os.utime(path, (time.time() - age,) * 2)
        said = ours.blame()
    assert "rank 2 on node1 (70 s), rank 3 on node2 (40 s), rank 4 on node2 (33 s)" in said
    assert said.endswith("--exclude=node1,node2") and "rank 5" not in said and "rank 0" not in said


def test_it_beats_until_it_ends_and_forgets_an_earlier_start(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_INTERVAL_S", 0.01)
    (tmp_path / ".pulse").mkdir()
    old = tmp_path / ".pulse" / "0-gone"
    old.touch()
    with Heartbeat(tmp_path, 0) as ours:
        assert not old.exists()
        wait_for(ours.path.exists)
        os.utime(ours.path, (0, 0))
        wait_for(lambda: ours.path.stat().st_mtime > 0)
    wait_for(lambda: not ours.path.exists())


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    with Heartbeat(tmp_path / "missing" / "folder", 0) as ours:
        assert ours.silent() == [] and ours.blame() == ""


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
