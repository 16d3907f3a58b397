"""What benchmarks/stream.py measures in processes of their own: reading and decoding alone, and memory."""

import contextlib
import json
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it is run as a program, too
from htr.models.encoder import EncoderConfig
from shards.index import Index, read_index
from shards.loader import AugmentConfig, Team, stream
from shards.reading import COLUMNS, Samples
from shards.sampler import EpochSampler, Weight
from support.process_memory import memory_gib

HEIGHT = EncoderConfig.height


def limit(index: Index, table: pa.Table, batch: int) -> int:
    rows = zip(*(table[name].to_pylist() for name in ("shard", "offset", "size")), strict=True)
    files: dict[str, int] = {}
    count = 0
    for shard, offset, size in rows:
        if shard not in files:
            files[shard] = os.open(index.folder / f"{shard}.tar", os.O_RDONLY)
        content = os.pread(files[shard], size, offset)
        count += cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    for handle in files.values():
        os.close(handle)
    return count


def bare(dataset: Path, processes: int) -> float:
    """Lines a second by the clock of so many processes at once that read and decode and do nothing else."""
    argv = [sys.executable, __file__, "bare", str(dataset)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    started = [subprocess.Popen(argv, **pipes) for _ in range(processes)]
    for process in started:
        process.stdout.readline()  # it is ready
    for process in started:
        process.stdin.write("go\n")
    return sum(float(process.communicate()[0]) for process in started)


def be_bare(dataset: str) -> None:
    cv2.setNumThreads(1)
    index, count = read_index(Path(dataset)), 0
    table = index.samples("train", columns=list(COLUMNS)).slice(0, 6000)
    print(limit(index, table, 0), flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    while time.monotonic() < began + 2:
        count += limit(index, table, 0)
    print(count / (time.monotonic() - began))


# ---------------------------------------------------------------------------- memory, in processes of their own


def peaks(dataset: Path, count: int, epochs: int, most: int, batch: int) -> list[float]:
    """The most GiB until the end of each epoch of so many lines, or of `most` lines of one."""
    argv = [sys.executable, __file__, "peaks", *map(str, (dataset, count, epochs, most, batch))]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak(dataset: str, count: int, epochs: int, most: int, batch: int) -> None:
    index = read_index(Path(dataset))
    table = index.samples("train", columns=list(COLUMNS))
    table = table.take(pa.array(np.arange(count) % table.num_rows))
    samples = Samples(index.folder, table)
    del table
    course = EpochSampler(samples.counts, samples.widths(HEIGHT), [Weight()], batch, epochs * (count // batch))
    found, highest = [], 0.0
    with Team(1) as team:
        processes = [os.getpid(), *(member.process.pid for member in team.members)]
        for epoch in course.epochs:
            batches = stream(samples, course.windows(epoch, seed=1), 0, 1, AugmentConfig(HEIGHT), team)
            with contextlib.closing(batches):
                for number, _ in enumerate(islice(batches, most // batch)):
                    if number % 20 == 0:
                        highest = max(highest, sum(map(memory_gib, processes)))
            found.append(highest)
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        be_bare(sys.argv[2])
    else:
        peak(sys.argv[2], *map(int, sys.argv[3:]))
