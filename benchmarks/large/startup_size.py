"""A training of many millions of texts begins: memory, time to the first batch, open files, planning (see startup.py).

The index is made: every shard is one and the same tar of drawn lines under another name. The ranks are processes of
this machine that do what `train` does until its batches come, without a model; a step is a pause. Each has one worker.

    private   GiB of a rank and its worker that are no file's (anonymous, and the batches between the two), less what
              the rank had after its imports, torch among them
    shared    GiB of the maps of the index, all of which may be in the node's memory, once
    first     s from the start of the slowest rank's process to its first batch, the maps being there; `maps_s` is what
              the first training of a data set takes for them beside that
    planning  CPU time of the thread that plans windows, as a share of steps of 50 ms; `order_s` is that of an epoch's
              first window, with the order of its blocks; and what the training's own thread spends on a batch
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[2]
LINES, GROUP = 10_000, 20  # of a shard; shards of a row group
STEP_S = 0.05
PRIVATE = ("Pss_Anon", "Pss_Shmem")  # memory that is no file's


def measure(folder: Path, rows: int, ranks: int, batch: int, steps: int) -> dict:
    """`folder` keeps the data set for the next time."""
    data = folder / f"made-{rows}"
    if not (data / "index.json").exists():
        make(data, rows)
    maps = data / "maps"
    began, made = time.monotonic(), not maps.exists()
    if made:
        run(data, 1, ranks, batch, 0)
    maps_s = time.monotonic() - began
    found = run(data, ranks, ranks, batch, steps)
    shared = sum(path.stat().st_size for path in maps.glob("*.map")) / 2**30
    figures = {
        "rows": rows,
        "ranks": ranks,
        "private_gib": max(one["private_gib"] for one in found),
        "shared_gib": shared,
        "first_batch_s": max(one["first_s"] for one in found),
        "open_files": max(one["open_files"] for one in found),
        "planning_share": max(one["planning_share"] for one in found),
        "order_s": max(one["order_s"] for one in found),
        "between_batches_ms": max(one["between_ms"] for one in found),
        "bytes_a_text": shared * 2**30 / rows,
    }
    if made:
        figures["maps_s"] = maps_s
    return figures


def run(data: Path, ranks: int, size: int, batch: int, steps: int) -> list[dict]:
    command = [sys.executable, __file__]
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    given = [[str(data), str(rank), str(size), str(batch), str(steps)] for rank in range(ranks)]
    processes = [
        subprocess.Popen(
            [*command, *each], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for each in given
    ]
    first = [process.stdout.readline() for process in processes]  # all have their first batch
    for process in processes:  # and go on together, so that what they share is seen as shared
        process.stdin.write("go on\n")
    found = [json.loads(process.stdout.readline()) for process in processes]
    for process in processes:
        process.stdin.close()
        if process.wait():
            sys.exit("error: a rank failed")
    return [one | {"first_s": float(seconds)} for one, seconds in zip(found, first, strict=True)]


# ---------------------------------------------------------------------------- a rank


def be_rank(data: str, rank: int, size: int, batch: int, steps: int) -> None:
    import torch  # noqa: F401
    from support.process_memory import memory_gib

    from jobs.training.config import DataConfig
    from jobs.training.data import TrainingData
    from jobs.training.trainer import Trainer  # noqa: F401
    from shards.loader import AugmentConfig, Team, stream
    from shards.sampler import EpochSampler
    from shards.window import Planner

    before, planned = memory_gib(os.getpid(), PRIVATE), []
    windows = Planner.windows

    def timed(self, given):
        found = windows(self, given)
        while True:
            began = time.thread_time()
            window = next(found, None)
            if window is None:
                return
            planned.append((time.thread_time() - began, len(window.steps)))
            yield window

    Planner.windows = timed
    material = TrainingData.open(DataConfig(dataset=Path(data)))
    samples = material.samples
    epochs = EpochSampler(samples.counts, samples.widths(48), material.weights, batch * size, 10**6)
    given = (window for epoch in epochs.epochs[:1] for window in epochs.windows(epoch, 1))
    with Team(1) as team:
        batches = stream(samples, given, rank, size, AugmentConfig(48, (1, 0)), team)
        next(batches)
        print(time.monotonic() - BEGAN, flush=True)
        sys.stdin.readline()
        between = 0.0
        for _ in range(steps):
            time.sleep(STEP_S)
            began = time.thread_time()
            next(batches)
            between += time.thread_time() - began
        processes = [os.getpid(), *(member.process.pid for member in team.members)]
        # the first one has the epoch's order in it, which is no part of any other
        (order_s, _), (seconds, count) = planned[0], (sum(part) for part in zip(*planned[1:], strict=True))
        said = {
            "private_gib": sum(memory_gib(process, PRIVATE) for process in processes) - before,
            "open_files": sum(len(os.listdir(f"/proc/{process}/fd")) for process in processes),
            "planning_share": seconds / count / STEP_S,
            "order_s": order_s,
            "between_ms": 1e3 * between / max(steps, 1),
        }
        print(json.dumps(said), flush=True)
        sys.stdin.read()


# ---------------------------------------------------------------------------- the made data set


def make(data: Path, rows: int) -> None:
    """One tar of drawn lines, under as many names as there are shards, and their index."""
    import cv2
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from shards import files
    from shards.tar import Tar

    data.mkdir(parents=True)
    rng, places = np.random.default_rng(0), []
    drawn = []
    for number in range(200):
        image = rng.integers(200, 240, (64, int(rng.integers(120, 900))), np.uint8)
        cv2.putText(image, f"grippe {number}", (6, 44), cv2.FONT_HERSHEY_SIMPLEX, 1, 30, 2, cv2.LINE_AA)
        drawn.append((image, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()))
    with open(data / "first", "wb") as file:
        tar = Tar(file)
        for number in range(LINES):
            image, content = drawn[number % len(drawn)]
            text = f"grippe {number % len(drawn)}".encode()
            offset = tar.add(f"{number:09d}_Ia_0", {"jpg": content, "txt": text, "json": b"{}"})
            places.append((offset, len(content), len(text), image.shape[1], image.shape[0], len(text)))
        digest = tar.close()
    names = [f"train-{number:05d}" for number in range(-(-rows // LINES))]
    for name in names:
        os.link(data / "first", data / f"{name}.tar")
    numbers = dict(zip(("offset", "size", "text_size", "width", "height", "length"), np.array(places).T, strict=True))
    columns = {name: pa.array(np.tile(values, GROUP)) for name, values in numbers.items()}
    writer = None
    for start in range(0, len(names), GROUP):
        some = names[start : start + GROUP]
        count = len(some) * LINES
        row = pa.array(np.arange(start * LINES, start * LINES + count))
        number = pc.utf8_lpad(row.cast(pa.string()), 9, "0")
        table = pa.table(
            {
                "row": row,
                "key": pc.binary_join_element_wise(number, "Ia", "0", "_"),
                "certificate": number,
                "shard": pa.concat_arrays([pa.repeat(name, LINES) for name in some]),
                "split": pa.repeat("train", count),
                "level": pa.repeat("line", count),
                **{name: values.slice(0, count) for name, values in columns.items()},
            }
        )
        writer = writer or pq.ParquetWriter(data / "index.parquet", table.schema, compression="lz4")
        writer.write_table(table)
    writer.close()
    shards = [{"shard": name, "split": "train", "count": LINES, "bytes": tar.size, "sha256": digest} for name in names]
    total = {"train": len(names) * LINES}
    note = {"format": 2, "fingerprint": "made", "alphabet": "0123456789 egipr", "rows": len(names) * LINES}
    note |= {"totals": total, "lines": total, "levels": {"line": len(names) * LINES}, "rejects": {}, "shards": shards}
    files.replace(data / "index.json", files.to_json({**note, "encoding": "jpg", "bytes": 0}))


if __name__ == "__main__":
    be_rank(sys.argv[1], *map(int, sys.argv[2:]))
