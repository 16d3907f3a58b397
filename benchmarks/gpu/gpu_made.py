"""What gpu_sections.py works on: lines and a data set that are drawn, random batches, trainings as processes."""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LINES, FEW = 16_000, 600  # of the data set; where there are few cores
HEIGHT, MEDIAN, SPREAD = 48, 700, 0.35  # px of a line; its width is log-normal
CAUSES = (
    "insuffisance cardiaque choc septique grippe cancer du sein chute infarctus du myocarde embolie pulmonaire "
    "pneumopathie d'inhalation AVC BPCO diabète de type 2 HTA démence sénile fracture du col 3 jours 2 mois"
)
WORDS = CAUSES.split()
ALL = ["--batch", "16", "--warmup", "5", "--log-every", "1", "--evaluate-every", "0", "--workers", "1"]
PLAIN = [*ALL, "--dropout", "0", "--teacher-noise", "0", "--augment", "none"]
DROPPED = [*ALL, "--augment", "light"]


def drawn(rng: random.Random) -> tuple[np.ndarray, str]:
    """A gray line and its text, some wide and some narrow as real ones are."""
    width = int(min(max(rng.lognormvariate(6.4, 0.45), 80), 2000))
    words = [rng.choice(WORDS)]
    while 15 * len(" ".join(words)) < width - 60:
        words.append(rng.choice(WORDS))
    text = " ".join(words)
    plain = text.translate(str.maketrans("éè", "ee"))  # OpenCV's font has no accents
    scale, face = rng.uniform(0.8, 1.1), rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX])
    (width, _), _ = cv2.getTextSize(plain, face, scale, 2)
    image = np.full((64, width + 20), 225, np.uint8)
    cv2.putText(image, plain, (10, 42), face, scale, rng.randint(20, 80), 2, cv2.LINE_AA)
    noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 25, image.shape, dtype=np.uint8)
    return image - noise // 2, text


def drawn_lines(count: int) -> list[np.ndarray]:
    rng = random.Random(3)
    return [drawn(rng)[0] for _ in range(count)]


# ---------------------------------------------------------------------------- a data set


def dataset() -> Path:
    """The data set that the part `data` makes, when it is there. Raises RuntimeError when that failed."""
    folder = Path(os.environ["GPU_CHECK_FOLDER"])
    while not (folder / "lines" / "ready").exists():
        if (folder / "no-data").exists():
            raise RuntimeError("no data set: see the part data")
        time.sleep(0.1)
    return folder / "lines" / "dataset"


def make_dataset() -> int:
    """Draw lines and preprocess them, on all cores. -> how many."""
    folder = Path(os.environ["GPU_CHECK_FOLDER"]) / "lines"
    folder.mkdir()
    from htr.io.sources import read_source
    from shards.index import merge
    from shards.plan import Settings, make_plan

    source = folder / "source"
    source.mkdir()
    count = LINES if len(os.sched_getaffinity(0)) > 4 else FEW
    with multiprocessing.get_context("fork").Pool() as pool:
        parts = pool.starmap(write_lines, [(source, first, min(first + 250, count)) for first in range(0, count, 250)])
        (source / "lines.csv").write_text("image,text,certificate\n" + "".join(parts), encoding="utf-8")
        table, images = read_source(source / "lines.csv")
        plan = make_plan(folder / "dataset", table, Settings(rows=500, shares={"train": 1.0}))
        pool.starmap(write_one, [(plan, number, images) for number in range(len(plan.shards))], chunksize=1)
    merge(plan)
    (folder / "ready").touch()
    return count


def write_lines(source: Path, first: int, end: int) -> str:
    rows = []
    for number in range(first, end):
        image, text = drawn(random.Random(number))
        cv2.imwrite(str(source / f"{number}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        rows.append(f'{number}.png,"{text}",c{number}\n')
    return "".join(rows)


def write_one(plan, number: int, images) -> None:
    from shards.write import write_shard

    write_shard(plan, number, images)


def batches_of(data: Path, batch: int, seed: int, workers: int, most: int = 0) -> Iterator | list:
    """A training's batches with medium augmentation, through the loader; with `most` so many, in a list."""
    from itertools import islice

    from shards.index import read_index
    from shards.loader import AugmentConfig, stream
    from shards.reading import COLUMNS, Samples
    from shards.sampler import EpochSampler, Weight

    samples = Samples(data, read_index(data).samples("train", columns=[*COLUMNS]))
    epochs = EpochSampler(samples.counts, samples.widths(HEIGHT), [Weight()], batch, 10**5)
    windows = (window for epoch in epochs.since(0) for window in epochs.windows(epoch, seed))
    found = stream(samples, windows, 0, 1, AugmentConfig(HEIGHT, (seed, 0), "medium"), workers)
    if not most:
        return found
    some = list(islice(found, most))
    found.close()
    return some


def random_batches(count: int, batch: int, labels: int, widest: int) -> list[tuple]:
    """Images (N, 1, H, W) in [0, 1], widths, accepted texts, characters; the last one has a line `widest` px wide."""
    import torch

    rng, found = np.random.default_rng(1), []
    all_widths = np.sort(np.clip(MEDIAN * np.exp(SPREAD * rng.standard_normal(batch * count)), 150, 2000).astype(int))
    all_widths[-1] = widest
    for widths in np.split(all_widths, count):
        images = np.zeros((batch, 1, HEIGHT, int(widths.max())), np.float32)
        for image, width in zip(images, widths, strict=True):
            image[0, :, :width] = rng.random((HEIGHT, width), np.float32)
        targets = [[rng.integers(1, labels, max(int(width) // 16, 1)).tolist()] for width in widths]
        found.append((torch.from_numpy(images), torch.from_numpy(widths), targets, sum(len(t[0]) for t in targets)))
    return found


# ---------------------------------------------------------------------------- trainings


def train(options: list[str], run: Path, program: list[str] | None = None, **environ: str) -> subprocess.Popen:
    """`python -m jobs train`, begun."""
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *(program or ["-m", "jobs"]), "train", options[0], "--run", str(run), *options[1:]]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SUBMITIT_"))}
    return subprocess.Popen(command, cwd=ROOT, env={**inherited, "HOROVOD_LOG_LEVEL": "warning", **environ})
