"""Workers: they die with their rank, say what went wrong, ignore its signals, and give back what was given out."""

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shards.index import read_index
from shards.loader import batches
from shards.open_shards import shards_under_way
from shards.reading import Samples
from shards.team import Team
from shards.worker import NOTE_BYTES

ROOT = Path(__file__).parents[2]


def plan(samples: Samples, batch: int = 4) -> list[np.ndarray]:
    return np.array_split(np.arange(len(samples)), len(samples) // batch)


def test_a_worker_that_is_killed_is_an_error_that_says_so(samples):
    with Team(2) as team:
        found = batches(samples, plan(samples), 0, 1, 48, team)
        next(found)
        os.kill(team.members[1].process.pid, signal.SIGKILL)
        with pytest.raises(OSError, match=r"a worker that decodes images was ended by signal 9 .*--workers"):
            list(batches(samples, plan(samples) * 50, 0, 1, 48, team))
        found.close()


def test_signals_are_the_rank_s_to_answer(samples):
    with Team(2) as team:
        for member in team.members:
            for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                os.kill(member.process.pid, each)
        assert sum(len(batch.rows) for batch in batches(samples, plan(samples), 0, 1, 48, team)) == len(samples)


def test_workers_end_with_their_rank_however_it_ends(tmp_path, dataset):
    program = f"""
import os, sys, numpy as np
from pathlib import Path
from shards.index import read_index
from shards.loader import Team, batches
from shards.reading import Samples
index = read_index(Path({str(dataset.folder)!r}))
samples = Samples(index.folder, index.samples("train"))
team = Team(2)
stream = batches(samples, [np.arange(8)] * 1000, 0, 1, 48, team)
next(stream)
print(*(member.process.pid for member in team.members), flush=True)
sys.stdin.read()
"""
    rank = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                            text=True)  # fmt: skip
    workers = list(map(int, rank.stdout.readline().split()))
    assert len(workers) == 2 and all(alive(pid) for pid in workers)
    rank.kill()
    rank.communicate()
    end = time.monotonic() + 250
    while any(alive(pid) for pid in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_a_shard_is_said_with_its_name(tmp_path, dataset, workers):
    index = read_index(shutil.copytree(dataset.folder, tmp_path / "lines"))
    samples = Samples(index.folder, index.samples("train"))
    path = index.folder / f"{samples.sources[0].shards[1]}.tar"
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    with Team(workers) as team:
        with pytest.raises(ValueError, match=rf"{path.name}: cut short or changed.*sample-.*jobs verify"):
            list(batches(samples, plan(samples), 0, 1, 48, team))
        path.write_bytes(content)  # the same workers go on
        assert sum(len(batch.rows) for batch in batches(samples, plan(samples), 0, 1, 48, team)) == len(samples)
    path.unlink()
    with pytest.raises(OSError, match=path.name) as error:
        list(batches(samples, plan(samples), 0, 1, 48, workers))
    assert error.value.errno == errno.ENOENT


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_take_turns_and_batches_are_given_back(samples, workers):
    with Team(workers) as team:
        training = batches(samples, plan(samples) * 30, 0, 1, 48, team, key=(1, 1))
        kept = [next(training) for _ in range(5)]
        before = [batch.images.clone() for batch in kept]
        for _ in range(3):  # evaluations in between
            assert len([batch.keys for batch in batches(samples, plan(samples), 0, 1, 48, team)]) == len(plan(samples))
        assert all((batch.images == copy).all() for batch, copy in zip(kept, before, strict=True))
        del kept
        for _ in range(20):
            next(training)
        gc.collect()
        most = team.regions.end
        for _ in training:
            pass
        assert team.regions.end == most  # what was used is used again
        training.close()
        assert sum(len(free) for free in team.regions.free.values()) > 0


def test_what_a_worker_reads_is_known_to_its_rank(samples):
    with Team(2) as team:
        assert not shards_under_way()
        note = team.regions.notes.batch((2, NOTE_BYTES))[1]
        note[:17] = np.frombuffer(b"train-00001.tar\0\0", np.uint8)
        assert shards_under_way() == ["train-00001.tar"]
    assert not shards_under_way()


def test_a_worker_needs_no_torch_and_no_index():
    program = "import sys, shards.worker; print(*(n for n in ('torch', 'pyarrow', 'pandas') if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
